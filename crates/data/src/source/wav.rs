//! Sounds in a folder for each class.

use std::path::Path;

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Result, Tensor};
use hound::{SampleFormat, WavReader};

use super::folder::{ByFile, Files, holds};
use super::{Field, Holds, Settings, Source, SourceDef};

/// A folder of sounds.
pub static WAV: SourceDef = SourceDef {
    name: "wav",
    about: "WAV files in a folder for each class, or with the class in their names",
    detect: |path| holds(path, ENDINGS),
    open,
};

const ENDINGS: &[&str] = &["wav"];

/// Numbers of one sound at the most.
const MOST_NUMBERS: usize = 64 << 20;

/// Sounds as numbers from -1 to 1, all of one rate; channels are averaged.
fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let files = Files::of(path, ENDINGS, settings)?;
    let place = || path.display().to_string();
    let reader = reader(&files.path(0)).at(|| files.id(0)).at(place)?;
    let (rate, channels) = (reader.spec().sample_rate, reader.spec().channels);
    let length = settings.samples.unwrap_or(reader.duration() as usize);
    if length == 0 || length > MOST_NUMBERS {
        let what = format!("sounds of {length} numbers are not read");
        return Err(Error::unsupported(what).at(files.id(0)).at(place()));
    }
    let mut notes = files.notes();
    notes.push(format!(
        "sounds have {rate} numbers a second, and are {length} long"
    ));
    if channels > 1 {
        notes.push(format!("the {channels} channels of a sound are averaged"));
    }
    let field = Field {
        name: "audio".into(),
        dtype: DType::F32,
        dims: vec![length],
        holds: Holds::Own,
    };
    let is_fitted = settings.samples.is_some();
    Ok(Box::new(ByFile {
        files,
        fields: [field],
        notes,
        read: move |path: &Path, dims: &[usize]| read(path, dims[0], rate, is_fitted),
    }))
}

fn reader(path: &Path) -> Result<WavReader<std::io::BufReader<std::fs::File>>> {
    let reader = WavReader::open(path).map_err(damaged)?;
    match reader.spec().channels {
        0 => Err(Error::invalid("the sound has no channel")),
        _ => Ok(reader),
    }
}

fn damaged(error: hound::Error) -> Error {
    match error {
        hound::Error::IoError(e) if e.kind() == std::io::ErrorKind::NotFound => {
            edgesmith_formats::io_error(&e, "read")
        }
        e => Error::invalid(format!("the sound is not read: {e}")),
    }
}

/// The first `most` numbers of a file, channels averaged.
fn numbers(path: &Path, rate: u32, most: usize) -> Result<Vec<f32>> {
    let mut reader = reader(path)?;
    let spec = reader.spec();
    if spec.sample_rate != rate {
        return Err(Error::unsupported(format!(
            "the sound has {} numbers a second, the first one has {rate}",
            spec.sample_rate
        ))
        .hint("bring all sounds to one rate first"));
    }
    let channels = usize::from(spec.channels);
    let wanted = most.saturating_mul(channels);
    let interleaved: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader
            .samples::<f32>()
            .take(wanted)
            .collect::<Result<_, _>>(),
        SampleFormat::Int => {
            let scale = (0.5f64).powi(i32::from(spec.bits_per_sample) - 1) as f32;
            let all = reader.samples::<i32>().take(wanted);
            all.map(|x| x.map(|x| x as f32 * scale)).collect()
        }
    }
    .map_err(damaged)?;
    if channels == 1 {
        return Ok(interleaved);
    }
    let mean = |all: &[f32]| all.iter().sum::<f32>() / channels as f32;
    Ok(interleaved.chunks_exact(channels).map(mean).collect())
}

fn read(path: &Path, length: usize, rate: u32, is_fitted: bool) -> Result<Tensor> {
    let mut numbers = numbers(path, rate, length + 1)?;
    if !is_fitted && numbers.len() != length {
        let than = if numbers.len() > length {
            "longer"
        } else {
            "shorter"
        };
        let what = format!("the sound is {than} than the first one, which has {length} numbers");
        return Err(Error::invalid(what).hint("give a length, and all are cut or filled up to it"));
    }
    numbers.resize(length, 0.0);
    Tensor::from_vec(&[length], numbers)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::{Target, open};
    use super::*;
    use hound::{WavSpec, WavWriter};

    fn wav(rate: u32, channels: u16, numbers: &[i16]) -> Vec<u8> {
        let spec = WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        numbers
            .iter()
            .for_each(|n| writer.write_sample(*n).unwrap());
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn fitted(samples: usize) -> Settings {
        Settings {
            samples: Some(samples),
            class_in_name: true,
            ..Settings::default()
        }
    }

    #[test]
    fn sounds_are_numbers_from_minus_one_to_one_of_a_length() {
        let folder = Folder::new("wav");
        folder.write("yes_1.wav", &wav(8000, 1, &[16384, -32768, 0]));
        folder.write("no_1.wav", &wav(8000, 2, &[16384, 0, 32, 32]));
        let source = open(&folder.0, &fitted(2)).unwrap();
        assert_eq!(source.classes(), ["no", "yes"]);
        let numbers = |i: usize| {
            source.get(i).unwrap().tensors[0]
                .to_f32()
                .unwrap()
                .into_owned()
        };
        assert_eq!(numbers(0), [0.25, 32.0 / 32768.0]);
        assert_eq!(numbers(1), [0.5, -1.0]);
        assert_eq!(source.get(1).unwrap().target, Target::Class(1));
        let long = open(&folder.0, &fitted(4)).unwrap();
        assert_eq!(
            &*long.get(1).unwrap().tensors[0].to_f32().unwrap(),
            &[0.5, -1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn lengths_rates_and_damage_are_told_with_the_file() {
        let folder = Folder::new("rates");
        folder.write("a/1.wav", &wav(8000, 1, &[1, 2]));
        folder.write("a/2.wav", &wav(8000, 1, &[1, 2, 3]));
        folder.write("a/3.wav", &wav(16000, 1, &[1, 2]));
        folder.write("a/4.wav", b"RIFF\xff\xff\xff\xffWAVEfmt ");
        let whole = wav(8000, 1, &[1, 2]);
        folder.write("a/5.wav", &whole[..whole.len() - 1]);
        let source = open(&folder.0, &Settings::default()).unwrap();
        assert!(source.get(0).is_ok());
        for (i, what) in [
            (1, "a/2.wav: the sound is longer"),
            (2, "a/3.wav: the sound has 16000"),
            (3, "a/4.wav: the sound is not read"),
            (4, "a/5.wav: the sound is not read"),
        ] {
            let e = source.get(i).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }
}
