//! `edgesmith prepare`: a model with its weights packed for this CPU, in one file.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::prepared::{self, Image};
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::types::TensorType;
use edgesmith_ir::{Model, ValueId};
use edgesmith_report::format::{self, plural};
use edgesmith_runtime::Session;

use super::{
    Command, dim_arg, dims, force_arg, level_arg, model_arg, option, output_arg, precision_arg,
    text,
};
use crate::{measure, opened, ui};

/// The command.
pub static PREPARE: Command = Command {
    name: "prepare",
    about: "Optimise a model, pack its weights for this CPU, and keep both in a file",
    teach: "The file is mapped, not read: `run` and `bench` take it in place of a model, and start \
            sooner.\nOn a CPU with other instructions it runs as well, but packs its weights \
            anew: for that the weights\nof the model are in the file too, and it is larger than the \
            model.\nWhere lengths decide what runs (recurrent models, bodies of If), give --input or \
            --dim.\nExample: edgesmith prepare model.onnx -o model.prepared",
    args: |c| {
        c.arg(model_arg())
            .arg(output_arg("Where the prepared file goes"))
            .arg(option(
                "input",
                "IN.npz",
                "Run once on these, for what is known only in a run to be packed too",
            ))
            .arg(dim_arg())
            .arg(level_arg("extended"))
            .arg(precision_arg())
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let source = opened::open(Path::new(text(matches, "model")))?;
    let optimized = opened::optimized(&source, text(matches, "level"))?;
    let options = super::run::options(matches)?;
    let image = Image::of(&optimized)?;
    let model = image.model()?;
    let mut session = Session::prepare(&model, &options)?;
    if matches.contains_id("input") || matches.contains_id("dim") {
        let inputs = super::bench::inputs(matches, &model)?;
        let run = session.run(&measure::borrowed(&inputs));
        // Random data may ask for what the model does not do; what is not packed then is said.
        if matches.contains_id("input") {
            run?;
        }
    }
    warn_of_rest(&mut session, &model, matches)?;
    let packed = session.packed();
    let weights: Vec<(String, Vec<&[u8]>)> = packed
        .iter()
        .map(|node| (node.name.clone(), node.parts()))
        .collect();
    let output = Path::new(text(matches, "output"));
    let settings = opened::settings(&options);
    let force = matches.get_flag("force");
    prepared::write(output, force, settings, &image, &weights)?;
    let bytes: usize = weights.iter().flat_map(|(_, p)| p).map(|p| p.len()).sum();
    ui::say(&format!(
        "{} with {} of packed weights",
        plural(weights.len() as u64, "node"),
        format::bytes(bytes as u64)
    ));
    Ok(())
}

/// Packs what the graphs inside nodes read, as far as lengths are known; says what is not packed.
fn warn_of_rest(session: &mut Session, model: &Model, matches: &ArgMatches) -> Result<()> {
    let given = dims(matches, model)?;
    let given: Vec<(&str, usize)> = given.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let left = match matches.get_one::<String>("input") {
        Some(_) => {
            let inputs = super::bench::inputs(matches, model)?;
            let of = |name: &str| inputs.iter().find(|(n, _)| n == name);
            let named = model
                .graph
                .inputs
                .iter()
                .map(|&v| model.graph.value(v).name.as_str());
            let types: Option<Vec<TensorType>> = named.map(|n| Some(of(n)?.1.ty())).collect();
            types.map(|t| session.plan_ahead(&t))
        }
        None => lengths::workable_inputs(model, &given)
            .ok()
            .and_then(|inputs| {
                let of = |v: ValueId| inputs.iter().find(|(i, _)| *i == v)?.1.tensor().cloned();
                let types: Option<Vec<TensorType>> =
                    model.graph.inputs.iter().map(|&v| of(v)).collect();
                Some(session.plan_ahead(&types?))
            }),
    };
    let open = match &opened::open_axes(model)[..] {
        [] => String::new(),
        open => format!(", or --dim NAME=N ({})", open.join(", ")),
    };
    let give = match matches.contains_id("input") {
        true => ": this input does not reach them".to_owned(),
        false => format!(": give --input{open}"),
    };
    match left {
        Some(Ok(left)) if left.is_empty() => {}
        Some(Ok(mut left)) => {
            left.dedup();
            ui::say(&format!(
                "warning: weights of \"{}\"{} are packed in a run only, when lengths there are \
             known{give}",
                left[0],
                match left.len() {
                    1 => String::new(),
                    n => format!(" and {} more", plural(n as u64 - 1, "node")),
                }
            ));
        }
        // What is packed already did not wait for lengths.
        None | Some(Err(_)) if !session.packed().is_empty() => {}
        None | Some(Err(_)) => ui::say(&format!(
            "warning: weights are packed in a run only, when lengths are known{give}"
        )),
    }
    Ok(())
}
