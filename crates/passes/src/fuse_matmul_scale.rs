//! Joins a factor and transposed operands to the product that they stand around.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph};
use crate::rewrite::{Editor, nodes_of};

/// Mul and Div by a constant of one element, before or behind a MatMul of f32 that reads two
/// computed values, and Transposes that swap the last two axes of its operands.
pub static PASS: Pass = Pass {
    name: "fuse_matmul_scale",
    about: "join MatMul, factors and Transposes to FusedMatMul",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let products = nodes_of(graph, &["MatMul"]);
        if products.is_empty() || nodes_of(graph, &["Mul", "Div", "Transpose"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in products {
            changes += usize::from(fuse(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

/// An operand, whether it is transposed, and its factor.
#[derive(Clone, Copy)]
struct Operand {
    v: ValueId,
    transposed: bool,
    factor: f64,
}

fn operand(g: &mut Group, v: ValueId) -> Operand {
    let mut found = Operand {
        v,
        transposed: false,
        factor: 1.0,
    };
    for _ in 0..4 {
        let Some(id) = g.peek(found.v, &["Transpose", "Mul", "Div"]) else {
            break;
        };
        let one_reader = g.editor.has_one_reader(found.v);
        let Some(next) = before(g, id, found).filter(|_| one_reader) else {
            break;
        };
        g.nodes.push(id);
        found = next;
    }
    found
}

fn before(g: &Group, id: NodeId, at: Operand) -> Option<Operand> {
    let node = g.node(id);
    if !node.is("Transpose") {
        let (v, c) = g.with_scalar(id)?;
        let factor = factor(g, id, v, c)?;
        return Some(Operand {
            v,
            factor: at.factor * factor,
            ..at
        });
    }
    let perm = node.ints("perm")?;
    let rank = perm.len() as i64;
    let swapped = (0..rank - 2).chain([rank - 1, rank - 2]);
    (rank >= 2 && swapped.eq(perm.iter().copied())).then_some(Operand {
        v: node.input(0)?,
        transposed: !at.transposed,
        ..at
    })
}

/// What a Mul or Div by `c` multiplies `v` by; it keeps the shape of `v`.
fn factor(g: &Group, id: NodeId, v: ValueId, c: f64) -> Option<f64> {
    let node = g.node(id);
    let y = g.shape(node.output(0)?)?;
    let keeps = g.shape(v)?.rank() == y.rank();
    match node.op.as_str() {
        "Mul" if keeps => Some(c),
        "Div" if keeps && node.input(0) == Some(v) && c != 0.0 => Some(1.0 / c),
        _ => None,
    }
}

fn fuse(editor: &mut Editor, product: NodeId, types: &Inferred) -> Option<()> {
    let mut g = Group::new(editor, types);
    g.nodes.push(product);
    let node = g.node(product);
    let (a, b, mut y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let ranks = [g.shape(a)?.rank(), g.shape(b)?.rank()];
    let computed = [a, b]
        .iter()
        .all(|&v| g.editor.constant(v).is_none() && g.peek(v, &["DequantizeLinear"]).is_none());
    if !computed || g.dtype(y) != Some(DType::F32) || ranks.iter().any(|&r| r < 2) {
        return None;
    }
    let a = operand(&mut g, a);
    let b = if b == node.input(0)? {
        Operand {
            v: b,
            transposed: false,
            factor: 1.0,
        }
    } else {
        operand(&mut g, b)
    };
    let mut alpha = a.factor * b.factor;
    let nodes = match behind(&g, y) {
        Some((nodes, c, scaled)) => {
            alpha *= c;
            y = scaled;
            nodes
        }
        None if g.nodes.len() == 1 => return None,
        None => g.closed(&[y])?,
    };
    let mut fused = Node::new("FusedMatMul", "")
        .in_domain(MICROSOFT)
        .with("alpha", Attribute::Float(alpha as f32));
    for (name, transposed) in [("transA", a.transposed), ("transB", b.transposed)] {
        if transposed {
            fused.set(name, Attribute::Int(1));
        }
    }
    editor.fuse(&nodes, fused, &[Some(a.v), Some(b.v)], &[Some(y)]);
    Some(())
}

/// The factor behind a product, where nobody else reads it: all nodes, the factor, the result.
fn behind(g: &Group, y: ValueId) -> Option<(Vec<NodeId>, f64, ValueId)> {
    let mut trial = g.clone();
    let id = trial.reader(y, &["Mul", "Div"])?;
    let (v, c) = trial.with_scalar(id)?;
    let c = factor(&trial, id, v, c)?;
    let scaled = trial.node(id).output(0)?;
    (v == y)
        .then(|| trial.closed(&[scaled]))?
        .map(|nodes| (nodes, c, scaled))
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(body: &str, ends: &str) -> Vec<String> {
        let text = format!(
            "opset 17\ngraph g(a: f32[n,2,3], b: f32[n,2,3]) -> ({ends}) {{
               c: f32[] = {{0.3}}
               {body}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn factors_and_transposes_join_the_product() {
        for body in [
            "t = Transpose(b) {perm=[0,2,1]}\np = MatMul(a, t)\ny = Mul(c, p)",
            "t = Transpose(a) {perm=[0,2,1]}\ns = Mul(t, c)\ny = MatMul(s, b)",
            "s = Div(b, c)\nt = Transpose(s) {perm=[0,2,1]}\np = MatMul(a, t)\ny = Div(p, c)",
        ] {
            assert_eq!(around(body, "y"), ["FusedMatMul"], "{body}");
        }
    }

    #[test]
    fn a_product_that_others_read_keeps_its_factor() {
        let body = "t = Transpose(b) {perm=[0,2,1]}\np = MatMul(a, t)\ny = Mul(c, p)";
        assert_eq!(around(body, "y, p"), ["FusedMatMul", "Mul"]);
        let body = "t = Transpose(b) {perm=[1,2,0]}\ny = Identity(t)";
        assert_eq!(around(body, "y").len(), 2);
    }
}
