//! Operators on bytes of known scales, in integers: QLinearConv, QLinearMatMul and QGemm of constant
//! weights, and those of `com.microsoft` in the files of this folder.

use std::ops::RangeInclusive;

use edgesmith_ir::{DType, NodeId, Tensor, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::gemm::Order;
use edgesmith_kernels::quantize::Quant;

use super::conv::{Sums, byte_conv, geometry, integer_step, requantized};
use super::dequantize::{Quantized, Weights};
use super::matmul::byte_product;
use crate::plan::Planner;

pub(super) mod elements;
pub(super) mod products;

/// The bytes of `value` by one constant scale and zero point, where integers may be used.
pub(super) fn quantized(
    planner: &Planner,
    value: ValueId,
    scale: Option<ValueId>,
    zero: Option<ValueId>,
) -> Option<Quantized> {
    if !planner.integer() {
        return None;
    }
    let signed = match planner.typed(value)?.0 {
        DType::I8 => true,
        DType::U8 => false,
        _ => return None,
    };
    let scale = planner.floats(scale?)?;
    let zero = zeros(planner, zero)?;
    let (&[scale], &[zero]) = (scale.as_slice(), zero.as_slice()) else {
        return None;
    };
    if !range(signed).contains(&zero) {
        return None;
    }
    Some(Quantized {
        value,
        quant: Quant { scale, zero },
        signed,
    })
}

/// What bytes hold: a zero point of another type may be beyond.
fn range(signed: bool) -> RangeInclusive<i32> {
    if signed { -128..=127 } else { 0..=255 }
}

fn zeros(planner: &Planner, v: Option<ValueId>) -> Option<Vec<i32>> {
    let data = match v {
        Some(v) => planner.constant(v)?.to_i64().ok()?,
        None => vec![0],
    };
    data.into_iter().map(|z| i32::try_from(z).ok()).collect()
}

/// What input and weights of a node have in common: input at 0, weights at 3.
struct Node {
    from: Quantized,
    weights: Weights,
    data: Tensor,
}

impl Node {
    fn of(planner: &Planner, id: NodeId, columns: usize) -> Option<Self> {
        let node = planner.graph().node(id);
        let from = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
        let data = planner.constant(node.input(3)?)?.clone();
        let signed = match data.dtype() {
            DType::I8 => true,
            DType::U8 => false,
            _ => return None,
        };
        let scales = planner.floats(node.input(4)?)?;
        let zeros = zeros(planner, node.input(5))?;
        let by_column = |n: usize| n == 1 || n == columns;
        if !by_column(scales.len())
            || !by_column(zeros.len())
            || !zeros.iter().all(|z| range(signed).contains(z))
            || planner.constant(from.value).is_some()
        {
            return None;
        }
        let plain = zeros.iter().all(|&z| z == 0);
        Some(Self {
            from,
            weights: Weights {
                data: data.bytes().to_vec(),
                signed,
                scales,
                zeros: if plain { Vec::new() } else { zeros },
            },
            data,
        })
    }

    fn sums(&self, bias: Option<Vec<i32>>, columns: usize) -> Option<Sums> {
        let scale =
            |i: usize| self.from.quant.scale * self.weights.scales[i % self.weights.scales.len()];
        let fits = bias.as_ref().is_none_or(|b| b.len() == columns);
        fits.then(|| Sums {
            added: None,
            from: self.from,
            scales: (0..columns).map(scale).collect(),
            bias,
        })
    }
}

pub(crate) fn conv(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w) = (node.input(0)?, node.input(3)?);
    let to = quantized(planner, node.output(0)?, node.input(6), node.input(7))?;
    let (geometry, batch) = geometry(planner, id, x, w)?;
    let columns = geometry.channels_out;
    let parts = Node::of(planner, id, columns)?;
    let bias = match node.input(8) {
        Some(b) => Some(planner.constant(b)?.data::<i32>().ok()?.into_owned()),
        None => None,
    };
    let sums = parts.sums(bias, columns)?;
    let with = byte_conv(planner, id, &parts.weights, geometry, batch)?;
    requantized(planner, id, &[id], sums, (to, Activation::None), with)
}

pub(crate) fn matmul(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    if planner.constant(node.input(3)?).is_none() {
        return products::requantized(planner, id);
    }
    let to = quantized(planner, node.output(0)?, node.input(6), node.input(7))?;
    let dims = planner.typed(node.input(0)?)?.1;
    let (&k, rows) = dims.split_last()?;
    let m: usize = rows.iter().product();
    let n = *planner.typed(node.input(3)?)?.1.get(1)?;
    let parts = Node::of(planner, id, n)?;
    if parts.data.rank() != 2 || rows.is_empty() || m * k * n == 0 {
        return None;
    }
    let sums = parts.sums(None, n)?;
    let with = byte_product(planner, id, &parts.weights, [m, k, n], Order::KN)?;
    requantized(planner, id, &[id], sums, (to, Activation::None), with)
}

/// QGemm of constant weights whose bias, if any, is a number for each column.
pub(crate) fn gemm(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (ad, bd) = (
        planner.typed(node.input(0)?)?.1,
        planner.typed(node.input(3)?)?.1,
    );
    let (&[m, k], &[rows, columns]) = (ad.as_slice(), bd.as_slice()) else {
        return None;
    };
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    let (depth, n, order) = match set("transB") {
        true => (columns, rows, Order::NK),
        false => (rows, columns, Order::KN),
    };
    if set("transA") || depth != k || m * k * n == 0 {
        return None;
    }
    let parts = Node::of(planner, id, n)?;
    let bias = match node.input(6) {
        Some(c) => {
            let c = planner.constant(c)?;
            let by_column = c.rank() <= 2 && c.dims().last() == Some(&n);
            Some(c.data::<i32>().ok().filter(|_| by_column)?.into_owned())
        }
        None => None,
    };
    let mut sums = parts.sums(bias, n)?;
    if let Some(alpha) = node.float("alpha") {
        let first = alpha * parts.from.quant.scale;
        let own = |i: usize| first * parts.weights.scales[i % parts.weights.scales.len()];
        sums.scales = (0..n).map(own).collect();
    }
    let y = node.output(0)?;
    let to = match node.input(7) {
        Some(scale) => Some(quantized(planner, y, Some(scale), node.input(8))?),
        None => None,
    };
    let with = byte_product(planner, id, &parts.weights, [m, k, n], order)?;
    match to {
        Some(to) => requantized(planner, id, &[id], sums, (to, Activation::None), with),
        None => integer_step(planner, id, y, sums, with),
    }
}
