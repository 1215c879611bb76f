//! Maps files into memory: the only `unsafe` outside the kernels.
//!
//! Mapped files are listed, so that bytes of theirs can be given back to the system.
#![expect(
    unsafe_code,
    reason = "mapping a file needs it; the block states what is relied upon"
)]

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use edgesmith_ir::Result;
use memmap2::Mmap;

use crate::file::io_error;

/// The contents of a file, shared with the operating system's cache.
///
/// The file must not be shortened or overwritten in place while the bytes are in use; this
/// program itself only ever replaces files by renaming, which leaves old mappings whole.
///
/// # Errors
/// When the file cannot be opened or is no regular file.
pub fn map(path: &Path) -> Result<Bytes> {
    let failed = |e: std::io::Error| io_error(&e, "read").at(path.display().to_string());
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(
            edgesmith_ir::Error::io("it is not a regular file").at(path.display().to_string())
        );
    }
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only, and only ever seen as plain bytes, for which
    // every content is valid. That no other process shortens the file is the documented contract.
    let mapping = unsafe { Mmap::map(&file) }.map_err(failed)?;
    let mapping = Arc::new(mapping);
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    mapped.retain(|m| m.strong_count() > 0);
    mapped.push(Arc::downgrade(&mapping));
    Ok(Bytes::from_owner(Owner(mapping)))
}

/// The files that are mapped.
static MAPPED: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Gives the memory of mapped bytes back to the system, which reads the file anew where they are
/// read again. Other bytes stay as they are.
pub fn release(bytes: &[u8]) {
    for mapping in all() {
        let begin = bytes.as_ptr().addr().checked_sub(mapping.as_ptr().addr());
        if let Some(begin) = begin
            && begin + bytes.len() <= mapping.len()
        {
            give_back(&mapping, begin, bytes.len());
        }
    }
}

/// [`release`] of all mapped files.
pub fn release_all() {
    for mapping in all() {
        give_back(&mapping, 0, mapping.len());
    }
}

fn all() -> Vec<Arc<Mmap>> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    mapped.iter().filter_map(Weak::upgrade).collect()
}

/// Gives back the whole pages from `begin` on.
#[cfg(unix)]
fn give_back(mapping: &Mmap, begin: usize, len: usize) {
    /// The page of most systems; larger ones are given back with what lies before.
    const PAGE: usize = 4096;
    let (first, end) = (begin.next_multiple_of(PAGE), (begin + len) / PAGE * PAGE);
    if first < end {
        let what = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the mapping is of a file, private and never written: its pages are read from
        // the file again, which by contract has not changed. Where the system refuses, they stay.
        let _ = unsafe { mapping.unchecked_advise_range(what, first, end - first) };
    }
}

#[cfg(not(unix))]
fn give_back(_: &Mmap, _: usize, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_given_back_are_read_again() {
        let path = std::env::temp_dir().join(format!("edgesmith-map-{}", std::process::id()));
        let content: Vec<u8> = (0..400_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map(&path).unwrap();
        release(&bytes[1000..350_000]);
        assert_eq!(bytes, content);
        release_all();
        assert_eq!(bytes, content);
        let own = content.clone();
        release(&own);
        assert_eq!(own, content);
        std::fs::remove_file(&path).unwrap();
    }
}
