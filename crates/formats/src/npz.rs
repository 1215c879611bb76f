//! Archives of arrays as numpy writes them; arrays can be read row by row.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::file;
use crate::npy::{self, Header};
use crate::spans::{RowFile, Spans};

/// Arrays that an archive may hold.
const MAX_ARRAYS: usize = 4096;

/// An archive whose arrays are read when they are asked for.
pub struct Reader {
    path: PathBuf,
    arrays: Vec<(String, Header)>,
}

impl Reader {
    /// Opens an archive and reads the headers of its arrays.
    ///
    /// # Errors
    /// When it is no npz file, or an array is of a type that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let mut archive = archive(path)?;
        if archive.len() > MAX_ARRAYS {
            return Err(Error::invalid(format!("it holds {} arrays", archive.len())).at(place()));
        }
        let mut arrays = Vec::new();
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).map_err(|e| damaged(&e).at(place()))?;
            let name = entry
                .name()
                .map_err(|e| damaged(&e).at(place()))?
                .into_owned();
            let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
            let header = Header::read(&mut entry)
                .at(|| format!("array \"{name}\""))
                .at(place)?;
            arrays.push((name, header));
        }
        Ok(Self {
            path: path.to_path_buf(),
            arrays,
        })
    }

    /// Names and headers, in the order of the file.
    pub fn arrays(&self) -> &[(String, Header)] {
        &self.arrays
    }

    /// The header of an array.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.arrays.iter().find(|(n, _)| n == name).map(|(_, h)| h)
    }

    /// A whole array.
    ///
    /// # Errors
    /// When there is none of that name or its data is cut off.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let header = self.header(name).ok_or_else(|| self.missing(name))?;
        let mut rows = self.rows(name)?;
        let data = rows.bytes(header.data_bytes()?)?;
        header.tensor(&header.dims, data).at(|| self.place(name))
    }

    /// The rows of an array, in order.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn rows(&self, name: &str) -> Result<Rows> {
        let header = self.header(name).ok_or_else(|| self.missing(name))?.clone();
        let place = self.place(name);
        let mut archive = archive(&self.path)?;
        let index = self.arrays.iter().position(|(n, _)| n == name).unwrap_or(0);
        let entry = archive
            .by_index(index)
            .map_err(|e| damaged(&e).at(place.clone()))?;
        let (start, length) = (entry.data_start(), entry.compressed_size());
        let stored = entry.compression() == CompressionMethod::Stored;
        drop(entry);
        let mut file =
            File::open(&self.path).map_err(|e| file::io_error(&e, "read").at(place.clone()))?;
        let start =
            start.ok_or_else(|| Error::invalid("the archive is damaged").at(place.clone()))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(start))
            .map_err(|e| file::io_error(&e, "read").at(place.clone()))?;
        let packed = BufReader::new(file).take(length);
        let mut data: Box<dyn Read + Send> = if stored {
            Box::new(packed)
        } else {
            Box::new(flate2::read::DeflateDecoder::new(packed))
        };
        Header::read(&mut data).at(|| place.clone())?;
        Ok(Rows {
            header,
            data,
            place,
        })
    }

    /// The rows of an array in any order; `None` where it is compressed, so that bytes have no places.
    ///
    /// # Errors
    /// When there is none of that name, or its rows do not stand apart.
    pub fn row_file(&self, name: &str) -> Result<Option<RowFile>> {
        self.header(name).ok_or_else(|| self.missing(name))?;
        let index = self.arrays.iter().position(|(n, _)| n == name).unwrap_or(0);
        let mut archive = archive(&self.path)?;
        let entry = archive
            .by_index(index)
            .map_err(|e| damaged(&e).at(self.place(name)))?;
        let start = match (entry.compression(), entry.data_start()) {
            (CompressionMethod::Stored, Some(start)) => start,
            _ => return Ok(None),
        };
        drop(entry);
        let rows = RowFile::at(Spans::open(&self.path)?, start);
        rows.at(|| self.place(name)).map(Some)
    }

    fn place(&self, name: &str) -> String {
        format!("{}: array \"{name}\"", self.path.display())
    }

    fn missing(&self, name: &str) -> Error {
        let names: Vec<&str> = self.arrays.iter().map(|(n, _)| n.as_str()).collect();
        Error::invalid(format!("there is no array \"{name}\""))
            .at(self.path.display().to_string())
            .hint(format!("its arrays are {}", names.join(", ")))
    }
}

/// The rows of one array, read one after the other.
pub struct Rows {
    header: Header,
    data: Box<dyn Read + Send>,
    place: String,
}

impl Rows {
    /// The next `count` rows of axis 0.
    ///
    /// # Errors
    /// When the data is cut off.
    pub fn next(&mut self, count: usize) -> Result<Tensor> {
        let mut dims = self.header.dims.clone();
        match dims.first_mut() {
            Some(first) => *first = count,
            None => return Err(Error::invalid("the array has no rows").at(self.place.clone())),
        }
        let size = edgesmith_ir::tensor::checked_count(&dims)? * self.header.element_bytes();
        let data = self.bytes(size)?;
        self.header.tensor(&dims, data).at(|| self.place.clone())
    }

    /// Reads without trusting the stated size: memory grows with what is really there.
    fn bytes(&mut self, size: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let wanted = u64::try_from(size).unwrap_or(u64::MAX);
        let read = (&mut self.data).take(wanted).read_to_end(&mut data);
        match read {
            Ok(n) if n == size => Ok(data),
            Ok(n) => Err(
                Error::invalid(format!("expected {size} bytes, only {n} are there"))
                    .at(self.place.clone())
                    .hint("the file is cut off"),
            ),
            Err(e) => {
                Err(Error::invalid(format!("the data is damaged: {e}")).at(self.place.clone()))
            }
        }
    }

    /// True where rows cannot be read alone, because the first axis runs fastest.
    pub fn is_fortran(&self) -> bool {
        self.header.fortran && self.header.dims.len() > 1
    }
}

fn archive(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let place = || path.display().to_string();
    let file = File::open(path).map_err(|e| file::io_error(&e, "read").at(place()))?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(&e).at(place()))
}

fn damaged(error: &zip::result::ZipError) -> Error {
    Error::invalid(format!("the file is no npz archive or is damaged: {error}"))
        .hint("numpy.savez and savez_compressed write such files")
}

/// All arrays of an archive, in the order of the file.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::read`].
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let reader = Reader::open(path)?;
    reader
        .arrays
        .iter()
        .map(|(name, _)| Ok((name.clone(), reader.read(name)?)))
        .collect()
}

/// Writes arrays, compressed, the same bytes each time; bf16 becomes f32.
///
/// # Errors
/// When the file is there and `force` does not say to replace it, or the system refuses.
pub fn write(path: &Path, arrays: &[(String, Tensor)], force: bool) -> Result<()> {
    let mut cursor = std::io::Cursor::new(Vec::new());
    let mut zip = ZipWriter::new(&mut cursor);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    for (name, tensor) in arrays {
        let widened = match tensor.dtype() {
            DType::BF16 => Tensor::from_vec(tensor.dims(), tensor.to_f32()?.into_owned())?,
            _ => tensor.clone(),
        };
        let bytes = npy::encode(&widened).at(|| format!("array \"{name}\""))?;
        let put = |e: zip::result::ZipError| Error::internal(e.to_string());
        zip.start_file(format!("{name}.npy"), options)
            .map_err(put)?;
        zip.write_all(&bytes)
            .map_err(|e| file::io_error(&e, "written"))?;
    }
    zip.finish().map_err(|e| Error::internal(e.to_string()))?;
    file::write(path, &cursor.into_inner(), force)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_one_after_the_other() {
        let path = std::env::temp_dir().join(format!("edgesmith-npz-{}.npz", std::process::id()));
        let x = Tensor::from_vec(&[4, 2], (0..8i32).collect()).unwrap();
        write(&path, &[("x".into(), x.clone())], true).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.read("x").unwrap(), x);
        let mut rows = reader.rows("x").unwrap();
        assert_eq!(
            rows.next(3).unwrap(),
            Tensor::from_vec(&[3, 2], (0..6i32).collect()).unwrap()
        );
        assert_eq!(
            rows.next(1).unwrap(),
            Tensor::from_vec(&[1, 2], vec![6i32, 7]).unwrap()
        );
        assert!(rows.next(1).is_err());
        assert!(
            reader
                .read("y")
                .unwrap_err()
                .to_string()
                .contains("its arrays are x")
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn rows_of_what_is_not_compressed_are_read_in_any_order() {
        let path = std::env::temp_dir().join(format!("edgesmith-rows-{}.npz", std::process::id()));
        let x = Tensor::from_vec(&[4, 2], (0..8i32).collect()).unwrap();
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        let how = |method| SimpleFileOptions::default().compression_method(method);
        for (name, method) in [
            ("packed.npy", CompressionMethod::Deflated),
            ("x.npy", CompressionMethod::Stored),
        ] {
            zip.start_file(name, how(method)).unwrap();
            zip.write_all(&npy::encode(&x).unwrap()).unwrap();
        }
        zip.finish().unwrap();
        let reader = Reader::open(&path).unwrap();
        let rows = reader.row_file("x").unwrap().unwrap();
        let expected = Tensor::from_vec(&[1, 2], vec![6i32, 7]).unwrap();
        assert_eq!(rows.rows(3..4).unwrap(), expected);
        assert!(reader.row_file("packed").unwrap().is_none());
        assert!(reader.row_file("y").is_err());
        std::fs::remove_file(path).unwrap();
    }
}
