//! Graph to plain C99 for microcontrollers: no heap, no interpreter, only the kernels that the model
//! needs.

pub mod arena;
pub mod boards;
pub mod emit;
pub mod expand;
pub mod firmware;
pub mod fixed;
pub mod kernels;
mod lower;
pub mod program;
mod provider;
mod readme;
mod split;
mod tensors;

pub use firmware::Firmware;
pub use kernels::Flavour;
pub use lower::lower;
pub use provider::PROVIDERS;
pub use split::split;
