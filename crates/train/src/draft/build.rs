//! Nodes that losses add to a training graph.

use edgesmith_ir::{Attribute, Node, Tensor, ValueId};

use super::Draft;

impl Draft {
    /// Adds a node with one result.
    pub fn add(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        let op = node.op.clone();
        let name = format!("loss/{op}");
        let mut node = node;
        node.name.clone_from(&name);
        if !node.domain.is_empty() {
            self.model.opsets.entry(node.domain.clone()).or_insert(1);
        }
        self.model.graph.add_op(node, inputs, &name)
    }

    /// Adds an operator without attributes.
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.add(Node::new(op, ""), inputs)
    }

    /// Adds an operator with an attribute of whole numbers.
    pub fn op_with(&mut self, op: &str, inputs: &[ValueId], name: &str, value: i64) -> ValueId {
        self.add(Node::new(op, "").with(name, Attribute::Int(value)), inputs)
    }

    /// Adds a number.
    pub fn number(&mut self, x: f64) -> ValueId {
        let name = self.model.graph.fresh_name("loss/number");
        self.model
            .graph
            .add_constant(&name, Tensor::scalar(x as f32))
    }

    /// Adds a list of numbers.
    pub fn floats(&mut self, list: &[f32]) -> ValueId {
        let name = self.model.graph.fresh_name("loss/list");
        let data = Tensor::vector(list.to_vec());
        self.model.graph.add_constant(&name, data)
    }

    /// Adds a list of whole numbers.
    pub fn list(&mut self, list: &[i64]) -> ValueId {
        let name = self.model.graph.fresh_name("loss/list");
        self.model
            .graph
            .add_constant(&name, Tensor::vector(list.to_vec()))
    }

    /// `v` times a number.
    pub fn scaled(&mut self, v: ValueId, x: f64) -> ValueId {
        if x == 1.0 {
            return v;
        }
        let x = self.number(x);
        self.op("Mul", &[v, x])
    }

    /// The mean of all elements.
    pub fn mean(&mut self, v: ValueId) -> ValueId {
        self.op_with("ReduceMean", &[v], "keepdims", 0)
    }

    /// A reduction along the axes, which stay with length 1 where `keep` says so.
    pub fn reduced(&mut self, op: &str, v: ValueId, axes: &[i64], keep: bool) -> ValueId {
        let keep = Attribute::Int(i64::from(keep));
        // Before opset 18 all but ReduceSum have their axes as an attribute.
        if op != "ReduceSum" && self.model.opset() < 18 {
            let node = Node::new(op, "").with("keepdims", keep);
            return self.add(node.with("axes", Attribute::Ints(axes.to_vec())), &[v]);
        }
        let axes = self.list(axes);
        self.add(Node::new(op, "").with("keepdims", keep), &[v, axes])
    }
}
