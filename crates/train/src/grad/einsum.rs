//! Einsum: the gradient of an operand is an Einsum of the gradient and the other operands.

use edgesmith_ir::ops::arith::from_floats;
use edgesmith_ir::ops::einsum::{Equation, Label, equation, parse};
use edgesmith_ir::{Attribute, Dim, Error, Node, Result, Shape, ValueId};

use super::Backward;

/// A factor of a product, with the letters of its axes and what is known of their lengths.
#[derive(Clone)]
struct Factor {
    value: ValueId,
    letters: String,
    shape: Shape,
}

impl Factor {
    /// The lengths of the axes that have this letter.
    fn lengths(&self, letter: char) -> impl Iterator<Item = &Dim> {
        let axes = self.letters.chars().zip(self.shape.iter());
        axes.filter(move |(c, _)| *c == letter).map(|(_, d)| d)
    }
}

pub(super) fn einsum(cx: &mut Backward) -> Result<()> {
    let count = cx.node().inputs().len();
    let mut operands = Vec::with_capacity(count);
    for i in 0..count {
        operands.push((cx.x(i)?, known(cx, cx.x(i)?)?));
    }
    let ranks: Vec<usize> = operands.iter().map(|(_, s)| s.rank()).collect();
    let eq = parse(equation(cx.node())?, &ranks)?;
    let (output, inputs, unused) = lettered(&eq)?;
    let dy = Factor {
        value: cx.dy()?,
        letters: output,
        shape: known(cx, cx.y(0)?)?,
    };
    let operands = operands.into_iter().zip(inputs);
    let operands = operands.map(|((value, shape), letters)| Factor {
        value,
        letters,
        shape,
    });
    let operands: Vec<Factor> = operands.collect();
    for i in (0..count).filter(|&i| cx.wants(i)).collect::<Vec<_>>() {
        let mut factors = operands.clone();
        let own = std::mem::replace(&mut factors[i], dy.clone());
        let dx = of_operand(cx, &own, factors, unused.clone())?;
        cx.give(i, dx);
    }
    Ok(())
}

fn known(cx: &Backward, v: ValueId) -> Result<Shape> {
    cx.rank(v)?;
    Ok(cx.shape(v).cloned().unwrap_or_default())
}

fn too_many() -> Error {
    Error::unsupported("the gradient of an equation of so many axes is not done")
}

/// The letters of the output and of each input, where the axes of `...` have letters of their own;
/// and the letters that are left.
fn lettered(eq: &Equation) -> Result<(String, Vec<String>, Vec<char>)> {
    let all = || eq.inputs.iter().flatten().chain(&eq.output);
    let mut unused: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    unused.retain(|c| !all().any(|l| *l == Label::Letter(*c)));
    let rest = all().filter_map(|l| match l {
        Label::Rest(i) => Some(i + 1),
        Label::Letter(_) => None,
    });
    let rest: Vec<char> = (0..rest.max().unwrap_or(0))
        .map_while(|_| unused.pop())
        .collect();
    let letter = |l: &Label| match l {
        Label::Letter(c) => Ok(*c),
        Label::Rest(i) => rest.get(*i).copied().ok_or_else(too_many),
    };
    let term = |labels: &Vec<Label>| labels.iter().map(letter).collect::<Result<String>>();
    let inputs = eq.inputs.iter().map(term).collect::<Result<_>>()?;
    Ok((term(&eq.output)?, inputs, unused))
}

/// The gradient of the operand `own`, as the product of the gradient and the other operands.
fn of_operand(
    cx: &mut Backward,
    own: &Factor,
    mut factors: Vec<Factor>,
    mut unused: Vec<char>,
) -> Result<ValueId> {
    let mut to = String::new();
    for (axis, (letter, length)) in own.letters.chars().zip(own.shape.iter()).enumerate() {
        let given = || factors.iter().flat_map(|f| f.lengths(letter));
        let is_given = given().any(|d| d.same(length) || *length == Dim::Known(1));
        // An axis that is read along a diagonal is a letter of its own, and 0 beside the diagonal.
        let (value, letters) = if let Some(first) = to.find(letter) {
            let lengths = own.shape[first].known().zip(length.known());
            if lengths.is_some_and(|(a, b)| a != b) {
                return Err(Error::unsupported(
                    "the gradient of a diagonal of several lengths is not done",
                ));
            }
            let other = unused.pop().ok_or_else(too_many)?;
            to.push(other);
            (diagonal(cx, own.value, axis)?, format!("{letter}{other}"))
        } else {
            to.push(letter);
            if is_given {
                continue;
            }
            let list = cx.length_of(own.value, axis);
            (cx.filled(list, own.value, 1.0)?, letter.to_string())
        };
        factors.push(Factor {
            value,
            shape: letters.chars().map(|_| length.clone()).collect(),
            letters,
        });
    }
    let fits = |(letter, length): (char, &Dim)| {
        let mut lengths = factors.iter().flat_map(|f| f.lengths(letter));
        lengths.all(|d| d.same(length) || *d == Dim::Known(1))
    };
    let fits = to.chars().zip(own.shape.iter()).all(fits);
    let terms: Vec<&str> = factors.iter().map(|f| f.letters.as_str()).collect();
    let equation = format!("{}->{to}", terms.join(","));
    let values: Vec<ValueId> = factors.iter().map(|f| f.value).collect();
    let node = Node::new("Einsum", "").with("equation", Attribute::String(equation.into()));
    let dx = cx.add(node, &values);
    Ok(match fits {
        true => dx,
        false => cx.ours("Unbroadcast", &[dx, own.value]),
    })
}

/// Ones on the diagonal of a square as long as `axis` of `x`.
fn diagonal(cx: &mut Backward, x: ValueId, axis: usize) -> Result<ValueId> {
    if let Some(n) = cx.length(x, axis) {
        let count = edgesmith_ir::checked_count(&[n, n])?;
        let data = (0..count).map(|i| f64::from(u8::from(i % (n + 1) == 0)));
        let data = from_floats(cx.dtype(x)?, &[n, n], data.collect())?;
        return Ok(cx.constant(data));
    }
    let length = cx.length_of(x, axis);
    let square = cx.op_with("Concat", &[length, length], "axis", 0);
    let zeros = cx.filled(square, x, 0.0)?;
    Ok(cx.op("EyeLike", &[zeros]))
}
