//! Floats of 8 bits: activations with one scale, and constants with a scale a channel, which products
//! read as floats and of which Gather takes the rows that it needs.

use edgesmith_ir::error::At;
use edgesmith_ir::ops::gather::place;
use edgesmith_ir::{DType, Graph, Node, NodeId, Result, Tensor, infer, packed};
use edgesmith_kernels::float8::{Float8, dequantize_float8, quantize_float8};

use super::activations::present_layout;
use super::operand::Indices;
use crate::plan::{Checked, Layout, Planner, Spec};

/// True for floats of 8 bits.
pub(crate) fn is_float8(dtype: DType) -> bool {
    use DType as D;
    matches!(
        dtype,
        D::F8E4M3FN | D::F8E4M3FNUZ | D::F8E5M2 | D::F8E5M2FNUZ
    )
}

/// The number of each code, times a scale.
fn numbers(dtype: DType, scale: f32) -> Option<[f32; 256]> {
    let all: Vec<u8> = (0..=255).collect();
    let codes = Tensor::from_bytes(dtype, &[256], all.into()).ok()?;
    let numbers = packed::decode_floats(&codes).ok()?;
    Some(std::array::from_fn(|i| numbers[i] * scale))
}

/// True where there are as many zero points as scales, and all are zero.
fn is_zero(points: &Tensor, scales: &Tensor) -> bool {
    points.count() == scales.count() && points.bytes().iter().all(|&code| code == 0)
}

/// Constant codes with f32 scales: one, or one for each index of an axis.
pub(crate) struct Codes {
    data: Tensor,
    scales: Vec<f32>,
    axis: usize,
}

impl Codes {
    /// Those that a DequantizeLinear reads, where its zero points are zero.
    pub fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let data = graph.constant(node.input(0)?)?;
        let scales = graph.constant(node.input(1)?)?;
        let zero = match node.input(2) {
            Some(z) => is_zero(graph.constant(z)?, scales),
            None => true,
        };
        let plain = |name| node.int(name).unwrap_or(0) == 0;
        if !is_float8(data.dtype()) || scales.dtype() != DType::F32 || !zero {
            return None;
        }
        if !plain("block_size") || !plain("output_dtype") {
            return None;
        }
        let axis = match scales.count() {
            1 => 0,
            _ => infer::axis(node.int("axis").unwrap_or(1), data.rank()).ok()?,
        };
        let fits = scales.count() == 1 || scales.dims() == [data.dims()[axis]];
        fits.then(|| Self {
            data: data.clone(),
            scales: scales
                .to_f32()
                .map(std::borrow::Cow::into_owned)
                .unwrap_or_default(),
            axis,
        })
    }

    /// The numbers.
    pub fn tensor(&self) -> Option<Tensor> {
        let numbers = numbers(self.data.dtype(), 1.0)?;
        let inner: usize = self.data.dims()[self.axis..].iter().skip(1).product();
        let channels = self.scales.len();
        let codes = self.data.bytes().chunks(inner.max(1)).enumerate();
        let made = codes.flat_map(|(i, codes)| {
            let scale = self.scales[i % channels];
            codes.iter().map(move |&c| numbers[usize::from(c)] * scale)
        });
        Tensor::from_vec(self.data.dims(), made.collect()).ok()
    }

    /// True where rows along the first axis have one scale each.
    fn has_rows(&self) -> bool {
        self.data.rank() > 0 && (self.scales.len() == 1 || self.axis == 0)
    }
}

/// Whether a DequantizeLinear of constant codes is left to the nodes that read it.
pub(crate) fn keeps(graph: &Graph, node: &Node) -> bool {
    let (Some(codes), Some(y)) = (Codes::of(graph, node), node.output(0)) else {
        return false;
    };
    let reads = |&(id, i): &(NodeId, usize)| {
        let node = graph.node(id);
        match node.op.as_str() {
            "Conv" | "Gemm" | "MatMul" => node.domain.is_empty() && i == 1,
            "Gather" => i == 0 && node.int("axis").unwrap_or(0) == 0 && codes.has_rows(),
            _ => false,
        }
    };
    !graph.is_output(y) && graph.value(y).consumers().iter().all(reads)
}

/// The scale of a QuantizeLinear or DequantizeLinear that has one, and zero points that are zero.
fn scale(planner: &Planner, node: &Node) -> Option<f32> {
    let scale = planner.constant(node.input(1)?)?;
    let zero = match node.input(2) {
        Some(z) => is_zero(planner.constant(z)?, scale),
        None => true,
    };
    let plain = ["block_size", "precision"]
        .iter()
        .all(|name| node.int(name).unwrap_or(0) == 0);
    let one = scale.dtype() == DType::F32 && scale.count() == 1;
    (one && zero && plain).then(|| scale.to_f32().ok()?.first().copied())?
}

/// QuantizeLinear with one scale.
pub(crate) fn quantize(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let to = match planner.typed(y)?.0 {
        DType::F8E4M3FN => Float8::E4m3fn,
        DType::F8E5M2 => Float8::E5m2,
        _ => return None,
    };
    let scale = scale(planner, node)?;
    if planner.typed(x)?.0 != DType::F32 || node.int("saturate") == Some(0) {
        return None;
    }
    let layout = present_layout(planner, x);
    let read = planner.read_f32(x, layout)?;
    let write = planner.write(y, layout)?;
    let spec = Spec {
        kernel: "quantize-float8",
        integer: false,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(y, layout)],
        work: Box::new(move |ctx, x, y| {
            quantize_float8(ctx, bytemuck::cast_slice(x[0]), scale, to, y[0]);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// DequantizeLinear with one scale.
pub(crate) fn dequantize(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let scale = scale(planner, node)?;
    if planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let numbers = numbers(planner.typed(x)?.0, scale)?;
    let layout = present_layout(planner, x);
    let read = planner.read(x, layout)?;
    planner.step_f32(
        id,
        &[id],
        (y, layout),
        "dequantize-float8",
        vec![read],
        Box::new(move |ctx, x, y| {
            dequantize_float8(ctx, x[0], &numbers, bytemuck::cast_slice_mut(y[0]));
        }),
    )
}

/// Gather of rows of constant codes, which become floats when they are gathered.
pub(crate) fn gather(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (table, y) = (node.input(0)?, node.output(0)?);
    let from = planner.graph().producer_is(table, "DequantizeLinear")?;
    let codes = Codes::of(planner.graph(), planner.graph().node(from))?;
    let rows = *codes.data.dims().first()?;
    let k: usize = codes.data.dims()[1..].iter().product();
    let is_rows = codes.has_rows() && node.int("axis").unwrap_or(0) == 0 && k > 0;
    if !is_rows || planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let numbers = numbers(codes.data.dtype(), 1.0)?;
    let mut reads = Vec::new();
    let indices = Indices::of(planner, node.input(1)?, &mut reads)?;
    let write = planner.write(y, Layout::Plain)?;
    let name = node.place();
    let work: Checked = Box::new(move |_, x, y| {
        let y: &mut [f32] = bytemuck::cast_slice_mut(y[0]);
        for (index, y) in indices.get(x).into_iter().zip(y.chunks_exact_mut(k)) {
            let row: Result<usize> = place(index, rows);
            let row = row.at(|| name.clone())?;
            let scale = codes.scales[row % codes.scales.len()];
            let codes = &codes.data.bytes()[row * k..][..k];
            let pairs = codes.iter().zip(y);
            pairs.for_each(|(&c, y)| *y = numbers[usize::from(c)] * scale);
        }
        Ok(())
    });
    planner.checked_plain_step(id, "rows of float8", reads, (y, write), work);
    Some(())
}
