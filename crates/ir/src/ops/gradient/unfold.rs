//! The gradient of Col2Im takes an image apart: `Col2ImGrad(X, image_shape, block_shape, dY) -> dX`.

use super::BASE;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::unfold::{COL2IM, col2im_moves};
use crate::ops::{Arity, OpDef};

/// The gradient of Col2Im.
pub static COL2IM_GRAD: OpDef = OpDef {
    name: "Col2ImGrad",
    inputs: Arity(4, 4),
    attrs: COL2IM.attrs,
    eval: Some(|cx| {
        let (x, dy) = (cx.input(0)?, cx.input(3)?);
        let (dims, moves) = col2im_moves(cx)?;
        expect_dims("the gradient", dy, &dims)?;
        let (dy, mut dx) = (floats(dy)?, vec![0.0; x.count()]);
        for (from, to) in moves {
            dx[from] += dy[to];
        }
        Ok(vec![from_floats(x.dtype(), x.dims(), dx)?])
    }),
    examples: &[
        "edgesmith.Col2ImGrad(f32[1,8,4], i64[2]{3,3}, i64[2]{2,2}, f32[1,2,3,3])",
        "edgesmith.Col2ImGrad(f32[2,3,4], i64[1]{5}, i64[1]{3}, f32[2,1,5]) {pads=[1,0],strides=[1]}",
    ],
    ..BASE
};
