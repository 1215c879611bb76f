//! Blocks of a network: parts between values through which all passes.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Model, NodeId, Result, ValueId};

/// Products of a part without an inner cut beyond which it is no block: it would take too much at
/// once.
const MOST: usize = 8;

/// Products of a chain that are taken together.
const PAIR: usize = 2;

/// A part of a float model with one value that enters and one that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The name of the value that enters.
    pub entry: String,
    /// The name of the value that leaves.
    pub exit: String,
    /// Its products, by name, in order.
    pub products: Vec<String>,
}

/// What lies between two neighbouring cuts.
struct Segment {
    entry: ValueId,
    exit: ValueId,
    products: Vec<String>,
}

/// The blocks of a float model, in order: a part around a residual sum, or two products of a chain,
/// each with the functions of one element behind it. `learns` says whose rounding is learned, by the
/// name of the node, and `is_there` which values can end a block. A product without a block is in none.
///
/// # Errors
/// When the graph has a cycle, or a shape rule fails.
pub fn blocks(
    model: &Model,
    learns: &dyn Fn(&str) -> bool,
    is_there: &dyn Fn(&str) -> bool,
) -> Result<Vec<Block>> {
    let types = infer::infer(model, &[])?;
    let segments = segments(model, learns)?;
    let mut all: Vec<Segment> = Vec::new();
    // Whether the last block may take more.
    let mut open = false;
    for segment in segments {
        let Some(last) = all.last_mut().filter(|_| open) else {
            open = segment.products.len() < PAIR;
            all.push(segment);
            continue;
        };
        let grows = match (last.products.len(), segment.products.len()) {
            (0, _) => true,
            (_, 0) => same_shape(&types, last.exit, segment.exit),
            (a, b) => a + b <= PAIR,
        };
        if grows {
            last.exit = segment.exit;
            last.products.extend(segment.products);
        } else {
            all.push(segment);
        }
        // A full block still takes the functions of one element behind it.
        open = true;
    }
    let name = |v: ValueId| model.graph.value(v).name.clone();
    let found = all.into_iter().map(|s| Block {
        entry: name(s.entry),
        exit: name(s.exit),
        products: s.products,
    });
    let usable = |b: &Block| {
        (1..=MOST).contains(&b.products.len()) && is_there(&b.entry) && is_there(&b.exit)
    };
    Ok(found.filter(usable).collect())
}

/// True where both values are of one known shape behind their batch.
fn same_shape(types: &Inferred, a: ValueId, b: ValueId) -> bool {
    let shape = |v: ValueId| types.tensor(v).and_then(|t| t.shape.as_ref());
    let (Some(a), Some(b)) = (shape(a), shape(b)) else {
        return false;
    };
    a.len() == b.len() && a.iter().zip(b.iter()).skip(1).all(|(a, b)| a.same(b))
}

/// The parts between neighbouring cuts, in order.
fn segments(model: &Model, learns: &dyn Fn(&str) -> bool) -> Result<Vec<Segment>> {
    let graph = &model.graph;
    let order = graph.order()?;
    let moving = moving(model, &order);
    // Where each value is made, from 1 on, and read last.
    let mut lives: BTreeMap<ValueId, (usize, usize)> = BTreeMap::new();
    let inputs = graph.inputs.iter().filter(|v| moving.contains(v));
    lives.extend(inputs.map(|&v| (v, (0, 0))));
    for (at, &id) in order.iter().enumerate() {
        let node = graph.node(id);
        let captured = node.subgraphs().flat_map(|g| g.captures.iter());
        let read = node.inputs().iter().flatten().copied();
        for v in read.chain(captured.map(|c| c.outer)) {
            if let Some(life) = lives.get_mut(&v) {
                life.1 = at + 1;
            }
        }
        let made = node.outputs().iter().flatten();
        lives.extend(
            made.filter(|v| moving.contains(v))
                .map(|&v| (v, (at + 1, at + 1))),
        );
    }
    for v in &graph.outputs {
        if let Some(life) = lives.get_mut(v) {
            life.1 = order.len() + 1;
        }
    }
    let mut starts: Vec<Vec<ValueId>> = vec![Vec::new(); order.len() + 1];
    let mut ends = starts.clone();
    for (&v, &(made, last)) in &lives {
        if made < last {
            starts[made].push(v);
            if let Some(ends) = ends.get_mut(last) {
                ends.push(v);
            }
        }
    }
    let (mut alive, mut entry, mut products) = (BTreeSet::new(), None, Vec::new());
    let mut all = Vec::new();
    for at in 0..=order.len() {
        if let Some(&id) = at.checked_sub(1).and_then(|i| order.get(i)) {
            let name = &graph.node(id).name;
            products.extend(learns(name).then(|| name.clone()));
        }
        ends[at].iter().for_each(|v| _ = alive.remove(v));
        alive.extend(starts[at].iter().copied());
        let one = alive.first().filter(|_| alive.len() == 1);
        let Some(&cut) = one.filter(|v| lives[*v].0 == at) else {
            continue;
        };
        if let Some(entry) = entry {
            all.push(Segment {
                entry,
                exit: cut,
                products: std::mem::take(&mut products),
            });
        }
        products.clear();
        entry = Some(cut);
    }
    Ok(all)
}

/// The values that change with the inputs.
fn moving(model: &Model, order: &[NodeId]) -> BTreeSet<ValueId> {
    let graph = &model.graph;
    let is_fed = |v: &ValueId| graph.value(*v).constant.is_none();
    let mut moving: BTreeSet<ValueId> = graph.inputs.iter().copied().filter(is_fed).collect();
    for &id in order {
        let node = graph.node(id);
        let captured = node.subgraphs().flat_map(|g| g.captures.iter());
        let mut read = node.inputs().iter().flatten().copied();
        let moves = read.any(|v| moving.contains(&v))
            || captured.map(|c| c.outer).any(|v| moving.contains(&v));
        if moves {
            moving.extend(node.outputs().iter().flatten().copied());
        }
    }
    moving
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;

    fn found(body: &str) -> Vec<(String, String, usize)> {
        let model = text::parse(body).unwrap();
        let learns = |name: &str| name.starts_with('p');
        let all = blocks(&model, &learns, &|_| true).unwrap();
        all.into_iter()
            .map(|b| (b.entry, b.exit, b.products.len()))
            .collect()
    }

    fn of(all: &[(&str, &str, usize)]) -> Vec<(String, String, usize)> {
        all.iter()
            .map(|&(a, b, n)| (a.into(), b.into(), n))
            .collect()
    }

    #[test]
    fn products_of_a_chain_go_in_pairs_with_their_functions() {
        let chain = "opset 17 graph g(x: f32[n,2]) -> (y: f32[n,2]) {
            w: f32[2,2] = {1,2,3,4}
            a = MatMul(x, w) {name=\"p1\"} b = Relu(a) c = MatMul(b, w) {name=\"p2\"} d = Relu(c)
            y = MatMul(d, w) {name=\"p3\"} }";
        assert_eq!(found(chain), of(&[("x", "d", 2), ("d", "y", 1)]));
    }

    #[test]
    fn a_residual_sum_closes_a_block_of_all_that_it_spans() {
        let net = "opset 17 graph g(x: f32[n,2]) -> (y: f32[n,2]) {
            w: f32[2,2] = {1,2,3,4}
            s = MatMul(x, w) {name=\"p0\"} t = Relu(s)
            a = MatMul(t, w) {name=\"p1\"} b = Relu(a) c = MatMul(b, w) {name=\"p2\"}
            d = Add(c, t) e = Relu(d) y = MatMul(e, w) {name=\"p3\"} }";
        assert_eq!(
            found(net),
            of(&[("x", "t", 1), ("t", "e", 2), ("e", "y", 1)])
        );
    }

    #[test]
    fn what_changes_the_shape_begins_the_next_block() {
        let net = "opset 17 graph g(x: f32[n,2,4,4]) -> (y: f32[n,3]) {
            w: f32[2,2,1,1] = {1,2,3,4} v: f32[2,3] = {1,2,3,4,5,6}
            a = Conv(x, w) {name=\"p1\"} b = Conv(a, w) {name=\"p2\"}
            g = GlobalAveragePool(b) f = Flatten(g) y = MatMul(f, v) {name=\"p3\"} }";
        assert_eq!(found(net), of(&[("x", "b", 2), ("b", "y", 1)]));
    }

    #[test]
    fn a_second_input_that_is_read_to_the_end_leaves_no_block() {
        let net = "opset 17 graph g(x: f32[n,2], m: f32[n,2]) -> (y: f32[n,2]) {
            w: f32[2,2] = {1,2,3,4}
            a = MatMul(x, w) {name=\"p1\"} b = Relu(a) y = Add(b, m) }";
        assert_eq!(found(net), of(&[]));
    }
}
