//! Add, Sub, Mul, Div, Min, Max and PRelu of two operands, in floats; Add and Mul in integers too.

use std::sync::Arc;

use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::elementwise::{Binary, Operand, binary};
use edgesmith_kernels::permute::gather_strided;
use edgesmith_kernels::quantize::{Binary8, binary8};

use super::activations::{self, present_layout};
use super::conv::byte_bounds;
use super::dequantize::{self, bytes, quantized_output};
use super::{compare, views};
use crate::plan::{ByLines, Kernel, Layout, OfStrip, Planner, Spec};
use edgesmith_kernels::activation::Activation;

/// Where an operand comes from.
enum Side {
    Read,
    ReadRow,
    ReadScalar,
    Row(Vec<f32>),
    Full(Vec<f32>),
    Scalar(f32),
}

impl Side {
    fn operand<'a>(&'a self, reads: &mut impl Iterator<Item = &'a [u8]>) -> Operand<'a> {
        let mut read = || reads.next().map_or(&[][..], |b| bytemuck::cast_slice(b));
        match self {
            Self::Read => Operand::Full(read()),
            Self::ReadRow => Operand::Row(read()),
            Self::ReadScalar => Operand::Scalar(read().first().copied().unwrap_or(f32::NAN)),
            Self::Row(row) => Operand::Row(row),
            Self::Full(data) => Operand::Full(data),
            Self::Scalar(x) => Operand::Scalar(*x),
        }
    }
}

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let legacy = |name: &str| node.int(name).is_some();
    if node.inputs().len() != 2 || legacy("axis") || legacy("broadcast") {
        return None;
    }
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    if planner.float_dims(y).is_none() {
        return compare::arithmetic(planner, id);
    }
    if integer(planner, id, a, b, y).is_some() {
        return Some(());
    }
    let op = match node.op.as_str() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "PRelu" if planner.model().opset() >= 7 => Binary::Slope,
        _ => return None,
    };
    let dims = planner.float_dims(y)?;
    let is_last = |v: ValueId| {
        present_layout(planner, v) == Layout::Last && planner.typed(v).is_some_and(|t| t.1 == dims)
    };
    let layout = if is_last(a) || is_last(b) {
        Layout::Last
    } else {
        Layout::Plain
    };
    let mut reads = Vec::new();
    let mut side = |planner: &mut Planner, v: ValueId| side(planner, v, &dims, layout, &mut reads);
    let sides = (side(planner, a)?, side(planner, b)?);
    let (left, right) = (row(planner, &sides.0, a), row(planner, &sides.1, b));
    if left.is_some() && right.is_some() && left != right {
        return None;
    }
    let after = activations::after(planner, y);
    let nodes: Vec<NodeId> = [id].into_iter().chain(after.map(|(f, ..)| f)).collect();
    let (result, f) = after.map_or((y, Activation::None), |(_, f, v)| (v, f));
    let width = *dims.last().unwrap_or(&1);
    let by_rows = layout == Layout::Plain
        && matches!(sides.0, Side::Read)
        && match &sides.1 {
            Side::Row(row) => row.len() == width,
            Side::Scalar(_) => true,
            _ => false,
        };
    let run: OfStrip = Arc::new(move |ctx, _, x, y| {
        let mut reads = x.iter().copied();
        let (a, b) = (sides.0.operand(&mut reads), sides.1.operand(&mut reads));
        let y = bytemuck::cast_slice_mut(y);
        binary(ctx, op, a, b, y);
        if f != Activation::None {
            f.apply(ctx, y);
        }
    });
    let whole = Arc::clone(&run);
    let work: Kernel = Box::new(move |ctx, x, y| whole(ctx, None, x, y[0]));
    planner.step_f32(id, &nodes, (result, layout), "elementwise", reads, work)?;
    if by_rows && let Some(lines) = ByLines::of_elements(&dims, [4, 4], run) {
        planner.by_lines(lines);
    }
    Some(())
}

/// An operand as the kernel takes it: one number, a row, or broadcast to the result's shape.
/// The length of a row that is repeated.
fn row(planner: &Planner, side: &Side, v: ValueId) -> Option<usize> {
    match side {
        Side::Row(row) => Some(row.len()),
        Side::ReadRow => Some(planner.typed(v)?.1.iter().product()),
        _ => None,
    }
}

fn side(
    planner: &mut Planner,
    v: ValueId,
    dims: &[usize],
    layout: Layout,
    reads: &mut Vec<usize>,
) -> Option<Side> {
    let own = planner.float_dims(v)?;
    if let Some(data) = planner.floats(v) {
        if data.len() == 1 {
            return Some(Side::Scalar(data[0]));
        }
        if is_whole(&own, dims, layout) {
            return Some(Side::Full(data));
        }
        if is_row(&own, dims, layout) {
            return Some(Side::Row(data));
        }
        let (shape, strides) = views::broadcast(&own, dims, layout)?;
        let mut full = vec![0f32; dims.iter().product()];
        let (from, to) = (
            bytemuck::cast_slice(&data),
            bytemuck::cast_slice_mut(&mut full),
        );
        gather_strided(&Ctx::serial(), 4, &shape, from, 0, &strides, to);
        return Some(Side::Full(full));
    }
    if own == dims || is_whole(&own, dims, layout) {
        reads.push(planner.read_f32(v, layout)?);
        return Some(Side::Read);
    }
    if own.iter().all(|&n| n == 1) {
        reads.push(planner.read_f32(v, Layout::Plain)?);
        return Some(Side::ReadScalar);
    }
    if is_row(&own, dims, layout) {
        reads.push(planner.read_f32(v, Layout::Plain)?);
        return Some(Side::ReadRow);
    }
    let (shape, strides) = views::broadcast(&own, dims, layout)?;
    let from = planner.read_f32(v, Layout::Plain)?;
    let slot = planner.slot(4 * dims.iter().product::<usize>());
    planner.add(
        "broadcast",
        v,
        from,
        slot,
        Box::new(move |ctx, x, y| gather_strided(ctx, 4, &shape, x[0], 0, &strides, y[0])),
    );
    reads.push(slot);
    Some(Side::Read)
}

/// True where an operand of shape `own` has the elements of the result, in their order.
fn is_whole(own: &[usize], dims: &[usize], layout: Layout) -> bool {
    layout == Layout::Plain && own.iter().product::<usize>() == dims.iter().product()
}

/// True where an operand of shape `own` is repeated as a whole: one row for each of many.
fn is_row(own: &[usize], dims: &[usize], layout: Layout) -> bool {
    match layout {
        Layout::Last => along(own, dims, 1),
        Layout::Plain => {
            let ones = own.iter().take_while(|&&n| n == 1).count();
            own.len() <= dims.len() && dims.ends_with(&own[ones..])
        }
    }
}

/// True where a tensor of shape `own`, broadcast to `dims`, varies along `axis` alone.
pub(crate) fn along(own: &[usize], dims: &[usize], axis: usize) -> bool {
    let Some(shift) = dims.len().checked_sub(own.len()) else {
        return false;
    };
    own.iter()
        .enumerate()
        .all(|(i, &n)| n == if i + shift == axis { dims[axis] } else { 1 })
}

fn integer(planner: &mut Planner, id: NodeId, a: ValueId, b: ValueId, y: ValueId) -> Option<()> {
    let op = match planner.graph().node(id).op.as_str() {
        "Add" => Binary8::Add,
        "Mul" => Binary8::Mul,
        _ => return None,
    };
    let (from_a, from_b) = (
        dequantize::source(planner, a)?,
        dequantize::source(planner, b)?,
    );
    if planner.typed(a)?.1 != planner.typed(b)?.1 {
        return None;
    }
    let mut nodes = vec![id];
    let (mut value, mut f) = (y, Activation::None);
    if let Some((n, activation, result)) = activations::after(planner, y)
        && activation.bounds().is_some()
    {
        nodes.push(n);
        (value, f) = (result, activation);
    }
    let (q, to) = quantized_output(planner, value)?;
    nodes.push(q);
    let bounds = byte_bounds(f, to)?;
    let layout = present_layout(planner, from_a.value);
    let reads = vec![
        planner.read(from_a.value, layout)?,
        planner.read(from_b.value, layout)?,
    ];
    let write = planner.write(to.value, layout)?;
    planner.step(
        id,
        &nodes,
        Spec {
            kernel: "binary-8",
            integer: true,
            reads,
            writes: vec![write],
            makes: vec![(to.value, layout)],
            work: Box::new(move |ctx, x, y| {
                let a = (bytes(x[0], from_a.signed), from_a.quant);
                let b = (bytes(x[1], from_b.signed), from_b.quant);
                binary8(ctx, op, a, b, y[0], to.quant, bounds);
            }),
        },
    );
    Some(())
}
