//! Steps that change what a model computes, and the measurements that say by how much.
//!
//! [`calibrate`] looks at values once; [`quantize`] turns a float model into one of small numbers;
//! [`evaluate`] says what that cost, [`simulate`] what a device whose sums saturate would make of it;
//! [`mixed`] finds the layers that need more bits; [`target`] says what devices can do. [`steps`] are what can be done to a model by name, and a
//! [`recipe`] puts them in order.

pub mod calibrate;
pub mod distill;
pub mod evaluate;
pub mod mixed;
pub mod prune;
pub mod quantize;
pub mod recipe;
mod samples;
pub mod simulate;
pub mod steps;
pub mod target;
mod written;

pub use samples::{Batch, Part, Samples};
