//! Conv of one or two spatial axes, channels-last, in floats or integers.

use std::sync::Arc;

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::conv::{ConvGeometry, ConvI8, Strip};
use edgesmith_kernels::gemm::{Input8, Output8, Requant};
use edgesmith_kernels::sparse::SparseI8;

use super::activations;
use super::dequantize::{self, Quantized, Weights, bytes, quantized_output};
use crate::plan::{ByLines, Kernel, Layout, OfStrip, Packed, Planner, Spec};

mod float;

pub(super) use float::{bias_of, constant_bias};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let (geometry, batch) = geometry(planner, id, x, w)?;
    if node.op == "FusedConv" {
        return float::plan(planner, id, (x, w, y), geometry, batch);
    }
    integer(planner, id, (x, w, y), geometry, batch)
        .or_else(|| super::block_weights::conv(planner, id, &geometry, batch))
        .or_else(|| float::plan(planner, id, (x, w, y), geometry, batch))
}

/// The geometry of a Conv; one spatial axis becomes a height of 1.
pub(crate) fn geometry(
    planner: &Planner,
    id: NodeId,
    x: ValueId,
    w: ValueId,
) -> Option<(ConvGeometry, usize)> {
    let node = planner.graph().node(id);
    let (xd, wd) = (planner.typed(x)?.1, planner.typed(w)?.1);
    if !(3..=4).contains(&xd.len()) || xd.len() != wd.len() || xd.contains(&0) {
        return None;
    }
    let window = Window::of(node, &xd[2..], &wd[2..]).ok()?;
    let axis = |i: usize| {
        window
            .axes
            .len()
            .checked_sub(2 - i)
            .map(|a| &window.axes[a])
    };
    let pick = |f: fn(&edgesmith_ir::geometry::Axis) -> usize, one: usize| {
        [0, 1].map(|i| axis(i).map_or(one, f))
    };
    let mut geometry = ConvGeometry {
        kernel: pick(|a| a.kernel, 1),
        stride: pick(|a| a.stride, 1),
        pad_begin: pick(|a| a.begin, 0),
        pad_end: pick(|a| a.end, 0),
        dilation: pick(|a| a.dilation, 1),
        groups: usize::try_from(node.int("group").unwrap_or(1)).ok()?,
        input: pick(|a| a.input, 1),
        channels_in: xd[1],
        channels_out: wd[0],
    };
    geometry.check().ok()?;
    let expected: Vec<usize> = window.output();
    let found = geometry.output();
    if found[2 - expected.len()..] != expected[..] {
        return None;
    }
    geometry.lay_down();
    Some((geometry, xd[0]))
}

/// What follows a float Conv or product within its kernel: nodes, residual, function, result.
pub(crate) struct Tail {
    pub nodes: Vec<NodeId>,
    pub residual: Option<ValueId>,
    pub activation: Activation,
    pub result: ValueId,
}

/// Collects what can be fused behind `v`: an Add with a value that is there already, a function.
pub(crate) fn tail(planner: &Planner, id: NodeId, v: ValueId, residual: bool) -> Tail {
    let mut tail = Tail {
        nodes: vec![id],
        residual: None,
        activation: Activation::None,
        result: v,
    };
    if residual && let Some((add, other, sum)) = added(planner, v) {
        tail.nodes.push(add);
        tail.residual = Some(other);
        tail.result = sum;
    }
    if let Some((f, activation, y)) = activations::after(planner, tail.result) {
        tail.nodes.push(f);
        tail.activation = activation;
        tail.result = y;
    }
    tail
}

fn added(planner: &Planner, v: ValueId) -> Option<(NodeId, ValueId, ValueId)> {
    let id = planner.only_reader(v)?;
    let node = planner.graph().node(id);
    let other = match (node.input(0)?, node.input(1)?) {
        (a, b) if a == v && b != v => b,
        (a, b) if b == v && a != v => a,
        _ => return None,
    };
    let fits =
        node.is("Add") && planner.is_ready(other) && planner.typed(other)? == planner.typed(v)?;
    fits.then_some((id, other, node.output(0)?))
}

/// Sums of integers and how they become an output.
pub(crate) struct Sums {
    pub from: Quantized,
    pub scales: Vec<f32>,
    pub bias: Option<Vec<i32>>,
    /// The node that adds a float to each column of the scaled sums, and these floats.
    pub added: Option<(NodeId, Vec<f32>)>,
}

impl Sums {
    /// What an integer Conv or product needs: input bytes, weights, bias of the sums' scale.
    pub fn of(
        planner: &Planner,
        x: ValueId,
        weights: &Weights,
        bias: Option<ValueId>,
        columns: usize,
    ) -> Option<Self> {
        let from = dequantize::source(planner, x)?;
        let scale = |i: usize| from.quant.scale * weights.scales[i % weights.scales.len()];
        let scales: Vec<f32> = (0..columns).map(scale).collect();
        let bias = match bias {
            Some(b) => Some(dequantize::bias(planner, b, &scales)?),
            None => None,
        };
        if bias.as_ref().is_some_and(|b| b.len() != columns) {
            return None;
        }
        Some(Self {
            from,
            scales,
            bias,
            added: None,
        })
    }
}

/// The arithmetic of an integer kernel, whatever its shape: a strip of an image, input, bias,
/// output.
pub(crate) type Run =
    Box<dyn Fn(&Ctx, Option<Strip>, Input8, Option<&[i32]>, Output8) + Send + Sync>;

/// An integer kernel with its weights.
pub(crate) struct Integer {
    pub kernel: &'static str,
    /// What is said of weights of which zeros are skipped.
    pub told: Option<String>,
    /// Of what it reads and writes.
    pub layout: Layout,
    /// The geometry and how many images there are; of a product, where each row is a line.
    pub images: Option<(ConvGeometry, usize)>,
    pub run: Run,
}

/// Adds the integer step of node `id`: to bytes where a Q follows, else to floats.
pub(crate) fn integer_step(
    planner: &mut Planner,
    id: NodeId,
    y: ValueId,
    sums: Sums,
    with: Integer,
) -> Option<()> {
    let mut nodes = vec![id];
    nodes.extend(sums.added.as_ref().map(|(add, _)| *add));
    let (mut value, mut activation) = (y, Activation::None);
    let in_floats = sums.added.is_some();
    if let Some((f, a, result)) = activations::after(planner, y)
        && (in_floats || a.bounds().is_some() || quantized_output(planner, result).is_none())
    {
        nodes.push(f);
        (value, activation) = (result, a);
    }
    let layout = with.layout;
    let read = planner.read(sums.from.value, layout)?;
    let from = sums.from;
    let to = quantized_output(planner, value).filter(|_| !in_floats);
    let Some((q, to)) = to else {
        let scaled = |b: Vec<i32>| -> Vec<f32> {
            let pairs = b.iter().zip(&sums.scales);
            pairs.map(|(&b, &s)| b as f32 * s).collect()
        };
        let bias = match sums.added {
            Some((_, added)) => Some(added),
            None => sums.bias.map(scaled),
        };
        let run: OfStrip = Arc::new(move |ctx, strip, x, y| {
            let x = Input8 {
                data: bytes(x[0], from.signed),
                zero: from.quant.zero,
            };
            let out = Output8::F32 {
                y: bytemuck::cast_slice_mut(y),
                scale: &sums.scales,
                bias: bias.as_deref(),
                activation,
            };
            (with.run)(ctx, strip, x, None, out);
        });
        let whole = Arc::clone(&run);
        let work: Kernel = Box::new(move |ctx, x, y| whole(ctx, None, x, y[0]));
        planner.step_f32(id, &nodes, (value, layout), with.kernel, vec![read], work)?;
        planner.tell(&nodes, with.told);
        planner.mark_integer(&nodes);
        planner.mark_step_integer();
        if let Some((geometry, batch)) = with.images.filter(|_| layout == Layout::Plain) {
            planner.by_lines(ByLines::new(geometry, batch, [1, 4], run));
        }
        return Some(());
    };
    nodes.push(q);
    requantized(planner, id, &nodes, sums, (to, activation), with)
}

/// Adds the integer step of node `id`, which does `nodes` as well: to the bytes of `to`, after a
/// function that only cuts off.
pub(crate) fn requantized(
    planner: &mut Planner,
    id: NodeId,
    nodes: &[NodeId],
    sums: Sums,
    (to, activation): (Quantized, Activation),
    with: Integer,
) -> Option<()> {
    let Integer {
        kernel,
        told,
        layout,
        images,
        run,
    } = with;
    let from = sums.from;
    let mult: Vec<f32> = sums.scales.iter().map(|s| s / to.quant.scale).collect();
    let (lo, hi) = byte_bounds(activation, to)?;
    let read = planner.read(from.value, layout)?;
    let write = planner.write(to.value, layout)?;
    let run: OfStrip = Arc::new(move |ctx, strip, x, y| {
        let x = Input8 {
            data: bytes(x[0], from.signed),
            zero: from.quant.zero,
        };
        let requant = Requant {
            mult: &mult,
            zero: to.quant.zero,
            lo,
            hi,
        };
        run(
            ctx,
            strip,
            x,
            sums.bias.as_deref(),
            Output8::Bytes(y, requant),
        );
    });
    let whole = Arc::clone(&run);
    let spec = Spec {
        kernel,
        integer: true,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(to.value, layout)],
        work: Box::new(move |ctx, x, y| whole(ctx, None, x, y[0])),
    };
    planner.step(id, nodes, spec);
    planner.tell(nodes, told);
    if let Some((geometry, batch)) = images {
        planner.by_lines(ByLines::new(geometry, batch, [1, 1], run));
    }
    Some(())
}

/// The least and largest byte after a function that only cuts off.
pub(crate) fn byte_bounds(activation: Activation, to: Quantized) -> Option<(i32, i32)> {
    let (min, max) = activation.bounds()?;
    let (least, most) = if to.signed { (-128, 127) } else { (0, 255) };
    let byte = |x: f32| {
        let q = (x / to.quant.scale).round_ties_even() + to.quant.zero as f32;
        q.clamp(least as f32, most as f32) as i32
    };
    Some((byte(min), byte(max)))
}

fn integer(
    planner: &mut Planner,
    id: NodeId,
    (x, w, y): (ValueId, ValueId, ValueId),
    geometry: ConvGeometry,
    batch: usize,
) -> Option<()> {
    let weights = dequantize::weights(planner, w, 0)?;
    let bias = planner.graph().node(id).input(2);
    let sums = Sums::of(planner, x, &weights, bias, geometry.channels_out)?;
    let with = byte_conv(planner, id, &weights, geometry, batch)?;
    integer_step(planner, id, y, sums, with)
}

/// The convolution of images of bytes with the constant weights of node `id`.
pub(crate) fn byte_conv(
    planner: &mut Planner,
    id: NodeId,
    weights: &Weights,
    geometry: ConvGeometry,
    batch: usize,
) -> Option<Integer> {
    let packed = planner.packed(id, |ctx| {
        let data = bytes(&weights.data, weights.signed);
        ConvI8::prepare(ctx, geometry, data, &weights.zeros)
            .ok()
            .map(Packed::Conv8)
    })?;
    let Packed::Conv8(conv) = packed else {
        return None;
    };
    let conv = conv.resized(geometry).ok()?;
    Some(Integer {
        kernel: conv.kernel_name(),
        told: conv.sparse().map(SparseI8::told),
        layout: Layout::Last,
        images: Some((geometry, batch)),
        run: Box::new(move |ctx, strip, x, bias, out| match strip {
            Some(strip) => conv.of_strip(strip).run(ctx, 1, x, bias, out),
            None => conv.run(ctx, batch, x, bias, out),
        }),
    })
}
