//! Weights of a layer fitted to what it gave before: the least squares of its output on rows of
//! samples, with a pull to the weights that it has.

use edgesmith_ir::{Model, Result, Tensor};
use edgesmith_kernels::{Ctx, Isa, Threads};

use super::Settings;
use super::rows::{Rows, Site};
use crate::calibrate::add_products;
use crate::quantize::weight_only::factor::solve;

/// Layers with longer rows are left as they are: their products take too much memory.
const LONGEST: usize = 6144;

/// Of so many rows one is not fitted, and judges.
const JUDGES: usize = 5;

/// Fits the layer; the squared errors before and after as shares of the signal, where it was tried.
///
/// # Errors
/// When a weight is no list of floats.
pub(super) fn fit(
    model: &mut Model,
    site: &Site,
    dense: &Rows,
    own: &Rows,
    settings: &Settings,
) -> Result<Option<(f64, f64)>> {
    let node = model.graph.node(site.node).clone();
    let (Some(w), rows) = (node.input(1), own.count()) else {
        return Ok(None);
    };
    let Some(weight) = model.graph.constant(w).cloned() else {
        return Ok(None);
    };
    let (k, outputs) = (own.width, dense.width);
    if rows != dense.count()
        || rows < 2 * JUDGES
        || k == 0
        || k > LONGEST
        || weight.count() != k * outputs
    {
        return Ok(None);
    }
    if own.data.iter().chain(&dense.data).any(|x| !x.is_finite()) {
        return Ok(None);
    }
    let has_bias = node.op != "MatMul";
    let bias = match node.input(2).filter(|_| has_bias) {
        Some(b) => match model.graph.constant(b) {
            Some(b) if b.count() == outputs => b.to_f32()?.to_vec(),
            _ => return Ok(None),
        },
        None => vec![0.0; outputs],
    };
    let by_output = by_output(&weight, site.is_turned(), k)?;
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let errors = errors(own, dense, &by_output, &bias);
    let moved = moves(&ctx, own, &errors, outputs, has_bias, settings.damping);
    let Some(moved) = moved else {
        return Ok(None);
    };
    let step = k + usize::from(has_bias);
    let fitted: Vec<f32> = (0..outputs * k)
        .map(|at| by_output[at] + moved[at / k * step + at % k] as f32)
        .collect();
    let shifted: Vec<f32> = (0..outputs)
        .map(|o| match has_bias {
            true => bias[o] + moved[o * step + k] as f32,
            false => 0.0,
        })
        .collect();
    let judged = judged(own, dense, &errors, (&fitted, &shifted));
    if judged.1 < judged.0 {
        let data = match site.is_turned() {
            true => turned(&fitted, outputs, k),
            false => fitted,
        };
        model.graph.value_mut(w).constant = Some(Tensor::from_vec(weight.dims(), data)?);
        if has_bias {
            let name = match node.input(2) {
                Some(b) => model.graph.value(b).name.clone(),
                None => format!("{}_bias", model.graph.value(w).name),
            };
            let name = model.graph.fresh_name(&name);
            let b = model.graph.add_constant(&name, Tensor::vector(shifted));
            model.graph.set_input(site.node, 2, Some(b));
        }
    }
    Ok(Some(judged))
}

/// The weight as \[outputs, k\].
fn by_output(weight: &Tensor, is_turned: bool, k: usize) -> Result<Vec<f32>> {
    let data = weight.to_f32()?;
    Ok(match is_turned {
        true => turned(&data, k, data.len() / k),
        false => data.to_vec(),
    })
}

fn turned(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |c: usize| (0..rows).map(move |r| r * columns + c);
    (0..columns).flat_map(column).map(|at| data[at]).collect()
}

/// What is wanted less what the layer gives, row by row.
fn errors(own: &Rows, dense: &Rows, weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let k = own.width;
    let rows = own
        .data
        .chunks_exact(k)
        .zip(dense.data.chunks_exact(dense.width));
    let mut errors = Vec::with_capacity(dense.data.len());
    for (x, y) in rows {
        for (o, y) in y.iter().enumerate() {
            let w = &weight[o * k..][..k];
            errors.push(y - bias[o] - dot(x, w));
        }
    }
    errors
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let mut sums = [0.0f32; WIDTH];
    let (a, b) = (a.chunks_exact(WIDTH), b.chunks_exact(WIDTH));
    let tail: f32 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a.zip(b) {
        for i in 0..WIDTH {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// By how much weights and biases move, \[outputs, k (+ 1)\].
fn moves(
    ctx: &Ctx,
    own: &Rows,
    errors: &[f32],
    outputs: usize,
    has_bias: bool,
    damping: f64,
) -> Option<Vec<f64>> {
    let k = own.width + usize::from(has_bias);
    let fitted: Vec<usize> = (0..own.count())
        .filter(|r| r % JUDGES != JUDGES - 1)
        .collect();
    let rows = fitted.len();
    // [x, 1, error] of each row, turned: their products are XᵀX and XᵀE at once.
    let width = k + outputs;
    let mut all = vec![0.0f32; width * rows];
    for (at, &r) in fitted.iter().enumerate() {
        let x = &own.data[r * own.width..][..own.width];
        for (i, x) in x.iter().enumerate() {
            all[i * rows + at] = *x;
        }
        if has_bias {
            all[own.width * rows + at] = 1.0;
        }
        for (o, e) in errors[r * outputs..][..outputs].iter().enumerate() {
            all[(k + o) * rows + at] = *e;
        }
    }
    let mut products = vec![0.0f32; width * width];
    add_products(ctx, &all, width, rows, &mut products);
    let of = |i: usize, j: usize| products[i * width + j];
    let h: Vec<f32> = (0..k * k).map(|at| of(at / k, at % k)).collect();
    let mut right: Vec<f64> = Vec::with_capacity(outputs * k);
    for o in 0..outputs {
        right.extend((0..k).map(|i| f64::from(of(k + o, i))));
    }
    solve(&h, k, damping, &mut right, ctx.threads()).then_some(right)
}

/// The squared errors of rows that were not fitted, before and after, as shares of the signal.
fn judged(
    own: &Rows,
    dense: &Rows,
    before: &[f32],
    (weight, bias): (&[f32], &[f32]),
) -> (f64, f64) {
    let (k, outputs) = (own.width, dense.width);
    let (mut signal, mut old, mut new) = (0.0, 0.0, 0.0);
    let square = |x: f32| f64::from(x) * f64::from(x);
    for r in (JUDGES - 1..own.count()).step_by(JUDGES) {
        let x = &own.data[r * k..][..k];
        for o in 0..outputs {
            let y = dense.data[r * outputs + o];
            signal += square(y);
            old += square(before[r * outputs + o]);
            new += square(y - bias[o] - dot(x, &weight[o * k..][..k]));
        }
    }
    let signal = if signal > 0.0 { signal } else { 1.0 };
    (old / signal, new / signal)
}
