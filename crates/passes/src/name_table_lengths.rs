//! Names the length of constant tables that are cut to a named length.

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Dim, Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, tensor_type};

/// Position ids and masks are constants that a Slice cuts to the length of a sentence. Inference
/// cannot say that the sentence is not longer than the table; but where it were, what the slice is
/// added to would not fit, so the type says that both lengths are one.
pub static PASS: Pass = Pass {
    name: "name_table_lengths",
    about: "name the lengths of constants that are cut to the length of an input",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let slices = nodes_of(graph, &["Slice"]);
        if slices.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in slices {
            changes += usize::from(name(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn name(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let node = editor.graph.node(id);
    let (table, ends, y) = (node.input(0)?, node.input(2)?, node.output(0)?);
    let is_one = |i: usize| editor.ints(id, "", i).is_some_and(|v| v == [1]);
    let from_start = editor.ints(id, "starts", 1)? == [0];
    let by_one = node.input(4).is_none() || is_one(4);
    let axes = editor.ints(id, "axes", 3)?;
    let end = types.contents.get(ends.index())?.as_ref()?;
    let mut ty = tensor_type(types, y)?.clone();
    let shape = ty.shape.as_mut()?;
    let ([axis], [Dim::Symbol(_)]) = (axes.as_slice(), end.as_slice()) else {
        return None;
    };
    let axis = infer::axis(*axis, shape.rank()).ok()?;
    editor.constant(table)?;
    if !from_start || !by_one || shape[axis] != Dim::Unknown {
        return None;
    }
    shape.0[axis] = end[0].clone();
    let ty = Some(ty.into());
    if editor.graph.value(y).ty == ty {
        return None;
    }
    editor.graph.value_mut(y).ty = ty;
    Some(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::infer::infer;

    use super::PASS;
    use crate::testing::run;

    #[test]
    fn a_table_cut_to_a_named_length_has_it() {
        let m = run(
            &PASS,
            "opset 17
             graph g(x: f32[b,s]) -> (y) {
               table: f32[1,6] = {0,1,2,3,4,5}
               zero: i64[1] = {0}
               one: i64[1] = {1}
               lengths = Shape(x)
               end = Gather(lengths, one)
               cut = Slice(table, zero, end, one)
               y = Add(x, cut)
             }",
        );
        let y = m.graph.outputs[0];
        let types = infer(&m, &[]).unwrap();
        assert_eq!(types.tensor(y).unwrap().to_string(), "f32[b,s]");
    }
}
