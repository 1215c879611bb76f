//! What runs cost: time by node, memory of a plan.

/// Time by node since the last reset; empty unless [`crate::Options::profile`] asks for it.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Runs that were timed.
    pub runs: u64,
    /// Nanoseconds in all steps.
    pub total_ns: u64,
    /// One row a step, in the order of the plan.
    pub nodes: Vec<NodeProfile>,
}

/// The time of one step.
#[derive(Debug, Clone, Default)]
pub struct NodeProfile {
    /// The name of its node.
    pub name: String,
    /// The operator, or `reorder`, `widen`, `narrow` for what the plan adds.
    pub op: String,
    /// The provider.
    pub provider: String,
    /// The kernel.
    pub kernel: String,
    /// True for integer arithmetic.
    pub integer: bool,
    /// Nanoseconds.
    pub ns: u64,
    /// How often it ran.
    pub calls: u64,
    /// Multiply-accumulates of one call.
    pub macs: u64,
}

/// The memory of the current plan, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// The arena with all activations of known shape.
    pub arena_bytes: usize,
    /// The most that is alive at one time: no arena can be smaller.
    pub lower_bound: usize,
    /// Weights as packed for the kernels.
    pub weight_bytes: usize,
}
