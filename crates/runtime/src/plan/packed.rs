//! Weights in the form that kernels want them in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edgesmith_ir::NodeId;
use edgesmith_kernels::conv::{ConvF32, ConvI8};
use edgesmith_kernels::gemm::{PackedF32, PackedI8};
use edgesmith_kernels::recurrent::Recurrent;

/// Weights packed for kernels; they serve every plan of a session.
#[derive(Clone)]
pub(crate) enum Packed {
    Conv(ConvF32),
    Conv8(ConvI8),
    Gemm(Arc<PackedF32>),
    Gemm8(Arc<PackedI8>),
    Recurrent(Arc<Recurrent>),
}

impl Packed {
    /// Their size.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Conv(c) => c.bytes(),
            Self::Conv8(c) => c.bytes(),
            Self::Gemm(g) => g.bytes(),
            Self::Gemm8(g) => g.bytes(),
            Self::Recurrent(r) => r.bytes(),
        }
    }
}

/// The packed weights of a graph and of the graphs inside its nodes. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Row>>);

#[derive(Default)]
struct Row {
    packed: BTreeMap<NodeId, Packed>,
    inner: BTreeMap<(NodeId, String), Shelf>,
}

impl Shelf {
    fn row(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is packed for a node.
    pub fn get(&self, id: NodeId) -> Option<Packed> {
        self.row().packed.get(&id).cloned()
    }

    /// Keeps what is packed for a node.
    pub fn put(&self, id: NodeId, packed: Packed) {
        self.row().packed.insert(id, packed);
    }

    /// The shelf of the graph in attribute `name` of a node.
    pub fn inner(&self, id: NodeId, name: &str) -> Self {
        let mut row = self.row();
        row.inner.entry((id, name.into())).or_default().clone()
    }

    /// Bytes of all packed weights.
    pub fn bytes(&self) -> usize {
        let row = self.row();
        let own = row.packed.values().map(Packed::bytes);
        own.chain(row.inner.values().map(Self::bytes)).sum()
    }
}
