//! `edgesmith bench`: the latency of models here, alone or beside other engines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, ArgMatches};
use edgesmith_formats::npz;
use edgesmith_ir::{Error, Model, Tensor};
use edgesmith_report::evidence::Latency;
use serde::Serialize;

use super::{
    Command, dense_arg, dim_arg, dims, flag, json_arg, level_arg, option, precision_arg,
    providers_arg, text, threads_arg,
};
use crate::measure::cold::{self, Cold};
use crate::measure::sustained::{self, Second};
use crate::measure::{self, Effort, Inputs, peers};
use crate::opened::Opened;
use crate::ui;

mod profile;
mod show;

use profile::Profiled;

/// The command.
pub static BENCH: Command = Command {
    name: "bench",
    about: "Measure the latency of models here, alone or beside other engines",
    teach: "Without --input the inputs are random, symbolic dimensions are 1 unless --dim sets \
            them.\n--vs runs another engine on the same file and inputs, in turn with ours; its \
            library is looked for\nin the folders of EDGESMITH_LIBRARIES, those of the system and \
            the Python environments on the path.\nExample: edgesmith bench model.onnx --threads \
            1 --vs onnxruntime,openvino --profile",
    args: |c| {
        c.arg(
            clap::Arg::new("model")
                .value_name("MODEL")
                .required(true)
                .num_args(1..)
                .help("The ONNX models to read"),
        )
        .arg(option(
            "input",
            "IN.npz",
            "Inputs, the first sample of each is used",
        ))
        .arg(dim_arg())
        .arg(level_arg("extended"))
        .arg(providers_arg())
        .arg(precision_arg())
        .arg(dense_arg())
        .arg(threads_arg("1", "Threads; 0 is one for each core"))
        .arg(
            option(
                "iterations",
                "N",
                "Rounds: in each, a model runs once, or as often as 5 ms have room for",
            )
            .value_parser(clap::value_parser!(u32).range(1..))
            .default_value("100"),
        )
        .arg(
            option("vs", "PEER", "Engines to measure beside ours, in turn")
                .value_parser(["onnxruntime", "openvino"])
                .value_delimiter(',')
                .action(ArgAction::Append),
        )
        .arg(
            option(
                "cold-starts",
                "N",
                "Processes that load the model and run it once",
            )
            .value_parser(clap::value_parser!(usize))
            .default_value("3"),
        )
        .arg(
            option(
                "sustained",
                "TIME",
                "Run without a pause for so long (60, 60s, 2m), and tell each second",
            )
            .value_parser(sustained::seconds),
        )
        .arg(option("sysfs", "DIR", "Where clocks and temperatures are read").default_value("/sys"))
        .arg(option("cold", "CONTENDER", "").hide(true))
        .arg(flag("profile", "Print the time of each node"))
        .arg(json_arg())
    },
    run,
};

/// What was measured of one model.
#[derive(Serialize)]
struct Measured {
    model: String,
    #[serde(flatten)]
    latency: Latency,
    /// In a process of its own: `load_ms`, `first_ms`, `peak_bytes`.
    cold: Option<Cold>,
    /// Of the plan that ran: `arena_bytes`, `lower_bound`, `weight_bytes`.
    memory: Option<Held>,
    vs: Vec<Peer>,
    sustained: Vec<Second>,
    /// With --profile.
    #[serde(flatten)]
    profile: Profiled,
}

/// What a session holds.
#[derive(Clone, Copy, Serialize)]
struct Held {
    /// The arena of activations.
    arena_bytes: usize,
    /// The most that lives at one time: no arena can be smaller.
    lower_bound: usize,
    /// Packed weights.
    weight_bytes: usize,
}

/// Another engine on the same model.
#[derive(Serialize)]
struct Peer {
    engine: &'static str,
    version: String,
    latency: Latency,
    /// Our CPU time in parts of the peer's: below 1 is faster.
    cpu_ratio: f64,
    /// The same of wall time.
    ratio: f64,
    /// Quartiles of the ratios of CPU time, round by round.
    spread: [f64; 2],
    cold: Option<Cold>,
    /// The largest difference of outputs in parts of the largest output.
    difference: Option<f64>,
}

fn run(matches: &ArgMatches) -> Result<()> {
    let models = matches.get_many::<String>("model").into_iter().flatten();
    let models: Vec<PathBuf> = models.map(PathBuf::from).collect();
    if let (Some(contender), [model]) = (matches.get_one::<String>("cold"), &models[..]) {
        let inputs = inputs(matches, &Opened::open(model)?.model)?;
        let options = super::run::options(matches)?;
        let level = text(matches, "level");
        return ui::print_json(&cold::here(contender, model, level, &options, &inputs)?);
    }
    let mut all = Vec::new();
    for path in &models {
        all.push(measured(matches, path)?);
    }
    match (matches.get_flag("json"), &all[..]) {
        (true, [one]) => ui::print_json(one),
        (true, all) => ui::print_json(&serde_json::json!({ "models": all })),
        (false, all) => Ok(ui::print(&show::text(all))?),
    }
}

/// The inputs of `--input`, or random ones of the lengths of `--dim`.
pub fn inputs(matches: &ArgMatches, model: &Model) -> Result<Inputs> {
    Ok(match matches.get_one::<String>("input") {
        Some(path) => measure::first_samples(model, &npz::read(Path::new(path))?)?,
        None => measure::random_inputs(model, &dims(matches, model)?)?,
    })
}

fn measured(matches: &ArgMatches, path: &Path) -> Result<Measured> {
    let opened = Opened::open(path)?;
    let inputs = inputs(matches, &opened.model)?;
    let options = super::run::options(matches)?;
    let threads = measure::threads(options.threads);
    let effort = Effort {
        iterations: matches
            .get_one::<u32>("iterations")
            .map_or(100, |&n| n as usize),
        budget: Duration::from_secs(60),
    };
    let names = matches.get_many::<String>("vs").into_iter().flatten();
    let engines: Vec<_> = names.map(|n| peers::open(n)).collect::<Result<_, _>>()?;
    if opened.is_prepared() && !engines.is_empty() {
        return Err(Error::usage("no other engine reads a prepared file")
            .at(path.display().to_string())
            .hint("give the model itself, or leave --vs out")
            .into());
    }
    let hinted = |e: Error| match matches.contains_id("input") {
        true => e,
        false => measure::with_lengths_hint(e, &opened.model),
    };
    let session = opened.session(text(matches, "level"), &options);
    let (model, mut session) = session.map_err(hinted)?;
    let ours = session.run(&measure::borrowed(&inputs)).map_err(hinted)?;
    super::run::warn_of_devices(&session, &options);
    let memory = session.memory().map(|m| Held {
        arena_bytes: m.arena_bytes,
        lower_bound: m.lower_bound,
        weight_bytes: m.weight_bytes,
    });
    let mut runs = vec![peers::ours(session, inputs.clone())];
    let mut differences = Vec::new();
    for engine in &engines {
        let mut compiled = peers::compile(engine, path, &inputs, &options)?;
        let fed: Vec<Tensor> = inputs.iter().map(|(_, t)| t.clone()).collect();
        let theirs = compiled.run(&fed).map_err(|e| e.at(engine.name()))?;
        differences.push(difference(&ours, &theirs));
        runs.push(peers::theirs(compiled, &inputs));
    }
    let times = measure::interleaved(&mut runs, effort, &ui::Bar::default())?;
    let seconds = match matches.get_one::<u64>("sustained") {
        Some(&seconds) => {
            let sysfs = Path::new(text(matches, "sysfs"));
            sustained::sustained(&mut runs[0], seconds, sysfs, &ui::Bar::default())?
        }
        None => Vec::new(),
    };
    drop(runs);
    let contenders = [cold::OURS]
        .into_iter()
        .chain(engines.iter().map(|e| e.name()));
    let contenders: Vec<&str> = contenders.collect();
    let starts = matches.get_one("cold-starts").copied().unwrap_or(0);
    let mut colds = cold::each(path, matches, &contenders, starts)?.into_iter();
    let cold = colds.next();
    let vs = engines.iter().zip(&times[1..]).zip(differences);
    let vs = vs.map(|((engine, theirs), difference)| {
        let ratio = times[0].ratio(theirs);
        Peer {
            engine: engine.name(),
            version: engine.version.clone(),
            latency: theirs.latency(threads),
            cpu_ratio: ratio.cpu,
            ratio: ratio.wall,
            spread: ratio.spread,
            cold: colds.next(),
            difference,
        }
    });
    Ok(Measured {
        model: path.display().to_string(),
        latency: times[0].latency(threads),
        cold,
        memory,
        vs: vs.collect(),
        sustained: seconds,
        profile: match matches.get_flag("profile") {
            true => profile::profile(&model, options, &inputs)?,
            false => Profiled::default(),
        },
    })
}

/// The largest difference in parts of the largest output; `None` where the outputs are no floats.
fn difference(ours: &[Tensor], theirs: &[Tensor]) -> Option<f64> {
    let (mut apart, mut largest) = (0f64, 0f64);
    let mut any = false;
    for (a, b) in ours.iter().zip(theirs) {
        if !a.dtype().is_float() || a.dims() != b.dims() {
            continue;
        }
        for (x, y) in a.to_f32().ok()?.iter().zip(b.to_f32().ok()?.iter()) {
            apart = apart.max(f64::from((x - y).abs()));
            largest = largest.max(f64::from(y.abs()));
            any = true;
        }
    }
    any.then(|| apart / largest.max(f64::MIN_POSITIVE))
}
