//! Other inference engines, opened from their C libraries at run time: peers to measure against,
//! and providers that a session can hand parts of a graph to.

use std::path::{Path, PathBuf};

use edgesmith_ir::{Error, Result, Tensor};

mod groups;
mod onnxruntime;
mod openvino;
mod provider;
mod search;

pub use provider::PROVIDERS;
pub use search::{locate, site_packages};

/// A row of the engine list.
pub struct Engine {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// What to do where its library is not found.
    pub install: &'static str,
    /// The name of its library without the prefix and the extension of the system.
    pub library: &'static str,
    /// The folder of its library below a Python environment's packages.
    pub folder: &'static str,
    open: fn(&Path) -> Result<String>,
    compile: fn(Source, &Setup) -> Result<Box<dyn Compiled>>,
}

/// Every engine, by name.
pub static ENGINES: &[&Engine] = &[&onnxruntime::ONNXRUNTIME, &openvino::OPENVINO];

/// Where an engine reads a model, in ONNX.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file, with external data beside it.
    File(&'a Path),
    /// The bytes of a file.
    Bytes(&'a [u8]),
}

/// How an engine runs a model.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Threads.
    pub threads: usize,
    /// Input shapes, in the order of the graph, where the model leaves lengths open.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Add products of bytes exactly where the engine's default saturates on this CPU.
    pub exact: bool,
    /// Let the engine compute f32 in the narrower type that it prefers on this CPU.
    pub narrow: bool,
}

/// A model made ready by an engine.
pub trait Compiled: Send {
    /// The outputs in the order of the graph, for inputs in the order of the graph.
    ///
    /// # Errors
    /// What the engine says.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
}

/// An engine whose library is open.
#[derive(Clone)]
pub struct Opened {
    engine: &'static Engine,
    /// What the library calls its version.
    pub version: String,
    /// Where the library lies.
    pub path: PathBuf,
}

impl Engine {
    /// The engine called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<&'static Engine> {
        let found = ENGINES.iter().copied().find(|e| e.name == name);
        found.ok_or_else(|| {
            let all: Vec<&str> = ENGINES.iter().map(|e| e.name).collect();
            Error::usage(format!("there is no engine \"{name}\""))
                .hint(format!("the engines are {}", all.join(", ")))
        })
    }

    /// Opens the library, which is looked for in `folders`.
    ///
    /// # Errors
    /// When it is not there or cannot be used.
    pub fn open(&'static self, folders: &[PathBuf]) -> Result<Opened> {
        let path = locate(self, folders).ok_or_else(|| {
            Error::usage(format!(
                "{} is not available: no {} in {} folders",
                self.name,
                search::file_name(self),
                folders.len()
            ))
            .hint(self.install)
        })?;
        let version = (self.open)(&path).map_err(|e| e.at(path.display().to_string()))?;
        Ok(Opened {
            engine: self,
            version,
            path,
        })
    }
}

impl Opened {
    /// The engine's name.
    pub fn name(&self) -> &'static str {
        self.engine.name
    }

    /// Makes a model ready.
    ///
    /// # Errors
    /// What the engine says.
    pub fn compile(&self, source: Source, setup: &Setup) -> Result<Box<dyn Compiled>> {
        (self.engine.compile)(source, setup).map_err(|e| e.at(self.engine.name))
    }
}
