//! What can be said of a graph without running it: liveness, memory, cost, concrete shapes, and
//! where it differs from another.

pub mod cost;
pub mod difference;
pub mod lengths;
pub mod liveness;
pub mod memory;
mod pruned;
mod quantised;
pub mod samples;

pub use cost::{Cost, NodeCost, model_cost, node_costs};
pub use difference::difference;
pub use lengths::{axis_name, concrete_inputs, workable_inputs};
pub use liveness::{Range, liveness};
pub use memory::{Activations, Interval, MemoryPlan, peak_activations};
pub use pruned::{PRUNED, Pruned, mark_pruned, pruned};
pub use quantised::quantised;
