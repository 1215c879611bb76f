//! Weights at the points, and back.

use std::sync::Arc;

use super::{IN, PLACES, POINTS};
use crate::Ctx;
use crate::gemm::f32::PackedF32;
use crate::gemm::{Panels, shape};
use crate::simd::{Body, Simd, dispatch};

/// Packs weights `[out, in, 3, 3]` at the points: for each place a matrix of `[in, out]`.
pub(super) fn at_points(ctx: &Ctx, weights: &[f32], size: [usize; 2]) -> Arc<[PackedF32]> {
    let mut places: Vec<PackedF32> = (0..PLACES).map(|_| PackedF32::empty(ctx, size)).collect();
    let to = places.iter_mut().map(PackedF32::data_mut).collect();
    let panels = Panels {
        n: size[1],
        lanes: shape(ctx.isa()).0,
    };
    let body = AtPoints {
        weights,
        inputs: size[0],
        panels,
        to,
    };
    dispatch(ctx.isa(), body);
    places.into()
}

/// The weights of which these are the values at the points, up to a rounding or two.
pub(super) fn back(places: &[PackedF32]) -> Vec<f32> {
    let (inputs, outputs) = (places[0].k(), places[0].n());
    let [a, _] = POINTS.map(f64::from);
    let [zero, first, _] = scales();
    let mut weights = Vec::with_capacity(9 * inputs * outputs);
    // The line of three weights with these values at the points 0, ±3/4 and infinity.
    let line = |u: [f64; 4]| [u[0] / zero, (u[1] - u[2]) / (2.0 * a * first), u[3]];
    for o in 0..outputs {
        for i in 0..inputs {
            let at = |y: usize, x: usize| f64::from(places[y * IN + x].element(i, o));
            let rows = [0, 1, 2, 5].map(|y| line([0, 1, 2, 5].map(|x| at(y, x))));
            let columns = [0, 1, 2].map(|x| line([0, 1, 2, 3].map(|y| rows[y][x])));
            for y in 0..3 {
                weights.extend(columns.map(|column| column[y] as f32));
            }
        }
    }
    weights
}

/// One over the products of the distances from the points 0, ±3/4 and ±3/2 to the other ones.
fn scales() -> [f64; 3] {
    let [a, b] = POINTS.map(|p| f64::from(p * p));
    [a * b, 2.0 * a * (a - b), 2.0 * b * (b - a)].map(f64::recip)
}

/// Weights of this many output channels that are worked on together.
const TOGETHER: usize = 8;

/// One number for each of a few output channels.
type Few = [f64; TOGETHER];

/// Weights `[out, in, 3, 3]` to those at the points, in double precision, rounded once.
struct AtPoints<'a> {
    weights: &'a [f32],
    inputs: usize,
    panels: Panels,
    /// For each place a packed matrix of input x output channels.
    to: Vec<&'a mut [f32]>,
}

impl Body for AtPoints<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let inputs = self.inputs;
        for p in 0..self.panels.count() {
            let (first, columns, vectors) = self.panels.panel(p);
            let width = vectors * self.panels.lanes;
            for o in (0..columns).step_by(TOGETHER) {
                let n = (columns - o).min(TOGETHER);
                let kernels = &self.weights[(first + o) * inputs * 9..];
                for i in 0..inputs {
                    let mut rows = [[[0.0; TOGETHER]; 3]; 3];
                    for j in 0..n {
                        let kernel = &kernels[(j * inputs + i) * 9..][..9];
                        for y in 0..3 {
                            for x in 0..3 {
                                rows[y][x][j] = f64::from(kernel[y * 3 + x]);
                            }
                        }
                    }
                    let at = first * inputs + i * width + o;
                    let rows = [
                        weight_line(rows[0]),
                        weight_line(rows[1]),
                        weight_line(rows[2]),
                    ];
                    for x in 0..IN {
                        let column = weight_line([rows[0][x], rows[1][x], rows[2][x]]);
                        for y in 0..IN {
                            let mut few = [0.0; TOGETHER];
                            for j in 0..TOGETHER {
                                few[j] = column[y][j] as f32;
                            }
                            self.to[y * IN + x][at..][..n].copy_from_slice(&few[..n]);
                        }
                    }
                }
            }
        }
    }
}

/// Three weights in a line at the points.
#[inline(always)]
fn weight_line(g: [Few; 3]) -> [Few; IN] {
    let ([a, b], [zero, first, second]) = (POINTS.map(f64::from), scales());
    let mut all = [[0.0; TOGETHER]; IN];
    for j in 0..TOGETHER {
        let (even, odd) = (g[0][j] + a * a * g[2][j], a * g[1][j]);
        all[0][j] = g[0][j] * zero;
        all[1][j] = (even + odd) * first;
        all[2][j] = (even - odd) * first;
        let (even, odd) = (g[0][j] + b * b * g[2][j], b * g[1][j]);
        all[3][j] = (even + odd) * second;
        all[4][j] = (even - odd) * second;
        all[5][j] = g[2][j];
    }
    all
}
