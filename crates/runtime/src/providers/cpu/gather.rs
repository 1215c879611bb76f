//! Nodes that pick elements: Gather by index, Where by a condition.

use edgesmith_ir::error::At;
use edgesmith_ir::ops::gather::place;
use edgesmith_ir::{DType, NodeId, Result, Tensor, ValueId};
use edgesmith_kernels::select::{Stretched, select, take};

use super::operand::Indices;
use crate::plan::{Checked, Layout, Planner, SlotId, Spec};

/// Bytes of any type, computed or constant.
pub(super) enum Source {
    Read(usize),
    Constant(Tensor),
}

impl Source {
    /// The bytes of `v`; what is read is added to `reads`.
    pub fn of(planner: &mut Planner, v: ValueId, reads: &mut Vec<SlotId>) -> Option<Self> {
        if let Some(t) = planner.constant(v) {
            return Some(Self::Constant(t.clone()));
        }
        reads.push(planner.read(v, Layout::Plain)?);
        Some(Self::Read(reads.len() - 1))
    }

    /// The bytes, out of what a step reads.
    pub fn get<'a>(&'a self, x: &[&'a [u8]]) -> &'a [u8] {
        match self {
            Self::Read(i) => x[*i],
            Self::Constant(t) => t.bytes(),
        }
    }
}

fn element(dtype: DType) -> Option<usize> {
    (dtype.bits() >= 8 && dtype != DType::String).then(|| dtype.bits() / 8)
}

/// Gather along one axis.
pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    if super::block_weights::gather_dequantized(planner, id).is_some()
        || super::float8::gather(planner, id).is_some()
    {
        return Some(());
    }
    let node = planner.graph().node(id);
    let (data, indices, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let (dtype, dims) = planner.typed(data)?;
    planner.typed(y)?;
    let size = element(dtype)?;
    let axis = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(0), dims.len()).ok()?;
    let len = dims[axis];
    let block = dims[axis + 1..].iter().product::<usize>() * size;
    if dims.contains(&0) {
        return None;
    }
    let mut reads = Vec::new();
    let data = Source::of(planner, data, &mut reads)?;
    let indices = Indices::of(planner, indices, &mut reads)?;
    let write = planner.write(y, Layout::Plain)?;
    let name = node.place();
    let work: Checked = Box::new(move |ctx, x, y| {
        let places: Result<Vec<usize>> =
            indices.get(x).into_iter().map(|i| place(i, len)).collect();
        let places = places.at(|| name.clone())?;
        take(ctx, data.get(x), [len, block], &places, y[0]);
        Ok(())
    });
    planner.checked_plain_step(id, "copy", reads, (y, write), work);
    Some(())
}

/// The step of each axis of `to` in an operand of lengths `from`.
pub(super) fn steps(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let shift = to.len().checked_sub(from.len())?;
    let mut steps = vec![0; to.len()];
    let mut step = 1;
    for (i, &n) in from.iter().enumerate().rev() {
        if n != 1 && n != to[shift + i] {
            return None;
        }
        steps[shift + i] = if n == 1 { 0 } else { step };
        step *= n;
    }
    Some(steps)
}

/// Where, of operands that broadcast.
pub(crate) fn where_(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let y = node.output(0)?;
    let (dtype, dims) = planner.typed(y)?;
    let size = element(dtype)?;
    let mut reads = Vec::new();
    let mut operands = Vec::new();
    for i in 0..3 {
        let v = node.input(i)?;
        let (ty, own) = planner.typed(v)?;
        if ty != if i == 0 { DType::Bool } else { dtype } {
            return None;
        }
        let steps = steps(&own, &dims)?;
        operands.push((Source::of(planner, v, &mut reads)?, steps));
    }
    let write = planner.write(y, Layout::Plain)?;
    planner.step(
        id,
        &[id],
        Spec {
            kernel: "select",
            integer: false,
            reads,
            writes: vec![write],
            makes: vec![(y, Layout::Plain)],
            work: Box::new(move |ctx, x, y| {
                let of = |i: usize| {
                    let (source, steps) = &operands[i];
                    Stretched {
                        data: source.get(x),
                        steps,
                    }
                };
                select(ctx, size, &dims, of(0), [of(1), of(2)], y[0]);
            }),
        },
    );
    Some(())
}
