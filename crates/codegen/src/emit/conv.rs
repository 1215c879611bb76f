//! Conv of one or two spatial axes: bytes by bytes, or floats.

use std::sync::Arc;

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{Error, NodeId, Result};

use super::{Call, c_float};
use crate::arena::Overlap;
use crate::fixed::Requant;
use crate::kernels::{self, Flavour, Geometry};
use crate::lower::{Bounds, Held, Lowering, Tail, Weights, last};
use crate::program::{Cost, Data, Element, Layer};

/// Which kernel computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Pointwise,
    Depthwise,
    Depthwise3x3,
}

impl Kind {
    /// The narrowest that fits.
    fn of(g: &Geometry) -> Self {
        let ones = |a: [usize; 2]| a == [1, 1];
        let is_small = g.kernel == [3, 3] && ones(g.dilation) && g.stride[0] == g.stride[1];
        match g.is_depthwise() {
            true if is_small && g.stride[0] <= 2 => Self::Depthwise3x3,
            true => Self::Depthwise,
            false
                if ones(g.kernel)
                    && ones(g.stride)
                    && g.pad == [0, 0]
                    && g.groups == 1
                    && (g.in_h, g.in_w) == (g.out_h, g.out_w) =>
            {
                Self::Pointwise
            }
            false => Self::Any,
        }
    }
}

/// A convolution of bytes.
#[derive(Clone)]
pub(super) struct Conv8 {
    kind: Kind,
    geometry: Geometry,
    /// Output channel, row, column, input channel of its group.
    weights: Arc<[i8]>,
    /// Of each output channel, with the zero point of the input in it.
    bias: Arc<[i32]>,
    in_zero: i32,
    to: Requant,
    /// Weights have 4 bits; kernels take them 16 times, and so are the biases.
    nibbles: bool,
}

/// What kernels of weights of 4 bits take them times.
pub(super) const TIMES: i32 = 16;

/// A convolution of floats.
struct ConvF32 {
    kind: Kind,
    geometry: Geometry,
    weights: Vec<f32>,
    bias: Vec<f32>,
    bounds: Bounds,
}

/// Conv, in the arithmetic that its input, weights and result ask for.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let (Some(w), Some(y)) = (node.input(1), node.output(0)) else {
        return Err(Error::invalid("it has no weights or no output"));
    };
    let x = l.read(id, 0)?;
    let w_dims = l.typed(w)?.1;
    let geometry = geometry(l, id, &x.dims, &w_dims)?;
    let x = l.channels_last(&x);
    if let Some(()) = super::int16::conv(l, id, &x, &geometry, [w, y])? {
        return Ok(());
    }
    if let Some(()) = super::half::conv(l, id, &x, &geometry, [w, y])? {
        return Ok(());
    }
    let tail = l.tail(y);
    let ints = l.weights(w, 0);
    let floats = l.floats(w);
    let made = convolved(l, id, &x, &geometry, &tail, ints, floats)?;
    l.finish(&tail, made);
    Ok(())
}

/// The step of a convolution by weights in the order output, input, row, column, in bytes where it can be.
pub(super) fn convolved(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    geometry: &Geometry,
    tail: &Tail,
    ints: Option<Weights>,
    floats: Option<Vec<f32>>,
) -> Result<Held> {
    let Some(made) = in_bytes(l, id, x, geometry, tail, ints)? else {
        return in_floats(l, id, x, geometry, tail, floats);
    };
    Ok(made)
}

/// The windows of a node over an input of lengths `x`, by weights of lengths `w`.
fn geometry(l: &Lowering, id: NodeId, x: &[usize], w: &[usize]) -> Result<Geometry> {
    let node = l.graph.node(id);
    if !(3..=4).contains(&x.len()) || w.len() != x.len() {
        return Err(Error::unsupported(format!(
            "{} spatial axes have no emitter",
            x.len().saturating_sub(2)
        ))
        .hint("one or two have"));
    }
    if x[0] != 1 {
        return Err(Error::unsupported(format!("a batch of {} images", x[0]))
            .hint("code runs one sample at a time: export the model for a batch of 1"));
    }
    let window = Window::of(node, &x[2..], &w[2..])?;
    let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
    if groups == 0 || x[1] != w[1] * groups || !w[0].is_multiple_of(groups) {
        return Err(Error::invalid("channels and groups do not fit the weights"));
    }
    Ok(Geometry::of(&window, [x[1], w[0]], groups))
}

/// From output, input, row, column to output, row, column, input.
pub(super) fn channels_last<T: Copy>(weights: &[T], g: &Geometry) -> Vec<T> {
    let (taps, depth) = (g.kernel[0] * g.kernel[1], g.in_c / g.groups);
    let mut laid = Vec::with_capacity(weights.len());
    for channel in weights.chunks(taps * depth) {
        for tap in 0..taps {
            laid.extend((0..depth).map(|c| channel[c * taps + tap]));
        }
    }
    laid
}

/// The buffer of the result, channels-last.
pub(super) fn result(l: &mut Lowering, tail: &Tail, element: Element, dims: &[usize]) -> Held {
    let name = l.graph.value(tail.value).name.clone();
    let mut made = l.buffer(&name, element, dims, tail.grid);
    made.order = last(dims.len());
    made
}

/// The step where input, weights and result are bytes; nothing where one is not.
fn in_bytes(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    g: &Geometry,
    tail: &Tail,
    weights: Option<Weights>,
) -> Result<Option<Held>> {
    let node = l.graph.node(id);
    let (Some(from), Some(to), Some(weights)) = (l.grid(x), tail.grid, weights) else {
        return Ok(None);
    };
    let products = weights
        .scales
        .iter()
        .map(|&s| f64::from(from.scale) * f64::from(s));
    let products: Vec<f64> = products.collect();
    let bias = l.bias(node.input(2), &products)?;
    let data = channels_last(&weights.data, g);
    let mut factors: Vec<f64> = products.iter().map(|p| p / f64::from(to.scale)).collect();
    let (lo, hi) = tail.bounds.bytes(to);
    let (mut bias, mut bound) = folded(&data, &bias.0, from.zero)?;
    let kind = Kind::of(g);
    let nibbles = weights.nibbles && matches!(kind, Kind::Any | Kind::Pointwise);
    let nibbles = nibbles && times(&mut bias, &mut bound, &mut factors);
    let requant = Requant::new(&factors, bound, to.zero, lo, hi)?;
    let conv = Conv8 {
        // That of 3x3 shifts by no more.
        kind: match kind {
            Kind::Depthwise3x3 if requant.shift > 8 => Kind::Depthwise,
            kind => kind,
        },
        nibbles,
        geometry: g.clone(),
        weights: data.into(),
        bias: bias.into(),
        in_zero: from.zero,
        to: requant,
    };
    let dims = l.typed(tail.value)?.1;
    let made = result(l, tail, Element::I8, &dims);
    l.step(id, &[x], &made, conv);
    Ok(Some(made))
}

/// Sums by weights that are taken 16 times; false where they do not fit in 32 bits.
pub(super) fn times(bias: &mut [i32], bound: &mut i64, factors: &mut [f64]) -> bool {
    if *bound * i64::from(TIMES) > i64::from(i32::MAX) {
        return false;
    }
    *bound *= i64::from(TIMES);
    bias.iter_mut().for_each(|b| *b *= TIMES);
    factors.iter_mut().for_each(|f| *f /= f64::from(TIMES));
    true
}

/// Biases less what the zero point of the input adds to each sum of rows of weights, and what no sum
/// is farther from 0 than.
pub(super) fn folded(weights: &[i8], bias: &[i32], zero: i32) -> Result<(Vec<i32>, i64)> {
    let depth = weights.len() / bias.len().max(1);
    let mut bound = 0;
    let rows = bias.iter().enumerate().map(|(c, &b)| {
        let row = &weights[c * depth..(c + 1) * depth];
        let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
        let most: i64 = row.iter().map(|&w| i64::from(w).abs() * 128).sum();
        let b = i64::from(b) - i64::from(zero) * sum;
        bound = bound.max(b.abs() + most);
        b as i32
    });
    let rows = rows.collect();
    if bound > i64::from(i32::MAX) {
        return Err(Error::unsupported("its sums do not fit in 32 bits"));
    }
    Ok((rows, bound))
}

/// The step in floats, with the input and the result converted.
fn in_floats(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    g: &Geometry,
    tail: &Tail,
    weights: Option<Vec<f32>>,
) -> Result<Held> {
    let weights = weights.ok_or_else(|| {
        Error::unsupported("its weights are computed").hint("code is made for constant weights")
    })?;
    let bias = bias(l, id, g.out_c)?;
    let conv = ConvF32 {
        kind: Kind::of(g),
        geometry: g.clone(),
        weights: channels_last(&weights, g),
        bias,
        bounds: tail.bounds,
    };
    let x = l.float(x)?;
    let dims = l.typed(tail.value)?.1;
    let clamped = Tail {
        grid: None,
        ..tail.clone()
    };
    let made = result(l, &clamped, Element::F32, &dims);
    l.step(id, &[&x], &made, conv);
    Ok(l.quantized(made, tail))
}

/// The biases of a convolution in floats, 0 where it has none.
pub(super) fn bias(l: &Lowering, id: NodeId, channels: usize) -> Result<Vec<f32>> {
    let Some(b) = l.graph.node(id).input(2) else {
        return Ok(vec![0.0; channels]);
    };
    let bias = l.floats(b).filter(|b| b.len() == channels);
    bias.ok_or_else(|| Error::unsupported("its bias is no constant row of channels"))
}

/// The fields of `es_conv` that [`Geometry::sizes`] are.
const FIELDS: [&str; 15] = [
    "in_h",
    "in_w",
    "in_c",
    "out_h",
    "out_w",
    "out_c",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "pad_top",
    "pad_left",
    "dilation_h",
    "dilation_w",
    "groups",
];

/// The fields of `es_conv` but for what becomes of sums.
pub(super) fn fields(g: &Geometry) -> String {
    let fields = FIELDS.iter().zip(g.sizes());
    let fields = fields.map(|(name, n)| format!(".{name} = {n}"));
    fields.collect::<Vec<_>>().join(", ")
}

/// The distance that the result keeps from the input so that no step of `pixels` output pixels writes
/// over what a later one reads.
pub(super) fn distance(g: &Geometry, pixels: usize, bytes: usize) -> usize {
    let start = |p: usize| {
        let (row, column) = (p / g.out_w, p % g.out_w);
        let y = (row * g.stride[0]).saturating_sub(g.pad[0]);
        let x = (column * g.stride[1]).saturating_sub(g.pad[1]);
        (y * g.in_w + x) * g.in_c
    };
    let count = g.out_h * g.out_w;
    let mut least = usize::MAX;
    let mut distance = 0;
    for p in (1..count).rev() {
        least = least.min(start(p));
        if p % pixels == 0 {
            distance = distance.max((p * g.out_c).saturating_sub(least));
        }
    }
    distance * bytes
}

impl Conv8 {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Any if self.nibbles => "conv8_w4",
            Kind::Pointwise if self.nibbles => "conv8_1x1_w4",
            Kind::Any => "conv8",
            Kind::Pointwise => "conv8_1x1",
            Kind::Depthwise => "depthwise8",
            Kind::Depthwise3x3 => "depthwise8_3x3",
        }
    }

    fn is_depthwise(&self) -> bool {
        matches!(self.kind, Kind::Depthwise | Kind::Depthwise3x3)
    }
}

impl Layer for Conv8 {
    fn kernel(&self) -> &'static str {
        self.name()
    }

    fn emit(&self, call: &mut Call) -> String {
        let (g, flavour) = (&self.geometry, call.flavour());
        let packed = match self.kind {
            Kind::Depthwise => kernels::pack_depthwise(flavour, &self.weights, g),
            Kind::Depthwise3x3 => kernels::pack_depthwise_3x3(flavour, &self.weights, g),
            _ if self.nibbles => kernels::pack_conv_w4(flavour, &self.weights, g),
            Kind::Any | Kind::Pointwise => kernels::pack_conv(flavour, &self.weights, g),
        };
        let weights = call.bytes("weights", &packed);
        let to = super::requant(call, &self.bias, &self.to);
        let fields = format!("{}, .in_zero = {}, .to = {to}", fields(g), self.in_zero);
        let layer = call.parameters("conv", &fields);
        let f = call.kernel(self.name());
        let (x, y, scratch) = (&call.reads[0], &call.write, &call.scratch);
        format!("{f}(&{layer}, {x}, {weights}, {y}, {scratch});")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let (g, x) = (&self.geometry, reads[0].i8());
        let Data::I8(y) = write else { return };
        let in_group = g.out_c / g.groups;
        windows(g, x, self.in_zero as i8, |at, first, window| {
            for c in 0..in_group {
                let weights = self.weights[(first + c) * window.len()..].iter();
                let products = window.iter().zip(weights);
                let sum: i32 = products.map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                let sum = if self.nibbles { TIMES * sum } else { sum };
                y[at + c] = self.to.apply(self.bias[first + c] + sum, first + c) as i8;
            }
        });
    }

    fn scratch(&self, flavour: Flavour) -> usize {
        let g = &self.geometry;
        match self.kind {
            Kind::Any if self.nibbles => kernels::scratch_conv_w4(flavour, g),
            Kind::Pointwise if self.nibbles => kernels::scratch_conv_1x1_w4(flavour, g),
            Kind::Any => kernels::scratch_conv(flavour, g),
            Kind::Pointwise => kernels::scratch_conv_1x1(flavour, g),
            Kind::Depthwise => kernels::scratch_depthwise(flavour, g),
            Kind::Depthwise3x3 => kernels::scratch_depthwise_3x3(flavour, g),
        }
    }

    fn overlap(&self, flavour: Flavour, _: usize) -> Option<Overlap> {
        let g = &self.geometry;
        match self.is_depthwise() {
            true => kernels::depthwise_in_place(g).then_some(Overlap::Same),
            false if g.groups == 1 => {
                Some(Overlap::Behind(distance(g, kernels::pixels(flavour), 1)))
            }
            false => None,
        }
    }

    fn windows(&self) -> Option<&Geometry> {
        (self.geometry.groups == 1 || self.is_depthwise()).then_some(&self.geometry)
    }

    fn band(&self, geometry: Geometry) -> Option<Box<dyn Layer>> {
        let kind = match self.kind {
            Kind::Depthwise => Kind::Depthwise,
            _ => Kind::of(&geometry),
        };
        Some(Box::new(Self {
            kind,
            geometry,
            ..self.clone()
        }))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: macs(&self.geometry),
            weights: self.weights.len() / (1 + usize::from(self.nibbles)) + 8 * self.bias.len(),
        }
    }
}

/// Products that a convolution adds, those by padding included.
pub(super) fn macs(g: &Geometry) -> u64 {
    (g.out_h * g.out_w * g.out_c * g.kernel[0] * g.kernel[1] * (g.in_c / g.groups)) as u64
}

/// Calls `sums` for each output pixel and group with the place of the first element that it makes there,
/// its first channel, and the window: numbers of the input, `zero` in the padding.
pub(super) fn windows<T: Copy>(
    g: &Geometry,
    x: &[T],
    zero: T,
    mut sums: impl FnMut(usize, usize, &[T]),
) {
    let depth = g.in_c / g.groups;
    let in_group = g.out_c / g.groups;
    let mut window = Vec::new();
    let place = |o: usize, k: usize, axis: usize, length: usize| {
        (o * g.stride[axis] + k * g.dilation[axis])
            .checked_sub(g.pad[axis])
            .filter(|&i| i < length)
    };
    for p in 0..g.out_h * g.out_w {
        let (oy, ox) = (p / g.out_w, p % g.out_w);
        for group in 0..g.groups {
            window.clear();
            for ky in 0..g.kernel[0] {
                let y = place(oy, ky, 0, g.in_h);
                for kx in 0..g.kernel[1] {
                    let pixel = y.zip(place(ox, kx, 1, g.in_w));
                    match pixel.map(|(y, x)| (y * g.in_w + x) * g.in_c + group * depth) {
                        Some(at) => window.extend_from_slice(&x[at..at + depth]),
                        None => window.extend(std::iter::repeat_n(zero, depth)),
                    }
                }
            }
            let first = group * in_group;
            sums(p * g.out_c + first, first, &window);
        }
    }
}

impl ConvF32 {
    fn is_depthwise(&self) -> bool {
        matches!(self.kind, Kind::Depthwise | Kind::Depthwise3x3)
    }
}

impl Layer for ConvF32 {
    fn kernel(&self) -> &'static str {
        match self.kind {
            Kind::Any => "conv_f32",
            Kind::Pointwise => "conv_f32_1x1",
            Kind::Depthwise | Kind::Depthwise3x3 => "depthwise_f32",
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let g = &self.geometry;
        let packed = match self.kind {
            Kind::Depthwise | Kind::Depthwise3x3 => kernels::pack_depthwise_f32(&self.weights, g),
            Kind::Any | Kind::Pointwise => kernels::pack_conv_f32(&self.weights, g),
        };
        let weights = call.f32s("weights", &packed);
        let bias = call.f32s("bias", &self.bias);
        let fields = format!(
            "{}, .bias = {bias}, .lo = {}, .hi = {}",
            fields(g),
            c_float(self.bounds.lo),
            c_float(self.bounds.hi)
        );
        let layer = call.parameters("convf", &fields);
        let f = call.kernel(self.kernel());
        let (x, y) = (&call.reads[0], &call.write);
        match self.is_depthwise() {
            true => format!("{f}(&{layer}, {x}, {weights}, {y});"),
            false => format!("{f}(&{layer}, {x}, {weights}, {y}, {});", call.scratch),
        }
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32();
        let Data::F32(y) = write else { return };
        let in_group = self.geometry.out_c / self.geometry.groups;
        windows(&self.geometry, x, 0.0, |at, first, window| {
            for c in 0..in_group {
                let weights = self.weights[(first + c) * window.len()..].iter();
                let products = window.iter().zip(weights);
                let sum = products.fold(self.bias[first + c], |sum, (x, w)| sum + x * w);
                y[at + c] = sum.max(self.bounds.lo).min(self.bounds.hi);
            }
        });
    }

    fn scratch(&self, _: Flavour) -> usize {
        match self.is_depthwise() {
            true => 0,
            false => kernels::scratch_conv_f32(&self.geometry),
        }
    }

    fn overlap(&self, flavour: Flavour, _: usize) -> Option<Overlap> {
        let g = &self.geometry;
        (g.groups == 1).then(|| Overlap::Behind(distance(g, kernels::pixels(flavour), 4)))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: macs(&self.geometry),
            weights: 4 * (self.weights.len() + self.bias.len()),
        }
    }
}
