//! Steps that change what a model computes, and the measurements that say by how much.
//!
//! [`calibrate`] looks at values once; [`quantize`] turns a float model into one of small numbers;
//! [`evaluate`] says what that cost, [`simulate`] what a device whose sums saturate would make of it;
//! [`target`] says what devices can do.

pub mod calibrate;
pub mod evaluate;
pub mod quantize;
mod samples;
pub mod simulate;
pub mod target;
mod written;

pub use samples::{Batch, Samples};
