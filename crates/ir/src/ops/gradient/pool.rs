//! Gradients of pools: `<Pool>Grad(X, dY) -> dX`.

use super::BASE;
use crate::eval::EvalCx;
use crate::geometry::Window;
use crate::ops::arith::{expect_dims, expect_rank, floats, from_floats};
use crate::ops::pool::{ATTRS, GLOBAL_LP_POOL, eval_max, exponent, lp, padded_taps, window_of};
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

/// The gradient of LpPool.
pub static LP_POOL_GRAD: OpDef = OpDef {
    attrs: ATTRS,
    ..row(
        "LpPoolGrad",
        |cx| {
            let p = exponent(cx);
            windows(cx, |line, dy, _| of_norm(line, dy, p))
        },
        &["edgesmith.LpPoolGrad(f32[1,2,6,6], f32[1,2,3,3]) {kernel_shape=[2,2], strides=[2,2]}"],
    )
};

/// The gradient of GlobalLpPool.
pub static GLOBAL_LP_POOL_GRAD: OpDef = OpDef {
    attrs: GLOBAL_LP_POOL.attrs,
    ..row(
        "GlobalLpPoolGrad",
        |cx| {
            let p = exponent(cx);
            global(cx, |line, dy| of_norm(line, dy, p))
        },
        &["edgesmith.GlobalLpPoolGrad(f32[2,3,4,4], f32[2,3,1,1]) {p=3}"],
    )
};

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
    let include = cx.int("count_include_pad", 0) != 0;
    windows(cx, |line, dy, (window, o)| {
        let count = match include {
            true => padded_taps(window, o),
            false => line.len(),
        };
        line.fill(dy / count as f64);
    })
}

/// Makes the elements of a norm its gradient with respect to each; 0 where the norm is.
fn of_norm(line: &mut [f64], dy: f64, p: f64) {
    let norm = lp(line, p);
    for v in line {
        *v = match *v {
            0.0 if p == 1.0 => 0.0,
            _ if norm == 0.0 => 0.0,
            x => dy * x.signum() * (x.abs() / norm).powf(p - 1.0),
        };
    }
}

/// Makes the elements under each window their gradients by `f` of them, the gradient of the output
/// and the number of the window; sums those of each element.
fn windows(cx: &EvalCx, f: impl Fn(&mut [f64], f64, (&Window, usize))) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(1)?);
    let (window, dims) = window_of(cx, x)?;
    expect_dims("the gradient", dy, &dims)?;
    let area: usize = x.dims()[2..].iter().product();
    let outputs: usize = dims[2..].iter().product();
    let (data, dy, mut dx) = (floats(x)?, floats(dy)?, vec![0.0; x.count()]);
    let (mut sources, mut line) = (Vec::new(), Vec::new());
    for o in 0..outputs {
        window.sources(o, &mut sources);
        for p in 0..dims[0] * dims[1] {
            line.clear();
            line.extend(sources.iter().map(|&(_, i)| data[p * area + i]));
            f(&mut line, dy[p * outputs + o], (&window, o));
            for (&(_, i), d) in sources.iter().zip(&line) {
                dx[p * area + i] += d;
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
