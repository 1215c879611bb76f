//! What calibration finds, kept in a folder by model, samples and settings.

use std::fs;
use std::path::{Path, PathBuf};

use edgesmith_compress::calibrate::Stores;
use edgesmith_formats::write_file;
use edgesmith_ir::{Error, Result, Store};
use sha2::{Digest, Sha256};

/// A folder of statistics of one set of samples.
pub struct Kept {
    folder: PathBuf,
    /// Of the samples.
    digest: String,
}

impl Kept {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or the samples cannot be read.
    pub fn open(folder: &Path, samples: Option<&Path>) -> Result<Self> {
        let fault = |path: &Path, e: std::io::Error| {
            Error::io(e.to_string()).at(path.display().to_string())
        };
        fs::create_dir_all(folder).map_err(|e| fault(folder, e))?;
        Ok(Self {
            folder: folder.to_owned(),
            digest: samples.map_or(Ok(String::new()), edgesmith_data::digest)?,
        })
    }
}

impl Stores for Kept {
    fn store(&self, key: &str) -> Box<dyn Store + '_> {
        let both = Sha256::digest(format!("{key} {}", self.digest));
        let name: String = both[..16].iter().map(|b| format!("{b:02x}")).collect();
        Box::new(File(self.folder.join(name + ".statistics")))
    }
}

struct File(PathBuf);

impl Store for File {
    fn load(&self) -> Option<Vec<u8>> {
        fs::read(&self.0).ok()
    }

    fn save(&self, bytes: &[u8]) -> Result<()> {
        write_file(&self.0, bytes, true)
    }

    fn forget(&self) {
        // A file that stays takes room, and nothing else.
        let _ = fs::remove_file(&self.0);
    }
}
