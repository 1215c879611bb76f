//! Makes a model that shows a fault smaller, as long as it still shows it.

use edgesmith_ir::infer::infer;
use edgesmith_ir::verify::verify;
use edgesmith_ir::{Model, NodeId, Type, ValueId};

/// A model that `fails` as well, with fewer outputs, nodes and inputs: the smallest that cutting
/// one thing after the other leads to. `fails` is asked of sound models only; it should hold for
/// `model`.
pub fn shrink(model: &Model, fails: &mut dyn FnMut(&Model) -> bool) -> Model {
    let mut smallest = model.clone();
    loop {
        let before = size(&smallest);
        for cut in [
            one_output,
            earlier_output,
            node_to_its_input,
            node_to_an_input,
        ] {
            cut(&mut smallest, fails);
        }
        if size(&smallest) >= before {
            return smallest;
        }
    }
}

fn size(model: &Model) -> usize {
    let g = &model.graph;
    g.outputs.len() + 4 * g.nodes().count() + g.inputs.len()
}

/// Takes `smaller` where it is sound and fails too.
fn take(smallest: &mut Model, mut smaller: Model, fails: &mut dyn FnMut(&Model) -> bool) -> bool {
    prune(&mut smaller);
    let better = size(&smaller) < size(smallest) && verify(&smaller).is_ok() && fails(&smaller);
    if better {
        *smallest = smaller;
    }
    better
}

fn one_output(smallest: &mut Model, fails: &mut dyn FnMut(&Model) -> bool) {
    for i in (0..smallest.graph.outputs.len()).rev() {
        if smallest.graph.outputs.len() > 1 {
            let mut smaller = smallest.clone();
            smaller.graph.outputs.remove(i);
            take(smallest, smaller, fails);
        }
    }
}

/// The first value in the order of running that fails as the only output.
fn earlier_output(smallest: &mut Model, fails: &mut dyn FnMut(&Model) -> bool) {
    let Ok(order) = smallest.graph.order() else {
        return;
    };
    let made: Vec<ValueId> = order
        .iter()
        .flat_map(|&id| smallest.graph.node(id).outputs().iter().flatten().copied())
        .collect();
    for v in made {
        let mut smaller = smallest.clone();
        smaller.graph.outputs = vec![v];
        if take(smallest, smaller, fails) {
            return;
        }
    }
}

/// Each node that is replaced by one of its inputs.
fn node_to_its_input(smallest: &mut Model, fails: &mut dyn FnMut(&Model) -> bool) {
    let nodes: Vec<NodeId> = smallest.graph.nodes().map(|(id, _)| id).collect();
    for id in nodes.into_iter().rev() {
        let Some(node) = smallest.graph.get_node(id) else {
            continue;
        };
        let (inputs, out) = (node.inputs().to_vec(), node.output(0));
        let Some(out) = out else { continue };
        for same in inputs.into_iter().flatten() {
            let mut smaller = smallest.clone();
            smaller.graph.remove_node(id);
            replace(&mut smaller, out, same);
            if take(smallest, smaller, fails) {
                break;
            }
        }
    }
}

/// Each node that is replaced by an input of the graph.
fn node_to_an_input(smallest: &mut Model, fails: &mut dyn FnMut(&Model) -> bool) {
    let nodes: Vec<NodeId> = smallest.graph.nodes().map(|(id, _)| id).collect();
    for id in nodes.into_iter().rev() {
        let (Some(node), Ok(types)) = (smallest.graph.get_node(id), infer(smallest, &[])) else {
            continue;
        };
        let Some(out) = node.output(0) else { continue };
        let Some(Type::Tensor(ty)) = types.types[out.index()].clone() else {
            continue;
        };
        let named = |s: &edgesmith_ir::Shape| s.iter().all(|d| *d != edgesmith_ir::Dim::Unknown);
        if !ty.shape.as_ref().is_some_and(named) {
            continue;
        }
        let mut smaller = smallest.clone();
        smaller.graph.remove_node(id);
        let input = smaller.graph.add_input(&format!("cut_{}", out.index()), ty);
        replace(&mut smaller, out, input);
        take(smallest, smaller, fails);
    }
}

fn replace(model: &mut Model, old: ValueId, new: ValueId) {
    model.graph.replace_uses(old, new);
    for v in &mut model.graph.outputs {
        if *v == old {
            *v = new;
        }
    }
}

/// Removes what no output depends on, inputs too.
fn prune(model: &mut Model) {
    let graph = &mut model.graph;
    let mut alive = vec![false; graph.value_slots()];
    let mut open = graph.outputs.clone();
    while let Some(v) = open.pop() {
        if std::mem::replace(&mut alive[v.index()], true) {
            continue;
        }
        if let Some((id, _)) = graph.value(v).producer() {
            let node = graph.node(id);
            open.extend(node.inputs().iter().flatten());
            let captures = node.subgraphs().flat_map(|g| &g.captures);
            open.extend(captures.map(|c| c.outer));
        }
    }
    let dead: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| !n.outputs().iter().flatten().any(|v| alive[v.index()]))
        .map(|(id, _)| id)
        .collect();
    for id in dead {
        graph.remove_node(id);
    }
    graph.inputs.retain(|v| alive[v.index()]);
    let constants: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
    for v in constants {
        if !alive[v.index()] {
            graph.value_mut(v).constant = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn what_has_nothing_to_do_with_the_fault_goes() {
        let mut shrunk = 0;
        for seed in 0..200 {
            let model = random::graph(seed);
            let has = |m: &Model| m.graph.nodes().any(|(_, n)| n.is("Conv"));
            if has(&model) {
                let small = shrink(&model, &mut |m| has(m));
                assert!(verify(&small).is_ok() && has(&small));
                assert_eq!(small.graph.nodes().count(), 1, "seed {seed}");
                shrunk += 1;
            }
        }
        assert!(shrunk > 10);
    }
}
