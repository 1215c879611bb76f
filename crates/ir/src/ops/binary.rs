//! Functions of two elements with broadcasting: arithmetic, comparisons, logic, bits, and the
//! variadic Max, Mean, Min and Sum.

use super::elementwise::{
    combine, combine_bits, combine_mixed, compare, expect_one_way, infer_broadcast, infer_compare,
    infer_one_way, operands, placed,
};
use super::{Arity, AttrDef, AttrKind, EvalFn, MANY, OpDef, arith, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{DType, Error, Result, Tensor};

const fn row(
    name: &'static str,
    since: &'static [i64],
    example: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        name,
        since,
        inputs: Arity(2, 2),
        attrs: LEGACY,
        infer: infer_broadcast,
        eval: Some(eval),
        examples: example,
        ..OpDef::BASE
    }
}

/// What says how to broadcast before opset 7.
const LEGACY: &[AttrDef] = &[
    attr("axis", AttrKind::Int(None)),
    attr("broadcast", AttrKind::Int(None)),
];

fn both(
    cx: &EvalCx,
    f: impl Fn(f64, f64) -> f64,
    i: impl Fn(i128, i128) -> Result<i128>,
) -> Result<Vec<Tensor>> {
    let (a, b) = operands(cx)?;
    Ok(vec![combine(&a, &b, f, i)?])
}

/// ONNX Add; integers wrap.
pub static ADD: OpDef = row(
    "Add",
    &[1, 6, 7, 13, 14],
    &["Add(f32[2,3], f32[3])", "Add(i32[2,1], i32[1,3])"],
    |cx| both(cx, |a, b| a + b, |a, b| Ok(a + b)),
);

/// ONNX Div; integers wrap.
pub static DIV: OpDef = row(
    "Div",
    &[1, 6, 7, 13, 14],
    &["Div(f32[2,3], f32[3])"],
    |cx| both(cx, |a, b| a / b, divide),
);

/// ONNX Mul; integers wrap.
pub static MUL: OpDef = row(
    "Mul",
    &[1, 6, 7, 13, 14],
    &["Mul(f32[2,3], f32[3])", "Mul(i32[2,1], i32[1,3])"],
    |cx| both(cx, |a, b| a * b, |a, b| Ok(a.wrapping_mul(b))),
);

/// ONNX Sub; integers wrap.
pub static SUB: OpDef = row(
    "Sub",
    &[1, 6, 7, 13, 14],
    &["Sub(f32[2,3], f32[3])", "Sub(i32[2,1], i32[1,3])"],
    |cx| both(cx, |a, b| a - b, |a, b| Ok(a - b)),
);

/// ONNX Equal.
pub static EQUAL: OpDef = comparison(
    "Equal",
    &[1, 7, 11, 13, 19],
    &["Equal(f32[2,3], f32[3])"],
    equal,
);

/// ONNX Greater.
pub static GREATER: OpDef = comparison(
    "Greater",
    &[1, 7, 9, 13],
    &["Greater(f32[2,3], f32[3])"],
    |cx| ordered(cx, |a, b| a > b, |a, b| a > b),
);

/// ONNX GreaterOrEqual.
pub static GREATER_OR_EQUAL: OpDef = comparison(
    "GreaterOrEqual",
    &[12, 16],
    &["GreaterOrEqual(f32[2,3], f32[3])"],
    |cx| ordered(cx, |a, b| a >= b, |a, b| a >= b),
);

/// ONNX Less.
pub static LESS: OpDef = comparison("Less", &[1, 7, 9, 13], &["Less(f32[2,3], f32[3])"], |cx| {
    ordered(cx, |a, b| a < b, |a, b| a < b)
});

/// ONNX LessOrEqual.
pub static LESS_OR_EQUAL: OpDef = comparison(
    "LessOrEqual",
    &[12, 16],
    &["LessOrEqual(f32[2,3], f32[3])"],
    |cx| ordered(cx, |a, b| a <= b, |a, b| a <= b),
);

/// ONNX And.
pub static AND: OpDef = row("And", &[1, 7], &["And(bool[2,3], bool[3])"], |cx| {
    bits(cx, true, |a, b| a & b)
});

/// ONNX BitwiseAnd.
pub static BITWISE_AND: OpDef = row("BitwiseAnd", &[18], &["BitwiseAnd(u8[2,3], u8[3])"], |cx| {
    bits(cx, false, |a, b| a & b)
});

/// ONNX Or.
pub static OR: OpDef = row("Or", &[1, 7], &["Or(bool[2,3], bool[3])"], |cx| {
    bits(cx, true, |a, b| a | b)
});

/// ONNX BitwiseOr.
pub static BITWISE_OR: OpDef = row("BitwiseOr", &[18], &["BitwiseOr(u8[2,3], u8[3])"], |cx| {
    bits(cx, false, |a, b| a | b)
});

/// ONNX Xor.
pub static XOR: OpDef = row("Xor", &[1, 7], &["Xor(bool[2,3], bool[3])"], |cx| {
    bits(cx, true, |a, b| a ^ b)
});

/// ONNX BitwiseXor.
pub static BITWISE_XOR: OpDef = row("BitwiseXor", &[18], &["BitwiseXor(u8[2,3], u8[3])"], |cx| {
    bits(cx, false, |a, b| a ^ b)
});

/// ONNX Max; a NaN wins.
pub static MAX: OpDef = variadic(
    "Max",
    &[1, 6, 8, 12, 13],
    &["Max(f32[2,3], f32[3])"],
    |cx| fold(cx, max_float, |a, b| Ok(a.max(b))),
);

/// ONNX Min; a NaN wins.
pub static MIN: OpDef = variadic(
    "Min",
    &[1, 6, 8, 12, 13],
    &["Min(f32[2,3], f32[3])"],
    |cx| fold(cx, min_float, |a, b| Ok(a.min(b))),
);

/// ONNX Sum.
pub static SUM: OpDef = variadic("Sum", &[1, 6, 8, 13], &["Sum(f32[2,3], f32[3])"], |cx| {
    Ok(vec![total(cx, 1.0)?])
});

/// ONNX Mean.
pub static MEAN: OpDef = variadic("Mean", &[1, 6, 8, 13], &["Mean(f32[2,3], f32[3])"], |cx| {
    Ok(vec![total(cx, cx.inputs() as f64)?])
});

/// ONNX Pow: the exponent may be of another type.
pub static POW: OpDef = row(
    "Pow",
    &[1, 7, 12, 13, 15],
    &["Pow(f32[2,3], f32{2})"],
    |cx| {
        let a = cx.input(0)?;
        let b = &placed(cx, a, cx.input(1)?.clone())?;
        let whole = |t: &Tensor| t.dtype().is_integer();
        if whole(a) && whole(b) && arith::integers(b)?.iter().all(|&e| e >= 0) {
            let e = arith::from_integers(DType::I64, b.dims(), &arith::integers(b)?)?;
            let a64 = arith::from_integers(DType::I64, a.dims(), &arith::integers(a)?)?;
            let y = combine(&a64, &e, f64::powf, |x, e| Ok(power(x, e)))?;
            let y = arith::from_integers(a.dtype(), y.dims(), &arith::integers(&y)?)?;
            return Ok(vec![y]);
        }
        Ok(vec![combine_mixed(a, b, f64::powf)?])
    },
);

/// ONNX Mod: the sign of the divisor, or with `fmod` that of the dividend.
pub static MOD: OpDef = OpDef {
    attrs: &[attr("fmod", AttrKind::Int(Some(0)))],
    ..row("Mod", &[10, 13], &["Mod(i32[2,3], i32{3})"], |cx| {
        if cx.int("fmod", 0) != 0 {
            return both(cx, |a, b| a % b, |a, b| nonzero(b).map(|b| a % b));
        }
        both(
            cx,
            |a, b| a - b * (a / b).floor(),
            |a, b| nonzero(b).map(|b| (a % b + b) % b),
        )
    })
};

/// ONNX PRelu: the second operand is the slope below zero.
pub static PRELU: OpDef = OpDef {
    infer: infer_prelu,
    ..row(
        "PRelu",
        &[1, 6, 7, 9, 16],
        &["PRelu(f32[2,3], f32[3])"],
        |cx| {
            let (x, mut slope) = (cx.input(0)?, cx.input(1)?.clone());
            if cx.version < 7 && slope.rank() == 1 && x.rank() > 1 {
                let tail = vec![1; x.rank() - 2];
                slope = slope.reshaped(&[slope.dims(), &tail].concat())?;
            }
            if slope.dtype() != x.dtype() {
                let (x, slope) = (x.ty(), slope.ty());
                return Err(Error::invalid(format!("the slope of {x} is {slope}")));
            }
            expect_one_way(x, &slope)?;
            let y = combine(
                x,
                &slope,
                |x, s| if x < 0.0 { x * s } else { x },
                |x, s| Ok(if x < 0 { x.wrapping_mul(s) } else { x }),
            )?;
            Ok(vec![y])
        },
    )
};

/// Before opset 7 a slope of one axis lies along the channels.
fn infer_prelu(cx: &mut InferCx) -> Result<()> {
    if cx.version < 7 {
        return crate::infer::like_first(cx);
    }
    infer_one_way(cx)
}

/// ONNX BitShift.
pub static BIT_SHIFT: OpDef = OpDef {
    attrs: &[attr("direction", AttrKind::String(None))],
    ..row(
        "BitShift",
        &[11],
        &["BitShift(u8[2,3], u8{1}) {direction=\"LEFT\"}"],
        |cx| match cx.node.string("direction") {
            Some("LEFT") => bits(cx, false, |a, b| shift(b).map_or(0, |b| a << b)),
            Some("RIGHT") => bits(cx, false, |a, b| shift(b).map_or(0, |b| a >> b)),
            _ => Err(Error::invalid("direction should be LEFT or RIGHT")),
        },
    )
};

fn shift(by: i128) -> Option<u32> {
    u32::try_from(by).ok().filter(|&b| b < 64)
}

fn nonzero(b: i128) -> Result<i128> {
    match b {
        0 => Err(Error::invalid("an integer is divided by zero")),
        _ => Ok(b),
    }
}

fn divide(a: i128, b: i128) -> Result<i128> {
    nonzero(b).map(|b| a / b)
}

/// `x` to the power of `e` ≥ 0, modulo 2^128.
fn power(x: i128, e: i128) -> i128 {
    let (mut base, mut e, mut y) = (x, e, 1i128);
    while e > 0 {
        if e & 1 == 1 {
            y = y.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        e >>= 1;
    }
    y
}

fn max_float(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn min_float(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn bits(cx: &EvalCx, logic: bool, f: fn(i128, i128) -> i128) -> Result<Vec<Tensor>> {
    let (a, b) = operands(cx)?;
    if (a.dtype() == DType::Bool) != logic {
        let expected = if logic { "bools" } else { "integers" };
        let found = a.ty();
        return Err(Error::invalid(format!(
            "expected {expected}, found {found}"
        )));
    }
    Ok(vec![combine_bits(&a, &b, f)?])
}

const fn comparison(
    name: &'static str,
    since: &'static [i64],
    example: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        infer: infer_compare,
        ..row(name, since, example, eval)
    }
}

fn ordered(cx: &EvalCx, f: fn(f64, f64) -> bool, i: fn(i128, i128) -> bool) -> Result<Vec<Tensor>> {
    let (a, b) = operands(cx)?;
    Ok(vec![compare(&a, &b, f, i)?])
}

fn equal(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = operands(cx)?;
    if a.dtype() != DType::String {
        return ordered(cx, |a, b| a == b, |a, b| a == b);
    }
    let dims = arith::broadcast_dims(&[a.dims(), b.dims()])?;
    let (sa, sb) = (a.strings()?, b.strings()?);
    let y: Vec<bool> = arith::broadcast_indices(a.dims(), &dims)?
        .into_iter()
        .zip(arith::broadcast_indices(b.dims(), &dims)?)
        .map(|(i, j)| sa[i] == sb[j])
        .collect();
    Ok(vec![Tensor::from_bools(&dims, &y)?])
}

const fn variadic(
    name: &'static str,
    since: &'static [i64],
    example: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        inputs: Arity(1, MANY),
        attrs: &[],
        ..row(name, since, example, eval)
    }
}

fn fold(
    cx: &EvalCx,
    f: fn(f64, f64) -> f64,
    i: fn(i128, i128) -> Result<i128>,
) -> Result<Vec<Tensor>> {
    let mut y = cx.input(0)?.clone();
    for k in 1..cx.inputs() {
        y = combine(&y, &same_type(&y, cx.input(k)?)?, f, i)?;
    }
    Ok(vec![y])
}

fn same_type(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dtype() == b.dtype() {
        return Ok(b.clone());
    }
    let (a, b) = (a.ty(), b.ty());
    Err(Error::invalid(format!(
        "operands of one type expected, found {a} and {b}"
    )))
}

/// The sum of all inputs over `divisor`, in double precision, rounded once.
fn total(cx: &EvalCx, divisor: f64) -> Result<Tensor> {
    let dtype = cx.input(0)?.dtype();
    let first = cx.input(0)?;
    let mut sum = Tensor::from_vec(first.dims(), arith::floats(first)?)?;
    for k in 1..cx.inputs() {
        let x = same_type(first, cx.input(k)?)?;
        let x = Tensor::from_vec(x.dims(), arith::floats(&x)?)?;
        sum = combine(&sum, &x, |a, b| a + b, divide)?;
    }
    let values = arith::floats(&sum)?.into_iter().map(|v| v / divisor);
    arith::from_floats(dtype, sum.dims(), values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_wins_in_min_and_max() {
        assert!(max_float(f64::NAN, 1.0).is_nan() && max_float(1.0, f64::NAN).is_nan());
        assert!(min_float(f64::NAN, 1.0).is_nan() && min_float(1.0, f64::NAN).is_nan());
    }

    #[test]
    fn powers_wrap_and_shifts_past_the_width_give_zero() {
        assert_eq!(power(-3, 3), -27);
        assert_eq!(power(2, 128), 0);
        assert_eq!(shift(64), None);
        assert!(divide(1, 0).is_err());
    }

    #[test]
    fn before_opset_7_an_axis_places_the_exponent() {
        let model = crate::text::parse(
            "opset 6 graph g() -> (y) { x: f32[2,1] = {2,3} e: f32[2] = {1,2}
               y = Pow(x, e) {axis=0,broadcast=1} }",
        )
        .unwrap();
        let out = crate::eval::evaluate(&model, &[]).unwrap();
        assert_eq!(out[0], Tensor::from_vec(&[2, 1], vec![2f32, 9.0]).unwrap());
    }
}
