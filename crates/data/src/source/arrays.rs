//! Arrays of numpy: an npz file, an npy file, or a folder of npy files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use edgesmith_formats::npy::Header;
use edgesmith_formats::{RowFile, npz};
use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};

use super::labels::Labels;
use super::{Field, Holds, Sample, Settings, Source, SourceDef, ending};

/// An npz file.
pub static NPZ: SourceDef = SourceDef {
    name: "npz",
    about: "Arrays of a file that numpy.savez writes: those of inputs by name, and labels or y",
    detect: |path| path.is_file() && ending(path) == "npz",
    open: open_npz,
};

/// An npy file, or a folder of them.
pub static NPY: SourceDef = SourceDef {
    name: "npy",
    about: "An array of an npy file, or a folder of such files: those of inputs by name, and labels or y",
    detect: |path| match path.is_dir() {
        true => !npy_files(path).is_empty(),
        false => ending(path) == "npy",
    },
    open: open_npy,
};

/// The names of arrays with labels, where none is given.
const LABELS: &[&str] = &["labels", "label", "y"];

/// The parts into which archives are split, where none is given: the first that is there.
const PARTS: &[&str] = &["train", "test", "val"];

/// Where the rows of an array are.
enum Rows {
    File(RowFile),
    Held(Tensor),
    Shared(Tensor),
}

struct Arrays {
    path: PathBuf,
    fields: Vec<Field>,
    rows: Vec<Rows>,
    labels: Labels,
    /// Bytes of each array that is held in memory.
    held: Vec<usize>,
    notes: Vec<String>,
    len: usize,
}

/// Arrays by name, before it is known which are labels.
trait Archive {
    /// Names and headers.
    fn arrays(&self) -> Vec<(String, Header)>;
    fn whole(&self, name: &str) -> Result<Tensor>;
    /// `None` where rows cannot be read alone.
    fn row_file(&self, name: &str) -> Result<Option<RowFile>>;
}

impl Archive for npz::Reader {
    fn arrays(&self) -> Vec<(String, Header)> {
        self.arrays().to_vec()
    }

    fn whole(&self, name: &str) -> Result<Tensor> {
        self.read(name)
    }

    fn row_file(&self, name: &str) -> Result<Option<RowFile>> {
        match self.header(name) {
            Some(h) if h.fortran && h.dims.len() > 1 => Ok(None),
            _ => npz::Reader::row_file(self, name),
        }
    }
}

/// The npy files of a folder.
struct Loose(BTreeMap<String, (PathBuf, Header)>);

impl Archive for Loose {
    fn arrays(&self) -> Vec<(String, Header)> {
        let all = self.0.iter();
        all.map(|(n, (_, h))| (n.clone(), h.clone())).collect()
    }

    fn whole(&self, name: &str) -> Result<Tensor> {
        let (path, header) = &self.0[name];
        let place = || path.display().to_string();
        let mut file = fs::File::open(path)
            .map_err(|e| edgesmith_formats::io_error(&e, "read").at(place()))?;
        Header::read(&mut file).at(place)?;
        let mut data = Vec::new();
        let size = header.data_bytes().at(place)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, size as u64), &mut data)
            .map_err(|e| edgesmith_formats::io_error(&e, "read").at(place()))?;
        header.tensor(&header.dims, data).at(place)
    }

    fn row_file(&self, name: &str) -> Result<Option<RowFile>> {
        let (path, header) = &self.0[name];
        match header.fortran && header.dims.len() > 1 {
            true => Ok(None),
            false => RowFile::open(path).map(Some),
        }
    }
}

fn npy_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|e| e.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|p| ending(p) == "npy" && p.is_file())
        .collect();
    found.sort();
    found
}

fn open_npz(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    Arrays::of(path, &npz::Reader::open(path)?, settings)
}

fn open_npy(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let files = match path.is_dir() {
        true => npy_files(path),
        false => vec![path.to_path_buf()],
    };
    let mut arrays = BTreeMap::new();
    for file in files {
        let place = || file.display().to_string();
        let mut bytes = fs::File::open(&file)
            .map_err(|e| edgesmith_formats::io_error(&e, "read").at(place()))?;
        let header = Header::read(&mut bytes).at(place)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        arrays.insert(name.into_owned(), (file, header));
    }
    Arrays::of(path, &Loose(arrays), settings)
}

/// An array of an archive, with the name that it has without the part.
struct Named {
    name: String,
    inside: String,
    header: Header,
}

/// The arrays of the part that is asked for: those with its name at the end where there are any.
fn part_of(arrays: Vec<(String, Header)>, part: Option<&str>) -> Result<Vec<Named>> {
    let with = |part: &str| -> Vec<Named> {
        let end = format!("_{part}");
        let own = arrays.iter().filter_map(|(inside, header)| {
            let name = inside.strip_suffix(&end)?.to_owned();
            let (inside, header) = (inside.clone(), header.clone());
            Some(Named {
                name,
                inside,
                header,
            })
        });
        own.collect()
    };
    if let Some(part) = part {
        let found = with(part);
        if found.is_empty() {
            let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
            return Err(Error::invalid(format!("no array ends with _{part}"))
                .hint(format!("its arrays are {}", names.join(", "))));
        }
        return Ok(found);
    }
    let parts = PARTS.iter().map(|part| with(part));
    if let Some(found) = parts.into_iter().find(|found| !found.is_empty()) {
        return Ok(found);
    }
    let plain = |(name, header): (String, Header)| Named {
        inside: name.clone(),
        name,
        header,
    };
    Ok(arrays.into_iter().map(plain).collect())
}

impl Arrays {
    fn of(path: &Path, archive: &dyn Archive, settings: &Settings) -> Result<Box<dyn Source>> {
        let place = || path.display().to_string();
        let mut arrays = part_of(archive.arrays(), settings.part.as_deref()).at(place)?;
        let labels = take_labels(&mut arrays, settings.label.as_deref()).at(place)?;
        let mut found = Self {
            path: path.to_path_buf(),
            fields: Vec::new(),
            rows: Vec::new(),
            labels: Labels::default(),
            held: Vec::new(),
            notes: Vec::new(),
            len: 0,
        };
        for array in arrays {
            let name = array.name.clone();
            found
                .add(array, archive, settings)
                .at(|| format!("array \"{name}\""))
                .at(place)?;
        }
        if found.len == 0 {
            return Err(Error::invalid("there are no samples").at(place()));
        }
        if !found.held.is_empty() {
            let (count, bytes) = (found.held.len(), found.held.iter().sum::<usize>());
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            found.notes.push(format!(
                "{name} is packed: what cannot be read row by row is held in memory ({count} arrays, {bytes} bytes)"
            ));
        }
        if let Some(labels) = labels {
            let of = |array: &Named| -> Result<Labels> {
                held(&array.header, settings)?;
                let labels = Labels::of_array(&archive.whole(&array.inside)?, settings.values)?;
                labels.check(found.len).map(|()| labels)
            };
            found.labels = of(&labels)
                .at(|| format!("array \"{}\"", labels.inside))
                .at(place)?;
        }
        if settings.label.is_some() {
            // The user chose the labels: other arrays like them are no inputs.
            let plain = found.fields.iter_mut();
            plain
                .filter(|f| f.holds == Holds::Own)
                .filter(|f| f.dims.is_empty() || LABELS.contains(&f.name.as_str()))
                .for_each(|f| f.holds = Holds::Extra);
        }
        Ok(Box::new(found))
    }

    fn add(&mut self, array: Named, archive: &dyn Archive, settings: &Settings) -> Result<()> {
        let Named {
            name,
            inside,
            header,
        } = array;
        if header.dtype == DType::String {
            return Err(Error::unsupported(
                "it has strings, which no model is given",
            ));
        }
        let (rows, dims, holds) = match header.dims.split_first() {
            None => {
                let whole = archive.whole(&inside)?;
                (Rows::Shared(whole), Vec::new(), Holds::Shared)
            }
            Some((&count, dims)) => {
                if self.len > 0 && count != self.len {
                    return Err(Error::invalid(format!(
                        "it has {count} rows, arrays before it have {}",
                        self.len
                    )));
                }
                self.len = count;
                let rows = match archive.row_file(&inside)? {
                    Some(rows) => Rows::File(rows),
                    None => {
                        self.held.push(held(&header, settings)?);
                        Rows::Held(archive.whole(&inside)?)
                    }
                };
                (rows, dims.to_vec(), Holds::Own)
            }
        };
        self.rows.push(rows);
        self.fields.push(Field {
            name,
            dtype: header.dtype,
            dims,
            holds,
        });
        Ok(())
    }
}

/// The bytes of an array, where they may be held in memory.
fn held(header: &Header, settings: &Settings) -> Result<usize> {
    let bytes = header.data_bytes()?;
    if bytes > settings.memory {
        return Err(Error::unsupported(format!(
            "it takes {bytes} bytes, and {} may be held in memory",
            settings.memory
        ))
        .hint("numpy.savez writes arrays that are read row by row"));
    }
    Ok(bytes)
}

/// Takes out the array with labels: that of a name, or of a usual name.
fn take_labels(arrays: &mut Vec<Named>, name: Option<&str>) -> Result<Option<Named>> {
    let usual = |array: &Named| LABELS.contains(&array.name.as_str());
    let at = match name {
        None => arrays.iter().position(usual),
        Some(name) => {
            let at = arrays
                .iter()
                .position(|a| [&a.name, &a.inside].contains(&&name.to_owned()));
            let names: Vec<&str> = arrays.iter().map(|a| a.inside.as_str()).collect();
            let fault = || {
                Error::invalid(format!("there is no array \"{name}\" with labels"))
                    .hint(format!("its arrays are {}", names.join(", ")))
            };
            Some(at.ok_or_else(fault)?)
        }
    };
    Ok(at.map(|at| arrays.remove(at)))
}

impl Source for Arrays {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> usize {
        self.len
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let row = |(rows, field): (&Rows, &Field)| -> Result<Tensor> {
            let t = match rows {
                Rows::Shared(t) => return Ok(t.clone()),
                Rows::File(file) => file.rows(index..index + 1)?,
                Rows::Held(t) => {
                    let row = t.byte_len() / self.len;
                    let bytes = t.bytes().slice(index * row..(index + 1) * row);
                    return Ok(Tensor::from_bytes(t.dtype(), &field.dims, bytes)?.detached());
                }
            };
            t.reshaped(&field.dims)
        };
        let all = self.rows.iter().zip(&self.fields);
        let named = |pair: (&Rows, &Field)| {
            let name = pair.1.name.clone();
            row(pair).at(|| format!("array \"{name}\""))
        };
        Ok(Sample {
            tensors: all.map(named).collect::<Result<_>>()?,
            target: self.labels.of(index),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::{Target, open};
    use super::*;
    use edgesmith_formats::npy;

    fn bytes(dims: &[usize]) -> Tensor {
        let count: usize = dims.iter().product();
        Tensor::from_vec(dims, (0..count).map(|i| i as u8).collect()).unwrap()
    }

    fn file(folder: &Folder, arrays: &[(&str, Tensor)]) -> PathBuf {
        let path = folder.0.join("data.npz");
        let named = arrays.iter().map(|(n, t)| ((*n).to_owned(), t.clone()));
        npz::write(&path, &named.collect::<Vec<_>>(), true).unwrap();
        path
    }

    /// The first number of the first tensor of each sample, last first.
    fn backwards(source: &dyn Source) -> Vec<u8> {
        let first = |i| source.get(i).unwrap().tensors[0].data::<u8>().unwrap()[0];
        (0..source.len()).rev().map(first).collect()
    }

    #[test]
    fn a_compressed_archive_is_held_and_says_so() {
        let folder = Folder::new("npz");
        let arrays = [
            ("x", bytes(&[3, 2])),
            ("rate", Tensor::scalar(16i64)),
            ("y", bytes(&[3])),
        ];
        let path = file(&folder, &arrays);
        let source = open(&path, &Settings::default()).unwrap();
        assert_eq!(backwards(&*source), [4, 2, 0]);
        let sample = source.get(2).unwrap();
        assert_eq!(sample.target, Target::Class(2));
        assert_eq!(sample.tensors[0].dims(), [2]);
        assert_eq!(source.fields()[1].holds, Holds::Shared);
        assert!(
            source.notes()[0].contains("held in memory"),
            "{:?}",
            source.notes()
        );
        let little = Settings {
            memory: 5,
            ..Settings::default()
        };
        let e = open(&path, &little).err().unwrap().to_string();
        assert!(e.contains("it takes 6 bytes"), "{e}");
        let e = source.get(3).unwrap_err().to_string();
        assert!(e.contains("no sample 3 of 3"), "{e}");
    }

    #[test]
    fn npy_files_of_a_folder_are_read_row_by_row() {
        let folder = Folder::new("npy");
        folder.write("x.npy", &npy::encode(&bytes(&[3, 2])).unwrap());
        let values = Tensor::vector(vec![0.5f32, 1.5, 2.5]);
        folder.write("labels.npy", &npy::encode(&values).unwrap());
        let source = open(&folder.0, &Settings::default()).unwrap();
        assert_eq!(backwards(&*source), [4, 2, 0]);
        assert_eq!(source.get(1).unwrap().target, Target::Values(vec![1.5]));
        assert!(source.notes().is_empty());
        let alone = open(&folder.0.join("x.npy"), &Settings::default()).unwrap();
        assert_eq!(alone.get(1).unwrap().target, Target::Unknown);
    }

    #[test]
    fn parts_are_told_by_the_ends_of_names() {
        let folder = Folder::new("parts");
        let arrays = [
            ("x_train", bytes(&[4, 2])),
            ("y_train", bytes(&[4])),
            ("x_test", bytes(&[2, 2])),
            ("y_test", bytes(&[2])),
        ];
        let path = file(&folder, &arrays);
        let open = |part: Option<&str>| {
            let settings = Settings {
                part: part.map(Into::into),
                ..Settings::default()
            };
            open(&path, &settings)
        };
        assert_eq!(open(None).unwrap().len(), 4);
        let test = open(Some("test")).unwrap();
        assert_eq!((test.len(), test.fields()[0].name.as_str()), (2, "x"));
        assert!(open(Some("val")).is_err());
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_array() {
        let folder = Folder::new("misfit");
        let refused = |arrays: &[(&str, Tensor)], settings: &Settings| {
            let opened = open(&file(&folder, arrays), settings);
            opened.err().map(|e| e.to_string()).unwrap_or_default()
        };
        let plain = Settings::default();
        let e = refused(&[("a", bytes(&[3, 1])), ("b", bytes(&[2, 1]))], &plain);
        assert!(e.contains("array \"b\": it has 2 rows"), "{e}");
        let e = refused(&[("a", bytes(&[3])), ("y", bytes(&[2]))], &plain);
        assert!(e.contains("array \"y\": there are 2 labels for 3"), "{e}");
        let e = refused(&[("a", bytes(&[0]))], &plain);
        assert!(e.contains("no samples"), "{e}");
        let label = Settings {
            label: Some("z".into()),
            ..Settings::default()
        };
        let e = refused(&[("a", bytes(&[3]))], &label);
        assert!(
            e.contains("no array \"z\"") && e.contains("arrays are a"),
            "{e}"
        );
    }
}
