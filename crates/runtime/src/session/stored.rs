//! Packed weights that outlive a session.

use bytes::Bytes;
use edgesmith_ir::{Model, Result};
pub use edgesmith_kernels::arena::ALIGNMENT;
use edgesmith_kernels::arena::Buffer;
use edgesmith_kernels::layout::fingerprint;
use edgesmith_kernels::{Ctx, Isa, Threads};

use super::{Options, Session};
use crate::plan::{Packed, Shelf, Stored};

/// What is packed for one node.
pub struct PackedNode {
    /// Where the node is in the model, for [`Session::prepare_stored`].
    pub name: String,
    packed: Packed,
}

impl PackedNode {
    /// What there is to keep, in order; kept, each begins at a multiple of [`ALIGNMENT`] bytes and
    /// is filled up to one.
    pub fn parts(&self) -> Vec<&[u8]> {
        self.packed.parts().into_iter().map(Buffer::bytes).collect()
    }
}

/// Packed weights that were kept: the name of each node, and its parts, filled up to multiples of
/// [`ALIGNMENT`] bytes, with their lengths.
pub type Kept = Vec<(String, Vec<(Bytes, usize)>)>;

impl Session {
    /// What is packed for the nodes of the model, those in bodies of nodes included.
    pub fn packed(&self) -> Vec<PackedNode> {
        let mut all = Vec::new();
        self.program.shelf.each("", &mut |name, packed| {
            let packed = packed.clone();
            all.push(PackedNode { name, packed });
        });
        all.retain(|node| !node.parts().is_empty());
        all
    }

    /// As [`Session::prepare`], with weights that were packed for the same model, instruction set
    /// and options before ([`layout`] is the same), and are read where they lie. Weights whose size
    /// or place is not what a kernel expects are packed anew.
    ///
    /// # Errors
    /// As [`Session::prepare`].
    pub fn prepare_stored(model: &Model, options: &Options, kept: Kept) -> Result<Self> {
        let mut stored = Stored::default();
        for (name, parts) in kept {
            let parts = parts.iter().map(|(bytes, len)| Buffer::shared(bytes, *len));
            if let Some(parts) = parts.collect() {
                // A name that means nothing is of a node that is packed anew.
                let _ = stored.add(&name, parts);
            }
        }
        Self::prepare_on(model, options, Shelf::of(stored))
    }
}

/// What packed weights depend on beside the model and the options: how kernels lay them out.
pub fn layout(options: &Options) -> u64 {
    let isa = Isa::detect_capped(options.isa);
    fingerprint(&Ctx::new(isa, Threads::new(1)).with_bf16(options.bf16))
}
