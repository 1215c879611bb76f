//! Runs a graph: prepare once, run many.
//!
//! [`Session`] plans a graph for the shapes of its inputs: it asks the providers for steps, decides
//! which values are held channels-last, and lays all values out in one arena.

pub mod device;
mod plan;
mod profile;
pub mod providers;
mod session;

pub use plan::{Failure, PlacedPart, Placement};
pub use profile::{Memory, NodeProfile, Profile};
pub use providers::{BY_DEFAULT, PROVIDERS, Provider};
pub use session::{Options, Session, ValueInfo, View, stored};
