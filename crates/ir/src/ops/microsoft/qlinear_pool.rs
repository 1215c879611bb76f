//! Pools of quantised tensors, channels first or last: QLinearAveragePool,
//! QLinearGlobalAveragePool, QLinearReduceMean, NhwcMaxPool; and QLinearConv with the channels
//! last.

use super::grid::Grid;
use super::{BASE, channels_last};
use crate::eval::{EvalCx, items};
use crate::infer::InferCx;
use crate::ops::quantize::to_grid;
use crate::ops::{Arity, AttrKind, OpDef, attr, conv, pool, quantized, reduce, rows};
use crate::{Dim, Error, Node, Result, Shape, Tensor};

/// `com.microsoft.QLinearAveragePool`.
pub static Q_LINEAR_AVERAGE_POOL: OpDef = OpDef {
    name: "QLinearAveragePool",
    inputs: Arity(4, 5),
    attrs: &[
        attr("auto_pad", AttrKind::String(Some("NOTSET"))),
        attr("ceil_mode", AttrKind::Int(Some(0))),
        attr("channels_last", AttrKind::Int(Some(0))),
        attr("count_include_pad", AttrKind::Int(Some(0))),
        attr("kernel_shape", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: |cx| infer(cx, is_last(cx.node), pool::pooled),
    eval: Some(|cx| {
        let (x, from) = Grid::operand(cx, 0)?;
        let to = Grid::of(cx, 3, x.dtype())?;
        turned(cx, is_last(cx.node), |cx| average(cx, &from, &to))
    }),
    examples: &[
        "com.microsoft.QLinearAveragePool(u8[1,2,5,5], f32{0.1}, u8{4}, f32{0.1}, u8{7}) \
         {kernel_shape=[2,2], strides=[2,2]}",
        "com.microsoft.QLinearAveragePool(i8[1,5,5,3], f32{0.1}, _, f32{0.2}) \
         {kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1, channels_last=1}",
    ],
    ..BASE
};

/// `com.microsoft.QLinearGlobalAveragePool`.
pub static Q_LINEAR_GLOBAL_AVERAGE_POOL: OpDef = OpDef {
    name: "QLinearGlobalAveragePool",
    inputs: Arity(5, 5),
    attrs: &[attr("channels_last", AttrKind::Int(Some(0)))],
    infer: |cx| {
        infer(cx, is_last(cx.node), |_, x| {
            let dims = x.iter().enumerate();
            Ok(dims
                .map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) })
                .collect())
        })
    },
    eval: Some(|cx| turned(cx, is_last(cx.node), global_average)),
    examples: &[
        "com.microsoft.QLinearGlobalAveragePool(u8[2,3,4,4], f32{0.1}, u8{4}, f32{0.1}, u8{7})",
        "com.microsoft.QLinearGlobalAveragePool(u8[1,4,4,3], f32{0.1}, u8{4}, f32{0.1}, u8{7}) \
         {channels_last=1}",
    ],
    ..BASE
};

/// `com.microsoft.QLinearReduceMean`.
pub static Q_LINEAR_REDUCE_MEAN: OpDef = OpDef {
    name: "QLinearReduceMean",
    inputs: Arity(4, 5),
    attrs: &[
        attr("axes", AttrKind::Ints),
        attr("keepdims", AttrKind::Int(Some(1))),
    ],
    infer: |cx| {
        let shape = cx.shape(0).map(|x| {
            let marks = marks(cx.node, x.rank())?;
            Ok::<_, Error>(reduce::reduced(x, &marks, keeps(cx.node)))
        });
        let shape = shape.transpose()?;
        cx.set_tensor(0, cx.dtype(0), shape);
        Ok(())
    },
    eval: Some(reduce_mean),
    examples: &[
        "com.microsoft.QLinearReduceMean(u8[2,3,4], f32{0.1}, u8{4}, f32{0.05}, u8{7}) \
                 {axes=[1], keepdims=0}",
    ],
    ..BASE
};

/// `com.microsoft.NhwcMaxPool`: MaxPool with the channels last.
pub static NHWC_MAX_POOL: OpDef = OpDef {
    name: "NhwcMaxPool",
    attrs: &[
        attr("auto_pad", AttrKind::String(Some("NOTSET"))),
        attr("ceil_mode", AttrKind::Int(Some(0))),
        attr("dilations", AttrKind::Ints),
        attr("kernel_shape", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: |cx| infer(cx, true, pool::pooled),
    eval: Some(|cx| turned(cx, true, |cx| Ok(pool::eval_max(cx)?.swap_remove(0)))),
    examples: &[
        "com.microsoft.NhwcMaxPool(u8[1,5,5,3]) {kernel_shape=[3,3], pads=[1,1,1,1]}",
        "com.microsoft.NhwcMaxPool(i8[1,6,6,2]) {kernel_shape=[2,2], strides=[2,2]}",
    ],
    ..BASE
};

/// `com.microsoft.QLinearConv`: that of ONNX, with the channels last where an attribute says so.
pub static Q_LINEAR_CONV: OpDef = OpDef {
    name: "QLinearConv",
    inputs: Arity(8, 9),
    attrs: &[
        attr("auto_pad", AttrKind::String(Some("NOTSET"))),
        attr("channels_last", AttrKind::Int(Some(0))),
        attr("dilations", AttrKind::Ints),
        attr("group", AttrKind::Int(Some(1))),
        attr("kernel_shape", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: |cx| {
        let shape = match (cx.shape(0), cx.shape(3)) {
            (Some(x), Some(w)) => {
                let rule = |x: &Shape| conv::convolved(cx.node, x, w);
                Some(match is_last(cx.node) {
                    true => channels_last::shape(x, rule)?,
                    false => rule(x)?,
                })
            }
            _ => None,
        };
        cx.set_tensor(0, cx.dtype(7), shape);
        Ok(())
    },
    eval: Some(|cx| {
        let swap = is_last(cx.node);
        turned(cx, swap, |cx| Ok(quantized::eval_conv(cx)?.swap_remove(0)))
    }),
    examples: &[
        "com.microsoft.QLinearConv(u8[1,5,5,2], f32{0.1}, u8{4}, i8[3,2,3,3], f32{0.2}, i8{0}, \
         f32{0.3}, u8{9}) {channels_last=1}",
    ],
    ..BASE
};

fn is_last(node: &Node) -> bool {
    node.int("channels_last").unwrap_or(0) != 0
}

/// Evaluates `f` on input 0 with its channels first.
fn turned(
    cx: &EvalCx,
    last: bool,
    f: impl FnOnce(&EvalCx) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    if !last {
        return Ok(vec![f(cx)?]);
    }
    let mut inputs: Vec<Option<Tensor>> =
        (0..cx.inputs()).map(|i| cx.optional(i).cloned()).collect();
    inputs[0] = Some(channels_last::to_first(cx.input(0)?)?);
    let y = f(&cx.with_inputs(&items(inputs)))?;
    Ok(vec![channels_last::to_last(&y)?])
}

fn infer(
    cx: &mut InferCx,
    last: bool,
    rule: impl Fn(&Node, &Shape) -> Result<Shape>,
) -> Result<()> {
    let rule = |x: &Shape| rule(cx.node, x);
    let shape = match cx.shape(0) {
        Some(x) if last => Some(channels_last::shape(x, rule)?),
        Some(x) => Some(rule(x)?),
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// The mean under each window, summed in single precision in the order of the elements.
fn average(cx: &EvalCx, from: &Grid, to: &Grid) -> Result<Tensor> {
    let x = cx.input(0)?;
    let (window, dims) = pool::window_of(cx, x)?;
    let include = cx.int("count_include_pad", 0) != 0;
    let means = pool::over_windows(&from.reals(x)?, &window, dims[0] * dims[1], |values, o| {
        let count = match include {
            true => pool::padded_taps(&window, o),
            false => values.len(),
        };
        f64::from(values.iter().sum::<f32>() / count.max(1) as f32)
    });
    let shift = to.zero as f32;
    let y: Vec<i128> = means
        .into_iter()
        .map(|m| to.nearest_shifted(m as f32 / to.scale + shift))
        .collect();
    to.tensor(&dims, &y)
}

fn global_average(cx: &EvalCx) -> Result<Tensor> {
    let (x, from) = Grid::operand(cx, 0)?;
    let to = Grid::of(cx, 3, x.dtype())?;
    let [batch, channels, ref space @ ..] = *x.dims() else {
        return Err(Error::invalid(format!(
            "expected batch and channels, found {}",
            x.ty()
        )));
    };
    let area: usize = space.iter().product();
    if area == 0 {
        return Err(Error::invalid(format!("{} has an empty plane", x.ty())));
    }
    let factor = from.scale / (to.scale * area as f32);
    let centred: Vec<f64> = from.centred(x)?.into_iter().map(f64::from).collect();
    let sums = centred.chunks(area).map(|v| v.iter().sum::<f64>());
    let y: Vec<i128> = sums
        .map(|s| to_grid(f64::from(s as f32 * factor), to.zero as f64, to.dtype))
        .collect();
    let dims = [&[batch, channels], &vec![1; space.len()][..]].concat();
    to.tensor(&dims, &y)
}

fn marks(node: &Node, rank: usize) -> Result<Vec<bool>> {
    reduce::marks(node.ints("axes"), false, rank)
}

fn keeps(node: &Node) -> bool {
    node.int("keepdims").unwrap_or(1) != 0
}

fn reduce_mean(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, from) = Grid::operand(cx, 0)?;
    let to = Grid::of(cx, 3, x.dtype())?;
    let rows = rows::rows(x, &marks(cx.node, x.rank())?)?;
    let mean = |row: &[i128]| {
        let sum: i128 = row.iter().map(|q| q - from.zero).sum();
        to.nearest(sum as f32 * from.scale / row.len().max(1) as f32)
    };
    let y = rows.map(|_| 0.0, mean)?;
    Ok(vec![y.tensor(to.dtype, rows.dims(keeps(cx.node)))?])
}
