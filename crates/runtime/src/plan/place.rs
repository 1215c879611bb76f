//! Where a value lies: in which layouts, as its own type, widened or rounded.

use edgesmith_ir::{DType, NodeId, ValueId};

use super::{Layout, Planner, SlotId};

/// As what a slot holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its own type.
    Own,
    /// f32, where its type is narrower.
    Wide,
    /// BF16, where its type is f32.
    Rounded,
}

/// The slots that hold one value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    slots: [[Option<SlotId>; 2]; 3],
    /// On the heap, because its shape is known only when it is there.
    pub heap: bool,
    /// Made on demand by this DequantizeLinear.
    pub lazy: Option<NodeId>,
}

impl Place {
    pub fn slot(&mut self, layout: Layout, form: Form) -> &mut Option<SlotId> {
        &mut self.slots[form as usize][layout as usize]
    }

    pub fn has(&self, layout: Layout, form: Form) -> bool {
        self.slots[form as usize][layout as usize].is_some()
    }

    /// Whether it is there in `layout`, in any form.
    pub fn lies(&self, layout: Layout) -> bool {
        self.slots.iter().any(|s| s[layout as usize].is_some())
    }
}

impl Planner<'_> {
    /// True where a value is there already, or can be made on demand.
    pub fn is_ready(&self, v: ValueId) -> bool {
        self.has_plain(v) || self.places[v.index()].lies(Layout::Last)
    }

    /// True where the value is there row-major.
    pub fn has_plain(&self, v: ValueId) -> bool {
        self.places[v.index()].lies(Layout::Plain)
    }

    /// True where the value is there channels-last.
    pub fn has_last(&self, v: ValueId) -> bool {
        let p = &self.places[v.index()];
        let lazy = || {
            let node = self.graph().node(p.lazy?);
            Some(self.places[node.input(0)?.index()].has(Layout::Last, Form::Own))
        };
        p.lies(Layout::Last) || lazy().unwrap_or(false)
    }

    /// True where the value is there in `layout`, rounded to BF16.
    pub fn is_rounded(&self, v: ValueId, layout: Layout) -> bool {
        self.places[v.index()].has(layout, Form::Rounded)
    }

    /// True where a kernel that can should write `v` rounded to BF16: all that read it are
    /// products of BF16, or what they add, or the largest of windows that such products read,
    /// and nobody else sees it.
    pub fn may_round(&self, v: ValueId) -> bool {
        self.is_read_by(v, |id, input| {
            let node = self.graph().node(id);
            let largest = node.op == "MaxPool" && node.output(1).is_none();
            let rounds = |v| self.is_read_by(v, |id, input| self.rounds(id, input));
            self.rounds(id, input) || (largest && node.output(0).is_some_and(rounds))
        })
    }

    /// Whether `v` is a float that only nodes of which this holds read, where BF16 is asked for.
    fn is_read_by(&self, v: ValueId, holds: impl Fn(NodeId, usize) -> bool) -> bool {
        let float = self.typed(v).is_some_and(|t| t.0 == DType::F32);
        let readers = self.graph().value(v).consumers();
        self.maker.ctx.bf16()
            && float
            && !self.is_kept(v)
            && readers.iter().all(|&(id, input)| holds(id, input))
    }

    /// Whether a node rounds what it reads as its input `input`.
    fn rounds(&self, id: NodeId, input: usize) -> bool {
        let node = self.graph().node(id);
        let weights = || node.input(1).is_some_and(|w| self.constant(w).is_some());
        match (node.op.as_str(), input) {
            ("Conv" | "FusedConv", 0) | ("MatMul" | "Gemm" | "FusedGemm", 0) => weights(),
            ("FusedConv", 3) => true,
            ("Add", _) => {
                let Some(other) = node.inputs().get(input ^ 1).copied().flatten() else {
                    return false;
                };
                let made = self.graph().value(other).producer();
                let product = |(id, _)| {
                    matches!(
                        self.graph().node(id).op.as_str(),
                        "Conv" | "MatMul" | "Gemm"
                    )
                };
                made.is_some_and(product)
            }
            _ => false,
        }
    }
}
