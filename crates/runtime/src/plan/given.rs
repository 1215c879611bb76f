//! Inputs of a plan, and which of them can be read where the caller has them.

use std::collections::BTreeSet;

use super::place::Form;
use super::{Layout, Planner, SlotId, Step};

/// An input with a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub slot: SlotId,
    /// No step writes the slot: it can be read where the caller has it.
    pub stays: bool,
}

impl Planner<'_> {
    /// A slot for each input whose shape is known.
    pub(super) fn place_inputs(&mut self) -> Vec<Option<SlotId>> {
        let mut inputs = Vec::new();
        for &v in &self.model.graph.inputs {
            let known = self.typed(v);
            inputs.push(known.and_then(|(dtype, dims)| {
                let slot = self.slot(dtype.bytes_of(dims.iter().product())?);
                *self.places[v.index()].slot(Layout::Plain, Form::Own) = Some(slot);
                Some(slot)
            }));
            if inputs.last() == Some(&None) {
                self.places[v.index()].heap = true;
            }
        }
        inputs
    }
}

/// The inputs of `slots`, and whether each step reads one of them.
pub(super) fn read(slots: &[Option<SlotId>], steps: &[Step]) -> (Vec<Option<Input>>, Vec<bool>) {
    let written = steps.iter().flat_map(|s| s.writes.iter().copied());
    let written: BTreeSet<SlotId> = written.collect();
    let input = |slot: SlotId| Input {
        slot,
        stays: !written.contains(&slot),
    };
    let given: BTreeSet<SlotId> = slots.iter().flatten().copied().collect();
    let reads = |s: &Step| s.reads.iter().any(|slot| given.contains(slot));
    let inputs = slots.iter().map(|slot| slot.map(input));
    (inputs.collect(), steps.iter().map(reads).collect())
}
