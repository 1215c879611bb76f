//! Texts with labels: columns of a table, or keys of lines of JSON.

use std::path::{Path, PathBuf};

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};
use serde_json::Value;

use super::labels::Labels;
use super::records::{Form, Record, Records};
use super::{Field, Holds, Sample, Settings, Source, SourceDef, ending};
use crate::tokenizer::Tokenizer;

/// Columns between commas.
pub static CSV: SourceDef = SourceDef {
    name: "csv",
    about: "Texts and labels in columns between commas, by name or by number",
    detect: |path| path.is_file() && ending(path) == "csv",
    open: |path, settings| open(path, settings, Form::Comma),
};

/// Columns between tabs.
pub static TSV: SourceDef = SourceDef {
    name: "tsv",
    about: "Texts and labels in columns between tabs, by name or by number",
    detect: |path| path.is_file() && ending(path) == "tsv",
    open: |path, settings| open(path, settings, Form::Tab),
};

/// Lines of JSON.
pub static JSONL: SourceDef = SourceDef {
    name: "jsonl",
    about: "Texts and labels in lines of JSON, by key",
    detect: |path| path.is_file() && ["jsonl", "ndjson"].contains(&ending(path).as_str()),
    open: |path, settings| open(path, settings, Form::Json),
};

/// Names of columns, where none are given.
const TEXT: &[&str] = &["text", "sentence"];
const LABEL: &[&str] = &["label", "labels", "class"];

struct Texts {
    path: PathBuf,
    records: Records,
    columns: Vec<Column>,
    tokenizer: Tokenizer,
    labels: Labels,
    fields: Vec<Field>,
}

/// A column of a table, or a key.
enum Column {
    Number(usize),
    Key(String),
}

impl Column {
    /// What is in it, as text; numbers and truths of JSON as they are written.
    fn text(&self, record: &Record) -> Result<String> {
        match (self, record) {
            (Self::Number(n), _) => {
                let missing = || Error::invalid(format!("there is no column {n}"));
                Ok(record.column(*n).ok_or_else(missing)??.to_owned())
            }
            (Self::Key(key), Record::Object(object)) => match object.get(key) {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
                Some(_) => Err(Error::invalid(format!(
                    "\"{key}\" is no text and no number"
                ))),
                None => Err(Error::invalid(format!("there is no key \"{key}\""))),
            },
            (Self::Key(_), _) => Err(Error::internal("a table has columns by number")),
        }
    }
}

fn open(path: &Path, settings: &Settings, form: Form) -> Result<Box<dyn Source>> {
    let given = settings.text.iter().chain(&settings.label);
    let all_numbers = given.clone().all(|c| c.parse::<usize>().is_ok());
    let has_header = form != Form::Json && (given.count() == 0 || !all_numbers);
    let records = || Records::open(path, form, has_header);
    texts(path, settings, form, &records)
}

/// Texts of records, which are read once it is known that there is a tokenizer for them.
pub fn texts(
    path: &Path,
    settings: &Settings,
    form: Form,
    records: &dyn Fn() -> Result<Records>,
) -> Result<Box<dyn Source>> {
    let place = || path.display().to_string();
    if settings.text.len() > 2 {
        let what = format!("a sample has one text or two, not {}", settings.text.len());
        return Err(Error::usage(what));
    }
    let file = settings.tokenizer.as_ref().ok_or_else(|| {
        Error::usage("texts need a tokenizer")
            .at(place())
            .hint("name the model's tokenizer.json or vocab.txt")
    })?;
    let tokenizer = Tokenizer::open(file, settings.tokens)?;
    let records = records()?;
    if records.len() == 0 {
        return Err(Error::invalid("there are no samples").at(place()));
    }
    let columns = text_columns(&records, form, settings).at(place)?;
    let labels = read_labels(&records, form, settings).at(place)?;
    let field = |name: &str, holds| Field {
        name: name.to_owned(),
        dtype: DType::I64,
        dims: vec![tokenizer.length()],
        holds,
    };
    Ok(Box::new(Texts {
        path: path.to_path_buf(),
        fields: vec![
            field("input_ids", Holds::Own),
            field("attention_mask", Holds::Extra),
            field("token_type_ids", Holds::Extra),
        ],
        records,
        columns,
        tokenizer,
        labels,
    }))
}

fn text_columns(records: &Records, form: Form, settings: &Settings) -> Result<Vec<Column>> {
    if settings.text.is_empty() {
        let fault = || {
            Error::invalid(format!("there is no column {}", TEXT.join(" or ")))
                .hint(format!("name the one with texts{}", listed(records)))
        };
        let usual = usual_column(records, form, TEXT)?;
        return Ok(vec![usual.ok_or_else(fault)?]);
    }
    let columns = settings.text.iter();
    columns.map(|name| column(records, form, name)).collect()
}

/// The first of these columns, or of these keys of the first record, that there is.
fn usual_column(records: &Records, form: Form, names: &[&str]) -> Result<Option<Column>> {
    if form != Form::Json {
        return Ok(names
            .iter()
            .find_map(|name| column(records, form, name).ok()));
    }
    let Record::Object(object) = records.record(0).at(|| "row 0")? else {
        return Ok(None);
    };
    let found = names.iter().find(|name| object.contains_key(**name));
    Ok(found.map(|name| Column::Key((*name).to_owned())))
}

/// A column by name, or by number where there is no header.
fn column(records: &Records, form: Form, name: &str) -> Result<Column> {
    if form == Form::Json {
        return Ok(Column::Key(name.to_owned()));
    }
    let header = records.header().unwrap_or_default();
    if let Some(at) = header.iter().position(|n| n == name) {
        return Ok(Column::Number(at));
    }
    name.parse().map(Column::Number).map_err(|_| {
        let hint = format!("name another{}", listed(records));
        Error::invalid(format!("there is no column \"{name}\"")).hint(hint)
    })
}

fn listed(records: &Records) -> String {
    match records.header() {
        Some(names) => format!("; the columns are {}", names.join(", ")),
        None => String::new(),
    }
}

/// The labels of records, in the column that is named, or in one that is usual.
pub fn read_labels(records: &Records, form: Form, settings: &Settings) -> Result<Labels> {
    let found = match &settings.label {
        Some(name) => Some(column(records, form, name)?),
        None => usual_column(records, form, LABEL)?,
    };
    let Some(found) = found else {
        return Ok(Labels::default());
    };
    let label = |i: usize| {
        let text = records.record(i).and_then(|r| found.text(&r));
        text.at(|| format!("row {i}"))
    };
    let texts = (0..records.len()).map(label).collect::<Result<_>>()?;
    Labels::of_texts(texts, settings.values)
}

impl Source for Texts {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn vocabulary(&self) -> Option<usize> {
        Some(self.tokenizer.vocabulary())
    }

    fn classes(&self) -> &[String] {
        self.labels.names()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let record = self.records.record(index)?;
        let texts = self.columns.iter().map(|c| c.text(&record));
        let texts: Vec<String> = texts.collect::<Result<_>>()?;
        let second = texts.get(1).map(String::as_str);
        let made = self.tokenizer.encode(&texts[0], second)?;
        Ok(Sample {
            tensors: [made.ids, made.mask, made.types].map(Tensor::vector).into(),
            target: self.labels.of(index),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::{Target, open};
    use super::*;

    fn settings(folder: &Folder) -> Settings {
        let vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\n";
        Settings {
            tokenizer: Some(folder.write("vocab.txt", vocabulary)),
            tokens: 5,
            ..Settings::default()
        }
    }

    fn ids(source: &dyn Source, index: usize) -> Vec<i64> {
        source.get(index).unwrap().tensors[0].to_i64().unwrap()
    }

    #[test]
    fn columns_are_found_by_usual_names() {
        let folder = Folder::new("csv");
        let path = folder.write("a.csv", b"id,label,text\n7,pos,\"good, good\"\n8,neg,bad\n");
        let source = open(&path, &settings(&folder)).unwrap();
        assert_eq!((source.len(), source.classes().len()), (2, 2));
        assert_eq!(ids(&*source, 1), [2, 5, 3, 0, 0]);
        assert_eq!(ids(&*source, 0), [2, 4, 1, 4, 3]);
        assert_eq!(source.get(0).unwrap().target, Target::Class(1));
        assert_eq!(source.classes(), ["neg", "pos"]);
    }

    #[test]
    fn columns_by_number_are_those_of_a_file_without_header() {
        let folder = Folder::new("tsv");
        let path = folder.write("a.tsv", b"good\t1\nbad \"\t0\n");
        let by_number = Settings {
            text: vec!["0".into()],
            label: Some("1".into()),
            ..settings(&folder)
        };
        let source = open(&path, &by_number).unwrap();
        assert_eq!(
            (source.len(), source.get(0).unwrap().target),
            (2, Target::Class(1))
        );
        let pair = Settings {
            text: vec!["0".into(), "1".into()],
            ..by_number.clone()
        };
        assert_eq!(ids(&*open(&path, &pair).unwrap(), 0), [2, 4, 3, 1, 3]);
        let far = Settings {
            text: vec!["9".into()],
            ..by_number
        };
        let e = open(&path, &far).unwrap().get(1).unwrap_err().to_string();
        assert!(e.contains("a.tsv: row 1: there is no column 9"), "{e}");
    }

    #[test]
    fn lines_of_json_have_keys() {
        let folder = Folder::new("jsonl");
        let lines =
            b"{\"sentence\": \"good\", \"score\": 0.5}\n{\"sentence\": \"bad\", \"score\": -2}\n";
        let path = folder.write("a.jsonl", lines);
        let values = Settings {
            label: Some("score".into()),
            values: true,
            ..settings(&folder)
        };
        let source = open(&path, &values).unwrap();
        assert_eq!(source.get(1).unwrap().target, Target::Values(vec![-2.0]));
        assert_eq!(ids(&*source, 1), [2, 5, 3, 0, 0]);
        let plain = open(&path, &settings(&folder)).unwrap();
        assert_eq!(plain.get(0).unwrap().target, Target::Unknown);
    }

    #[test]
    fn what_is_missing_is_told_with_its_place() {
        let folder = Folder::new("missing");
        let path = folder.write("a.csv", b"x,label\ngood,1\nbad\n");
        let refused = |settings: Settings| open(&path, &settings).err().unwrap().to_string();
        let e = refused(settings(&folder));
        assert!(
            e.contains("no column text or sentence") && e.contains("are x, label"),
            "{e}"
        );
        let text = |name: &str| Settings {
            text: vec![name.into()],
            ..settings(&folder)
        };
        let e = refused(text("y"));
        assert!(e.contains("no column \"y\""), "{e}");
        let e = refused(text("x"));
        assert!(e.contains("a.csv: row 1: there is no column 1"), "{e}");
        let e = refused(Settings::default());
        assert!(e.contains("need a tokenizer"), "{e}");
        let path = folder.write("b.jsonl", b"{\"text\": [1]}\n");
        let e = open(&path, &settings(&folder))
            .unwrap()
            .get(0)
            .unwrap_err()
            .to_string();
        assert!(e.contains("b.jsonl: row 0: \"text\" is no text"), "{e}");
    }
}
