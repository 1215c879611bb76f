//! Prepared models: a model, and its weights as the kernels of one CPU want them, in one file that
//! is mapped rather than read.
//!
//! The file begins with eight bytes of [`MAGIC`] and the length of a header in eight more, little
//! endian. The header is JSON: settings, and where everything is, in bytes from the start of the
//! file. Everything begins at a multiple of 64 bytes and is filled up to one with zeros. The model
//! is ONNX with external data, which is in the file too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Result};
use serde::{Deserialize, Serialize};

use crate::onnx::{decode_within, encode_outside};
use crate::{file, map};

/// What a prepared file begins with.
pub const MAGIC: [u8; 8] = *b"ESMPREP1";

const ALIGNMENT: usize = 64;

/// What the program that made the file must know to use the packed weights.
pub type Settings = BTreeMap<String, String>;

/// What is in a prepared file.
pub struct Prepared {
    /// What it was prepared for.
    pub settings: Settings,
    /// The model; its weights lie in the mapped file.
    pub model: Model,
    /// The packed parts of each node and their lengths, in the mapped file, filled up with zeros.
    pub weights: Vec<(String, Vec<(Bytes, usize)>)>,
}

/// Where a part of the file is: its start and length.
type Place = (usize, usize);

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Settings,
    model: Place,
    data: Place,
    weights: Vec<(String, Vec<Place>)>,
}

/// A model as it stands in a prepared file.
pub struct Image {
    model: Vec<u8>,
    data: Bytes,
}

impl Image {
    /// The image of a model.
    ///
    /// # Errors
    /// When the graph has a cycle, or takes more than 2 GB without its weights.
    pub fn of(model: &Model) -> Result<Self> {
        let (model, data) = encode_outside(model, ALIGNMENT)?;
        Ok(Self {
            model,
            data: data.into(),
        })
    }

    /// The model as it will be read.
    ///
    /// # Errors
    /// When it cannot be read again.
    pub fn model(&self) -> Result<Model> {
        decode_within(self.model.clone().into(), self.data.clone())
    }
}

/// Writes a prepared file beside its place and renames it.
///
/// # Errors
/// When a file is there and `force` does not say to replace it, or the system refuses; nothing is
/// left of the file then.
pub fn write(
    path: &Path,
    force: bool,
    settings: Settings,
    image: &Image,
    weights: &[(String, Vec<&[u8]>)],
) -> Result<()> {
    let mut parts: Vec<&[u8]> = vec![&image.model, &image.data];
    parts.extend(weights.iter().flat_map(|(_, parts)| parts));
    // Places are counted from the end of the header, whose length they decide.
    let mut end = 0;
    let mut places = parts.iter().map(|part| {
        let place = (end, part.len());
        end = (end + part.len()).next_multiple_of(ALIGNMENT);
        place
    });
    let mut next = || places.next().unwrap_or_default();
    let mut header = Header {
        settings,
        model: next(),
        data: next(),
        weights: weights
            .iter()
            .map(|(name, parts)| (name.clone(), parts.iter().map(|_| next()).collect()))
            .collect(),
    };
    let start = header.settle()?;
    let json = header.json()?;
    file::write_with(path, force, |out| {
        out.write_all(&MAGIC)?;
        out.write_all(&(json.len() as u64).to_le_bytes())?;
        out.write_all(json.as_bytes())?;
        fill(out, start - 16 - json.len())?;
        for part in &parts {
            out.write_all(part)?;
            fill(out, part.len().next_multiple_of(ALIGNMENT) - part.len())?;
        }
        Ok(())
    })
}

fn fill(out: &mut dyn Write, n: usize) -> io::Result<()> {
    out.write_all(&vec![0; n])
}

impl Header {
    fn json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(e.to_string()))
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        let weights = self.weights.iter_mut().flat_map(|(_, parts)| parts);
        [&mut self.model, &mut self.data].into_iter().chain(weights)
    }

    /// Counts places from the start of the file: where what follows the header begins.
    fn settle(&mut self) -> Result<usize> {
        let mut start = 0;
        loop {
            let needed = (16 + self.json()?.len()).next_multiple_of(ALIGNMENT);
            if needed <= start {
                return Ok(start);
            }
            self.places().for_each(|place| place.0 += needed - start);
            start = needed;
        }
    }
}

/// What is in a prepared file; `None` where the file is none.
///
/// # Errors
/// When the file cannot be opened, or is damaged.
pub fn read(path: &Path) -> Result<Option<Prepared>> {
    let place = || path.display().to_string();
    if !begins_with_magic(path) {
        return Ok(None);
    }
    let file = map::map(path)?;
    parse(&file).at(place).map(Some)
}

/// Whether the file begins as a prepared one; false where it cannot be read.
fn begins_with_magic(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let is_file = path.metadata().is_ok_and(|m| m.is_file());
    let mut read = |path| File::open(path).and_then(|mut f| f.read_exact(&mut start));
    is_file && read(path).is_ok() && start == MAGIC
}

/// What is in the bytes of a prepared file.
///
/// # Errors
/// When they are damaged.
pub fn parse(file: &Bytes) -> Result<Prepared> {
    let damaged = |why: &str| {
        Error::invalid(format!("the prepared file is damaged: {why}"))
            .hint("make it again from the model: `edgesmith prepare`")
    };
    let length = file.get(8..16).and_then(|b| b.try_into().ok());
    let length = length.map_or(u64::MAX, u64::from_le_bytes);
    let end = usize::try_from(length).ok().and_then(|n| n.checked_add(16));
    let header = end.and_then(|end| file.get(16..end));
    let header = header.ok_or_else(|| damaged("it ends within its header"))?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|e| damaged(&format!("its header is wrong: {e}")))?;
    let part = |(at, len): Place| -> Result<(Bytes, usize)> {
        let whole = len.checked_next_multiple_of(ALIGNMENT);
        let end = whole.and_then(|whole| at.checked_add(whole));
        match end {
            Some(end) if end <= file.len() => Ok((file.slice(at..end), len)),
            _ => Err(damaged(&format!(
                "{len} bytes at {at} go beyond its end, {}",
                file.len()
            ))),
        }
    };
    let exact = |place| part(place).map(|(bytes, len)| bytes.slice(..len));
    let weights = header.weights.into_iter().map(|(name, places)| {
        let parts = places.into_iter().map(part).collect::<Result<Vec<_>>>()?;
        Ok((name, parts))
    });
    Ok(Prepared {
        settings: header.settings,
        model: decode_within(exact(header.model)?, exact(header.data)?)?,
        weights: weights.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_testkit::{Rng, random};

    fn folder(name: &str) -> std::path::PathBuf {
        let name = format!("edgesmith-prepared-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn settings() -> Settings {
        [("isa".to_string(), "generic".to_string())].into()
    }

    #[test]
    fn what_is_written_is_read_and_lies_where_vectors_can_read_it() {
        let folder = folder("round");
        for seed in 0..20 {
            let path = folder.join(format!("{seed}"));
            let model = random::graph(seed);
            let image = Image::of(&model).unwrap();
            let bytes: Vec<u8> = (0..200).collect();
            let weights = [
                ("0".to_string(), vec![&bytes[..], &bytes[..64]]),
                ("3.then_branch.1".to_string(), vec![&bytes[..0]]),
            ];
            write(&path, false, settings(), &image, &weights).unwrap();
            let read = read(&path).unwrap().unwrap();
            assert_eq!(read.settings, settings());
            assert_eq!(
                crate::onnx::encode(&read.model).unwrap(),
                crate::onnx::encode(&model).unwrap()
            );
            for ((name, parts), (wanted, all)) in read.weights.iter().zip(&weights) {
                assert_eq!(name, wanted);
                for ((bytes, len), wanted) in parts.iter().zip(all) {
                    assert_eq!(&bytes[..*len], *wanted);
                    assert!(bytes.as_ptr().addr().is_multiple_of(ALIGNMENT));
                    assert!(bytes[*len..].iter().all(|b| *b == 0));
                }
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn another_file_is_no_prepared_one() {
        let folder = folder("other");
        let path = folder.join("short");
        std::fs::write(&path, b"ESM").unwrap();
        assert!(read(&path).unwrap().is_none());
        assert!(read(&folder).unwrap().is_none());
        assert!(read(&folder.join("none")).unwrap().is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_so() {
        let folder = folder("damaged");
        let path = folder.join("file");
        let image = Image::of(&random::graph(1)).unwrap();
        let weights = [("0".to_string(), vec![&[7u8; 100][..]])];
        write(&path, false, settings(), &image, &weights).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut random = Rng::new(5);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length].to_vec().into()).is_err(), "{length}");
        }
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            // It is an error, or a part that is within the file.
            let _ = parse(&bytes.into());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
