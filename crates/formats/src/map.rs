//! Maps files into memory: the only `unsafe` outside the kernels.
#![expect(
    unsafe_code,
    reason = "mapping a file needs it; the block states what is relied upon"
)]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use edgesmith_ir::Result;

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
    let mapping = unsafe { memmap2::Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::from_owner(mapping))
}
