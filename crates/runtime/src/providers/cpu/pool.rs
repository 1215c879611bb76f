//! Max, average and global pooling of one or two spatial axes, channels-last, in floats or bytes.

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::pool::{PoolGeometry, average_pool, average_pool8, max_pool};

use super::dequantize::{self, bytes, quantized_output};
use crate::plan::{Kernel, Layout, Planner, Spec};

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
    planner.float_dims(y)?;
    let read = planner.read_f32(x, Layout::Last)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y): (&[f32], &mut [f32]) =
            (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        if max {
            max_pool(ctx, &g, batch, x, y);
        } else {
            average_pool(ctx, &g, batch, include_pad, x, y);
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Last), "pool", vec![read], work)
}

fn geometry(planner: &Planner, id: NodeId, x: ValueId) -> Option<(PoolGeometry, usize)> {
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
    if node.op.starts_with("Global") {
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
    if from.signed != to.signed || (max && from.quant != to.quant) {
        return None;
    }
    let read = planner.read(from.value, Layout::Last)?;
    let write = planner.write(to.value, Layout::Last)?;
    planner.step(
        id,
        &[id, q],
        Spec {
            kernel: "pool-8",
            integer: true,
            reads: vec![read],
            writes: vec![write],
            makes: vec![(to.value, Layout::Last)],
            work: Box::new(move |ctx, x, y| match (max, from.signed) {
                (true, false) => max_pool::<u8>(ctx, &g, batch, x[0], y[0]),
                (true, true) => {
                    let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
                    max_pool::<i8>(ctx, &g, batch, x, y);
                }
                (false, signed) => {
                    let x = bytes(x[0], signed);
                    average_pool8(ctx, &g, batch, include_pad, x, from.quant, y[0], to.quant);
                }
            }),
        },
    );
    Some(())
}
