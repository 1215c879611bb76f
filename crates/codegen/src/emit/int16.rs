//! Activations of 16 bits around 0, by weights of bytes.

use edgesmith_ir::{NodeId, Result, ValueId};

use super::conv::{channels_last, distance, fields, macs, result, windows};
use super::{Call, c_float};
use crate::arena::Overlap;
use crate::fixed::Requant16;
use crate::kernels::{Flavour, Geometry};
use crate::lower::{Bounds, Held, Lowering, Tail, Weights};
use crate::program::{Cost, Data, Element, Grid, Layer};

/// Floats to 16 bits: `clamp(round(x / scale))`, halves to even, NaN to 0.
pub(crate) struct Quantize16 {
    scale: f32,
    count: usize,
}

/// 16 bits to floats.
pub(crate) struct Dequantize16 {
    scale: f32,
    count: usize,
}

/// A convolution.
struct Conv16 {
    geometry: Geometry,
    weights: Vec<i8>,
    bias: Vec<i32>,
    to: Requant16,
}

/// Rows by a matrix.
struct Dense16 {
    rows: usize,
    depth: usize,
    /// Column by column.
    weights: Vec<i8>,
    bias: Vec<i32>,
    to: Requant16,
}

impl Quantize16 {
    /// Of `count` numbers of this scale.
    pub fn new(scale: f32, count: usize) -> Self {
        Self { scale, count }
    }
}

impl Dequantize16 {
    /// Of `count` numbers of this scale.
    pub fn new(scale: f32, count: usize) -> Self {
        Self { scale, count }
    }
}

/// A value's scale, where it is held in 16 bits.
fn scale_of(l: &Lowering, x: &Held) -> Option<f32> {
    let buffer = l.of(x);
    let grid = buffer.grid.filter(|_| buffer.element == Element::I16);
    grid.map(|g| g.scale)
}

/// What sums of a product become: biases, multipliers, and the grid of the result.
fn sums(
    l: &Lowering,
    id: NodeId,
    x: &Held,
    weights: &Weights,
    (tail, to): &(Tail, f32),
) -> Result<Option<(Vec<i32>, Requant16)>> {
    let Some(from) = scale_of(l, x) else {
        return Ok(None);
    };
    let products = weights
        .scales
        .iter()
        .map(|&s| f64::from(from) * f64::from(s));
    let products: Vec<f64> = products.collect();
    let bias = l.bias(l.graph.node(id).input(2), &products)?.0;
    let depth = weights.data.len() / bias.len().max(1);
    let bound = weights
        .data
        .chunks(depth.max(1))
        .zip(&bias)
        .map(|(row, b)| {
            let most: i64 = row.iter().map(|&w| i64::from(w).abs() << 15).sum();
            most + i64::from(*b).abs()
        });
    let factors: Vec<f64> = products.iter().map(|p| p / f64::from(*to)).collect();
    let Bounds { lo, hi } = tail.bounds;
    let within = |x: f32| {
        (f64::from(x) / f64::from(*to))
            .round_ties_even()
            .clamp(-32768.0, 32767.0)
    };
    let (lo, hi) = (within(lo) as i32, within(hi) as i32);
    let requant = Requant16::new(&factors, bound.max().unwrap_or(1), lo, hi.max(lo))?;
    Ok(Some((bias, requant)))
}

fn wide(scale: f32) -> Grid {
    Grid {
        scale,
        zero: 0,
        unsigned: false,
    }
}

/// The step of a convolution whose input and result have 16 bits; nothing where it is another.
pub(super) fn conv(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    g: &Geometry,
    [w, y]: [ValueId; 2],
) -> Result<Option<()>> {
    let Some((tail, weights)) = l.tail16(y).zip(l.weights(w, 0)) else {
        return Ok(None);
    };
    let Some((bias, to)) = sums(l, id, x, &weights, &tail)? else {
        return Ok(None);
    };
    let layer = Conv16 {
        geometry: g.clone(),
        weights: channels_last(&weights.data, g),
        bias,
        to,
    };
    let (mut tail, scale) = tail;
    tail.grid = Some(wide(scale));
    let dims = l.typed(tail.value)?.1;
    let made = result(l, &tail, Element::I16, &dims);
    l.step(id, &[x], &made, layer);
    l.finish(&tail, made);
    Ok(Some(()))
}

/// The step of a product whose input and result have 16 bits, by weights that stand column by column;
/// nothing where it is another.
pub(super) fn dense(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    weights: Weights,
    y: ValueId,
) -> Result<Option<()>> {
    let Some(tail) = l.tail16(y) else {
        return Ok(None);
    };
    let Some((bias, to)) = sums(l, id, x, &weights, &tail)? else {
        return Ok(None);
    };
    let depth = weights.data.len() / bias.len().max(1);
    let layer = Dense16 {
        rows: x.dims.iter().product::<usize>() / depth.max(1),
        depth,
        weights: weights.data,
        bias,
        to,
    };
    let (tail, scale) = tail;
    let dims = l.typed(tail.value)?.1;
    let name = l.graph.value(tail.value).name.clone();
    let made = l.buffer(&name, Element::I16, &dims, Some(wide(scale)));
    l.step(id, &[x], &made, layer);
    l.finish(&tail, made);
    Ok(Some(()))
}

/// What `es_requant16` holds, as a nested initializer.
fn requant(call: &mut Call, bias: &[i32], to: &Requant16) -> String {
    let bias = call.i32s("bias", bias);
    let mult = call.i32s("mult", &to.mult);
    format!(
        "{{.bias = {bias}, .mult = {mult}, .lo = {}, .hi = {}, .shift = {}}}",
        to.lo, to.hi, to.shift
    )
}

fn bytes(weights: &[i8]) -> Vec<u8> {
    weights.iter().map(|&w| w as u8).collect()
}

impl Layer for Conv16 {
    fn kernel(&self) -> &'static str {
        "conv16"
    }

    fn emit(&self, call: &mut Call) -> String {
        let weights = call.bytes("weights", &bytes(&self.weights));
        let to = requant(call, &self.bias, &self.to);
        let fields = format!("{}, .to = {to}", fields(&self.geometry));
        let layer = call.parameters("conv_int16", &fields);
        let f = call.kernel("conv16");
        let (x, y, scratch) = (&call.reads[0], &call.write, &call.scratch);
        format!("{f}(&{layer}, {x}, {weights}, {y}, {scratch});")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let g = &self.geometry;
        let Data::I16(y) = write else { return };
        let in_group = g.out_c / g.groups;
        windows(g, reads[0].i16(), 0, |at, first, window| {
            for c in first..first + in_group {
                let weights = self.weights[c * window.len()..].iter();
                let products = window.iter().zip(weights);
                let sum: i64 = products.map(|(&x, &w)| i64::from(x) * i64::from(w)).sum();
                y[at + c - first] = self.to.apply(sum + i64::from(self.bias[c]), c);
            }
        });
    }

    fn scratch(&self, _: Flavour) -> usize {
        2 * self.geometry.depth() * self.geometry.groups
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(distance(&self.geometry, 1, 2)))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: macs(&self.geometry),
            weights: self.weights.len() + 8 * self.bias.len(),
        }
    }
}

impl Layer for Dense16 {
    fn kernel(&self) -> &'static str {
        "dense16"
    }

    fn emit(&self, call: &mut Call) -> String {
        let weights = call.bytes("weights", &bytes(&self.weights));
        let to = requant(call, &self.bias, &self.to);
        let fields = format!(
            ".rows = {}, .in = {}, .out = {}, .to = {to}",
            self.rows,
            self.depth,
            self.bias.len()
        );
        let layer = call.parameters("dense_int16", &fields);
        let f = call.kernel("dense16");
        format!(
            "{f}(&{layer}, {}, {weights}, {});",
            call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::I16(y) = write else { return };
        let columns = self.bias.len();
        for (r, row) in reads[0]
            .i16()
            .chunks(self.depth)
            .enumerate()
            .take(self.rows)
        {
            for c in 0..columns {
                let weights = self.weights[c * self.depth..].iter();
                let products = row.iter().zip(weights);
                let sum: i64 = products.map(|(&x, &w)| i64::from(x) * i64::from(w)).sum();
                y[r * columns + c] = self.to.apply(sum + i64::from(self.bias[c]), c);
            }
        }
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: (self.rows * self.weights.len()) as u64,
            weights: self.weights.len() + 8 * self.bias.len(),
        }
    }
}

impl Layer for Quantize16 {
    fn kernel(&self) -> &'static str {
        "quantize16"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("quantize16");
        let (x, y) = (&call.reads[0], &call.write);
        format!("{f}({}, {}, {x}, {y});", self.count, c_float(self.scale))
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let number = |&x: &f32| {
            let q = (x / self.scale).round_ties_even();
            if q.is_nan() {
                0
            } else {
                q.clamp(-32768.0, 32767.0) as i16
            }
        };
        *write = Data::I16(reads[0].f32().iter().map(number).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }
}

impl Layer for Dequantize16 {
    fn kernel(&self) -> &'static str {
        "dequantize16"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("dequantize16");
        let (x, y) = (&call.reads[0], &call.write);
        format!("{f}({}, {}, {x}, {y});", self.count, c_float(self.scale))
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let number = |&q: &i16| f32::from(q) * self.scale;
        *write = Data::F32(reads[0].i16().iter().map(number).collect());
    }
}
