//! A value where it lies during a run, for those who watch.

use std::borrow::Cow;

use bytes::Bytes;
use edgesmith_ir::{DType, Result, Tensor};
use edgesmith_kernels::{Ctx, permute};

use crate::plan::{Layout, in_memory};

/// A value that was just made. Nothing of it is copied before it is asked for.
#[derive(Clone, Copy)]
pub struct View<'a> {
    ctx: &'a Ctx,
    dtype: DType,
    dims: &'a [usize],
    layout: Layout,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of a tensor.
    pub fn of(ctx: &'a Ctx, tensor: &'a Tensor) -> Self {
        Self {
            ctx,
            dtype: tensor.dtype(),
            dims: tensor.dims(),
            layout: Layout::Plain,
            bytes: tensor.bytes(),
        }
    }

    /// A view of a part of an arena.
    pub(crate) fn new(
        ctx: &'a Ctx,
        (dtype, dims): (DType, &'a [usize]),
        layout: Layout,
        bytes: &'a [u8],
    ) -> Self {
        Self {
            ctx,
            dtype,
            dims,
            layout,
            bytes,
        }
    }

    /// The instructions and threads of the run, which are idle while a view is shown.
    pub fn ctx(&self) -> &'a Ctx {
        self.ctx
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its lengths, as ONNX orders them.
    pub fn dims(&self) -> &'a [usize] {
        self.dims
    }

    /// True where it lies in memory as `[batch, spatial…, channels]` and not row-major.
    pub fn is_channels_last(&self) -> bool {
        self.layout == Layout::Last
    }

    /// The elements as f32, in the order in which they lie.
    ///
    /// # Errors
    /// When they cannot be read as f32.
    pub fn floats(&self) -> Result<Cow<'a, [f32]>> {
        if self.dtype == DType::F32
            && let Ok(floats) = bytemuck::try_cast_slice(self.bytes)
        {
            return Ok(Cow::Borrowed(floats));
        }
        let lying = Tensor::from_bytes(
            self.dtype,
            &in_memory(self.dims, self.layout),
            Bytes::copy_from_slice(self.bytes),
        )?;
        Ok(Cow::Owned(lying.to_f32()?.into_owned()))
    }

    /// A row-major copy.
    ///
    /// # Errors
    /// When the bytes are not those of such a tensor, which is a bug.
    pub fn tensor(&self) -> Result<Tensor> {
        if self.layout == Layout::Plain {
            let bytes = Bytes::copy_from_slice(self.bytes);
            return Tensor::from_bytes(self.dtype, self.dims, bytes);
        }
        let mut plain = vec![0u8; self.bytes.len()];
        let rank = self.dims.len();
        let source = in_memory(self.dims, Layout::Last);
        let order: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        let size = self.dtype.bits() / 8;
        permute::permute(self.ctx, size, &source, &order, self.bytes, &mut plain);
        Tensor::from_bytes(self.dtype, self.dims, plain.into())
    }
}
