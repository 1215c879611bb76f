//! Norms of sums, embeddings and activations with a bias, as `com.microsoft` has them.

use std::sync::Arc;

use edgesmith_ir::error::At;
use edgesmith_ir::ops::gather::place;
use edgesmith_ir::{Error, NodeId, Result, Tensor};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::elementwise::{self, Binary, binary};
use edgesmith_kernels::norm::{self, Scaling, layer_norm, skip_norm};

use super::norm::row_of_norm;
use super::operand::{Indices, Operand};
use crate::plan::{ByLines, Checked, Kernel, Layout, OfStrip, Planner, Spec};

/// A norm over the last axes without a mean: RMSNormalization and SimplifiedLayerNormalization.
pub(crate) fn rms(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    if node.outputs().len() > 1 {
        return None;
    }
    row_of_norm(planner, id, &dims, 1..2)?;
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let mut reads = vec![planner.read_f32(x, Layout::Plain)?];
    let scale = Operand::of(planner, node.input(1)?, &mut reads)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let scale = scale.get(x);
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::rms_norm(ctx, x, scale, epsilon, y);
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", reads, work)
}

/// SkipLayerNormalization and SkipSimplifiedLayerNormalization of f32.
pub(crate) fn skip(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (y, sum) = (node.output(0)?, node.output(3));
    if node.output(1).is_some() || node.output(2).is_some() {
        return None;
    }
    let centred = node.op == "SkipLayerNormalization";
    let (dtype, dims) = planner.typed(node.input(0)?)?;
    let width = *dims.last()?;
    if dtype != edgesmith_ir::DType::F32 || width == 0 {
        return None;
    }
    let (shift, bias) = if centred {
        (node.input(3), node.input(4))
    } else {
        (None, node.input(3))
    };
    let row = |planner: &Planner, v: Option<edgesmith_ir::ValueId>| match v {
        None => Some(None),
        Some(v) => {
            let data = planner.floats(v)?;
            (data.len() == width).then_some(Some(data))
        }
    };
    let scale = row(planner, node.input(2))??;
    let (shift, bias) = (row(planner, shift)?, row(planner, bias)?);
    let epsilon = node.float("epsilon").unwrap_or(1e-12);
    let mut reads = Vec::new();
    let x = Operand::of(planner, node.input(0)?, &mut reads)?;
    let skip = Operand::of(planner, node.input(1)?, &mut reads)?;
    let count: usize = dims.iter().product();
    let skipped: usize = planner.typed(node.input(1)?)?.1.iter().product();
    if skipped == 0 || !count.is_multiple_of(skipped) || !skipped.is_multiple_of(width) {
        return None;
    }
    let mut writes = vec![planner.write(y, Layout::Plain)?];
    let mut makes = vec![(y, Layout::Plain)];
    if let Some(sum) = sum {
        writes.push(planner.write(sum, Layout::Plain)?);
        makes.push((sum, Layout::Plain));
    }
    let by_lines = sum.is_none() && skipped == count && reads.len() == 2;
    if by_lines && planner.is_later(reads[1], reads[0]) {
        // The sum is the same, and what was made last is what a chain goes on with.
        reads.swap(0, 1);
    }
    let run = move |ctx: &Ctx, r: &[&[u8]], y: &mut [u8], sum: Option<&mut [u8]>| {
        let scaling = Scaling {
            scale: &scale,
            shift: shift.as_deref(),
            epsilon,
            centred,
        };
        let sum = sum.map(bytemuck::cast_slice_mut);
        let operands = [x.get(r), skip.get(r)];
        let y = bytemuck::cast_slice_mut(y);
        skip_norm(ctx, operands, bias.as_deref(), scaling, sum, y);
    };
    let run = Arc::new(run);
    let whole = Arc::clone(&run);
    let work: Kernel = Box::new(move |ctx, r, w| match w {
        [y] => whole(ctx, r, y, None),
        [y, sum] => whole(ctx, r, y, Some(sum)),
        _ => {}
    });
    let spec = Spec {
        kernel: "rows",
        integer: false,
        reads,
        writes,
        makes,
        work,
    };
    planner.step(id, &[id], spec);
    if by_lines {
        let work: OfStrip = Arc::new(move |ctx, _, r, y| run(ctx, r, y, None));
        let size = [count / width, width, width];
        planner.by_lines(ByLines::of_rows(size, [4; 2], work));
    }
    Some(())
}

/// BiasGelu, and FastGelu with or without a bias.
pub(crate) fn gelu(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let Some(bias) = node.input(1) else {
        return super::activations::plan(planner, id);
    };
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(y)?;
    let row = planner.floats(bias)?;
    if dims.last() != Some(&row.len()) {
        return None;
    }
    let f = biased(&node.op)?;
    let read = planner.read_f32(x, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let y = bytemuck::cast_slice_mut(y[0]);
        let x = elementwise::Operand::Full(bytemuck::cast_slice(x[0]));
        binary(ctx, Binary::Add, x, elementwise::Operand::Row(&row), y);
        f.apply(ctx, y);
    });
    planner.step_f32(
        id,
        &[id],
        (y, Layout::Plain),
        "elementwise",
        vec![read],
        work,
    )
}

/// The function of an operator of `com.microsoft` that adds a bias first.
pub(crate) fn biased(op: &str) -> Option<Activation> {
    match op {
        "BiasGelu" => Some(Activation::Gelu),
        "FastGelu" => Some(Activation::GeluTanh),
        _ => None,
    }
}

/// EmbedLayerNormalization of f32 without a mask.
pub(crate) fn embed(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let y = node.output(0)?;
    let unread = |v: edgesmith_ir::ValueId| {
        planner.graph().value(v).consumers().is_empty() && !planner.is_kept(v)
    };
    let rest_unread = node.outputs().iter().skip(1).flatten().all(|&v| unread(v));
    let (dtype, dims) = planner.typed(y)?;
    if dtype != edgesmith_ir::DType::F32 || !rest_unread || node.input(7).is_some() {
        return None;
    }
    let &[batch, length, width] = dims.as_slice() else {
        return None;
    };
    let mut reads = Vec::new();
    let mut tables = Vec::new();
    for (ids, table) in [(0, 2), (8, 3), (1, 4)] {
        let (Some(ids), Some(table)) = (node.input(ids), node.input(table)) else {
            if ids == 8 {
                let rows: Vec<i64> = (0..i64::try_from(length).ok()?).collect();
                let table = rows_of(planner, node.input(3)?)?;
                tables.push((Indices::Constant(rows), table));
            }
            continue;
        };
        let table = rows_of(planner, table)?;
        tables.push((Indices::of(planner, ids, &mut reads)?, table));
    }
    let (gamma, beta) = (
        planner.floats(node.input(5)?)?,
        planner.floats(node.input(6)?)?,
    );
    if width == 0 || gamma.len() != width || beta.len() != width {
        return None;
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-12);
    let count = batch * length;
    let write = planner.write(y, Layout::Plain)?;
    let sum = planner.slot(4 * count * width);
    let name = node.place();
    let work: Checked = Box::new(move |ctx, r, w| {
        let [y, sum] = w else { return Ok(()) };
        let (y, sum): (&mut [f32], &mut [f32]) =
            (bytemuck::cast_slice_mut(y), bytemuck::cast_slice_mut(sum));
        sum.fill(0.0);
        for (ids, table) in &tables {
            add_rows(&ids.get(r), table, width, count, sum).at(|| name.clone())?;
        }
        layer_norm(ctx, sum, &gamma, Some(&beta), epsilon, y);
        Ok(())
    });
    let spec = Spec {
        kernel: "rows",
        integer: false,
        reads,
        writes: vec![write, sum],
        makes: vec![(y, Layout::Plain)],
        work: Box::new(|_, _, _| ()),
    };
    planner.checked_step(id, spec, work);
    Some(())
}

/// A table of f32, as it lies in the model: no copy, and of any alignment.
fn rows_of(planner: &Planner, v: edgesmith_ir::ValueId) -> Option<Tensor> {
    let t = planner.constant(v)?;
    (t.dtype() == edgesmith_ir::DType::F32).then(|| t.clone())
}

/// Adds to each of `count` rows that of the table which the ids name; ids repeat.
fn add_rows(
    ids: &[i64],
    table: &Tensor,
    width: usize,
    count: usize,
    sum: &mut [f32],
) -> Result<()> {
    if count > 0 && (ids.is_empty() || !count.is_multiple_of(ids.len())) {
        return Err(Error::invalid(format!(
            "{} ids do not stand for {count} rows",
            ids.len()
        )));
    }
    for (sum, &id) in sum.chunks_exact_mut(width).zip(ids.iter().cycle()) {
        if id < 0 {
            return Err(Error::invalid(format!("row {id} does not exist")));
        }
        let row = place(id, table.count() / width)?;
        let row = &table.bytes()[4 * row * width..][..4 * width];
        let row = row.chunks_exact(4).map(bytemuck::pod_read_unaligned::<f32>);
        sum.iter_mut().zip(row).for_each(|(s, r)| *s += r);
    }
    Ok(())
}
