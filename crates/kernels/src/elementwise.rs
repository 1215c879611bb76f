//! Arithmetic on two operands, element by element.

use crate::Ctx;
use crate::activation::GRAIN;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// What is done to two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller; NaN if either is.
    Min,
    /// The larger; NaN if either is.
    Max,
    /// `a`, or `a * b` where it is negative: PRelu of `a` with slopes `b`.
    Slope,
}

/// One side of an operation.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// As long as the result.
    Full(&'a [f32]),
    /// One row, the same for every row of the result.
    Row(&'a [f32]),
    /// One number.
    Scalar(f32),
}

impl Operand<'_> {
    fn source(self, row: usize, width: usize) -> Source {
        match self {
            Operand::Full(data) => Source::At(data[row * width..].as_ptr()),
            Operand::Row(data) => Source::At(data.as_ptr()),
            Operand::Scalar(x) => Source::Every(x),
        }
    }

    /// The length of a row, if it sets one; checks the length.
    fn width(self, len: usize) -> Option<usize> {
        match self {
            Operand::Full(data) => {
                assert_eq!(data.len(), len, "operand and result have equal length");
                None
            }
            Operand::Row(row) => {
                // An empty row fills nothing but an empty result.
                assert!(len.is_multiple_of(row.len()), "rows fill the result");
                Some(row.len())
            }
            Operand::Scalar(_) => None,
        }
    }
}

/// `y = a op b`.
pub fn binary(ctx: &Ctx, op: Binary, a: Operand, b: Operand, y: &mut [f32]) {
    let width = a.width(y.len()).or(b.width(y.len()));
    assert!(
        b.width(y.len()).is_none_or(|w| width == Some(w)),
        "rows have equal length"
    );
    run(ctx, op, Some(a), b, y, width);
}

/// `y = y op b`.
pub fn binary_in_place(ctx: &Ctx, op: Binary, y: &mut [f32], b: Operand) {
    let width = b.width(y.len());
    run(ctx, op, None, b, y, width);
}

/// Without `a`, the left side is `y`.
fn run(ctx: &Ctx, op: Binary, a: Option<Operand>, b: Operand, y: &mut [f32], width: Option<usize>) {
    // Without rows, the slice is cut anywhere: into rows of one element.
    let rows_of = width.unwrap_or(1).max(1);
    let shared = Shared::new(y);
    let grain = (GRAIN / rows_of).max(1);
    ctx.threads()
        .parallel_ranges(shared.len() / rows_of, grain, |range| {
            let step = if width.is_some() {
                1
            } else {
                range.len().max(1)
            };
            for row in range.clone().step_by(step) {
                let y = shared.pointer(row * rows_of);
                let a = a.map_or(Source::At(y), |a| a.source(row, rows_of));
                let n = step * rows_of;
                dispatch(
                    ctx.isa(),
                    Line {
                        op,
                        a,
                        b: b.source(row, rows_of),
                        y,
                        n,
                    },
                );
            }
        });
}

#[derive(Clone, Copy)]
enum Source {
    At(*const f32),
    Every(f32),
}

/// `n` elements; the operands are readable, `y` writable, and no other task writes it.
struct Line {
    op: Binary,
    a: Source,
    b: Source,
    y: *mut f32,
    n: usize,
}

impl Body for Line {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        macro_rules! each {
            (|$a:ident, $b:ident| $value:expr) => {{
                let whole = self.n / S::LANES * S::LANES;
                let mut at = 0;
                // SAFETY: `at` stays within `n`, which `Line` promises to be there.
                unsafe {
                    while at < whole {
                        let $a = self.a.load(s, at);
                        let $b = self.b.load(s, at);
                        s.store(self.y.add(at), $value);
                        at += S::LANES;
                    }
                    if at < self.n {
                        let $a = self.a.load_n(s, at, self.n - at);
                        let $b = self.b.load_n(s, at, self.n - at);
                        s.store_n(self.y.add(at), $value, self.n - at);
                    }
                }
            }};
        }
        match self.op {
            Binary::Add => each!(|a, b| s.add(a, b)),
            Binary::Sub => each!(|a, b| s.sub(a, b)),
            Binary::Mul => each!(|a, b| s.mul(a, b)),
            Binary::Div => each!(|a, b| s.div(a, b)),
            // NaN in `b` comes back as it is, and NaN in `a` is put in its place.
            Binary::Min => each!(|a, b| keep_nan(s, a, s.min(a, b))),
            Binary::Max => each!(|a, b| keep_nan(s, a, s.max(a, b))),
            Binary::Slope => each!(|a, b| s.if_less(a, s.splat(0.0), s.mul(a, b), a)),
        }
    }
}

/// `y`, or NaN where `a` is.
#[inline(always)]
fn keep_nan<S: Simd>(s: S, a: S::F, y: S::F) -> S::F {
    let number = s.if_less(a, s.splat(f32::INFINITY), y, a);
    let infinite = s.if_less(s.splat(f32::MAX), a, y, number);
    s.if_less(
        s.splat(f32::NEG_INFINITY),
        a,
        infinite,
        s.if_less(a, s.splat(0.0), y, a),
    )
}

impl Source {
    /// # Safety
    /// `LANES` elements are readable from `at` on.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::F {
        match self {
            // SAFETY: the caller's promise.
            Source::At(p) => unsafe { s.load(p.add(at)) },
            Source::Every(x) => s.splat(x),
        }
    }

    /// # Safety
    /// `n` elements are readable from `at` on.
    #[inline(always)]
    unsafe fn load_n<S: Simd>(self, s: S, at: usize, n: usize) -> S::F {
        match self {
            // SAFETY: the caller's promise.
            Source::At(p) => unsafe { s.load_n(p.add(at), n) },
            Source::Every(x) => s.splat(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    #[should_panic(expected = "rows fill the result")]
    fn an_empty_row_does_not_fill_a_result() {
        let (ctx, mut y) = (crate::testing::contexts().remove(0), [0.0; 4]);
        binary_in_place(&ctx, Binary::Add, &mut y, Operand::Row(&[]));
    }

    #[test]
    fn equals_the_scalar_operation_bit_for_bit() {
        let mut random = Random::new(11);
        let special = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            1.0,
            f32::MAX,
        ];
        let scalar = |op, a: f32, b: f32| match op {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Slope if a < 0.0 => a * b,
            Binary::Slope => a,
            _ if a.is_nan() || b.is_nan() => f32::NAN,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
        };
        for (rows, width) in [(0, 3), (1, 1), (3, 7), (5, 8), (4, 33), (300, 129)] {
            let n = rows * width;
            let (mut a, mut b) = (random.floats(n), random.floats(n));
            for _ in 0..n / 4 {
                a[random.below(n)] = random.pick(&special);
                b[random.below(n)] = random.pick(&special);
            }
            let row = random.floats(width);
            let ops = [
                Binary::Add,
                Binary::Sub,
                Binary::Mul,
                Binary::Div,
                Binary::Min,
                Binary::Max,
                Binary::Slope,
            ];
            for (op, ctx) in ops
                .into_iter()
                .flat_map(|op| contexts().into_iter().map(move |c| (op, c)))
            {
                for kind in 0..4 {
                    let (left, right) = match kind {
                        0 => (Operand::Full(&a), Operand::Full(&b)),
                        1 => (Operand::Full(&a), Operand::Row(&row)),
                        2 => (Operand::Scalar(0.5), Operand::Full(&b)),
                        _ => (Operand::Row(&row), Operand::Full(&b)),
                    };
                    let at = |operand, i: usize| match operand {
                        Operand::Full(data) => data[i],
                        Operand::Row(row) => row[i % width],
                        Operand::Scalar(x) => x,
                    };
                    let mut y = vec![9.0; n];
                    binary(&ctx, op, left, right, &mut y);
                    for (i, y) in y.iter().enumerate() {
                        let want = scalar(op, at(left, i), at(right, i));
                        assert!(
                            *y == want || (y.is_nan() && want.is_nan()),
                            "{op:?} {y} {want}"
                        );
                    }
                    if let Operand::Full(data) = left {
                        let mut z = data.to_vec();
                        binary_in_place(&ctx, op, &mut z, right);
                        assert!(
                            z.iter()
                                .zip(&y)
                                .all(|(z, y)| z == y || (z.is_nan() && y.is_nan()))
                        );
                    }
                }
            }
        }
    }
}
