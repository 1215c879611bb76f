//! Functions of one element without attributes: Abs to Tanh, a table.

use super::elementwise::{infer_predicate, map_floats, map_numbers};
use super::{AttrKind, EvalFn, OpDef, arith, attr};
use crate::eval::EvalCx;
use crate::{Error, Result, Tensor};

const fn row(
    name: &'static str,
    since: &'static [i64],
    example: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        name,
        since,
        eval: Some(eval),
        examples: example,
        ..OpDef::BASE
    }
}

/// ONNX Abs, of floats and integers.
pub static ABS: OpDef = row("Abs", &[1, 6, 13], &["Abs(f32[2,3])"], |cx| {
    map_numbers(cx.input(0)?, f64::abs, i128::abs)
});

/// ONNX Acos, in double precision, rounded once.
pub static ACOS: OpDef = row("Acos", &[7, 22], &["Acos(f32[2,3])"], |cx| {
    floats(cx, f64::acos)
});

/// ONNX Acosh, in double precision, rounded once.
pub static ACOSH: OpDef = row("Acosh", &[9, 22], &["Acosh(f32[2,3])"], |cx| {
    floats(cx, f64::acosh)
});

/// ONNX Asin, in double precision, rounded once.
pub static ASIN: OpDef = row("Asin", &[7, 22], &["Asin(f32[2,3])"], |cx| {
    floats(cx, f64::asin)
});

/// ONNX Asinh, in double precision, rounded once.
pub static ASINH: OpDef = row("Asinh", &[9, 22], &["Asinh(f32[2,3])"], |cx| {
    floats(cx, f64::asinh)
});

/// ONNX Atan, in double precision, rounded once.
pub static ATAN: OpDef = row("Atan", &[7, 22], &["Atan(f32[2,3])"], |cx| {
    floats(cx, f64::atan)
});

/// ONNX Atanh, in double precision, rounded once.
pub static ATANH: OpDef = row("Atanh", &[9, 22], &["Atanh(f32[2,3])"], |cx| {
    floats(cx, f64::atanh)
});

/// ONNX Ceil, in double precision, rounded once.
pub static CEIL: OpDef = row("Ceil", &[1, 6, 13], &["Ceil(f32[2,3])"], |cx| {
    floats(cx, f64::ceil)
});

/// ONNX Cos, in double precision, rounded once.
pub static COS: OpDef = row("Cos", &[7, 22], &["Cos(f32[2,3])"], |cx| {
    floats(cx, f64::cos)
});

/// ONNX Cosh, in double precision, rounded once.
pub static COSH: OpDef = row("Cosh", &[9, 22], &["Cosh(f32[2,3])"], |cx| {
    floats(cx, f64::cosh)
});

/// ONNX Erf, in double precision, rounded once.
pub static ERF: OpDef = row("Erf", &[9, 13], &["Erf(f32[2,3])"], |cx| floats(cx, erf));

/// ONNX Exp, in double precision, rounded once.
pub static EXP: OpDef = row("Exp", &[1, 6, 13], &["Exp(f32[2,3])"], |cx| {
    floats(cx, f64::exp)
});

/// ONNX Floor, in double precision, rounded once.
pub static FLOOR: OpDef = row("Floor", &[1, 6, 13], &["Floor(f32[2,3])"], |cx| {
    floats(cx, f64::floor)
});

/// ONNX HardSwish, in double precision, rounded once.
pub static HARDSWISH: OpDef = row("HardSwish", &[14, 22], &["HardSwish(f32[2,3])"], |cx| {
    floats(cx, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))
});

/// ONNX Log, in double precision, rounded once.
pub static LOG: OpDef = row("Log", &[1, 6, 13], &["Log(f32[2,3])"], |cx| {
    floats(cx, f64::ln)
});

/// ONNX Mish, in double precision, rounded once.
pub static MISH: OpDef = row("Mish", &[18, 22], &["Mish(f32[2,3])"], |cx| {
    floats(cx, |x| x * softplus(x).tanh())
});

/// ONNX Neg, of floats and integers.
pub static NEG: OpDef = row("Neg", &[1, 6, 13], &["Neg(f32[2,3])"], |cx| {
    map_numbers(cx.input(0)?, |v| -v, |v| -v)
});

/// ONNX Reciprocal, in double precision, rounded once.
pub static RECIPROCAL: OpDef = row("Reciprocal", &[1, 6, 13], &["Reciprocal(f32[2,3])"], |cx| {
    floats(cx, f64::recip)
});

/// ONNX Relu, of floats and integers.
pub static RELU: OpDef = row("Relu", &[1, 6, 13, 14], &["Relu(f32[2,3])"], |cx| {
    map_numbers(
        cx.input(0)?,
        |v| if v < 0.0 { 0.0 } else { v },
        |v| v.max(0),
    )
});

/// ONNX Round, in double precision, rounded once.
pub static ROUND: OpDef = row("Round", &[11, 22], &["Round(f32[2,3])"], |cx| {
    floats(cx, f64::round_ties_even)
});

/// ONNX Sigmoid, in double precision, rounded once.
pub static SIGMOID: OpDef = row("Sigmoid", &[1, 6, 13], &["Sigmoid(f32[2,3])"], |cx| {
    floats(cx, sigmoid)
});

/// ONNX Sign, of floats and integers.
pub static SIGN: OpDef = row("Sign", &[9, 13], &["Sign(f32[2,3])"], |cx| {
    map_numbers(
        cx.input(0)?,
        |v| if v == 0.0 { 0.0 } else { v.signum() },
        i128::signum,
    )
});

/// ONNX Sin, in double precision, rounded once.
pub static SIN: OpDef = row("Sin", &[7, 22], &["Sin(f32[2,3])"], |cx| {
    floats(cx, f64::sin)
});

/// ONNX Sinh, in double precision, rounded once.
pub static SINH: OpDef = row("Sinh", &[9, 22], &["Sinh(f32[2,3])"], |cx| {
    floats(cx, f64::sinh)
});

/// ONNX Softplus, in double precision, rounded once.
pub static SOFTPLUS: OpDef = row("Softplus", &[1, 22], &["Softplus(f32[2,3])"], |cx| {
    floats(cx, softplus)
});

/// ONNX Softsign, in double precision, rounded once.
pub static SOFTSIGN: OpDef = row("Softsign", &[1, 22], &["Softsign(f32[2,3])"], |cx| {
    floats(cx, |x| x / (1.0 + x.abs()))
});

/// ONNX Sqrt, in double precision, rounded once.
pub static SQRT: OpDef = row("Sqrt", &[1, 6, 13], &["Sqrt(f32[2,3])"], |cx| {
    floats(cx, f64::sqrt)
});

/// ONNX Tan, in double precision, rounded once.
pub static TAN: OpDef = row("Tan", &[7, 22], &["Tan(f32[2,3])"], |cx| {
    floats(cx, f64::tan)
});

/// ONNX Tanh, in double precision, rounded once.
pub static TANH: OpDef = row("Tanh", &[1, 6, 13], &["Tanh(f32[2,3])"], |cx| {
    floats(cx, f64::tanh)
});

/// ONNX Not.
pub static NOT: OpDef = row("Not", &[1], &["Not(bool[2,3])"], |cx| {
    let x = cx.input(0)?;
    let y: Vec<bool> = x.bools()?.into_iter().map(|b| !b).collect();
    Ok(vec![Tensor::from_bools(x.dims(), &y)?])
});

/// ONNX BitwiseNot.
pub static BITWISENOT: OpDef = row("BitwiseNot", &[18], &["BitwiseNot(u8[2,3])"], |cx| {
    let x = cx.input(0)?;
    if !x.dtype().is_integer() {
        return Err(Error::invalid(format!(
            "expected integers, found {}",
            x.ty()
        )));
    }
    map_numbers(x, |v| v, |v| !v)
});

/// ONNX IsNaN.
pub static ISNAN: OpDef = OpDef {
    infer: infer_predicate,
    ..row("IsNaN", &[9, 13, 20], &["IsNaN(f32[2,3])"], |cx| {
        predicate(cx, f64::is_nan)
    })
};

/// ONNX IsInf, of the signs that the attributes name.
pub static ISINF: OpDef = OpDef {
    attrs: &[
        attr("detect_negative", AttrKind::Int(Some(1))),
        attr("detect_positive", AttrKind::Int(Some(1))),
    ],
    infer: infer_predicate,
    ..row("IsInf", &[10, 20], &["IsInf(f32[2,3])"], |cx| {
        let (negative, positive) = (cx.int("detect_negative", 1), cx.int("detect_positive", 1));
        predicate(cx, |v| {
            v == f64::INFINITY && positive != 0 || v == f64::NEG_INFINITY && negative != 0
        })
    })
};

fn floats(cx: &EvalCx, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>> {
    map_floats(cx.input(0)?, f)
}

fn predicate(cx: &EvalCx, f: impl Fn(f64) -> bool) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let y: Vec<bool> = arith::floats(x)?.into_iter().map(f).collect();
    Ok(vec![Tensor::from_bools(x.dims(), &y)?])
}

/// 1 / (1 + e⁻ˣ), without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        x.exp() / (1.0 + x.exp())
    }
}

/// ln(1 + eˣ), without overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function, by Kummer's series 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!, whose terms
/// all have one sign; ±1 from 6 on, where `f64` cannot tell.
pub fn erf(x: f64) -> f64 {
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_matches_tables() {
        // Abramowitz and Stegun, table 7.1
        for (x, y) in [
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (2.0, 0.995_322_265_0),
        ] {
            assert!((erf(x) - y).abs() < 1e-10);
            assert!((erf(-x) + y).abs() < 1e-10);
        }
        assert_eq!(erf(0.0), 0.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn large_arguments_do_not_overflow() {
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(softplus(1e4), 1e4);
    }
}
