//! Graph to plain C99 for microcontrollers: no heap, no interpreter, only the kernels that the model
//! needs.

pub mod boards;
pub mod kernels;
