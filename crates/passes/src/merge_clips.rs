//! Joins Relu and Clip in a row, and drops those that what they read never exceeds.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, Tensor};

use crate::float_data::{from_f64, to_f64};
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, tensor_type};

/// Floats only, bounds constant. One that changes nothing goes (Relu after Sigmoid, Clip to 0..6
/// after Clip to 1..2); otherwise two become a Relu or a Clip to what both leave, where nobody
/// else reads what lies between. Bit for bit, NaN too, but for the sign of zero.
pub static PASS: Pass = Pass {
    name: "merge_clips",
    about: "join Relu and Clip in a row",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["Relu", "Clip"]);
        if nodes.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            // An earlier one may have taken it in.
            if editor.graph.get_node(id).is_some() {
                changes += usize::from(merge(&mut editor, id, &types, scope).is_some());
            }
        }
        Ok(changes)
    })
}

/// The least and the greatest number that a node makes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

const RELU: Bounds = Bounds {
    low: 0.0,
    high: f64::INFINITY,
};

impl Bounds {
    /// What Relu or Clip keep to, where that is known and of floats.
    pub(crate) fn of(editor: &Editor, node: &Node) -> Option<Self> {
        if node.is("Relu") {
            return Some(RELU);
        }
        let read = |i: usize, name: &str, open: f64| match node.input(i) {
            None => Some(node.float(name).map_or(open, f64::from)),
            Some(v) => match to_f64(editor.constant(v)?)?.as_slice() {
                [one] => Some(*one),
                _ => None,
            },
        };
        let low = read(1, "min", f64::NEG_INFINITY)?;
        let high = read(2, "max", f64::INFINITY)?;
        (node.is("Clip") && low <= high).then_some(Self { low, high })
    }

    fn holds(self, inner: Self) -> bool {
        self.low <= inner.low && inner.high <= self.high
    }
}

/// What the node that makes input 0 of `id` keeps to by what it computes.
fn made_within(editor: &Editor, id: NodeId) -> Option<Bounds> {
    let makers = [
        "Relu",
        "Clip",
        "Sigmoid",
        "Abs",
        "Exp",
        "HardSigmoid",
        "Softmax",
    ];
    let source = editor.source(id, 0, &makers)?;
    match editor.graph.node(source).op.as_str() {
        "Relu" | "Clip" => Bounds::of(editor, editor.graph.node(source)),
        _ => Some(RELU),
    }
}

fn merge(editor: &mut Editor, id: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let node = editor.graph.node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dtype = tensor_type(types, y)?.dtype;
    let is_float = matches!(dtype, DType::F16 | DType::F32 | DType::F64 | DType::BF16);
    let outer = Bounds::of(editor, node).filter(|_| is_float)?;
    let inner = made_within(editor, id)?;
    if outer.holds(inner) {
        return editor.bypass(id, y, x).then_some(());
    }
    let first = editor.only_source(id, 0, &["Relu", "Clip"])?;
    let both = Bounds {
        low: outer.low.max(inner.low),
        high: outer.high.min(inner.high),
    };
    if both.low > both.high {
        return None;
    }
    let source = editor.graph.node(first).input(0);
    let mut new = Node::new(if both == RELU { "Relu" } else { "Clip" }, "");
    let mut inputs = vec![source];
    if new.is("Clip") && scope.opset() < 11 {
        for (name, bound) in [("min", both.low), ("max", both.high)] {
            if bound.is_finite() {
                new.set(name, Attribute::Float(bound as f32));
            }
        }
    } else if new.is("Clip") {
        for (name, bound) in [("min", both.low), ("max", both.high)] {
            inputs.push(if bound.is_finite() {
                let data: Tensor = from_f64(dtype, &[], &[bound]).ok()?;
                Some(editor.graph.add_constant(&scope.names.fresh(name), data))
            } else {
                None
            });
        }
        if inputs.last() == Some(&None) {
            inputs.pop();
        }
    }
    editor.swap_node(id, new, &inputs);
    editor.graph.remove_node(first);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Editor, PASS};
    use crate::testing::{left, run};

    fn around(ops: &str) -> String {
        format!(
            "opset 17
             graph g(x: f32[9]) -> (y) {{
               zero: f32[] = {{0}}
               half: f32[] = {{0.5}}
               one: f32[] = {{1}}
               down: f32[] = {{-1}}
               {ops}
             }}"
        )
    }

    #[test]
    fn two_become_what_both_leave() {
        for (ops, low, high) in [
            ("a = Relu(x)\ny = Clip(a, down, one)", 0.0, 1.0),
            ("a = Clip(x, down, one)\ny = Relu(a)", 0.0, 1.0),
            ("a = Clip(x, half)\ny = Clip(a, zero, one)", 0.5, 1.0),
            ("a = Clip(x, down)\ny = Relu(a)", 0.0, f64::INFINITY),
            ("a = Clip(x, half, one)\ny = Clip(a, zero)", 0.5, 1.0),
            ("a = Relu(x)\ny = Relu(a)", 0.0, f64::INFINITY),
        ] {
            let mut m = run(&PASS, &around(ops));
            let (_, node) = m.graph.nodes().next().unwrap();
            let node = node.clone();
            assert_eq!(m.graph.nodes().count(), 1, "{ops}");
            let bounds = Bounds::of(&Editor::new(&mut m.graph), &node).unwrap();
            assert_eq!((bounds.low, bounds.high), (low, high), "{ops}");
        }
    }

    #[test]
    fn what_others_read_and_bounds_apart_stay() {
        for ops in [
            "a = Relu(x)\nb = Clip(a, down, one)\ny = Add(a, b)",
            "a = Clip(x, half, one)\ny = Clip(a, down, zero)",
        ] {
            let count = around(ops).matches('(').count() - 2;
            assert_eq!(left(&PASS, &around(ops)).len(), count, "{ops}");
        }
        let sigmoid = "a = Sigmoid(x)\nb = Relu(a)\ny = Add(a, b)";
        assert_eq!(left(&PASS, &around(sigmoid)), ["Sigmoid", "Add"]);
    }

    #[test]
    fn bounds_are_attributes_before_opset_11() {
        let text = "opset 10
            graph g(x: f32[9]) -> (y) {
              a = Relu(x)
              y = Clip(a) {min=-1.0, max=1.0}
            }";
        let m = run(&PASS, text);
        let (_, clip) = m.graph.nodes().next().unwrap();
        assert_eq!(
            (clip.float("min"), clip.float("max")),
            (Some(0.0), Some(1.0))
        );
    }
}
