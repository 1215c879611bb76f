//! What tells data apart from other data.

use std::fs;
use std::io::Read;
use std::path::Path;

use edgesmith_ir::{Error, Result};
use sha2::{Digest, Sha256};

/// The digest of a file, or of the names, sizes and times of change of the files below a folder.
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
        if let (true, Ok(changed)) = (meta.is_file(), meta.modified()) {
            // Other bytes of the same length are told by when they were written.
            hash.update(format!(" {changed:?}"));
        }
        if meta.is_dir() {
            add_folder(hash, &entry, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::source::testing::Folder;

    #[test]
    fn a_file_that_was_written_again_in_a_folder_is_another() {
        let folder = Folder::new("digest");
        let file = folder.write("cats/a.png", b"old");
        let first = digest(&folder.0).unwrap();
        assert_eq!(first, digest(&folder.0).unwrap());
        let later = SystemTime::now() + Duration::from_secs(5);
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(later).unwrap();
        assert_ne!(first, digest(&folder.0).unwrap());
        assert_eq!(digest(&file).unwrap(), digest(&file).unwrap());
    }
}
