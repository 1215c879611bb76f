//! Einsum: sums of products over named axes.

use super::numbers::Numbers;
use super::{Arity, AttrKind, MANY, OpDef, attr, layout};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX Einsum.
pub static EINSUM: OpDef = OpDef {
    name: "Einsum",
    since: &[12],
    inputs: Arity(1, MANY),
    attrs: &[attr("equation", AttrKind::String(None))],
    infer,
    eval: Some(eval),
    examples: &[
        "Einsum(f32[2,3], f32[3,4]) {equation=\"ij,jk->ik\"}",
        "Einsum(f32[2,3,3]) {equation=\"...ii->...i\"}",
        "Einsum(f64[2,1,3], f64[4,3]) {equation=\"b...j, ...j\"}",
        "Einsum(i32[3], i32[3]) {equation=\"i,i\"}",
    ],
    ..OpDef::BASE
};

/// An axis: a letter, or one of the axes that `...` stands for, counted from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// One of the axes of `...`.
    Rest(usize),
    /// A letter.
    Letter(char),
}

/// The axes of each input and of the output.
pub struct Equation {
    /// Those of each input.
    pub inputs: Vec<Vec<Label>>,
    /// Those of the output.
    pub output: Vec<Label>,
}

fn labels(term: &str, rest: usize) -> Result<Vec<Label>> {
    let term: String = term.chars().filter(|c| !c.is_whitespace()).collect();
    let letters = |s: &str| -> Result<Vec<Label>> {
        match s.chars().find(|c| !c.is_ascii_alphabetic()) {
            Some(c) => Err(Error::invalid(format!("`{c}` is no axis of an equation"))),
            None => Ok(s.chars().map(Label::Letter).collect()),
        }
    };
    match term.split_once("...") {
        Some((before, after)) => {
            let mut out = letters(before)?;
            out.extend((0..rest).rev().map(Label::Rest));
            out.extend(letters(after)?);
            Ok(out)
        }
        None => letters(&term),
    }
}

/// The axes that `equation` names for inputs of so many axes.
///
/// # Errors
/// When they do not fit each other.
pub fn parse(equation: &str, ranks: &[usize]) -> Result<Equation> {
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation, None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(Error::invalid(format!(
            "the equation \"{equation}\" has {} terms, the node {} inputs",
            terms.len(),
            ranks.len()
        )));
    }
    let (mut inputs, mut most) = (Vec::new(), 0);
    for (term, &rank) in terms.iter().zip(ranks) {
        let letters = labels(term, 0)?.len();
        let rest = if term.contains("...") {
            rank.checked_sub(letters)
        } else {
            Some(0)
        };
        let found = rest.map(|rest| labels(term, rest)).transpose()?;
        let found = found.filter(|l| l.len() == rank).ok_or_else(|| {
            Error::invalid(format!(
                "the term \"{term}\" does not fit a tensor of {rank} axes"
            ))
        })?;
        most = most.max(rest.unwrap_or(0));
        inputs.push(found);
    }
    let output = match right {
        Some(right) => labels(right, most)?,
        None => {
            let all: Vec<Label> = inputs.concat();
            let once = |l: &Label| match l {
                Label::Rest(_) => true,
                Label::Letter(_) => all.iter().filter(|o| *o == l).count() == 1,
            };
            let mut out: Vec<Label> = all.iter().copied().filter(once).collect();
            out.sort_by_key(|l| match l {
                Label::Rest(i) => (0, usize::MAX - i, ' '),
                Label::Letter(c) => (1, 0, *c),
            });
            out.dedup();
            out
        }
    };
    for (i, l) in output.iter().enumerate() {
        if output[..i].contains(l) || !inputs.iter().any(|t| t.contains(l)) {
            return Err(Error::invalid(format!(
                "the output of \"{equation}\" repeats an axis or has one of its own"
            )));
        }
    }
    Ok(Equation { inputs, output })
}

/// The equation of a node.
///
/// # Errors
/// When it has none.
pub fn equation(node: &crate::Node) -> Result<&str> {
    node.string("equation")
        .ok_or_else(|| Error::invalid("attribute \"equation\" is missing"))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let shapes: Option<Vec<&Shape>> = (0..cx.inputs()).map(|i| cx.shape(i)).collect();
    let shape = match shapes {
        Some(shapes) => {
            let ranks: Vec<usize> = shapes.iter().map(|s| s.rank()).collect();
            let eq = parse(equation(cx.node)?, &ranks)?;
            let length = |l: &Label| {
                let mut out = Dim::Known(1);
                for (labels, shape) in eq.inputs.iter().zip(&shapes) {
                    for (_, d) in labels.iter().zip(shape.iter()).filter(|(k, _)| *k == l) {
                        if out == Dim::Known(1) || matches!(d, Dim::Known(n) if *n != 1) {
                            out = d.clone();
                        }
                    }
                }
                out
            };
            Some(eq.output.iter().map(length).collect())
        }
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let inputs: Vec<&Tensor> = (0..cx.inputs())
        .map(|i| cx.input(i))
        .collect::<Result<_>>()?;
    let ranks: Vec<usize> = inputs.iter().map(|t| t.rank()).collect();
    let eq = parse(equation(cx.node)?, &ranks)?;
    // Axes of the output first, then those summed over.
    let mut order = eq.output.clone();
    for l in eq.inputs.concat() {
        if !order.contains(&l) {
            order.push(l);
        }
    }
    let mut dims = vec![1usize; order.len()];
    let mut strides = vec![vec![0isize; order.len()]; inputs.len()];
    for ((labels, t), strides) in eq.inputs.iter().zip(&inputs).zip(&mut strides) {
        for ((l, &d), s) in labels.iter().zip(t.dims()).zip(layout::strides(t.dims())) {
            let at = order.iter().position(|o| o == l).unwrap_or(0);
            if d != 1 && dims[at] != 1 && dims[at] != d {
                return Err(Error::invalid(format!(
                    "an axis has lengths {} and {d}",
                    dims[at]
                )));
            }
            if d != 1 {
                dims[at] = d;
                strides[at] += s;
            }
        }
    }
    let (kept, summed) = dims.split_at(eq.output.len());
    checked_count(&dims)?;
    let each: usize = summed.iter().product();
    let numbers = inputs
        .iter()
        .map(|t| Numbers::of(t))
        .collect::<Result<Vec<_>>>()?;
    let walks = strides
        .iter()
        .map(|s| layout::walk(&dims, s, 0))
        .collect::<Result<Vec<_>>>()?;
    let count = checked_count(kept)?;
    let floats: Option<Vec<&[f64]>> = numbers.iter().map(Numbers::floats).collect();
    let ints: Option<Vec<&[i128]>> = numbers.iter().map(Numbers::ints).collect();
    let out = match (floats, ints) {
        (Some(v), _) => Numbers::Float(sums(
            &v,
            walks,
            count,
            each,
            (0.0, 1.0),
            |a, b| a + b,
            |a, b| a * b,
        )),
        (_, Some(v)) => Numbers::Int(sums(
            &v,
            walks,
            count,
            each,
            (0, 1),
            i128::wrapping_add,
            i128::wrapping_mul,
        )),
        _ => return Err(Error::invalid("the inputs should be of one type")),
    };
    Ok(vec![out.tensor(inputs[0].dtype(), kept)?])
}

fn sums<T: Copy>(
    inputs: &[&[T]],
    mut walks: Vec<layout::Walk>,
    count: usize,
    each: usize,
    (zero, one): (T, T),
    add: fn(T, T) -> T,
    multiply: fn(T, T) -> T,
) -> Vec<T> {
    let mut product = || {
        inputs.iter().zip(&mut walks).fold(one, |p, (v, walk)| {
            let factor = walk.next().and_then(|i| v.get(i)).copied();
            multiply(p, factor.unwrap_or(zero))
        })
    };
    (0..count)
        .map(|_| (0..each).fold(zero, |sum, _| add(sum, product())))
        .collect()
}
