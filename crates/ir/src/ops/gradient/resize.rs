//! The gradient of Resize, which is linear in its input: weights are the same, the other way round.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::resize::{RESIZE, resized};
use crate::ops::taps::Taps;
use crate::ops::{Arity, OpDef};
use crate::{Item, Result, Tensor, checked_count};

/// `ResizeGrad(X, roi, scales, sizes, dY) -> dX`, of Resize since opset 11.
pub static RESIZE_GRAD: OpDef = OpDef {
    name: "ResizeGrad",
    inputs: Arity(5, 5),
    attrs: RESIZE.attrs,
    eval: Some(eval),
    examples: &[
        "edgesmith.ResizeGrad(f32[1,1,2,3], , f32[4]{1,1,2,1.5}, , f32[1,1,4,4])",
        "edgesmith.ResizeGrad(f32[1,1,4,4], , , i64[4]{1,1,3,2}, f32[1,1,3,2]) {mode=\"linear\"}",
        "edgesmith.ResizeGrad(f32[4,4], , f32[2]{0.6,0.6}, , f32[2,2]) {mode=\"cubic\",antialias=1}",
    ],
    ..BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(4)?);
    let inputs: Vec<Option<Item>> = (0..4).map(|i| cx.item(i).cloned()).collect();
    let axes = resized(&cx.as_default(&inputs), x.dims())?;
    let mut now: Vec<usize> = axes.iter().map(|a| a.length).collect();
    expect_dims("the gradient", dy, &now)?;
    if now.contains(&0) {
        let zeros = vec![0.0; x.count()];
        return Ok(vec![from_floats(x.dtype(), x.dims(), zeros)?]);
    }
    // An element outside of what a crop shows is read from nowhere, and gives nothing back.
    let mut values = floats(dy)?;
    for (a, axis) in axes.iter().enumerate() {
        if let Some(taps) = &axis.taps {
            values = back(&values, &now, a, taps, x.dims()[a])?;
            now[a] = x.dims()[a];
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), values)?])
}

/// `values` of lengths `dims` added along one axis to where the taps read, of `length` elements.
fn back(
    values: &[f64],
    dims: &[usize],
    axis: usize,
    taps: &[Taps],
    length: usize,
) -> Result<Vec<f64>> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let mut out = vec![0.0; checked_count(&[outer, length, inner])?];
    let (from, to) = (taps.len() * inner, length * inner);
    for (values, out) in values.chunks(from).zip(out.chunks_mut(to)) {
        for (taps, values) in taps.iter().zip(values.chunks(inner)) {
            for &(place, weight) in taps {
                let line = &mut out[place as usize * inner..][..inner];
                line.iter_mut()
                    .zip(values)
                    .for_each(|(o, v)| *o += weight * v);
            }
        }
    }
    Ok(out)
}
