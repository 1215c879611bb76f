//! `edgesmith run`: npz in, npz out.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::npz;
use edgesmith_ir::Error;
use edgesmith_kernels::cpu::Isa;
use edgesmith_report::format::plural;
use edgesmith_runtime::{Options, Provider, Session};

use super::{
    Command, dense_arg, force_arg, level_arg, model_arg, option, precision_arg, providers_arg,
    text, threads_arg,
};
use crate::measure::peers;
use crate::opened::Opened;
use crate::{arrays, ui};

/// The command.
pub static RUN: Command = Command {
    name: "run",
    about: "Run a model on the arrays of an npz file",
    teach: "The input file has an array for each model input, by name; other arrays (labels) are \
            left alone.\nElement 2 of a sequence `x` is the array x.2, its length x.length; a map \
            is x.keys and x.values;\nan optional that holds nothing is x.nothing.\nExample: edgesmith run model.onnx --input test.npz --output answers.npz",
    args: |c| {
        c.arg(model_arg())
            .arg(option("input", "IN.npz", "The inputs").required(true))
            .arg(option("output", "OUT.npz", "Where the outputs go").required(true))
            .arg(level_arg("extended"))
            .arg(providers_arg())
            .arg(precision_arg())
            .arg(dense_arg())
            .arg(threads_arg("0", "Threads; 0 is one for each core"))
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let path = Path::new(text(matches, "model"));
    let output = Path::new(text(matches, "output"));
    if output.exists() && !matches.get_flag("force") {
        return Err(Error::usage("the file exists already")
            .at(output.display().to_string())
            .hint("give another name, or --force to overwrite it")
            .into());
    }
    let opened = Opened::open(path)?;
    let options = options(matches)?;
    let (model, mut session) = opened.session(text(matches, "level"), &options)?;
    let arrays = npz::read(Path::new(text(matches, "input")))?;
    let outputs = session.run_items(&arrays::inputs(&model, &arrays)?)?;
    warn_of_devices(&session, &options);
    let named = arrays::outputs(&model, &outputs);
    npz::write(output, &named, matches.get_flag("force"))?;
    Ok(())
}

/// Providers of other crates than the runtime's.
pub static MORE: LazyLock<Vec<&'static Provider>> = LazyLock::new(|| {
    let all = edgesmith_engines::PROVIDERS.iter();
    all.chain(edgesmith_codegen::PROVIDERS).copied().collect()
});

/// The runtime options of a command with `--threads`, `--precision`, `--dense-kernels` and
/// `--providers`.
pub fn options(matches: &ArgMatches) -> edgesmith_ir::Result<Options> {
    let mut options = Options {
        isa: Some(isa()?),
        more: &MORE,
        libraries: peers::folders(),
        packed: Some(edgesmith_formats::release),
        ..Options::default()
    };
    if let Ok(Some(&threads)) = matches.try_get_one("threads") {
        options.threads = threads;
    }
    let precision = matches.try_get_one::<String>("precision");
    options.bf16 = precision.is_ok_and(|p| p.is_some_and(|p| p == "bf16"));
    let dense = matches.try_get_one::<bool>("dense-kernels");
    options.sparse = !dense.is_ok_and(|dense| dense.is_some_and(|dense| *dense));
    if let Ok(Some(providers)) = matches.try_get_many::<String>("providers") {
        options.providers = providers.cloned().collect();
    }
    Ok(options)
}

/// Says which devices failed, and that others ran their parts; and which have none.
pub fn warn_of_devices(session: &Session, options: &Options) {
    for fault in session.faults() {
        ui::say(&format!(
            "warning: {fault}; the providers after it ran its part"
        ));
    }
    let failures = session.failures();
    for f in &failures {
        ui::say(&format!(
            "warning: {} could not make {} ready: {}; the providers after it run {}",
            f.provider,
            plural(f.nodes as u64, "node"),
            f.why,
            if f.nodes == 1 { "it" } else { "them" }
        ));
    }
    let parts = session.parts();
    let all = || edgesmith_runtime::PROVIDERS.iter().chain(MORE.iter());
    for named in &options.providers {
        let name = named.split(':').next().unwrap_or_default();
        let takes_parts = all().any(|p| p.name == name && p.takes_parts());
        let failed = failures.iter().any(|f| f.provider == name);
        if takes_parts && !failed && !parts.iter().any(|p| p.provider == name) {
            ui::say(&format!(
                "warning: {name} took no node: `edgesmith inspect MODEL --providers {}` says why",
                options.providers.join(",")
            ));
        }
    }
}

/// The instruction set that kernels use: the best of this machine, capped by `EDGESMITH_ISA`.
pub fn isa() -> edgesmith_ir::Result<Isa> {
    let cap = match std::env::var("EDGESMITH_ISA") {
        Ok(name) => Some(Isa::parse(&name).ok_or_else(|| {
            let names: Vec<&str> = Isa::ALL.iter().map(|i| i.name()).collect();
            Error::usage(format!(
                "EDGESMITH_ISA: there is no instruction set \"{name}\""
            ))
            .hint(format!("they are {}", names.join(", ")))
        })?),
        Err(_) => None,
    };
    Ok(Isa::detect_capped(cap))
}
