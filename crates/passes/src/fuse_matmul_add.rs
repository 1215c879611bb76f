//! Joins MatMul and the Add of its bias to Gemm.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result, Shape, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, rank, tensor_type};

/// Only products of two axes: Gemm has no others, and reshaping around it would cost more than it
/// saves. The sum is rounded as Gemm rounds it: answers agree within 1e-5 relative.
pub static PASS: Pass = Pass {
    name: "fuse_matmul_add",
    about: "join a MatMul of two axes and an Add to Gemm",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let adds = nodes_of(graph, &["Add"]);
        if scope.opset() < 7 || nodes_of(graph, &["MatMul"]).is_empty() || adds.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in adds {
            let fused = (0..2).any(|side| fuse(&mut editor, id, side, &types).is_some());
            changes += usize::from(fused);
        }
        Ok(changes)
    })
}

fn fuse(editor: &mut Editor, add: NodeId, side: usize, types: &Inferred) -> Option<()> {
    let matmul = editor.only_source(add, side, &["MatMul"])?;
    let node = editor.graph.node(matmul);
    let (a, b) = (node.input(0)?, node.input(1)?);
    let product = node.output(0)?;
    let sum = editor.graph.node(add);
    let c = sum.input(1 - side)?;
    let out = sum.output(0)?;
    let is_float = tensor_type(types, a)
        .is_some_and(|t| matches!(t.dtype, DType::F16 | DType::F32 | DType::F64 | DType::BF16));
    let two_axes = [a, b].iter().all(|&v| rank(types, v) == Some(2));
    if !is_float || !two_axes || !stretches_to(types, c, product) {
        return None;
    }
    let name = if node.name.is_empty() {
        &sum.name
    } else {
        &node.name
    };
    let mut gemm = Node::new("Gemm", name);
    gemm.metadata = node.metadata.clone();
    editor.graph.remove_node(add);
    editor.graph.remove_node(matmul);
    editor
        .graph
        .add_node(gemm, &[Some(a), Some(b), Some(c)], &[Some(out)]);
    Some(())
}

/// True where `c` broadcasts to the shape of `product` without growing it.
fn stretches_to(types: &Inferred, c: ValueId, product: ValueId) -> bool {
    let shape = |v| -> Option<&Shape> { tensor_type(types, v)?.shape.as_ref() };
    let (Some(c), Some(p)) = (shape(c), shape(product)) else {
        return false;
    };
    c.rank() <= p.rank()
        && c.iter()
            .rev()
            .zip(p.iter().rev())
            .all(|(x, y)| x.known() == Some(1) || x.same(y))
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn product(x: &str, c: &str) -> String {
        format!(
            "opset 17
             graph g(x: {x}, c: {c}) -> (y) {{
               w: f32[3,2] = {{1,2,3,4,5,6}}
               a = MatMul(x, w)
               y = Add(c, a)
             }}"
        )
    }

    #[test]
    fn a_bias_that_fits_the_product_becomes_part_of_gemm() {
        for c in ["f32[2]", "f32[4,2]", "f32[4,1]", "f32[]"] {
            assert_eq!(left(&PASS, &product("f32[4,3]", c)), ["Gemm"], "{c}");
        }
    }

    #[test]
    fn three_axes_and_a_growing_sum_stay() {
        for (x, c) in [
            ("f32[5,4,3]", "f32[2]"),
            ("f32[1,3]", "f32[4,2]"),
            ("f32[4,3]", "f32[1,4,2]"),
        ] {
            assert_eq!(left(&PASS, &product(x, c)), ["MatMul", "Add"], "{x} {c}");
        }
    }
}
