//! Normalisations: by batch statistics, instance, layer, group, root mean square, norm,
//! neighbouring channels, mean and variance; and Dropout, which does nothing at inference.

use super::arith::{expand, expect_dims, expect_rank, floats, from_floats, rounded};
use super::softmax::map_lines;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{DType, Dim, Error, Result, Shape, Tensor};

/// ONNX BatchNormalization by given statistics; in training mode by those of the batch.
pub static BATCH_NORMALIZATION: OpDef = OpDef {
    name: "BatchNormalization",
    since: &[1, 6, 7, 9, 14, 15],
    inputs: Arity(5, 5),
    outputs: Arity(1, 5),
    attrs: &[
        attr("consumed_inputs", AttrKind::Ints),
        attr("epsilon", AttrKind::Float(Some(1e-5))),
        attr("is_test", AttrKind::Int(None)),
        attr("momentum", AttrKind::Float(Some(0.9))),
        attr("spatial", AttrKind::Int(None)),
        attr("training_mode", AttrKind::Int(Some(0))),
    ],
    infer: |cx| {
        infer::like_first(cx)?;
        for (o, i) in [(1, 3), (2, 4)] {
            if let Some(ty) = cx.ty(i).cloned() {
                cx.set(o, ty);
            }
        }
        Ok(())
    },
    eval: Some(eval_batch),
    examples: &["BatchNormalization(f32[2,3,4], f32[3], f32[3], f32[3], f32[3]{1,2,3})"],
    ..OpDef::BASE
};

/// ONNX InstanceNormalization.
pub static INSTANCE_NORMALIZATION: OpDef = OpDef {
    name: "InstanceNormalization",
    since: &[1, 6, 22],
    inputs: Arity(3, 3),
    attrs: &[attr("epsilon", AttrKind::Float(Some(1e-5)))],
    eval: Some(|cx| {
        let x = cx.input(0)?;
        expect_rank("the input", x, 2..=usize::MAX)?;
        group_normalized(cx, x.dims()[1])
    }),
    examples: &["InstanceNormalization(f32[2,3,4], f32[3], f32[3])"],
    ..OpDef::BASE
};

/// ONNX GroupNormalization: scale and bias by group before opset 21, by channel since.
pub static GROUP_NORMALIZATION: OpDef = OpDef {
    name: "GroupNormalization",
    since: &[18, 21],
    inputs: Arity(3, 3),
    attrs: &[
        attr("epsilon", AttrKind::Float(Some(1e-5))),
        attr("num_groups", AttrKind::Int(None)),
        attr("stash_type", AttrKind::Int(Some(1))),
    ],
    eval: Some(|cx| {
        let groups = cx.int("num_groups", 0);
        let groups = usize::try_from(groups)
            .map_err(|_| Error::invalid(format!("num_groups is {groups}")))?;
        group_normalized(cx, groups)
    }),
    examples: &["GroupNormalization(f32[2,4,3], f32[4], f32[4]) {num_groups=2}"],
    ..OpDef::BASE
};

/// ONNX LayerNormalization, with mean and inverse deviation as further outputs. ONNX Runtime has
/// it from opset 1 on.
pub static LAYER_NORMALIZATION: OpDef = OpDef {
    name: "LayerNormalization",
    since: &[1, 17],
    inputs: Arity(2, 3),
    outputs: Arity(1, 3),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("epsilon", AttrKind::Float(Some(1e-5))),
        attr("stash_type", AttrKind::Int(Some(1))),
    ],
    infer: infer_layer,
    eval: Some(eval_layer),
    examples: &["LayerNormalization(f32[2,3,4], f32[4], f32[4])"],
    ..OpDef::BASE
};

/// ONNX RMSNormalization.
pub static RMS_NORMALIZATION: OpDef = OpDef {
    name: "RMSNormalization",
    since: &[23],
    inputs: Arity(2, 2),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("epsilon", AttrKind::Float(Some(1e-5))),
        attr("stash_type", AttrKind::Int(Some(1))),
    ],
    infer: |cx| {
        // The result has the type of the scale.
        let (dtype, shape) = (cx.dtype(1), cx.shape(0).cloned());
        cx.set_tensor(0, dtype, shape);
        Ok(())
    },
    eval: Some(eval_rms),
    examples: &[
        "RMSNormalization(f32[2,3,4], f32[4])",
        "RMSNormalization(f16[2,3,4], f32[4])",
    ],
    ..OpDef::BASE
};

/// ONNX Runtime's SimplifiedLayerNormalization of the default domain: [`RMS_NORMALIZATION`] at
/// every opset, with the inverse root mean square as a further output.
pub static SIMPLIFIED_LAYER_NORMALIZATION: OpDef = OpDef {
    name: "SimplifiedLayerNormalization",
    since: &[1],
    inputs: Arity(2, 2),
    outputs: Arity(1, 2),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("epsilon", AttrKind::Float(Some(1e-5))),
        attr("stash_type", AttrKind::Int(Some(1))),
    ],
    infer: |cx| {
        infer_layer(cx)?;
        // The result has the type of the scale.
        let (dtype, shape) = (cx.dtype(1), cx.shape(0).cloned());
        cx.set_tensor(0, dtype, shape);
        Ok(())
    },
    eval: Some(eval_rms),
    examples: &[
        "SimplifiedLayerNormalization(f32[2,3,4], f32[4])",
        "SimplifiedLayerNormalization(f32[2,3,4], f32[3,4]) {axis=1} -> 2",
    ],
    ..OpDef::BASE
};

/// ONNX LpNormalization.
pub static LP_NORMALIZATION: OpDef = OpDef {
    name: "LpNormalization",
    since: &[1, 22],
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("p", AttrKind::Int(Some(2))),
    ],
    eval: Some(eval_lp),
    examples: &["LpNormalization(f32[2,3]) {axis=0, p=1}"],
    ..OpDef::BASE
};

/// ONNX LRN, over neighbouring channels.
pub static LRN: OpDef = OpDef {
    name: "LRN",
    since: &[1, 13],
    attrs: &[
        attr("alpha", AttrKind::Float(Some(1e-4))),
        attr("beta", AttrKind::Float(Some(0.75))),
        attr("bias", AttrKind::Float(Some(1.0))),
        attr("size", AttrKind::Int(None)),
    ],
    eval: Some(eval_lrn),
    examples: &["LRN(f32[1,5,2,2]) {size=3}"],
    ..OpDef::BASE
};

/// ONNX MeanVarianceNormalization.
pub static MEAN_VARIANCE_NORMALIZATION: OpDef = OpDef {
    name: "MeanVarianceNormalization",
    since: &[9, 13],
    attrs: &[attr("axes", AttrKind::Ints)],
    eval: Some(eval_mvn),
    examples: &["MeanVarianceNormalization(f32[2,3,2,2])"],
    ..OpDef::BASE
};

fn epsilon(cx: &EvalCx) -> f64 {
    f64::from(cx.float("epsilon", 1e-5))
}

/// Numbers by channel, for data of (batch, channels, …).
fn by_channel(cx: &EvalCx, i: usize, channels: usize) -> Result<Vec<f64>> {
    let t = cx.input(i)?;
    expect_dims(&format!("input {i}"), t, &[channels])?;
    floats(t)
}

fn eval_batch(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 1..=usize::MAX)?;
    if cx.int("spatial", 1) == 0 {
        return Err(Error::unsupported("statistics by element are not done"));
    }
    let channels = x.dims().get(1).copied().unwrap_or(1);
    let plane: usize = x.dims().iter().skip(2).product();
    let [scale, bias, mut mean, mut var] = [1, 2, 3, 4].map(|i| by_channel(cx, i, channels));
    let (scale, bias) = (scale?, bias?);
    let mut data = floats(x)?;
    let mut more = Vec::new();
    if cx.int("training_mode", 0) != 0 {
        let (m, v) = channel_statistics(&data, channels, plane);
        let momentum = f64::from(cx.float("momentum", 0.9));
        for (i, (old, new)) in [(3, (&mean, &m)), (4, (&var, &v))] {
            let old = old.as_ref().map_err(Clone::clone)?;
            let running = old.iter().zip(new);
            let running = running.map(|(o, n)| o * momentum + n * (1.0 - momentum));
            more.push(from_floats(
                cx.input(i)?.dtype(),
                &[channels],
                running.collect(),
            )?);
        }
        (mean, var) = (Ok(m), Ok(v));
    }
    let (mean, var, eps) = (mean?, var?, epsilon(cx));
    for (i, v) in data.iter_mut().enumerate() {
        let c = i / plane % channels;
        *v = (*v - mean[c]) / (var[c] + eps).sqrt() * scale[c] + bias[c];
    }
    let mut out = vec![from_floats(x.dtype(), x.dims(), data)?];
    out.extend(more);
    Ok(out)
}

/// Mean and variance of each channel.
fn channel_statistics(data: &[f64], channels: usize, plane: usize) -> (Vec<f64>, Vec<f64>) {
    (0..channels)
        .map(|c| {
            let values: Vec<f64> = data
                .chunks(plane.max(1))
                .skip(c)
                .step_by(channels)
                .flatten()
                .copied()
                .collect();
            moments(&values)
        })
        .unzip()
}

/// Mean and variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance)
}

/// Normalises each of `groups` groups of channels, then scales and shifts by input 1 and 2.
fn group_normalized(cx: &EvalCx, groups: usize) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 2..=usize::MAX)?;
    let channels = x.dims()[1];
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::invalid(format!(
            "{channels} channels do not split into {groups} groups"
        )));
    }
    let plane: usize = x.dims()[2..].iter().product();
    let entries = cx.input(1)?.count();
    let entries = if entries == groups { groups } else { channels };
    let (scale, bias) = (by_channel(cx, 1, entries)?, by_channel(cx, 2, entries)?);
    let mut data = floats(x)?;
    let eps = epsilon(cx);
    map_lines(&mut data, channels / groups * plane, 1, |line| {
        let (mean, var) = moments(line);
        line.iter_mut()
            .for_each(|v| *v = (*v - mean) / (var + eps).sqrt());
    });
    for (i, v) in data.iter_mut().enumerate() {
        let c = i / plane % channels * entries / channels;
        *v = *v * scale[c] + bias[c];
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}

/// The lengths before and from attribute `axis` on.
fn split_at_axis<'a>(cx: &EvalCx, x: &'a Tensor) -> Result<(&'a [usize], &'a [usize])> {
    let axis = infer::axis(cx.int("axis", -1), x.rank())?;
    Ok(x.dims().split_at(axis))
}

fn eval_layer(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (outer, inner) = split_at_axis(cx, x)?;
    let length = inner.iter().product::<usize>().max(1);
    let weight = |i: usize, default: f64| match cx.optional(i) {
        Some(t) => expand(&floats(t)?, t.dims(), x.dims()),
        None => Ok(vec![default; x.count()]),
    };
    let (scale, bias) = (weight(1, 1.0)?, weight(2, 0.0)?);
    let (mut data, eps) = (floats(x)?, epsilon(cx));
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for line in data.chunks_mut(length) {
        let (mean, var) = moments(line);
        let inverse = 1.0 / (var + eps).sqrt();
        line.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
        means.push(mean);
        inverses.push(inverse);
    }
    let data = rounded(x.dtype(), data)?.into_iter();
    let y = data.zip(scale.iter().zip(&bias));
    let y = y.map(|(v, (s, b))| v * s + b).collect();
    let dims = [outer, &vec![1; inner.len()]].concat();
    let stash = if x.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    Ok(vec![
        from_floats(x.dtype(), x.dims(), y)?,
        from_floats(stash, &dims, means)?,
        from_floats(stash, &dims, inverses)?,
    ])
}

fn infer_layer(cx: &mut InferCx) -> Result<()> {
    infer::like_first(cx)?;
    let stash = cx
        .dtype(0)
        .map(|d| if d == DType::F64 { d } else { DType::F32 });
    let shape = match cx.shape(0) {
        None => None,
        Some(x) => {
            let axis = infer::axis(cx.node.int("axis").unwrap_or(-1), x.rank())?;
            let dims = x.iter().enumerate();
            let dims = dims.map(|(i, d)| if i < axis { d.clone() } else { Dim::Known(1) });
            Some(dims.collect::<Shape>())
        }
    };
    cx.set_tensor(1, stash, shape.clone());
    cx.set_tensor(2, stash, shape);
    Ok(())
}

fn eval_rms(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (outer, inner) = split_at_axis(cx, x)?;
    let scale = cx.input(1)?;
    let weights = expand(&floats(scale)?, scale.dims(), x.dims())?;
    let (mut data, eps) = (floats(x)?, epsilon(cx));
    let mut inverses = Vec::new();
    for line in data.chunks_mut(inner.iter().product::<usize>().max(1)) {
        let square = line.iter().map(|v| v * v).sum::<f64>() / line.len() as f64;
        line.iter_mut().for_each(|v| *v /= (square + eps).sqrt());
        inverses.push(1.0 / (square + eps).sqrt());
    }
    let data = rounded(x.dtype(), data)?.into_iter();
    let y = data.zip(weights).map(|(v, s)| v * s).collect();
    let y = from_floats(scale.dtype(), x.dims(), y)?;
    let dims = [outer, &vec![1; inner.len()]].concat();
    let stash = if x.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let inverse = from_floats(stash, &dims, inverses);
    Ok(inverse.map_or_else(|_| vec![y.clone()], |i| vec![y.clone(), i]))
}

fn eval_lp(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axis = infer::axis(cx.int("axis", -1), x.rank())?;
    let p = cx.int("p", 2);
    let mut data = floats(x)?;
    let inner = x.dims()[axis + 1..].iter().product();
    map_lines(&mut data, x.dims()[axis], inner, |line| {
        let norm = match p {
            1 => line.iter().map(|v| v.abs()).sum::<f64>(),
            _ => line.iter().map(|v| v * v).sum::<f64>().sqrt(),
        };
        let norm = if norm == 0.0 { 1.0 } else { norm };
        line.iter_mut().for_each(|v| *v /= norm);
    });
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}

/// The attributes of LRN.
pub struct Lrn {
    size: usize,
    /// α by the number of neighbours.
    pub factor: f64,
    /// The exponent.
    pub beta: f64,
    bias: f64,
}

impl Lrn {
    /// Those of the node.
    ///
    /// # Errors
    /// When `size` is not positive.
    pub fn of(cx: &EvalCx) -> Result<Self> {
        let size = cx.int("size", 0);
        let size = usize::try_from(size)
            .ok()
            .filter(|&s| s > 0)
            .ok_or_else(|| Error::invalid(format!("size is {size}")))?;
        Ok(Self {
            size,
            factor: f64::from(cx.float("alpha", 1e-4)) / size as f64,
            beta: f64::from(cx.float("beta", 0.75)),
            bias: f64::from(cx.float("bias", 1.0)),
        })
    }

    /// The channels whose squares count for channel `c` of `channels`.
    pub fn neighbours(&self, c: usize, channels: usize) -> std::ops::Range<usize> {
        let end = c.saturating_add(self.size / 2 + 1).min(channels);
        c.saturating_sub((self.size - 1) / 2)..end
    }

    /// What channel `c` of a line is divided by, before the exponent.
    pub fn base(&self, line: &[f64], c: usize) -> f64 {
        let near = &line[self.neighbours(c, line.len())];
        self.bias + self.factor * near.iter().map(|v| v * v).sum::<f64>()
    }
}

fn eval_lrn(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 2..=usize::MAX)?;
    let lrn = Lrn::of(cx)?;
    let plane = x.dims()[2..].iter().product();
    let mut data = floats(x)?;
    map_lines(&mut data, x.dims()[1], plane, |line| {
        let old = line.to_vec();
        for (c, v) in line.iter_mut().enumerate() {
            *v /= lrn.base(&old, c).powf(lrn.beta);
        }
    });
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}

fn eval_mvn(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axes = cx.node.ints("axes").unwrap_or(&[0, 2, 3]);
    let mut kept = x.dims().to_vec();
    for &a in axes {
        kept[infer::axis(a, x.rank())?] = 1;
    }
    let cell = super::arith::broadcast_indices(&kept, x.dims())?;
    let mut cells = vec![Vec::new(); kept.iter().product()];
    let data = floats(x)?;
    for (&v, &c) in data.iter().zip(&cell) {
        cells[c].push(v);
    }
    let cells: Vec<_> = cells.iter().map(|v| moments(v)).collect();
    let y = data.iter().zip(&cell).map(|(v, &c)| {
        let (mean, var) = cells[c];
        (v - mean) / (var.sqrt() + 1e-9)
    });
    Ok(vec![from_floats(x.dtype(), x.dims(), y.collect())?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_population() {
        assert_eq!(moments(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn statistics_gather_a_channel_over_the_batch() {
        let data = [1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 30.0, 40.0];
        let (mean, _) = channel_statistics(&data, 2, 2);
        assert_eq!(mean, [2.5, 25.0]);
    }
}
