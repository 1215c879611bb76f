//! Derivatives of activations, by their input or, where that is plainer, their output.

use super::{Function, GRAIN, Sigmoid, Tanh, abs, erf, exp_or_zero};
use crate::Ctx;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// A derivative: `dx = derivative * dy`. Those that are 0 on one side of a corner give 0 there for
/// any `dy`, also one that is infinite or no number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Derivative {
    /// Of Relu, by its output: 1 above 0.
    Relu,
    /// Of Sigmoid, by its output.
    Sigmoid,
    /// Of Tanh, by its output.
    Tanh,
    /// Of Clip: 1 within the bounds, ends included.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
    /// Of LeakyRelu: `alpha` below 0, else 1.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// Of HardSigmoid: `alpha` within the bounds, ends included.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// Of HardSwish: 0 up to -3, 1 from 3 on.
    HardSwish,
    /// Of the error function.
    Erf,
    /// Of Gelu.
    Gelu,
    /// Of Gelu by tanh.
    GeluTanh,
    /// Of `x * sigmoid(alpha * x)`.
    Swish {
        /// Factor of the argument.
        alpha: f32,
    },
    /// Of `|x|`: its sign.
    Abs,
    /// Of `exp(x)`, by its output.
    Exp,
    /// Of the square root, by its output.
    Sqrt,
    /// Of `1 / x`, by its output.
    Reciprocal,
}

impl Derivative {
    /// Writes `dx = derivative(a) * dy`; the slices have equal length.
    pub fn apply_to(self, ctx: &Ctx, a: &[f32], dy: &[f32], dx: &mut [f32]) {
        assert_eq!(
            [a.len(), dy.len()],
            [dx.len(); 2],
            "operands and result have equal length"
        );
        let shared = Shared::new(dx);
        ctx.threads().parallel_ranges(a.len(), GRAIN, |range| {
            let line = Line {
                derivative: self,
                a: &a[range.clone()],
                dy: &dy[range.clone()],
                // SAFETY: the ranges are disjoint.
                dx: unsafe { shared.slice(range) },
            };
            dispatch(ctx.isa(), line);
        });
    }
}

struct Line<'a> {
    derivative: Derivative,
    a: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for Line<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        macro_rules! each {
            (|$a:ident, $dy:ident| $value:expr) => {{
                let mut at = 0;
                while at < self.a.len() {
                    let n = (self.a.len() - at).min(S::LANES);
                    // SAFETY: all slices have `n` elements from `at` on.
                    unsafe {
                        let $a = s.load_up_to(self.a.as_ptr().add(at), n);
                        let $dy = s.load_up_to(self.dy.as_ptr().add(at), n);
                        s.store_up_to(self.dx.as_mut_ptr().add(at), $value, n);
                    }
                    at += n;
                }
            }};
        }
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        match self.derivative {
            Derivative::Relu => each!(|y, dy| s.if_less(zero, y, dy, zero)),
            Derivative::Sigmoid => each!(|y, dy| s.mul(dy, s.mul(y, s.sub(one, y)))),
            Derivative::Tanh => each!(|y, dy| s.mul(dy, s.sub(one, s.mul(y, y)))),
            Derivative::Clip { min, max } => {
                let (lo, hi) = (s.splat(min), s.splat(max));
                each!(|x, dy| within(s, x, lo, hi, dy));
            }
            Derivative::LeakyRelu { alpha } => {
                let slope = s.splat(alpha);
                each!(|x, dy| s.if_less(x, zero, s.mul(dy, slope), dy));
            }
            Derivative::HardSigmoid { alpha, beta } => {
                let (a, b) = (s.splat(alpha), s.splat(beta));
                each!(|x, dy| within(s, s.add(s.mul(x, a), b), zero, one, s.mul(dy, a)));
            }
            Derivative::HardSwish => each!(|x, dy| {
                let slope = s.add(s.mul(x, s.splat(1.0 / 3.0)), s.splat(0.5));
                let above = s.if_less(x, s.splat(3.0), slope, keep_nan(s, x, one));
                s.mul(dy, s.if_less(s.splat(-3.0), x, above, keep_nan(s, x, zero)))
            }),
            Derivative::Erf => each!(|x, dy| {
                let square = s.sub(zero, s.mul(x, x));
                let factor = s.splat(std::f32::consts::FRAC_2_SQRT_PI);
                s.mul(dy, s.mul(factor, exp_or_zero(s, square)))
            }),
            Derivative::Gelu => each!(|x, dy| s.mul(dy, gelu(s, x))),
            Derivative::GeluTanh => each!(|x, dy| s.mul(dy, gelu_tanh(s, x))),
            Derivative::Swish { alpha } => {
                let a = s.splat(alpha);
                each!(|x, dy| {
                    let f = Sigmoid.eval(s, s.mul(x, a));
                    let slope = s.mul(s.mul(a, x), s.mul(f, s.sub(one, f)));
                    s.mul(dy, s.add(f, finite(s, slope, x)))
                });
            }
            Derivative::Abs => each!(|x, dy| {
                let sign = s.if_less(x, zero, s.splat(-1.0), zero);
                s.mul(dy, s.if_less(zero, x, one, sign))
            }),
            Derivative::Exp => each!(|y, dy| s.mul(dy, y)),
            Derivative::Sqrt => each!(|y, dy| s.mul(dy, s.div(s.splat(0.5), y))),
            Derivative::Reciprocal => each!(|y, dy| s.mul(dy, s.sub(zero, s.mul(y, y)))),
        }
    }
}

/// `value` where `lo <= x <= hi`, else 0.
#[inline(always)]
fn within<S: Simd>(s: S, x: S::F, lo: S::F, hi: S::F, value: S::F) -> S::F {
    let zero = s.splat(0.0);
    // What is no number is on neither side of a bound, and within none.
    let number = s.if_less(x, lo, zero, s.if_less(hi, x, zero, value));
    let below = s.if_less(x, s.splat(1.0), number, zero);
    s.if_less(zero, x, number, below)
}

/// `value`, or NaN where `x` is.
#[inline(always)]
fn keep_nan<S: Simd>(s: S, x: S::F, value: S::F) -> S::F {
    let below = s.if_less(x, s.splat(1.0), value, x);
    s.if_less(s.splat(0.0), x, value, below)
}

/// `slope`, which goes to 0 at both ends, where `x` is infinite 0 itself.
#[inline(always)]
fn finite<S: Simd>(s: S, slope: S::F, x: S::F) -> S::F {
    s.if_less(s.splat(f32::MAX), abs(s, x), s.splat(0.0), slope)
}

/// `P(x) + x p(x)`, of the normal distribution and its density.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let half = s.splat(0.5);
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let square = s.mul(s.mul(x, x), s.splat(-0.5));
    let root = s.splat(0.398_942_3);
    let density = s.mul(root, exp_or_zero(s, square));
    let slope = finite(s, s.mul(x, density), x);
    s.add(s.fma(half, e, half), slope)
}

/// With `u = c (x + 0.044715 x^3)`: `(1 + tanh u) / 2 + x / 2 (1 - tanh^2 u) u'`.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let root = (2.0 / std::f32::consts::PI).sqrt();
    let (half, one, c) = (s.splat(0.5), s.splat(1.0), s.splat(root));
    let square = s.mul(x, x);
    let inner = s.mul(x, s.fma(square, s.splat(root * 0.044_715), c));
    let t = Tanh.eval(s, inner);
    let slope = s.fma(square, s.splat(root * 3.0 * 0.044_715), c);
    let bend = s.mul(s.sub(one, s.mul(t, t)), slope);
    let bend = s.mul(s.mul(x, half), bend);
    // Far out `1 - tanh^2` is 0 and what it multiplies may be infinite.
    let bend = s.if_less(s.splat(20.0), abs(s, x), s.splat(0.0), bend);
    s.add(s.fma(half, t, half), bend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::testing::{Random, close, contexts};

    /// A derivative, the function that it is of, and whether it is by the output.
    const PAIRS: [(Derivative, Activation, bool); 12] = [
        (Derivative::Relu, Activation::Relu, true),
        (Derivative::Sigmoid, Activation::Sigmoid, true),
        (Derivative::Tanh, Activation::Tanh, true),
        (
            Derivative::Clip {
                min: -1.0,
                max: 0.5,
            },
            Activation::Clip {
                min: -1.0,
                max: 0.5,
            },
            false,
        ),
        (
            Derivative::LeakyRelu { alpha: 0.1 },
            Activation::LeakyRelu { alpha: 0.1 },
            false,
        ),
        (
            Derivative::HardSigmoid {
                alpha: 0.2,
                beta: 0.5,
            },
            Activation::HardSigmoid {
                alpha: 0.2,
                beta: 0.5,
            },
            false,
        ),
        (Derivative::HardSwish, Activation::HardSwish, false),
        (Derivative::Erf, Activation::Erf, false),
        (Derivative::Gelu, Activation::Gelu, false),
        (Derivative::GeluTanh, Activation::GeluTanh, false),
        (
            Derivative::Swish { alpha: 1.702 },
            Activation::Swish { alpha: 1.702 },
            false,
        ),
        (Derivative::Abs, Activation::Abs, false),
    ];

    #[test]
    fn derivatives_are_the_slopes_of_their_functions() {
        let mut random = Random::new(81);
        let x: Vec<f32> = (0..2003).map(|_| random.float() * 6.0).collect();
        let dy = random.floats(x.len());
        const H: f32 = 1.0 / 256.0;
        for ctx in contexts() {
            for (derivative, function, by_output) in PAIRS {
                let at = |shift: f32| {
                    let mut y: Vec<f32> = x.iter().map(|x| x + shift).collect();
                    function.apply(&ctx, &mut y);
                    y
                };
                let (low, high) = (at(-H), at(H));
                let a = if by_output { at(0.0) } else { x.clone() };
                let mut dx = vec![f32::NAN; x.len()];
                derivative.apply_to(&ctx, &a, &dy, &mut dx);
                for i in 0..x.len() {
                    let slope = (high[i] - low[i]) / (2.0 * H);
                    // Where there is a corner, the slope lies between those of its sides.
                    let corner = [-3.0, -2.5, -1.0, 0.0, 0.5, 2.5, 3.0];
                    if corner.iter().any(|c| (x[i] - c).abs() < 2.0 * H) {
                        continue;
                    }
                    let want = slope * dy[i];
                    let message = format!("{derivative:?} at {}", x[i]);
                    close(&[dx[i]], &[want], 3e-4, &message);
                }
            }
        }
    }

    #[test]
    fn derivatives_by_the_output_of_what_is_above_zero() {
        let mut random = Random::new(82);
        let x: Vec<f32> = (0..99).map(|_| random.float() + 1.5).collect();
        let dy = random.floats(x.len());
        for ctx in contexts() {
            for (derivative, function, slope) in [
                (Derivative::Exp, Activation::Exp, f32::exp as fn(f32) -> f32),
                (Derivative::Sqrt, Activation::Sqrt, |x| 0.5 / x.sqrt()),
                (Derivative::Reciprocal, Activation::Reciprocal, |x| {
                    -1.0 / (x * x)
                }),
            ] {
                let (mut y, mut dx) = (x.clone(), vec![f32::NAN; x.len()]);
                function.apply(&ctx, &mut y);
                derivative.apply_to(&ctx, &y, &dy, &mut dx);
                let want = x.iter().zip(&dy).map(|(x, dy)| slope(*x) * dy);
                let want: Vec<f32> = want.collect();
                close(&dx, &want, 1e-5, &format!("{derivative:?}"));
            }
        }
    }

    #[test]
    fn far_out_and_without_a_number_they_are_what_the_functions_tend_to() {
        let x = [f32::NEG_INFINITY, f32::INFINITY, -1e30, 1e30, f32::NAN];
        let smooth = [
            Derivative::Gelu,
            Derivative::GeluTanh,
            Derivative::Swish { alpha: 1.0 },
            Derivative::HardSwish,
        ];
        for ctx in contexts() {
            for derivative in smooth {
                let mut dx = [9.0; 5];
                derivative.apply_to(&ctx, &x, &[1.0; 5], &mut dx);
                assert_eq!(dx[..4], [0.0, 1.0, 0.0, 1.0], "{derivative:?}");
                assert!(dx[4].is_nan(), "{derivative:?}");
            }
            let mut dx = [9.0; 5];
            let relu = Derivative::Relu;
            relu.apply_to(&ctx, &x, &[1.0; 5], &mut dx);
            assert_eq!(dx, [0.0, 1.0, 0.0, 1.0, 0.0]);
            let clip = Derivative::Clip {
                min: f32::NEG_INFINITY,
                max: 1e30,
            };
            clip.apply_to(&ctx, &x, &[1.0; 5], &mut dx);
            assert_eq!(dx, [1.0, 0.0, 1.0, 1.0, 0.0]);
        }
    }

    #[test]
    fn ends_of_bounds_are_within() {
        let bounds = Derivative::Clip {
            min: -1.0,
            max: 0.5,
        };
        let x = [-1.0, 0.5, -1.1, 0.6, 0.0];
        for ctx in contexts() {
            let mut dx = [9.0; 5];
            bounds.apply_to(&ctx, &x, &[2.0; 5], &mut dx);
            assert_eq!(dx, [2.0, 2.0, 0.0, 0.0, 2.0]);
        }
    }
}
