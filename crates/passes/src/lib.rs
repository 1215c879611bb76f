//! Graph to equal graph: what makes a model smaller and faster without changing what it computes.
//!
//! The list is [`pipeline::PASSES`]; [`optimize`] runs it up to a [`Level`].

mod affine;
mod cancel_quantize;
mod convert_opset;
mod drop_before_quantize;
mod drop_expand;
mod drop_identity;
mod drop_neutral;
mod einsum_to_matmul;
mod float_data;
mod fold_constants;
mod fuse_activation;
mod fuse_attention;
mod fuse_bias_gelu;
mod fuse_conv_activation;
mod fuse_conv_bn;
mod fuse_conv_scale;
mod fuse_embeddings;
mod fuse_gemm_transpose;
mod fuse_layer_norm;
mod fuse_matmul_add;
mod fuse_matmul_scale;
mod fuse_pad_conv;
mod fuse_quantized;
mod fuse_skip_norm;
mod inline_constant_if;
mod inline_constant_loop;
mod inline_functions;
mod merge_casts;
mod merge_clips;
mod merge_concats;
mod merge_duplicates;
mod merge_pads;
mod merge_reshapes;
mod merge_slices;
mod merge_transposes;
mod name_table_lengths;
mod pass;
mod pattern;
pub mod pipeline;
mod propagate_quantize;
mod push_transposes;
mod quantization;
mod remove_dead_nodes;
mod rewrite;
mod settle_shapes;
mod sink_squeeze;
mod splice;
#[cfg(test)]
mod testing;

pub use convert_opset::{NEWEST, OLDEST, UPGRADES, Upgrade, convert_opset};
pub use pass::{Level, Pass, PassCx, RunOptions, Size, Step, Trace, optimize};
pub use pipeline::PASSES;
