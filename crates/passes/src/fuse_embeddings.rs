//! Joins the rows of words, positions and segments and the norm of their sum.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::fuse_skip_norm::is_over_last_axis;
use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph};
use crate::rewrite::{Editor, Scope, nodes_of};

/// Two or three Gathers from constant tables of f32, added in any order before a
/// LayerNormalization. Ids are cast to i32, which the node asks for; positions that count up from 0
/// are left out.
pub static PASS: Pass = Pass {
    name: "fuse_embeddings",
    about: "join embeddings and their norm to EmbedLayerNormalization",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let norms = nodes_of(graph, &["LayerNormalization"]);
        if norms.is_empty() || nodes_of(graph, &["Gather"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in norms {
            changes += usize::from(fuse(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

/// A table and the ids of the rows that are read from it.
#[derive(Clone, Copy)]
struct Lookup {
    table: ValueId,
    ids: ValueId,
}

struct Found {
    nodes: Vec<NodeId>,
    words: Lookup,
    segments: Option<Lookup>,
    positions: Lookup,
    counts: bool,
}

fn lookups(g: &mut Group, v: ValueId, found: &mut Vec<Lookup>) -> Option<()> {
    let id = g.take(v, &["Add", "Gather"])?;
    let node = g.node(id);
    let (a, b) = (node.input(0)?, node.input(1)?);
    if node.is("Add") {
        if found.len() > 1 || a == b {
            return None;
        }
        lookups(g, a, found)?;
        return lookups(g, b, found);
    }
    let table = g.editor.constant(a)?;
    if node.int("axis").unwrap_or(0) != 0 || table.rank() != 2 || table.dtype() != DType::F32 {
        return None;
    }
    found.push(Lookup { table: a, ids: b });
    Some(())
}

fn find(editor: &Editor, norm: NodeId, types: &Inferred) -> Option<Found> {
    let mut g = Group::new(editor, types);
    g.nodes.push(norm);
    let node = g.node(norm);
    let (sum, y) = (node.input(0)?, node.output(0)?);
    if !is_over_last_axis(&g, norm) || node.input(2).is_none() || g.shape(sum)?.rank() != 3 {
        return None;
    }
    let mut all = Vec::new();
    lookups(&mut g, sum, &mut all)?;
    if !(2..=3).contains(&all.len()) {
        return None;
    }
    let rows = g.shape(sum)?;
    let is_whole = |l: &Lookup| {
        let ids = g.shape(l.ids);
        ids.is_some_and(|s| s.rank() == 2 && s[0].same(&rows[0]) && s[1].same(&rows[1]))
    };
    let counting = all.iter().position(|l| counts_up(&g, l.ids, sum));
    // Without ids that count, the last that stand for whole sentences or for one are positions.
    let at = counting.or_else(|| all.iter().position(|l| !is_whole(l)))?;
    let positions = all.remove(at);
    if counting.is_none() && g.shape(positions.ids)?.rank() != 2 {
        return None;
    }
    if !all.iter().all(is_whole) {
        return None;
    }
    let length = |l: &Lookup| g.editor.constant(l.table).map_or(0, |t| t.dims()[0]);
    all.sort_by_key(|l| std::cmp::Reverse(length(l)));
    Some(Found {
        words: all[0],
        segments: all.get(1).copied(),
        positions,
        counts: counting.is_some(),
        nodes: g.closed(&[y])?,
    })
}

/// True where ids are 0, 1, 2 … along the second axis of `sum`.
fn counts_up(g: &Group, ids: ValueId, sum: ValueId) -> bool {
    let (Some(shape), Some(rows)) = (g.shape(ids), g.shape(sum)) else {
        return false;
    };
    let one_sentence = match shape.rank() {
        1 => true,
        2 => shape[0].known() == Some(1),
        _ => false,
    };
    if !one_sentence || !shape.0.last().is_some_and(|d| d.same(&rows[1])) {
        return false;
    }
    let counts = |v: ValueId| {
        let data = g.editor.constant(v).and_then(|t| t.to_i64().ok());
        data.is_some_and(|d| d.iter().enumerate().all(|(i, &x)| x == i as i64))
    };
    if g.editor.constant(ids).is_some() {
        return counts(ids);
    }
    let Some(slice) = g.peek(ids, &["Slice"]) else {
        return false;
    };
    let given = |i: usize, name: &str| g.editor.ints(slice, name, i);
    let node = g.node(slice);
    let last = shape.rank() as i64 - 1;
    let along = given(3, "axes").is_some_and(|a| a == [last] || a == [-1]);
    let steps = node.input(4).is_none() || given(4, "steps").is_some_and(|s| s == [1]);
    let from_start = given(1, "starts").is_some_and(|s| s == [0]);
    along && steps && from_start && node.input(0).is_some_and(counts)
}

fn fuse(editor: &mut Editor, norm: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let found = find(editor, norm, types)?;
    let node = editor.graph.node(norm);
    let (gamma, beta, y) = (node.input(1), node.input(2), node.output(0));
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let mut ids = |v: ValueId| {
        let dtype = crate::rewrite::tensor_type(types, v).map(|t| t.dtype);
        if dtype == Some(DType::I32) {
            return v;
        }
        let name = scope
            .names
            .fresh(&format!("{}_i32", editor.graph.value(v).name));
        let to = Attribute::Int(i64::from(DType::I32.onnx()));
        let cast = Node::new("Cast", &name).with("to", to);
        editor.graph.add_op(cast, &[v], &name)
    };
    let words = ids(found.words.ids);
    let segments = found.segments.map(|s| ids(s.ids));
    let positions = (!found.counts).then(|| ids(found.positions.ids));
    let fused = Node::new("EmbedLayerNormalization", "")
        .in_domain(MICROSOFT)
        .with("epsilon", Attribute::Float(epsilon));
    let inputs = [
        Some(words),
        segments,
        Some(found.words.table),
        Some(found.positions.table),
        found.segments.map(|s| s.table),
        gamma,
        beta,
        None,
        positions,
    ];
    // ONNX Runtime asks for a second output.
    let mask = scope.names.fresh("mask_index");
    let mask = editor.graph.add_value(&mask, None);
    editor.fuse(&found.nodes, fused, &inputs, &[y, Some(mask)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{ops, run};

    fn model(positions: &str) -> edgesmith_ir::Model {
        let text = format!(
            "opset 17
             graph g(x: f32[2], flag: bool[2,3]) -> (y) {{
               words: f32[5,2] = {{1,2,3,4,5,6,7,8,9,10}}
               places: f32[4,2] = {{0.5,1,2,-3,1,4,2,0}}
               parts: f32[2,2] = {{0.25,1,2,-1}}
               gamma: f32[2] = {{1,2}}
               beta: f32[2] = {{0,1}}
               ids = Cast(flag) {{to=7}}
               w = Gather(words, ids)
               s = Gather(parts, ids)
               {positions}
               p = Gather(places, at)
               a = Add(w, s)
               b = Add(a, p)
               y = LayerNormalization(b, gamma, beta)
             }}"
        );
        run(&PASS, &text)
    }

    #[test]
    fn three_tables_and_the_norm_become_one() {
        for (positions, given) in [
            ("at: i64[1,3] = {0,1,2}", false),
            ("at: i64[3] = {0,1,2}", false),
            ("at: i64[1,3] = {2,1,3}", true),
        ] {
            let m = model(positions);
            assert_eq!(ops(&m).last().unwrap(), "EmbedLayerNormalization");
            let (_, node) = (m.graph.nodes())
                .find(|(_, n)| n.op == "EmbedLayerNormalization")
                .unwrap();
            assert_eq!(node.input(8).is_some(), given, "{positions}");
        }
    }
}
