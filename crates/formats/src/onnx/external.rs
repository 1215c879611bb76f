//! Tensor data that stands in files beside the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use edgesmith_ir::{Error, Result};

use super::proto::StringStringEntryProto;
use crate::map::map;

/// The files beside a model, each mapped once.
pub struct ExternalFiles {
    folder: Option<PathBuf>,
    mapped: RefCell<BTreeMap<PathBuf, Bytes>>,
    /// What every location means, where there are no files.
    within: Option<Bytes>,
}

impl ExternalFiles {
    /// The files of a folder; without a folder, external data is an error.
    pub fn new(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(Path::to_path_buf),
            mapped: RefCell::default(),
            within: None,
        }
    }

    /// Bytes that stand for the file at any location.
    pub fn within(bytes: Bytes) -> Self {
        Self {
            within: Some(bytes),
            ..Self::new(None)
        }
    }

    /// The data that the entries point to: `needed` bytes where they state no length.
    ///
    /// # Errors
    /// When the location leaves the folder, the file cannot be mapped, or the data would reach
    /// behind its end.
    pub fn load(&self, entries: &[StringStringEntryProto], needed: usize) -> Result<Bytes> {
        let entry = |key: &str| {
            entries
                .iter()
                .find(|e| e.key.as_deref() == Some(key))
                .and_then(|e| e.value.as_deref())
        };
        let number = |key: &str| {
            entry(key)
                .map(|text| {
                    text.trim().parse::<usize>().map_err(|_| {
                        Error::invalid(format!("external data has the {key} \"{text}\""))
                    })
                })
                .transpose()
        };
        let location =
            entry("location").ok_or_else(|| Error::invalid("external data has no location"))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let file = self.file(location)?;
        let length = length.unwrap_or(needed);
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(Error::invalid(format!(
                "the external data stands at {offset} with {length} bytes, \
                 but \"{location}\" has only {}",
                file.len()
            ))
            .hint("the data file is cut off or belongs to another model")),
        }
    }

    fn file(&self, location: &str) -> Result<Bytes> {
        if let Some(bytes) = &self.within {
            return Ok(bytes.clone());
        }
        let relative = Path::new(location);
        let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(inside) {
            return Err(Error::invalid(format!(
                "the external data \"{location}\" lies outside the folder of the model"
            ))
            .hint("only files in the folder of the model, or below it, are opened"));
        }
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::invalid("the model has external data, but was not read from a file")
        })?;
        let path = folder.join(relative);
        if let Some(bytes) = self.mapped.borrow().get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = map(&path).map_err(|e| e.hint("it holds the weights of the model"))?;
        self.mapped.borrow_mut().insert(path, bytes.clone());
        Ok(bytes)
    }
}
