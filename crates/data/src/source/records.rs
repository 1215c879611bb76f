//! Records of text files: where each begins, and its columns.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use csv::ByteRecord;
use edgesmith_formats::{Spans, io_error};
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result};
use serde_json::{Map, Value};

/// Bytes of a record at the most.
const MOST_OF_RECORD: usize = 16 << 20;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Commas between columns, which quotes may hold.
    Comma,
    /// Tabs between columns; quotes mean nothing.
    Tab,
    /// An object of JSON in each line.
    Json,
}

/// Records one behind another.
pub struct Records {
    kept: Kept,
    /// The names of columns.
    header: Option<Vec<String>>,
}

/// Where records are.
enum Kept {
    /// In a file, of which the places are held in memory.
    File {
        spans: Spans,
        form: Form,
        /// Where each record begins, and where the last one ends.
        starts: Vec<u64>,
    },
    /// In memory.
    Held(Vec<Map<String, Value>>),
}

/// One record.
pub enum Record {
    /// Columns in order.
    Columns(ByteRecord),
    /// Values by key.
    Object(Map<String, Value>),
}

impl Records {
    /// Finds the records of a file. The first one is the header where that is said.
    ///
    /// # Errors
    /// When the file cannot be read, or a record is too long.
    pub fn open(path: &Path, form: Form, has_header: bool) -> Result<Self> {
        let place = || path.display().to_string();
        let spans = Spans::open(path)?;
        let file = File::open(path).map_err(|e| io_error(&e, "read").at(place()))?;
        let mut starts = match form {
            Form::Json => lines(file),
            _ => records(file, form),
        }
        .at(place)?;
        starts.push(spans.length());
        let mut found = Self {
            kept: Kept::File {
                spans,
                form,
                starts,
            },
            header: None,
        };
        if has_header && found.len() > 0 {
            let first = found.record(0).at(|| "header").at(place)?;
            let names = (0..).map_while(|i| first.column(i));
            let names: Result<Vec<String>> = names.map(|n| n.map(Into::into)).collect();
            let mut names = names.at(|| "header").at(place)?;
            if let Some(first) = names.first_mut() {
                *first = first.trim_start_matches('\u{feff}').to_owned();
            }
            found.header = Some(names);
            if let Kept::File { starts, .. } = &mut found.kept {
                starts.remove(0);
            }
        }
        Ok(found)
    }

    /// Records that were read already.
    pub fn held(records: Vec<Map<String, Value>>) -> Self {
        Self {
            kept: Kept::Held(records),
            header: None,
        }
    }

    /// How many records there are, without a header.
    pub fn len(&self) -> usize {
        match &self.kept {
            Kept::File { starts, .. } => starts.len() - 1,
            Kept::Held(records) => records.len(),
        }
    }

    /// The names of columns, where there is a header.
    pub fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// A record.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn record(&self, index: usize) -> Result<Record> {
        let (spans, form, starts) = match &self.kept {
            Kept::File {
                spans,
                form,
                starts,
            } => (spans, *form, starts),
            Kept::Held(records) => return Ok(Record::Object(records[index].clone())),
        };
        let (start, end) = (starts[index], starts[index + 1]);
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        if length > MOST_OF_RECORD {
            return Err(too_long());
        }
        let bytes = spans.read(start, length)?;
        if form == Form::Json {
            let object: serde_json::Result<Map<String, Value>> = serde_json::from_slice(&bytes);
            let fault = |e| Error::invalid(format!("the line is no object of JSON: {e}"));
            return object.map(Record::Object).map_err(fault);
        }
        let mut record = ByteRecord::new();
        let read = reader(form, &bytes[..]).read_byte_record(&mut record);
        read.map_err(|e| Error::invalid(format!("the record is damaged: {e}")))?;
        Ok(Record::Columns(record))
    }
}

impl Record {
    /// The text of a column; `None` where there are fewer, or keys and no columns.
    pub fn column(&self, index: usize) -> Option<Result<&str>> {
        let Self::Columns(columns) = self else {
            return None;
        };
        let utf8 = |bytes| {
            std::str::from_utf8(bytes)
                .map_err(|_| Error::invalid(format!("column {index} is no text of UTF-8")))
        };
        columns.get(index).map(utf8)
    }
}

fn too_long() -> Error {
    Error::invalid(format!("a record has more than {MOST_OF_RECORD} bytes"))
        .hint("a quote may be left open")
}

fn reader<R: Read>(form: Form, input: R) -> csv::Reader<R> {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true);
    match form {
        Form::Tab => builder.delimiter(b'\t').quoting(false),
        _ => builder.delimiter(b','),
    };
    builder.from_reader(input)
}

/// Bytes that may be read before it is said that more may.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = buffer.len().min(left);
        let n = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - n);
        Ok(n)
    }
}

/// Where the records of columns begin.
fn records(input: impl Read, form: Form) -> Result<Vec<u64>> {
    let left = Rc::new(Cell::new(MOST_OF_RECORD));
    let bounded = Bounded {
        inner: input,
        left: Rc::clone(&left),
    };
    let mut reader = reader(form, bounded);
    let (mut record, mut starts) = (ByteRecord::new(), Vec::new());
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(starts),
            Ok(true) => starts.extend(record.position().map(csv::Position::byte)),
            Err(e) => {
                let row = starts.len();
                let fault = match e.into_kind() {
                    csv::ErrorKind::Io(e) if e.kind() == io::ErrorKind::FileTooLarge => too_long(),
                    csv::ErrorKind::Io(e) => io_error(&e, "read"),
                    _ => Error::invalid("the record is damaged"),
                };
                return Err(fault.at(format!("row {row}")));
            }
        }
        left.set(MOST_OF_RECORD);
    }
}

/// Where the lines begin that hold anything.
fn lines(input: impl Read) -> Result<Vec<u64>> {
    let mut input = BufReader::new(input);
    let (mut line, mut starts, mut at) = (Vec::new(), Vec::new(), 0u64);
    loop {
        line.clear();
        let most = MOST_OF_RECORD as u64 + 1;
        let read = (&mut input).take(most).read_until(b'\n', &mut line);
        let length = read.map_err(|e| io_error(&e, "read"))?;
        if length == 0 {
            return Ok(starts);
        }
        if length > MOST_OF_RECORD {
            return Err(too_long().at(format!("row {}", starts.len())));
        }
        if !line.trim_ascii().is_empty() {
            starts.push(at);
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;

    fn open(text: &str, form: Form, has_header: bool) -> Records {
        let folder = Folder::new(&format!("records-{form:?}-{}", text.len()));
        let path = folder.write("file", text.as_bytes());
        Records::open(&path, form, has_header).unwrap()
    }

    fn columns(records: &Records, index: usize) -> Vec<String> {
        let record = records.record(index).unwrap();
        (0..)
            .map_while(|i| record.column(i))
            .map(|c| c.unwrap().to_owned())
            .collect()
    }

    #[test]
    fn quotes_hold_commas_and_lines() {
        let text = "\u{feff}text,label\n\"a, \"\"b\"\"\nc\",1\n\nplain \"word\",2\r\n";
        let records = open(text, Form::Comma, true);
        assert_eq!(records.header().unwrap(), ["text", "label"]);
        assert_eq!(records.len(), 2);
        assert_eq!(columns(&records, 1), ["plain \"word\"", "2"]);
        assert_eq!(columns(&records, 0), ["a, \"b\"\nc", "1"]);
    }

    #[test]
    fn between_tabs_quotes_mean_nothing() {
        let records = open("a \"quote\t1\nb\t2", Form::Tab, false);
        assert_eq!(columns(&records, 0), ["a \"quote", "1"]);
        assert_eq!(columns(&records, 1), ["b", "2"]);
    }

    #[test]
    fn lines_of_json_are_objects() {
        let records = open("{\"a\": 1}\n\n  {\"a\": 2}  ", Form::Json, false);
        assert_eq!(records.len(), 2);
        let Record::Object(second) = records.record(1).unwrap() else {
            panic!("an object");
        };
        assert_eq!(second["a"], 2);
        assert!(open("[1]\n", Form::Json, false).record(0).is_err());
    }

    #[test]
    fn a_record_without_end_is_refused() {
        struct Endless(u8);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(std::mem::replace(&mut self.0, b'x'));
                Ok(buffer.len())
            }
        }
        let e = records(Endless(b'"'), Form::Comma).unwrap_err().to_string();
        assert!(e.contains("row 0: a record has more"), "{e}");
        let e = lines(Endless(b'{')).unwrap_err().to_string();
        assert!(e.contains("row 0: a record has more"), "{e}");
    }
}
