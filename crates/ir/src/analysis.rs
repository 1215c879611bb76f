//! What can be said of a graph without running it: liveness, memory, cost, concrete shapes.

pub mod cost;
pub mod liveness;
pub mod memory;

pub use cost::{Cost, NodeCost, model_cost, node_costs};
pub use liveness::{Range, liveness};
pub use memory::{Activations, Interval, MemoryPlan, concrete_inputs, peak_activations};
