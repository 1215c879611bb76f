//! Contenders: sessions of ours, and other engines on the same model and inputs.

use std::path::{Path, PathBuf};

use edgesmith_engines::{Compiled, Engine, Opened, Setup, Source};
use edgesmith_ir::{Result, Tensor};
use edgesmith_runtime::{Options, Session};

use super::{Inputs, Run, borrowed};

/// Runs of a session.
pub fn ours<'a>(mut session: Session, inputs: Inputs) -> Run<'a> {
    Box::new(move || session.run(&borrowed(&inputs)).map(drop))
}

/// Runs of another engine.
pub fn theirs<'a>(mut compiled: Box<dyn Compiled>, inputs: &Inputs) -> Run<'a> {
    let inputs: Vec<Tensor> = inputs.iter().map(|(_, t)| t.clone()).collect();
    Box::new(move || compiled.run(&inputs).map(drop))
}

/// Opens the engine called `name`.
///
/// # Errors
/// When there is none, or its library is not found here.
pub fn open(name: &str) -> Result<Opened> {
    Engine::find(name)?.open(&folders())
}

/// A model as a peer makes it ready, for inputs of these shapes and with these threads and this
/// precision.
///
/// # Errors
/// What the engine says.
pub fn compile(
    engine: &Opened,
    path: &Path,
    inputs: &Inputs,
    options: &Options,
) -> Result<Box<dyn Compiled>> {
    let shapes = inputs.iter().map(|(n, t)| (n.clone(), t.dims().to_vec()));
    let setup = Setup {
        threads: super::threads(options.threads),
        shapes: shapes.collect(),
        narrow: options.bf16,
        ..Setup::default()
    };
    engine.compile(Source::File(path), &setup)
}

/// Where the libraries of engines may lie: what `EDGESMITH_LIBRARIES` names, the folders of the
/// system's loader, and the Python environments whose programs are on the path.
pub fn folders() -> Vec<PathBuf> {
    let listed = |name: &str| -> Vec<PathBuf> {
        let value = std::env::var_os(name);
        value.map_or_else(Vec::new, |v| std::env::split_paths(&v).collect())
    };
    let mut folders = listed("EDGESMITH_LIBRARIES");
    folders.extend(listed("LD_LIBRARY_PATH"));
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV") {
        let bin = PathBuf::from(environment).join("bin");
        folders.extend(edgesmith_engines::site_packages(&bin));
    }
    for bin in listed("PATH") {
        folders.extend(edgesmith_engines::site_packages(&bin));
    }
    folders.extend(["/usr/local/lib", "/usr/lib"].map(PathBuf::from));
    let triple = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    folders.push(triple.into());
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|f| seen.insert(f.clone()));
    folders
}
