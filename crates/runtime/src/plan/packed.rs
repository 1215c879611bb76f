//! Weights in the form that kernels want them in.

use std::sync::Arc;

use edgesmith_kernels::conv::{ConvF32, ConvI8};
use edgesmith_kernels::gemm::{PackedF32, PackedI8};

/// Weights packed for kernels; they serve every plan of a session.
#[derive(Clone)]
pub(crate) enum Packed {
    Conv(ConvF32),
    Conv8(ConvI8),
    Gemm(Arc<PackedF32>),
    Gemm8(Arc<PackedI8>),
}

impl Packed {
    /// Their size.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Conv(c) => c.bytes(),
            Self::Conv8(c) => c.bytes(),
            Self::Gemm(g) => g.bytes(),
            Self::Gemm8(g) => g.bytes(),
        }
    }
}
