//! Steps of optimizers, in place.
//!
//! Gradients are read as they are: a factor for all of them is the caller's to apply.

use crate::Ctx;
use crate::activation::GRAIN;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Stochastic gradient descent with momentum (Sutskever et al., 2013).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The step.
    pub rate: f32,
    /// What stays of the mean of gradients.
    pub momentum: f32,
    /// Looks ahead along the mean of gradients, as Nesterov's method does.
    pub nesterov: bool,
    /// Times the parameter, is added to its gradient.
    pub decay: f32,
}

/// Adam (Kingma and Ba, 2015, algorithm 1) and AdamW (Loshchilov and Hutter, 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The step.
    pub rate: f32,
    /// What stays of the means of gradients and of their squares.
    pub betas: [f32; 2],
    /// Added to the root of the mean of squares.
    pub epsilon: f32,
    /// Times the parameter: added to its gradient, or, where `apart`, taken off by the step.
    pub decay: f32,
    /// Whether the decay is apart from the gradient, as in AdamW.
    pub apart: bool,
    /// `1 - beta^t` of both means at step `t`.
    pub corrections: [f32; 2],
}

impl Sgd {
    /// One step of `parameters`. `mean` is that of gradients, 0 before the first step; it may be
    /// empty where there is no momentum.
    pub fn step(&self, ctx: &Ctx, parameters: &mut [f32], gradients: &[f32], mean: &mut [f32]) {
        let has_mean = self.momentum != 0.0;
        assert_eq!(parameters.len(), gradients.len(), "a gradient for each");
        assert!(
            !has_mean || mean.len() == parameters.len(),
            "a mean for each parameter"
        );
        let (p, m) = (Shared::new(parameters), Shared::new(mean));
        ctx.threads()
            .parallel_ranges(gradients.len(), GRAIN, |range| {
                let part = SgdPart {
                    of: *self,
                    g: &gradients[range.clone()],
                    // SAFETY: the ranges are disjoint.
                    p: unsafe { p.slice(range.clone()) },
                    // SAFETY: as above.
                    m: has_mean.then(|| unsafe { m.slice(range) }),
                };
                dispatch(ctx.isa(), part);
            });
    }
}

struct SgdPart<'a> {
    of: Sgd,
    g: &'a [f32],
    p: &'a mut [f32],
    m: Option<&'a mut [f32]>,
}

impl Body for SgdPart<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [rate, momentum, decay] = [self.of.rate, self.of.momentum, self.of.decay];
        let (rate, momentum, decay) = (s.splat(-rate), s.splat(momentum), s.splat(decay));
        let mut at = 0;
        let m = self.m.map(<[f32]>::as_mut_ptr);
        while at < self.g.len() {
            let n = (self.g.len() - at).min(S::LANES);
            // SAFETY: all slices have `n` elements from `at` on.
            unsafe {
                let to = self.p.as_mut_ptr().add(at);
                let p = s.load_up_to(to, n);
                let mut g = s.fma(p, decay, s.load_up_to(self.g.as_ptr().add(at), n));
                if let Some(m) = m {
                    let m = m.add(at);
                    let mean = s.fma(s.load_up_to(m, n), momentum, g);
                    s.store_up_to(m, mean, n);
                    g = if self.of.nesterov {
                        s.fma(mean, momentum, g)
                    } else {
                        mean
                    };
                }
                s.store_up_to(to, s.fma(g, rate, p), n);
            }
            at += n;
        }
    }
}

impl Adam {
    /// One step of `parameters`. The means are those of gradients and of their squares, 0 before
    /// the first step.
    pub fn step(
        &self,
        ctx: &Ctx,
        parameters: &mut [f32],
        gradients: &[f32],
        means: [&mut [f32]; 2],
    ) {
        self.run(ctx, Shared::new(parameters), gradients, means, None);
    }

    /// The direction of a step of LAMB (You et al., 2020, algorithm 2), before it is scaled by the
    /// trust in it: `mean / (root + epsilon) + decay parameter`, both means corrected.
    pub fn direction(
        &self,
        ctx: &Ctx,
        parameters: &[f32],
        gradients: &[f32],
        means: [&mut [f32]; 2],
        direction: &mut [f32],
    ) {
        self.run(
            ctx,
            Shared::new(direction),
            gradients,
            means,
            Some(parameters),
        );
    }

    /// Writes the parameters after the step to `to`, or the direction of the step of others.
    fn run(
        &self,
        ctx: &Ctx,
        to: Shared<f32>,
        gradients: &[f32],
        [first, second]: [&mut [f32]; 2],
        of: Option<&[f32]>,
    ) {
        let count = gradients.len();
        let lengths = [
            to.len(),
            first.len(),
            second.len(),
            of.map_or(count, <[f32]>::len),
        ];
        assert_eq!(lengths, [count; 4], "slices of equal length");
        let (first, second) = (Shared::new(first), Shared::new(second));
        ctx.threads().parallel_ranges(count, GRAIN, |range| {
            // SAFETY: the ranges are disjoint.
            let parts = unsafe {
                [
                    to.slice(range.clone()),
                    first.slice(range.clone()),
                    second.slice(range.clone()),
                ]
            };
            let part = AdamPart {
                of: *self,
                g: &gradients[range.clone()],
                parts,
                apart_from: of.map(|p| &p[range]),
            };
            dispatch(ctx.isa(), part);
        });
    }
}

struct AdamPart<'a> {
    of: Adam,
    g: &'a [f32],
    /// Parameters or directions, and both means.
    parts: [&'a mut [f32]; 3],
    /// The parameters, where directions are written.
    apart_from: Option<&'a [f32]>,
}

impl Body for AdamPart<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Adam {
            rate,
            betas,
            epsilon,
            decay,
            apart,
            corrections,
        } = self.of;
        let keep = [s.splat(betas[0]), s.splat(betas[1])];
        let take = [s.splat(1.0 - betas[0]), s.splat(1.0 - betas[1])];
        let correct = [
            s.splat(1.0 / corrections[0]),
            s.splat(1.0 / corrections[1].sqrt()),
        ];
        let (epsilon, step) = (s.splat(epsilon), s.splat(-rate));
        let is_step = self.apart_from.is_none();
        // Of a direction, the decay is always apart.
        let within = s.splat(if apart || !is_step { 0.0 } else { decay });
        let outside = s.splat(if apart || !is_step { decay } else { 0.0 });
        let [to, first, second] = self.parts.map(<[f32]>::as_mut_ptr);
        let p = self.apart_from.map_or(to.cast_const(), <[f32]>::as_ptr);
        let mut at = 0;
        while at < self.g.len() {
            let n = (self.g.len() - at).min(S::LANES);
            // SAFETY: all slices have `n` elements from `at` on.
            unsafe {
                let p = s.load_up_to(p.add(at), n);
                let g = s.fma(p, within, s.load_up_to(self.g.as_ptr().add(at), n));
                let m = s.mul(s.load_up_to(first.add(at), n), keep[0]);
                let m = s.fma(g, take[0], m);
                let v = s.mul(s.load_up_to(second.add(at), n), keep[1]);
                let v = s.fma(s.mul(g, g), take[1], v);
                s.store_up_to(first.add(at), m, n);
                s.store_up_to(second.add(at), v, n);
                let root = s.fma(s.sqrt(v), correct[1], epsilon);
                let ratio = s.div(s.mul(m, correct[0]), root);
                let ratio = s.fma(p, outside, ratio);
                let out = if is_step {
                    s.fma(ratio, step, p)
                } else {
                    ratio
                };
                s.store_up_to(to.add(at), out, n);
            }
            at += n;
        }
    }
}

/// `y += factor x`.
pub fn add_scaled(ctx: &Ctx, y: &mut [f32], x: &[f32], factor: f32) {
    let plain = Sgd {
        rate: -factor,
        momentum: 0.0,
        nesterov: false,
        decay: 0.0,
    };
    plain.step(ctx, y, x, &mut []);
}

/// The sum of squares, of rows whose own sums are in f32.
pub fn sum_of_squares(ctx: &Ctx, x: &[f32]) -> f64 {
    /// Numbers of a row.
    const ROW: usize = 4096;
    let mut sums = vec![0.0; x.len().div_ceil(ROW)];
    ctx.threads().parallel_chunks(&mut sums, 1, |i, sum| {
        let row = &x[i * ROW..x.len().min((i + 1) * ROW)];
        sum[0] = dispatch(ctx.isa(), Squares(row));
    });
    sums.into_iter().map(f64::from).sum()
}

struct Squares<'a>(&'a [f32]);

impl Body for Squares<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        crate::norm::squares(s, self.0, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    const SIZES: [usize; 5] = [0, 1, 16, 33, 40_000];

    #[test]
    fn descent_goes_along_the_mean_of_gradients() {
        let mut random = Random::new(101);
        for n in SIZES {
            let (start, g) = (random.floats(n), random.floats(n));
            for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
                let sgd = Sgd {
                    rate: 0.1,
                    momentum,
                    nesterov,
                    decay: 0.01,
                };
                let (mut p, mut m) = (start.clone(), vec![0.0; n]);
                for _ in 0..3 {
                    for i in 0..n {
                        let slope = g[i] + 0.01 * p[i];
                        m[i] = momentum * m[i] + slope;
                        let way = if nesterov {
                            slope + momentum * m[i]
                        } else {
                            m[i]
                        };
                        p[i] -= 0.1 * way;
                    }
                }
                for ctx in contexts() {
                    let mut mean = vec![0.0; if momentum == 0.0 { 0 } else { n }];
                    let mut found = start.clone();
                    for _ in 0..3 {
                        sgd.step(&ctx, &mut found, &g, &mut mean);
                    }
                    close(&found, &p, 1e-5, "parameters");
                }
            }
        }
    }

    #[test]
    fn adam_divides_by_the_root_of_the_mean_of_squares() {
        let mut random = Random::new(102);
        for n in SIZES {
            let (start, g) = (random.floats(n), random.floats(n));
            for apart in [false, true] {
                let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
                let at = |t: i32| Adam {
                    rate: 0.01,
                    betas: [0.9, 0.99],
                    epsilon: 1e-6,
                    decay: 0.1,
                    apart,
                    corrections: [1.0 - 0.9f32.powi(t), 1.0 - 0.99f32.powi(t)],
                };
                for t in 1..4 {
                    let [first, second] = at(t).corrections;
                    for i in 0..n {
                        let slope = g[i] + if apart { 0.0 } else { 0.1 * p[i] };
                        m[i] = 0.9 * m[i] + 0.1 * slope;
                        v[i] = 0.99 * v[i] + 0.01 * slope * slope;
                        let ratio = m[i] / first / ((v[i] / second).sqrt() + 1e-6);
                        p[i] -= 0.01 * (ratio + if apart { 0.1 * p[i] } else { 0.0 });
                    }
                }
                for ctx in contexts() {
                    let (mut found, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
                    let mut by_direction = start.clone();
                    let [mut dm, mut dv] = [vec![0.0; n], vec![0.0; n]];
                    for t in 1..4 {
                        at(t).step(&ctx, &mut found, &g, [&mut m, &mut v]);
                        let mut way = vec![0.0; n];
                        let means = [&mut dm[..], &mut dv[..]];
                        at(t).direction(&ctx, &by_direction, &g, means, &mut way);
                        add_scaled(&ctx, &mut by_direction, &way, -0.01);
                    }
                    close(&found, &p, 1e-4, "parameters");
                    if apart {
                        close(&by_direction, &p, 1e-4, "by the direction");
                    }
                }
            }
        }
    }

    #[test]
    fn squares_are_added_up() {
        let mut random = Random::new(103);
        for n in SIZES {
            let x = random.floats(n);
            let want: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            for ctx in contexts() {
                assert!((sum_of_squares(&ctx, &x) - want).abs() <= 1e-6 * want);
            }
        }
    }
}
