//! Texts or images in columns of Parquet, with labels.

use std::fs::File;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use edgesmith_formats::io_error;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field as Cell, Row};
use serde_json::{Map, Number, Value};

use super::images::{as_field, decode, planes_of};
use super::labels::Labels;
use super::records::{Form, Records};
use super::texts::{read_labels, texts};
use super::{Field, Sample, Settings, Source, SourceDef, Target, ending};

/// Columns of Parquet.
pub static PARQUET: SourceDef = SourceDef {
    name: "parquet",
    about: "Texts, or the bytes of PNG and JPEG images, and labels in columns of Parquet",
    detect: |path| path.is_file() && ending(path) == "parquet",
    open,
};

fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let place = || path.display().to_string();
    let rows = rows(path, settings.memory).at(place)?;
    let first = rows.first();
    let first = first.ok_or_else(|| Error::invalid("there are no samples").at(place()))?;
    let pictures = first
        .get_column_iter()
        .find(|(_, cell)| bytes(cell).is_some());
    let objects = || rows.iter().map(object).collect();
    match pictures.filter(|_| settings.text.is_empty()) {
        None => texts(path, settings, Form::Json, &|| Ok(Records::held(objects()))),
        Some((name, _)) => {
            let files = rows.iter().enumerate().map(|(i, row)| {
                let mut cells = row.get_column_iter();
                let cell = cells.find(|(n, _)| *n == name).and_then(|(_, c)| bytes(c));
                let missing = || Error::invalid(format!("\"{name}\" has no bytes"));
                cell.ok_or_else(missing).at(|| format!("row {i}"))
            });
            let files = files.collect::<Result<Vec<_>>>().at(place)?;
            let labels = read_labels(&Records::held(objects()), Form::Json, settings).at(place)?;
            let first = decode(Cursor::new(&files[0])).at(|| "row 0").at(place)?;
            let (field, is_scaled) = as_field(&first, settings)?;
            Ok(Box::new(Pictures {
                path: path.to_path_buf(),
                files,
                labels,
                field: [field],
                is_scaled,
            }))
        }
    }
}

/// All rows of a file, of which the columns take at most so many bytes.
fn rows(path: &Path, most: usize) -> Result<Vec<Row>> {
    let damaged = |e: &dyn std::fmt::Display| Error::invalid(format!("it is not read: {e}"));
    let file = File::open(path).map_err(|e| io_error(&e, "read"))?;
    let read = || {
        let reader = SerializedFileReader::new(file).map_err(|e| damaged(&e))?;
        let sizes = reader
            .metadata()
            .row_groups()
            .iter()
            .map(|g| g.total_byte_size());
        let bytes = sizes.fold(0i64, |sum, n| sum.saturating_add(n.max(0)));
        if usize::try_from(bytes).unwrap_or(usize::MAX) > most {
            let what = format!("its columns take {bytes} bytes, over {most}");
            return Err(Error::unsupported(what).hint("use several files, or a folder of images"));
        }
        let rows = reader.get_row_iter(None).map_err(|e| damaged(&e))?;
        rows.map(|row| row.map_err(|e| damaged(&e))).collect()
    };
    // A damaged file may break what its reader takes for granted.
    let outcome = catch_unwind(AssertUnwindSafe(read));
    outcome.unwrap_or_else(|_| Err(damaged(&"its pages contradict each other")))
}

/// The bytes of a file in a cell: alone, or with a path beside.
fn bytes(cell: &Cell) -> Option<Vec<u8>> {
    match cell {
        Cell::Bytes(bytes) => Some(bytes.data().to_vec()),
        Cell::Group(row) => {
            let mut cells = row.get_column_iter();
            cells.find_map(|(name, cell)| match cell {
                Cell::Bytes(bytes) if name == "bytes" => Some(bytes.data().to_vec()),
                _ => None,
            })
        }
        _ => None,
    }
}

/// Texts, numbers and truths of a row by column.
fn object(row: &Row) -> Map<String, Value> {
    let cell = |(name, cell): (&String, &Cell)| Some((name.clone(), value(cell)?));
    row.get_column_iter().filter_map(cell).collect()
}

fn value(cell: &Cell) -> Option<Value> {
    Some(match cell {
        Cell::Str(text) => Value::String(text.clone()),
        Cell::Bool(b) => Value::Bool(*b),
        Cell::Byte(n) => Value::from(*n),
        Cell::Short(n) => Value::from(*n),
        Cell::Int(n) => Value::from(*n),
        Cell::Long(n) => Value::from(*n),
        Cell::UByte(n) => Value::from(*n),
        Cell::UShort(n) => Value::from(*n),
        Cell::UInt(n) => Value::from(*n),
        Cell::ULong(n) => Value::from(*n),
        Cell::Float(x) => Value::Number(Number::from_f64(f64::from(*x))?),
        Cell::Double(x) => Value::Number(Number::from_f64(*x)?),
        _ => return None,
    })
}

struct Pictures {
    path: PathBuf,
    /// The bytes of each as a file.
    files: Vec<Vec<u8>>,
    labels: Labels,
    field: [Field; 1],
    is_scaled: bool,
}

impl Source for Pictures {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn fields(&self) -> &[Field] {
        &self.field
    }

    fn classes(&self) -> &[String] {
        self.labels.names()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let image = decode(Cursor::new(&self.files[index]))?;
        Ok(Sample {
            tensors: vec![planes_of(image, &self.field[0].dims, self.is_scaled)?],
            target: self.target(index)?,
        })
    }

    fn target(&self, index: usize) -> Result<Target> {
        Ok(self.labels.of(index))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::testing::Folder;
    use super::*;

    /// A file of two columns, bytes or texts and numbers.
    fn file(kind: &str, compression: Compression, rows: &[(&[u8], i64)]) -> Vec<u8> {
        let schema = format!("message m {{ required binary {kind}; required int64 label; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression);
        let mut out = Vec::new();
        let properties = Arc::new(properties.build());
        let mut writer = SerializedFileWriter::new(&mut out, schema, properties).unwrap();
        for rows in rows.chunks(2) {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let all: Vec<ByteArray> = rows
                .iter()
                .map(|(b, _)| ByteArray::from(b.to_vec()))
                .collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&all, None, None)
                .unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let all: Vec<i64> = rows.iter().map(|(_, n)| *n).collect();
            column
                .typed::<Int64Type>()
                .write_batch(&all, None, None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        out
    }

    const TEXTS: [(&[u8], i64); 3] = [(b"good", 1), (b"bad", 0), (b"good bad", 5)];

    fn settings(folder: &Folder) -> Settings {
        let vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\n";
        Settings {
            tokenizer: Some(folder.write("vocab.txt", vocabulary)),
            tokens: 4,
            ..Settings::default()
        }
    }

    #[test]
    fn texts_come_as_tokens_with_their_labels() {
        let folder = Folder::new("parquet-texts");
        let settings = settings(&folder);
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            let bytes = file("text (UTF8)", compression, &TEXTS);
            let path = folder.write("a.parquet", &bytes);
            let source = super::super::open(&path, &settings).unwrap();
            assert_eq!(source.len(), 3);
            let sample = source.get(2).unwrap();
            assert_eq!(sample.tensors[0].to_i64().unwrap(), [2, 4, 5, 3]);
            assert_eq!(sample.target, Target::Class(5));
        }
    }

    #[test]
    fn images_come_as_planes() {
        let image = image::GrayImage::from_fn(3, 2, |x, y| image::Luma([(y * 3 + x) as u8]));
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let folder = Folder::new("parquet-images");
        let rows = [(&png.get_ref()[..], 7), (b"no image", 8)];
        let path = folder.write(
            "a.parquet",
            &file("image", Compression::UNCOMPRESSED, &rows),
        );
        let source = super::super::open(&path, &Settings::default()).unwrap();
        let sample = source.get(0).unwrap();
        assert_eq!(sample.tensors[0].dims(), [1, 2, 3]);
        assert_eq!(sample.tensors[0].to_i64().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(sample.target, Target::Class(7));
        let e = source.get(1).unwrap_err().to_string();
        assert!(e.contains("a.parquet: row 1: the image is not read"), "{e}");
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = Folder::new("parquet-damaged");
        let settings = settings(&folder);
        let whole = file("text (UTF8)", Compression::SNAPPY, &TEXTS);
        for cut in [0, 4, whole.len() / 2, whole.len() - 1] {
            let path = folder.write("a.parquet", &whole[..cut]);
            assert!(super::super::open(&path, &settings).is_err(), "{cut}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let path = folder.write("a.parquet", &bytes);
            if let Ok(source) = super::super::open(&path, &settings) {
                for i in 0..source.len() {
                    let _ = source.get(i);
                }
            }
        }
    }
}
