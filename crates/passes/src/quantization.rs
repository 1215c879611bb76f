//! What passes read of QuantizeLinear and DequantizeLinear.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Node, NodeId, ValueId};

use crate::rewrite::{Editor, tensor_type};

/// Scales and zero points of f32 and of integers of 8 or 16 bits, constant, not by block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    /// The type of the integers.
    pub(crate) dtype: DType,
    pub(crate) scale: Vec<f32>,
    pub(crate) zero: Vec<i64>,
    /// The axis of the scales; `None` where there is one for the tensor.
    pub(crate) axis: Option<i64>,
}

/// The node without its edges.
pub(crate) fn copy(node: &Node) -> Node {
    let mut new = Node::new(&node.op, &node.name);
    new.attributes.clone_from(&node.attributes);
    new.metadata.clone_from(&node.metadata);
    new
}

impl Grid {
    /// That of a QuantizeLinear or DequantizeLinear whose integers are `integers`.
    pub(crate) fn of(
        editor: &Editor,
        id: NodeId,
        integers: ValueId,
        types: &Inferred,
    ) -> Option<Self> {
        let node = editor.graph.node(id);
        let dtype = tensor_type(types, integers)?.dtype;
        let eight_or_sixteen = dtype.is_integer() && matches!(dtype.bits(), 8 | 16);
        let plain = ["block_size", "output_dtype", "precision"]
            .iter()
            .all(|name| node.int(name).unwrap_or(0) == 0);
        if !eight_or_sixteen || !plain {
            return None;
        }
        let scale = editor.constant(node.input(1)?)?;
        let by_axis = scale.rank() > 0 && scale.count() != 1;
        let count = scale.count();
        let scale = scale.data::<f32>().ok()?.into_owned();
        let zero = match node.input(2) {
            None => vec![0; count],
            Some(v) => editor.constant(v)?.to_i64().ok()?,
        };
        let sound = |s: &f32| (1e-30..1e30).contains(s);
        let axis = by_axis.then(|| node.int("axis").unwrap_or(1));
        let good = scale.iter().all(sound) && zero.len() == scale.len();
        good.then_some(Self {
            dtype,
            scale,
            zero,
            axis,
        })
    }

    /// The least and the greatest integer.
    pub(crate) fn range(&self) -> (i64, i64) {
        let bits = self.dtype.bits();
        match self.dtype.is_signed_integer() {
            true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            false => (0, (1 << bits) - 1),
        }
    }
}
