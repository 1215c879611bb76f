//! Groups of nodes that become one: found from the values that they make, replaced where nobody
//! else looks inside.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, Shape, Tensor, ValueId};

use crate::float_data::to_f64;
use crate::pass::PassCx;
use crate::rewrite::{Change, Editor, each_graph, shape, tensor_type};

/// The domain of ONNX Runtime's own operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// As [`each_graph`], for passes that may write operators of [`MICROSOFT`]: the model then says so.
pub(crate) fn fuse_each_graph(model: &mut Model, cx: &PassCx, change: Change) -> Result<usize> {
    let changes = each_graph(model, cx, change)?;
    if changes > 0 {
        model.opsets.entry(MICROSOFT.into()).or_insert(1);
    }
    Ok(changes)
}

/// A string attribute.
pub(crate) fn string(text: &'static str) -> Attribute {
    Attribute::String(text.as_bytes().into())
}

/// True where two factors are the same number but for the rounding of halves.
pub(crate) fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 5e-4 * b.abs().max(1e-6)
}

/// Nodes that are to become one, as far as they are found.
#[derive(Clone)]
pub(crate) struct Group<'e, 'g> {
    pub(crate) editor: &'e Editor<'g>,
    pub(crate) types: &'e Inferred,
    pub(crate) nodes: Vec<NodeId>,
}

impl<'e, 'g> Group<'e, 'g> {
    pub(crate) fn new(editor: &'e Editor<'g>, types: &'e Inferred) -> Self {
        Self {
            editor,
            types,
            nodes: Vec::new(),
        }
    }

    /// The shape of `v`, where its rank is known.
    pub(crate) fn shape(&self, v: ValueId) -> Option<&'e Shape> {
        shape(self.types, v)
    }

    /// The element type of `v`.
    pub(crate) fn dtype(&self, v: ValueId) -> Option<DType> {
        tensor_type(self.types, v).map(|t| t.dtype)
    }

    pub(crate) fn node(&self, id: NodeId) -> &'e Node {
        self.editor.graph.node(id)
    }

    /// The node that makes `v` as its first output, where it is one of `ops` of the default
    /// domain; from now on it belongs to the group.
    pub(crate) fn take(&mut self, v: ValueId, ops: &[&str]) -> Option<NodeId> {
        let id = self.peek(v, ops)?;
        if !self.nodes.contains(&id) {
            self.nodes.push(id);
        }
        Some(id)
    }

    /// As [`Group::take`], without taking it.
    pub(crate) fn peek(&self, v: ValueId, ops: &[&str]) -> Option<NodeId> {
        let (id, 0) = self.editor.graph.value(v).producer()? else {
            return None;
        };
        ops.iter().any(|op| self.node(id).is(op)).then_some(id)
    }

    /// The only node that reads `v` outside of the group, where it is one of `ops` of the default
    /// domain; from now on it belongs to the group.
    pub(crate) fn reader(&mut self, v: ValueId, ops: &[&str]) -> Option<NodeId> {
        let mut others = (self.editor.graph.value(v).consumers().iter())
            .map(|(id, _)| *id)
            .filter(|id| !self.nodes.contains(id));
        let id = others.next()?;
        let fits = ops.iter().any(|op| self.node(id).is(op)) && others.all(|other| other == id);
        fits.then(|| self.nodes.push(id))?;
        Some(id)
    }

    /// The constant in `v`, where it has one element.
    pub(crate) fn scalar(&self, v: ValueId) -> Option<f64> {
        scalar(self.editor.constant(v)?)
    }

    /// The operand beside `v` of a node with two inputs.
    pub(crate) fn beside(&self, id: NodeId, v: ValueId) -> Option<ValueId> {
        match *self.node(id).inputs() {
            [Some(a), Some(b)] if a == v => Some(b),
            [Some(a), Some(b)] if b == v => Some(a),
            _ => None,
        }
    }

    /// Operand and scalar of a node with two inputs, one of which is a constant of one element.
    pub(crate) fn with_scalar(&self, id: NodeId) -> Option<(ValueId, f64)> {
        let [Some(a), Some(b)] = *self.node(id).inputs() else {
            return None;
        };
        match (self.scalar(a), self.scalar(b)) {
            (None, Some(c)) => Some((a, c)),
            (Some(c), None) => Some((b, c)),
            _ => None,
        }
    }

    /// True where `v` is a product of dequantized values, which runtimes take in integers together
    /// with its bias.
    pub(crate) fn is_integer_product(&self, v: ValueId) -> bool {
        let Some(id) = self.peek(v, &["MatMul"]) else {
            return false;
        };
        let operands = self.node(id).inputs().iter().flatten();
        operands
            .copied()
            .any(|v| self.peek(v, &["DequantizeLinear"]).is_some())
    }

    /// The value before casts to wider floats, which then belong to the group.
    pub(crate) fn before_casts(&mut self, mut v: ValueId) -> ValueId {
        while let Some(id) = self.peek(v, &["Cast"]) {
            let Some(x) = self.node(id).input(0) else {
                break;
            };
            let bits = |v| self.dtype(v).filter(|d| d.is_float()).map(DType::bits);
            let (Some(from), Some(to)) = (bits(x), bits(v)) else {
                break;
            };
            if from > to {
                break;
            }
            self.nodes.push(id);
            v = x;
        }
        v
    }

    /// The nodes, where nobody outside reads what they make but for `outputs`. What only computes
    /// targets of Reshapes of the group from shapes inside it goes with it.
    pub(crate) fn closed(mut self, outputs: &[ValueId]) -> Option<Vec<NodeId>> {
        let made: Vec<ValueId> = (self.nodes.iter())
            .flat_map(|&id| self.node(id).outputs().iter().flatten().copied())
            .filter(|v| !outputs.contains(v))
            .collect();
        for v in made {
            if !self.editor.is_read_only_by(v, &self.nodes) {
                let more = self.targets_from(v)?;
                self.nodes.extend(more);
            }
        }
        Some(self.nodes)
    }

    /// The nodes that compute targets of Reshapes of the group from the shape of `v`; `None` where
    /// somebody outside reads `v` or them otherwise.
    fn targets_from(&self, v: ValueId) -> Option<Vec<NodeId>> {
        let mut found: Vec<NodeId> = Vec::new();
        let mut open = vec![v];
        while let Some(at) = open.pop() {
            if self.editor.is_seen_outside(at) {
                return None;
            }
            for &(id, i) in self.editor.graph.value(at).consumers() {
                if self.nodes.contains(&id) {
                    if at != v && !(self.node(id).is("Reshape") && i == 1) {
                        return None;
                    }
                } else if !found.contains(&id) {
                    let starts = at != v || self.node(id).is("Shape");
                    if !starts || found.len() == MAX_TARGETS {
                        return None;
                    }
                    found.push(id);
                    open.extend(self.node(id).outputs().iter().flatten().copied());
                }
            }
        }
        Some(found)
    }
}

/// More nodes than this compute no target of a Reshape.
const MAX_TARGETS: usize = 32;

/// The number in a tensor of one element of a float type.
pub(crate) fn scalar(t: &Tensor) -> Option<f64> {
    if t.count() != 1 {
        return None;
    }
    to_f64(t)?.first().copied()
}

impl Editor<'_> {
    /// Puts one node in place of others; it makes `outputs`, which those made, and is called like
    /// the node that made the first of them.
    pub(crate) fn fuse(
        &mut self,
        nodes: &[NodeId],
        mut node: Node,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> NodeId {
        let first = outputs.first().copied().flatten();
        if let Some((last, _)) = first.and_then(|v| self.graph.value(v).producer()) {
            let old = self.graph.node(last);
            node.name.clone_from(&old.name);
            node.metadata.clone_from(&old.metadata);
        }
        for &id in nodes {
            self.graph.remove_node(id);
        }
        let end = inputs
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |i| i + 1);
        self.graph.add_node(node, &inputs[..end], outputs)
    }
}
