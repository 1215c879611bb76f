//! The binary files of CIFAR-10 and CIFAR-100: a label or two, and 32x32 pixels of three planes.

use std::fs;
use std::path::{Path, PathBuf};

use edgesmith_formats::Spans;
use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};

use super::{Field, Holds, Sample, Settings, Source, SourceDef, Target, ending};

/// A folder of them.
pub static CIFAR: SourceDef = SourceDef {
    name: "cifar",
    about: "The folder of the binary form of CIFAR-10 or CIFAR-100",
    detect: |path| {
        LAYOUTS
            .iter()
            .any(|l| path.join(l.train).is_file() || path.join(l.test).is_file())
    },
    open,
};

const DIMS: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

/// How a set is laid out in files.
struct Layout {
    /// A file of the training part, and how those of it begin.
    train: &'static str,
    begins: &'static str,
    test: &'static str,
    /// The file with the names of classes.
    names: &'static str,
    /// Labels of a sample; the last one is the finest.
    labels: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        train: "data_batch_1.bin",
        begins: "data_batch_",
        test: "test_batch.bin",
        names: "batches.meta.txt",
        labels: 1,
    },
    Layout {
        train: "train.bin",
        begins: "train",
        test: "test.bin",
        names: "fine_label_names.txt",
        labels: 2,
    },
];

struct Cifar {
    path: PathBuf,
    /// Names and bytes of files, with the number of the sample behind their last.
    files: Vec<(String, Spans, usize)>,
    labels: usize,
    classes: Vec<String>,
    fields: [Field; 1],
}

fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let place = || path.display().to_string();
    let is_there = |l: &&Layout| path.join(l.train).is_file() || path.join(l.test).is_file();
    let layout = LAYOUTS.iter().find(is_there);
    let layout = layout.ok_or_else(|| Error::invalid("it has no files of CIFAR").at(place()))?;
    let names: Vec<String> = match settings.part.as_deref() {
        None | Some("train") => {
            let entries = fs::read_dir(path)
                .map_err(|e| edgesmith_formats::io_error(&e, "read").at(place()))?;
            let names = entries.flatten().map(|e| e.file_name());
            let names = names.filter_map(|n| n.into_string().ok());
            let own = |n: &String| n.starts_with(layout.begins) && ending(Path::new(n)) == "bin";
            let mut names: Vec<String> = names.filter(own).collect();
            names.sort();
            names
        }
        Some("test") => vec![layout.test.into()],
        Some(part) => {
            let what = format!("there is no part \"{part}\"");
            return Err(Error::invalid(what)
                .at(place())
                .hint("parts are train and test"));
        }
    };
    let mut files = Vec::new();
    let mut count = 0usize;
    for name in names {
        let file = path.join(&name);
        let spans = Spans::open(&file)?;
        let record = (layout.labels + PIXELS) as u64;
        if spans.length() == 0 || !spans.length().is_multiple_of(record) {
            return Err(Error::invalid(format!(
                "its {} bytes are no whole number of samples of {record}",
                spans.length()
            ))
            .at(file.display().to_string())
            .hint("the file is cut off, or is another"));
        }
        count += (spans.length() / record) as usize;
        files.push((name, spans, count));
    }
    if count == 0 {
        return Err(Error::invalid("there are no samples").at(place()));
    }
    let field = Field {
        name: "image".into(),
        dtype: DType::U8,
        dims: DIMS.to_vec(),
        holds: Holds::Own,
    };
    Ok(Box::new(Cifar {
        path: path.to_path_buf(),
        files,
        labels: layout.labels,
        classes: class_names(&path.join(layout.names))?,
        fields: [field],
    }))
}

/// The lines of a file of names, where there is one.
fn class_names(path: &Path) -> Result<Vec<String>> {
    /// Bytes that are looked at.
    const MOST: u64 = 1 << 16;
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let spans = Spans::open(path)?;
    let bytes = spans.read(0, spans.length().min(MOST) as usize);
    let text = String::from_utf8_lossy(&bytes.at(|| path.display().to_string())?).into_owned();
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    Ok(lines.map(Into::into).collect())
}

impl Cifar {
    /// The file of a sample, and its number in it.
    fn find(&self, index: usize) -> (usize, usize) {
        let file = self.files.partition_point(|(_, _, end)| *end <= index);
        let before = file.checked_sub(1).map_or(0, |f| self.files[f].2);
        (file, index - before)
    }
}

impl Source for Cifar {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> usize {
        self.files.last().map_or(0, |f| f.2)
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn id(&self, index: usize) -> String {
        let (file, row) = self.find(index);
        format!("{} row {row}", self.files[file].0)
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let (file, row) = self.find(index);
        let record = self.labels + PIXELS;
        let mut bytes = self.files[file]
            .1
            .read(row as u64 * record as u64, record)?;
        let pixels = bytes.split_off(self.labels);
        let class = bytes.last().copied().unwrap_or_default();
        if !self.classes.is_empty() && usize::from(class) >= self.classes.len() {
            let what = format!(
                "the label {class} is none of {} classes",
                self.classes.len()
            );
            return Err(Error::invalid(what));
        }
        Ok(Sample {
            tensors: vec![Tensor::from_vec(&DIMS, pixels)?],
            target: Target::Class(i64::from(class)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::super::testing::Folder;
    use super::*;

    fn records(labels: &[&[u8]]) -> Vec<u8> {
        let record = |l: &&[u8]| [l.to_vec(), vec![l[0]; PIXELS]].concat();
        labels.iter().flat_map(record).collect()
    }

    fn part(folder: &Folder, part: &str) -> Result<Box<dyn Source>> {
        let settings = Settings {
            part: Some(part.into()),
            ..Settings::default()
        };
        open(&folder.0, &settings)
    }

    #[test]
    fn batches_are_read_as_one() {
        let folder = Folder::new("cifar10");
        folder.write("data_batch_1.bin", &records(&[&[1], &[0]]));
        folder.write("data_batch_2.bin", &records(&[&[2]]));
        folder.write("test_batch.bin", &records(&[&[3]]));
        folder.write("batches.meta.txt", b"airplane\nautomobile\nbird\n");
        let train = open(&folder.0, &Settings::default()).unwrap();
        assert_eq!((train.len(), train.classes().len()), (3, 3));
        let last = train.get(2).unwrap();
        assert_eq!(
            (last.target, last.tensors[0].bytes()[0]),
            (Target::Class(2), 2)
        );
        assert_eq!(train.id(2), "data_batch_2.bin row 0");
        let e = part(&folder, "test")
            .unwrap()
            .get(0)
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("test_batch.bin row 0: the label 3 is none of 3"),
            "{e}"
        );
        folder.write("data_batch_2.bin", &[0; 10]);
        let e = folder.refused(&Settings::default());
        assert!(
            e.contains("data_batch_2.bin") && e.contains("no whole number"),
            "{e}"
        );
    }

    #[test]
    fn the_finer_of_two_labels_is_taken() {
        let folder = Folder::new("cifar100");
        folder.write("train.bin", &records(&[&[1, 90]]));
        let train = part(&folder, "train").unwrap();
        assert_eq!(train.get(0).unwrap().target, Target::Class(90));
        assert!(part(&folder, "val").is_err());
    }
}
