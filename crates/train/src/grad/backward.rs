//! What a rule sees of one node, and how it adds nodes behind the loss.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::ops::arith::from_floats;
use edgesmith_ir::ops::gradient;
use edgesmith_ir::{Attribute, DType, Error, Graph, Model, Node, Result, Shape, Tensor, ValueId};

/// One node on the way back.
pub struct Backward<'a> {
    model: &'a mut Model,
    inferred: &'a Inferred,
    node: Node,
    dys: &'a [Option<ValueId>],
    wants: Vec<bool>,
    made: Vec<(ValueId, ValueId)>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(
        model: &'a mut Model,
        inferred: &'a Inferred,
        node: Node,
        dys: &'a [Option<ValueId>],
        wants: Vec<bool>,
    ) -> Self {
        Self {
            model,
            inferred,
            node,
            dys,
            wants,
            made: Vec::new(),
        }
    }

    /// The gradients that were given, each with the value that it is of.
    pub(super) fn finish(self) -> Vec<(ValueId, ValueId)> {
        self.made
    }

    /// How errors name the node.
    pub fn place(&self) -> String {
        self.node.place()
    }

    /// The node whose gradient is passed on.
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

    /// The gradient of output `o`, where the loss depends on it.
    pub fn dy_of(&self, o: usize) -> Option<ValueId> {
        self.dys.get(o).copied().flatten()
    }

    /// The gradient of the first output, which alone may have one.
    ///
    /// # Errors
    /// When the loss depends on another one.
    pub fn dy(&self) -> Result<ValueId> {
        if self.dys.iter().skip(1).any(Option::is_some) {
            return Err(Error::unsupported(format!(
                "the loss depends on more than the first output of {}, which is not done",
                self.node.op
            )));
        }
        self.dy_of(0)
            .ok_or_else(|| Error::invalid("the first output has no gradient"))
    }

    /// True where input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.wants.get(i).copied().unwrap_or(false)
    }

    /// Gives input `i` a gradient, of its shape; where it wants none, nothing happens.
    pub fn give(&mut self, i: usize, gradient: ValueId) {
        if let Some(v) = self.node.input(i).filter(|_| self.wants(i)) {
            self.made.push((v, gradient));
        }
    }

    /// Gives input `i` the sum of `gradient`, which has the shape of the first output, over the
    /// axes along which the input is repeated.
    ///
    /// # Errors
    /// When the input is left out.
    pub fn give_broadcast(&mut self, i: usize, gradient: ValueId) -> Result<()> {
        if !self.wants(i) {
            return Ok(());
        }
        let (x, y) = (self.x(i)?, self.y(0)?);
        let summed = if self.same_shape(x, y) {
            gradient
        } else {
            self.ours("Unbroadcast", &[gradient, x])
        };
        self.give(i, summed);
        Ok(())
    }

    /// The shape of a value of the forward graph, as far as it is known.
    pub fn shape(&self, v: ValueId) -> Option<&Shape> {
        self.inferred.tensor(v)?.shape.as_ref()
    }

    /// The lengths of a value of the forward graph.
    ///
    /// # Errors
    /// When one is not known.
    pub fn dims(&self, v: ValueId) -> Result<Vec<usize>> {
        let dims = self.inferred.dims(v).map(|d| d.to_vec());
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
        let ty = self.inferred.tensor(v);
        ty.map(|t| t.dtype)
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
        let graph = &mut self.model.graph;
        let stem = format!("{}/{}", self.node.name, node.op);
        let outputs: Vec<Option<ValueId>> = outputs
            .iter()
            .map(|&there| {
                there.then(|| {
                    let name = graph.fresh_name(&stem);
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
        let name = self
            .model
            .graph
            .fresh_name(&format!("{}/constant", self.node.name));
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
    /// As [`Backward::number`].
    pub fn scaled(&mut self, a: ValueId, like: ValueId, x: f64) -> Result<ValueId> {
        if x == 1.0 {
            return Ok(a);
        }
        let x = self.number(like, x)?;
        Ok(self.op("Mul", &[a, x]))
    }

    /// `a` in the shape of `like`, of as many elements.
    pub fn reshaped(&mut self, a: ValueId, like: ValueId) -> ValueId {
        let shape = match self.inferred.dims(like) {
            Some(dims) => {
                let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
                self.list(&dims)
            }
            None => self.op("Shape", &[like]),
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

/// The sum of the gradients of a value, in place of them.
pub(super) fn total(graph: &mut Graph, gradients: &mut Vec<ValueId>) -> Option<ValueId> {
    let mut sum = *gradients.first()?;
    for &g in &gradients[1..] {
        sum = graph.add_op(
            Node::new("Add", "sum_of_gradients"),
            &[sum, g],
            "sum_of_gradients",
        );
    }
    *gradients = vec![sum];
    Some(sum)
}
