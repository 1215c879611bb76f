//! Conv of floats, with weights that are packed once or, where they are computed, in each run.

use std::sync::Arc;

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::conv::{ConvF32, ConvGeometry};
use edgesmith_kernels::floats::{of_bytes, of_bytes_mut};
use edgesmith_kernels::gemm::Epilogue;
use edgesmith_kernels::sparse::SparseF32;

use super::super::operand::Operand;
use super::super::{activations, norm};
use super::{Tail, tail};
use crate::plan::{ByLines, Kernel, Layout, OfStrip, Packed, Planner, SlotId};

/// A BatchNormalization that alone reads the output of a Conv.
struct Norm {
    node: NodeId,
    result: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Norm {
    /// Multiplies each output channel's weights and bias by its scale, and adds its shift.
    fn fold_into(&self, weights: &mut [f32], bias: &mut Option<Vec<f32>>) {
        let size = (weights.len() / self.scale.len().max(1)).max(1);
        for (w, s) in weights.chunks_exact_mut(size).zip(&self.scale) {
            w.iter_mut().for_each(|w| *w *= s);
        }
        let bias = bias.get_or_insert_with(|| vec![0.0; self.scale.len()]);
        for ((b, s), t) in bias.iter_mut().zip(&self.scale).zip(&self.shift) {
            *b = *b * s + t;
        }
    }
}

fn normalised(planner: &Planner, y: ValueId, channels: usize) -> Option<Norm> {
    let id = planner.only_reader(y)?;
    let node = planner.graph().node(id);
    let plain = node.is("BatchNormalization")
        && node.input(0) == Some(y)
        && node.outputs().len() == 1
        && node.int("training_mode").unwrap_or(0) == 0;
    if !plain || planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let (scale, shift) = norm::scale_and_shift(planner, id)?;
    (scale.len() == channels).then_some(Norm {
        node: id,
        result: node.output(0)?,
        scale,
        shift,
    })
}

/// The bias of a convolution, if it has one; `None` where it is computed or of another length.
pub(crate) fn constant_bias(planner: &Planner, id: NodeId, len: usize) -> Option<Option<Vec<f32>>> {
    let Some(b) = planner.graph().node(id).input(2) else {
        return Some(None);
    };
    let bias = planner.float_weights(b)?;
    (bias.len() == len).then(|| Some(bias.into_owned()))
}

/// The bias of node `id`, computed or constant, of `len` numbers; what is read is added to `reads`.
pub(crate) fn bias_of(
    planner: &mut Planner,
    id: NodeId,
    len: usize,
    reads: &mut Vec<SlotId>,
) -> Option<Option<Operand>> {
    let Some(b) = planner.graph().node(id).input(2) else {
        return Some(None);
    };
    if planner.typed(b)?.1 != [len] {
        return None;
    }
    Operand::of(planner, b, reads).map(Some)
}

/// Conv and FusedConv of floats.
pub(super) fn plan(
    planner: &mut Planner,
    id: NodeId,
    ends: (ValueId, ValueId, ValueId),
    geometry: ConvGeometry,
    batch: usize,
) -> Option<()> {
    planner.float_dims(ends.2)?;
    constant(planner, id, ends, geometry, batch)
        .or_else(|| computed(planner, id, ends, geometry, batch))
}

/// What a FusedConv does behind its sums.
fn own_tail(planner: &Planner, id: NodeId, y: ValueId) -> Option<Tail> {
    let node = planner.graph().node(id);
    Some(Tail {
        nodes: vec![id],
        residual: node.input(3),
        activation: activations::fused(node)?,
        result: y,
    })
}

/// With constant weights and bias.
fn constant(
    planner: &mut Planner,
    id: NodeId,
    (x, w, y): (ValueId, ValueId, ValueId),
    geometry: ConvGeometry,
    batch: usize,
) -> Option<()> {
    let node = planner.graph().node(id);
    let mut bias = constant_bias(planner, id, geometry.channels_out)?;
    let is_fused = node.op == "FusedConv";
    let norm = if is_fused {
        None
    } else {
        normalised(planner, y, geometry.channels_out)
    };
    let (mut result, mut key) = (y, id);
    if let Some(norm) = &norm {
        (result, key) = (norm.result, norm.node);
    }
    let mut weights = planner.weights_to_pack(key, w)?;
    if let Some(norm) = &norm {
        norm.fold_into(weights.to_mut(), &mut bias);
    }
    let packed = planner.packed(key, |ctx| {
        ConvF32::prepare(ctx, geometry, &weights)
            .ok()
            .map(Packed::Conv)
    })?;
    let Packed::Conv(conv) = packed else {
        return None;
    };
    let conv = conv.resized(geometry).ok()?;
    let mut tail = if is_fused {
        own_tail(planner, id, y)?
    } else {
        tail(planner, id, result, true)
    };
    tail.nodes.extend(norm.map(|n| n.node));
    let to_rounded = conv.rounds()
        && planner.may_round(tail.result)
        && (!geometry.is_depthwise() || planner.is_rounded(x, Layout::Last));
    let takes_rounded = conv.rounds() && (!geometry.is_depthwise() || to_rounded);
    let (slot, x_rounded) = planner.read_floats(x, Layout::Last, takes_rounded)?;
    let mut reads = vec![slot];
    let residual = match tail.residual {
        Some(r) if planner.typed(r)?.1 != planner.typed(tail.result)?.1 => return None,
        Some(r) => {
            let (slot, rounded) = planner.read_floats(r, Layout::Last, takes_rounded)?;
            reads.push(slot);
            Some(rounded)
        }
        None => None,
    };
    let kernel = conv.kernel_name();
    let told = conv.sparse().map(SparseF32::told);
    let by_lines = conv.goes_by_lines() && planner.typed(tail.result)?.0 == DType::F32;
    let sizes = [x_rounded, to_rounded].map(|rounded| if rounded { 2 } else { 4 });
    let run: OfStrip = Arc::new(move |ctx, strip, x, y| {
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            residual: residual.map(|rounded| of_bytes(x[1], rounded)),
            activation: tail.activation,
        };
        let (x, y) = (of_bytes(x[0], x_rounded), of_bytes_mut(y, to_rounded));
        match strip {
            Some(strip) => conv.of_strip(strip).run_mixed(ctx, 1, x, y, &epilogue),
            None => conv.run_mixed(ctx, batch, x, y, &epilogue),
        }
    });
    let whole = Arc::clone(&run);
    let work: Kernel = Box::new(move |ctx, x, y| whole(ctx, None, x, y[0]));
    let step = if to_rounded {
        Planner::step_rounded
    } else {
        Planner::step_f32
    };
    let to = (tail.result, Layout::Last);
    step(planner, id, &tail.nodes, to, kernel, reads, work)?;
    planner.tell(&tail.nodes, told);
    if by_lines {
        planner.by_lines(ByLines::new(geometry, batch, sizes, run));
    }
    Some(())
}

/// With weights or a bias that are computed.
fn computed(
    planner: &mut Planner,
    id: NodeId,
    (x, w, y): (ValueId, ValueId, ValueId),
    geometry: ConvGeometry,
    batch: usize,
) -> Option<()> {
    let wd = planner.typed(w)?.1;
    if wd.contains(&0) || wd[1].checked_mul(geometry.groups)? != geometry.channels_in {
        return None;
    }
    let tail = match planner.graph().node(id).op.as_str() {
        "FusedConv" => own_tail(planner, id, y)?,
        _ => tail(planner, id, y, true),
    };
    let mut reads = vec![planner.read_f32(x, Layout::Last)?];
    if let Some(r) = tail.residual {
        if planner.typed(r)?.1 != planner.typed(tail.result)?.1 {
            return None;
        }
        reads.push(planner.read_f32(r, Layout::Last)?);
    }
    let weights = Operand::of(planner, w, &mut reads)?;
    let bias = bias_of(planner, id, geometry.channels_out, &mut reads)?;
    let (residual, activation) = (tail.residual.is_some(), tail.activation);
    let work: Kernel = Box::new(move |ctx, x, y| {
        // Lists are not worth making for one run.
        let plain = ctx.clone().with_sparse(false);
        let conv = ConvF32::prepare(&plain, geometry, weights.get(x))
            .expect("the lengths of the weights were checked when this was planned");
        let epilogue = Epilogue {
            bias: bias.as_ref().map(|b| b.get(x)),
            residual: residual.then(|| of_bytes(x[1], false)),
            activation,
        };
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        conv.run(ctx, batch, x, y, &epilogue);
    });
    let to = (tail.result, Layout::Last);
    let kernel = "conv packed on the fly";
    planner.step_f32(id, &tail.nodes, to, kernel, reads, work)
}
