//! What is told of a step and of a node.

/// How the profile names a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepRow {
    pub name: String,
    pub op: String,
    pub provider: &'static str,
    pub kernel: String,
    pub integer: bool,
    pub macs: u64,
    /// Bytes of the slots that it reads and writes, and of packed weights.
    pub bytes: u64,
}

/// Where one node of the graph runs.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// The node's name.
    pub node: String,
    /// The operator.
    pub op: String,
    /// The provider; empty for a node that no step needs.
    pub provider: String,
    /// The kernel.
    pub kernel: String,
    /// True where it runs in integer arithmetic, alone or within a fused group.
    pub integer: bool,
    /// The node whose step does this node's work too.
    pub fused_into: Option<String>,
    /// Why it is where it is, where that is not plain.
    pub note: Option<String>,
}
