//! Shuffles of channels: Reshape, Transpose and Reshape that lay the indices of one axis in another
//! order. As one Gather each index goes its own way; what is a shuffle afterwards becomes one again.

use crate::infer::{self, Inferred};
use crate::{Attribute, Dim, Model, Node, NodeId, Result, Tensor, ValueId};

/// A shuffle that a Gather stands for.
#[derive(Debug, Clone)]
pub struct Shuffle {
    gather: NodeId,
    /// Reshape, Transpose, Reshape.
    nodes: [Node; 3],
    /// The two values between them.
    between: [ValueId; 2],
    /// The targets of both Reshapes.
    targets: [Vec<i64>; 2],
    /// The axis, and the lengths that it is parted into.
    axis: usize,
    parts: Vec<usize>,
    /// The order in which parts are joined.
    order: Vec<usize>,
}

/// Puts a Gather in the place of each shuffle of the main graph: one of an axis whose length is
/// known, with other axes where they were.
///
/// # Errors
/// When shapes of the model do not fit.
pub fn as_places(model: &mut Model) -> Result<Vec<Shuffle>> {
    let inferred = infer::infer(model, &[])?;
    let ids: Vec<NodeId> = model.graph.nodes().map(|(id, _)| id).collect();
    let mut found = Vec::new();
    for id in ids {
        found.extend(taken(model, &inferred, id));
    }
    Ok(found)
}

/// Puts shuffles back where the Gather is one still, of as many as there are now.
///
/// # Errors
/// When a list of places cannot be read.
pub fn as_shuffles(model: &mut Model, shuffles: &[Shuffle]) -> Result<()> {
    for shuffle in shuffles {
        let Some(node) = model.graph.get_node(shuffle.gather) else {
            continue;
        };
        let (Some(x), Some(at), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
            continue;
        };
        let Some(places) = model.graph.constant(at) else {
            continue;
        };
        let places = places.to_i64()?;
        if let Some(parts) = shuffle.parts_of(&places) {
            model.graph.remove_node(shuffle.gather);
            shuffle.put(model, (x, y), &parts);
        }
    }
    Ok(())
}

impl Shuffle {
    /// The lengths of parts whose shuffle these places are: one of them may have changed.
    fn parts_of(&self, places: &[i64]) -> Option<Vec<usize>> {
        let is_it = |parts: &[usize]| {
            let own = shuffled(parts, &self.order);
            own.len() == places.len() && own.iter().zip(places).all(|(&a, &b)| a as i64 == b)
        };
        let others = |i: usize| -> usize {
            let others = self.parts.iter().enumerate().filter(|(j, _)| *j != i);
            others.map(|(_, n)| n).product()
        };
        (0..self.parts.len()).find_map(|i| {
            let mut parts = self.parts.clone();
            parts[i] = places.len() / others(i).max(1);
            is_it(&parts).then_some(parts)
        })
    }

    /// Adds the three nodes between two values.
    fn put(&self, model: &mut Model, (x, y): (ValueId, ValueId), parts: &[usize]) {
        let [mut apart, mut joined] = self.targets.clone();
        for (i, &n) in parts.iter().enumerate() {
            // A length that is copied or worked out is so still.
            if apart[self.axis + i] > 0 {
                apart[self.axis + i] = n as i64;
            }
        }
        if joined[self.axis] > 0 {
            joined[self.axis] = parts.iter().product::<usize>() as i64;
        }
        let graph = &mut model.graph;
        let targets = [apart, joined].map(|list| {
            let name = graph.fresh_name("shape");
            graph.add_constant(&name, Tensor::vector(list))
        });
        let [a, b] = self.between;
        for v in self.between {
            graph.value_mut(v).ty = None;
        }
        let [first, turn, last] = self.nodes.clone();
        graph.add_node(first, &[Some(x), Some(targets[0])], &[Some(a)]);
        graph.add_node(turn, &[Some(a)], &[Some(b)]);
        graph.add_node(last, &[Some(b), Some(targets[1])], &[Some(y)]);
    }
}

/// The index of each number that lies in this order of parts.
fn shuffled(parts: &[usize], order: &[usize]) -> Vec<usize> {
    let stride = |part: usize| parts[part + 1..].iter().product::<usize>();
    let mut places = vec![0];
    for &part in order {
        let longer = places
            .iter()
            .flat_map(|&p| (0..parts[part]).map(move |i| p + i * stride(part)));
        places = longer.collect();
    }
    places
}

/// Takes the shuffle that ends at a node, where one does.
fn taken(model: &mut Model, inferred: &Inferred, last: NodeId) -> Option<Shuffle> {
    let graph = &model.graph;
    let before = |id: NodeId, op: &str| {
        let v = graph.node(id).input(0)?;
        let maker = graph.producer_is(v, op)?;
        let is_between = graph.sole_consumer(v).is_some();
        (is_between && !graph.captured().contains(&v)).then_some((maker, v))
    };
    let target = |id: NodeId| {
        let node = graph.node(id);
        let list = graph.constant(node.input(1)?)?.to_i64().ok()?;
        (node.int("allowzero").unwrap_or(0) == 0).then(|| list.to_vec())
    };
    graph.get_node(last).filter(|n| n.is("Reshape"))?;
    let (turn, b) = before(last, "Transpose")?;
    let (first, a) = before(turn, "Reshape")?;
    let (x, y) = (graph.node(first).input(0)?, graph.node(last).output(0)?);
    let targets = [target(first)?, target(last)?];
    let shape = |v: ValueId| -> Option<Vec<Dim>> {
        let shape = inferred.tensor(v)?.shape.as_ref()?;
        Some(shape.iter().cloned().collect())
    };
    let (own, parted) = (shape(x)?, shape(a)?);
    let same = |p: &[Dim], q: &[Dim]| p.len() == q.len() && p.iter().zip(q).all(|(p, q)| p.same(q));
    if !same(&own, &shape(y)?) {
        return None;
    }
    // Axes before that which is parted are as they were, and so is what is behind it together.
    let axis = (0..own.len().min(parted.len())).find(|&i| !own[i].same(&parted[i]))?;
    let whole = own[axis].known()?;
    let mut parts = Vec::new();
    while parts.iter().product::<usize>() < whole {
        parts.push(parted.get(axis + parts.len())?.known()?);
    }
    let perm = graph.node(turn).ints("perm")?.to_vec();
    let end = axis + parts.len();
    let stays = |i: usize| perm[i] == i as i64;
    let is_apart = (0..perm.len()).all(|i| stays(i) || (axis..end).contains(&i));
    if parts.iter().product::<usize>() != whole || perm.len() != parted.len() || !is_apart {
        return None;
    }
    let order: Vec<usize> = perm[axis..end].iter().map(|&p| p as usize - axis).collect();
    let nodes = [first, turn, last].map(|id| graph.node(id).clone());
    let places = shuffled(&parts, &order);
    let places = places.into_iter().map(|p| p as i64).collect();
    let graph = &mut model.graph;
    for id in [last, turn, first] {
        graph.remove_node(id);
    }
    let name = graph.fresh_name("places");
    let list = graph.add_constant(&name, Tensor::vector(places));
    let node = Node::new("Gather", &nodes[1].name).with("axis", Attribute::Int(axis as i64));
    let gather = graph.add_node(node, &[Some(x), Some(list)], &[Some(y)]);
    Some(Shuffle {
        gather,
        nodes,
        between: [a, b],
        targets,
        axis,
        parts,
        order,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate;
    use crate::text;

    fn shuffle(body: &str) -> Model {
        let source =
            format!("opset 17 graph t(x: f32[n,12,2,3]) -> (y: f32[n,12,2,3]) {{ {body} }}");
        text::parse(&source).unwrap()
    }

    fn images() -> Tensor {
        Tensor::from_vec(&[2, 12, 2, 3], (0..144).map(|x| x as f32).collect()).unwrap()
    }

    #[test]
    fn a_gather_lays_channels_as_the_shuffle_did() {
        let turned = [
            "a: i64[5] = {0,3,4,2,3} b: i64[4] = {0,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,1,3,4]} y = Reshape(q, b)",
            "a: i64[4] = {-1,2,6,6} b: i64[4] = {0,-1,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,1,3]} y = Reshape(q, b)",
            "a: i64[6] = {0,2,3,2,2,3} b: i64[4] = {-1,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,3,2,1,4,5]} y = Reshape(q, b)",
            "a: i64[6] = {0,2,3,2,2,3} b: i64[4] = {-1,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,1,3,4,5]} y = Reshape(q, b)",
        ];
        for body in turned {
            let model = shuffle(body);
            let mut made = model.clone();
            let shuffles = as_places(&mut made).unwrap();
            assert_eq!(shuffles.len(), 1, "{body}");
            let ops: Vec<&str> = made.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
            assert_eq!(ops, ["Gather"], "{body}");
            let x = [("x", images())];
            assert_eq!(
                evaluate(&made, &x).unwrap(),
                evaluate(&model, &x).unwrap(),
                "{body}"
            );
            as_shuffles(&mut made, &shuffles).unwrap();
            let ops: Vec<&str> = made.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
            assert_eq!(ops, ["Reshape", "Transpose", "Reshape"], "{body}");
            assert_eq!(
                evaluate(&made, &x).unwrap(),
                evaluate(&model, &x).unwrap(),
                "{body}"
            );
        }
    }

    #[test]
    fn what_moves_pixels_is_no_shuffle() {
        let others = [
            "a: i64[5] = {0,3,4,2,3} b: i64[4] = {0,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,3,1,4]} y = Reshape(q, b)",
            "a: i64[4] = {0,12,3,2} b: i64[4] = {0,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,1,3,2]} y = Reshape(q, b)",
            "a: i64[5] = {0,3,8,1,3} b: i64[4] = {0,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,1,3,4]} y = Reshape(q, b)",
        ];
        for body in others {
            let mut model = shuffle(body);
            assert!(as_places(&mut model).unwrap().is_empty(), "{body}");
        }
    }

    #[test]
    fn of_a_shuffle_with_fewer_channels_one_is_made_again() {
        let body = "a: i64[5] = {0,3,4,2,3} b: i64[4] = {0,12,2,3} p = Reshape(x, a) q = Transpose(p) {perm=[0,2,1,3,4]} y = Reshape(q, b)";
        let mut model = shuffle(body);
        let [shuffle] = as_places(&mut model).unwrap().try_into().unwrap();
        let regular: Vec<i64> = vec![0, 3, 6, 1, 4, 7, 2, 5, 8];
        assert_eq!(shuffle.parts_of(&regular), Some(vec![3, 3]));
        assert_eq!(
            shuffle.parts_of(&[0, 4, 1, 5, 2, 6, 3, 7]),
            Some(vec![2, 4])
        );
        assert_eq!(shuffle.parts_of(&[0, 3, 1, 4, 7, 2, 5, 8]), None);
    }
}
