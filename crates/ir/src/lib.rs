//! What a model is: graph, tensors, types, operators, and what every layer needs to know of them.
//!
//! Start at [`graph::Graph`]; the operator list is [`ops::OPS`]; the truth about what an operator
//! computes is its reference evaluation, driven by [`eval`].

pub mod analysis;
pub mod budget;
pub mod channels;
pub mod error;
pub mod eval;
pub mod geometry;
pub mod graph;
pub mod infer;
pub mod item;
pub mod ops;
pub mod packed;
pub mod pattern;
pub mod progress;
pub mod random;
pub mod store;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;

pub use budget::{Budget, Limits};
pub use error::{Error, Result};
pub use graph::{Attribute, Capture, Function, Graph, Model, Node, NodeId, Value, ValueId};
pub use item::{Item, Map};
pub use progress::{NoProgress, Progress};
pub use store::{NoStore, Store};
pub use tensor::{Element, Tensor, checked_count};
pub use types::{DType, Dim, Shape, TensorType, Type};
