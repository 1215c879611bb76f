//! Removes arithmetic that returns its operand: times one, plus nothing, not not.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::float_data;
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, same_shape, shape};

/// Mul and Div by 1, Pow to 1, Add of −0.0 (of 0 for integers) and Sub of 0, And with true, Or and
/// Xor with false, a Where that always takes one side, Min, Max, And and Or of a value with
/// itself, Not of Not and Neg of Neg; only where the shape stays. Bit for bit: adding 0.0 stays,
/// because it turns −0.0 to 0.0.
pub static PASS: Pass = Pass {
    name: "drop_neutral",
    about: "remove arithmetic that returns its operand",
    level: Level::Basic,
    run,
};

const CANDIDATES: &[&str] = &[
    "Add", "And", "Div", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Sub", "Where", "Xor",
];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let candidate =
            |n: &Node| n.domain.is_empty() && CANDIDATES.binary_search(&n.op.as_str()).is_ok();
        let nodes: Vec<NodeId> = graph
            .nodes()
            .filter(|(_, n)| candidate(n))
            .map(|(id, _)| id)
            .collect();
        if nodes.is_empty() || scope.opset() < 7 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            changes += usize::from(remove(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn remove(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let node = editor.graph.node(id);
    let out = node.output(0)?;
    let same = returned(editor, node)?;
    let keeps = match (shape(types, same), shape(types, out)) {
        (Some(a), Some(b)) => same_shape(a, b) || others_are_small(node, same, types),
        _ => false,
    };
    (keeps && editor.bypass(id, out, same)).then_some(())
}

/// True where no other operand can change the shape of `same`.
fn others_are_small(node: &Node, same: ValueId, types: &Inferred) -> bool {
    let Some(rank) = shape(types, same).map(|s| s.rank()) else {
        return false;
    };
    let one =
        |v: ValueId| shape(types, v).is_some_and(|s| s.count() == Some(1) && s.rank() <= rank);
    node.inputs().iter().flatten().all(|&v| v == same || one(v))
}

/// The operand whose elements are those of the result.
fn returned(editor: &Editor, node: &Node) -> Option<ValueId> {
    let (a, b) = (node.input(0)?, node.input(1));
    let all = |v: Option<ValueId>, neutral: f64| {
        v.and_then(|v| editor.constant(v))
            .is_some_and(|t| is_all(t, neutral))
    };
    let either = |neutral: f64| {
        if all(b, neutral) {
            Some(a)
        } else {
            b.filter(|_| all(Some(a), neutral))
        }
    };
    let twice = || node.inputs().iter().all(|&v| v == Some(a)).then_some(a);
    match node.op.as_str() {
        "Mul" => either(1.0),
        "Add" => either(-0.0),
        "Sub" => all(b, 0.0).then_some(a),
        "Div" | "Pow" => all(b, 1.0).then_some(a),
        "And" => either(1.0).or_else(twice),
        "Or" => either(0.0).or_else(twice),
        "Xor" => either(0.0),
        "Min" | "Max" => twice(),
        "Where" if all(Some(a), 1.0) => b,
        "Where" if all(Some(a), 0.0) => node.input(2),
        "Where" => b.filter(|_| b == node.input(2)),
        "Neg" | "Not" => {
            let (inner, 0) = editor.graph.value(a).producer()? else {
                return None;
            };
            let inner = editor.graph.node(inner);
            inner.is(&node.op).then(|| inner.input(0))?
        }
        _ => None,
    }
}

/// True where every element is `number`, to the sign of zero in floats; false of no elements.
fn is_all(t: &Tensor, number: f64) -> bool {
    if t.count() == 0 {
        return false;
    }
    match t.dtype() {
        d if d.is_float() => {
            float_data::all(t, |x| x.to_bits() == number.to_bits()).unwrap_or(false)
        }
        DType::U64 => t
            .data::<u64>()
            .is_ok_and(|v| v.iter().all(|&x| x as f64 == number)),
        _ => t
            .to_i64()
            .is_ok_and(|v| v.iter().all(|&x| x == number as i64)),
    }
}

#[cfg(test)]
mod tests {
    use super::{CANDIDATES, PASS};
    use crate::testing::left;

    #[test]
    fn candidates_are_in_order() {
        assert!(CANDIDATES.is_sorted());
    }

    fn around(op: &str) -> Vec<String> {
        let text = format!(
            "opset 17
             graph g(x: f32[2,1], i: i64[2,1], b: bool[2,1]) -> (z) {{
               one: f32[] = {{1}}
               ones: f32[1,2] = {{1,1}}
               deep: f32[1,1,1] = {{1}}
               zero: f32[1] = {{0}}
               minus: f32[1] = {{-0.0}}
               int: i64[1] = {{0}}
               ten: i64[1] = {{1}}
               yes: bool[1] = {{true}}
               no: bool[] = {{false}}
               y = {op}
               z = Identity(y)
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn what_returns_its_operand_goes() {
        for op in [
            "Mul(x, one)",
            "Mul(one, x)",
            "Div(x, one)",
            "Pow(x, one)",
            "Add(x, minus)",
            "Sub(x, zero)",
            "Add(int, i)",
            "Div(i, ten)",
            "And(b, yes)",
            "Or(no, b)",
            "Xor(b, no)",
            "Where(yes, x, zero)",
            "Where(no, zero, x)",
            "Where(b, x, x)",
            "Max(x, x)",
            "And(b, b)",
        ] {
            assert_eq!(around(op), ["Identity"], "{op}");
        }
        assert_eq!(around("Neg(h)\nh = Neg(x)"), ["Neg", "Identity"]);
    }

    #[test]
    fn what_changes_bits_or_shape_stays() {
        for op in [
            "Add(x, zero)",
            "Sub(x, minus)",
            "Mul(x, ones)",
            "Mul(x, deep)",
            "Div(one, x)",
            "And(b, no)",
            "Mul(i, int)",
            "Max(x, zero)",
        ] {
            assert_eq!(around(op).len(), 2, "{op}");
        }
    }
}
