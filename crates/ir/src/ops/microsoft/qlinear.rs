//! Elementwise operators on quantised tensors: QLinearAdd, QLinearMul, QLinearSigmoid,
//! QLinearLeakyRelu, QLinearSoftmax, QLinearWhere, and QLinearConcat.
//!
//! Where a result lies halfway between two integers, the order of roundings decides; it is that
//! of ONNX Runtime's AVX2 kernels.

use super::BASE;
use super::grid::Grid;
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::ops::arith::{broadcast_dims, expand, integers};
use crate::ops::concat::{join, joined};
use crate::ops::elementwise::pair;
use crate::ops::softmax::map_lines;
use crate::ops::unary::sigmoid;
use crate::ops::{Arity, AttrKind, MANY, OpDef, attr};
use crate::{Error, Result, Shape, Tensor};

/// `com.microsoft.QLinearAdd`.
pub static Q_LINEAR_ADD: OpDef = OpDef {
    name: "QLinearAdd",
    inputs: Arity(7, 8),
    infer: infer_pair,
    eval: Some(|cx| combine(cx, sum)),
    examples: &[
        "com.microsoft.QLinearAdd(u8[2,3], f32{0.1}, u8{4}, u8[3], f32{0.2}, u8{3}, f32{0.3}, u8{7})",
        "com.microsoft.QLinearAdd(i8[2,3], f32{0.1}, _, i8[2,1], f32{0.2}, _, f32{0.1})",
    ],
    ..BASE
};

/// `com.microsoft.QLinearMul`.
pub static Q_LINEAR_MUL: OpDef = OpDef {
    name: "QLinearMul",
    inputs: Arity(7, 8),
    infer: infer_pair,
    eval: Some(|cx| combine(cx, product)),
    examples: &[
        "com.microsoft.QLinearMul(u8[2,3], f32{0.1}, u8{4}, u8[3], f32{0.2}, u8{3}, f32{0.3}, u8{7})",
    ],
    ..BASE
};

/// `com.microsoft.QLinearSigmoid`.
pub static Q_LINEAR_SIGMOID: OpDef = OpDef {
    name: "QLinearSigmoid",
    inputs: Arity(4, 5),
    eval: Some(|cx| map(cx, |x| sigmoid(f64::from(x)) as f32)),
    examples: &["com.microsoft.QLinearSigmoid(u8[2,3], f32{0.4}, u8{4}, f32{0.0039}, u8{0})"],
    ..BASE
};

/// `com.microsoft.QLinearLeakyRelu`.
pub static Q_LINEAR_LEAKY_RELU: OpDef = OpDef {
    name: "QLinearLeakyRelu",
    inputs: Arity(4, 5),
    attrs: &[attr("alpha", AttrKind::Float(Some(0.01)))],
    eval: Some(|cx| {
        let alpha = cx.float("alpha", 0.01);
        map(cx, |x| if x >= 0.0 { x } else { alpha * x })
    }),
    examples: &[
        "com.microsoft.QLinearLeakyRelu(i8[2,3], f32{0.4}, i8{1}, f32{0.1}, i8{0}) {alpha=0.2}",
    ],
    ..BASE
};

/// `com.microsoft.QLinearSoftmax`; attribute `opset` says by which version of Softmax.
pub static Q_LINEAR_SOFTMAX: OpDef = OpDef {
    name: "QLinearSoftmax",
    inputs: Arity(5, 5),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("opset", AttrKind::Int(None)),
    ],
    eval: Some(softmax),
    examples: &[
        "com.microsoft.QLinearSoftmax(u8[2,3], f32{0.2}, u8{4}, f32{0.00390625}, u8{0}) {opset=13}",
        "com.microsoft.QLinearSoftmax(u8[2,3,2], f32{0.2}, u8{4}, f32{0.00390625}, u8{0}) \
         {axis=1,opset=12}",
    ],
    ..BASE
};

/// `com.microsoft.QLinearWhere`.
pub static Q_LINEAR_WHERE: OpDef = OpDef {
    name: "QLinearWhere",
    inputs: Arity(9, 9),
    infer: |cx| {
        let shape = infer::broadcast(&[cx.shape(0), cx.shape(1), cx.shape(4)])?;
        cx.set_tensor(0, cx.dtype(1), shape);
        Ok(())
    },
    eval: Some(select),
    examples: &[
        "com.microsoft.QLinearWhere(bool[2,1], u8[2,3], f32{0.1}, u8{4}, \
                 u8[3], f32{0.2}, u8{3}, f32{0.1}, u8{4})",
    ],
    ..BASE
};

/// `com.microsoft.QLinearConcat`: scale and zero point of the result, then three inputs for each
/// part.
pub static Q_LINEAR_CONCAT: OpDef = OpDef {
    name: "QLinearConcat",
    inputs: Arity(5, MANY),
    attrs: &[attr("axis", AttrKind::Int(None))],
    infer: infer_concat,
    eval: Some(concat),
    examples: &[
        "com.microsoft.QLinearConcat(f32{0.2}, u8{3}, u8[2,3], f32{0.1}, u8{4}, \
         u8[2,1], f32{0.2}, u8{3}) {axis=1}",
    ],
    ..BASE
};

fn infer_pair(cx: &mut InferCx) -> Result<()> {
    let shape = infer::broadcast(&[cx.shape(0), cx.shape(3)])?;
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// The two operands, each with its grid, and the grid of the result.
type Grids = [Grid; 3];

fn combine(cx: &EvalCx, f: impl Fn(&Grids, f32, f32) -> f32) -> Result<Vec<Tensor>> {
    let ((a, of_a), (b, of_b)) = (Grid::operand(cx, 0)?, Grid::operand(cx, 3)?);
    let grids = [of_a, of_b, Grid::of(cx, 6, a.dtype())?];
    let wide = |t: &Tensor| -> Result<Vec<f32>> {
        Ok(integers(t)?.into_iter().map(|q| q as f32).collect())
    };
    let (a_data, b_data) = (wide(a)?, wide(b)?);
    let both = pair((&a_data, a.dims()), (&b_data, b.dims()))?;
    let y = both.elements.into_iter();
    let y: Vec<i128> = y
        .map(|(a, b)| grids[2].nearest_shifted(f(&grids, a, b)))
        .collect();
    Ok(vec![grids[2].tensor(&both.dims, &y)?])
}

/// The sum on the result's grid, zero point added.
fn sum([a, b, c]: &Grids, x: f32, y: f32) -> f32 {
    let (of_a, of_b) = (a.scale / c.scale, b.scale / c.scale);
    let fixed = c.zero as f32 - of_a.mul_add(a.zero as f32, of_b * b.zero as f32);
    x.mul_add(of_a, y.mul_add(of_b, fixed))
}

/// The product on the result's grid, zero point added.
fn product([a, b, c]: &Grids, x: f32, y: f32) -> f32 {
    let centred = (x - a.zero as f32) * (y - b.zero as f32);
    centred * (a.scale * b.scale / c.scale) + c.zero as f32
}

fn map(cx: &EvalCx, f: impl Fn(f32) -> f32) -> Result<Vec<Tensor>> {
    let (x, from) = Grid::operand(cx, 0)?;
    let to = Grid::of(cx, 3, x.dtype())?;
    let reals = from.reals(x)?.into_iter();
    let y: Vec<i128> = reals.map(|r| to.nearest(f(r))).collect();
    Ok(vec![to.tensor(x.dims(), &y)?])
}

/// Probabilities times the whole part of 1 / scale, as ONNX Runtime scales them.
fn softmax(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, from) = Grid::operand(cx, 0)?;
    let to = Grid::of(cx, 3, x.dtype())?;
    let axis = infer::axis(cx.int("axis", -1), x.rank())?;
    let (length, inner): (usize, usize) = if cx.int("opset", 13) < 13 {
        (x.dims()[axis..].iter().product(), 1)
    } else {
        (x.dims()[axis], x.dims()[axis + 1..].iter().product())
    };
    let mut data: Vec<f64> = from.centred(x)?.into_iter().map(f64::from).collect();
    let scale = f64::from(from.scale);
    let steps = f64::from((1.0 / to.scale).floor());
    map_lines(&mut data, length, inner, |line| {
        let max = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.iter_mut()
            .for_each(|v| *v = ((*v - max) * scale).exp());
        let sum: f64 = line.iter().sum();
        line.iter_mut().for_each(|v| *v = *v * steps / sum);
    });
    let zero = to.zero as f64;
    let y: Vec<i128> = data
        .into_iter()
        .map(|v| crate::ops::quantize::to_grid(v, zero, to.dtype))
        .collect();
    Ok(vec![to.tensor(x.dims(), &y)?])
}

fn select(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let condition = cx.input(0)?;
    let ((x, of_x), (y, of_y)) = (Grid::operand(cx, 1)?, Grid::operand(cx, 4)?);
    let to = Grid::of(cx, 7, x.dtype())?;
    let dims = broadcast_dims(&[condition.dims(), x.dims(), y.dims()])?;
    let both = |t: &Tensor, from: &Grid| expand(&integers(&to.moved(t, from)?)?, t.dims(), &dims);
    let (x, y) = (both(x, &of_x)?, both(y, &of_y)?);
    let truth = expand(&condition.bools()?, condition.dims(), &dims)?;
    let z: Vec<i128> = (0..truth.len())
        .map(|i| if truth[i] { x[i] } else { y[i] })
        .collect();
    Ok(vec![to.tensor(&dims, &z)?])
}

/// The parts of a concatenation by the place of their data.
fn parts(inputs: usize) -> Result<impl Iterator<Item = usize> + Clone> {
    if inputs < 5 || !(inputs - 2).is_multiple_of(3) {
        return Err(Error::invalid(format!(
            "expected a scale, a zero point and three inputs for each part, found {inputs}"
        )));
    }
    Ok((2..inputs).step_by(3))
}

fn concat_axis(node: &crate::Node) -> Result<i64> {
    node.int("axis")
        .ok_or_else(|| Error::invalid("attribute \"axis\" is missing"))
}

fn infer_concat(cx: &mut InferCx) -> Result<()> {
    let shapes: Option<Vec<&Shape>> = parts(cx.inputs())?.map(|i| cx.shape(i)).collect();
    let axis = concat_axis(cx.node)?;
    let shape = shapes.map(|s| joined(&s, axis)).transpose()?;
    cx.set_tensor(0, cx.dtype(1), shape);
    Ok(())
}

fn concat(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let to = Grid::of(cx, 0, cx.input(1)?.dtype())?;
    let moved = parts(cx.inputs())?
        .map(|i| {
            let (x, from) = Grid::operand(cx, i)?;
            to.moved(x, &from)
        })
        .collect::<Result<Vec<_>>>()?;
    let moved: Vec<&Tensor> = moved.iter().collect();
    Ok(vec![join(&moved, concat_axis(cx.node)?)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn grid(scale: f32, zero: i128) -> Grid {
        Grid {
            scale,
            zero,
            dtype: DType::U8,
        }
    }

    #[test]
    fn sums_and_products_keep_the_zero_points_apart() {
        let grids = [grid(0.5, 10), grid(0.25, 20), grid(1.0, 30)];
        // 0.5 · (14 − 10) + 0.25 · (28 − 20) = 4
        assert_eq!(sum(&grids, 14.0, 28.0), 34.0);
        // 2 · 2 = 4
        assert_eq!(product(&grids, 14.0, 28.0), 34.0);
    }

    #[test]
    fn parts_come_in_threes() {
        assert_eq!(parts(8).unwrap().collect::<Vec<_>>(), [2, 5]);
        assert!(parts(7).is_err());
    }
}
