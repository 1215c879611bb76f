//! Puts the body of a Loop that runs once, or what it starts from where it never runs, in its place.

use edgesmith_ir::{Graph, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Scope, each_graph, nodes_of};
use crate::splice::splice;

/// The number of rounds is constant, and the first condition is constant true or left out. A Loop
/// of no rounds that collects something stays.
pub static PASS: Pass = Pass {
    name: "inline_constant_loop",
    about: "replace a Loop of no or one round by its body",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let mut changes = 0;
        for id in nodes_of(graph, &["Loop"]) {
            changes += usize::from(inline(graph, id, scope).is_some());
        }
        Ok(changes)
    })
}

fn inline(graph: &mut Graph, id: NodeId, scope: &mut Scope) -> Option<()> {
    let node = graph.node(id);
    let rounds = graph.constant(node.input(0)?)?.to_i64().ok()?;
    let goes = match node.input(1) {
        None => true,
        Some(v) => graph.constant(v)?.bools().ok()?.first().copied()?,
    };
    let body = node.graph("body")?;
    let carried = body.inputs.len().checked_sub(2)?;
    let starts: Vec<Option<ValueId>> = (0..carried).map(|i| node.input(i + 2)).collect();
    let outputs = node.outputs().to_vec();
    if body.outputs.len() != outputs.len() + 1 || outputs.len() < carried {
        return None;
    }
    if !goes || rounds == [0] {
        let plain = outputs.iter().skip(carried).all(Option::is_none);
        if !plain || starts.iter().any(Option::is_none) {
            return None;
        }
        graph.remove_node(id);
        for (start, out) in starts.into_iter().zip(outputs) {
            if out.is_some() {
                graph.add_node(Node::new("Identity", ""), &[start], &[out]);
            }
        }
        return Some(());
    }
    if rounds != [1] {
        return None;
    }
    let mut body = body.clone();
    body.outputs.remove(0);
    let first = graph.add_constant(&scope.names.fresh("round"), Tensor::scalar(0i64));
    let yes = Tensor::from_bools(&[], &[true]).ok()?;
    let yes = graph.add_constant(&scope.names.fresh("goes_on"), yes);
    let inputs = [&[Some(first), Some(yes)], starts.as_slice()].concat();
    let collected: Vec<(ValueId, ValueId)> = (carried..outputs.len())
        .filter_map(|o| {
            let out = outputs[o]?;
            let one = graph.add_value(&scope.names.fresh("collected"), None);
            graph.set_output(id, o, Some(one));
            Some((one, out))
        })
        .collect();
    splice(graph, id, &body, &inputs, scope.names);
    for (one, all) in collected {
        stack(graph, one, all, scope);
    }
    Some(())
}

/// `all` has a first axis of length 1 more than `one`.
fn stack(graph: &mut Graph, one: ValueId, all: ValueId, scope: &mut Scope) {
    let mut node = Node::new("Unsqueeze", "");
    let mut inputs = vec![Some(one)];
    if scope.opset() < 13 {
        node.set("axes", edgesmith_ir::Attribute::Ints(vec![0]));
    } else {
        let axes = graph.add_constant(&scope.names.fresh("axes"), Tensor::vector(vec![0i64]));
        inputs.push(Some(axes));
    }
    graph.add_node(node, &inputs, &[Some(all)]);
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(rounds: i64, goes: bool) -> Vec<String> {
        let text = format!(
            "opset 17
             graph g(x: f32[2]) -> (y: f32[2]) {{
               n: i64[] = {{{rounds}}}
               c: bool[] = {{{goes}}}
               h = Loop(n, c, x) {{
                 body=graph b(i: i64[], go: bool[], v: f32[2]) -> (stop: bool[], w: f32[2]) {{
                   capture x = x
                   stop = Not(go)
                   w = Sub(x, v) }}}}
               y = Relu(h)
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn one_round_is_the_body_and_none_is_the_start() {
        let mut once = around(1, true);
        once.sort();
        assert_eq!(once, ["Not", "Relu", "Sub"]);
        assert_eq!(around(0, true), ["Identity", "Relu"]);
        assert_eq!(around(5, false), ["Identity", "Relu"]);
        assert_eq!(around(2, true), ["Loop", "Relu"]);
    }

    #[test]
    fn what_one_round_collects_gets_an_axis() {
        let text = "opset 17
            graph g(x: f32[2]) -> (y: f32[2], all: f32[1,2]) {
              n: i64[] = {1}
              y, all = Loop(n, _, x) {
                body=graph b(i: i64[], go: bool[], v: f32[2])
                  -> (more: bool[], w: f32[2], u: f32[2]) {
                  more = Identity(go)
                  w = Neg(v)
                  u = Relu(w) }}
            }";
        let mut ops = left(&PASS, text);
        ops.sort();
        assert_eq!(ops, ["Identity", "Neg", "Relu", "Unsqueeze"]);
    }
}
