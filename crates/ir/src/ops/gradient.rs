//! Gradients of operators, as operators of the domain `edgesmith`: what a training graph holds
//! behind its loss.
//!
//! `<Op>Grad` takes the inputs (or, where the derivative is plainer in it, the output) of `<Op>`
//! and the gradient of its output, has its attributes, and gives the gradients of its inputs.
//! Everything else of a backward graph is ONNX's own operators.

use super::OpDef;

pub mod after;
pub mod broadcast;
pub mod conv;
pub mod grid_sample;
pub mod lines;
pub mod loss;
pub mod moved;
pub mod norm;
pub mod pool;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod softmax;
pub mod unary;
pub mod unfold;

/// The domain of the operators that are ours.
pub const DOMAIN: &str = "edgesmith";

/// A row typed like its first input.
const BASE: OpDef = OpDef {
    domain: DOMAIN,
    ..OpDef::BASE
};
