//! Damaged files of samples are read or refused: no panic, whatever the bytes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use std::io::Cursor;
use std::path::PathBuf;

use edgesmith_data::source::{self, Settings};
use edgesmith_formats::npy;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Result, Tensor};
use image::{ImageBuffer, ImageFormat, Rgb};

/// Damaged copies of each file.
const COPIES: u64 = 400;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::of_sample(&[seed]);
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(6) {
        let most = [64, usize::MAX][random.below(2)].min(bytes.len());
        let (at, other) = (random.below(most), random.below(bytes.len()));
        match random.below(9) {
            0 => bytes.truncate(other + 1),
            1 | 2 => bytes[at] = bytes[other],
            3 | 4 => bytes[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
            5 | 6 => bytes[at] ^= 1 << random.below(8),
            _ => bytes[at] = random.bits() as u8,
        }
        bytes.truncate(bytes.len().max(1));
    }
    bytes
}

/// Reads damaged copies of a file, and of what is beside it if it is in a folder; how many were read.
fn read_all(file: &str, bytes: &[u8]) -> usize {
    let name = format!(
        "edgesmith-damage-{}-{}",
        std::process::id(),
        file.replace('/', "-")
    );
    let folder = Folder(std::env::temp_dir().join(name));
    let path = folder.0.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let vocabulary = folder.0.join("vocab.txt");
    std::fs::write(&vocabulary, "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\n").unwrap();
    let settings = Settings {
        tokenizer: Some(vocabulary),
        tokens: 8,
        ..Settings::default()
    };
    let opened = if file.contains('/') { &folder.0 } else { &path };
    let read = |seed| -> Result<()> {
        std::fs::write(&path, damaged(bytes, seed)).unwrap();
        let source = source::open(opened, &settings)?;
        (0..source.len().min(3)).try_for_each(|i| source.get(i).map(|_| ()))
    };
    std::fs::write(&path, bytes).unwrap();
    let whole = source::open(opened, &settings).unwrap();
    whole.get(0).unwrap();
    (0..COPIES).filter(|&seed| read(seed).is_ok()).count()
}

fn image(format: ImageFormat) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([(x * 9) as u8, (y * 7) as u8, (x * y) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    let image = ImageBuffer::from_fn(24, 16, pixel);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn sound() -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 8000,
        bits_per_sample: 24,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    (0..64).for_each(|i| writer.write_sample(i * 1000).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

#[test]
fn images_and_sounds() {
    assert!(read_all("a/1.jpg", &image(ImageFormat::Jpeg)) > 0);
    read_all("a/1.png", &image(ImageFormat::Png));
    assert!(read_all("a/1.wav", &sound()) > 0);
}

#[test]
fn arrays() {
    let array = Tensor::from_vec(&[3, 2], vec![1.0f32; 6]).unwrap();
    assert!(read_all("x.npy", &npy::encode(&array).unwrap()) > 0);
    let mut idx = vec![0, 0, 8, 3];
    idx.extend([2u32, 3, 3].iter().flat_map(|n| n.to_be_bytes()));
    idx.extend([7; 18]);
    assert!(read_all("x-images-idx3-ubyte", &idx) > 0);
}

#[test]
fn texts() {
    let table = "text,label\n\"good, good\",1\nbad,0\n".repeat(4);
    read_all("x.csv", table.as_bytes());
    read_all("x.tsv", table.replace(',', "\t").as_bytes());
    let lines = "{\"text\": \"good\", \"label\": 1}\n".repeat(4);
    assert!(read_all("x.jsonl", lines.as_bytes()) > 0);
}
