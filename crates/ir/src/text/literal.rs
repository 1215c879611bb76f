//! Tensors in the text form: elements in braces, or `hex"…"` of their bytes.

use std::fmt::Write;

use half::{bf16, f16};

use super::lex::{Cursor, Number};
use super::print::quote;
use crate::ops::arith::to_odd;
use crate::ops::numbers::Numbers;
use crate::{DType, Result, Tensor};

/// Tensors with more elements are written as bytes.
const MAX_LISTED: usize = 256;

/// The braces of a tensor.
pub(super) fn print(t: &Tensor) -> String {
    listed(t).unwrap_or_else(|| {
        let mut out = String::from("{hex\"");
        hex(t.bytes(), &mut out);
        out.push_str("\"}");
        out
    })
}

pub(super) fn hex(bytes: &[u8], out: &mut String) {
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
}

/// The elements one by one, where they read back exactly.
fn listed(t: &Tensor) -> Option<String> {
    let words: Vec<String> = match t.dtype() {
        DType::String => t.strings().ok()?.iter().map(|s| quote(s)).collect(),
        _ if t.count() > MAX_LISTED => return None,
        DType::F64 => t
            .data::<f64>()
            .ok()?
            .iter()
            .map(|x| plain(format!("{x:?}")))
            .collect(),
        DType::F32 | DType::F16 | DType::BF16 => {
            let values = t.to_f32().ok()?;
            values.iter().map(|x| plain(format!("{x:?}"))).collect()
        }
        DType::Bool if t.bytes().iter().all(|&b| b <= 1) => {
            t.bools().ok()?.iter().map(bool::to_string).collect()
        }
        d if d.is_integer() && d.bits() >= 8 => match Numbers::of(t).ok()? {
            Numbers::Int(v) => v.iter().map(i128::to_string).collect(),
            Numbers::Float(_) => return None,
        },
        _ => return None,
    };
    let text = format!("{{{}}}", words.join(","));
    let exact =
        !t.dtype().is_float() || parse(&mut Cursor::new(&text), t.dtype(), t.dims()).ok()? == *t;
    exact.then_some(text)
}

/// `1.0` as `1`, `NaN` as `nan`: the element type is known from elsewhere.
fn plain(mut s: String) -> String {
    if s.ends_with(".0") && s != "-0.0" {
        s.truncate(s.len() - 2);
    }
    s.make_ascii_lowercase();
    s
}

/// Reads the braces of a tensor of a known type.
pub(super) fn parse(c: &mut Cursor, dtype: DType, dims: &[usize]) -> Result<Tensor> {
    c.expect("{")?;
    if c.eat("hex") {
        let bytes = c.hex()?;
        c.expect("}")?;
        return Tensor::from_bytes(dtype, dims, bytes.into()).map_err(|e| c.place(e));
    }
    let mut elements = Elements::new(c, dtype)?;
    while !c.eat("}") {
        elements.push(c)?;
        if !c.eat(",") {
            c.expect("}")?;
            break;
        }
    }
    elements.tensor(dtype, dims).map_err(|e| c.place(e))
}

enum Elements {
    Strings(Vec<String>),
    Bools(Vec<bool>),
    Numbers(Numbers),
}

impl Elements {
    fn new(c: &Cursor, dtype: DType) -> Result<Self> {
        Ok(match dtype {
            DType::String => Self::Strings(Vec::new()),
            DType::Bool => Self::Bools(Vec::new()),
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => {
                Self::Numbers(Numbers::Float(Vec::new()))
            }
            d if d.is_integer() && d.bits() >= 8 => Self::Numbers(Numbers::Int(Vec::new())),
            _ => return Err(c.error(format!("elements of {dtype} are written as hex\"…\""))),
        })
    }

    fn push(&mut self, c: &mut Cursor) -> Result<()> {
        match self {
            Self::Strings(v) => v.push(c.string()?),
            Self::Bools(v) => v.push(match c.word("true or false")? {
                "true" => true,
                "false" => false,
                _ => return Err(c.error("expected true or false")),
            }),
            Self::Numbers(n) => match (n, c.number()?) {
                (Numbers::Float(v), Some(Number::Float(x))) => v.push(x),
                (Numbers::Float(v), Some(Number::Int(i))) => v.push(i as f64),
                (Numbers::Int(v), Some(Number::Int(i))) => v.push(i),
                (Numbers::Int(_), Some(Number::Float(_))) => {
                    return Err(c.error("expected an integer, found a float"));
                }
                (_, None) => return Err(c.expected("a number")),
            },
        }
        Ok(())
    }

    fn tensor(self, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        match (self, dtype) {
            (Self::Strings(v), _) => Tensor::from_strings(dims, v),
            (Self::Bools(v), _) => Tensor::from_bools(dims, &v),
            (Self::Numbers(Numbers::Float(v)), DType::F16) => {
                Tensor::from_vec(dims, v.iter().map(|&x| f16::from_f32(to_odd(x))).collect())
            }
            (Self::Numbers(Numbers::Float(v)), DType::BF16) => {
                Tensor::from_vec(dims, v.iter().map(|&x| bf16::from_f32(to_odd(x))).collect())
            }
            (Self::Numbers(n), _) => {
                let t = n.clone().tensor(dtype, dims)?;
                if dtype.is_integer() && Numbers::of(&t)? != n {
                    return Err(crate::Error::invalid(format!(
                        "a number is out of range for {dtype}"
                    )));
                }
                Ok(t)
            }
        }
    }
}
