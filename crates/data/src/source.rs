//! Sources: where samples for training are, and how they are read one by one, in any order.
//!
//! To add a source: write its file from its nearest neighbour, add the `mod` line and the row.

use std::path::{Path, PathBuf};

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};

mod arrays;
mod cifar;
mod folder;
mod idx;
mod images;
mod labels;
mod parquet;
mod records;
mod texts;
mod wav;

/// A row of the list of sources.
#[derive(Debug)]
pub struct SourceDef {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// True where a path looks like such a source.
    pub detect: fn(&Path) -> bool,
    /// Opens it.
    pub open: fn(&Path, &Settings) -> Result<Box<dyn Source>>,
}

/// Every source: files that their names tell come first, then folders that names in them tell, and
/// folders of classes at the end. The first that takes a path has it.
pub static SOURCES: &[&SourceDef] = &[
    &arrays::NPZ,
    &texts::CSV,
    &texts::TSV,
    &texts::JSONL,
    &parquet::PARQUET,
    &idx::IDX,
    &cifar::CIFAR,
    &arrays::NPY,
    &wav::WAV,
    &images::IMAGES,
];

/// What a source can be told. Each reads what concerns it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The part of a folder or an archive: `train`, `test`, `val`.
    pub part: Option<String>,
    /// The array, column or key with labels; a column may be a number from 0.
    pub label: Option<String>,
    /// Labels are numbers to meet, not classes.
    pub values: bool,
    /// Columns or keys with texts, one or two; a column may be a number from 0.
    pub text: Vec<String>,
    /// A `tokenizer.json`, or a `vocab.txt` of WordPiece.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a text: more are cut off, fewer are filled up.
    pub tokens: usize,
    /// Height and width to which images are brought: scaled until they cover it, and the middle taken.
    pub size: Option<[usize; 2]>,
    /// Channels of images, 1 or 3, where not those of the first image.
    pub channels: Option<usize>,
    /// Numbers of a sound: more are cut off, fewer are filled up with 0.
    pub samples: Option<usize>,
    /// In a folder without folders of classes a file's class is its name up to the first `_`.
    pub class_in_name: bool,
    /// Bytes at most that are held in memory of what cannot be read row by row.
    pub memory: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part: None,
            label: None,
            values: false,
            text: Vec::new(),
            tokenizer: None,
            tokens: 128,
            size: None,
            channels: None,
            samples: None,
            class_in_name: false,
            memory: 2 << 30,
        }
    }
}

/// A tensor of every sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name: that of a model's input, where the source knows it.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its lengths in one sample.
    pub dims: Vec<usize>,
    /// What it holds.
    pub holds: Holds,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Numbers of each sample.
    Own,
    /// The same tensor for all samples.
    Shared,
    /// What a model may do without, as the types of tokens.
    Extra,
}

/// What the answer to a sample is.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// It is not known.
    Unknown,
    /// A class.
    Class(i64),
    /// Numbers.
    Values(Vec<f32>),
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// A tensor for each field, in their order, without an axis for samples.
    pub tensors: Vec<Tensor>,
    /// The answer.
    pub target: Target,
}

/// Samples that are read one by one, in any order, by several threads.
#[allow(clippy::len_without_is_empty, reason = "a source is never empty")]
pub trait Source: Send + Sync {
    /// The file or folder.
    fn path(&self) -> &Path;

    /// A file beside that one which is read too.
    fn beside(&self) -> Option<&Path> {
        None
    }

    /// How many samples there are, at least one.
    fn len(&self) -> usize;

    /// The tensors of a sample.
    fn fields(&self) -> &[Field];

    /// How many tokens there are, where samples are texts.
    fn vocabulary(&self) -> Option<usize> {
        None
    }

    /// The names of classes by number; empty where they have none.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// What the user should know of how it is read, as sentences.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Names a sample, the same in every run: a path below the folder, or a row.
    fn id(&self, index: usize) -> String {
        format!("row {index}")
    }

    /// Reads the sample `index`, which is below the length. Errors have no place yet.
    ///
    /// # Errors
    /// When the data is cut off or damaged.
    fn read(&self, index: usize) -> Result<Sample>;

    /// The answer to the sample `index`, which is below the length.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn target(&self, index: usize) -> Result<Target> {
        Ok(self.read(index)?.target)
    }

    /// A sample.
    ///
    /// # Errors
    /// When there is none of that number, or its data is cut off or damaged; with file and row.
    fn get(&self, index: usize) -> Result<Sample> {
        let place = || self.path().display().to_string();
        if index >= self.len() {
            let what = format!("there is no sample {index} of {}", self.len());
            return Err(Error::invalid(what).at(place()));
        }
        self.read(index).at(|| self.id(index)).at(place)
    }
}

/// Finds a source by name.
pub fn find(name: &str) -> Option<&'static SourceDef> {
    SOURCES.iter().find(|s| s.name == name).copied()
}

/// Opens a file or folder as what it looks like.
///
/// # Errors
/// When it is there not, looks like no source, or is damaged.
pub fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let place = || path.display().to_string();
    if !path.exists() {
        return Err(Error::io("there is no such file or folder").at(place()));
    }
    let found = SOURCES.iter().find(|s| (s.detect)(path));
    let Some(source) = found else {
        let names: Vec<&str> = SOURCES.iter().map(|s| s.name).collect();
        return Err(Error::invalid("it looks like no source of samples")
            .at(place())
            .hint(format!("sources are {}", names.join(", "))));
    };
    (source.open)(path, settings)
}

/// The ending of a file name, in small letters.
fn ending(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_ascii_lowercase()
}

/// A folder of its own for a test, removed at the end.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new(test: &str) -> Self {
            let name = format!("edgesmith-source-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            path
        }

        /// The error of opening what is there.
        pub fn refused(&self, settings: &Settings) -> String {
            let opened = open(&self.0, settings);
            opened.err().map(|e| e.to_string()).unwrap_or_default()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Folder;
    use super::*;

    #[test]
    fn what_looks_like_nothing_is_told_with_the_list() {
        let folder = Folder::new("nothing");
        folder.write("notes.md", b"hello");
        let e = folder.refused(&Settings::default());
        assert!(
            e.contains("looks like no source") && e.contains("npz, csv"),
            "{e}"
        );
        let e = open(&folder.0.join("gone"), &Settings::default());
        assert!(e.err().unwrap().to_string().contains("no such file"));
    }

    #[test]
    fn names_are_told_apart() {
        for (i, s) in SOURCES.iter().enumerate() {
            assert_eq!(find(s.name).unwrap().name, s.name);
            assert!(SOURCES[..i].iter().all(|o| o.name != s.name));
        }
    }
}
