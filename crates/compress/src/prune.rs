//! Pruning: what a model can do without is taken away.
//!
//! [`weights`] sets single numbers, N of M numbers or blocks of weights to zero; tensors keep their
//! lengths. [`lottery`] looks for the part of a network that learns as well as the whole.

pub mod lottery;
pub mod weights;
