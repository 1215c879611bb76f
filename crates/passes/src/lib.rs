//! Graph to equal graph: what makes a model smaller and faster without changing what it computes.
//!
//! The list is [`pipeline::PASSES`]; [`optimize`] runs it up to a [`Level`].

mod convert_opset;
mod drop_identity;
mod float_data;
mod fold_constants;
mod fuse_conv_bn;
mod fuse_matmul_add;
mod fuse_pad_conv;
mod inline_constant_if;
mod inline_functions;
mod merge_duplicates;
mod merge_transposes;
mod pass;
pub mod pipeline;
mod remove_dead_nodes;
mod rewrite;
mod splice;
#[cfg(test)]
mod testing;

pub use convert_opset::{NEWEST, OLDEST, UPGRADES, Upgrade, convert_opset};
pub use pass::{Level, Pass, PassCx, RunOptions, Step, Trace, optimize};
pub use pipeline::PASSES;
