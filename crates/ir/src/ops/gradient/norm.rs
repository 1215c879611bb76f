//! Gradients of normalisations: `<Norm>Grad(X, scale, dY) -> dX, dScale, dBias`.

use super::BASE;
use super::broadcast::summed_like;
use crate::eval::EvalCx;
use crate::ops::arith::{expand, expect_dims, expect_rank, floats, from_floats};
use crate::ops::{Arity, AttrDef, AttrKind, EvalFn, OpDef, attr};
use crate::{Error, Result, Tensor, infer};

const fn row(
    name: &'static str,
    outputs: usize,
    attrs: &'static [AttrDef],
    eval: EvalFn,
    examples: &'static [&'static str],
) -> OpDef {
    OpDef {
        name,
        inputs: Arity(3, 3),
        outputs: Arity(1, outputs),
        attrs,
        infer: |cx| {
            for (o, i) in [(0, 0), (1, 1), (2, 1)] {
                if let Some(ty) = cx.ty(i).cloned() {
                    cx.set(o, ty);
                }
            }
            Ok(())
        },
        eval: Some(eval),
        examples,
        ..BASE
    }
}

const EPSILON: AttrDef = attr("epsilon", AttrKind::Float(Some(1e-5)));
const AXIS: AttrDef = attr("axis", AttrKind::Int(Some(-1)));

/// The gradient of BatchNormalization by the statistics of the batch.
pub static BATCH_NORMALIZATION_GRAD: OpDef = row(
    "BatchNormalizationGrad",
    3,
    &[EPSILON],
    |cx| {
        let x = cx.input(0)?;
        expect_rank("the input", x, 2..=usize::MAX)?;
        let (channels, plane) = (x.dims()[1], x.dims()[2..].iter().product::<usize>());
        let line = |i: usize| i / plane % channels;
        gradients(cx, Kind::Centred, channels, line, line)
    },
    &["edgesmith.BatchNormalizationGrad(f32[2,3,4], f32[3], f32[2,3,4]) -> 3"],
);

/// The gradient of InstanceNormalization.
pub static INSTANCE_NORMALIZATION_GRAD: OpDef = row(
    "InstanceNormalizationGrad",
    3,
    &[EPSILON],
    |cx| {
        let x = cx.input(0)?;
        expect_rank("the input", x, 2..=usize::MAX)?;
        let (channels, plane) = (x.dims()[1], x.dims()[2..].iter().product::<usize>());
        let lines = x.dims()[0] * channels;
        gradients(
            cx,
            Kind::Centred,
            lines,
            |i| i / plane,
            |i| i / plane % channels,
        )
    },
    &["edgesmith.InstanceNormalizationGrad(f32[2,3,4], f32[3], f32[2,3,4]) -> 3"],
);

/// The gradient of GroupNormalization, whose scale has a number for each channel or for each group.
pub static GROUP_NORMALIZATION_GRAD: OpDef = row(
    "GroupNormalizationGrad",
    3,
    &[EPSILON, attr("num_groups", AttrKind::Int(None))],
    |cx| {
        let x = cx.input(0)?;
        expect_rank("the input", x, 2..=usize::MAX)?;
        let (channels, plane) = (x.dims()[1], x.dims()[2..].iter().product::<usize>());
        let groups = usize::try_from(cx.int("num_groups", 0)).unwrap_or(0);
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::invalid(format!(
                "{channels} channels do not split into {groups} groups"
            )));
        }
        let length = (channels / groups * plane).max(1);
        let lines = x.dims()[0] * groups;
        let by_group = cx.input(1)?.count() == groups;
        let scales = if by_group { groups } else { channels };
        gradients(
            cx,
            Kind::Centred,
            lines,
            |i| i / length,
            |i| i / plane % channels * scales / channels,
        )
    },
    &[
        "edgesmith.GroupNormalizationGrad(f32[2,4,3], f32[4], f32[2,4,3]) {num_groups=2} -> 3",
        "edgesmith.GroupNormalizationGrad(f32[2,4,3], f32[2], f32[2,4,3]) {num_groups=2} -> 3",
    ],
);

/// The gradient of LayerNormalization.
pub static LAYER_NORMALIZATION_GRAD: OpDef = row(
    "LayerNormalizationGrad",
    3,
    &[AXIS, EPSILON],
    |cx| rows(cx, Kind::Centred),
    &[
        "edgesmith.LayerNormalizationGrad(f32[2,3,4], f32[4], f32[2,3,4]) -> 3",
        "edgesmith.LayerNormalizationGrad(f32[2,3,4], f32[3,4], f32[2,3,4]) {axis=1} -> 3",
    ],
);

/// The gradient of RMSNormalization.
pub static RMS_NORMALIZATION_GRAD: OpDef = row(
    "RMSNormalizationGrad",
    2,
    &[AXIS, EPSILON],
    |cx| rows(cx, Kind::Plain),
    &["edgesmith.RMSNormalizationGrad(f32[2,3,4], f32[4], f32[2,3,4]) -> 2"],
);

/// What is divided by its root mean square.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// What a line differs from its mean by.
    Centred,
    /// The line itself.
    Plain,
}

/// Lines of the axes from attribute `axis` on.
fn rows(cx: &EvalCx, kind: Kind) -> Result<Vec<Tensor>> {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let axis = infer::axis(cx.int("axis", -1), x.rank())?;
    let length = x.dims()[axis..].iter().product::<usize>().max(1);
    let count = scale.count();
    let places: Vec<f64> = (0..count).map(|i| i as f64).collect();
    let of = expand(&places, scale.dims(), x.dims())?;
    gradients(
        cx,
        kind,
        x.count() / length,
        |i| i / length,
        |i| of[i] as usize,
    )
}

/// The gradients where element `i` belongs to line `line(i)` of `lines`, and has scale `scale(i)`.
fn gradients(
    cx: &EvalCx,
    kind: Kind,
    lines: usize,
    line: impl Fn(usize) -> usize,
    scale: impl Fn(usize) -> usize,
) -> Result<Vec<Tensor>> {
    let (x, weights, dy) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    expect_dims("the gradient", dy, x.dims())?;
    let (mut data, scales, dy) = (floats(x)?, floats(weights)?, floats(dy)?);
    let epsilon = f64::from(cx.float("epsilon", 1e-5));
    let places: Vec<(usize, usize)> = (0..data.len()).map(|i| (line(i), scale(i))).collect();
    if places.iter().any(|&(l, s)| l >= lines || s >= scales.len()) {
        return Err(Error::invalid(format!(
            "the scale {} does not fit {}",
            weights.ty(),
            x.ty()
        )));
    }
    let mut counts = vec![0.0f64; lines];
    places.iter().for_each(|&(l, _)| counts[l] += 1.0);
    let mean_of = |values: &mut dyn Iterator<Item = f64>| {
        let mut means = vec![0.0; lines];
        places
            .iter()
            .zip(values)
            .for_each(|(&(l, _), v)| means[l] += v / counts[l]);
        means
    };
    if kind == Kind::Centred {
        let means = mean_of(&mut data.iter().copied());
        data.iter_mut()
            .zip(&places)
            .for_each(|(v, &(l, _))| *v -= means[l]);
    }
    let squares = mean_of(&mut data.iter().map(|v| v * v));
    let inverse: Vec<f64> = squares.iter().map(|s| 1.0 / (s + epsilon).sqrt()).collect();
    data.iter_mut()
        .zip(&places)
        .for_each(|(v, &(l, _))| *v *= inverse[l]);
    let (mut dscale, mut dbias) = (vec![0.0; scales.len()], vec![0.0; scales.len()]);
    for ((&(_, s), d), v) in places.iter().zip(&dy).zip(&data) {
        dscale[s] += d * v;
        dbias[s] += d;
    }
    let scaled: Vec<f64> = dy
        .iter()
        .zip(&places)
        .map(|(d, &(_, s))| d * scales[s])
        .collect();
    let along = mean_of(&mut scaled.iter().zip(&data).map(|(d, v)| d * v));
    let mut dx: Vec<f64> = scaled;
    let shifts = match kind {
        Kind::Centred => mean_of(&mut dx.iter().copied()),
        Kind::Plain => vec![0.0; lines],
    };
    for ((d, v), &(l, _)) in dx.iter_mut().zip(&data).zip(&places) {
        *d = inverse[l] * (*d - shifts[l] - v * along[l]);
    }
    Ok(vec![
        from_floats(x.dtype(), x.dims(), dx)?,
        summed_like(&dscale, weights.dims(), weights)?,
        summed_like(&dbias, weights.dims(), weights)?,
    ])
}
