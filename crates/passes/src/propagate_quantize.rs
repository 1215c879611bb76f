//! Lets nodes that only move elements move integers instead of floats.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, Model, NodeId, Result};

use crate::merge_transposes::order;
use crate::pass::{Level, Pass, PassCx};
use crate::quantization::{Grid, copy};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, shape};

/// DequantizeLinear moves behind a Reshape, Flatten, Squeeze, Unsqueeze, Transpose or Slice that
/// alone reads it, and QuantizeLinear in front of all of these but Slice; both across a Gather that
/// lays all indices of an axis in another order. Scales by axis move only across Transpose. Moving and quantising element by element commute: bit for bit. A pair that
/// then meets cancels.
pub static PASS: Pass = Pass {
    name: "propagate_quantize",
    about: "move QuantizeLinear and DequantizeLinear across nodes that only move elements",
    level: Level::Basic,
    run,
};

const MOVERS: &[&str] = &[
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let quantizers = nodes_of(graph, &["QuantizeLinear", "DequantizeLinear"]);
        if quantizers.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let order = graph.order()?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in order {
            let is_mover = MOVERS.iter().any(|op| editor.graph.node(id).is(op));
            if is_mover || is_shuffle(&editor, id, &types) {
                changes += usize::from(move_down(&mut editor, id, &types, scope).is_some());
            }
        }
        for id in quantizers.into_iter().rev() {
            if editor
                .graph
                .get_node(id)
                .is_some_and(|n| n.is("QuantizeLinear"))
            {
                changes += usize::from(move_up(&mut editor, id, &types, scope).is_some());
            }
        }
        Ok(changes)
    })
}

/// DequantizeLinear → mover becomes mover → DequantizeLinear.
fn move_down(
    editor: &mut Editor,
    mover: NodeId,
    types: &Inferred,
    scope: &mut Scope,
) -> Option<()> {
    let dequantize = editor.only_source(mover, 0, &["DequantizeLinear"])?;
    let integers = editor.graph.node(dequantize).input(0)?;
    let grid = Grid::of(editor, dequantize, integers, types)?;
    let mut new = copy(editor.graph.node(dequantize));
    if let Some(axis) = grid.axis {
        let order = transposed(editor, mover, types)?;
        let from = edgesmith_ir::infer::axis(axis, order.len()).ok()?;
        let to = order.iter().position(|&a| a == from)?;
        new.set("axis", Attribute::Int(i64::try_from(to).ok()?));
    }
    let out = editor.graph.node(mover).output(0)?;
    let parameters = editor.graph.node(dequantize).inputs()[1..].to_vec();
    let name = format!("{}_quantized", editor.graph.value(out).name);
    let moved = editor.graph.add_value(&scope.names.fresh(&name), None);
    editor.graph.set_output(mover, 0, Some(moved));
    editor.graph.set_input(mover, 0, Some(integers));
    editor.graph.remove_node(dequantize);
    let inputs = [&[Some(moved)], parameters.as_slice()].concat();
    editor.graph.add_node(new, &inputs, &[Some(out)]);
    Some(())
}

/// Mover → QuantizeLinear becomes QuantizeLinear → mover.
fn move_up(
    editor: &mut Editor,
    quantize: NodeId,
    types: &Inferred,
    scope: &mut Scope,
) -> Option<()> {
    let mover = editor.only_source(quantize, 0, &MOVERS[..5]);
    let shuffle = || editor.only_source(quantize, 0, &["Gather"]);
    let mover = mover.or_else(|| shuffle().filter(|id| is_shuffle(editor, *id, types)))?;
    let out = editor.graph.node(quantize).output(0)?;
    let grid = Grid::of(editor, quantize, out, types)?;
    let mut new = copy(editor.graph.node(quantize));
    if let Some(axis) = grid.axis {
        let order = transposed(editor, mover, types)?;
        let to = edgesmith_ir::infer::axis(axis, order.len()).ok()?;
        new.set("axis", Attribute::Int(i64::try_from(order[to]).ok()?));
    }
    let x = editor.graph.node(mover).input(0)?;
    let parameters = editor.graph.node(quantize).inputs()[1..].to_vec();
    let name = format!("{}_quantized", editor.graph.value(x).name);
    let quantized = editor.graph.add_value(&scope.names.fresh(&name), None);
    editor.graph.remove_node(quantize);
    editor.graph.set_output(mover, 0, Some(out));
    editor.graph.set_input(mover, 0, Some(quantized));
    let inputs = [&[Some(x)], parameters.as_slice()].concat();
    editor.graph.add_node(new, &inputs, &[Some(quantized)]);
    Some(())
}

/// True of a Gather that lays all indices of an axis in another order.
fn is_shuffle(editor: &Editor, id: NodeId, types: &Inferred) -> bool {
    let node = editor.graph.node(id);
    let length = || {
        let dims = shape(types, node.input(0)?)?;
        let axis = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(0), dims.rank()).ok()?;
        let length = dims.get(axis)?.known()?;
        let places = editor.constant(node.input(1)?)?;
        let mut places = places
            .to_i64()
            .ok()
            .filter(|_| places.rank() == 1)?
            .to_vec();
        places.sort_unstable();
        let is_all = places.iter().enumerate().all(|(i, &p)| p == i as i64);
        Some(is_all && places.len() == length)
    };
    node.is("Gather") && length() == Some(true)
}

fn transposed(editor: &Editor, mover: NodeId, types: &Inferred) -> Option<Vec<usize>> {
    let is = editor.graph.node(mover).is("Transpose");
    is.then(|| order(editor, mover, types))?
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{left, run};

    fn around(ops: &str) -> String {
        format!(
            "opset 17
             graph g(x: u8[2,3,4], f: f32[2,3,4]) -> (y) {{
               s: f32[] = {{0.5}}
               z: u8[] = {{7}}
               by: f32[3] = {{0.5,0.25,2}}
               zs: u8[3] = {{7,0,9}}
               t: i64[2] = {{0,-1}}
               {ops}
             }}"
        )
    }

    #[test]
    fn movers_move_integers() {
        for (ops, expected) in [
            (
                "d = DequantizeLinear(x, s, z)\na = Reshape(d, t)\nb = Transpose(a)\ny = Sigmoid(b)",
                ["Reshape", "Transpose", "DequantizeLinear", "Sigmoid"],
            ),
            (
                "a = Reshape(f, t)\nb = Transpose(a)\nq = QuantizeLinear(b, s, z)\n\
                 y = DequantizeLinear(q, s, z)",
                ["QuantizeLinear", "Reshape", "Transpose", "DequantizeLinear"],
            ),
            (
                "d = DequantizeLinear(x, by, zs)\na = Transpose(d) {perm=[2,0,1]}\n\
                 b = Transpose(a) {perm=[1,0,2]}\ny = Sigmoid(b)",
                ["Transpose", "Transpose", "DequantizeLinear", "Sigmoid"],
            ),
        ] {
            assert_eq!(left(&PASS, &around(ops)), expected, "{ops}");
        }
    }

    #[test]
    fn a_gather_of_all_indices_moves_integers_and_one_of_some_does_not() {
        let of = |places: &str, count: usize| {
            let ops = format!(
                "p: i64[{count}] = {{{places}}}\na = Gather(f, p) {{axis=1}}\nq = QuantizeLinear(a, s, z)\n\
                 y = DequantizeLinear(q, s, z)"
            );
            left(&PASS, &around(&ops))
        };
        let moved = ["QuantizeLinear", "Gather", "DequantizeLinear"];
        assert_eq!(of("2,0,1", 3), moved);
        let stays = ["Gather", "QuantizeLinear", "DequantizeLinear"];
        assert_eq!(of("2,0", 2), stays);
        assert_eq!(of("2,0,0", 3), stays);
        let down = "p: i64[3] = {2,0,1}\nd = DequantizeLinear(x, s, z)\na = Gather(d, p) {axis=-2}\ny = Sigmoid(a)";
        assert_eq!(
            left(&PASS, &around(down)),
            ["Gather", "DequantizeLinear", "Sigmoid"]
        );
        let by_axis = "p: i64[3] = {2,0,1}\nd = DequantizeLinear(x, by, zs)\na = Gather(d, p) {axis=1}\ny = Sigmoid(a)";
        assert_eq!(left(&PASS, &around(by_axis))[0], "DequantizeLinear");
    }

    #[test]
    fn the_axis_of_the_scales_follows_a_transpose() {
        let ops = "a = Transpose(f) {perm=[2,0,1]}\nq = QuantizeLinear(a, by, zs) {axis=2}\n\
                   y = DequantizeLinear(q, by, zs) {axis=-1}";
        let m = run(&PASS, &around(ops));
        let mut axes = m.graph.nodes().filter(|(_, n)| n.is("QuantizeLinear"));
        assert_eq!(axes.next().unwrap().1.int("axis"), Some(1));
    }

    #[test]
    fn scales_by_axis_do_not_cross_a_reshape_and_shared_floats_stay() {
        for ops in [
            "d = DequantizeLinear(x, by, zs)\ny = Reshape(d, t)",
            "d = DequantizeLinear(x, s, z)\na = Reshape(d, t)\nb = Reshape(d, t)\ny = Sub(a, b)",
        ] {
            assert_eq!(left(&PASS, &around(ops))[0], "DequantizeLinear", "{ops}");
        }
    }
}
