//! The gradient of GridSample: `GridSampleGrad(X, grid, dY) -> dX, dGrid`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::grid_sample::{GRID_SAMPLE, Sampling, spread};
use crate::ops::taps::Taps;
use crate::ops::{Arity, OpDef, layout};
use crate::{Result, Tensor};

/// The gradients of GridSample; each may be left out.
pub static GRID_SAMPLE_GRAD: OpDef = OpDef {
    name: "GridSampleGrad",
    inputs: Arity(3, 3),
    outputs: Arity(1, 2),
    attrs: GRID_SAMPLE.attrs,
    infer: |cx| {
        for i in 0..2 {
            if let Some(ty) = cx.ty(i).cloned() {
                cx.set(i, ty);
            }
        }
        Ok(())
    },
    eval: Some(eval),
    examples: &[
        "edgesmith.GridSampleGrad(f32[1,2,4,4], f32[1,3,2,2], f32[1,2,3,2]) -> 2",
        "edgesmith.GridSampleGrad(f32[1,1,4,3], f32[1,3,2,2], f32[1,1,3,2]) \
         {mode=\"cubic\",padding_mode=\"reflection\"} -> 2",
    ],
    ..BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, grid, dy) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let sampling = Sampling::of(cx)?;
    expect_dims("the gradient", dy, &sampling.dims)?;
    let (data, dy) = (floats(x)?, floats(dy)?);
    let (mut dx, mut dgrid) = (vec![0.0; data.len()], vec![0.0; grid.count()]);
    let (points, channels) = (sampling.points, sampling.channels);
    let axes = sampling.space.len();
    let volume: usize = sampling.space.iter().product();
    let strides = layout::strides(&sampling.space);
    for row in 0..sampling.batch * points {
        let (b, point) = (row / points, row % points);
        let planes =
            (b * channels..(b + 1) * channels).map(|p| (p * volume, dy[p * points + point]));
        let shown = sampling.shown(cx.node, row)?;
        let taps: Vec<Taps> = shown.iter().map(|s| s.taps.clone()).collect();
        for (at, weight) in spread(&taps, &strides) {
            planes
                .clone()
                .for_each(|(plane, d)| dx[plane + at] += weight * d);
        }
        for (axis, shown) in shown.iter().enumerate() {
            let mut sloped = taps.clone();
            sloped[axis].clone_from(&shown.slopes);
            let mut sum = 0.0;
            for (at, slope) in spread(&sloped, &strides) {
                planes
                    .clone()
                    .for_each(|(plane, d)| sum += slope * d * data[plane + at]);
            }
            dgrid[row * axes + axes - 1 - axis] = sum;
        }
    }
    Ok(vec![
        from_floats(x.dtype(), x.dims(), dx)?,
        from_floats(grid.dtype(), grid.dims(), dgrid)?,
    ])
}
