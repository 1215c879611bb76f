//! QuantizeLinear and DequantizeLinear of bytes whose scales are computed, or many, and their
//! gradients.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::quantize::{
    Grids, Quant, dequantize_axis, dequantize_gradient, dequantize8, quantize_axis,
    quantize_gradient, quantize8,
};

use super::activations::present_layout;
use super::dequantize::bytes;
use super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner, SlotId, Spec};

/// How the elements of a tensor are quantised.
struct Many {
    scales: Operand,
    zeros: Vec<i32>,
    signed: bool,
    /// Elements that follow each other in one grid.
    inner: usize,
    layout: Layout,
}

impl Many {
    /// That of node `id`, which quantises or dequantises `x`, to or from bytes `q`; what is read is
    /// added to `reads`.
    fn of(
        planner: &mut Planner,
        id: NodeId,
        (x, q): (ValueId, DType),
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        let signed = match q {
            DType::I8 => true,
            DType::U8 => false,
            _ => return None,
        };
        let node = planner.graph().node(id);
        let dims = planner.typed(x)?.1;
        let scale = node.input(1)?;
        let count: usize = planner.float_dims(scale)?.iter().product();
        if planner.typed(scale)?.0 != DType::F32 || node.int("block_size").unwrap_or(0) != 0 {
            return None;
        }
        let zeros: Vec<i32> = match node.input(2) {
            Some(z) => {
                let zeros = planner.constant(z)?.to_i64().ok()?.into_iter();
                zeros
                    .map(|z| i32::try_from(z).ok())
                    .collect::<Option<_>>()?
            }
            None => vec![0; count],
        };
        let (inner, layout) = if count == 1 {
            (1, present_layout(planner, x))
        } else {
            let axis = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(1), dims.len()).ok()?;
            if dims[axis] != count || planner.float_dims(scale)?.len() != 1 {
                return None;
            }
            (dims[axis + 1..].iter().product(), Layout::Plain)
        };
        if count == 0 || zeros.len() != count {
            return None;
        }
        Some(Self {
            scales: Operand::of(planner, scale, reads)?,
            zeros,
            signed,
            inner,
            layout,
        })
    }

    fn quants(&self, x: &[&[u8]]) -> Vec<Quant> {
        let pairs = self.scales.get(x).iter().zip(&self.zeros);
        pairs.map(|(&scale, &zero)| Quant { scale, zero }).collect()
    }

    fn quantize(&self, ctx: &Ctx, x: &[&[u8]], from: &[f32], to: &mut [u8]) {
        match (&self.quants(x)[..], self.signed) {
            (&[one], signed) => quantize8(ctx, from, one, signed, to),
            (many, false) => quantize_axis::<u8>(from, many, self.inner, to),
            (many, true) => {
                quantize_axis::<i8>(from, many, self.inner, bytemuck::cast_slice_mut(to));
            }
        }
    }

    fn dequantize(&self, ctx: &Ctx, x: &[&[u8]], from: &[u8], to: &mut [f32]) {
        match (&self.quants(x)[..], self.signed) {
            (&[one], signed) => dequantize8(ctx, bytes(from, signed), one, to),
            (many, false) => dequantize_axis::<u8>(from, many, self.inner, to),
            (many, true) => {
                dequantize_axis::<i8>(bytemuck::cast_slice(from), many, self.inner, to);
            }
        }
    }
}

/// QuantizeLinear.
pub(super) fn quantize(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let to = planner.typed(y)?.0;
    if planner.typed(x)?.0 != DType::F32 {
        return None;
    }
    let mut reads = Vec::new();
    let many = Many::of(planner, id, (x, to), &mut reads)?;
    let layout = many.layout;
    let from = Operand::in_layout(planner, x, layout, &mut reads)?;
    let write = planner.write(y, layout)?;
    let spec = Spec {
        kernel: "quantize",
        integer: false,
        reads,
        writes: vec![write],
        makes: vec![(y, layout)],
        work: Box::new(move |ctx, x, y| many.quantize(ctx, x, from.get(x), y[0])),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// DequantizeLinear.
pub(super) fn dequantize(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let from = planner.typed(x)?.0;
    planner.float_dims(y)?;
    let mut reads = Vec::new();
    let many = Many::of(planner, id, (x, from), &mut reads)?;
    let layout = many.layout;
    let at = reads.len();
    reads.push(planner.read(x, layout)?);
    let work: Kernel = Box::new(move |ctx, x, y| {
        many.dequantize(ctx, x, x[at], bytemuck::cast_slice_mut(y[0]));
    });
    planner.step_f32(id, &[id], (y, layout), "dequantize", reads, work)
}

/// `QuantizeLinearGrad(X, scale, zero_point, dQ)` and `DequantizeLinearGrad(Q, scale, zero_point,
/// dY)`, for the first input and the scale.
pub(super) fn gradient(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, d) = (node.input(0)?, node.input(3)?);
    let (dx, dscale) = (node.output(0), node.output(1));
    let quantizes = node.op == "QuantizeLinearGrad";
    let grid = match (quantizes, node.input(2)) {
        (false, _) => planner.typed(x)?.0,
        (true, Some(zero)) => planner.typed(zero)?.0,
        (true, None) => match node.int("output_dtype").unwrap_or(0) {
            0 => DType::U8,
            code => DType::from_onnx(i32::try_from(code).ok()?)?,
        },
    };
    let wrong = |v: ValueId| planner.typed(v).is_none_or(|t| t.0 != DType::F32);
    if [dx, dscale].into_iter().flatten().any(wrong)
        || wrong(d)
        || (quantizes && wrong(x))
        || planner.typed(d)?.1 != planner.typed(x)?.1
    {
        return None;
    }
    let mut reads = Vec::new();
    let many = Many::of(planner, id, (x, grid), &mut reads)?;
    let (layout, count) = (many.layout, many.zeros.len());
    let at = reads.len();
    reads.push(planner.read(x, layout)?);
    reads.push(planner.read(d, layout)?);
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for (v, layout) in [(dx, layout), (dscale, Layout::Plain)] {
        if let Some(v) = v {
            writes.push(planner.write(v, layout)?);
            makes.push((v, layout));
        }
    }
    let zeros: Vec<f32> = many.zeros.iter().map(|&z| z as f32).collect();
    let range = if many.signed {
        [-128.0, 127.0]
    } else {
        [0.0, 255.0]
    };
    let work: Kernel = Box::new(move |ctx, x, y| {
        let grids = Grids {
            steps: many.scales.get(x),
            zeros: &zeros,
            range,
            inner: many.inner,
        };
        let mut sums = vec![0f32; count];
        let mut to = y.iter_mut().map(|y| bytemuck::cast_slice_mut::<u8, f32>(y));
        let to_x = dx.and_then(|_| to.next());
        let d = bytemuck::cast_slice(x[at + 1]);
        if quantizes {
            let both = [bytemuck::cast_slice(x[at]), d];
            quantize_gradient(ctx, both, grids, to_x, &mut sums);
        } else {
            let q = bytes(x[at], many.signed);
            dequantize_gradient(ctx, q, d, grids, to_x, &mut sums);
        }
        if let Some(to) = to.next() {
            to.copy_from_slice(&sums);
        }
    });
    let spec = Spec {
        kernel: "straight through",
        integer: false,
        reads,
        writes,
        makes,
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}
