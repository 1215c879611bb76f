//! `edgesmith bench`: the latency of one model.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::npz;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::{NodeProfile, Session};
use serde_json::json;

use super::{
    Command, dim_arg, dims, flag, json_arg, level_arg, model_arg, option, providers_arg, text,
    threads_arg,
};
use crate::measure::{self, Effort, Inputs};
use crate::{opened, ui};

/// The command.
pub static BENCH: Command = Command {
    name: "bench",
    about: "Measure the latency of a model here",
    teach: "Without --input the inputs are random, symbolic dimensions are 1 unless --dim sets \
            them.\nExample: edgesmith bench model.onnx --threads 1 --profile",
    args: |c| {
        c.arg(model_arg())
            .arg(option(
                "input",
                "IN.npz",
                "Inputs, the first sample of each is used",
            ))
            .arg(dim_arg())
            .arg(level_arg("extended"))
            .arg(providers_arg())
            .arg(threads_arg("1", "Threads; 0 is one for each core"))
            .arg(
                option("iterations", "N", "Runs that count")
                    .value_parser(clap::value_parser!(usize))
                    .default_value("100"),
            )
            .arg(flag("profile", "Print the time of each node"))
            .arg(json_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let model = opened::open(Path::new(text(matches, "model")))?;
    let model = opened::optimized(&model, text(matches, "level"))?;
    let options = super::run::options(matches)?;
    let threads = measure::threads(options.threads);
    let inputs = match matches.get_one::<String>("input") {
        Some(path) => measure::first_samples(&model, &npz::read(Path::new(path))?)?,
        None => measure::random_inputs(&model, &dims(matches))?,
    };
    let iterations = matches.get_one("iterations").copied().unwrap_or(100);
    let effort = Effort {
        iterations,
        budget: Duration::from_secs(60),
    };
    let session = Session::prepare(&model, &options)?;
    let mut sessions = [(session, inputs.clone())];
    let latency =
        measure::interleaved(&mut sessions, effort, threads, &ui::Bar::default())?.remove(0);
    let profile = if matches.get_flag("profile") {
        profile(&model, options, &inputs)?
    } else {
        Vec::new()
    };
    if matches.get_flag("json") {
        let nodes: Vec<_> = profile
            .iter()
            .map(|n| {
                json!({"name": n.name, "op": n.op, "provider": n.provider, "kernel": n.kernel,
                    "integer": n.integer, "ms": per_call_ms(n), "macs": n.macs})
            })
            .collect();
        let mut object = serde_json::to_value(&latency)?;
        object["nodes"] = json!(nodes);
        return ui::print_json(&object);
    }
    let ms = format::ms;
    ui::print(&format!(
        "median {}, p95 {}, min {} over {} runs on {}",
        ms(latency.p50_ms),
        ms(latency.p95_ms),
        ms(latency.min_ms),
        latency.iterations,
        format::plural(threads as u64, "thread")
    ))?;
    if !profile.is_empty() {
        ui::print(&profile_table(&profile))?;
    }
    Ok(())
}

/// Profiles in a session of its own, so that the clock calls do not touch the latency.
fn profile(
    model: &edgesmith_ir::Model,
    options: edgesmith_runtime::Options,
    inputs: &Inputs,
) -> edgesmith_ir::Result<Vec<NodeProfile>> {
    let mut session = Session::prepare(
        model,
        &edgesmith_runtime::Options {
            profile: true,
            ..options
        },
    )?;
    let borrowed = measure::borrowed(inputs);
    for _ in 0..3 {
        session.run(&borrowed)?;
    }
    session.reset_profile();
    for _ in 0..10 {
        session.run(&borrowed)?;
    }
    Ok(session.profile().nodes)
}

fn per_call_ms(n: &NodeProfile) -> f64 {
    n.ns as f64 / 1e6 / n.calls.max(1) as f64
}

fn profile_table(nodes: &[NodeProfile]) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("provider"),
        Column::left("kernel"),
        Column::right("ms"),
        Column::right("GMAC/s"),
    ]);
    for n in nodes {
        let ms = per_call_ms(n);
        let rate = if n.macs == 0 {
            format::MISSING.into()
        } else {
            format!("{:.1}", n.macs as f64 / ms / 1e6)
        };
        table.row([
            n.name.as_str(),
            &n.op,
            &n.provider,
            &n.kernel,
            &format!("{ms:.4}"),
            &rate,
        ]);
    }
    table.to_text(&ui::style())
}
