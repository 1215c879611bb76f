//! Writes files beside their place and renames them, and says what the operating system refused.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use edgesmith_ir::{Error, Result};

/// The error of a file that could not be `read` or `written`.
pub fn io_error(error: &io::Error, done: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::io("there is no such file or folder"),
        ErrorKind::PermissionDenied => Error::io(format!("it may not be {done} by this user")),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::io("the disk is full")
            .hint("free some space or choose another folder, and run again"),
        _ => Error::io(format!("it cannot be {done}: {error}")),
    }
}

/// Writes a file beside its place and renames it.
///
/// # Errors
/// When a file is there and `force` does not say to replace it, or the system refuses; nothing is
/// left of the file then.
pub fn write(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    write_with(path, force, |out| out.write_all(bytes))
}

/// Refuses a place where a file is, unless `force`.
pub(crate) fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if force || !path.exists() {
        return Ok(());
    }
    Err(Error::usage("the file exists already")
        .at(path.display().to_string())
        .hint("give another name, or --force to overwrite it"))
}

/// As [`write`], with bytes that `fill` writes one after the other.
pub(crate) fn write_with(
    path: &Path,
    force: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    Pending::write(path, force, fill)?.commit()
}

/// A file that is written whole and waits beside its place; dropped, it is removed.
pub(crate) struct Pending<'a> {
    path: &'a Path,
    /// `None` for a device or pipe, which is no file to be replaced.
    beside: Option<PathBuf>,
}

impl<'a> Pending<'a> {
    /// Writes the file beside its place.
    ///
    /// # Errors
    /// When a file is there and `force` does not say to replace it, or the system refuses.
    pub fn write(
        path: &'a Path,
        force: bool,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Self> {
        refuse_existing(path, force)?;
        let device = fs::metadata(path).is_ok_and(|m| !m.is_file());
        let pending = Self {
            path,
            beside: (!device).then(|| beside(path)),
        };
        let written = match &pending.beside {
            Some(beside) => write_all(beside, fill),
            None => File::options()
                .write(true)
                .open(path)
                .and_then(|mut out| fill(&mut out)),
        };
        written.map_err(|e| pending.failed(&e))?;
        Ok(pending)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn commit(mut self) -> Result<()> {
        let Some(beside) = self.beside.take() else {
            return Ok(());
        };
        fs::rename(&beside, self.path).map_err(|e| {
            let _ = fs::remove_file(&beside);
            self.failed(&e)
        })
    }

    fn failed(&self, e: &io::Error) -> Error {
        io_error(e, "written").at(self.path.display().to_string())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}

fn write_all(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    fill(&mut out)?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_data()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fails_half_way_leaves_nothing_and_keeps_the_old_one() {
        let folder = std::env::temp_dir().join(format!("edgesmith-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        write(&path, b"old", false).unwrap();
        assert!(write(&path, b"new", false).is_err(), "it is there");
        let full = io::Error::from(ErrorKind::StorageFull);
        let error = write_with(&path, true, |out| {
            out.write_all(b"half")?;
            Err(full)
        });
        assert!(error.unwrap_err().to_string().contains("the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        drop(Pending::write(&path, true, |out| out.write_all(b"unwanted")).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
