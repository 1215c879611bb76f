//! For tests: numbers by seed, random models, tolerances, and the check that two models agree.

pub mod compare;
pub mod random;
pub mod rng;

pub use compare::{Tolerance, assert_close, assert_same_answers, check, difference};
pub use rng::Rng;
