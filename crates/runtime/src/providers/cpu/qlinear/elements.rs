//! QLinearAdd and QLinearMul of operands that broadcast, functions of one byte, QLinearSoftmax,
//! QLinearConcat and QLinearWhere.

use edgesmith_ir::eval::{EvalCx, evaluate_tensors};
use edgesmith_ir::{DType, NodeId, Tensor, infer};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::permute::gather_strided;
use edgesmith_kernels::pool::Quant;
use edgesmith_kernels::quantize::{Linear8, Side8, lookup8, softmax8, table8};
use edgesmith_kernels::select::{Stretched, select};

use super::quantized;
use crate::plan::{Kernel, Layout, Planner, SlotId, Spec};
use crate::providers::cpu::activations::{by_table, present_layout};
use crate::providers::cpu::binary::along;
use crate::providers::cpu::dequantize::{Quantized, bytes};
use crate::providers::cpu::{gather, views};

/// How an operand fills the result.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    Full,
    /// A row of this length, again and again.
    Row(usize),
    One,
}

/// An operand of bytes, computed or constant.
struct Side {
    constant: Option<Vec<u8>>,
    signed: bool,
    extent: Extent,
}

impl Side {
    fn operand<'a>(&'a self, reads: &mut impl Iterator<Item = &'a [u8]>) -> Side8<'a> {
        let data = match &self.constant {
            Some(data) => data,
            None => reads.next().unwrap_or_default(),
        };
        match self.extent {
            Extent::Full => Side8::Full(bytes(data, self.signed)),
            Extent::Row(_) => Side8::Row(bytes(data, self.signed)),
            Extent::One => {
                let byte = data.first().copied().unwrap_or_default();
                Side8::One(if self.signed {
                    i32::from(byte as i8)
                } else {
                    i32::from(byte)
                })
            }
        }
    }
}

pub(crate) fn add(planner: &mut Planner, id: NodeId) -> Option<()> {
    pair(planner, id, Linear8::sum)
}

pub(crate) fn mul(planner: &mut Planner, id: NodeId) -> Option<()> {
    pair(planner, id, Linear8::product)
}

fn pair(
    planner: &mut Planner,
    id: NodeId,
    formula: fn(Quant, Quant, Quant) -> Option<Linear8>,
) -> Option<()> {
    let node = planner.graph().node(id);
    let a = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
    let b = quantized(planner, node.input(3)?, node.input(4), node.input(5))?;
    let to = quantized(planner, node.output(0)?, node.input(6), node.input(7))?;
    let linear = formula(a.quant, b.quant, to.quant)?;
    let dims = planner.typed(to.value)?.1;
    let is_last = |x: Quantized| {
        let whole = planner.typed(x.value).is_some_and(|t| t.1 == dims);
        whole && present_layout(planner, x.value) == Layout::Last
    };
    let layout = if is_last(a) || is_last(b) {
        Layout::Last
    } else {
        Layout::Plain
    };
    let mut reads = Vec::new();
    let sides = [a, b].map(|x| side(planner, x, &dims, layout, &mut reads));
    let [Some(a), Some(b)] = sides else {
        return None;
    };
    if let (Extent::Row(m), Extent::Row(n)) = (a.extent, b.extent)
        && m != n
    {
        return None;
    }
    let write = planner.write(to.value, layout)?;
    let spec = Spec {
        kernel: "linear-8",
        integer: true,
        reads,
        writes: vec![write],
        makes: vec![(to.value, layout)],
        work: Box::new(move |ctx, x, y| {
            let mut reads = x.iter().copied();
            let (a, b) = (a.operand(&mut reads), b.operand(&mut reads));
            linear.run(ctx, a, b, y[0], to.signed);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// An operand as the kernel takes it; what is read is added to `reads`.
fn side(
    planner: &mut Planner,
    x: Quantized,
    dims: &[usize],
    layout: Layout,
    reads: &mut Vec<SlotId>,
) -> Option<Side> {
    let own = planner.typed(x.value)?.1;
    let constant = planner.constant(x.value).map(|t| t.bytes().to_vec());
    let made = |constant, extent| Side {
        constant,
        signed: x.signed,
        extent,
    };
    if own == dims && constant.is_none() {
        reads.push(planner.read(x.value, layout)?);
        return Some(made(None, Extent::Full));
    }
    let axis = match layout {
        Layout::Last => Some(1),
        Layout::Plain => dims.len().checked_sub(1),
    };
    let extent = if own.iter().all(|&n| n == 1) {
        Some(Extent::One)
    } else {
        let axis = axis.filter(|&axis| along(&own, dims, axis));
        axis.map(|axis| Extent::Row(dims[axis]))
    };
    if let Some(extent) = extent {
        if constant.is_none() {
            reads.push(planner.read(x.value, Layout::Plain)?);
        }
        return Some(made(constant, extent));
    }
    let (shape, strides) = views::broadcast(&own, dims, layout)?;
    let count = dims.iter().product();
    if let Some(data) = constant {
        let mut full = vec![0; count];
        gather_strided(&Ctx::serial(), 1, &shape, &data, 0, &strides, &mut full);
        return Some(made(Some(full), Extent::Full));
    }
    let (from, slot) = (planner.read(x.value, Layout::Plain)?, planner.slot(count));
    let work: Kernel =
        Box::new(move |ctx, x, y| gather_strided(ctx, 1, &shape, x[0], 0, &strides, y[0]));
    planner.add("broadcast", x.value, from, slot, work);
    reads.push(slot);
    Some(made(None, Extent::Full))
}

/// A function of one element, by the table of what its definition gives for each byte.
pub(crate) fn table(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let from = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
    let to = quantized(planner, node.output(0)?, node.input(3), node.input(4))?;
    let table = by_definition(planner, id, from.signed)?;
    by_table(planner, &[id], from.value, to.value, table)
}

/// What node `id` makes of each byte, by its bits; the inputs after the first are constant.
fn by_definition(planner: &Planner, id: NodeId, signed: bool) -> Option<[u8; 256]> {
    let node = planner.graph().node(id);
    let all: Vec<u8> = (0..=255).collect();
    let all = if signed {
        Tensor::vector(all.into_iter().map(|q| q as i8).collect())
    } else {
        Tensor::vector(all)
    };
    let mut inputs = vec![Some(all.into())];
    for v in &node.inputs()[1..] {
        inputs.push(match v {
            Some(v) => Some(planner.constant(*v)?.clone().into()),
            None => None,
        });
    }
    let made = evaluate_tensors(&EvalCx::new(planner.model(), node, &inputs)).ok()?;
    made.first()?.bytes()[..].try_into().ok()
}

/// QLinearSoftmax along the last axes.
pub(crate) fn softmax(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let from = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
    let to = quantized(planner, node.output(0)?, node.input(3), node.input(4))?;
    let dims = planner.typed(from.value)?.1;
    let axis = infer::axis(node.int("axis").unwrap_or(-1), dims.len()).ok()?;
    let flattens = node.int("opset").unwrap_or(13) < 13;
    let behind: usize = dims[axis + 1..].iter().product();
    let finite = (1.0 / to.quant.scale).is_finite();
    if from.signed != to.signed || !(flattens || behind == 1) || !finite {
        return None;
    }
    let width = dims[axis] * behind;
    let read = planner.read(from.value, Layout::Plain)?;
    let write = planner.write(to.value, Layout::Plain)?;
    let spec = Spec {
        kernel: "softmax-8",
        integer: true,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(to.value, Layout::Plain)],
        work: Box::new(move |ctx, x, y| {
            let x = bytes(x[0], from.signed);
            softmax8(ctx, x, from.quant.scale, width, y[0], to.quant);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// The bytes of `to` for those of `from`; `None` where they are the same.
pub(super) fn moved(from: Quantized, to: Quantized) -> Option<[u8; 256]> {
    let same = from.quant == to.quant && from.signed == to.signed;
    (!same).then(|| table8(from.quant, from.signed, to.quant, to.signed, |x| x))
}

/// QLinearConcat: each part on the grid of the result.
pub(crate) fn concat(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let to = quantized(planner, node.output(0)?, node.input(0), node.input(1))?;
    let mut parts = Vec::new();
    for i in (2..node.inputs().len()).step_by(3) {
        let part = quantized(
            planner,
            node.input(i)?,
            node.input(i + 1),
            node.input(i + 2),
        )?;
        parts.push((part.value, moved(part, to)));
    }
    views::join(planner, id, parts, node.int("axis")?)
}

/// QLinearWhere: both operands on the grid of the result, then a choice.
pub(crate) fn where_(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let condition = node.input(0)?;
    let x = quantized(planner, node.input(1)?, node.input(2), node.input(3))?;
    let y = quantized(planner, node.input(4)?, node.input(5), node.input(6))?;
    let to = quantized(planner, node.output(0)?, node.input(7), node.input(8))?;
    let dims = planner.typed(to.value)?.1;
    let (dtype, own) = planner.typed(condition)?;
    if dtype != DType::Bool {
        return None;
    }
    let mut reads = Vec::new();
    let mut steps = vec![gather::steps(&own, &dims)?];
    let mut sources = vec![gather::Source::of(planner, condition, &mut reads)?];
    let mut writes = vec![planner.write(to.value, Layout::Plain)?];
    for v in [x, y] {
        let own = planner.typed(v.value)?.1;
        steps.push(gather::steps(&own, &dims)?);
        sources.push(gather::Source::of(planner, v.value, &mut reads)?);
        writes.push(planner.slot(own.iter().product()));
    }
    let identity = || std::array::from_fn(|i| i as u8);
    let tables = [x, y].map(|v| moved(v, to).unwrap_or_else(identity));
    let spec = Spec {
        kernel: "select-8",
        integer: true,
        reads,
        writes,
        makes: vec![(to.value, Layout::Plain)],
        work: Box::new(move |ctx, x, w| {
            let [y, a, b] = w else { return };
            lookup8(ctx, sources[1].get(x), &tables[0], a);
            lookup8(ctx, sources[2].get(x), &tables[1], b);
            let of = |data, i: usize| Stretched {
                data,
                steps: &steps[i],
            };
            let condition = of(sources[0].get(x), 0);
            select(ctx, 1, &dims, condition, [of(a, 1), of(b, 2)], y);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}
