//! Bytes of a file in any order, and rows of arrays in files.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use edgesmith_ir::error::At;
use edgesmith_ir::tensor::checked_count;
use edgesmith_ir::{DType, Error, Result, Tensor};
use flate2::read::GzDecoder;

use crate::file::io_error;
use crate::npy::Header;

/// Bytes that are read in any order, by several threads in turn.
#[derive(Debug)]
pub struct Spans {
    from: From,
    length: u64,
}

#[derive(Debug)]
enum From {
    File(Mutex<File>),
    Memory(Vec<u8>),
}

impl Spans {
    /// The bytes of a file, which stay there.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let file = File::open(path).map_err(|e| io_error(&e, "read").at(place()))?;
        let facts = file
            .metadata()
            .map_err(|e| io_error(&e, "read").at(place()))?;
        if facts.is_dir() {
            return Err(Error::invalid("it is a folder, and a file is wanted").at(place()));
        }
        Ok(Self {
            from: From::File(Mutex::new(file)),
            length: facts.len(),
        })
    }

    /// The bytes of a file of gzip, which are held in memory.
    ///
    /// # Errors
    /// When the file cannot be read, or is of more than `most` bytes unpacked.
    pub fn unpacked(path: &Path, most: usize) -> Result<Self> {
        let place = || path.display().to_string();
        let file = File::open(path).map_err(|e| io_error(&e, "read").at(place()))?;
        let mut bytes = Vec::new();
        GzDecoder::new(BufReader::new(file))
            .take((most as u64).saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|e| Error::invalid(format!("the gzip file is damaged: {e}")).at(place()))?;
        if bytes.len() > most {
            return Err(
                Error::invalid(format!("it has more than {most} bytes unpacked"))
                    .at(place())
                    .hint("unpack it first: files are read row by row"),
            );
        }
        Ok(Self::of(bytes))
    }

    /// Bytes in memory.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len() as u64,
            from: From::Memory(bytes),
        }
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// True where the bytes are held in memory.
    pub fn is_held(&self) -> bool {
        matches!(self.from, From::Memory(_))
    }

    /// The `count` bytes from `start` on.
    ///
    /// # Errors
    /// When they are not there, or the system refuses.
    pub fn read(&self, start: u64, count: usize) -> Result<Vec<u8>> {
        let end = start.checked_add(count as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(Error::invalid(format!(
                "expected {count} bytes from byte {start} on, the file has {}",
                self.length
            ))
            .hint("the file is cut off"));
        }
        match &self.from {
            From::Memory(bytes) => Ok(bytes[start as usize..][..count].to_vec()),
            From::File(file) => {
                // A lock that a panic left is sound: each reader seeks first.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = vec![0; count];
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|e| io_error(&e, "read"))?;
                Ok(bytes)
            }
        }
    }
}

/// The rows of an array in a file, which are read in any order.
#[derive(Debug)]
pub struct RowFile {
    header: Header,
    spans: Spans,
    start: u64,
    row: usize,
}

impl RowFile {
    /// The array of an npy file.
    ///
    /// # Errors
    /// When the file cannot be read, is no npy file or is cut off, or its rows do not stand apart.
    pub fn open(path: &Path) -> Result<Self> {
        Self::at(Spans::open(path)?, 0).at(|| path.display().to_string())
    }

    /// The array whose header is at byte `start`.
    pub(crate) fn at(spans: Spans, start: u64) -> Result<Self> {
        let beginning = spans.read(
            start,
            MOST_OF_HEADER.min(spans.length.saturating_sub(start) as usize),
        )?;
        let mut rest = &beginning[..];
        let header = Header::read(&mut rest)?;
        if header.fortran && header.dims.len() > 1 {
            return Err(Error::unsupported(
                "its first axis runs fastest, so that rows do not stand together",
            )
            .hint("write numpy.ascontiguousarray of it"));
        }
        if header.dtype == DType::String {
            return Err(Error::unsupported("rows of strings are not read"));
        }
        let Some((&count, of_row)) = header.dims.split_first() else {
            return Err(Error::invalid("the array has no rows"));
        };
        let row = checked_count(of_row)?.checked_mul(header.element_bytes());
        let row = row.ok_or_else(|| Error::invalid("a row is too large"))?;
        let start = start + (beginning.len() - rest.len()) as u64;
        let all = (row as u64).checked_mul(count as u64);
        if all.is_none_or(|all| all > spans.length - start) {
            return Err(Error::invalid(format!(
                "{count} rows of {row} bytes are more than the file holds"
            ))
            .hint("the file is cut off"));
        }
        Ok(Self {
            header,
            spans,
            start,
            row,
        })
    }

    /// What the array is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Some of its rows.
    ///
    /// # Errors
    /// When there are not so many, or the system refuses.
    pub fn rows(&self, range: Range<usize>) -> Result<Tensor> {
        let mut dims = self.header.dims.clone();
        if range.end > dims[0] || range.start > range.end {
            let what = format!("there are no rows {range:?} of {}", dims[0]);
            return Err(Error::invalid(what));
        }
        dims[0] = range.len();
        checked_count(&dims)?;
        let from = self.start + range.start as u64 * self.row as u64;
        let data = self.spans.read(from, range.len() * self.row)?;
        self.header.tensor(&dims, data)
    }
}

/// Bytes that hold any header of an array.
const MOST_OF_HEADER: usize = (1 << 16) + 12;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::npy;

    fn of(t: &Tensor) -> Result<RowFile> {
        RowFile::at(Spans::of(npy::encode(t).unwrap()), 0)
    }

    #[test]
    fn rows_are_read_in_any_order() {
        let t = Tensor::from_vec(&[3, 2], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let rows = of(&t).unwrap();
        let row = |data: Vec<i32>| Tensor::from_vec(&[data.len() / 2, 2], data).unwrap();
        assert_eq!(rows.rows(2..3).unwrap(), row(vec![5, 6]));
        assert_eq!(rows.rows(0..2).unwrap(), row(vec![1, 2, 3, 4]));
        assert!(rows.rows(2..4).is_err());
    }

    #[test]
    fn an_array_that_is_cut_off_or_lies_about_its_length_is_refused() {
        let t = Tensor::from_vec(&[3, 2], vec![0u8; 6]).unwrap();
        let whole = npy::encode(&t).unwrap();
        for length in 0..whole.len() {
            assert!(RowFile::at(Spans::of(whole[..length].to_vec()), 0).is_err());
        }
        let text = String::from_utf8_lossy(&whole[10..]).replace("(3,2,)", "(9999999999999999,2,)");
        let mut lie = b"\x93NUMPY\x01\x00".to_vec();
        lie.extend((text.len() as u16 - 6).to_le_bytes());
        lie.extend(text.bytes());
        let e = RowFile::at(Spans::of(lie), 0).unwrap_err().to_string();
        assert!(e.contains("more than the file holds"), "{e}");
    }

    #[test]
    fn what_has_no_rows_of_numbers_is_refused() {
        let scalar = Tensor::scalar(1.0f32);
        let strings = Tensor::from_strings(&[1], vec!["a".into()]).unwrap();
        assert!(of(&scalar).is_err() && of(&strings).is_err());
    }

    #[test]
    fn a_gzip_file_is_unpacked_up_to_a_bound() {
        let path = std::env::temp_dir().join(format!("edgesmith-spans-{}.gz", std::process::id()));
        let packed = Vec::new();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packed.write_all(&[7; 100]).unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
        let spans = Spans::unpacked(&path, 100).unwrap();
        assert_eq!(spans.read(98, 2).unwrap(), [7, 7]);
        assert!(spans.read(99, 2).is_err() && spans.read(u64::MAX, 2).is_err());
        assert!(Spans::unpacked(&path, 99).is_err());
        std::fs::write(&path, b"no gzip").unwrap();
        assert!(Spans::unpacked(&path, 99).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
