//! For tests: numbers by seed, random models, tolerances, and the check that two models agree.

pub mod compare;
pub mod mutate;
pub mod networks;
pub mod property;
pub mod random;
pub mod rng;
pub mod shrink;

pub use compare::{Tolerance, assert_close, assert_same_answers, check, difference};
pub use rng::Rng;
