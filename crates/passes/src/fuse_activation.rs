//! Joins the nodes that spell an activation function to one node.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::float_data::{all, scale};
use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph, near, string};
use crate::rewrite::{Editor, Scope, nodes_of, same_shape, shape, tensor_type};

/// Gelu by Erf or Tanh, SiLU and its scaled form by Sigmoid, HardSwish by HardSigmoid or Clip,
/// Mish by Tanh of Softplus, however products and sums are arranged: what surrounds the function
/// is read as polynomials of its argument. Standard operators where the opset has them, else those
/// of `com.microsoft`. Answers agree within 1e-5 relative.
pub static PASS: Pass = Pass {
    name: "fuse_activation",
    about: "join the spellings of Gelu, SiLU, HardSwish and Mish to one node",
    level: Level::Extended,
    run,
};

const FUNCTIONS: &[&str] = &["Erf", "Tanh", "Sigmoid", "HardSigmoid", "Clip"];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let functions = nodes_of(graph, FUNCTIONS);
        if functions.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in functions {
            changes += usize::from(fuse(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

/// The coefficients of 1, x, x² and x³.
type Polynomial = [f64; 4];

const ZERO: Polynomial = [0.0; 4];
const X: Polynomial = [0.0, 1.0, 0.0, 0.0];

/// Nothing deeper is an activation.
const MAX_DEPTH: usize = 8;

fn add(a: Polynomial, b: Polynomial, sign: f64) -> Polynomial {
    std::array::from_fn(|i| a[i] + sign * b[i])
}

fn multiply(a: Polynomial, b: Polynomial) -> Option<Polynomial> {
    let mut product = ZERO;
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            if x * y != 0.0 {
                *product.get_mut(i + j)? += x * y;
            }
        }
    }
    Some(product)
}

fn alike(a: Polynomial, b: Polynomial) -> bool {
    a.iter().zip(&b).all(|(&a, &b)| near(a, b))
}

/// `v` as a polynomial of `x`; the nodes between join the group.
fn polynomial(g: &mut Group, v: ValueId, x: ValueId, depth: usize) -> Option<Polynomial> {
    if v == x {
        return Some(X);
    }
    if let Some(c) = g.scalar(v) {
        return Some([c, 0.0, 0.0, 0.0]);
    }
    if depth == MAX_DEPTH {
        return None;
    }
    let id = g.take(v, &["Add", "Sub", "Mul", "Div", "Pow", "Neg"])?;
    let node = g.node(id);
    let a = polynomial(g, node.input(0)?, x, depth + 1)?;
    if node.op == "Neg" {
        return Some(add(ZERO, a, -1.0));
    }
    if node.op == "Pow" {
        return power(a, g.scalar(node.input(1)?)?);
    }
    let b = polynomial(g, node.input(1)?, x, depth + 1)?;
    combine(&node.op, a, b)
}

fn power(a: Polynomial, exponent: f64) -> Option<Polynomial> {
    match exponent {
        2.0 => multiply(a, a),
        3.0 => multiply(multiply(a, a)?, a),
        _ => None,
    }
}

fn combine(op: &str, a: Polynomial, b: Polynomial) -> Option<Polynomial> {
    match op {
        "Add" => Some(add(a, b, 1.0)),
        "Sub" => Some(add(a, b, -1.0)),
        "Mul" => multiply(a, b),
        "Div" if b[1..] == [0.0; 3] && b[0] != 0.0 => multiply(a, [1.0 / b[0], 0.0, 0.0, 0.0]),
        _ => None,
    }
}

/// What is found around a function `f`: its argument, and a sum `plain + factor · f`, as
/// polynomials of `x`.
struct Found {
    x: ValueId,
    argument: Polynomial,
    plain: Polynomial,
    factor: Polynomial,
    result: ValueId,
    /// A Mul that reads the result, at which input its constant is, and that constant anew.
    then: Option<(NodeId, usize, Tensor)>,
}

fn fuse(editor: &mut Editor, id: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let opset = scope.opset();
    let argument = editor.graph.node(id).input(0)?;
    let (nodes, found, node) = candidates(editor, types, argument)
        .into_iter()
        .find_map(|x| search(editor, id, x, types, opset))?;
    if let Some((mul, i, numbers)) = &found.then {
        editor.set_constant(*mul, *i, numbers.clone(), "factor", scope.names);
    }
    editor.fuse(&nodes, node, &[Some(found.x)], &[Some(found.result)]);
    Some(())
}

/// What `x` may be: the argument, and what it is computed from.
fn candidates(editor: &Editor, types: &Inferred, argument: ValueId) -> Vec<ValueId> {
    let group = Group::new(editor, types);
    let mut found = vec![argument];
    let mut next = 0;
    while next < found.len() && found.len() < 16 {
        let steps = ["Add", "Sub", "Mul", "Div", "Pow", "Softplus"];
        if let Some(id) = group.peek(found[next], &steps) {
            for v in group.node(id).inputs().iter().flatten().copied() {
                if group.scalar(v).is_none() && !found.contains(&v) {
                    found.push(v);
                }
            }
        }
        next += 1;
    }
    found
}

/// Follows the readers of the function until the sum is an activation.
fn search(
    editor: &Editor,
    id: NodeId,
    x: ValueId,
    types: &Inferred,
    opset: i64,
) -> Option<(Vec<NodeId>, Found, Node)> {
    let mut g = Group::new(editor, types);
    g.nodes.push(id);
    let function = g.node(id);
    let mut input = function.input(0)?;
    let softplus = function.op == "Tanh" && g.take(input, &["Softplus"]).is_some();
    if softplus {
        let (inner, _) = editor.graph.value(input).producer()?;
        input = g.node(inner).input(0)?;
    }
    let argument = polynomial(&mut g, input, x, 0)?;
    let mut found = Found {
        x,
        argument,
        plain: ZERO,
        factor: [1.0, 0.0, 0.0, 0.0],
        result: function.output(0)?,
        then: None,
    };
    for _ in 0..4 {
        let at = found.result;
        let reader = g.reader(at, &["Add", "Sub", "Mul", "Div"])?;
        let node = g.node(reader);
        let (a, b) = (node.input(0)?, node.input(1)?);
        if a == b {
            return None;
        }
        let beside = if a == at { b } else { a };
        if node.op == "Mul" && editor.constant(beside).is_some_and(|t| t.count() > 1) {
            found.then = Some((reader, usize::from(a == at), doubled(editor, beside)?));
            let half = |p| multiply(p, [0.5, 0.0, 0.0, 0.0]);
            (found.plain, found.factor) = (half(found.plain)?, half(found.factor)?);
            let node = named(&g, function, softplus, &found, opset)?;
            g.nodes.retain(|&n| n != reader);
            let nodes = g.closed(&[at])?;
            return fits(&found, types).then_some((nodes, found, node));
        }
        let other = polynomial(&mut g, beside, x, 0)?;
        let of = |p: Polynomial, constant: bool| match node.op.as_str() {
            "Add" | "Sub" if !constant => Some(if node.op == "Sub" && a != at {
                add(ZERO, p, -1.0)
            } else {
                p
            }),
            "Div" if a != at => None,
            op if a == at => combine(op, p, other),
            op => combine(op, other, p),
        };
        found.factor = of(found.factor, false)?;
        found.plain = of(found.plain, true)?;
        found.result = node.output(0)?;
        let node = named(&g, function, softplus, &found, opset);
        let Some(node) = node else { continue };
        if !fits(&found, types) {
            return None;
        }
        let nodes = g.clone().closed(&[found.result])?;
        return Some((nodes, found, node));
    }
    None
}

/// Twice the numbers of a constant: a factor by channel has taken the half of Gelu.
fn doubled(editor: &Editor, v: ValueId) -> Option<Tensor> {
    let t = editor.constant(v)?;
    let twice = scale(t, t.count(), |_| 2.0)?;
    all(&twice, f64::is_finite)?.then_some(twice)
}

/// The same shape and a type that every runtime has kernels for.
fn fits(found: &Found, types: &Inferred) -> bool {
    let (Some(x), Some(y)) = (shape(types, found.x), shape(types, found.result)) else {
        return false;
    };
    let dtype = tensor_type(types, found.x).map(|t| t.dtype);
    matches!(dtype, Some(DType::F32 | DType::F16)) && (same_shape(x, y) || x.rank() == y.rank())
}

/// The activation that was found, where it is one.
fn named(g: &Group, f: &Node, softplus: bool, found: &Found, opset: i64) -> Option<Node> {
    let half = [0.0, 0.5, 0.0, 0.0];
    let is_gelu = alike(found.plain, half) && alike(found.factor, half);
    let product = alike(found.plain, ZERO) && found.factor[1] != 0.0;
    let argument = found.argument;
    match f.op.as_str() {
        "Erf" if is_gelu && alike(argument, scaled(std::f64::consts::FRAC_1_SQRT_2)) => {
            Some(if opset >= 20 {
                Node::new("Gelu", "")
            } else {
                Node::new("Gelu", "").in_domain(MICROSOFT)
            })
        }
        "Tanh" if softplus => {
            let mish = product && alike(found.factor, X) && alike(argument, X);
            (mish && opset >= 18).then(|| Node::new("Mish", ""))
        }
        "Tanh" if is_gelu => {
            let s = (2.0 / std::f64::consts::PI).sqrt();
            alike(argument, [0.0, s, 0.0, s * 0.044_715]).then(|| {
                if opset >= 20 {
                    Node::new("Gelu", "").with("approximate", string("tanh"))
                } else {
                    Node::new("FastGelu", "").in_domain(MICROSOFT)
                }
            })
        }
        "Sigmoid" if product && alike(found.factor, X) => {
            let alpha = argument[1];
            let line = alike(argument, scaled(alpha)) && alpha != 0.0;
            line.then(|| {
                let node = if opset >= 24 {
                    Node::new("Swish", "")
                } else {
                    Node::new("QuickGelu", "").in_domain(MICROSOFT)
                };
                node.with("alpha", Attribute::Float(alpha as f32))
            })
        }
        "HardSigmoid" | "Clip" if product && opset >= 14 => {
            let [low, high] = bounds(g, f, argument)?;
            let factor = found.factor[1];
            let scaled: Polynomial = low.map(|c| c * factor);
            let sixth = [0.5, 1.0 / 6.0, 0.0, 0.0];
            let fits = alike(found.factor, [0.0, factor, 0.0, 0.0])
                && alike(scaled, sixth)
                && near(high[0] * factor, 1.0);
            fits.then(|| Node::new("HardSwish", ""))
        }
        _ => None,
    }
}

fn scaled(by: f64) -> Polynomial {
    [0.0, by, 0.0, 0.0]
}

/// What is cut off at 0, and the upper bound: of HardSigmoid, or of a Clip from 0.
fn bounds(g: &Group, f: &Node, argument: Polynomial) -> Option<[Polynomial; 2]> {
    if f.op == "HardSigmoid" {
        let alpha = f64::from(f.float("alpha").unwrap_or(0.2));
        let beta = f64::from(f.float("beta").unwrap_or(0.5));
        let line = add(
            multiply(argument, [alpha, 0.0, 0.0, 0.0])?,
            [beta, 0.0, 0.0, 0.0],
            1.0,
        );
        return Some([line, [1.0, 0.0, 0.0, 0.0]]);
    }
    let bound = |i: usize, name: &str| match f.input(i) {
        Some(v) => g.scalar(v),
        None => f.float(name).map(f64::from),
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    (low == 0.0).then_some([argument, [high, 0.0, 0.0, 0.0]])
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(opset: i64, body: &str) -> Vec<String> {
        left(
            &PASS,
            &format!("opset {opset}\ngraph g(x: f32[2,3]) -> (y) {{\n{body}\n}}"),
        )
    }

    const NUMBERS: &str = "
        half: f32[] = {0.5}
        one: f32[] = {1.0}
        two: f32[] = {2.0}
        three: f32[] = {3.0}
        root: f32[] = {1.4142135381698608}
        inv: f32[] = {0.70710678}
        c: f32[] = {0.044715}
        s: f32[] = {0.7978845608}
        six: f32[] = {6.0}
        zero: f32[] = {0.0}";

    #[test]
    fn every_spelling_of_gelu_is_found() {
        for body in [
            "a = Div(x, root)\nb = Erf(a)\nd = Add(b, one)\ne = Mul(x, d)\ny = Mul(e, half)",
            "a = Div(x, root)\nb = Erf(a)\nd = Add(b, one)\ne = Mul(x, half)\ny = Mul(e, d)",
            "a = Mul(x, inv)\nb = Erf(a)\nd = Add(one, b)\ne = Mul(half, d)\ny = Mul(x, e)",
            "a = Mul(inv, x)\nb = Erf(a)\nd = Mul(b, half)\ne = Add(d, half)\ny = Mul(e, x)",
        ] {
            assert_eq!(
                around(17, &format!("{NUMBERS}\n{body}")),
                ["Gelu"],
                "{body}"
            );
            assert_eq!(
                around(20, &format!("{NUMBERS}\n{body}")),
                ["Gelu"],
                "{body}"
            );
        }
    }

    #[test]
    fn a_factor_by_channel_that_took_the_half_of_gelu_stays_behind_it() {
        let body = "
            by: f32[3] = {0.5, 1.5, -0.25}
            a = Div(x, root)\nb = Erf(a)\nd = Add(b, one)\ne = Mul(x, d)\ny = MUL";
        for mul in ["Mul(e, by)", "Mul(by, e)"] {
            let text = format!("{NUMBERS}\n{}", body.replace("MUL", mul));
            assert_eq!(around(17, &text), ["Gelu", "Mul"], "{mul}");
        }
        let silu = "by: f32[3] = {0.5, 1.5, -0.25}\na = Erf(x)\nb = Mul(x, a)\ny = Mul(b, by)";
        assert_eq!(around(17, silu).len(), 3);
    }

    #[test]
    fn every_spelling_of_the_tanh_form_is_found() {
        let rest = "t = Tanh(i)\nd = Add(t, one)\ne = Mul(x, half)\ny = Mul(e, d)";
        for inner in [
            "p = Pow(x, three)\nq = Mul(p, c)\nr = Add(x, q)\ni = Mul(r, s)",
            "p = Mul(x, x)\nq = Mul(p, x)\nw = Mul(c, q)\nr = Add(w, x)\ni = Mul(s, r)",
            "p = Mul(x, c)\nq = Mul(p, x)\nr = Add(q, one)\nw = Mul(x, s)\ni = Mul(w, r)",
        ] {
            let body = format!("{NUMBERS}\n{inner}\n{rest}");
            assert_eq!(around(17, &body), ["FastGelu"], "{inner}");
            assert_eq!(around(20, &body), ["Gelu"], "{inner}");
        }
    }

    #[test]
    fn products_with_sigmoid_clip_and_softplus_are_found() {
        let silu = "a = Sigmoid(x)\ny = Mul(x, a)";
        assert_eq!(around(17, silu), ["QuickGelu"]);
        assert_eq!(around(24, silu), ["Swish"]);
        let mish = "a = Softplus(x)\nb = Tanh(a)\ny = Mul(x, b)";
        assert_eq!(around(18, mish), ["Mish"]);
        assert_eq!(around(17, mish).len(), 3);
        let add = "a = Add(x, three)\nb = Clip(a, zero, six)";
        for body in [
            "a = HardSigmoid(x) {alpha=0.16666667}\ny = Mul(a, x)",
            &format!("{add}\nd = Div(b, six)\ny = Mul(x, d)"),
            &format!("{add}\nd = Mul(x, b)\ny = Div(d, six)"),
        ] {
            let body = format!("{NUMBERS}\n{body}");
            assert_eq!(around(17, &body), ["HardSwish"], "{body}");
        }
    }

    #[test]
    fn other_factors_and_values_that_are_read_elsewhere_stay() {
        let body = "a = Mul(x, half)\nb = Erf(a)\nd = Add(b, one)\ne = Mul(x, half)\ny = Mul(e, d)";
        assert_eq!(around(17, &format!("{NUMBERS}\n{body}")).len(), 5);
        let text = "opset 17\ngraph g(x: f32[2,3]) -> (y, a) {\na = Sigmoid(x)\ny = Mul(x, a)\n}";
        assert_eq!(left(&PASS, text), ["Sigmoid", "Mul"]);
    }
}
