//! Affine quantisation, number by number: `x ≈ (q − zero point) · scale`, as ONNX's QuantizeLinear.

use edgesmith_ir::{DType, Result, Tensor};

use crate::calibrate::observers::Levels;

/// The integers of quantised activations: bytes, two of them where 8 bits are too few, or bytes of
/// which 4 bits are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Byte {
    /// 0 to 255.
    #[default]
    Unsigned,
    /// −128 to 127.
    Signed,
    /// 0 to 65535.
    Unsigned16,
    /// −32768 to 32767.
    Signed16,
    /// 0 to 15.
    Unsigned4,
    /// −8 to 7.
    Signed4,
}

impl Byte {
    /// Its integers, for ranges that are symmetric or not.
    pub fn levels(self, symmetric: bool) -> Levels {
        let (min, max) = match (self, symmetric) {
            (Self::Unsigned, _) => (0, 255),
            (Self::Signed, false) => (-128, 127),
            (Self::Signed, true) => (-127, 127),
            (Self::Unsigned16, _) => (0, 65535),
            (Self::Signed16, false) => (-32768, 32767),
            (Self::Signed16, true) => (-32767, 32767),
            (Self::Unsigned4, _) => (0, 15),
            (Self::Signed4, false) => (-8, 7),
            (Self::Signed4, true) => (-7, 7),
        };
        Levels {
            min,
            max,
            symmetric,
        }
    }

    /// The smallest and the largest integer of the type.
    fn limits(self) -> (f32, f32) {
        match self {
            Self::Unsigned => (0.0, 255.0),
            Self::Signed => (-128.0, 127.0),
            Self::Unsigned16 => (0.0, 65535.0),
            Self::Signed16 => (-32768.0, 32767.0),
            Self::Unsigned4 => (0.0, 15.0),
            Self::Signed4 => (-8.0, 7.0),
        }
    }

    /// The ends of the integers, where the type that holds them has more.
    pub fn bounds(self) -> Option<[i32; 2]> {
        let levels = self.levels(false);
        self.is_narrow().then_some([levels.min, levels.max])
    }

    /// True where 4 bits of a byte are used.
    pub fn is_narrow(self) -> bool {
        matches!(self, Self::Unsigned4 | Self::Signed4)
    }

    /// The same with all bits of the byte.
    pub fn whole(self) -> Self {
        match self {
            Self::Unsigned4 => Self::Unsigned,
            Self::Signed4 => Self::Signed,
            other => other,
        }
    }

    /// The zero point `number` as a tensor: a scalar, or `len` times the same.
    pub fn zeros(self, number: i32, len: Option<usize>) -> Tensor {
        integers(self, len.as_slice(), &vec![number; len.unwrap_or(1)])
            .expect("as many numbers as the shape has")
    }

    /// True where a number takes two bytes.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Unsigned16 | Self::Signed16)
    }

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "u8",
            Self::Signed => "s8",
            Self::Unsigned16 => "u16",
            Self::Signed16 => "s16",
            Self::Unsigned4 => "u4",
            Self::Signed4 => "s4",
        }
    }

    /// The element type that holds them.
    pub fn dtype(self) -> DType {
        match self {
            Self::Unsigned | Self::Unsigned4 => DType::U8,
            Self::Signed | Self::Signed4 => DType::I8,
            Self::Unsigned16 => DType::U16,
            Self::Signed16 => DType::I16,
        }
    }
}

/// The smallest power of two that is not below a positive `scale`.
pub fn power_of_two(scale: f32) -> f32 {
    let down = f32::from_bits(scale.to_bits() & 0x7F80_0000);
    if down == scale || !down.is_normal() {
        scale.max(f32::MIN_POSITIVE)
    } else {
        (down * 2.0).min(f32::from_bits(0x7F00_0000))
    }
}

/// Scale and zero point of a tensor of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The step between neighbours.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero: i32,
    /// The type of the integers.
    pub byte: Byte,
}

impl Affine {
    /// The parameters that cover `lo..=hi`, computed in f64 and rounded half to even. A range
    /// that is empty or too narrow for an f32 scale has scale 1 and zero point 0.
    pub fn of((lo, hi): (f64, f64), byte: Byte, symmetric: bool) -> Self {
        let levels = byte.levels(symmetric);
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let (lo, hi) = if symmetric {
            (lo.min(-hi), hi.max(-lo))
        } else {
            (lo, hi)
        };
        let scale = (hi - lo) / f64::from(levels.max - levels.min);
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Self {
                scale: 1.0,
                zero: 0,
                byte,
            };
        }
        let zero = (f64::from(levels.min) - lo / scale).round_ties_even();
        Self {
            scale: scale as f32,
            zero: zero as i32,
            byte,
        }
    }

    /// The same with the scale rounded up to a power of two. The zero point stays, so that the range
    /// grows on both sides.
    pub fn power_of_two(self) -> Self {
        Self {
            scale: power_of_two(self.scale),
            ..self
        }
    }

    /// The integer for `x`, saturating.
    pub fn quantize(&self, x: f32) -> i32 {
        let (min, max) = self.byte.limits();
        let q = (x / self.scale).round_ties_even() + self.zero as f32;
        q.clamp(min, max) as i32
    }

    /// True where quantising `x` alone does what clipping to `lo..=hi` and quantising does.
    pub fn clips_to(&self, lo: f32, hi: f32) -> bool {
        let (min, max) = self.byte.limits();
        let quantized = |x: f32, end: f32| x.is_infinite() || self.quantize(x) == end as i32;
        quantized(lo, min) && quantized(hi, max)
    }

    /// The bytes of a float tensor.
    ///
    /// # Errors
    /// When its elements cannot be read as f32.
    pub fn tensor(&self, t: &Tensor) -> Result<Tensor> {
        let q = t
            .to_f32()?
            .iter()
            .map(|&x| self.quantize(x))
            .collect::<Vec<_>>();
        integers(self.byte, t.dims(), &q)
    }
}

/// Numbers that fit in the type, as a tensor of it.
fn integers(byte: Byte, dims: &[usize], q: &[i32]) -> Result<Tensor> {
    match byte {
        Byte::Unsigned | Byte::Unsigned4 => {
            Tensor::from_vec(dims, q.iter().map(|&q| q as u8).collect())
        }
        Byte::Signed | Byte::Signed4 => {
            Tensor::from_vec(dims, q.iter().map(|&q| q as i8).collect())
        }
        Byte::Unsigned16 => Tensor::from_vec(dims, q.iter().map(|&q| q as u16).collect()),
        Byte::Signed16 => Tensor::from_vec(dims, q.iter().map(|&q| q as i16).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_dynamic_operator() {
        let a = Affine::of((-1.0, 3.0), Byte::Unsigned, false);
        assert_eq!((a.scale, a.zero), ((4.0f64 / 255.0) as f32, 64));
        let a = Affine::of((-3.0, -1.0), Byte::Unsigned, false);
        assert_eq!((a.zero, a.quantize(-3.0), a.quantize(-1.0)), (255, 0, 170));
        let a = Affine::of((0.0, 2.0), Byte::Signed, false);
        assert_eq!(a.zero, -128);
        let a = Affine::of((-2.0, 1.0), Byte::Signed, true);
        assert_eq!((a.scale, a.zero), ((4.0f64 / 254.0) as f32, 0));
    }

    #[test]
    fn powers_of_two_are_rounded_up_and_cover_the_range() {
        for (x, y) in [(1.0, 1.0), (0.9, 1.0), (1.1, 2.0), (3e-3, 1.0 / 256.0)] {
            assert_eq!(power_of_two(x), y);
        }
        for range in [(-1.0, 3.0), (0.0, 6.0), (-5.0, 0.0), (-0.3, 0.29)] {
            for byte in [Byte::Unsigned, Byte::Signed] {
                let a = Affine::of(range, byte, false).power_of_two();
                assert_eq!(power_of_two(a.scale), a.scale);
                for x in [range.0, range.1] {
                    let back = (a.quantize(x as f32) - a.zero) as f32 * a.scale;
                    assert!(
                        (f64::from(back) - x).abs() <= f64::from(a.scale) * 0.51,
                        "{range:?}"
                    );
                }
            }
        }
        let a = Affine::of((-2.0, 2.0), Byte::Signed, true).power_of_two();
        assert_eq!((a.scale, a.zero), (1.0 / 32.0, 0));
    }

    #[test]
    fn halves_round_to_even_and_the_ends_saturate() {
        let a = Affine {
            scale: 1.0,
            zero: 0,
            byte: Byte::Unsigned,
        };
        assert_eq!(
            [0.5, 1.5, 2.5, -1.5, 300.0].map(|x| a.quantize(x)),
            [0, 2, 2, 0, 255]
        );
    }

    #[test]
    fn an_empty_range_has_scale_one() {
        for range in [(0.0, 0.0), (0.0, 1e-40), (1.0, -1.0)] {
            let a = Affine::of(range, Byte::Unsigned, false);
            assert!(a.scale >= f32::MIN_POSITIVE);
        }
        assert_eq!(Affine::of((0.0, 0.0), Byte::Signed, false).zero, 0);
    }

    #[test]
    fn a_clip_is_free_only_where_saturation_does_it() {
        let six = Affine::of((0.0, 6.0), Byte::Unsigned, false);
        assert!(six.clips_to(0.0, 6.0) && six.clips_to(0.0, f32::INFINITY));
        assert!(Affine::of((0.0, 4.0), Byte::Unsigned, false).clips_to(0.0, 6.0));
        assert!(!Affine::of((0.0, 8.0), Byte::Unsigned, false).clips_to(0.0, 6.0));
        assert!(!Affine::of((-1.0, 6.0), Byte::Unsigned, false).clips_to(0.0, 6.0));
    }
}
