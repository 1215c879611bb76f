//! Puts the bodies of the model's functions in place of their calls.

use std::collections::BTreeSet;

use edgesmith_ir::eval::bind_attributes;
use edgesmith_ir::{Function, Graph, Model, Node, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Scope, each_graph};
use crate::splice::splice;

/// Functions that call themselves stay, and those whose body is written for another opset version
/// than the model. A function without calls is dropped.
pub static PASS: Pass = Pass {
    name: "inline_functions",
    about: "replace calls of model functions by their bodies",
    level: Level::Basic,
    run,
};

/// Graphs are not grown past so many nodes.
const MAX_NODES: usize = 1 << 20;

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    if model.functions.is_empty() {
        return Ok(0);
    }
    let wanted: Vec<bool> = (0..model.functions.len())
        .map(|i| !is_recursive(model, i) && agrees_on_opsets(model, &model.functions[i]))
        .collect();
    for (f, _) in model.functions.iter().zip(&wanted).filter(|(_, w)| **w) {
        for (domain, &version) in &f.opsets {
            model.opsets.entry(domain.clone()).or_insert(version);
        }
    }
    let mut changes = each_graph(model, cx, &mut |graph, scope| {
        Ok(inline_calls(graph, scope, &wanted))
    })?;
    changes += drop_uncalled(model);
    Ok(changes)
}

fn position(functions: &[Function], node: &Node) -> Option<usize> {
    functions
        .iter()
        .position(|f| f.name == node.op && f.domain == node.domain && f.overload == node.overload)
}

/// True where the function can reach itself through calls.
fn is_recursive(model: &Model, start: usize) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(i) = open.pop() {
        let mut calls = BTreeSet::new();
        collect_calls(&model.functions, &model.functions[i].graph, &mut calls);
        if calls.contains(&start) {
            return true;
        }
        open.extend(calls.into_iter().filter(|&c| seen.insert(c)));
    }
    false
}

fn collect_calls(functions: &[Function], graph: &Graph, calls: &mut BTreeSet<usize>) {
    for (_, node) in graph.nodes() {
        calls.extend(position(functions, node));
        for inner in node.subgraphs() {
            collect_calls(functions, inner, calls);
        }
    }
}

fn agrees_on_opsets(model: &Model, f: &Function) -> bool {
    f.opsets
        .iter()
        .all(|(domain, version)| model.opsets.get(domain).is_none_or(|v| v == version))
}

fn inline_calls(graph: &mut Graph, scope: &mut Scope, wanted: &[bool]) -> usize {
    let mut changes = 0;
    loop {
        let calls: Vec<(NodeId, usize)> = graph
            .nodes()
            .filter_map(|(id, n)| Some((id, position(scope.functions, n)?)))
            .filter(|&(_, f)| wanted[f])
            .collect();
        if calls.is_empty() || graph.node_slots() > MAX_NODES {
            return changes;
        }
        for (id, f) in calls {
            inline(graph, id, &scope.functions[f], scope);
            changes += 1;
        }
    }
}

fn inline(graph: &mut Graph, id: NodeId, f: &Function, scope: &mut Scope) {
    let node = graph.node(id);
    let mut body = f.graph.clone();
    bind_attributes(&mut body, &|name| {
        let default = f.defaults.iter().find(|(n, _)| n == name).map(|(_, a)| a);
        node.attribute(name).or(default).cloned()
    });
    let inputs = node.inputs().to_vec();
    splice(graph, id, &body, &inputs, scope.names);
}

fn drop_uncalled(model: &mut Model) -> usize {
    let mut alive = BTreeSet::new();
    collect_calls(&model.functions, &model.graph, &mut alive);
    let mut open: Vec<usize> = alive.iter().copied().collect();
    while let Some(i) = open.pop() {
        let mut calls = BTreeSet::new();
        collect_calls(&model.functions, &model.functions[i].graph, &mut calls);
        open.extend(calls.into_iter().filter(|&c| alive.insert(c)));
    }
    let before = model.functions.len();
    let mut i = 0;
    model.functions.retain(|_| {
        i += 1;
        alive.contains(&(i - 1))
    });
    before - model.functions.len()
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{ops, run};

    #[test]
    fn bodies_stand_in_place_of_calls_and_calls_inside_them() {
        let text = r#"
            opset 17
            opset "my" 1
            function "my" "Scale" ""
            opset 17
            attribute factor = 2.0
            graph f(p, unused) -> (r) {
              f = Constant() {value_float=ref "factor" 1}
              r = Mul(p, f)
            }
            function "my" "Both" ""
            opset 17
            opset "my" 1
            graph f(p) -> (r, p2) {
              p2 = my.Scale(p) {factor=3.0}
              r = my.Scale(p2)
            }
            graph g(x: f32[2]) -> (y, z) {
              y, z = my.Both(x) {name="call"}
            }"#;
        let m = run(&PASS, text);
        assert_eq!(ops(&m), ["Constant", "Mul", "Constant", "Mul"]);
        assert!(m.functions.is_empty());
    }

    #[test]
    fn a_function_of_another_opset_stays() {
        let text = r#"
            opset 17
            opset "my" 1
            function "my" "Act" ""
            opset 13
            graph f(p) -> (r) { r = Relu(p) }
            graph g(x: f32[2]) -> (y) { y = my.Act(x) }"#;
        assert_eq!(ops(&run(&PASS, text)), ["Act"]);
    }
}
