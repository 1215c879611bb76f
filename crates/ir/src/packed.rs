//! Codecs of the element types that Rust has no type for: 8-bit and 4-bit floats, 4- and 2-bit
//! integers.
//!
//! Sources: "Float stored in 8 bits", "4 bit integer types" and "Float stored in 4 bits" of the
//! ONNX documentation, and the OCP microscaling formats specification 1.0 (`f8e8m0`, `f4e2m1`).
//! Packed elements lie with the first one in the low bits of a byte.

use bytes::Bytes;

use crate::{DType, Error, Result, Tensor};

/// The layout of a small float: how many bits, and which code is the largest finite number.
struct Layout {
    mantissa: u32,
    bias: i32,
    max: u8,
    infinity: Option<u8>,
    nan: Option<u8>,
    negative_zero: bool,
    sign: u8,
}

const E4M3FN: Layout = Layout {
    mantissa: 3,
    bias: 7,
    max: 0x7e,
    infinity: None,
    nan: Some(0x7f),
    negative_zero: true,
    sign: 0x80,
};
const E4M3FNUZ: Layout = Layout {
    bias: 8,
    max: 0x7f,
    nan: Some(0x80),
    negative_zero: false,
    ..E4M3FN
};
const E5M2: Layout = Layout {
    mantissa: 2,
    bias: 15,
    max: 0x7b,
    infinity: Some(0x7c),
    nan: Some(0x7f),
    negative_zero: true,
    sign: 0x80,
};
const E5M2FNUZ: Layout = Layout {
    bias: 16,
    max: 0x7f,
    infinity: None,
    nan: Some(0x80),
    negative_zero: false,
    ..E5M2
};
const E2M1: Layout = Layout {
    mantissa: 1,
    bias: 1,
    max: 0x7,
    infinity: None,
    nan: None,
    negative_zero: true,
    sign: 0x8,
};

fn layout(dtype: DType) -> Option<&'static Layout> {
    Some(match dtype {
        DType::F8E4M3FN => &E4M3FN,
        DType::F8E4M3FNUZ => &E4M3FNUZ,
        DType::F8E5M2 => &E5M2,
        DType::F8E5M2FNUZ => &E5M2FNUZ,
        DType::F4E2M1 => &E2M1,
        _ => return None,
    })
}

impl Layout {
    fn decode(&self, code: u8) -> f32 {
        if Some(code) == self.nan || (code & !self.sign) > self.max && self.infinity.is_none() {
            return f32::NAN;
        }
        let magnitude = code & (self.sign - 1);
        let value = if magnitude > self.max {
            if Some(magnitude) == self.infinity {
                f32::INFINITY
            } else {
                f32::NAN
            }
        } else {
            let exponent = i32::from(magnitude >> self.mantissa);
            let fraction = f32::from(magnitude & ((1 << self.mantissa) - 1));
            let steps = fraction
                + if exponent > 0 {
                    (1 << self.mantissa) as f32
                } else {
                    0.0
                };
            steps * 2f32.powi(exponent.max(1) - self.bias - self.mantissa as i32)
        };
        if code & self.sign != 0 { -value } else { value }
    }

    fn encode(&self, x: f64, saturate: bool) -> u8 {
        if x.is_nan() {
            return self.nan.unwrap_or(self.sign);
        }
        let magnitude = self.magnitude(x.abs());
        let sign = if x.is_sign_negative() { self.sign } else { 0 };
        match magnitude {
            Some(0) if !self.negative_zero => 0,
            Some(code) => code | sign,
            None if saturate => self.max | sign,
            None => match (self.infinity, self.nan) {
                (Some(infinity), _) => infinity | sign,
                (None, Some(nan)) => nan | if self.negative_zero { sign } else { 0 },
                (None, None) => self.max | sign,
            },
        }
    }

    /// The code nearest to `a` ≥ 0, ties to even; `None` over the largest number.
    fn magnitude(&self, a: f64) -> Option<u8> {
        if a.is_infinite() {
            return None;
        }
        let exponent = ((a.to_bits() >> 52) as i32 - 1023).max(1 - self.bias);
        let steps = (a / 2f64.powi(exponent - self.mantissa as i32)).round_ties_even();
        let code = f64::from((exponent + self.bias - 1) << self.mantissa) + steps;
        (code <= f64::from(self.max)).then_some(code as u8)
    }
}

/// How a number between two powers of two becomes an `f8e8m0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRounding {
    /// To the larger power, ONNX's default.
    Up,
    /// To the smaller power.
    Down,
    /// To the nearer power, halfway up.
    Nearest,
}

/// The `f8e8m0` code of `x`, whose sign is dropped; NaN and infinities become NaN. Over the
/// largest power, `saturate` keeps that power, and NaN stands otherwise.
pub fn encode_scale(x: f32, rounding: ScaleRounding, saturate: bool) -> u8 {
    let bits = x.to_bits();
    let exponent = ((bits >> 23) & 0xff) as u8;
    if exponent == 0xff {
        return 0xff;
    }
    let fraction = bits & 0x7f_ffff;
    let up = match rounding {
        ScaleRounding::Up => fraction > 0,
        ScaleRounding::Down => false,
        ScaleRounding::Nearest => fraction > 0x40_0000 || fraction == 0x40_0000 && exponent > 0,
    };
    match (up, exponent) {
        (true, 0xfe) if saturate => 0xfe,
        (true, _) => exponent + 1,
        (false, _) => exponent,
    }
}

/// True for the types of this file.
pub fn is_packed(dtype: DType) -> bool {
    layout(dtype).is_some() || dtype == DType::F8E8M0 || integer_bits(dtype).is_some()
}

fn integer_bits(dtype: DType) -> Option<u32> {
    match dtype {
        DType::U4 | DType::I4 => Some(4),
        DType::U2 | DType::I2 => Some(2),
        _ => None,
    }
}

/// The codes of a tensor of at most 8 bits an element, one in a byte.
pub(crate) fn codes(t: &Tensor) -> Vec<u8> {
    let bits = t.dtype().bits();
    let per_byte = 8 / bits;
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    let bytes = t.bytes();
    (0..t.count())
        .map(|i| (bytes[i / per_byte] >> (i % per_byte * bits)) & mask)
        .collect()
}

/// Packs codes, one in a byte, into a tensor.
pub(crate) fn from_codes(dtype: DType, dims: &[usize], codes: &[u8]) -> Result<Tensor> {
    let bits = dtype.bits();
    let bytes: Bytes = codes
        .chunks(8 / bits)
        .map(|c| {
            c.iter()
                .enumerate()
                .fold(0, |byte, (i, &code)| byte | code << (i * bits))
        })
        .collect();
    Tensor::from_bytes(dtype, dims, bytes)
}

/// The elements of an 8-bit or 4-bit float tensor, exactly.
///
/// # Errors
/// For other element types.
pub fn decode_floats(t: &Tensor) -> Result<Vec<f32>> {
    if let Some(layout) = layout(t.dtype()) {
        return Ok(codes(t).into_iter().map(|c| layout.decode(c)).collect());
    }
    if t.dtype() != DType::F8E8M0 {
        let ty = t.ty();
        return Err(Error::invalid(format!("expected small floats, found {ty}")));
    }
    let scale = |&c: &u8| match c {
        0xff => f32::NAN,
        0 => f32::from_bits(0x40_0000),
        _ => f32::from_bits(u32::from(c) << 23),
    };
    Ok(t.bytes().iter().map(scale).collect())
}

/// The 8-bit or 4-bit float tensor nearest to `values`, ties to even. Numbers over the largest
/// become it with `saturate`, infinity or NaN (where the type has them) without; a NaN that the
/// type cannot hold becomes negative zero. Numbers become
/// `f8e8m0` upwards; see [`encode_scale`] for other roundings.
///
/// # Errors
/// For other element types, and when `dims` does not fit `values`.
pub fn encode_floats(
    dtype: DType,
    dims: &[usize],
    values: &[f64],
    saturate: bool,
) -> Result<Tensor> {
    let codes: Vec<u8> = match layout(dtype) {
        Some(layout) => values.iter().map(|&x| layout.encode(x, saturate)).collect(),
        None if dtype == DType::F8E8M0 => values
            .iter()
            .map(|&x| encode_scale(x as f32, ScaleRounding::Up, saturate))
            .collect(),
        None => return Err(Error::invalid(format!("{dtype} is no small float"))),
    };
    from_codes(dtype, dims, &codes)
}

/// The elements of a 4-bit or 2-bit integer tensor.
///
/// # Errors
/// For other element types.
pub fn decode_integers(t: &Tensor) -> Result<Vec<i8>> {
    let Some(bits) = integer_bits(t.dtype()) else {
        let ty = t.ty();
        return Err(Error::invalid(format!(
            "expected small integers, found {ty}"
        )));
    };
    let extend = |c: u8| {
        if t.dtype().is_signed_integer() {
            ((c << (8 - bits)) as i8) >> (8 - bits)
        } else {
            c as i8
        }
    };
    Ok(codes(t).into_iter().map(extend).collect())
}

/// The 4-bit or 2-bit integer tensor of `values`, of which the low bits are kept.
///
/// # Errors
/// For other element types, and when `dims` does not fit `values`.
pub fn encode_integers(
    dtype: DType,
    dims: &[usize],
    values: impl Iterator<Item = i128>,
) -> Result<Tensor> {
    let bits = integer_bits(dtype)
        .ok_or_else(|| Error::invalid(format!("{dtype} is no small integer")))?;
    let codes: Vec<u8> = values.map(|x| x as u8 & ((1 << bits) - 1)).collect();
    from_codes(dtype, dims, &codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: [DType; 5] = [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F4E2M1,
    ];

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for dtype in FLOATS {
            let layout = layout(dtype).unwrap();
            for code in 0..=(layout.sign | (layout.sign - 1)) {
                let x = layout.decode(code);
                if !x.is_nan() {
                    assert_eq!(
                        layout.encode(f64::from(x), false),
                        code,
                        "{dtype} {code:#x} {x}"
                    );
                } else {
                    assert!(layout.decode(layout.encode(f64::NAN, true)).is_nan());
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_are_those_of_the_specification() {
        let max = [448.0, 240.0, 57344.0, 57344.0, 6.0];
        for (dtype, max) in FLOATS.into_iter().zip(max) {
            let layout = layout(dtype).unwrap();
            assert_eq!(layout.decode(layout.max), max);
            assert_eq!(
                layout.encode(f64::NEG_INFINITY, true),
                layout.max | layout.sign
            );
        }
        assert!(E4M3FN.decode(E4M3FN.encode(1e6, false)).is_nan());
        assert_eq!(E5M2.decode(E5M2.encode(-1e6, false)), f32::NEG_INFINITY);
    }

    #[test]
    fn halfway_goes_to_the_even_code() {
        assert_eq!(E2M1.decode(E2M1.encode(2.5, true)), 2.0);
        assert_eq!(E2M1.decode(E2M1.encode(3.5, true)), 4.0);
        assert_eq!(E2M1.decode(E2M1.encode(-0.25, true)), -0.0);
        assert_eq!(E4M3FN.encode(2f64.powi(-10), true), 0);
        assert_eq!(E4M3FN.encode(1.5 * 2f64.powi(-9), true), 2);
    }

    #[test]
    fn four_bit_integers_lie_low_nibble_first_and_keep_their_sign() {
        let t = encode_integers(DType::I4, &[3], [-8i128, 7, -1].into_iter()).unwrap();
        assert_eq!(&t.bytes()[..], &[0x78, 0x0f]);
        assert_eq!(decode_integers(&t).unwrap(), [-8, 7, -1]);
        let t = encode_integers(DType::U2, &[5], (0..5).map(i128::from)).unwrap();
        assert_eq!(decode_integers(&t).unwrap(), [0, 1, 2, 3, 0]);
    }

    #[test]
    fn scales_round_as_asked() {
        use ScaleRounding as R;
        assert_eq!(encode_scale(3.0, R::Up, true), 129);
        assert_eq!(encode_scale(3.0, R::Down, true), 128);
        assert_eq!(encode_scale(2.9, R::Nearest, true), 128);
        assert_eq!(encode_scale(f32::MAX, R::Up, true), 0xfe);
        assert_eq!(encode_scale(f32::MAX, R::Up, false), 0xff);
    }
}
