//! Lets Gemm read what a Transpose in front of it reads.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, Model, NodeId, Result};

use crate::merge_transposes::order;
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of};

/// By its attributes transA and transB.
pub static PASS: Pass = Pass {
    name: "fuse_gemm_transpose",
    about: "let Gemm transpose by its attributes",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let gemms = nodes_of(graph, &["Gemm"]);
        if gemms.is_empty() || nodes_of(graph, &["Transpose"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in gemms {
            for (i, name) in [(0, "transA"), (1, "transB")] {
                changes += usize::from(fuse(&mut editor, id, i, name, &types).is_some());
            }
        }
        Ok(changes)
    })
}

fn fuse(editor: &mut Editor, gemm: NodeId, i: usize, name: &str, types: &Inferred) -> Option<()> {
    let transpose = editor.source(gemm, i, &["Transpose"])?;
    if order(editor, transpose, types)? != [1, 0] {
        return None;
    }
    let x = editor.graph.node(transpose).input(0)?;
    let node = editor.graph.node_mut(gemm);
    let turned = i64::from(node.int(name).unwrap_or(0) == 0);
    node.set(name, Attribute::Int(turned));
    editor.graph.set_input(gemm, i, Some(x));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::run;

    #[test]
    fn both_sides_are_read_as_they_are() {
        let text = "opset 17
            graph g(x: f32[2,4], w: f32[3,2]) -> (y) {
              a = Transpose(x) {perm=[1,0]}
              b = Transpose(w)
              y = Gemm(a, b)
            }";
        let m = run(&PASS, text);
        let (id, _) = m.graph.value(m.graph.outputs[0]).producer().unwrap();
        let gemm = m.graph.node(id);
        assert_eq!(gemm.input(0), Some(m.graph.inputs[0]));
        assert_eq!((gemm.int("transA"), gemm.int("transB")), (Some(1), Some(1)));
    }
}
