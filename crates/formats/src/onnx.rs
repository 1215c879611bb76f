//! ONNX files: models of IR version 3 and later, with weights in the file or beside it.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use edgesmith_ir::error::At;
use edgesmith_ir::{Model, Result};

mod attributes;
mod budget;
mod external;
mod graphs;
mod items;
mod proto;
mod read;
mod scope;
mod tensor;
mod types;
mod write;

pub use items::{decode_item, encode_item};
pub use read::{IR_VERSIONS, decode};
pub use tensor::MAX_DENSE;
pub use write::{encode, size};

use crate::{External, Format, WriteOptions, file, map};

/// The format.
pub static ONNX: Format = Format {
    name: "onnx",
    about: "ONNX models, IR version 3 and later, weights inside or beside the file",
    extensions: &["onnx"],
    read,
    write,
};

/// The bytes of a model whose tensors of at least `over` bytes stand in the second bytes.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_outside(model: &Model, over: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let parts = write::encode_external(model, "data", over)?;
    let mut data = Vec::new();
    for (offset, bytes) in &parts.data {
        data.resize(*offset, 0);
        data.extend_from_slice(bytes);
    }
    Ok((parts.model.concat(), data))
}

/// The model of such bytes, which it shares.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_within(model: Bytes, data: Bytes) -> Result<Model> {
    read::decode_with(model, external::ExternalFiles::within(data))
}

/// Bytes of memory that reading a file of `length` bytes and writing it again may take, whatever
/// is in the file: 64 MiB and 64 bytes for each of its own. Mapped files do not count.
pub const fn memory_cap(length: usize) -> usize {
    (64 << 20) + length.saturating_mul(64)
}

/// A file with all weights inside may not be larger: protobuf ends at 2 GiB.
const MAX_INSIDE: usize = 1_800_000_000;

/// Tensors smaller than this stay inside.
const MIN_OUTSIDE: usize = 1024;

fn read(path: &Path) -> Result<Model> {
    let place = || path.display().to_string();
    decode(map::map(path)?, path.parent()).at(place)
}

/// Writes pieces one after the other.
fn all(pieces: &[Bytes], out: &mut dyn Write) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| out.write_all(piece))
}

fn write(model: &Model, path: &Path, options: &WriteOptions) -> Result<()> {
    let constants = model
        .graph
        .values()
        .filter_map(|(_, v)| v.constant.as_ref());
    let total: usize = constants.map(edgesmith_ir::Tensor::byte_len).sum();
    let over = match options.external {
        External::Never => None,
        External::Auto => (total > MAX_INSIDE).then_some(MIN_OUTSIDE),
        External::Over(bytes) => Some(bytes),
    };
    let Some(over) = over else {
        let pieces = write::encode_pieces(model)?;
        return file::write_with(path, options.force, |out| all(&pieces, out));
    };
    let mut data_path = path.as_os_str().to_owned();
    data_path.push(".data");
    let data_path = Path::new(&data_path);
    let location = data_path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    let parts = write::encode_external(model, &location.unwrap_or_default(), over)?;
    let mut end = 0;
    let data = file::Pending::write(data_path, options.force, |out| {
        for (offset, bytes) in &parts.data {
            out.write_all(&vec![0; offset - end])?;
            out.write_all(bytes)?;
            end = offset + bytes.len();
        }
        Ok(())
    })?;
    let model = file::Pending::write(path, options.force, |out| all(&parts.model, out))?;
    data.commit()?;
    model.commit()
}
