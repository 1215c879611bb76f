//! The list of passes, in the order in which they run.

use crate::pass::Pass;
use crate::{
    drop_identity, fold_constants, fuse_conv_bn, fuse_matmul_add, fuse_pad_conv,
    inline_constant_if, inline_functions, merge_duplicates, merge_transposes, remove_dead_nodes,
};

/// Every pass. The list is repeated until nothing changes, so the order decides how soon, and
/// which of two competing passes sees a pattern first.
pub static PASSES: &[&Pass] = &[
    // First, so that every other pass sees operators and not calls.
    &inline_functions::PASS,
    // Before all that look for constants: weights in Constant nodes, computed shapes, conditions.
    &fold_constants::PASS,
    // As soon as conditions are known, so that the branch is cleaned with the rest.
    &inline_constant_if::PASS,
    // Before patterns, which do not look through nodes that do nothing.
    &drop_identity::PASS,
    // Before patterns too: two nodes that became one have one reader, not two.
    &merge_duplicates::PASS,
    // After drop_identity, so that nothing stands between two of them.
    &merge_transposes::PASS,
    // Before fuse_conv_bn: the padding changes the node, not its weights.
    &fuse_pad_conv::PASS,
    // Before fuse_matmul_add, which would hide the MatMul and Add in front of the normalization.
    &fuse_conv_bn::PASS,
    &fuse_matmul_add::PASS,
    // Last, to sweep up what the others left behind.
    &remove_dead_nodes::PASS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (i, p) in PASSES.iter().enumerate() {
            assert!(PASSES[..i].iter().all(|q| q.name != p.name), "{}", p.name);
        }
    }
}
