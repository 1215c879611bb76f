//! The execution providers, best first.

use edgesmith_ir::{NodeId, Result};

use crate::plan::Planner;

pub mod cpu;
pub mod reference;

/// A row of the provider list.
pub struct Provider {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Plans a node, alone or with the nodes after it that it fuses; false where it cannot.
    pub(crate) plan: fn(&mut Planner, NodeId) -> Result<bool>,
}

/// Every provider, best first.
pub static PROVIDERS: &[&Provider] = &[&cpu::CPU, &reference::REFERENCE];
