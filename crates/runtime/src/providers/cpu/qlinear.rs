//! QLinearConv and QLinearMatMul of constant weights, in integers.

use edgesmith_ir::{DType, NodeId, Tensor, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::gemm::Order;
use edgesmith_kernels::quantize::Quant;

use super::conv::{Sums, byte_conv, geometry, requantized};
use super::dequantize::{Quantized, Weights};
use super::matmul::byte_product;
use crate::plan::Planner;

/// The bytes of `value` by one constant scale and zero point.
fn quantized(
    planner: &Planner,
    value: ValueId,
    scale: Option<ValueId>,
    zero: Option<ValueId>,
) -> Option<Quantized> {
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
    Some(Quantized {
        value,
        quant: Quant { scale, zero },
        signed,
    })
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
    to: Quantized,
    weights: Weights,
    data: Tensor,
}

impl Node {
    fn of(planner: &Planner, id: NodeId, columns: usize) -> Option<Self> {
        let node = planner.graph().node(id);
        if !planner.integer() {
            return None;
        }
        let from = quantized(planner, node.input(0)?, node.input(1), node.input(2))?;
        let to = quantized(planner, node.output(0)?, node.input(6), node.input(7))?;
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
            || planner.constant(from.value).is_some()
        {
            return None;
        }
        let plain = zeros.iter().all(|&z| z == 0);
        Some(Self {
            from,
            to,
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
            from: self.from,
            scales: (0..columns).map(scale).collect(),
            bias,
        })
    }
}

pub(crate) fn conv(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w) = (node.input(0)?, node.input(3)?);
    let (geometry, batch) = geometry(planner, id, x, w)?;
    let columns = geometry.channels_out;
    let parts = Node::of(planner, id, columns)?;
    let bias = match node.input(8) {
        Some(b) => Some(planner.constant(b)?.data::<i32>().ok()?.into_owned()),
        None => None,
    };
    let sums = parts.sums(bias, columns)?;
    let with = byte_conv(planner, id, &parts.weights, geometry, batch)?;
    let to = (parts.to, Activation::None);
    requantized(planner, id, &[id], sums, to, with)
}

pub(crate) fn matmul(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
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
    let to = (parts.to, Activation::None);
    requantized(planner, id, &[id], sums, to, with)
}
