//! What elementwise operators share: mapping one operand, and combining broadcast operands.

use super::arith::{any, broadcast_dims, expand, floats, from_floats, from_integers, integers};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::Dim;
use crate::{DType, Error, Result, Tensor};

/// A function of one float.
pub type FloatFn = fn(f64) -> f64;

/// Maps a floating-point tensor.
///
/// # Errors
/// For other element types.
pub fn map_floats(x: &Tensor, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>> {
    let y = floats(x)?.into_iter().map(f).collect();
    Ok(vec![from_floats(x.dtype(), x.dims(), y)?])
}

/// Maps a tensor of floats or of integers.
///
/// # Errors
/// For other element types.
pub fn map_numbers(
    x: &Tensor,
    f: impl Fn(f64) -> f64,
    i: impl Fn(i128) -> i128,
) -> Result<Vec<Tensor>> {
    if x.dtype().is_float() {
        return map_floats(x, f);
    }
    let y: Vec<i128> = numbers(x)?.into_iter().map(i).collect();
    Ok(vec![from_integers(x.dtype(), x.dims(), &y)?])
}

/// The integers of a tensor that is not bool.
fn numbers(x: &Tensor) -> Result<Vec<i128>> {
    if x.dtype() == DType::Bool {
        let ty = x.ty();
        return Err(Error::invalid(format!("expected numbers, found {ty}")));
    }
    integers(x)
}

/// Two operands brought to one shape.
pub struct Pair<T> {
    /// Lengths of the result.
    pub dims: Vec<usize>,
    /// Both operands' elements at each place of the result.
    pub elements: Vec<(T, T)>,
}

/// Brings two operands to one shape.
///
/// # Errors
/// When they do not broadcast.
pub fn pair<T: Copy>(a: (&[T], &[usize]), b: (&[T], &[usize])) -> Result<Pair<T>> {
    let dims = broadcast_dims(&[a.1, b.1])?;
    let elements = expand(a.0, a.1, &dims)?
        .into_iter()
        .zip(expand(b.0, b.1, &dims)?)
        .collect();
    Ok(Pair { dims, elements })
}

/// The two operands of a node, of one element type. Before opset 7 the second one stands at
/// `axis` of the first.
///
/// # Errors
/// When one is missing or the element types differ.
pub fn operands(cx: &EvalCx) -> Result<(Tensor, Tensor)> {
    let (a, b) = (cx.input(0)?.clone(), cx.input(1)?.clone());
    if a.dtype() != b.dtype() {
        return Err(Error::invalid(format!(
            "operands of one type expected, found {} and {}",
            a.ty(),
            b.ty()
        )));
    }
    let b = placed(cx, &a, b)?;
    Ok((a, b))
}

/// The second operand where the node's version broadcasts it: before opset 7 one way, from an axis.
///
/// # Errors
/// When it does not lie there.
pub fn placed(cx: &EvalCx, a: &Tensor, mut b: Tensor) -> Result<Tensor> {
    if cx.version >= 7 {
        return Ok(b);
    }
    if let Some(at) = cx.node.int("axis") {
        let at = infer::axis(at, a.rank())?;
        let tail = a.rank().saturating_sub(at + b.rank());
        let dims = [b.dims(), &vec![1; tail]].concat();
        b = b.reshaped(&dims)?;
    }
    expect_one_way(a, &b)?;
    Ok(b)
}

/// Combines two broadcast operands of floats or of integers.
///
/// # Errors
/// For other element types, and where `i` says so.
pub fn combine(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f64, f64) -> f64,
    i: impl Fn(i128, i128) -> Result<i128>,
) -> Result<Tensor> {
    if a.dtype().is_float() {
        let p = pair((&floats(a)?, a.dims()), (&floats(b)?, b.dims()))?;
        let y = p.elements.into_iter().map(|(x, y)| f(x, y)).collect();
        return from_floats(a.dtype(), &p.dims, y);
    }
    let p = pair((&numbers(a)?, a.dims()), (&numbers(b)?, b.dims()))?;
    let y: Result<Vec<i128>> = p.elements.into_iter().map(|(x, y)| i(x, y)).collect();
    from_integers(a.dtype(), &p.dims, &y?)
}

/// Combines two broadcast operands of bools or of integers bit by bit.
///
/// # Errors
/// For floats.
pub fn combine_bits(a: &Tensor, b: &Tensor, f: fn(i128, i128) -> i128) -> Result<Tensor> {
    let p = pair((&integers(a)?, a.dims()), (&integers(b)?, b.dims()))?;
    let y: Vec<i128> = p.elements.into_iter().map(|(x, y)| f(x, y)).collect();
    from_integers(a.dtype(), &p.dims, &y)
}

/// Compares two broadcast operands of numbers or bools.
///
/// # Errors
/// For strings and complex numbers.
pub fn compare(
    a: &Tensor,
    b: &Tensor,
    f: fn(f64, f64) -> bool,
    i: fn(i128, i128) -> bool,
) -> Result<Tensor> {
    let (dims, y): (_, Vec<bool>) = if a.dtype().is_float() {
        let p = pair((&floats(a)?, a.dims()), (&floats(b)?, b.dims()))?;
        (
            p.dims,
            p.elements.into_iter().map(|(x, y)| f(x, y)).collect(),
        )
    } else {
        let p = pair((&integers(a)?, a.dims()), (&integers(b)?, b.dims()))?;
        (
            p.dims,
            p.elements.into_iter().map(|(x, y)| i(x, y)).collect(),
        )
    };
    Tensor::from_bools(&dims, &y)
}

/// Combines floats by `f` in `f64`, whatever numbers the operands hold, into the first one's
/// type; fractions are dropped for integers.
///
/// # Errors
/// For strings and complex numbers.
pub fn combine_mixed(a: &Tensor, b: &Tensor, f: fn(f64, f64) -> f64) -> Result<Tensor> {
    let p = pair((&any(a)?, a.dims()), (&any(b)?, b.dims()))?;
    let y = p.elements.into_iter().map(|(x, y)| f(x, y));
    if a.dtype().is_float() {
        return from_floats(a.dtype(), &p.dims, y.collect());
    }
    let y: Vec<i128> = y.map(|v| v as i128).collect();
    from_integers(a.dtype(), &p.dims, &y)
}

/// The rule of broadcasting operators: the shape of all inputs together, the first one's type.
///
/// # Errors
/// When lengths do not broadcast.
pub fn infer_broadcast(cx: &mut InferCx) -> Result<()> {
    if let Some(lengths) = arithmetic_on_lengths(cx) {
        cx.set_contents(0, lengths);
    }
    infer_broadcast_to(cx, cx.dtype(0))
}

/// What arithmetic makes of lengths: numbers, and symbols that it leaves as they are.
fn arithmetic_on_lengths(cx: &InferCx) -> Option<Vec<Dim>> {
    let op = cx.node.op.as_str();
    let flat = |i| cx.shape(i).is_some_and(|s| s.rank() <= 1);
    if !matches!(op, "Add" | "Sub" | "Mul" | "Div") || !flat(0) || !flat(1) {
        return None;
    }
    let (a, b) = (cx.contents(0)?, cx.contents(1)?);
    let count = match (a.len(), b.len()) {
        (n, m) if n == m => n,
        (1, n) | (n, 1) => n,
        _ => return None,
    };
    let length = |x: &Dim, y: &Dim| match (op, x, y) {
        ("Add" | "Sub", d, Dim::Known(0)) | ("Mul" | "Div", d, Dim::Known(1)) => d.clone(),
        ("Add", Dim::Known(0), d) | ("Mul", Dim::Known(1), d) => d.clone(),
        (_, Dim::Known(x), Dim::Known(y)) => {
            let result = match op {
                "Add" => x.checked_add(*y),
                "Sub" => x.checked_sub(*y),
                "Mul" => x.checked_mul(*y),
                _ => x.checked_div(*y),
            };
            result.map_or(Dim::Unknown, Dim::Known)
        }
        _ => Dim::Unknown,
    };
    let at = |v: &'_ [Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
    Some((0..count).map(|i| length(&at(a, i), &at(b, i))).collect())
}

/// The rule of comparisons: bool of the shape of both inputs together.
///
/// # Errors
/// When lengths do not broadcast.
pub fn infer_compare(cx: &mut InferCx) -> Result<()> {
    infer_broadcast_to(cx, Some(DType::Bool))
}

/// The rule of operators whose second operand broadcasts to the first one, which gives the shape.
///
/// # Errors
/// When lengths are known not to fit.
pub fn infer_one_way(cx: &mut InferCx) -> Result<()> {
    if let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) {
        let shift = a.rank().checked_sub(b.rank());
        let fits = |(i, d): (usize, &Dim)| match (shift.map(|s| &a[s + i]), d.known()) {
            (None, _) => false,
            (_, None | Some(1)) => true,
            (Some(to), Some(n)) => to.known().is_none_or(|m| m == n),
        };
        if !b.iter().enumerate().all(fits) {
            return Err(one_way(a, b));
        }
    }
    let shape = cx.shape(0).cloned();
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn one_way(a: &dyn std::fmt::Display, b: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{b} does not broadcast to {a}"))
}

/// Checks that `b` broadcasts to `a`.
///
/// # Errors
/// When it does not.
pub fn expect_one_way(a: &Tensor, b: &Tensor) -> Result<()> {
    let fits = broadcast_dims(&[a.dims(), b.dims()]).is_ok_and(|d| d == a.dims());
    fits.then_some(()).ok_or_else(|| one_way(&a.ty(), &b.ty()))
}

fn infer_broadcast_to(cx: &mut InferCx, dtype: Option<DType>) -> Result<()> {
    let shape = if cx.version < 7 && cx.inputs() == 2 {
        // An axis says where the second operand lies: it is looked at with the data.
        if cx.node.int("axis").is_none() {
            infer_one_way(cx)?;
        }
        cx.shape(0).cloned()
    } else {
        let shapes: Vec<_> = (0..cx.inputs()).map(|i| cx.shape(i)).collect();
        infer::broadcast(&shapes)?
    };
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

/// The rule of predicates: bool of the shape of the first input.
///
/// # Errors
/// Never.
pub fn infer_predicate(cx: &mut InferCx) -> Result<()> {
    let shape = cx.shape(0).cloned();
    cx.set_tensor(0, Some(DType::Bool), shape);
    Ok(())
}
