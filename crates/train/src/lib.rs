//! Training: gradients as a pass over the graph, losses, optimizers, and the loop that uses them.

pub mod grad;

pub use grad::differentiate;
