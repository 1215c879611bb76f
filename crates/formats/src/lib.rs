//! Bytes to models and back: the only reader of untrusted bytes.
//!
//! To add a format: write its file from its nearest neighbour, add the `mod` line and the row.

use std::path::Path;

use edgesmith_ir::{Model, Result};

mod file;
mod map;
pub mod npy;
pub mod npz;
pub mod onnx;
pub mod prepared;
pub mod safetensors;
mod spans;

pub use file::{io_error, write as write_file};
pub use map::{release, release_all};
pub use spans::{RowFile, Spans};

/// A row of the format list.
pub struct Format {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Endings of file names.
    pub extensions: &'static [&'static str],
    /// Reads a file.
    pub read: fn(&Path) -> Result<Model>,
    /// Writes a file.
    pub write: fn(&Model, &Path, &WriteOptions) -> Result<()>,
}

/// Every model format, by name; the last is that of files with an unknown extension.
pub static FORMATS: &[&Format] = &[&onnx::ONNX];

/// Where weights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum External {
    /// Into the model file.
    Never,
    /// Into the model file, unless they are over 1.8 GB together.
    #[default]
    Auto,
    /// Tensors of at least so many bytes into `FILE.data`.
    Over(usize),
}

/// How a model is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Replace a file that is there.
    pub force: bool,
    /// Where weights go.
    pub external: External,
}

/// Reads a model; weights stay in the mapped file.
///
/// # Errors
/// When the file cannot be opened or is no model of a known format.
pub fn read(path: &Path) -> Result<Model> {
    (by_extension(path).read)(path)
}

/// Writes a model beside its place and renames it.
///
/// # Errors
/// When a file is there already, or the system refuses; no part of a file is left then.
pub fn write(model: &Model, path: &Path, options: &WriteOptions) -> Result<()> {
    (by_extension(path).write)(model, path, options)
}

fn by_extension(path: &Path) -> &'static Format {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let known = FORMATS.iter().find(|f| {
        extension
            .as_deref()
            .is_some_and(|e| f.extensions.contains(&e))
    });
    known.unwrap_or(&FORMATS[FORMATS.len() - 1])
}
