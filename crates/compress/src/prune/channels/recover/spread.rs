//! Channels that are taken alone get the mean and the spread that they had in the dense model.

use edgesmith_ir::{Model, Result, Tensor, ValueId};

use super::rows::{Rows, Site};

/// A spread changes at most by this factor: beyond it, samples are too few to trust.
const MOST: f64 = 3.0;

/// The mean and the variance of each column.
fn moments(rows: &Rows) -> Vec<(f64, f64)> {
    let n = rows.count().max(1) as f64;
    let mut sums = vec![(0.0, 0.0); rows.width];
    for row in rows.data.chunks_exact(rows.width.max(1)) {
        for (s, &x) in sums.iter_mut().zip(row) {
            s.0 += f64::from(x);
            s.1 += f64::from(x) * f64::from(x);
        }
    }
    let of = |(sum, square): (f64, f64)| {
        let mean = sum / n;
        (mean, (square / n - mean * mean).max(0.0))
    };
    sums.into_iter().map(of).collect()
}

/// By column, what a channel is multiplied by and what is added, so that mean and spread are those
/// of the dense model.
fn changes(dense: &Rows, own: &Rows) -> Option<Vec<(f64, f64)>> {
    let is_whole = dense.width == own.width && dense.count() == own.count() && own.count() > 1;
    let is_finite = own.data.iter().chain(&dense.data).all(|x| x.is_finite());
    if !is_whole || !is_finite {
        return None;
    }
    let both = moments(dense).into_iter().zip(moments(own));
    let of = |((mean, variance), (m, v)): ((f64, f64), (f64, f64))| {
        let factor = match v > 1e-12 {
            true => (variance / v).sqrt().clamp(1.0 / MOST, MOST),
            false => 1.0,
        };
        (factor, mean - factor * m)
    };
    Some(both.map(of).collect())
}

/// The squared errors with and without changes, as shares of the signal.
fn errors(dense: &Rows, own: &Rows, changes: &[(f64, f64)]) -> (f64, f64) {
    let (mut signal, mut old, mut new) = (0.0, 0.0, 0.0);
    let rows = dense
        .data
        .chunks_exact(dense.width)
        .zip(own.data.chunks_exact(own.width));
    for (wanted, found) in rows {
        for ((w, f), (factor, shift)) in wanted.iter().zip(found).zip(changes) {
            let (w, f) = (f64::from(*w), f64::from(*f));
            signal += w * w;
            old += (w - f).powi(2);
            new += (w - f * factor - shift).powi(2);
        }
    }
    let signal = if signal > 0.0 { signal } else { 1.0 };
    (old / signal, new / signal)
}

/// Scales the filters of a depthwise convolution, and shifts its bias.
///
/// # Errors
/// When a weight is no list of floats.
pub(super) fn match_channels(
    model: &mut Model,
    site: &Site,
    dense: &Rows,
    own: &Rows,
) -> Result<Option<(f64, f64)>> {
    let Some(changes) = changes(dense, own) else {
        return Ok(None);
    };
    let ends = errors(dense, own, &changes);
    if ends.1 >= ends.0 {
        return Ok(Some(ends));
    }
    let node = model.graph.node(site.node).clone();
    let Some(w) = node.input(1) else {
        return Ok(None);
    };
    let Some(weight) = model.graph.constant(w).cloned() else {
        return Ok(None);
    };
    let channels = changes.len();
    if weight.dims().first() != Some(&channels) {
        return Ok(None);
    }
    let bias = match node.input(2) {
        Some(b) => match model.graph.constant(b) {
            Some(b) if b.count() == channels => b.to_f32()?.to_vec(),
            _ => return Ok(None),
        },
        None => vec![0.0; channels],
    };
    let taps = weight.count() / channels.max(1);
    let data = weight.to_f32()?;
    let scaled = data.iter().enumerate();
    let scaled = scaled.map(|(i, x)| (f64::from(*x) * changes[i / taps].0) as f32);
    let scaled = Tensor::from_vec(weight.dims(), scaled.collect())?;
    let shifted = bias.iter().zip(&changes);
    let shifted = shifted.map(|(b, (factor, shift))| (f64::from(*b) * factor + shift) as f32);
    let shifted = Tensor::vector(shifted.collect::<Vec<f32>>());
    model.graph.value_mut(w).constant = Some(scaled);
    replace(model, site, 2, node.input(2), shifted);
    Ok(Some(ends))
}

/// Renews the running mean and variance of a batch normalisation by how those of samples moved.
///
/// # Errors
/// When they are no lists of floats.
pub(super) fn renew(
    model: &mut Model,
    site: &Site,
    dense: &Rows,
    own: &Rows,
) -> Result<Option<(f64, f64)>> {
    if dense.width != own.width || own.count() < 2 {
        return Ok(None);
    }
    let node = model.graph.node(site.node).clone();
    let (Some(mean), Some(variance)) = (node.input(3), node.input(4)) else {
        return Ok(None);
    };
    let lists = [mean, variance].map(|v| model.graph.constant(v).cloned());
    let [Some(mean_was), Some(variance_was)] = lists else {
        return Ok(None);
    };
    let (before, after) = (moments(dense), moments(own));
    if mean_was.count() != before.len() || variance_was.count() != before.len() {
        return Ok(None);
    }
    let (m, s) = (mean_was.to_f32()?, variance_was.to_f32()?);
    let both = before.iter().zip(&after).enumerate();
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for (i, ((mean, variance), (new_mean, new_variance))) in both {
        let factor = match *variance > 1e-12 {
            true => (new_variance / variance).clamp(1.0 / MOST.powi(2), MOST.powi(2)),
            false => 1.0,
        };
        means.push((f64::from(m[i]) + new_mean - mean) as f32);
        variances.push((f64::from(s[i]) * factor) as f32);
    }
    replace(model, site, 3, Some(mean), Tensor::vector(means));
    replace(model, site, 4, Some(variance), Tensor::vector(variances));
    let Some(changes) = changes(dense, own) else {
        return Ok(None);
    };
    Ok(Some(errors(dense, own, &changes)))
}

/// Gives a node a constant of its own.
fn replace(model: &mut Model, site: &Site, input: usize, old: Option<ValueId>, data: Tensor) {
    let name = match old {
        Some(v) => model.graph.value(v).name.clone(),
        None => format!("{}_bias", model.graph.node(site.node).name),
    };
    let name = model.graph.fresh_name(&name);
    let new = model.graph.add_constant(&name, data);
    model.graph.set_input(site.node, input, Some(new));
}
