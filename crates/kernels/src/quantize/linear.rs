//! Sums and products of quantised bytes whose zero points go into one constant, as ONNX Runtime's
//! QLinearAdd and QLinearMul take them.

use super::{Quant, integers};
use crate::Ctx;
use crate::activation::GRAIN;
use crate::gemm::Bytes;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// One side of an operation on bytes.
#[derive(Clone, Copy, Debug)]
pub enum Side8<'a> {
    /// As long as the result.
    Full(Bytes<'a>),
    /// One row, the same for every row of the result.
    Row(Bytes<'a>),
    /// One number.
    One(i32),
}

impl Side8<'_> {
    /// The length of a row, if it sets one; checks the length.
    fn width(self, len: usize) -> Option<usize> {
        match self {
            Side8::Full(data) => {
                assert_eq!(
                    data.raw().0.len(),
                    len,
                    "operand and result have equal length"
                );
                None
            }
            Side8::Row(row) => {
                let width = row.raw().0.len();
                assert!(len.is_multiple_of(width), "rows fill the result");
                Some(width)
            }
            Side8::One(_) => None,
        }
    }

    fn source(self, row: usize, width: usize) -> Source {
        match self {
            Side8::Full(data) => {
                let (data, signed) = data.raw();
                Source::At(data[row * width..].as_ptr(), signed, width)
            }
            Side8::Row(data) => {
                let (data, signed) = data.raw();
                Source::At(data.as_ptr(), signed, 0)
            }
            Side8::One(x) => Source::Every(x),
        }
    }
}

/// What is done to two bytes, in single precision.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Formula {
    /// `a * of_a + (b * of_b + fixed)`, each rounded once.
    Sum { of_a: f32, of_b: f32, fixed: f32 },
    /// `(a - zeros[0]) (b - zeros[1]) * factor + shift`.
    Product {
        zeros: [i32; 2],
        factor: f32,
        shift: f32,
    },
}

/// A sum or product on the grid of its result, zero point added, then rounded, ties to even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear8(Formula);

impl Linear8 {
    /// The sum of what `a` and `b` stand for; `None` where scales are so far apart that numbers
    /// may overflow.
    pub fn sum(a: Quant, b: Quant, to: Quant) -> Option<Self> {
        let (of_a, of_b) = (a.scale / to.scale, b.scale / to.scale);
        let zeros = of_a.mul_add(a.zero as f32, of_b * b.zero as f32);
        let fixed = to.zero as f32 - zeros;
        tame(&[of_a, of_b, fixed]).then_some(Self(Formula::Sum { of_a, of_b, fixed }))
    }

    /// Their product; `None` as for [`Linear8::sum`].
    pub fn product(a: Quant, b: Quant, to: Quant) -> Option<Self> {
        let factor = a.scale * b.scale / to.scale;
        let (zeros, shift) = ([a.zero, b.zero], to.zero as f32);
        tame(&[factor]).then_some(Self(Formula::Product {
            zeros,
            factor,
            shift,
        }))
    }

    /// Runs it on all bytes; the result is signed or not.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn run(self, ctx: &Ctx, a: Side8, b: Side8, y: &mut [u8], signed: bool) {
        let len = y.len();
        let width = a.width(len).or(b.width(len));
        let fits = b.width(len).is_none_or(|w| width == Some(w));
        assert!(fits, "rows have equal length");
        // Without rows, the slice is cut anywhere.
        let row = width.unwrap_or(1).max(1);
        let shared = Shared::new(y);
        let grain = (GRAIN / row).max(1);
        ctx.threads().parallel_ranges(len / row, grain, |range| {
            let (rows, n) = match width {
                Some(_) => (range.len(), row),
                None => (1, range.len()),
            };
            let (a, b) = (a.source(range.start, row), b.source(range.start, row));
            // SAFETY: rows of different tasks do not overlap.
            let y = unsafe { shared.slice(range.start * row..range.end * row) };
            let formula = self.0;
            dispatch(
                ctx.isa(),
                Lines {
                    formula,
                    a,
                    b,
                    y,
                    rows,
                    n,
                    signed,
                },
            );
        });
    }
}

/// True where these times a byte, and sums of three such, are far from infinite.
fn tame(factors: &[f32]) -> bool {
    factors.iter().all(|x| x.abs() < 1e30)
}

#[derive(Clone, Copy)]
enum Source {
    /// Bytes, whether they are signed, and how far apart rows are.
    At(*const u8, bool, usize),
    Every(i32),
}

impl Source {
    /// # Safety
    /// `n` elements, at most `LANES`, are readable from `at` of `row` on.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, row: usize, at: usize, n: usize) -> S::I {
        match self {
            // SAFETY: the caller's promise.
            Source::At(p, signed, step) => unsafe {
                integers(s, p.add(row * step + at), n, signed)
            },
            Source::Every(x) => s.splat_i(x),
        }
    }
}

/// `rows` of `n` elements, which fill `y`; as many are readable in the operands.
struct Lines<'a> {
    formula: Formula,
    a: Source,
    b: Source,
    y: &'a mut [u8],
    rows: usize,
    n: usize,
    signed: bool,
}

impl Body for Lines<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (lo, hi) = if self.signed {
            (-128.0, 127.0)
        } else {
            (0.0, 255.0)
        };
        let (lo, hi) = (s.splat(lo), s.splat(hi));
        for row in 0..self.rows {
            let mut at = 0;
            while at < self.n {
                let n = (self.n - at).min(S::LANES);
                // SAFETY: `at` and `n` stay within the row, which `Lines` promises to be there.
                unsafe {
                    let a = self.a.load(s, row, at, n);
                    let b = self.b.load(s, row, at, n);
                    let x = match self.formula {
                        Formula::Sum { of_a, of_b, fixed } => {
                            let b = fused(s, s.to_float(b), s.splat(of_b), s.splat(fixed));
                            fused(s, s.to_float(a), s.splat(of_a), b)
                        }
                        Formula::Product {
                            zeros,
                            factor,
                            shift,
                        } => {
                            let a = s.to_float(s.add_i(a, s.splat_i(-zeros[0])));
                            let b = s.to_float(s.add_i(b, s.splat_i(-zeros[1])));
                            let scaled = s.mul(s.mul(a, b), s.splat(factor));
                            s.add(scaled, s.splat(shift))
                        }
                    };
                    let y = s.to_int(s.clamp(x, lo, hi));
                    let p = self.y.as_mut_ptr().add(row * self.n + at);
                    if n == S::LANES {
                        s.store_bytes(p, y);
                    } else {
                        s.store_bytes_n(p, y, n);
                    }
                }
                at += n;
            }
        }
    }
}

/// `a * b + c`, rounded once by every set.
#[inline(always)]
fn fused<S: Simd>(s: S, a: S::F, b: S::F, c: S::F) -> S::F {
    if S::FUSES {
        return s.fma(a, b, c);
    }
    let (mut lanes, b, c) = (s.lanes(a), s.lanes(b), s.lanes(c));
    for (i, a) in lanes.iter_mut().enumerate().take(S::LANES) {
        *a = a.mul_add(b[i], c[i]);
    }
    // SAFETY: the array holds a vector.
    unsafe { s.load(lanes.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::MAX_LANES;
    use crate::testing::{Random, contexts};

    const SCALES: [[f32; 3]; 6] = [
        [0.1, 0.1, 0.2],
        [0.013, 0.5, 0.49],
        [1.0, 1.0, 1.0],
        [1e-3, 7e-4, 1e-20],
        [2e-31, 1e-32, 3e-31],
        [3e5, 1e-6, 2.0],
    ];
    const ZEROS: [[i32; 3]; 4] = [[0, 0, 0], [255, 3, 128], [128, 255, 0], [7, 0, 255]];

    fn byte(x: f32) -> u8 {
        x.round_ties_even().clamp(0.0, 255.0) as u8
    }

    /// The definition, element by element.
    fn expected(is_sum: bool, [a, b, to]: [Quant; 3], x: i32, y: i32) -> u8 {
        if is_sum {
            let (p, q) = (a.scale / to.scale, b.scale / to.scale);
            let fixed = to.zero as f32 - p.mul_add(a.zero as f32, q * b.zero as f32);
            return byte((x as f32).mul_add(p, (y as f32).mul_add(q, fixed)));
        }
        let centred = (x - a.zero) as f32 * (y - b.zero) as f32;
        byte(centred * (a.scale * b.scale / to.scale) + to.zero as f32)
    }

    fn formula(is_sum: bool, [a, b, to]: [Quant; 3]) -> Option<Linear8> {
        if is_sum {
            Linear8::sum(a, b, to)
        } else {
            Linear8::product(a, b, to)
        }
    }

    fn grids(scales: [f32; 3], zeros: [i32; 3]) -> [Quant; 3] {
        [0, 1, 2].map(|i| Quant {
            scale: scales[i],
            zero: zeros[i],
        })
    }

    #[test]
    fn all_pairs_of_bytes_equal_the_definition() {
        let a: Vec<u8> = (0..1 << 16).map(|i| (i >> 8) as u8).collect();
        let b: Vec<u8> = (0..1 << 16).map(|i| i as u8).collect();
        for (scales, zeros) in SCALES.into_iter().flat_map(|s| ZEROS.map(|z| (s, z))) {
            let grids = grids(scales, zeros);
            for (is_sum, ctx) in [true, false]
                .into_iter()
                .flat_map(|s| contexts().into_iter().map(move |c| (s, c)))
            {
                let Some(linear) = formula(is_sum, grids) else {
                    continue;
                };
                let mut y = vec![1; a.len()];
                let sides = (Side8::Full(Bytes::U8(&a)), Side8::Full(Bytes::U8(&b)));
                linear.run(&ctx, sides.0, sides.1, &mut y, false);
                for i in 0..a.len() {
                    let want = expected(is_sum, grids, i32::from(a[i]), i32::from(b[i]));
                    assert_eq!(y[i], want, "{scales:?} {zeros:?} {i}");
                }
            }
        }
    }

    #[test]
    fn rows_and_numbers_repeat() {
        let mut random = Random::new(29);
        let grids = grids([0.02, 0.03, 0.05], [-4, 9, 1]);
        for width in [1, 2, MAX_LANES - 1, MAX_LANES, MAX_LANES + 1, 100] {
            for (rows, ctx) in [0, 1, 3, 700]
                .into_iter()
                .flat_map(|n| contexts().into_iter().map(move |c| (n, c)))
            {
                let (a, row) = (random.signed(rows * width), random.bytes(width));
                let (full, short) = (Side8::Full(Bytes::I8(&a)), Side8::Row(Bytes::U8(&row)));
                let linear = Linear8::sum(grids[0], grids[1], grids[2]).unwrap();
                let mut y = vec![1; a.len()];
                linear.run(&ctx, full, short, &mut y, false);
                let one =
                    |i: usize| expected(true, grids, i32::from(a[i]), i32::from(row[i % width]));
                assert_eq!(y, (0..a.len()).map(one).collect::<Vec<_>>());
                let linear = Linear8::product(grids[1], grids[0], grids[2]).unwrap();
                linear.run(&ctx, Side8::One(200), full, &mut y, false);
                let grids = [grids[1], grids[0], grids[2]];
                let one = |&a: &i8| expected(false, grids, 200, i32::from(a));
                assert_eq!(y, a.iter().map(one).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn signed_results_end_at_their_range() {
        let same = Quant {
            scale: 1.0,
            zero: 0,
        };
        let linear = Linear8::sum(same, same, same).unwrap();
        for ctx in contexts() {
            let mut y = [0; 2];
            let a = Side8::Full(Bytes::I8(&[-100, 100]));
            linear.run(&ctx, a, a, &mut y, true);
            assert_eq!(y.map(|y| y as i8), [-128, 127]);
        }
    }

    #[test]
    fn scales_that_would_overflow_are_refused() {
        let of = |scale| Quant { scale, zero: 3 };
        assert_eq!(Linear8::sum(of(1e20), of(1.0), of(1e-20)), None);
        assert_eq!(Linear8::product(of(1e30), of(1e30), of(1.0)), None);
        assert_eq!(Linear8::product(of(f32::NAN), of(1.0), of(1.0)), None);
    }
}
