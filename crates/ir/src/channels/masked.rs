//! A graph whose sums see zeros where another has no channels any more: what a cut has to equal.

use std::collections::BTreeMap;

use crate::infer::Inferred;
use crate::{Attribute, Model, Node, NodeId, Result, Tensor, ValueId};

use super::cut::length;
use super::{Axis, Kept, Read, Ties};

/// The model, with zeros in each operand that is summed along an axis where indices are not kept.
/// A LayerNormalization over such an axis is computed over those that are kept, and so is a mean, but
/// for one of squares of numbers that are not centred.
///
/// # Errors
/// When a mask cannot be made.
pub fn masked(model: &Model, inferred: &Inferred, ties: &Ties, kept: &Kept) -> Result<Model> {
    let mut made = Masked {
        out: model.clone(),
        inferred,
        masks: BTreeMap::new(),
    };
    for read in ties.reads() {
        let Some(v) = model.graph.node(read.node).input(read.input) else {
            continue;
        };
        let axis = Axis::of(v, read.axis);
        let Some(stay) = kept.get(&axis) else {
            continue;
        };
        let rank = match &model.graph.value(v).constant {
            Some(data) => data.rank(),
            None => inferred
                .tensor(v)
                .and_then(|t| t.shape.as_ref().map(|s| s.len()))
                .unwrap_or(0),
        };
        let mask = made.mask(axis, rank, stay)?;
        let node = model.graph.node(read.node);
        if node.is("LayerNormalization") {
            made.layer_norm(read, mask, (axis, stay.len()))?;
        } else if node.is("ReduceMean") && !is_of_squares(model, read.node) {
            made.mean(read, mask, (axis, stay.len()));
        } else {
            let zeroed = made
                .out
                .graph
                .add_op(Node::new("Mul", ""), &[v, mask], "masked");
            made.out
                .graph
                .set_input(read.node, read.input, Some(zeroed));
        }
    }
    Ok(made.out)
}

/// True of a mean of squares of numbers from which no mean was taken: where some of them are 0, it
/// is that of the others times their share, as a root mean square norm has it.
pub fn is_of_squares(model: &Model, id: NodeId) -> bool {
    let graph = &model.graph;
    let square = |v: ValueId| {
        let (id, _) = graph.value(v).producer()?;
        let node = graph.node(id);
        let (x, y) = (node.input(0)?, node.input(1)?);
        let is_two = || {
            let power = graph.constant(y)?.to_f32().ok()?;
            Some(power.len() == 1 && power[0] == 2.0)
        };
        let is_square = match node.op.as_str() {
            "Mul" => x == y,
            "Pow" => is_two()?,
            _ => false,
        };
        is_square.then_some(x)
    };
    let centred = |v: ValueId| {
        let id = graph.producer_is(v, "Sub")?;
        let mean = graph.node(id).input(1)?;
        graph.producer_is(mean, "ReduceMean")
    };
    let squared = graph.node(id).input(0).and_then(square);
    squared.is_some_and(|x| centred(x).is_none())
}

struct Masked<'a> {
    out: Model,
    inferred: &'a Inferred,
    masks: BTreeMap<Axis, ValueId>,
}

impl Masked<'_> {
    /// Ones at the indices that stay, along one of so many axes.
    fn mask(&mut self, axis: Axis, rank: usize, stay: &[usize]) -> Result<ValueId> {
        if let Some(mask) = self.masks.get(&axis) {
            return Ok(*mask);
        }
        let length = length(&self.out, self.inferred, axis);
        let mut data = vec![0.0f32; length];
        for &i in stay {
            data[i] = 1.0;
        }
        let mut dims = vec![1; rank];
        dims[axis.axis] = length;
        let name = self.out.graph.fresh_name("mask");
        let data = Tensor::from_vec(&dims, data)?;
        let mask = self.out.graph.add_constant(&name, data);
        self.masks.insert(axis, mask);
        Ok(mask)
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.out.graph.add_op(Node::new(op, ""), inputs, "masked")
    }

    fn number(&mut self, x: f32) -> ValueId {
        let name = self.out.graph.fresh_name("number");
        self.out.graph.add_constant(&name, Tensor::scalar(x))
    }

    /// The sum along an axis.
    fn sum(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.reduced(Node::new("ReduceSum", ""), x, axis)
    }

    fn reduced(&mut self, sum: Node, x: ValueId, axis: usize) -> ValueId {
        let list = vec![axis as i64];
        if self.out.opset() < 13 {
            let node = sum.with("axes", Attribute::Ints(list));
            return self.out.graph.add_op(node, &[x], "masked");
        }
        let name = self.out.graph.fresh_name("axes");
        let axes = self.out.graph.add_constant(&name, Tensor::vector(list));
        self.out.graph.add_op(sum, &[x, axes], "masked")
    }

    /// The mean of those that stay, whose count is given.
    fn mean(&mut self, read: Read, mask: ValueId, (axis, count): (Axis, usize)) {
        let node = self.out.graph.node(read.node).clone();
        let count = self.number(count as f32);
        let kept = self.op("Mul", &[axis.value, mask]);
        let mut sum = Node::new("ReduceSum", &node.name);
        if let Some(stay) = node.int("keepdims") {
            sum.set("keepdims", Attribute::Int(stay));
        }
        let sum = self.reduced(sum, kept, axis.axis);
        let output = node.output(0);
        self.out.graph.remove_node(read.node);
        if let Some(output) = output {
            let end = Node::new("Div", "");
            let inputs = [Some(sum), Some(count)];
            self.out.graph.add_node(end, &inputs, &[Some(output)]);
        }
    }

    /// The node, with mean and variance of those that stay, whose count is given.
    fn layer_norm(
        &mut self,
        read: Read,
        mask: ValueId,
        (axis, count): (Axis, usize),
    ) -> Result<()> {
        let node = self.out.graph.node(read.node).clone();
        let epsilon = self.number(node.float("epsilon").unwrap_or(1e-5));
        let count = self.number(count as f32);
        let kept = self.op("Mul", &[axis.value, mask]);
        let mean = self.sum(kept, axis.axis);
        let mean = self.op("Div", &[mean, count]);
        let centred = self.op("Sub", &[axis.value, mean]);
        let centred = self.op("Mul", &[centred, mask]);
        let squares = self.op("Mul", &[centred, centred]);
        let variance = self.sum(squares, axis.axis);
        let variance = self.op("Div", &[variance, count]);
        let shifted = self.op("Add", &[variance, epsilon]);
        let root = self.op("Sqrt", &[shifted]);
        let mut y = self.op("Div", &[centred, root]);
        if let Some(scale) = node.input(1) {
            y = self.op("Mul", &[y, scale]);
        }
        if let Some(bias) = node.input(2) {
            y = self.op("Add", &[y, bias]);
        }
        let output = node.output(0);
        self.out.graph.remove_node(read.node);
        if let Some(output) = output {
            let end = Node::new("Identity", "");
            self.out.graph.add_node(end, &[Some(y)], &[Some(output)]);
        }
        Ok(())
    }
}
