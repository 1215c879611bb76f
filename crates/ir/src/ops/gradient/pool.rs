//! Gradients of pools: `<Pool>Grad(X, dY) -> dX`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, expect_rank, floats, from_floats};
use crate::ops::pool::{ATTRS, eval_max, padded_taps, window_of};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{Error, Result, Tensor};

const fn row(name: &'static str, eval: EvalFn, examples: &'static [&'static str]) -> OpDef {
    OpDef {
        name,
        inputs: Arity(2, 2),
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// The gradient of MaxPool goes to the first maximum of each window in the order of its elements.
pub static MAX_POOL_GRAD: OpDef = OpDef {
    attrs: ATTRS,
    ..row(
        "MaxPoolGrad",
        max,
        &[
            "edgesmith.MaxPoolGrad(f32[1,2,6,6], f32[1,2,3,3]) \
             {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]}",
            "edgesmith.MaxPoolGrad(f32[1,2,7], f32[1,2,4]) \
             {kernel_shape=[2], strides=[2], ceil_mode=1}",
        ],
    )
};

/// The gradient of AveragePool.
pub static AVERAGE_POOL_GRAD: OpDef = OpDef {
    attrs: ATTRS,
    ..row(
        "AveragePoolGrad",
        average,
        &[
            "edgesmith.AveragePoolGrad(f32[1,2,6,6], f32[1,2,3,3]) \
             {kernel_shape=[2,2], strides=[2,2]}",
            "edgesmith.AveragePoolGrad(f32[1,2,5,5], f32[1,2,5,5]) \
             {kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1}",
        ],
    )
};

/// The gradient of GlobalAveragePool.
pub static GLOBAL_AVERAGE_POOL_GRAD: OpDef = row(
    "GlobalAveragePoolGrad",
    |cx| global(cx, |line, dy| line.fill(dy / line.len() as f64)),
    &["edgesmith.GlobalAveragePoolGrad(f32[2,3,4,4], f32[2,3,1,1])"],
);

/// The gradient of GlobalMaxPool goes to the first maximum.
pub static GLOBAL_MAX_POOL_GRAD: OpDef = row(
    "GlobalMaxPoolGrad",
    |cx| {
        global(cx, |line, dy| {
            let better = |a: f64, b: f64| b > a || (b.is_nan() && !a.is_nan());
            let best = (0..line.len()).fold(0, |m, i| if better(line[m], line[i]) { i } else { m });
            line.fill(0.0);
            line[best] = dy;
        })
    },
    &["edgesmith.GlobalMaxPoolGrad(f32[2,3,4,4], f32[2,3,1,1])"],
);

fn max(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(1)?);
    if cx.int("storage_order", 0) != 0 {
        return Err(Error::unsupported("storage_order is not done"));
    }
    let forward = eval_max(cx)?;
    expect_dims("the gradient", dy, forward[0].dims())?;
    let mut dx = vec![0.0; x.count()];
    for (&at, dy) in forward[1].data::<i64>()?.iter().zip(floats(dy)?) {
        let place = usize::try_from(at).ok().and_then(|at| dx.get_mut(at));
        if let Some(place) = place {
            *place += dy;
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), dx)?])
}

fn average(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(1)?);
    let (window, dims) = window_of(cx, x)?;
    expect_dims("the gradient", dy, &dims)?;
    let include = cx.int("count_include_pad", 0) != 0;
    let area: usize = x.dims()[2..].iter().product();
    let outputs: usize = dims[2..].iter().product();
    let (dy, mut dx) = (floats(dy)?, vec![0.0; x.count()]);
    let mut sources = Vec::new();
    for o in 0..outputs {
        window.sources(o, &mut sources);
        let count = match include {
            true => padded_taps(&window, o),
            false => sources.len(),
        };
        for p in 0..dims[0] * dims[1] {
            for &(_, i) in &sources {
                dx[p * area + i] += dy[p * outputs + o] / count as f64;
            }
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), dx)?])
}

/// Makes each plane of the input its gradient by `f` of the plane and the gradient of its output.
fn global(cx: &EvalCx, f: impl Fn(&mut [f64], f64)) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 2..=usize::MAX)?;
    let area: usize = x.dims()[2..].iter().product();
    let mut dims = x.dims().to_vec();
    dims[2..].fill(1);
    expect_dims("the gradient", dy, &dims)?;
    let mut data = floats(x)?;
    for (line, dy) in data.chunks_mut(area.max(1)).zip(floats(dy)?) {
        f(line, dy);
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}
