//! Weights in the form that kernels want them in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edgesmith_ir::{NodeId, Tensor, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::arena::Buffer;
use edgesmith_kernels::conv::{ConvF32, ConvI8, ConvTransposeF32};
use edgesmith_kernels::gemm::{PackedBits, PackedF32, PackedI8};
use edgesmith_kernels::recurrent::Recurrent;
use edgesmith_kernels::sparse::{SparseF32, SparseI8};

use super::Planner;
use super::maker::MAX_DEPTH;
use crate::providers::cpu::float8;

/// Weights packed for kernels; they serve every plan of a session.
#[derive(Clone)]
pub(crate) enum Packed {
    Conv(ConvF32),
    Conv8(ConvI8),
    ConvTranspose(ConvTransposeF32),
    Gemm(Arc<PackedF32>),
    Sparse(Arc<SparseF32>),
    Sparse8(Arc<SparseI8>),
    Gemm8(Arc<PackedI8>),
    Bits(Arc<PackedBits>),
    Recurrent(Arc<Recurrent>),
}

impl Packed {
    /// What is packed, in the order in which it was.
    pub fn parts(&self) -> Vec<&Buffer> {
        match self {
            Self::Conv(c) => c.parts(),
            Self::Conv8(c) => c.parts(),
            Self::ConvTranspose(c) => c.parts(),
            Self::Gemm(g) => g.parts().collect(),
            Self::Sparse(s) => s.parts().collect(),
            Self::Sparse8(s) => s.parts().collect(),
            Self::Gemm8(g) => g.parts().collect(),
            Self::Bits(b) => b.parts().collect(),
            Self::Recurrent(r) => r.parts(),
        }
    }

    /// Their size.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Conv(c) => c.bytes(),
            Self::Conv8(c) => c.bytes(),
            Self::ConvTranspose(c) => c.bytes(),
            Self::Gemm(g) => g.bytes(),
            Self::Sparse(s) => s.bytes(),
            Self::Sparse8(s) => s.bytes(),
            Self::Gemm8(g) => g.bytes(),
            Self::Bits(b) => b.bytes(),
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
    stored: Stored,
}

/// What was packed for a graph before, by the places of nodes, and for the graphs inside of them.
#[derive(Default)]
pub(crate) struct Stored {
    parts: BTreeMap<usize, Vec<Buffer>>,
    inner: BTreeMap<(usize, String), Stored>,
}

impl Stored {
    /// Adds what was packed for the node that [`Shelf::each`] called `name`; nothing where the
    /// name is none that it gives.
    pub fn add(&mut self, name: &str, parts: Vec<Buffer>) -> Option<()> {
        let (mut stored, mut rest, mut depth) = (self, name, 0);
        while let Some((node, inner)) = rest.split_once('.') {
            let (attribute, inner) = inner.split_once('.')?;
            let key = (node.parse().ok()?, attribute.to_string());
            depth += 1;
            if depth > MAX_DEPTH {
                return None;
            }
            (stored, rest) = (stored.inner.entry(key).or_default(), inner);
        }
        stored.parts.insert(rest.parse().ok()?, parts);
        Some(())
    }
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
        let Row { inner, stored, .. } = &mut *self.row();
        let key = (id.index(), name.to_string());
        let new = || Self::of(stored.inner.remove(&key).unwrap_or_default());
        inner.entry((id, name.into())).or_insert_with(new).clone()
    }

    /// An empty shelf, for which this was packed before.
    pub fn of(stored: Stored) -> Self {
        Self(Arc::new(Mutex::new(Row {
            stored,
            ..Row::default()
        })))
    }

    /// Shows everything that is packed, with names of nodes for [`Stored::add`].
    pub fn each(&self, within: &str, see: &mut dyn FnMut(String, &Packed)) {
        let row = self.row();
        for (id, packed) in &row.packed {
            see(format!("{within}{}", id.index()), packed);
        }
        for ((id, name), inner) in &row.inner {
            inner.each(&format!("{within}{}.{name}.", id.index()), see);
        }
    }

    /// Bytes of all packed weights.
    pub fn bytes(&self) -> usize {
        let row = self.row();
        let own = row.packed.values().map(Packed::bytes);
        own.chain(row.inner.values().map(Self::bytes)).sum()
    }
}

impl<'a> Planner<'a> {
    /// Weights packed once for node `id`.
    pub fn packed(
        &mut self,
        id: NodeId,
        make: impl FnOnce(&Ctx) -> Option<Packed>,
    ) -> Option<Packed> {
        if let Some(packed) = self.shelf.get(id) {
            return Some(packed);
        }
        let stored = self.shelf.row().stored.parts.remove(&id.index());
        let packed = match stored {
            Some(parts) => make(&self.maker.ctx.with_stored(parts))?,
            None => make(&self.maker.ctx)?,
        };
        self.shelf.put(id, packed.clone());
        if let Some(tell) = self.maker.packed {
            self.constants_of(id).for_each(|t| tell(t.bytes()));
        }
        Some(packed)
    }

    /// What node `id` reads that is constant, or dequantised from a constant.
    fn constants_of(&self, id: NodeId) -> impl Iterator<Item = &Tensor> {
        let graph = self.graph();
        graph.node(id).inputs().iter().flatten().filter_map(|&v| {
            let dequantized = graph.producer_is(v, "DequantizeLinear");
            let from = dequantized.and_then(|q| graph.node(q).input(0));
            self.constant(from.unwrap_or(v))
        })
    }

    /// A constant as f32, or the constant behind a DequantizeLinear, computed.
    pub fn float_weights(&self, v: ValueId) -> Option<Cow<'a, [f32]>> {
        if let Some(t) = self.constant(v) {
            return t.to_f32().ok();
        }
        let made = self.dequantized(v)?;
        Some(Cow::Owned(made.to_f32().ok()?.into_owned()))
    }

    /// As [`Planner::float_weights`], for node `id` to pack; empty where they are packed already.
    pub fn weights_to_pack(&self, id: NodeId, v: ValueId) -> Option<Cow<'a, [f32]>> {
        match self.shelf.get(id) {
            Some(_) => Some(Cow::Borrowed(&[])),
            None => self.float_weights(v),
        }
    }

    /// What a DequantizeLinear of constants makes.
    pub(super) fn dequantized(&self, v: ValueId) -> Option<Tensor> {
        let node = self
            .graph()
            .node(self.graph().producer_is(v, "DequantizeLinear")?);
        if let Some(codes) = float8::Codes::of(self.graph(), node) {
            return codes.tensor();
        }
        let mut inputs = Vec::new();
        for i in node.inputs() {
            inputs.push(match i {
                Some(i) => Some(self.constant(*i)?.clone().into()),
                None => None,
            });
        }
        let cx = edgesmith_ir::eval::EvalCx::new(self.model, node, &inputs);
        edgesmith_ir::eval::evaluate_tensors(&cx)
            .ok()?
            .into_iter()
            .next()
    }
}
