//! Files of the form idx, as those of MNIST: bytes behind a header with the lengths.

use std::path::{Path, PathBuf};

use edgesmith_formats::Spans;
use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};

use super::labels::Labels;
use super::{Field, Holds, Sample, Settings, Source, SourceDef, ending};

/// A file, or a folder of files.
pub static IDX: SourceDef = SourceDef {
    name: "idx",
    about: "Files as those of MNIST: train-images-idx3-ubyte beside train-labels-idx1-ubyte, or with .gz",
    detect: |path| match path.is_dir() {
        true => PARTS
            .iter()
            .any(|(_, name)| images_in(path, name).is_some()),
        false => is_images(path),
    },
    open,
};

/// Parts of a folder, and how the names of their files begin.
const PARTS: &[(&str, &str)] = &[("train", "train"), ("test", "t10k"), ("test", "test")];

/// Bytes of one sample at the most, and axes.
const MOST_OF_SAMPLE: usize = 64 << 20;
const MOST_AXES: usize = 6;

/// Bytes of labels at the most.
const MOST_LABELS: u64 = 1 << 30;

struct Idx {
    path: PathBuf,
    images: Array,
    labels: Labels,
    labels_file: Option<PathBuf>,
    fields: [Field; 1],
    notes: Vec<String>,
}

/// Bytes behind a header.
struct Array {
    spans: Spans,
    dims: Vec<usize>,
    start: u64,
}

fn is_images(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["-idx", ".idx"].iter().any(|at| {
        let behind = name.split_once(at).map(|(_, behind)| behind);
        behind.is_some_and(|b| b.ends_with("-ubyte") || b.ends_with("-ubyte.gz"))
    })
}

/// The file of images of a part of a folder.
fn images_in(folder: &Path, part: &str) -> Option<PathBuf> {
    let names = ["-images-idx3-ubyte", "-images.idx3-ubyte"];
    let mut names = names
        .iter()
        .flat_map(|name| ["", ".gz"].map(|end| format!("{part}{name}{end}")));
    names.find_map(|name| Some(folder.join(name)).filter(|p| p.is_file()))
}

/// The file of labels beside one of images.
fn labels_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let (part, rest) = plain.split_once("-images")?;
    let joint = rest.chars().next()?;
    let names = ["", ".gz"].map(|end| format!("{part}-labels{joint}idx1-ubyte{end}"));
    let mut paths = names.iter().map(|name| images.with_file_name(name));
    paths.find(|path| path.is_file())
}

fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let place = || path.display().to_string();
    let wanted = settings.part.as_deref();
    let images = if path.is_dir() {
        let mut parts = PARTS
            .iter()
            .filter(|(part, _)| wanted.is_none_or(|w| w == *part));
        let found = parts.find_map(|(_, name)| images_in(path, name));
        let fault = || {
            Error::invalid("there are no images of that part")
                .at(place())
                .hint("parts are train and test")
        };
        found.ok_or_else(fault)?
    } else {
        path.to_path_buf()
    };
    let mut notes = Vec::new();
    let array = Array::open(&images, settings)?;
    if array.spans.is_held() {
        let bytes = array.spans.length();
        let name = images.file_name().unwrap_or_default().to_string_lossy();
        notes.push(format!(
            "{name} is packed, and is held in memory unpacked ({bytes} bytes)"
        ));
    }
    let labels_file = labels_of(&images);
    let labels = match &labels_file {
        None => Labels::default(),
        Some(file) => read_labels(file, array.dims[0], settings)?,
    };
    let field = Field {
        name: "image".into(),
        dtype: DType::U8,
        dims: array.dims[1..].to_vec(),
        holds: Holds::Own,
    };
    Ok(Box::new(Idx {
        path: images,
        images: array,
        labels,
        labels_file,
        fields: [field],
        notes,
    }))
}

fn read_labels(file: &Path, samples: usize, settings: &Settings) -> Result<Labels> {
    let place = || file.display().to_string();
    let array = Array::open(file, settings)?;
    let [count] = array.dims[..] else {
        return Err(Error::invalid("labels have one axis").at(place()));
    };
    if count as u64 > MOST_LABELS {
        return Err(Error::unsupported("there are too many labels").at(place()));
    }
    let bytes = array.spans.read(array.start, count).at(place)?;
    let labels = Labels::of_array(&Tensor::vector(bytes), settings.values)?;
    labels.check(samples).at(place)?;
    Ok(labels)
}

impl Array {
    fn open(path: &Path, settings: &Settings) -> Result<Self> {
        let spans = match ending(path).as_str() {
            "gz" => Spans::unpacked(path, settings.memory)?,
            _ => Spans::open(path)?,
        };
        Self::of(spans).at(|| path.display().to_string())
    }

    fn of(spans: Spans) -> Result<Self> {
        let magic = spans.read(0, 4)?;
        let axes = usize::from(magic[3]);
        if magic[..2] != [0, 0] || axes == 0 || axes > MOST_AXES {
            return Err(
                Error::invalid("it is no idx file").hint("such files begin with two bytes of 0")
            );
        }
        if magic[2] != 8 {
            let what = format!(
                "its elements are of type 0x{:02x}, and only bytes are read",
                magic[2]
            );
            return Err(Error::unsupported(what));
        }
        let lengths = spans.read(4, 4 * axes)?;
        let lengths = lengths.chunks_exact(4);
        let dims: Vec<usize> = lengths
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
            .collect();
        let start = 4 + 4 * axes as u64;
        let row = dims[1..].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let row = row.filter(|n| *n <= MOST_OF_SAMPLE);
        let row = row.ok_or_else(|| Error::unsupported("its samples are too large"))?;
        if row == 0 || dims[0] == 0 {
            return Err(Error::invalid("there are no samples"));
        }
        let expected = row as u64 * dims[0] as u64;
        if expected != spans.length() - start {
            return Err(Error::invalid(format!(
                "{} samples of {row} bytes are not the {} that the file holds",
                dims[0],
                spans.length() - start
            ))
            .hint("the file is cut off, or is another"));
        }
        Ok(Self { spans, dims, start })
    }
}

impl Source for Idx {
    fn path(&self) -> &Path {
        &self.path
    }

    fn beside(&self) -> Option<&Path> {
        self.labels_file.as_deref()
    }

    fn len(&self) -> usize {
        self.images.dims[0]
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let dims = &self.fields[0].dims;
        let row: usize = dims.iter().product();
        let start = self.images.start + index as u64 * row as u64;
        let bytes = self.images.spans.read(start, row)?;
        Ok(Sample {
            tensors: vec![Tensor::from_vec(dims, bytes)?],
            target: self.labels.of(index),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::{Target, open};
    use super::*;
    use std::io::Write;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn a_folder_has_parts_plain_or_packed() {
        let folder = Folder::new("idx");
        let images = idx(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        folder.write("train-images-idx3-ubyte", &images);
        folder.write("train-labels-idx1-ubyte", &idx(&[2], &[7, 9]));
        folder.write("t10k-images-idx3-ubyte.gz", &packed(&images));
        folder.write("t10k-labels-idx1-ubyte.gz", &packed(&idx(&[2], &[0, 1])));
        let part = |part: &str| {
            let settings = Settings {
                part: Some(part.into()),
                ..Settings::default()
            };
            open(&folder.0, &settings)
        };
        let train = open(&folder.0, &Settings::default()).unwrap();
        let last = train.get(1).unwrap();
        assert_eq!(last.target, Target::Class(9));
        assert_eq!(
            last.tensors[0],
            Tensor::from_vec(&[2, 2], vec![5u8, 6, 7, 8]).unwrap()
        );
        assert!(train.notes().is_empty());
        let test = part("test").unwrap();
        assert_eq!(test.get(0).unwrap().target, Target::Class(0));
        assert!(test.notes()[0].contains("held in memory"));
        assert!(part("val").is_err());
        let alone = open(
            &folder.0.join("t10k-images-idx3-ubyte.gz"),
            &Settings::default(),
        );
        assert_eq!(alone.unwrap().get(1).unwrap().target, Target::Class(1));
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = Folder::new("damaged");
        let refused = |bytes: &[u8]| {
            let path = folder.write("x-images-idx3-ubyte", bytes);
            open(&path, &Settings::default())
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        let whole = idx(&[2, 1, 2], &[1, 2, 3, 4]);
        assert_eq!(refused(&whole), "");
        for length in 0..whole.len() {
            assert!(!refused(&whole[..length]).is_empty(), "{length}");
        }
        for (bytes, what) in [
            (idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), "too large"),
            (idx(&[u32::MAX, 1, 1], &[]), "cut off"),
            (idx(&[0, 1, 1], &[]), "no samples"),
            (idx(&[1, 0, 1], &[]), "no samples"),
            (vec![0, 0, 13, 1, 0, 0, 0, 0], "type 0x0d"),
            (vec![1, 0, 8, 1], "no idx file"),
        ] {
            let e = refused(&bytes);
            assert!(e.contains(what), "{what}: {e}");
        }
        folder.write("x-images-idx3-ubyte", &whole);
        folder.write("x-labels-idx1-ubyte", &idx(&[3], &[1, 2, 3]));
        let path = folder.0.join("x-images-idx3-ubyte");
        let e = open(&path, &Settings::default()).err().unwrap().to_string();
        assert!(e.contains("3 labels for 2 samples"), "{e}");
    }
}
