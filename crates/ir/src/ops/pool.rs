//! Pools over windows: MaxPool, AveragePool, LpPool, and their global forms.

use super::arith::{any, expect_rank, floats, from_floats, from_integers};
use super::conv::window_dim;
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::geometry::{Window, WindowSpec, lengths};
use crate::infer::InferCx;
use crate::{DType, Dim, Error, Node, Result, Shape, Tensor, checked_count};

const fn window_op(name: &'static str, since: &'static [i64]) -> OpDef {
    OpDef {
        name,
        since,
        attrs: ATTRS,
        infer,
        ..OpDef::BASE
    }
}

/// The attributes of every pool.
pub const ATTRS: &[AttrDef] = &[
    attr("auto_pad", AttrKind::String(Some("NOTSET"))),
    attr("ceil_mode", AttrKind::Int(Some(0))),
    attr("count_include_pad", AttrKind::Int(Some(0))),
    attr("dilations", AttrKind::Ints),
    attr("kernel_shape", AttrKind::Ints),
    attr("p", AttrKind::Int(Some(2))),
    attr("pads", AttrKind::Ints),
    attr("storage_order", AttrKind::Int(Some(0))),
    attr("strides", AttrKind::Ints),
];

/// ONNX MaxPool, with the flat positions of the maxima as second output.
pub static MAX_POOL: OpDef = OpDef {
    outputs: Arity(1, 2),
    eval: Some(eval_max),
    examples: &[
        "MaxPool(f32[1,2,6,6]) {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]}",
        "MaxPool(f32[1,2,7]) {kernel_shape=[2], strides=[2], ceil_mode=1}",
    ],
    ..window_op("MaxPool", &[1, 8, 10, 11, 12, 22])
};

/// ONNX AveragePool.
pub static AVERAGE_POOL: OpDef = OpDef {
    eval: Some(eval_average),
    examples: &[
        "AveragePool(f32[1,2,6,6]) {kernel_shape=[2,2], strides=[2,2]}",
        "AveragePool(f32[1,2,5,5]) {kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1}",
    ],
    ..window_op("AveragePool", &[1, 7, 10, 11, 19, 22])
};

/// ONNX LpPool.
pub static LP_POOL: OpDef = OpDef {
    eval: Some(|cx| {
        let p = exponent(cx);
        float_pool(cx, |values, _| lp(values, p))
    }),
    examples: &["LpPool(f32[1,2,6,6]) {kernel_shape=[2,2], strides=[2,2]}"],
    ..window_op("LpPool", &[1, 2, 11, 18, 22])
};

/// ONNX GlobalAveragePool.
pub static GLOBAL_AVERAGE_POOL: OpDef = OpDef {
    name: "GlobalAveragePool",
    since: &[1, 22],
    infer: infer_global,
    eval: Some(|cx| global(cx, |v| v.iter().sum::<f64>() / v.len() as f64)),
    examples: &["GlobalAveragePool(f32[1,3,4,4])"],
    ..OpDef::BASE
};

/// ONNX GlobalMaxPool.
pub static GLOBAL_MAX_POOL: OpDef = OpDef {
    name: "GlobalMaxPool",
    since: &[1, 22],
    infer: infer_global,
    eval: Some(|cx| global(cx, |v| v.iter().copied().fold(f64::NEG_INFINITY, larger))),
    examples: &["GlobalMaxPool(f32[1,3,4,4])"],
    ..OpDef::BASE
};

/// ONNX GlobalLpPool.
pub static GLOBAL_LP_POOL: OpDef = OpDef {
    name: "GlobalLpPool",
    since: &[1, 2, 22],
    attrs: &[attr("p", AttrKind::Int(Some(2)))],
    infer: infer_global,
    eval: Some(|cx| {
        let p = exponent(cx);
        global(cx, |v| lp(v, p))
    }),
    examples: &["GlobalLpPool(f32[1,3,4,4])"],
    ..OpDef::BASE
};

/// The exponent of a norm: an integer since version 2, a float in version 1.
pub fn exponent(cx: &EvalCx) -> f64 {
    let float = cx.node.float("p").map(f64::from);
    float.unwrap_or_else(|| cx.int("p", 2) as f64)
}

/// The norm of `values` with exponent `p`.
pub fn lp(values: &[f64], p: f64) -> f64 {
    let sum: f64 = values.iter().map(|v| v.abs().powf(p)).sum();
    sum.powf(1.0 / p)
}

fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// The kernel that attribute `kernel_shape` gives.
///
/// # Errors
/// When it is missing or does not have `axes` entries.
pub fn kernel_shape(node: &Node, axes: usize) -> Result<Vec<usize>> {
    if node.ints("kernel_shape").is_none() {
        return Err(Error::invalid("attribute \"kernel_shape\" is missing"));
    }
    let kernel = lengths(node, "kernel_shape", axes, 1)?;
    checked_count(&kernel)?;
    Ok(kernel)
}

/// The windows of a pool over `x`, and the lengths of its output.
///
/// # Errors
/// When the attributes do not fit the input, or the output is too large.
pub fn window_of(cx: &EvalCx, x: &Tensor) -> Result<(Window, Vec<usize>)> {
    expect_rank("the input", x, 3..=usize::MAX)?;
    let spatial = &x.dims()[2..];
    let window = Window::of(cx.node, spatial, &kernel_shape(cx.node, spatial.len())?)?;
    let dims = [&x.dims()[..2], &window.output()].concat();
    checked_count(&dims)?;
    Ok((window, dims))
}

fn float_pool(cx: &EvalCx, f: impl Fn(&[f64], usize) -> f64) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (window, dims) = window_of(cx, x)?;
    let y = over_windows(&floats(x)?, &window, dims[0] * dims[1], f);
    Ok(vec![from_floats(x.dtype(), &dims, y)?])
}

/// For each of `planes` planes of `data`, `f` of the elements under each window and of the
/// number of the window.
pub fn over_windows<T: Copy>(
    data: &[T],
    window: &Window,
    planes: usize,
    f: impl Fn(&[T], usize) -> f64,
) -> Vec<f64> {
    let area: usize = window.axes.iter().map(|a| a.input).product();
    let outputs: usize = window.axes.iter().map(|a| a.output).product();
    let mut y = vec![0.0; planes * outputs];
    let (mut sources, mut values) = (Vec::new(), Vec::new());
    for o in 0..outputs {
        window.sources(o, &mut sources);
        for p in 0..planes {
            values.clear();
            values.extend(sources.iter().map(|&(_, i)| data[p * area + i]));
            y[p * outputs + o] = f(&values, o);
        }
    }
    y
}

fn eval_average(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (window, _) = window_of(cx, cx.input(0)?)?;
    let include = cx.int("count_include_pad", 0) != 0;
    float_pool(cx, |values, o| {
        let count = if include {
            padded_taps(&window, o)
        } else {
            values.len()
        };
        match count {
            0 => 0.0,
            _ => values.iter().sum::<f64>() / count as f64,
        }
    })
}

/// The taps of window `o` that lie on the input or on its explicit padding: all but those that
/// `ceil_mode` lets reach farther.
pub fn padded_taps(window: &Window, o: usize) -> usize {
    let mut rest = o;
    let mut count = 1;
    for a in window.axes.iter().rev() {
        let start = rest % a.output * a.stride;
        rest /= a.output;
        let end = a.input + a.begin + a.end;
        count *= (0..a.kernel)
            .filter(|k| start + k * a.dilation < end)
            .count();
    }
    count
}

/// MaxPool and the places of the maxima.
///
/// # Errors
/// When the attributes do not fit the input.
pub fn eval_max(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (window, dims) = window_of(cx, x)?;
    let data = any(x)?;
    let spatial = &x.dims()[2..];
    let planes = dims[0] * dims[1];
    let area: usize = spatial.iter().product();
    let outputs: usize = dims[2..].iter().product();
    let (mut y, mut at) = (vec![0.0; planes * outputs], vec![0i64; planes * outputs]);
    let mut sources = Vec::new();
    for o in 0..outputs {
        window.sources(o, &mut sources);
        for p in 0..planes {
            let mut best: Option<(f64, usize)> = None;
            for &(_, i) in &sources {
                let v = data[p * area + i];
                if best.is_none_or(|(b, _)| v > b || v.is_nan() && !b.is_nan()) {
                    best = Some((v, i));
                }
            }
            let (value, i) = best.unwrap_or((f64::NEG_INFINITY, 0));
            let i = if cx.int("storage_order", 0) == 0 {
                i
            } else {
                column_major(i, spatial)
            };
            y[p * outputs + o] = value;
            at[p * outputs + o] = (p * area + i) as i64;
        }
    }
    let y = if x.dtype().is_float() {
        from_floats(x.dtype(), &dims, y)?
    } else {
        let y: Vec<i128> = y.into_iter().map(|v| v as i128).collect();
        from_integers(x.dtype(), &dims, &y)?
    };
    Ok(vec![y, Tensor::from_vec(&dims, at)?])
}

/// The column-major place of the element at row-major place `i`.
fn column_major(i: usize, dims: &[usize]) -> usize {
    let (mut rest, mut coordinates) = (i, Vec::with_capacity(dims.len()));
    for &d in dims.iter().rev() {
        coordinates.push(rest % d);
        rest /= d;
    }
    let coordinates = coordinates.into_iter();
    coordinates
        .zip(dims.iter().rev())
        .fold(0, |at, (c, &d)| at * d + c)
}

fn global(cx: &EvalCx, f: impl Fn(&[f64]) -> f64) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 2..=usize::MAX)?;
    let area: usize = x.dims()[2..].iter().product();
    if area == 0 {
        return Err(Error::invalid(format!("{} has an empty plane", x.ty())));
    }
    let mut dims = x.dims().to_vec();
    dims[2..].fill(1);
    let y = floats(x)?.chunks(area).map(f).collect();
    Ok(vec![from_floats(x.dtype(), &dims, y)?])
}

/// The rule of global pools: every spatial axis becomes 1.
///
/// # Errors
/// Never.
pub fn infer_global(cx: &mut InferCx) -> Result<()> {
    let shape = cx.shape(0).map(|s| {
        let dims = s.iter().enumerate();
        dims.map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) })
            .collect::<Shape>()
    });
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = cx.shape(0).map(|x| pooled(cx.node, x)).transpose()?;
    cx.set_tensor(0, cx.dtype(0), shape.clone());
    if cx.node.outputs().len() > 1 {
        cx.set_tensor(1, Some(DType::I64), shape);
    }
    Ok(())
}

/// The shape of a pool over `x`.
///
/// # Errors
/// When known lengths and attributes do not fit.
pub fn pooled(node: &Node, x: &Shape) -> Result<Shape> {
    if x.rank() < 3 {
        return Err(Error::invalid(format!("expected spatial axes, found {x}")));
    }
    let kernel = kernel_shape(node, x.rank() - 2)?;
    let spec = WindowSpec::of(node, kernel.len())?;
    let mut out: Shape = x[..2].iter().cloned().collect();
    for (i, k) in kernel.into_iter().enumerate() {
        out.0.push(window_dim(&spec, i, &x[i + 2], &Dim::Known(k))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_major_place_swaps_rows_and_columns() {
        assert_eq!(column_major(1, &[2, 3]), 2);
        assert_eq!(column_major(3, &[2, 3]), 1);
    }

    #[test]
    fn the_two_norm_of_three_and_four_is_five() {
        assert_eq!(lp(&[3.0, -4.0], 2.0), 5.0);
    }
}
