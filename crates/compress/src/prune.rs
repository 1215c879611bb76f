//! Pruning: what a model can do without is taken away.
//!
//! [`weights`] sets single numbers, N of M numbers or blocks of weights to zero; tensors keep their
//! lengths.

pub mod weights;
