//! Products of two computed operands of bytes with known scales: QLinearMatMul and
//! MatMulIntegerToFloat of attention.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::elementwise::{Binary, Operand, binary_in_place};
use edgesmith_kernels::gemm::{Epilogue, Order, matmul};
use edgesmith_kernels::quantize::{Quant, dequantize8, quantize8};

use super::quantized;
use crate::plan::{Layout, Planner, Spec};
use crate::providers::cpu::dequantize::{Quantized, bytes};

/// Shapes of a product, batch by batch.
#[derive(Clone, Copy)]
struct Batches {
    sizes: [usize; 3],
    /// From one matrix to the next of each operand; 0 repeats.
    steps: [usize; 2],
}

impl Batches {
    /// Of equal batches, or one matrix for all.
    fn of(a: &[usize], b: &[usize], y: &[usize]) -> Option<Self> {
        let (&[ref ours @ .., m, k], &[ref theirs @ .., depth, n]) = (a, b) else {
            return None;
        };
        let count: usize = y.get(..y.len().checked_sub(2)?)?.iter().product();
        if k != depth || m * n * k * count == 0 {
            return None;
        }
        let step = |own: &[usize], size: usize| match own.iter().product::<usize>() {
            1 => Some(0),
            c if c == count => Some(size),
            _ => None,
        };
        Some(Self {
            sizes: [m, k, n],
            steps: [step(ours, m * k)?, step(theirs, k * n)?],
        })
    }
}

/// QLinearMatMul of two computed operands.
pub(super) fn requantized(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let a = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
    let b = quantized(planner, node.input(3)?, node.input(4), node.input(5))?;
    let to = quantized(planner, node.output(0)?, node.input(6), node.input(7))?;
    let factor = a.quant.scale * b.quant.scale / to.quant.scale;
    product(planner, id, [a, b], to.value, factor, Some(to))
}

/// MatMulIntegerToFloat of two computed operands without a bias.
pub(crate) fn to_floats(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let a = quantized(planner, node.input(0)?, node.input(2), node.input(4))?;
    let b = quantized(planner, node.input(1)?, node.input(3), node.input(5))?;
    let y = node.output(0)?;
    if node.input(6).is_some() || planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let factor = a.quant.scale * b.quant.scale;
    product(planner, id, [a, b], y, factor, None)
}

/// The step of a product in single precision, exact up to sums of 2^24: as floats, or on a grid.
fn product(
    planner: &mut Planner,
    id: NodeId,
    operands: [Quantized; 2],
    y: ValueId,
    factor: f32,
    to: Option<Quantized>,
) -> Option<()> {
    let [ad, bd] = operands.map(|x| planner.typed(x.value).map(|t| t.1));
    let (ad, bd, yd) = (ad?, bd?, planner.typed(y)?.1);
    let batches = Batches::of(&ad, &bd, &yd)?;
    let [a, b] = operands.map(|x| planner.read(x.value, Layout::Plain));
    let (reads, write) = (vec![a?, b?], planner.write(y, Layout::Plain)?);
    let floats =
        |planner: &mut Planner, dims: &[usize]| planner.slot(4 * dims.iter().product::<usize>());
    let mut writes = vec![write, floats(planner, &ad), floats(planner, &bd)];
    if to.is_some() {
        writes.push(floats(planner, &yd));
    }
    let spec = Spec {
        kernel: "gemm packed on the fly",
        integer: true,
        reads,
        writes,
        makes: vec![(y, Layout::Plain)],
        work: Box::new(move |ctx, x, w| {
            let [y, a, b, rest @ ..] = w else { return };
            let ctx = &ctx.clone().with_bf16(false);
            for (i, wide) in [&mut *a, &mut *b].into_iter().enumerate() {
                let zero = operands[i].quant.zero;
                let data = bytes(x[i], operands[i].signed);
                let wide = bytemuck::cast_slice_mut(wide);
                dequantize8(ctx, data, Quant { scale: 1.0, zero }, wide);
            }
            let (a, b) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
            match (to, rest) {
                (Some(to), [sums]) => {
                    let sums = bytemuck::cast_slice_mut(sums);
                    multiply(ctx, batches, a, b, sums, factor);
                    let zero = to.quant.zero;
                    quantize8(ctx, sums, Quant { scale: 1.0, zero }, to.signed, y);
                }
                _ => multiply(ctx, batches, a, b, bytemuck::cast_slice_mut(y), factor),
            }
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// The products of all batches, times `factor`.
fn multiply(ctx: &Ctx, batches: Batches, a: &[f32], b: &[f32], y: &mut [f32], factor: f32) {
    let ([m, k, n], [a_step, b_step]) = (batches.sizes, batches.steps);
    for (i, c) in y.chunks_exact_mut(m * n).enumerate() {
        let (a, b) = (&a[i * a_step..][..m * k], &b[i * b_step..][..k * n]);
        matmul(ctx, [m, k, n], a, b, Order::KN, c, &Epilogue::default());
    }
    binary_in_place(ctx, Binary::Mul, y, Operand::Scalar(factor));
}
