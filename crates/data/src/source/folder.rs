//! Files of a folder by class: a folder for each class, or a class in each name.

use std::fs;
use std::path::{Path, PathBuf};

use edgesmith_formats::io_error;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result, Tensor};

use super::{Field, Sample, Settings, Source, Target, ending};

/// Files at most, and folders in each other.
const MOST_FILES: usize = 10_000_000;
const MOST_DEPTH: usize = 8;

/// Files of a kind, sorted by path within their class.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// Path below the root, and class.
    files: Vec<(PathBuf, Option<usize>)>,
    classes: Vec<String>,
}

impl Files {
    /// The files with one of these endings below a folder, or below the part of it that is asked for.
    /// Classes are the folders in it, by name; without such a folder classes are in the names where
    /// the settings say so, else files have none. Names that begin with a dot are left out.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds no such file.
    pub fn of(path: &Path, endings: &[&str], settings: &Settings) -> Result<Self> {
        let root = match &settings.part {
            Some(part) => part_of(path, part)?,
            None => path.to_path_buf(),
        };
        let mut found = Self {
            files: Vec::new(),
            classes: Vec::new(),
            root,
        };
        let place = found.root.display().to_string();
        let (folders, files) = entries(&found.root).at(|| place.clone())?;
        for folder in folders {
            let class = found.classes.len();
            found.add(Path::new(&folder), endings, class, 0)?;
            found.classes.push(folder);
        }
        if found.files.is_empty() {
            found.classes.clear();
            let files = files.into_iter().map(PathBuf::from);
            let taken = files.filter(|f| endings.contains(&ending(f).as_str()));
            found.files = taken.map(|f| (f, None)).collect();
            if settings.class_in_name {
                found.name_classes().at(|| place.clone())?;
            }
        }
        if found.files.is_empty() {
            return Err(Error::invalid(format!(
                "there is no file with the ending {}",
                endings.join(" or ")
            ))
            .at(place)
            .hint("a folder has a folder for each class, and files in these"));
        }
        Ok(found)
    }

    fn add(&mut self, below: &Path, endings: &[&str], class: usize, depth: usize) -> Result<()> {
        let folder = self.root.join(below);
        let (folders, files) = entries(&folder).at(|| folder.display().to_string())?;
        for file in files {
            let file = below.join(file);
            if endings.contains(&ending(&file).as_str()) {
                self.files.push((file, Some(class)));
            }
        }
        if self.files.len() > MOST_FILES || depth > MOST_DEPTH {
            let what = format!(
                "there are more than {MOST_FILES} files, or {MOST_DEPTH} folders in each other"
            );
            return Err(Error::unsupported(what).at(folder.display().to_string()));
        }
        for folder in folders {
            self.add(&below.join(folder), endings, class, depth + 1)?;
        }
        Ok(())
    }

    fn name_classes(&mut self) -> Result<()> {
        let name = |path: &Path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let class = stem.split_once('_').map(|(class, _)| class.to_owned());
            class.ok_or_else(|| {
                Error::invalid("its name has no class before a _").at(path.display().to_string())
            })
        };
        let names = self.files.iter().map(|(path, _)| name(path));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        self.classes = names.clone();
        self.classes.sort();
        self.classes.dedup();
        for ((_, class), name) in self.files.iter_mut().zip(&names) {
            *class = self.classes.binary_search(name).ok();
        }
        Ok(())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Where a file is.
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index].0)
    }

    /// The path of a file below the root.
    pub fn id(&self, index: usize) -> String {
        let parts = self.files[index].0.iter().map(|p| p.to_string_lossy());
        parts.collect::<Vec<_>>().join("/")
    }

    /// The class of a file.
    pub fn target(&self, index: usize) -> Target {
        let class = self.files[index].1;
        class.map_or(Target::Unknown, |class| Target::Class(class as i64))
    }

    /// Says which classes have no file.
    pub fn notes(&self) -> Vec<String> {
        let mut counts = vec![0usize; self.classes.len()];
        let classes = self.files.iter().filter_map(|f| f.1);
        classes.for_each(|class| counts[class] += 1);
        let empty = self.classes.iter().zip(&counts).filter(|(_, n)| **n == 0);
        let empty: Vec<&str> = empty.map(|(name, _)| name.as_str()).collect();
        match empty.is_empty() {
            true => Vec::new(),
            false => vec![format!("no file is of the class {}", empty.join(", "))],
        }
    }
}

/// A sample in each file, of one tensor.
pub struct ByFile<R> {
    /// The files.
    pub files: Files,
    /// The tensor of a sample.
    pub fields: [Field; 1],
    /// What the user should know, as sentences.
    pub notes: Vec<String>,
    /// Reads the tensor of a file, of the lengths of the field.
    pub read: R,
}

impl<R> Source for ByFile<R>
where
    R: Fn(&Path, &[usize]) -> Result<Tensor> + Send + Sync,
{
    fn path(&self) -> &Path {
        &self.files.root
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn classes(&self) -> &[String] {
        &self.files.classes
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn id(&self, index: usize) -> String {
        self.files.id(index)
    }

    fn target(&self, index: usize) -> Result<Target> {
        Ok(self.files.target(index))
    }

    fn read(&self, index: usize) -> Result<Sample> {
        Ok(Sample {
            tensors: vec![(self.read)(&self.files.path(index), &self.fields[0].dims)?],
            target: self.files.target(index),
        })
    }
}

/// True where a folder, or a folder in it or in that, has a file with one of these endings; the first
/// few names of each are looked at.
pub fn holds(path: &Path, endings: &[&str]) -> bool {
    fn look(path: &Path, endings: &[&str], depth: usize) -> bool {
        const LOOKED_AT: usize = 64;
        let Ok(entries) = fs::read_dir(path) else {
            return false;
        };
        entries.flatten().take(LOOKED_AT).any(|entry| {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => depth > 0 && look(&path, endings, depth - 1),
                Ok(_) => endings.contains(&ending(&path).as_str()),
                Err(_) => false,
            }
        })
    }
    path.is_dir() && look(path, endings, 2)
}

/// The folder of a part.
fn part_of(path: &Path, part: &str) -> Result<PathBuf> {
    let place = || path.display().to_string();
    let mut names = Path::new(part).components();
    let plain = matches!(names.next(), Some(std::path::Component::Normal(_)));
    let inner = path.join(part);
    if !plain || names.next().is_some() || !inner.is_dir() {
        let (folders, _) = entries(path).at(place)?;
        return Err(Error::invalid(format!("it has no folder \"{part}\""))
            .at(place())
            .hint(format!("its folders are {}", folders.join(", "))));
    }
    Ok(inner)
}

/// The names of the folders and files in a folder, sorted. Links to folders are not followed.
fn entries(path: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(|e| io_error(&e, "read"))? {
        let entry = entry.map_err(|e| io_error(&e, "read"))?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::unsupported(format!("the name {} is no Unicode", name.to_string_lossy()))
        })?;
        let kind = entry.file_type().map_err(|e| io_error(&e, "read"))?;
        match name.starts_with('.') {
            true => {}
            false if kind.is_dir() => folders.push(name),
            false => files.push(name),
        }
    }
    folders.sort();
    files.sort();
    Ok((folders, files))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;

    fn list(folder: &Folder, settings: &Settings) -> Vec<(String, Target)> {
        let files = Files::of(&folder.0, &["a"], settings).unwrap();
        let of = |i| (files.id(i), files.target(i));
        (0..files.len()).map(of).collect()
    }

    #[test]
    fn classes_are_folders_by_name_and_files_come_sorted() {
        let folder = Folder::new("classes");
        for name in ["b/2.A", "b/1.a", "a/x/9.a", "a/no.txt", ".git/3.a", "top.a"] {
            folder.write(name, b"");
        }
        let of = |id: &str, class| (id.to_owned(), Target::Class(class));
        let expected = [of("a/x/9.a", 0), of("b/1.a", 1), of("b/2.A", 1)];
        assert_eq!(list(&folder, &Settings::default()), expected);
    }

    #[test]
    fn a_part_is_a_folder_in_it() {
        let folder = Folder::new("part");
        folder.write("train/b/1.a", b"");
        folder.write("train/a/no.txt", b"");
        let settings = |part: &str| Settings {
            part: Some(part.into()),
            ..Settings::default()
        };
        assert_eq!(list(&folder, &settings("train"))[0].0, "b/1.a");
        let files = Files::of(&folder.0, &["a"], &settings("train")).unwrap();
        assert_eq!(files.notes(), ["no file is of the class a"]);
        for part in ["..", "test", "/", "train/b"] {
            let e = Files::of(&folder.0, &["a"], &settings(part)).unwrap_err();
            assert!(e.to_string().contains("its folders are train"), "{e}");
        }
    }

    #[test]
    fn without_folders_a_class_is_in_the_name_where_that_is_said() {
        let folder = Folder::new("names");
        folder.write("7_theo_0.a", b"");
        folder.write("3_theo_0.a", b"");
        assert_eq!(list(&folder, &Settings::default())[0].1, Target::Unknown);
        let settings = Settings {
            class_in_name: true,
            ..Settings::default()
        };
        let classes: Vec<Target> = list(&folder, &settings).into_iter().map(|f| f.1).collect();
        assert_eq!(classes, [Target::Class(0), Target::Class(1)]);
        folder.write("nothing.a", b"");
        let e = Files::of(&folder.0, &["a"], &settings).unwrap_err();
        assert!(e.to_string().contains("nothing.a"), "{e}");
    }
}
