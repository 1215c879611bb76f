//! One array of numpy's npy format: versions 1 to 3, either byte order, C or Fortran order.

use std::io::Read;

use edgesmith_ir::tensor::checked_count;
use edgesmith_ir::{DType, Error, Result, Tensor};

/// Header bytes at the most.
const MAX_HEADER: usize = 1 << 16;

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The element type.
    pub dtype: DType,
    /// The lengths of the axes.
    pub dims: Vec<usize>,
    /// True where the first axis runs fastest.
    pub fortran: bool,
    big_endian: bool,
    /// Characters of a unicode string, for strings.
    characters: usize,
}

impl Header {
    /// Reads the header at the start of `input`, up to the data.
    ///
    /// # Errors
    /// When it is no npy header or the element type is not read.
    pub fn read(input: &mut dyn Read) -> Result<Self> {
        let mut start = [0u8; 8];
        input.read_exact(&mut start).map_err(|_| cut_off())?;
        if &start[..6] != b"\x93NUMPY" {
            return Err(Error::invalid("the array is not in npy format"));
        }
        let mut length = [0u8; 4];
        let width = if start[6] == 1 { 2 } else { 4 };
        input
            .read_exact(&mut length[..width])
            .map_err(|_| cut_off())?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_HEADER {
            return Err(Error::invalid(format!("the npy header has {length} bytes")));
        }
        let mut text = vec![0; length];
        input.read_exact(&mut text).map_err(|_| cut_off())?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Result<Self> {
        let field = |key: &str| {
            let at = text.find(&format!("'{key}'"))? + key.len() + 2;
            Some(text[at..].trim_start_matches([':', ' ']))
        };
        let broken = || Error::invalid("the npy header is damaged");
        let descr = field("descr").ok_or_else(broken)?;
        let descr = descr.strip_prefix('\'').and_then(|d| d.split('\'').next());
        let descr = descr.ok_or_else(|| Error::unsupported("arrays of records are not read"))?;
        let shape = field("shape")
            .and_then(|s| s.strip_prefix('('))
            .ok_or_else(broken)?;
        let shape = shape.split(')').next().ok_or_else(broken)?;
        let lengths = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
        let dims: Vec<usize> = lengths
            .map(|s| s.parse().map_err(|_| broken()))
            .collect::<Result<_>>()?;
        let (order, kind) = descr.split_at_checked(1).ok_or_else(broken)?;
        let (dtype, characters) = dtype(kind)?;
        let fortran = field("fortran_order").is_some_and(|f| f.starts_with("True"));
        Ok(Self {
            dtype,
            dims,
            fortran,
            big_endian: order == ">",
            characters,
        })
    }

    /// Bytes of one element in the file.
    pub fn element_bytes(&self) -> usize {
        if self.dtype == DType::String {
            4 * self.characters
        } else {
            self.dtype.bits() / 8
        }
    }

    /// Bytes of the data.
    ///
    /// # Errors
    /// When they are too many.
    pub fn data_bytes(&self) -> Result<usize> {
        let count = checked_count(&self.dims)?;
        count
            .checked_mul(self.element_bytes().max(1))
            .ok_or_else(|| Error::invalid("the array is too large"))
    }

    /// The tensor of `dims` whose elements are `data`, as they stand in the file.
    ///
    /// # Errors
    /// When the lengths do not fit.
    pub fn tensor(&self, dims: &[usize], mut data: Vec<u8>) -> Result<Tensor> {
        let size = self.element_bytes();
        if self.dtype == DType::String {
            return self.strings(dims, &data);
        }
        if self.big_endian && size > 1 {
            data.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        if self.fortran && dims.len() > 1 {
            data = from_fortran(&data, dims, size);
        }
        Tensor::from_bytes(self.dtype, dims, data.into()).map(|t| t.detached())
    }

    fn strings(&self, dims: &[usize], data: &[u8]) -> Result<Tensor> {
        let text = |cell: &[u8]| {
            let codes = cell.chunks_exact(4).map(|c| {
                let code = [c[0], c[1], c[2], c[3]];
                if self.big_endian {
                    u32::from_be_bytes(code)
                } else {
                    u32::from_le_bytes(code)
                }
            });
            codes
                .take_while(|&c| c != 0)
                .filter_map(char::from_u32)
                .collect::<String>()
        };
        let cells = data.chunks_exact(self.element_bytes().max(1));
        Tensor::from_strings(dims, cells.map(text).collect())
    }
}

fn cut_off() -> Error {
    Error::invalid("the array is cut off")
}

fn from_fortran(data: &[u8], dims: &[usize], size: usize) -> Vec<u8> {
    let mut out = vec![0; data.len()];
    let mut index = vec![0usize; dims.len()];
    for cell in out.chunks_exact_mut(size) {
        let at = index
            .iter()
            .zip(dims)
            .rev()
            .fold(0, |at, (&i, &n)| at * n + i);
        cell.copy_from_slice(&data[at * size..][..size]);
        for (i, &n) in index.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn dtype(kind: &str) -> Result<(DType, usize)> {
    let plain = match kind {
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        _ => match kind.strip_prefix('U').and_then(|n| n.parse().ok()) {
            Some(n) if n <= 1 << 20 => return Ok((DType::String, n)),
            _ => {
                return Err(
                    Error::unsupported(format!("arrays of type \"{kind}\" are not read"))
                        .hint("numbers, bool and unicode strings are"),
                );
            }
        },
    };
    Ok((plain, 0))
}

/// The bytes of an npy file of `tensor`.
///
/// # Errors
/// When numpy has no such element type.
pub fn encode(tensor: &Tensor) -> Result<Vec<u8>> {
    let (kind, data) = match tensor.dtype() {
        DType::F16 => ("<f2".to_owned(), tensor.bytes().to_vec()),
        DType::F32 => ("<f4".to_owned(), tensor.bytes().to_vec()),
        DType::F64 => ("<f8".to_owned(), tensor.bytes().to_vec()),
        DType::I8 => ("|i1".to_owned(), tensor.bytes().to_vec()),
        DType::I16 => ("<i2".to_owned(), tensor.bytes().to_vec()),
        DType::I32 => ("<i4".to_owned(), tensor.bytes().to_vec()),
        DType::I64 => ("<i8".to_owned(), tensor.bytes().to_vec()),
        DType::U8 => ("|u1".to_owned(), tensor.bytes().to_vec()),
        DType::U16 => ("<u2".to_owned(), tensor.bytes().to_vec()),
        DType::U32 => ("<u4".to_owned(), tensor.bytes().to_vec()),
        DType::U64 => ("<u8".to_owned(), tensor.bytes().to_vec()),
        DType::Bool => ("|b1".to_owned(), tensor.bytes().to_vec()),
        DType::String => unicode(tensor)?,
        other => {
            return Err(Error::unsupported(format!(
                "numpy has no element type {other}"
            )));
        }
    };
    let dims: Vec<String> = tensor.dims().iter().map(|d| format!("{d},")).collect();
    let header = format!(
        "{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}",
        dims.concat()
    );
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let padded = format!("{header:<width$}\n", width = length - 1);
    let length =
        u16::try_from(length).map_err(|_| Error::invalid("the array has too many axes"))?;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(length.to_le_bytes());
    out.extend(padded.bytes());
    out.extend(data);
    Ok(out)
}

fn unicode(tensor: &Tensor) -> Result<(String, Vec<u8>)> {
    let strings = tensor.strings()?;
    let longest = strings
        .iter()
        .map(|s| s.chars().count())
        .max()
        .unwrap_or(0)
        .max(1);
    let mut data = Vec::new();
    for s in strings {
        let codes = s
            .chars()
            .map(u32::from)
            .chain(std::iter::repeat(0))
            .take(longest);
        data.extend(codes.flat_map(u32::to_le_bytes));
    }
    Ok((format!("<U{longest}"), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(bytes: &[u8]) -> Tensor {
        let mut input = bytes;
        let header = Header::read(&mut input).unwrap();
        header.tensor(&header.dims.clone(), input.to_vec()).unwrap()
    }

    #[test]
    fn arrays_come_back() {
        let strings = Tensor::from_strings(&[2], vec!["a".into(), "größe".into()]).unwrap();
        let tensors = [
            Tensor::from_vec(&[2, 2], vec![1.0f32, -2.0, 3.5, f32::INFINITY]).unwrap(),
            Tensor::scalar(7i64),
            Tensor::from_vec(&[0, 3], Vec::<u8>::new()).unwrap(),
            strings,
        ];
        for t in tensors {
            assert_eq!(back(&encode(&t).unwrap()), t);
        }
    }

    #[test]
    fn fortran_order_and_big_endian_are_turned() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend([0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6]);
        assert_eq!(
            back(&bytes),
            Tensor::from_vec(&[2, 3], vec![1i16, 2, 3, 4, 5, 6]).unwrap()
        );
    }

    #[test]
    fn a_damaged_header_is_an_error() {
        let headers: [&[u8]; 3] = [
            b"",
            b"\x93NUMPY\x01\x00\xff\xff",
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        ];
        for bytes in headers {
            assert!(Header::read(&mut &bytes[..]).is_err());
        }
        assert!(Header::parse("{'descr': '<O', 'shape': (1,)}").is_err());
    }
}
