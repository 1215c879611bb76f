//! Q/DQ: what is quantised how, and the literal DequantizeLinear where floats are needed.

use std::borrow::Cow;

use edgesmith_ir::{DType, Node, NodeId, Tensor, ValueId, packed};
use edgesmith_kernels::gemm::Bytes;
use edgesmith_kernels::quantize::{Quant, dequantize8};

use super::{block_weights, float8, grids};
use crate::plan::{Layout, Planner};

/// A quantised value of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantized {
    /// The value that holds the bytes.
    pub value: ValueId,
    pub quant: Quant,
    pub signed: bool,
}

/// Bytes as kernels take them.
pub(crate) fn bytes(data: &[u8], signed: bool) -> Bytes<'_> {
    if signed {
        Bytes::I8(bytemuck::cast_slice(data))
    } else {
        Bytes::U8(data)
    }
}

/// Scale and zero point of a Q or DQ node that has one of each, constant.
fn per_tensor(planner: &Planner, node: &Node) -> Option<Quant> {
    let scale = planner.floats(node.input(1)?)?;
    let zero = match node.input(2) {
        Some(z) => planner.constant(z)?.to_i64().ok()?,
        None => vec![0],
    };
    match (scale[..].first(), zero[..].first()) {
        (Some(&scale), Some(&zero)) if node.int("block_size").unwrap_or(0) == 0 => Some(Quant {
            scale,
            zero: i32::try_from(zero).ok()?,
        }),
        _ => None,
    }
    .filter(|_| scale.len() == 1 && zero.len() == 1)
}

fn is_bytes(planner: &Planner, v: ValueId) -> Option<bool> {
    match planner.typed(v)?.0 {
        DType::U8 => Some(false),
        DType::I8 => Some(true),
        _ => None,
    }
}

/// The bytes behind `v`, where `v` is the float of a DequantizeLinear of one scale.
pub(crate) fn source(planner: &Planner, v: ValueId) -> Option<Quantized> {
    if !planner.integer() {
        return None;
    }
    let node = planner
        .graph()
        .node(planner.graph().producer_is(v, "DequantizeLinear")?);
    let q = node.input(0)?;
    if planner.constant(q).is_some() {
        return None;
    }
    Some(Quantized {
        value: q,
        quant: per_tensor(planner, node)?,
        signed: is_bytes(planner, q)?,
    })
}

/// The QuantizeLinear that alone reads `v`, and what it makes.
pub(crate) fn quantized_output(planner: &Planner, v: ValueId) -> Option<(NodeId, Quantized)> {
    if !planner.integer() {
        return None;
    }
    let id = planner.only_reader(v)?;
    let node = planner.graph().node(id);
    if !node.is("QuantizeLinear") || node.input(0) != Some(v) {
        return None;
    }
    Some((id, quantized_by(planner, id)?))
}

/// What a QuantizeLinear to bytes makes.
pub(crate) fn quantized_by(planner: &Planner, id: NodeId) -> Option<Quantized> {
    let node = planner.graph().node(id);
    let value = node.output(0)?;
    let signed = is_bytes(planner, value)?;
    Some(Quantized {
        value,
        quant: per_tensor(planner, node)?,
        signed,
    })
}

/// Quantised weights: bytes, their scales (one, or one for each index of the axis), zero points.
pub(crate) struct Weights {
    pub data: Vec<u8>,
    pub signed: bool,
    pub scales: Vec<f32>,
    pub zeros: Vec<i32>,
}

/// Numbers of 4 bits as bytes.
fn unpacked(data: &Tensor) -> Option<Tensor> {
    let bytes = packed::decode_integers(data).ok()?;
    Tensor::from_vec(data.dims(), bytes).ok()
}

/// The constant bytes behind `v`, or numbers of 4 bits as such, with scales along `axis`.
pub(crate) fn weights(planner: &Planner, v: ValueId, axis: usize) -> Option<Weights> {
    let node = planner
        .graph()
        .node(planner.graph().producer_is(v, "DequantizeLinear")?);
    let data = planner.constant(node.input(0)?)?;
    let (data, signed) = match data.dtype() {
        DType::I8 => (Cow::Borrowed(data), true),
        DType::U8 => (Cow::Borrowed(data), false),
        DType::I4 | DType::U4 => (Cow::Owned(unpacked(data)?), data.dtype() == DType::I4),
        _ => return None,
    };
    let scales = planner.floats(node.input(1)?)?;
    let zeros: Vec<i32> = match node.input(2) {
        Some(z) => {
            let z = planner.constant(z)?;
            let bytes = matches!(z.dtype(), DType::I4 | DType::U4).then(|| unpacked(z));
            let z = bytes.map_or_else(|| z.to_i64().ok(), |b| b?.to_i64().ok());
            let z = z?.into_iter().map(|z| i32::try_from(z).ok());
            z.collect::<Option<_>>()?
        }
        None => Vec::new(),
    };
    let at = node.int("axis").unwrap_or(1);
    let at = if at < 0 { at + data.rank() as i64 } else { at };
    if node.int("block_size").unwrap_or(0) != 0
        || (scales.len() > 1 && (at != axis as i64 || scales.len() != data.dims()[axis]))
    {
        return None;
    }
    let zeros = if zeros.iter().all(|&z| z == 0) {
        Vec::new()
    } else {
        zeros
    };
    Some(Weights {
        data: data.bytes().to_vec(),
        signed,
        scales,
        zeros,
    })
}

/// The int32 bias behind `v`, where its scale is that of the sums.
pub(crate) fn bias(planner: &Planner, v: ValueId, scales: &[f32]) -> Option<Vec<i32>> {
    let node = planner
        .graph()
        .node(planner.graph().producer_is(v, "DequantizeLinear")?);
    let data = planner.constant(node.input(0)?)?;
    let own = planner.floats(node.input(1)?)?;
    let zero = node.input(2).map(|z| planner.constant(z)?.to_i64().ok());
    if zero.is_some_and(|z| z.is_none_or(|z| z.iter().any(|&z| z != 0))) {
        return None;
    }
    let data = data.data::<i32>().ok()?.into_owned();
    let close = |i: usize| {
        let (a, b) = (own[i % own.len()], scales[i % scales.len()]);
        (a - b).abs() <= 1e-5 * b.abs()
    };
    (!own.is_empty() && (0..data.len()).all(close)).then_some(data)
}

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    if planner
        .typed(x)
        .is_some_and(|(dtype, _)| float8::is_float8(dtype))
    {
        if planner.constant(x).is_none() {
            return float8::dequantize(planner, id);
        }
        let kept = !planner.is_kept(y) && float8::keeps(planner.graph(), node);
        return kept.then(|| planner.postpone_constant(id));
    }
    let rest = node.inputs().iter().skip(1).flatten();
    let is_constant = |v: &ValueId| planner.constant(*v).is_some();
    if let Some(data) = planner.constant(x)
        && rest.into_iter().all(is_constant)
    {
        // Weights: kernels read the constant itself.
        let few_bits = block_weights::keeps_few_bits(data, node);
        let kept = planner.integer() || few_bits;
        return (kept && weights_are_used(planner, y, few_bits)).then(|| {
            planner.postpone_constant(id);
        });
    }
    if source(planner, y).or_else(|| literal(planner, y)).is_none() {
        return grids::dequantize(planner, id);
    }
    planner.postpone(id, y);
    Some(())
}

/// True where every reader of these weights can take them as bytes; decided when it plans itself,
/// so this only looks at the operator.
fn weights_are_used(planner: &Planner, y: ValueId, few_bits: bool) -> bool {
    let graph = planner.graph();
    !planner.is_kept(y)
        && graph.value(y).consumers().iter().all(|&(n, i)| {
            let node = graph.node(n);
            match node.op.as_str() {
                "Conv" | "Gemm" | "MatMul" => node.domain.is_empty() && i > 0,
                "FusedGemm" | "FusedMatMul" => few_bits && i == 1,
                "Gather" => few_bits && i == 0,
                _ => false,
            }
        })
}

/// As [`source`], also where integer kernels are switched off.
fn literal(planner: &Planner, v: ValueId) -> Option<Quantized> {
    let node = planner
        .graph()
        .node(planner.graph().producer_is(v, "DequantizeLinear")?);
    let value = node.input(0)?;
    Some(Quantized {
        value,
        quant: per_tensor(planner, node)?,
        signed: is_bytes(planner, value)?,
    })
}

/// Makes the floats of a postponed DequantizeLinear.
pub(crate) fn make(planner: &mut Planner, v: ValueId, layout: Layout) -> Option<()> {
    let id = planner.take_postponed(v)?;
    let from = literal(planner, v)?;
    let read = planner.read(from.value, layout)?;
    planner.step_f32(
        id,
        &[id],
        (v, layout),
        "dequantize-8",
        vec![read],
        Box::new(move |ctx, x, y| {
            let x = bytes(x[0], from.signed);
            dequantize8(ctx, x, from.quant, bytemuck::cast_slice_mut(y[0]));
        }),
    )
}
