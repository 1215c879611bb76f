//! Generated code on its board: built, run on samples, and measured.

pub mod asked;
mod build;
mod counts;
mod elf;
mod emulate;
mod process;
mod proof;
mod tools;

use std::path::Path;
use std::time::Duration;

use edgesmith_codegen::boards::{Board, Compiler, Interface, harness};
use edgesmith_ir::{Error, Progress, Result};

use build::Build;
use process::{Folder, refused};

/// How generated code is built and run.
pub struct Run<'a> {
    /// Where it runs.
    pub board: &'static Board,
    /// Which compiler makes it: one of the board's.
    pub compiler: &'static Compiler,
    /// `O2`, `O3` or `Os`.
    pub optimize: &'a str,
    /// On the host, with the address and the undefined-behaviour sanitizer.
    pub sanitize: bool,
    /// Count instructions of each layer and of each function too, on the first sample.
    pub by_layer: bool,
    /// How long the board may take for all samples.
    pub limit: Duration,
    /// How many emulators run at the same time; each takes its part of the samples.
    pub jobs: usize,
    /// Learns that the work should stop.
    pub progress: &'a dyn Progress,
}

/// What a board gave and what was measured.
pub struct Measured {
    /// Bytes of all outputs, one after another, of each sample.
    pub outputs: Vec<Vec<u8>>,
    /// The outputs of the first sample of the build with marks between layers, where layers were asked for. The
    /// compiler may have made other code of it.
    pub marked: Option<Vec<u8>>,
    /// Bytes of the arena, as the generated header says.
    pub arena: u64,
    /// The line in which the compiler says its version.
    pub compiler: String,
    /// What an emulated board tells.
    pub board: Option<OnBoard>,
    /// Seconds of this machine for all samples, building left out.
    pub seconds: f64,
}

/// What an emulated board tells.
pub struct OnBoard {
    /// Bytes of flash.
    pub flash: Flash,
    /// Bytes of all variables of the network, the arena among them.
    pub ram: u64,
    /// Bytes of the stack that an inference uses.
    pub stack: u64,
    /// Instructions of an inference: the fewest and the most of all samples.
    pub instructions: (u64, u64),
    /// Instructions of each layer of the first sample; empty where they were not asked for. Each counts a call
    /// that tells where it begins, two instructions or three.
    pub layers: Vec<u64>,
    /// Instructions of each function of the first sample with what it computes itself, most first; of
    /// starting the network too.
    pub functions: Vec<(String, u64)>,
}

/// Bytes of flash by what they are. The program around the network is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flash {
    /// Instructions of network and kernels, with constants among them.
    pub code: u64,
    /// Weights: what stands in the section of weights.
    pub weights: u64,
    /// Constants of the network and of its kernels that are no weights: parameters of layers, tables.
    pub constants: u64,
    /// First values of variables.
    pub data: u64,
    /// `memcpy`, `memset` and functions of the compiler for arithmetic that the core does not have.
    pub support: u64,
}

impl Flash {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.without_weights() + self.weights
    }

    /// All but the weights.
    pub fn without_weights(&self) -> u64 {
        self.code + self.constants + self.data + self.support
    }
}

/// Builds the files of a firmware, runs it on `samples` (bytes of all inputs, one after another, in each),
/// and measures. The network is started anew for each sample.
///
/// # Errors
/// When a tool is missing, the code does not compile without a warning or calls what it may not, the board
/// faults, hangs or gives too little, or the work is cancelled.
pub fn run(
    files: &[(String, String)],
    interface: &Interface,
    samples: &[Vec<u8>],
    settings: &Run,
) -> Result<Measured> {
    check(interface, samples)?;
    let folder = Folder::new()?;
    for (name, text) in files {
        write(folder.path(), name, text.as_bytes())?;
    }
    write(folder.path(), "main.c", harness(interface).as_bytes())?;
    let build = Build::new(settings, folder.path(), interface, files)?;
    let program = build.program(false)?;
    let plain = emulate::run(&build, &program, samples, settings)?;
    let board = match plain.counts.is_empty() {
        true => None,
        false => Some(OnBoard {
            flash: program.flash(),
            ram: program.ram(),
            stack: plain.stack,
            instructions: span(&plain.counts),
            layers: Vec::new(),
            functions: Vec::new(),
        }),
    };
    let mut measured = Measured {
        arena: plain.arena,
        compiler: build.version(),
        board,
        seconds: plain.seconds,
        outputs: plain.outputs,
        marked: None,
    };
    if let Some(board) = measured.board.as_mut().filter(|_| settings.by_layer) {
        let program = build.program(true)?;
        let marked = emulate::run(&build, &program, &samples[..1], settings)?;
        board.layers = marked.layers(interface.layers)?;
        board.functions = marked.functions;
        measured.marked = marked.outputs.into_iter().next();
    }
    Ok(measured)
}

fn check(interface: &Interface, samples: &[Vec<u8>]) -> Result<()> {
    let bytes = interface.sample_bytes();
    if bytes == 0 {
        return Err(Error::unsupported(
            "a network without inputs has no samples to run on",
        ));
    }
    if samples.is_empty() {
        return Err(Error::usage("there is no sample to run on"));
    }
    match samples.iter().position(|s| s.len() != bytes) {
        None => Ok(()),
        Some(i) => Err(Error::internal(format!(
            "sample {i} has {} bytes, the network takes {bytes}",
            samples[i].len()
        ))),
    }
}

fn span(counts: &[u64]) -> (u64, u64) {
    let fewest = counts.iter().copied().min().unwrap_or(0);
    (fewest, counts.iter().copied().max().unwrap_or(0))
}

/// Writes a file, and the folder that it stands in.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| refused(&e, parent))?;
    }
    std::fs::write(&path, bytes).map_err(|e| refused(&e, &path))
}

#[cfg(test)]
mod tests;
