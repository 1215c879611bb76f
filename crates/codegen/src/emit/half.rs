//! Convolutions and products of halves (f16); what else there is runs in floats in between.

use edgesmith_ir::{DType, Error, NodeId, Result, ValueId};
use half::f16;

use super::conv::{bias, channels_last, distance, fields, macs, result, windows};
use super::{Call, c_float};
use crate::arena::Overlap;
use crate::kernels::{self, Flavour, Geometry};
use crate::lower::{Bounds, Held, Lowering, Tail};
use crate::program::{Cost, Data, Element, Layer};

/// Floats to halves.
pub(crate) struct ToHalf(pub usize);

/// Halves to floats.
pub(crate) struct FromHalf(pub usize);

/// A convolution.
struct ConvF16 {
    geometry: Geometry,
    weights: Vec<f32>,
    bias: Vec<f32>,
    bounds: Bounds,
}

/// Rows by a matrix.
struct DenseF16 {
    rows: usize,
    depth: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    bounds: Bounds,
}

/// The step of a convolution of halves; nothing where it is another.
pub(super) fn conv(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    g: &Geometry,
    [w, y]: [ValueId; 2],
) -> Result<Option<()>> {
    if l.typed(y)?.0 != DType::F16 {
        return Ok(None);
    }
    let weights = l
        .floats(w)
        .ok_or_else(|| Error::unsupported("its weights are computed"))?;
    let bias = bias(l, id, g.out_c)?;
    let tail = Tail {
        grid: None,
        ..l.tail(y)
    };
    let layer = ConvF16 {
        geometry: g.clone(),
        weights: channels_last(&weights, g),
        bias,
        bounds: tail.bounds,
    };
    let x = l.half(x)?;
    let dims = l.typed(tail.value)?.1;
    let made = result(l, &tail, Element::F16, &dims);
    l.step(id, &[&x], &made, layer);
    l.finish(&tail, made);
    Ok(Some(()))
}

/// The step of a product of halves by weights that stand column by column.
pub(super) fn dense(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    weights: Vec<f32>,
    bias: Vec<f32>,
    y: ValueId,
) -> Result<()> {
    let tail = Tail {
        grid: None,
        ..l.tail(y)
    };
    let depth = weights.len() / bias.len().max(1);
    let layer = DenseF16 {
        rows: x.dims.iter().product::<usize>() / depth.max(1),
        depth,
        weights,
        bias,
        bounds: tail.bounds,
    };
    let x = l.half(x)?;
    let dims = l.typed(tail.value)?.1;
    let name = l.graph.value(tail.value).name.clone();
    let made = l.buffer(&name, Element::F16, &dims, None);
    l.step(id, &[&x], &made, layer);
    l.finish(&tail, made);
    Ok(())
}

/// Cast between floats and halves.
pub(super) fn cast(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    let made = match l.typed(y)?.0 {
        DType::F16 => l.half(&x)?,
        DType::F32 => l.float(&x)?,
        other => {
            return Err(Error::unsupported(format!(
                "a cast to {} has no emitter",
                other.name()
            )));
        }
    };
    l.hold(y, made);
    Ok(())
}

/// Halves in flash; the name.
fn halves(call: &mut Call, data: &[f16]) -> String {
    call.u16s(
        "weights",
        &data.iter().map(|h| h.to_bits()).collect::<Vec<_>>(),
    )
}

/// The fields of bounds.
fn bounds(b: Bounds) -> String {
    format!(".lo = {}, .hi = {}", c_float(b.lo), c_float(b.hi))
}

impl Layer for ConvF16 {
    fn kernel(&self) -> &'static str {
        if self.geometry.is_depthwise() {
            "depthwise_f16"
        } else {
            "conv_f16"
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let g = &self.geometry;
        let packed = match self.geometry.is_depthwise() {
            true => kernels::pack_depthwise_f16(&self.weights, g),
            false => kernels::pack_conv_f16(&self.weights, g),
        };
        let weights = halves(call, &packed);
        let bias = call.f32s("bias", &self.bias);
        let fields = format!("{}, .bias = {bias}, {}", fields(g), bounds(self.bounds));
        let layer = call.parameters("convh", &fields);
        let f = call.kernel(self.kernel());
        let (x, y) = (&call.reads[0], &call.write);
        match self.geometry.is_depthwise() {
            true => format!("{f}(&{layer}, {x}, {weights}, {y});"),
            false => format!("{f}(&{layer}, {x}, {weights}, {y}, {});", call.scratch),
        }
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::F16(y) = write else { return };
        let g = &self.geometry;
        let in_group = g.out_c / g.groups;
        windows(g, reads[0].f16(), f16::ZERO, |at, first, window| {
            for c in first..first + in_group {
                let weights = self.weights[c * window.len()..].iter();
                let products = window.iter().zip(weights);
                let sum: f32 = products.map(|(x, w)| x.to_f32() * w).sum();
                let sum = (sum + self.bias[c]).max(self.bounds.lo).min(self.bounds.hi);
                y[at + c - first] = f16::from_f32(sum);
            }
        });
    }

    fn scratch(&self, _: Flavour) -> usize {
        if self.geometry.is_depthwise() {
            0
        } else {
            4 * self.geometry.depth()
        }
    }

    fn overlap(&self, flavour: Flavour, _: usize) -> Option<Overlap> {
        let g = &self.geometry;
        (g.groups == 1).then(|| Overlap::Behind(distance(g, kernels::pixels(flavour), 2)))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: macs(&self.geometry),
            weights: 2 * self.weights.len() + 4 * self.bias.len(),
        }
    }
}

impl Layer for DenseF16 {
    fn kernel(&self) -> &'static str {
        "dense_f16"
    }

    fn emit(&self, call: &mut Call) -> String {
        let weights = halves(call, &kernels::pack_dense_f16(&self.weights, self.depth));
        let bias = call.f32s("bias", &self.bias);
        let fields = format!(
            ".rows = {}, .in = {}, .out = {}, .bias = {bias}, {}",
            self.rows,
            self.depth,
            self.bias.len(),
            bounds(self.bounds)
        );
        let layer = call.parameters("denseh", &fields);
        let f = call.kernel("dense_f16");
        let (x, y, scratch) = (&call.reads[0], &call.write, &call.scratch);
        format!("{f}(&{layer}, {x}, {weights}, {y}, {scratch});")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::F16(y) = write else { return };
        let columns = self.bias.len();
        for (r, row) in reads[0]
            .f16()
            .chunks(self.depth)
            .enumerate()
            .take(self.rows)
        {
            for c in 0..columns {
                let weights = self.weights[c * self.depth..].iter();
                let products = row.iter().zip(weights);
                let sum: f32 = products.map(|(x, w)| x.to_f32() * w).sum();
                let sum = (sum + self.bias[c]).max(self.bounds.lo).min(self.bounds.hi);
                y[r * columns + c] = f16::from_f32(sum);
            }
        }
    }

    fn scratch(&self, _: Flavour) -> usize {
        4 * self.depth
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: (self.rows * self.weights.len()) as u64,
            weights: 2 * self.weights.len() + 4 * self.bias.len(),
        }
    }
}

impl Layer for ToHalf {
    fn kernel(&self) -> &'static str {
        "to_half"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("to_half");
        format!("{f}({}, {}, {});", self.0, call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        *write = Data::F16(reads[0].f32().iter().map(|&x| f16::from_f32(x)).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }
}

impl Layer for FromHalf {
    fn kernel(&self) -> &'static str {
        "from_half"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("from_half");
        format!("{f}({}, {}, {});", self.0, call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        *write = Data::F32(reads[0].f16().iter().map(|x| x.to_f32()).collect());
    }
}
