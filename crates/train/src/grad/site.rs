//! What is known of one node of the forward graph, and how nodes are added in its place or behind
//! the loss.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::ops::arith::from_floats;
use edgesmith_ir::ops::gradient;
use edgesmith_ir::{
    Attribute, DType, Error, Model, Node, Result, Shape, Tensor, TensorType, ValueId,
};

use super::names::Names;

/// One node of the forward graph.
pub struct Site<'a> {
    model: &'a mut Model,
    inferred: &'a Inferred,
    names: &'a mut Names,
    node: Node,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        model: &'a mut Model,
        inferred: &'a Inferred,
        names: &'a mut Names,
        node: Node,
    ) -> Self {
        Self {
            model,
            inferred,
            names,
            node,
        }
    }

    /// How errors name the node.
    pub fn place(&self) -> String {
        self.node.place()
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The opset of the model.
    pub fn opset(&self) -> i64 {
        self.model.opset()
    }

    /// Input `i` of the node.
    ///
    /// # Errors
    /// When it is left out.
    pub fn x(&self, i: usize) -> Result<ValueId> {
        self.node
            .input(i)
            .ok_or_else(|| Error::invalid(format!("input {i} is missing")))
    }

    /// Output `o` of the node.
    ///
    /// # Errors
    /// When it is left out.
    pub fn y(&self, o: usize) -> Result<ValueId> {
        self.node
            .output(o)
            .ok_or_else(|| Error::invalid(format!("output {o} is missing")))
    }

    /// What is known of a value; nothing of those that were added.
    fn ty(&self, v: ValueId) -> Option<&TensorType> {
        self.inferred.types.get(v.index())?.as_ref()?.tensor()
    }

    /// The shape of a value of the forward graph, as far as it is known.
    pub fn shape(&self, v: ValueId) -> Option<&Shape> {
        self.ty(v)?.shape.as_ref()
    }

    /// The length of an axis of a value of the forward graph, where it is known.
    pub fn length(&self, v: ValueId, axis: usize) -> Option<usize> {
        self.shape(v)?.get(axis)?.known()
    }

    /// The lengths of a value of the forward graph.
    ///
    /// # Errors
    /// When one is not known.
    pub fn dims(&self, v: ValueId) -> Result<Vec<usize>> {
        let dims = self.shape(v).and_then(Shape::known).map(|d| d.to_vec());
        dims.ok_or_else(|| {
            let name = &self.model.graph.value(v).name;
            Error::unsupported(format!("the lengths of \"{name}\" are not known"))
                .hint("give the model's dimensions numbers")
        })
    }

    /// The number of axes of a value of the forward graph.
    ///
    /// # Errors
    /// When it is not known.
    pub fn rank(&self, v: ValueId) -> Result<usize> {
        self.shape(v).map(Shape::rank).ok_or_else(|| {
            let name = &self.model.graph.value(v).name;
            Error::unsupported(format!("the number of axes of \"{name}\" is not known"))
        })
    }

    /// True where two values of the forward graph are known to have one shape.
    pub fn same_shape(&self, a: ValueId, b: ValueId) -> bool {
        match (self.shape(a), self.shape(b)) {
            (Some(a), Some(b)) => {
                a.rank() == b.rank() && a.iter().zip(b.iter()).all(|(a, b)| a.same(b))
            }
            _ => a == b,
        }
    }

    /// The element type of a value of the forward graph.
    ///
    /// # Errors
    /// When it is not known.
    pub fn dtype(&self, v: ValueId) -> Result<DType> {
        self.ty(v)
            .map(|t| t.dtype)
            .ok_or_else(|| Error::unsupported("an element type is not known"))
    }

    /// The integers of a constant, or what inference knows of them.
    pub fn integers(&self, v: ValueId) -> Option<Vec<i64>> {
        if let Some(t) = &self.model.graph.value(v).constant {
            return t.to_i64().ok();
        }
        let known = self.inferred.contents.get(v.index())?.as_ref()?;
        known.iter().map(|d| Some(d.known()? as i64)).collect()
    }

    /// Adds a node of `outputs` results, each of which may be left out.
    pub fn emit(
        &mut self,
        node: Node,
        inputs: &[Option<ValueId>],
        outputs: &[bool],
    ) -> Vec<Option<ValueId>> {
        if !node.domain.is_empty() {
            let version = self.model.opsets.entry(node.domain.clone());
            version.or_insert(1);
        }
        let (graph, names) = (&mut self.model.graph, &mut *self.names);
        let stem = format!("{}/{}", self.node.name, node.op);
        let outputs: Vec<Option<ValueId>> = outputs
            .iter()
            .map(|&there| {
                there.then(|| {
                    let name = names.fresh(&stem);
                    graph.add_value(&name, None)
                })
            })
            .collect();
        let last = outputs
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |i| i + 1);
        let mut node = node;
        node.name = stem;
        graph.add_node(node, inputs, &outputs[..last]);
        outputs
    }

    /// Adds a node with one result.
    pub fn add(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let made = self.emit(node, &inputs, &[true]);
        made[0].expect("one output was asked for")
    }

    /// Adds an operator of ONNX without attributes.
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.add(Node::new(op, ""), inputs)
    }

    /// Adds one of the gradient operators without attributes.
    pub fn ours(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.add(Node::new(op, "").in_domain(gradient::DOMAIN), inputs)
    }

    /// The gradient operator of the node's operator, with the node's attributes.
    pub fn own(&self) -> Node {
        let mut node = Node::new(&format!("{}Grad", self.node.op), "");
        node.attributes.clone_from(&self.node.attributes);
        node.in_domain(gradient::DOMAIN)
    }

    /// Adds a constant.
    pub fn constant(&mut self, data: Tensor) -> ValueId {
        let name = self.names.fresh(&format!("{}/constant", self.node.name));
        self.model.graph.add_constant(&name, data)
    }

    /// Adds the number `x`, of the element type of `like`, a value of the forward graph.
    ///
    /// # Errors
    /// When that is not known, or no floating-point type.
    pub fn number(&mut self, like: ValueId, x: f64) -> Result<ValueId> {
        let data = number(self.dtype(like)?, &[], x)?;
        Ok(self.constant(data))
    }

    /// Adds a list of integers.
    pub fn list(&mut self, list: &[i64]) -> ValueId {
        self.constant(Tensor::vector(list.to_vec()))
    }

    /// `a` times the number `x`, of the element type of `like`.
    ///
    /// # Errors
    /// As [`Site::number`].
    pub fn scaled(&mut self, a: ValueId, like: ValueId, x: f64) -> Result<ValueId> {
        if x == 1.0 {
            return Ok(a);
        }
        let x = self.number(like, x)?;
        Ok(self.op("Mul", &[a, x]))
    }

    /// `a` in the shape of `like`, of as many elements.
    pub fn reshaped(&mut self, a: ValueId, like: ValueId) -> ValueId {
        let shape = match self.dims(like) {
            Ok(dims) => {
                let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
                self.list(&dims)
            }
            Err(_) => self.op("Shape", &[like]),
        };
        // A length of 0 is a length.
        let node = Node::new("Reshape", "").with("allowzero", Attribute::Int(1));
        let node = if self.opset() < 14 {
            Node::new("Reshape", "")
        } else {
            node
        };
        self.add(node, &[a, shape])
    }

    /// Adds an operator of ONNX with one integer as its attribute.
    pub fn op_with(&mut self, op: &str, inputs: &[ValueId], name: &str, x: i64) -> ValueId {
        self.add(Node::new(op, "").with(name, Attribute::Int(x)), inputs)
    }

    /// The length of an axis of a value, as a list of one integer: known ones as a constant.
    pub fn length_of(&mut self, v: ValueId, axis: usize) -> ValueId {
        if let Some(length) = self.length(v, axis) {
            return self.list(&[length as i64]);
        }
        let shape = self.op("Shape", &[v]);
        let [from, to] = [axis, axis + 1].map(|a| self.list(&[a as i64]));
        self.op("Slice", &[shape, from, to])
    }

    /// A tensor full of `x`, of the lengths in the list `shape` and of the element type of `like`.
    ///
    /// # Errors
    /// As [`Site::number`].
    pub fn filled(&mut self, shape: ValueId, like: ValueId, x: f64) -> Result<ValueId> {
        let value = Attribute::Tensor(number(self.dtype(like)?, &[1], x)?);
        let node = Node::new("ConstantOfShape", "").with("value", value);
        Ok(self.add(node, &[shape]))
    }

    /// `v` in the element type of `like`.
    ///
    /// # Errors
    /// When that is not known.
    pub fn cast_like(&mut self, v: ValueId, like: ValueId) -> Result<ValueId> {
        let to = i64::from(self.dtype(like)?.onnx());
        Ok(self.op_with("Cast", &[v], "to", to))
    }

    /// Takes an attribute of the node, or its input `i` before, as integers.
    pub fn list_of(&self, i: usize, attribute: &str) -> Option<Vec<i64>> {
        match self.node.input(i) {
            Some(v) => self.integers(v),
            None => self.node.ints(attribute).map(<[i64]>::to_vec),
        }
    }
}

/// A tensor of lengths `dims` filled with `x`.
pub(super) fn number(dtype: DType, dims: &[usize], x: f64) -> Result<Tensor> {
    from_floats(dtype, dims, vec![x; edgesmith_ir::checked_count(dims)?])
}
