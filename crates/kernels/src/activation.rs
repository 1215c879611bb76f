//! Activations, each written once for all vectors, as a function of a slice or inside a kernel.
//!
//! | function | largest error, in units in the last place |
//! |---|---|
//! | `exp`, `sigmoid`, `tanh` | 3 |
//! | `erf` | 4 |
//!
//! NaN stays NaN everywhere. Where `sigmoid` is below the smallest normal number it may be 0.

mod erf;
mod gradient;

pub use gradient::Derivative;

use erf::erf;

use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// A function of one element that kernels can apply to what they write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, min), max)`
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
    /// `x` above zero, `alpha * x` below.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// `min(max(alpha * x + beta, 0), 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `x * min(max(x / 6 + 0.5, 0), 1)`
    HardSwish,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * sigmoid(x)`
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `exp(x)`
    Exp,
    /// The error function.
    Erf,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`
    GeluTanh,
    /// `x * sigmoid(alpha * x)`
    Swish {
        /// Factor of the argument.
        alpha: f32,
    },
    /// `x * tanh(ln(1 + exp(x)))`
    Mish,
    /// `|x|`
    Abs,
    /// `-x`
    Neg,
    /// `1 / x`
    Reciprocal,
    /// The square root.
    Sqrt,
    /// `x * x`
    Square,
    /// `x * x * x`
    Cube,
    /// The largest integer that is not above.
    Floor,
    /// The smallest integer that is not below.
    Ceil,
    /// The nearest integer, ties to even.
    Round,
}

impl Activation {
    /// The bounds of an activation that only cuts off; `None` for the others.
    pub fn bounds(self) -> Option<(f32, f32)> {
        match self {
            Activation::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
            _ => None,
        }
    }

    /// Applies it to every element of `y` in place. The result of an element does not depend
    /// on where in the slice it stands.
    pub fn apply(self, ctx: &Ctx, y: &mut [f32]) {
        let shared = Shared::new(y);
        ctx.threads().parallel_ranges(shared.len(), GRAIN, |range| {
            let (p, n) = (shared.pointer(range.start), range.len());
            // SAFETY: the ranges are disjoint parts of `y`.
            unsafe { self.map(ctx.isa(), p, p, n) };
        });
    }

    /// Writes `y = f(x)`; the slices have equal length.
    pub fn apply_to(self, ctx: &Ctx, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "input and output have equal length");
        let shared = Shared::new(y);
        ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
            let (p, n) = (x[range.clone()].as_ptr(), range.len());
            // SAFETY: the ranges are disjoint parts of `y`, which does not overlap `x`.
            unsafe { self.map(ctx.isa(), p, shared.pointer(range.start), n) };
        });
    }

    /// # Safety
    /// `n` floats are readable at `x` and writable at `y`; they are the same or do not overlap.
    pub(crate) unsafe fn map(self, isa: Isa, x: *const f32, y: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.map_rows(isa, x, y, [1, 0], n) };
    }

    /// [`Activation::map`] of `rows[0]` rows, `rows[1]` elements apart.
    ///
    /// # Safety
    /// As there, of each row.
    pub(crate) unsafe fn map_rows(
        self,
        isa: Isa,
        x: *const f32,
        y: *mut f32,
        rows: [usize; 2],
        n: usize,
    ) {
        let activation = self;
        dispatch(
            isa,
            Map {
                activation,
                x,
                y,
                rows,
                n,
            },
        );
    }
}

/// Elements that are worth a task of their own.
pub(crate) const GRAIN: usize = 16 * 1024;

struct Map {
    activation: Activation,
    x: *const f32,
    y: *mut f32,
    /// Rows, and elements from one to the next.
    rows: [usize; 2],
    n: usize,
}

impl Body for Map {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `Activation::map` passes its caller's promise on.
        unsafe { map_with(s, self) }
    }
}

/// Applies the activation to `n` floats of each row.
///
/// # Safety
/// As for `Activation::map_rows`.
#[inline(always)]
unsafe fn map_with<S: Simd>(s: S, map: Map) {
    let (n, [rows, stride]) = (map.n, map.rows);
    macro_rules! each {
        ($f:expr) => {{
            let f = $f;
            let whole = n / S::LANES * S::LANES;
            for row in 0..rows {
                let mut at = 0;
                // SAFETY: the caller promises the memory; `at` stays below `n`.
                unsafe {
                    let (x, y) = (map.x.add(row * stride), map.y.add(row * stride));
                    while at < whole {
                        s.store(y.add(at), f.eval(s, s.load(x.add(at))));
                        at += S::LANES;
                    }
                    if at < n {
                        s.store_n(y.add(at), f.eval(s, s.load_n(x.add(at), n - at)), n - at);
                    }
                }
            }
        }};
    }
    match map.activation {
        Activation::None => each!(Clip {
            min: f32::NEG_INFINITY,
            max: f32::INFINITY
        }),
        Activation::Relu => each!(Clip {
            min: 0.0,
            max: f32::INFINITY
        }),
        Activation::Clip { min, max } => each!(Clip { min, max }),
        Activation::LeakyRelu { alpha } => each!(LeakyRelu(alpha)),
        Activation::HardSigmoid { alpha, beta } => each!(HardSigmoid(alpha, beta)),
        Activation::HardSwish => each!(HardSwish),
        Activation::Sigmoid => each!(Sigmoid),
        Activation::Silu => each!(Silu),
        Activation::Tanh => each!(Tanh),
        Activation::Exp => each!(Exp),
        Activation::Erf => each!(Erf),
        Activation::Gelu => each!(Gelu),
        Activation::GeluTanh => each!(GeluTanh),
        Activation::Swish { alpha } => each!(Swish(alpha)),
        Activation::Mish => each!(Mish),
        Activation::Abs => each!(Abs),
        Activation::Neg => each!(Neg),
        Activation::Reciprocal => each!(Reciprocal),
        Activation::Sqrt => each!(Sqrt),
        Activation::Square => each!(Square),
        Activation::Cube => each!(Cube),
        Activation::Floor => each!(Floor),
        Activation::Ceil => each!(Ceil),
        Activation::Round => each!(Round),
    }
}

/// A function of a vector.
pub(crate) trait Function: Copy {
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F;
}

#[derive(Clone, Copy)]
struct Clip {
    min: f32,
    max: f32,
}
#[derive(Clone, Copy)]
struct LeakyRelu(f32);
#[derive(Clone, Copy)]
struct HardSigmoid(f32, f32);
#[derive(Clone, Copy)]
struct HardSwish;
/// [`Activation::Sigmoid`] of a vector.
#[derive(Clone, Copy)]
pub(crate) struct Sigmoid;
#[derive(Clone, Copy)]
struct Silu;
/// [`Activation::Tanh`] of a vector.
#[derive(Clone, Copy)]
pub(crate) struct Tanh;
#[derive(Clone, Copy)]
struct Exp;
#[derive(Clone, Copy)]
struct Erf;
#[derive(Clone, Copy)]
struct Gelu;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct Swish(f32);
#[derive(Clone, Copy)]
struct Mish;
#[derive(Clone, Copy)]
struct Abs;
#[derive(Clone, Copy)]
struct Neg;
#[derive(Clone, Copy)]
struct Reciprocal;
#[derive(Clone, Copy)]
struct Sqrt;
#[derive(Clone, Copy)]
struct Square;
#[derive(Clone, Copy)]
struct Cube;
#[derive(Clone, Copy)]
struct Floor;
#[derive(Clone, Copy)]
struct Ceil;
#[derive(Clone, Copy)]
struct Round;

impl Function for Clip {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.clamp(x, s.splat(self.min), s.splat(self.max))
    }
}

impl Function for LeakyRelu {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.if_less(x, s.splat(0.0), s.mul(x, s.splat(self.0)), x)
    }
}

impl Function for HardSigmoid {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let line = s.add(s.mul(x, s.splat(self.0)), s.splat(self.1));
        s.clamp(line, s.splat(0.0), s.splat(1.0))
    }
}

impl Function for HardSwish {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(x, HardSigmoid(1.0 / 6.0, 0.5).eval(s, x))
    }
}

impl Function for Sigmoid {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let one = s.splat(1.0);
        s.div(one, s.add(one, exp_or_zero(s, s.sub(s.splat(0.0), x))))
    }
}

impl Function for Silu {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(x, Sigmoid.eval(s, x))
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let (one, magnitude) = (s.splat(1.0), abs(s, x));
        let square = s.mul(x, x);
        let small = polynomial(s, square, &TANH);
        let small = s.fma(s.mul(x, square), small, x);
        let e = exp(s, s.add(magnitude, magnitude));
        let large = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
        s.if_less(magnitude, s.splat(0.625), small, with_sign(s, large, x))
    }
}

impl Function for Exp {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        exp(s, x)
    }
}

impl Function for Erf {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        erf(s, x)
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
        s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), e))
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let root = (2.0 / std::f32::consts::PI).sqrt();
        let cubic = s.fma(s.mul(x, x), s.splat(root * 0.044_715), s.splat(root));
        let t = Tanh.eval(s, s.mul(x, cubic));
        s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), t))
    }
}

impl Function for Swish {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(x, Sigmoid.eval(s, s.mul(x, s.splat(self.0))))
    }
}

impl Function for Mish {
    /// With `n = exp(x) * (exp(x) + 2)`, the tangent is `n / (n + 2)`; from 20 on it is 1.
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let e = exp(s, s.min(s.splat(20.0), x));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
    }
}

impl Function for Abs {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        abs(s, x)
    }
}

impl Function for Neg {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.float_of(s.xor_i(s.bits(x), s.splat_i(i32::MIN)))
    }
}

impl Function for Reciprocal {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.div(s.splat(1.0), x)
    }
}

impl Function for Sqrt {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.sqrt(x)
    }
}

impl Function for Square {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(x, x)
    }
}

impl Function for Cube {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(s.mul(x, x), x)
    }
}

impl Function for Floor {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let near = s.round(x);
        s.if_less(x, near, s.sub(near, s.splat(1.0)), near)
    }
}

impl Function for Ceil {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        let near = s.round(x);
        s.if_less(near, x, s.add(near, s.splat(1.0)), near)
    }
}

impl Function for Round {
    #[inline(always)]
    fn eval<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.round(x)
    }
}

#[inline(always)]
fn abs<S: Simd>(s: S, x: S::F) -> S::F {
    s.float_of(s.and_i(s.bits(x), s.splat_i(i32::MAX)))
}

/// The magnitude `x >= 0` with the sign of `y`.
#[inline(always)]
fn with_sign<S: Simd>(s: S, x: S::F, y: S::F) -> S::F {
    s.float_of(s.or_i(s.bits(x), s.and_i(s.bits(y), s.splat_i(i32::MIN))))
}

/// `c[0] + c[1] x + c[2] x^2 ...` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, c: &[f32; N]) -> S::F {
    let mut y = s.splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        y = s.fma(y, x, s.splat(c[i]));
    }
    y
}

/// The Taylor series of `(exp(r) - 1 - r) / r^2`, of which the remainder is below half a unit
/// for `|r| <= ln(2) / 2`.
const EXP: [f32; 6] = [
    0.5,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5040.0,
];

/// `exp(x)`: the integer part of `x / ln 2` becomes the exponent, and the rest goes through a
/// polynomial.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    exp_within(s, s.clamp(x, s.splat(-104.0), s.splat(89.0)))
}

/// `exp(x)`, and 0 where that is below the normal range: on numbers there, which masks of
/// -10000 would make many of, CPUs take a hundred times as long.
#[inline(always)]
pub(crate) fn exp_or_zero<S: Simd>(s: S, x: S::F) -> S::F {
    exp_below(s, s.min(s.splat(89.0), x))
}

/// [`exp_or_zero`] for `x <= 89` or NaN.
#[inline(always)]
pub(crate) fn exp_below<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(-87.3);
    s.if_less(x, least, s.splat(0.0), exp_within(s, s.max(least, x)))
}

/// `exp(x)` for `x` in -104..=89.
#[inline(always)]
fn exp_within<S: Simd>(s: S, x: S::F) -> S::F {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let tail = s.mul(s.mul(r, r), polynomial(s, r, &EXP));
    let y = s.add(s.add(tail, r), s.splat(1.0));
    s.times_power(y, n)
}

/// Fitted to `(tanh(x) - x) / x^3` over `x^2` for `|x| < 0.625`.
const TANH: [f32; 5] = [
    -0.333_332_8,
    0.133_314_2,
    -0.053_737_8,
    0.020_632_55,
    -0.005_697_387_3,
];
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    /// Distance in units in the last place of the true value; below the normal range, in units
    /// of the smallest normal number's last place.
    fn units(got: f32, want: f64) -> f64 {
        if f64::from(got) == want || (want as f32).is_infinite() && got == want as f32 {
            return 0.0;
        }
        let power = want.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52;
        (f64::from(got) - want).abs() / f64::from_bits((power - 23) << 52)
    }

    /// The largest error of each set of instructions over floats of all bits in `bits`, and where. What is
    /// smaller than `least` is only known to be that small.
    fn largest_errors(
        activation: Activation,
        (exact, least): (fn(f64) -> f64, f64),
        bits: std::ops::RangeInclusive<u32>,
    ) -> Vec<(Isa, f64, f32)> {
        let ours: Vec<Ctx> = contexts();
        let ours = ours.iter().filter(|c| c.threads().count() == 1);
        let mut worst: Vec<_> = ours.map(|ctx| (ctx, 0.0, 0.0)).collect();
        let (mut x, mut y) = (Vec::new(), Vec::new());
        let (mut at, end) = (u64::from(*bits.start()), u64::from(*bits.end()) + 1);
        while at < end {
            let next = end.min(at + 4096);
            x.clear();
            x.extend((at..next).map(|b| f32::from_bits(b as u32)));
            y.resize(x.len(), 0.0);
            let want: Vec<f64> = x.iter().map(|&x| exact(f64::from(x))).collect();
            for (ctx, most, place) in &mut worst {
                activation.apply_to(ctx, &x, &mut y);
                for ((x, y), want) in x.iter().zip(&y).zip(&want) {
                    let small = want.abs() < least && f64::from(y.abs()) < least;
                    let error = if small { 0.0 } else { units(*y, *want) };
                    if error.is_nan() || error > *most {
                        (*most, *place) = (error, *x);
                    }
                }
            }
            at = next;
        }
        let found = worst.into_iter();
        found.map(|(ctx, most, x)| (ctx.isa(), most, x)).collect()
    }

    /// Every float but NaN: `cargo test --release -p edgesmith-kernels every_float -- --ignored --nocapture`.
    #[test]
    #[ignore = "takes minutes"]
    fn errors_stay_within_the_stated_units_for_every_float() {
        type Case = (Activation, f64, (fn(f64) -> f64, f64));
        let normal = f64::from(f32::MIN_POSITIVE);
        let cases: [Case; 4] = [
            (Activation::Erf, 4.0, (erf, 0.0)),
            (
                Activation::Sigmoid,
                3.0,
                (|x| 1.0 / (1.0 + (-x).exp()), normal),
            ),
            (Activation::Exp, 3.0, (f64::exp, 0.0)),
            (Activation::Tanh, 3.0, (f64::tanh, 0.0)),
        ];
        let top = f32::INFINITY.to_bits();
        for (activation, most, exact) in cases {
            let halves = [0, 1 << 31].map(|sign| sign..=top | sign);
            let found: Vec<_> = std::thread::scope(|scope| {
                let work = |bits| scope.spawn(move || largest_errors(activation, exact, bits));
                let halves = halves.map(work);
                halves.into_iter().flat_map(|h| h.join().unwrap()).collect()
            });
            for (isa, error, x) in found {
                println!("{activation:?} {}: {error:.2} at {x:e}", isa.name());
                assert!(
                    error <= most,
                    "{activation:?} {}: {error} at {x:e}",
                    isa.name()
                );
            }
        }
    }

    /// By its series, or the continued fraction of the complement: to 1e-14.
    fn erf(x: f64) -> f64 {
        if x.abs() < 2.5 {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                let n = f64::from(n);
                term *= -x * x / n;
                let before = sum;
                sum += term / (2.0 * n + 1.0);
                if sum == before {
                    break;
                }
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let a = x.abs();
        if a > 6.5 {
            return 1f64.copysign(x);
        }
        let fraction = (1..80).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
        let rest = (-a * a).exp() / fraction * std::f64::consts::FRAC_2_SQRT_PI / 2.0;
        (1.0 - rest).copysign(x)
    }

    #[test]
    fn errors_stay_within_the_stated_units() {
        let sweep = |from: f32, to: f32| -> Vec<f32> {
            (0..200_003)
                .map(|i| from + (to - from) * i as f32 / 200_002.0)
                .collect()
        };
        type Case = (Activation, f32, f32, f64, fn(f64) -> f64);
        let cases: [Case; 7] = [
            (Activation::Exp, -103.0, 88.7, 3.0, f64::exp),
            (Activation::Exp, -1.0, 1.0, 3.0, f64::exp),
            (Activation::Tanh, -10.0, 10.0, 3.0, f64::tanh),
            (Activation::Tanh, -0.7, 0.7, 3.0, f64::tanh),
            (Activation::Sigmoid, -80.0, 80.0, 3.0, |x| {
                1.0 / (1.0 + (-x).exp())
            }),
            (Activation::Erf, -5.0, 5.0, 4.0, erf),
            (Activation::Erf, -1.1, 1.1, 4.0, erf),
        ];
        for (activation, from, to, most, exact) in cases {
            let x = sweep(from, to);
            for ctx in contexts() {
                let mut y = vec![0.0; x.len()];
                activation.apply_to(&ctx, &x, &mut y);
                let worst = x
                    .iter()
                    .zip(&y)
                    .map(|(x, y)| (units(*y, exact(f64::from(*x))), *x))
                    .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
                assert!(worst.0 <= most, "{activation:?} {:?}: {worst:?}", ctx.isa());
            }
        }
    }

    #[test]
    fn composed_functions_equal_their_definitions() {
        let mut random = Random::new(31);
        let x: Vec<f32> = random.floats(1003).iter().map(|x| x * 8.0).collect();
        type Case = (Activation, fn(f64) -> f64);
        let cases: [Case; 10] = [
            (Activation::Relu, |x| x.max(0.0)),
            (
                Activation::Clip {
                    min: -1.0,
                    max: 6.0,
                },
                |x| x.clamp(-1.0, 6.0),
            ),
            (Activation::LeakyRelu { alpha: 0.25 }, |x| {
                if x < 0.0 { x * 0.25 } else { x }
            }),
            (
                Activation::HardSigmoid {
                    alpha: 0.25,
                    beta: 0.5,
                },
                |x| (x * 0.25 + 0.5).clamp(0.0, 1.0),
            ),
            (Activation::HardSwish, |x| {
                x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
            }),
            (Activation::Silu, |x| x / (1.0 + (-x).exp())),
            (Activation::Gelu, |x| x * 0.5 * (1.0 + erf(x / 2f64.sqrt()))),
            (Activation::GeluTanh, |x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                x * 0.5 * (1.0 + inner.tanh())
            }),
            (Activation::Swish { alpha: 1.702 }, |x| {
                x / (1.0 + (-1.702 * x).exp())
            }),
            (Activation::Mish, |x| x * x.exp().ln_1p().tanh()),
        ];
        for ctx in contexts() {
            for (activation, exact) in cases {
                let mut y = x.clone();
                activation.apply(&ctx, &mut y);
                for (x, y) in x.iter().zip(&y) {
                    let want = exact(f64::from(*x));
                    assert!(
                        (f64::from(*y) - want).abs() < 2e-6,
                        "{activation:?} {x} {y} {want}"
                    );
                }
                let mut tail = x[1000..].to_vec();
                activation.apply(&ctx, &mut tail);
                assert_eq!(tail, y[1000..], "the place in the slice changes nothing");
            }
        }
    }

    #[test]
    fn functions_that_are_exact_equal_those_of_rust() {
        let mut x: Vec<f32> = Random::new(32).floats(77);
        x.extend([0.5, 1.5, -0.5, -1.5, -0.25, 2.5, 0.0, -0.0, 8_388_609.0]);
        x.extend([3e9, -3e9, f32::MAX, f32::MIN_POSITIVE, 1e-40, f32::NAN]);
        x.extend([f32::INFINITY, f32::NEG_INFINITY]);
        type Case = (Activation, fn(f32) -> f32);
        let cases: [Case; 9] = [
            (Activation::Abs, f32::abs),
            (Activation::Neg, |x| -x),
            (Activation::Reciprocal, |x| 1.0 / x),
            (Activation::Sqrt, f32::sqrt),
            (Activation::Square, |x| x * x),
            (Activation::Cube, |x| x * x * x),
            (Activation::Floor, f32::floor),
            (Activation::Ceil, f32::ceil),
            (Activation::Round, f32::round_ties_even),
        ];
        for (ctx, (f, exact)) in contexts()
            .into_iter()
            .flat_map(|c| cases.map(|f| (c.clone(), f)))
        {
            let mut y = x.clone();
            f.apply(&ctx, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let want = exact(*x);
                let same = *y == want || (y.is_nan() && want.is_nan());
                assert!(same, "{f:?} {:?} {x}: {y}, not {want}", ctx.isa());
            }
        }
    }

    #[test]
    fn nan_and_infinity_go_through() {
        let all = [
            Activation::Relu,
            Activation::LeakyRelu { alpha: 0.1 },
            Activation::HardSigmoid {
                alpha: 0.2,
                beta: 0.5,
            },
            Activation::HardSwish,
            Activation::Sigmoid,
            Activation::Silu,
            Activation::Tanh,
            Activation::Exp,
            Activation::Erf,
            Activation::Gelu,
        ];
        for (ctx, activation) in contexts()
            .into_iter()
            .flat_map(|c| all.map(|a| (c.clone(), a)))
        {
            let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            activation.apply(&ctx, &mut y);
            assert!(y[0].is_nan(), "{activation:?}");
            let top = match activation {
                Activation::Sigmoid
                | Activation::Tanh
                | Activation::Erf
                | Activation::HardSigmoid { .. } => 1.0,
                _ => f32::INFINITY,
            };
            assert_eq!(y[1], top, "{activation:?}");
            let zero = match activation {
                Activation::Exp => 1.0,
                Activation::Sigmoid | Activation::HardSigmoid { .. } => 0.5,
                _ => 0.0,
            };
            assert_eq!(y[3], zero, "{activation:?}");
        }
    }
}
