//! After: a value that is not there before another one.

use super::BASE;
use crate::ops::{Arity, OpDef};

/// `After(X, later) -> X`: X as it is, once `later` is known too. What reads it runs after that,
/// and is not taken for the same as what reads X.
pub static AFTER: OpDef = OpDef {
    name: "After",
    inputs: Arity(2, 2),
    eval: Some(|cx| Ok(vec![cx.input(0)?.clone()])),
    examples: &["edgesmith.After(f32[2,3], f32[4])"],
    ..BASE
};
