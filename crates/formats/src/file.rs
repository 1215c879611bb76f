//! Writes files beside their place and renames them, and says what the operating system refused.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use edgesmith_ir::{Error, Result};

/// The error of a file that could not be `read` or `written`.
pub(crate) fn io_error(error: &io::Error, done: &str) -> Error {
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
    refuse_existing(path, force)?;
    let failed = |e: io::Error| io_error(&e, "written").at(path.display().to_string());
    // A device or pipe is no file to be replaced.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        let mut out = File::options().write(true).open(path).map_err(failed)?;
        return fill(&mut out).map_err(failed);
    }
    let beside = beside(path);
    let finish = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&beside)?);
        fill(&mut out)?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_data()?;
        fs::rename(&beside, path)
    };
    finish().map_err(|e| {
        let _ = fs::remove_file(&beside);
        failed(e)
    })
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
        fs::remove_dir_all(&folder).unwrap();
    }
}
