//! `edgesmith prepare`: a model with its weights packed for this CPU, in one file.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::prepared::{self, Image};
use edgesmith_report::format;
use edgesmith_runtime::Session;

use super::{
    Command, dim_arg, force_arg, level_arg, model_arg, option, output_arg, precision_arg, text,
};
use crate::{measure, opened, ui};

/// The command.
pub static PREPARE: Command = Command {
    name: "prepare",
    about: "Optimise a model, pack its weights for this CPU, and keep both in a file",
    teach: "The file is mapped, not read: `run` and `bench` take it in place of a model, and start \
            sooner.\nOn a CPU with other instructions it runs as well, but packs its weights \
            anew.\nWhere lengths decide what runs (recurrent models, bodies of If), give --input or \
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
        session.run(&measure::borrowed(&inputs))?;
    }
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
        "{} nodes with {} of packed weights",
        weights.len(),
        format::bytes(bytes as u64)
    ));
    Ok(())
}
