//! Safetensors: tensors by name behind a JSON header.
//!
//! Eight bytes with the length of the header, the header, and the bytes of the tensors one after the
//! other (the layout is that of huggingface/safetensors, version 0.4).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::file;

/// Tensors by name, and texts that say what they are.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// The tensors.
    pub all: BTreeMap<String, Tensor>,
    /// The texts.
    pub metadata: BTreeMap<String, String>,
}

/// The longest header that is read.
const MOST: u64 = 100 << 20;

/// The key of the metadata in the header.
const METADATA: &str = "__metadata__";

const TYPES: &[(&str, DType)] = &[
    ("F64", DType::F64),
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I64", DType::I64),
    ("I32", DType::I32),
    ("I16", DType::I16),
    ("I8", DType::I8),
    ("U8", DType::U8),
    ("BOOL", DType::Bool),
];

#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let bytes = fs::read(path).map_err(|e| file::io_error(&e, "read").at(place()))?;
        Self::parse(bytes.into()).at(place)
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// When they are no such file, or a tensor of it has a type that is not read.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let damaged = |what: &str| {
            Error::invalid(format!("the file is damaged: {what}")).hint("it is no safetensors file")
        };
        let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let length = length.filter(|&n| n <= MOST && n <= bytes.len() as u64 - 8);
        let length = length.ok_or_else(|| damaged("its header has no end"))? as usize;
        let header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&bytes[8..8 + length]).map_err(|e| damaged(&e.to_string()))?;
        let data = bytes.slice(8 + length..);
        let mut found = Self::default();
        for (name, value) in header {
            if name == METADATA {
                let texts = serde_json::from_value(value);
                found.metadata = texts.map_err(|e| damaged(&e.to_string()))?;
                continue;
            }
            let entry: Entry =
                serde_json::from_value(value).map_err(|e| damaged(&e.to_string()))?;
            let dtype = TYPES.iter().find(|(n, _)| *n == entry.dtype);
            let (_, dtype) = dtype.ok_or_else(|| {
                Error::unsupported(format!("\"{name}\" is of the type {}", entry.dtype))
            })?;
            let [from, to] = entry.data_offsets;
            if from > to || to > data.len() {
                return Err(damaged(&format!("\"{name}\" reaches beyond its end")));
            }
            let tensor = Tensor::from_bytes(*dtype, &entry.shape, data.slice(from..to));
            let tensor = tensor.at(|| format!("tensor \"{name}\""))?;
            // What follows reads numbers where they lie; the header has any length.
            found.all.insert(name, tensor.detached());
        }
        Ok(found)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// When a tensor has a type that such files do not have.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut header: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
        let mut at = 0;
        for (name, tensor) in &self.all {
            let dtype = TYPES.iter().find(|(_, d)| *d == tensor.dtype());
            let (dtype, _) = dtype.ok_or_else(|| {
                Error::unsupported(format!("safetensors have no {}", tensor.dtype()))
            })?;
            let end = at + tensor.byte_len();
            let entry = Entry {
                dtype: (*dtype).into(),
                shape: tensor.dims().to_vec(),
                data_offsets: [at, end],
            };
            let value = serde_json::to_value(entry).map_err(|e| Error::internal(e.to_string()))?;
            header.insert(name, value);
            at = end;
        }
        if !self.metadata.is_empty() {
            let texts = serde_json::to_value(&self.metadata);
            header.insert(METADATA, texts.map_err(|e| Error::internal(e.to_string()))?);
        }
        let mut head = serde_json::to_vec(&header).map_err(|e| Error::internal(e.to_string()))?;
        while !head.len().is_multiple_of(8) {
            head.push(b' ');
        }
        let mut out = (head.len() as u64).to_le_bytes().to_vec();
        out.extend(head);
        for tensor in self.all.values() {
            out.extend_from_slice(tensor.bytes());
        }
        Ok(out)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When a file is there and `force` does not say to replace it, or the system refuses.
    pub fn write(&self, path: &Path, force: bool) -> Result<()> {
        let bytes = self.to_bytes()?;
        file::write(path, &bytes, force).at(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tensors {
        let numbers = Tensor::from_vec(&[2, 3], vec![1.0f32, -0.0, 3.5, f32::MAX, 5.0, 6.0]);
        Tensors {
            all: BTreeMap::from([
                ("weights".to_owned(), numbers.unwrap()),
                ("bits".to_owned(), Tensor::vector(vec![7u8, 0, 255])),
                (
                    "none".to_owned(),
                    Tensor::from_vec(&[0, 4], Vec::<f32>::new()).unwrap(),
                ),
            ]),
            metadata: BTreeMap::from([("pattern".to_owned(), "2:4".to_owned())]),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = some().to_bytes().unwrap();
        let read = Tensors::parse(bytes.clone().into()).unwrap();
        assert_eq!(read.metadata, some().metadata);
        for (name, tensor) in some().all {
            let found = &read.all[&name];
            assert_eq!(
                (found.dims(), found.bytes()),
                (tensor.dims(), tensor.bytes())
            );
        }
        assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let bytes = some().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(
                Tensors::parse(bytes[..end].to_vec().into()).is_err(),
                "{end}"
            );
        }
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize;
        for at in 0..header {
            for byte in [0, b'9', b'"', 255] {
                let mut other = bytes.clone();
                other[at] = byte;
                let _ = Tensors::parse(other.into());
            }
        }
        assert!(Tensors::parse(vec![255; 16].into()).is_err());
        let far = br#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,0]}}"#;
        let mut huge = (far.len() as u64).to_le_bytes().to_vec();
        huge.extend(far);
        assert!(Tensors::parse(huge.into()).is_err());
    }
}
