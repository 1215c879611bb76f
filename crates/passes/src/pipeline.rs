//! The list of passes, in the order in which they run.

use crate::pass::Pass;
use crate::{
    cancel_quantize, drop_before_quantize, drop_expand, drop_identity, drop_neutral,
    einsum_to_matmul, fold_constants, fuse_activation, fuse_attention, fuse_bias_gelu,
    fuse_conv_activation, fuse_conv_bn, fuse_conv_scale, fuse_embeddings, fuse_gemm_transpose,
    fuse_layer_norm, fuse_matmul_add, fuse_matmul_scale, fuse_pad_conv, fuse_quantized,
    fuse_skip_norm, inline_constant_if, inline_constant_loop, inline_functions, merge_casts,
    merge_clips, merge_concats, merge_duplicates, merge_pads, merge_reshapes, merge_slices,
    merge_transposes, name_table_lengths, propagate_quantize, push_transposes, remove_dead_nodes,
    settle_shapes, sink_squeeze,
};

/// Every pass. The list is repeated until nothing changes, so the order decides how soon, and
/// which of two competing passes sees a pattern first. Those above level basic wait until the basic
/// ones have nothing more to do.
pub static PASSES: &[&Pass] = &[
    // First, so that every other pass sees operators and not calls.
    &inline_functions::PASS,
    // Before all that look for constants: weights in Constant nodes, computed shapes, conditions.
    &fold_constants::PASS,
    // After fold_constants, which takes those without symbols.
    &settle_shapes::PASS,
    // As soon as conditions and counts are known, so that the body is cleaned with the rest.
    &inline_constant_if::PASS,
    &inline_constant_loop::PASS,
    // Before patterns, which do not look through nodes that do nothing.
    &drop_identity::PASS,
    &drop_neutral::PASS,
    // Before what counts readers, so that what only computed a shape is none.
    &remove_dead_nodes::PASS,
    // Before patterns too: two nodes that became one have one reader, not two.
    &merge_duplicates::PASS,
    // After drop_identity, so that nothing stands between two of a kind.
    &merge_transposes::PASS,
    &merge_reshapes::PASS,
    &merge_casts::PASS,
    &merge_slices::PASS,
    &merge_pads::PASS,
    &merge_concats::PASS,
    &merge_clips::PASS,
    // After the merges, so that it looks at one Expand or Unsqueeze and not at a chain.
    &drop_expand::PASS,
    // Before what joins factors and biases to products.
    &einsum_to_matmul::PASS,
    // First the pairs that are there already, then those that meet by moving.
    &cancel_quantize::PASS,
    &propagate_quantize::PASS,
    // After merge_clips, which makes one of two.
    &drop_before_quantize::PASS,
    // Before what finds a bias or an activation directly behind a convolution.
    &sink_squeeze::PASS,
    // Before fuse_conv_bn: the padding changes the node, not its weights.
    &fuse_pad_conv::PASS,
    // Before fuse_matmul_add, which would hide the MatMul and Add in front of the normalization.
    &fuse_conv_bn::PASS,
    &fuse_conv_scale::PASS,
    &fuse_matmul_add::PASS,
    // After fuse_matmul_add, which makes the Gemm.
    &fuse_gemm_transpose::PASS,
    // Level extended. First what lets those after it see that shapes are the same.
    &name_table_lengths::PASS,
    // The norms and functions, of which those after them are made.
    &fuse_layer_norm::PASS,
    &fuse_activation::PASS,
    // Before fuse_matmul_scale, which would take the scaled product out of attention.
    &fuse_attention::PASS,
    // Before fuse_skip_norm, which would take the last sum.
    &fuse_embeddings::PASS,
    &fuse_skip_norm::PASS,
    &fuse_bias_gelu::PASS,
    // After fuse_activation, so that HardSwish is not split into a Conv with HardSigmoid.
    &fuse_conv_activation::PASS,
    &fuse_matmul_scale::PASS,
    // Last: other groups of DequantizeLinear, operator and QuantizeLinear stay, and the cpu provider
    // runs them in integers as they are.
    &fuse_quantized::PASS,
    // Level layout. The runtime chooses the layouts of its kernels itself; what is left is to keep
    // those of the file from turning back and forth.
    &push_transposes::PASS,
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
