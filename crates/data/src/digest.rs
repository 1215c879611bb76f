//! What tells data apart from other data.

use std::fs;
use std::io::Read;
use std::path::Path;

use edgesmith_ir::{Error, Result};
use sha2::{Digest, Sha256};

/// The digest of a file, or of the names and sizes of the files below a folder.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    if path.is_dir() {
        add_folder(&mut hash, path, 0)?;
    } else {
        let mut file = fs::File::open(path).map_err(|e| fault(path, &e))?;
        let mut part = vec![0; 1 << 20];
        loop {
            match file.read(&mut part).map_err(|e| fault(path, &e))? {
                0 => break,
                n => hash.update(&part[..n]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Folders in each other at most.
const MOST_DEPTH: usize = 16;

fn fault(path: &Path, e: &std::io::Error) -> Error {
    Error::io(e.to_string()).at(path.display().to_string())
}

fn add_folder(hash: &mut Sha256, path: &Path, depth: usize) -> Result<()> {
    if depth > MOST_DEPTH {
        let what = format!("there are more than {MOST_DEPTH} folders in each other");
        return Err(Error::unsupported(what).at(path.display().to_string()));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| fault(path, &e))? {
        entries.push(entry.map_err(|e| fault(path, &e))?.path());
    }
    entries.sort();
    for entry in entries {
        let meta = fs::metadata(&entry).map_err(|e| fault(&entry, &e))?;
        hash.update(format!("{:?} {}", entry.file_name(), meta.len()));
        if meta.is_dir() {
            add_folder(hash, &entry, depth + 1)?;
        }
    }
    Ok(())
}
