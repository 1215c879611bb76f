//! Max, average and global pooling of one or two spatial axes, channels-last, in floats or bytes.

use std::sync::Arc;

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::conv::{ConvGeometry, Strip};
use edgesmith_kernels::floats::{Floats, FloatsMut, of_bytes, of_bytes_mut};
use edgesmith_kernels::pool::{
    MOST_BYTES, Means, PoolGeometry, Quant, average_pool, average_pool8, max_pool,
};

use super::dequantize::{self, Quantized, bytes, quantized_output};
use super::qlinear::quantized;
use crate::plan::{ByLines, Kernel, Layout, OfStrip, Planner, Spec};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    if node.output(1).is_some() {
        return None;
    }
    let (g, batch) = geometry(planner, id, x)?;
    let max = node.op.ends_with("MaxPool");
    let include_pad = node.int("count_include_pad").unwrap_or(0) != 0;
    if integer(planner, id, (x, y), g, batch, (max, include_pad)).is_some() {
        return Some(());
    }
    if max && planner.float_dims(y).is_none() {
        return largest_bytes(planner, id, (x, y), (g, batch));
    }
    planner.float_dims(y)?;
    let (read, rounded) = planner.read_floats(x, Layout::Last, max && planner.may_round(y))?;
    let size = if rounded { 2 } else { 4 };
    let run: OfStrip = Arc::new(move |ctx, strip, x, y| {
        let (g, batch) = match strip {
            Some(strip) => (of_strip(g, strip, y.len() / size), 1),
            None => (g, batch),
        };
        match (of_bytes(x[0], rounded), of_bytes_mut(y, rounded)) {
            (Floats::F32(x), FloatsMut::F32(y)) if max => max_pool(ctx, &g, batch, x, y),
            (Floats::F32(x), FloatsMut::F32(y)) => average_pool(ctx, &g, batch, include_pad, x, y),
            (Floats::Bf16(x), FloatsMut::Bf16(y)) => max_pool(ctx, &g, batch, x, y),
            _ => unreachable!("input and output are of one type"),
        }
    });
    let whole = Arc::clone(&run);
    let work: Kernel = Box::new(move |ctx, x, y| whole(ctx, None, x, y[0]));
    let step = if rounded {
        Planner::step_rounded
    } else {
        Planner::step_f32
    };
    step(
        planner,
        id,
        &[id],
        (y, Layout::Last),
        "pool",
        vec![read],
        work,
    )?;
    if let Some(windows) = by_lines(g).filter(|_| max) {
        planner.by_lines(ByLines::new(windows, batch, [size; 2], run));
    }
    Some(())
}

/// The convolution that reads the same windows, where each window of a strip begins and ends in it.
fn by_lines(g: PoolGeometry) -> Option<ConvGeometry> {
    let windows = ConvGeometry {
        kernel: g.kernel,
        stride: g.stride,
        pad_begin: g.pad_begin,
        pad_end: g.pad_end,
        dilation: g.dilation,
        groups: g.channels,
        input: g.input,
        channels_in: g.channels,
        channels_out: g.channels,
    };
    let inside = g.dilation[0] == 1 && g.pad_begin[0].max(g.pad_end[0]) < g.kernel[0];
    (inside && windows.output() == g.output).then_some(windows)
}

/// The same windows of a strip, of which `len` elements come out.
fn of_strip(g: PoolGeometry, strip: Strip, len: usize) -> PoolGeometry {
    let along = |lines, [_, columns]: [usize; 2]| [lines, columns];
    PoolGeometry {
        pad_begin: along(strip.top, g.pad_begin),
        pad_end: along(strip.bottom, g.pad_end),
        input: along(strip.lines, g.input),
        output: along(len / (g.output[1] * g.channels), g.output),
        ..g
    }
}

/// The windows of a pool or of its gradient, and how many images there are.
pub(super) fn geometry(planner: &Planner, id: NodeId, x: ValueId) -> Option<(PoolGeometry, usize)> {
    let node = planner.graph().node(id);
    let dims = planner.typed(x)?.1;
    let (batch, channels, h, w) = match dims[..] {
        [batch, channels, w] => (batch, channels, 1, w),
        [batch, channels, h, w] => (batch, channels, h, w),
        _ => return None,
    };
    if dims.contains(&0) {
        return None;
    }
    if node.op.contains("Global") {
        return Some((PoolGeometry::global([h, w], channels), batch));
    }
    let kernel: Vec<usize> = node
        .ints("kernel_shape")?
        .iter()
        .map(|&k| usize::try_from(k).ok())
        .collect::<Option<_>>()?;
    let window = Window::of(node, &dims[2..], &kernel).ok()?;
    let whole = edgesmith_ir::geometry::Axis {
        input: 1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        begin: 0,
        end: 0,
        output: 1,
    };
    let (a, b) = match &window.axes[..] {
        [b] => (&whole, b),
        [a, b] => (a, b),
        _ => return None,
    };
    // A window that starts beyond the padded end counts nothing: left to the reference.
    if a.output == 0 || b.output == 0 {
        return None;
    }
    let last = |x: &edgesmith_ir::geometry::Axis| (x.output - 1) * x.stride < x.input + x.begin;
    (last(a) && last(b)).then_some((
        PoolGeometry {
            kernel: [a.kernel, b.kernel],
            stride: [a.stride, b.stride],
            pad_begin: [a.begin, b.begin],
            pad_end: [a.end, b.end],
            dilation: [a.dilation, b.dilation],
            input: [h, w],
            output: [a.output, b.output],
            channels,
        },
        batch,
    ))
}

fn integer(
    planner: &mut Planner,
    id: NodeId,
    (x, y): (ValueId, ValueId),
    g: PoolGeometry,
    batch: usize,
    (max, include_pad): (bool, bool),
) -> Option<()> {
    let from = dequantize::source(planner, x)?;
    let (q, to) = quantized_output(planner, y)?;
    let means = (!max).then_some(Means {
        include_pad,
        round_shifted: false,
    });
    bytes_step(planner, (id, &[id, q]), (from, to), (g, batch), means)
}

/// MaxPool of the bytes of `x` themselves.
fn largest_bytes(
    planner: &mut Planner,
    id: NodeId,
    (x, y): (ValueId, ValueId),
    windows: (PoolGeometry, usize),
) -> Option<()> {
    let plain = |value| {
        let signed = super::dynamic::signed(planner.typed(value)?.0)?;
        let quant = Quant {
            scale: 1.0,
            zero: 0,
        };
        Some(Quantized {
            value,
            quant,
            signed,
        })
    };
    bytes_step(planner, (id, &[id]), (plain(x)?, plain(y)?), windows, None)
}

/// QLinearAveragePool and QLinearGlobalAveragePool, channels first.
pub(crate) fn qlinear(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let from = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
    let to = quantized(planner, node.output(0)?, node.input(3), node.input(4))?;
    if node.int("channels_last").unwrap_or(0) != 0 {
        return None;
    }
    let windows = geometry(planner, id, from.value)?;
    let means = Means {
        include_pad: node.int("count_include_pad").unwrap_or(0) != 0,
        round_shifted: node.op == "QLinearAveragePool",
    };
    bytes_step(planner, (id, &[id]), (from, to), windows, Some(means))
}

/// The step of node `id`, which does `nodes` as well: means of windows of bytes, or the largest.
fn bytes_step(
    planner: &mut Planner,
    (id, nodes): (NodeId, &[NodeId]),
    (from, to): (Quantized, Quantized),
    (g, batch): (PoolGeometry, usize),
    means: Option<Means>,
) -> Option<()> {
    if from.signed != to.signed || (means.is_none() && from.quant != to.quant) {
        return None;
    }
    if means.is_some() && g.largest_window() > MOST_BYTES {
        return None;
    }
    let read = planner.read(from.value, Layout::Last)?;
    let write = planner.write(to.value, Layout::Last)?;
    let spec = Spec {
        kernel: "pool-8",
        integer: true,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(to.value, Layout::Last)],
        work: Box::new(move |ctx, x, y| match (means, from.signed) {
            (None, false) => max_pool::<u8>(ctx, &g, batch, x[0], y[0]),
            (None, true) => {
                let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
                max_pool::<i8>(ctx, &g, batch, x, y);
            }
            (Some(means), signed) => {
                let x = bytes(x[0], signed);
                average_pool8(ctx, &g, batch, means, x, from.quant, y[0], to.quant);
            }
        }),
    };
    planner.step(id, nodes, spec);
    Some(())
}
