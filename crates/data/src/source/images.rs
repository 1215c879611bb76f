//! Images in a folder for each class.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use edgesmith_ir::{DType, Error, Result, Tensor};
use image::{DynamicImage, ImageReader, Limits, imageops::FilterType};

use super::folder::{ByFile, Files, holds};
use super::{Field, Holds, Settings, Source, SourceDef};

/// A folder of images.
pub static IMAGES: SourceDef = SourceDef {
    name: "images",
    about: "PNG and JPEG files in a folder for each class",
    detect: |path| holds(path, ENDINGS),
    open,
};

const ENDINGS: &[&str] = &["png", "jpg", "jpeg"];

/// Height and width at the most, and bytes that decoding one may take.
const MOST_PIXELS: u32 = 16_384;
const MOST_BYTES: u64 = 1 << 30;

fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Source>> {
    let files = Files::of(path, ENDINGS, settings)?;
    let first = decode_file(&files.path(0))
        .map_err(|e| e.at(files.id(0)).at(path.display().to_string()))?;
    let (field, is_scaled) = as_field(&first, settings)?;
    Ok(Box::new(ByFile {
        notes: files.notes(),
        files,
        fields: [field],
        read: move |path: &Path, dims: &[usize]| planes_of(decode_file(path)?, dims, is_scaled),
    }))
}

/// Images as planes `[channels, height, width]` of bytes, by the settings and the first one, and
/// whether they are scaled. Transparency is left out, 16 bits are rounded to 8.
///
/// # Errors
/// When the settings have no such images.
pub fn as_field(first: &DynamicImage, settings: &Settings) -> Result<(Field, bool)> {
    let own = if first.color().has_color() { 3 } else { 1 };
    let channels = settings.channels.unwrap_or(own);
    if ![1, 3].contains(&channels) {
        return Err(Error::usage(format!(
            "images have 1 or 3 channels, not {channels}"
        )));
    }
    let size = settings
        .size
        .unwrap_or([first.height() as usize, first.width() as usize]);
    let most = MOST_PIXELS as usize;
    if size.iter().any(|&n| n == 0 || n > most) {
        let what = format!("images of {}x{} are not made", size[0], size[1]);
        return Err(Error::usage(what).hint(format!("lengths run from 1 to {most}")));
    }
    let field = Field {
        name: "image".into(),
        dtype: DType::U8,
        dims: vec![channels, size[0], size[1]],
        holds: Holds::Own,
    };
    Ok((field, settings.size.is_some()))
}

fn decode_file(path: &Path) -> Result<DynamicImage> {
    let file = File::open(path).map_err(|e| edgesmith_formats::io_error(&e, "read"))?;
    decode(BufReader::new(file))
}

/// An image of PNG or JPEG, of bounded size.
///
/// # Errors
/// When it is damaged, or larger.
pub fn decode(bytes: impl BufRead + Seek) -> Result<DynamicImage> {
    let reader = ImageReader::new(bytes).with_guessed_format();
    let mut reader = reader.map_err(|e| edgesmith_formats::io_error(&e, "read"))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MOST_PIXELS);
    limits.max_image_height = Some(MOST_PIXELS);
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let damaged = |e| Error::invalid(format!("the image is not read: {e}"));
    reader.decode().map_err(damaged)
}

/// Rows of pixels as planes.
fn planes(pixels: &[u8], channels: usize) -> Vec<u8> {
    let plane = |c: usize| pixels.iter().skip(c).step_by(channels).copied();
    (0..channels).flat_map(plane).collect()
}

/// An image as planes of these lengths; scaled until it covers them, where it may be.
///
/// # Errors
/// When it has other lengths, and may not.
pub fn planes_of(mut image: DynamicImage, dims: &[usize], is_scaled: bool) -> Result<Tensor> {
    let (height, width) = (dims[1] as u32, dims[2] as u32);
    if [image.height(), image.width()] != [height, width] {
        if !is_scaled {
            return Err(Error::invalid(format!(
                "the image is {}x{}, the first one is {height}x{width}",
                image.height(),
                image.width()
            ))
            .hint("give a size, and all are scaled to it"));
        }
        image = image.resize_to_fill(width, height, FilterType::Triangle);
    }
    let pixels = match dims[0] {
        1 => image.into_luma8().into_raw(),
        _ => planes(&image.into_rgb8().into_raw(), 3),
    };
    Tensor::from_vec(dims, pixels)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::{Target, open};
    use super::*;
    use image::{ImageBuffer, ImageFormat, Luma, Rgb};

    fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let image = ImageBuffer::from_fn(width, height, |x, y| Rgb(pixel(x, y)));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn numbered(x: u32, y: u32) -> [u8; 3] {
        let i = (y * 2 + x) as u8;
        [i, 10 + i, 20 + i]
    }

    #[test]
    fn pixels_come_as_planes_with_the_class_of_their_folder() {
        let folder = Folder::new("images");
        folder.write("cat/1.png", &png(2, 1, numbered));
        folder.write("ant/1.png", &png(2, 1, numbered));
        let source = open(&folder.0, &Settings::default()).unwrap();
        assert_eq!(source.classes(), ["ant", "cat"]);
        let sample = source.get(1).unwrap();
        let expected = Tensor::from_vec(&[3, 1, 2], vec![0u8, 1, 10, 11, 20, 21]).unwrap();
        assert_eq!(
            (sample.tensors[0].clone(), sample.target),
            (expected, Target::Class(1))
        );
        assert_eq!(source.id(1), "cat/1.png");
    }

    #[test]
    fn an_image_of_another_size_needs_a_size_to_be_scaled_to() {
        let folder = Folder::new("sizes");
        folder.write("a/1.png", &png(2, 2, numbered));
        folder.write(
            "a/2.png",
            &png(8, 4, |x, _| {
                if !(2..=5).contains(&x) {
                    [255; 3]
                } else {
                    [7; 3]
                }
            }),
        );
        let source = open(&folder.0, &Settings::default()).unwrap();
        let e = source.get(1).unwrap_err().to_string();
        assert!(
            e.contains("a/2.png: the image is 4x8, the first one is 2x2"),
            "{e}"
        );
        let settings = Settings {
            size: Some([2, 2]),
            channels: Some(1),
            ..Settings::default()
        };
        let scaled = open(&folder.0, &settings).unwrap().get(1).unwrap();
        assert_eq!(scaled.tensors[0].dims(), [1, 2, 2]);
        let middle = scaled.tensors[0].bytes().iter().all(|p| *p < 100);
        assert!(middle, "{:?}", scaled.tensors[0]);
    }

    #[test]
    fn jpeg_and_grey_are_read_and_damage_is_told_with_its_file() {
        let folder = Folder::new("jpeg");
        let image = ImageBuffer::from_pixel(8, 8, Luma([100u8]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        let bytes = bytes.into_inner();
        folder.write("1.jpg", &bytes);
        folder.write("2.JPEG", &bytes[..bytes.len() / 3]);
        folder.write("3.png", b"no image");
        let source = open(&folder.0, &Settings::default()).unwrap();
        let first = source.get(0).unwrap();
        assert_eq!(first.tensors[0].dims(), [1, 8, 8]);
        assert!(first.tensors[0].bytes().iter().all(|p| p.abs_diff(100) < 3));
        assert_eq!(first.target, Target::Unknown);
        for (i, name) in [(1, "2.JPEG"), (2, "3.png")] {
            let e = source.get(i).unwrap_err().to_string();
            assert!(e.contains(&format!("{name}: the image is not read")), "{e}");
        }
    }

    #[test]
    fn an_image_that_says_it_is_huge_is_refused() {
        let folder = Folder::new("huge");
        let mut bytes = png(1, 1, numbered);
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        folder.write("a/1.png", &bytes);
        let e = folder.refused(&Settings::default());
        assert!(e.contains("a/1.png: the image is not read"), "{e}");
    }
}
