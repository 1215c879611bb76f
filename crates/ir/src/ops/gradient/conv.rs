//! `ConvGrad(X, W, dY) -> dX, dW, dB`.

use super::BASE;
use crate::Shape;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::conv::{ATTRS, Convolution};
use crate::ops::{Arity, OpDef};

/// The gradients of Conv; each output may be left out.
pub static CONV_GRAD: OpDef = OpDef {
    name: "ConvGrad",
    inputs: Arity(3, 3),
    outputs: Arity(1, 3),
    attrs: ATTRS,
    infer: |cx| {
        for i in 0..2 {
            if let Some(ty) = cx.ty(i).cloned() {
                cx.set(i, ty);
            }
        }
        let filters = cx.shape(1).and_then(|s| s.first().cloned());
        let shape = filters.map(|f| [f].into_iter().collect::<Shape>());
        cx.set_tensor(2, cx.dtype(1), shape);
        Ok(())
    },
    eval: Some(|cx| {
        let (x, w, dy) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        let conv = Convolution::of(cx.node, x, w)?;
        expect_dims("the gradient", dy, &conv.dims)?;
        let dy = floats(dy)?;
        let (dx, dw) = conv.gradients(&floats(x)?, &floats(w)?, &dy);
        let plane: usize = conv.dims[2..].iter().product();
        let filters = conv.dims[1];
        let mut db = vec![0.0; filters];
        for (i, line) in dy.chunks(plane.max(1)).enumerate() {
            db[i % filters.max(1)] += line.iter().sum::<f64>();
        }
        Ok(vec![
            from_floats(x.dtype(), x.dims(), dx)?,
            from_floats(w.dtype(), w.dims(), dw)?,
            from_floats(w.dtype(), &[filters], db)?,
        ])
    }),
    examples: &[
        "edgesmith.ConvGrad(f32[2,4,5,5], f32[6,4,3,3], f32[2,6,5,5]) {pads=[1,1,1,1]} -> 3",
        "edgesmith.ConvGrad(f32[2,4,9,9], f32[4,1,3,3], f32[2,4,5,5]) \
         {group=4, strides=[2,2], auto_pad=\"SAME_UPPER\"} -> 3",
        "edgesmith.ConvGrad(f32[1,2,9], f32[3,2,3], f32[1,3,5]) {dilations=[2]} -> 2",
    ],
    ..BASE
};
