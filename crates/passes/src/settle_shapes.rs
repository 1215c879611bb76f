//! Writes down the target shapes of Reshape and Expand, whose lengths inference knows.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Dim, Model, NodeId, Result, Shape, Tensor};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, shape};

/// Exporters compute targets by Shape, Gather and Concat. Where the lengths are known but for
/// symbols, the target becomes a constant in which 0 keeps the input's length at that place and
/// one −1 is worked out; Expand keeps a length by 1. What computed it is left to die.
pub static PASS: Pass = Pass {
    name: "settle_shapes",
    about: "replace computed targets of Reshape and Expand by constants with 0, -1 and 1",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["Reshape", "Expand"]);
        if nodes.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            changes += usize::from(settle(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

fn settle(editor: &mut Editor, id: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let node = editor.graph.node(id);
    let (x, v, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    if editor.constant(v).is_some() {
        return None;
    }
    let wanted = types.contents.get(v.index())?.as_ref()?;
    let from = shape(types, x);
    let target = if node.is("Expand") {
        expand_target(wanted, from?)?
    } else if node.int("allowzero").unwrap_or(0) == 0 {
        reshape_target(wanted, from)?
    } else {
        return None;
    };
    let name = format!("{}_shape", editor.graph.value(y).name);
    editor.keep_type(y, types);
    editor.set_constant(id, 1, Tensor::vector(target), &name, scope.names);
    Some(())
}

/// The target of a Reshape from `from` that gives `wanted`, with at most one −1.
pub(crate) fn reshape_target(wanted: &[Dim], from: Option<&Shape>) -> Option<Vec<i64>> {
    let kept = |i: usize, d: &Dim| from.and_then(|s| s.get(i)).is_some_and(|f| f.same(d));
    let mut open = 0;
    let target: Vec<i64> = wanted
        .iter()
        .enumerate()
        .map(|(i, d)| match d {
            Dim::Known(n) => i64::try_from(*n).ok(),
            Dim::Symbol(_) if kept(i, d) => Some(0),
            _ => {
                open += 1;
                Some(-1)
            }
        })
        .collect::<Option<_>>()?;
    let empty = |d: &Dim| d.known() == Some(0);
    (open == 0 || (open == 1 && !wanted.iter().any(empty))).then_some(target)
}

/// The target of an Expand from `from`: 1 for symbols that it has already.
fn expand_target(wanted: &[Dim], from: &Shape) -> Option<Vec<i64>> {
    let shift = wanted.len().checked_sub(from.rank());
    let same = |i: usize, d: &Dim| {
        let own = shift.and_then(|s| from.get(i.checked_sub(s)?));
        own.is_some_and(|f| f.same(d))
    };
    wanted
        .iter()
        .enumerate()
        .map(|(i, d)| match d {
            Dim::Known(n) => i64::try_from(*n).ok(),
            d if same(i, d) => Some(1),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;
    use edgesmith_ir::infer::infer;

    fn around(op: &str) -> String {
        format!(
            "opset 17
             graph g(x: f32[batch,6,4]) -> (y) {{
               s = Shape(x)
               zero: i64[1] = {{0}}
               rest: i64[2] = {{12,2}}
               open: i64[1] = {{-1}}
               b = Gather(s, zero)
               {op}
             }}"
        )
    }

    fn target_of(m: &Model) -> Option<Vec<i64>> {
        let (v, _) = m.graph.value(m.graph.outputs[0]).producer()?;
        let node = m.graph.node(v);
        m.graph.constant(node.input(1)?)?.to_i64().ok()
    }

    #[test]
    fn a_symbol_is_kept_by_zero_and_stays_a_symbol() {
        let m = run(
            &PASS,
            &around("t = Concat(b, rest) {axis=0}\ny = Reshape(x, t)"),
        );
        assert_eq!(target_of(&m), Some(vec![0, 12, 2]));
        let types = infer(&m, &[]).unwrap();
        let shape = types.tensor(m.graph.outputs[0]).unwrap().to_string();
        assert_eq!(shape, "f32[batch,12,2]");
    }

    #[test]
    fn a_symbol_at_another_place_is_worked_out() {
        let m = run(
            &PASS,
            &around("t = Concat(rest, b) {axis=0}\ny = Reshape(x, t)"),
        );
        assert_eq!(target_of(&m), Some(vec![12, 2, -1]));
        let types = infer(&m, &[]).unwrap();
        let shape = types.tensor(m.graph.outputs[0]).unwrap().to_string();
        assert_eq!(shape, "f32[12,2,batch]");
    }

    #[test]
    fn an_open_length_beside_a_kept_one_stays_open() {
        let m = run(
            &PASS,
            &around("t = Concat(b, open) {axis=0}\ny = Reshape(x, t)"),
        );
        assert_eq!(target_of(&m), Some(vec![0, -1]));
    }

    #[test]
    fn two_open_lengths_are_left_to_the_run() {
        let m = run(
            &PASS,
            &around("t = Concat(open, b) {axis=0}\ny = Reshape(x, t)"),
        );
        assert_eq!(target_of(&m), None);
    }

    #[test]
    fn expand_keeps_a_symbol_by_one_and_cannot_make_one() {
        let m = run(
            &PASS,
            &around("two: i64[2] = {6,4}\nt = Concat(b, two) {axis=0}\ny = Expand(x, t)"),
        );
        assert_eq!(target_of(&m), Some(vec![1, 6, 4]));
        let m = run(
            &PASS,
            &around(
                "w: f32[1,2] = {1,2}\ntwo: i64[1] = {2}\nt = Concat(b, two) {axis=0}\ny = Expand(w, t)",
            ),
        );
        assert_eq!(target_of(&m), None);
    }
}
