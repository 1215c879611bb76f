//! Weights of a few bits in blocks, which kernels multiply as they are: MatMulNBits, MatMulBnb4,
//! GatherBlockQuantized, and products and rows of dequantised constants.

use std::sync::Arc;

use edgesmith_ir::error::At;
use edgesmith_ir::ops::arith::any;
use edgesmith_ir::ops::gather::place;
use edgesmith_ir::ops::microsoft::block_weights::code_book;
use edgesmith_ir::{DType, Node, NodeId, Result, Tensor, ValueId, infer};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::conv::ConvGeometry;
use edgesmith_kernels::gemm::{Blocked, Codes, Epilogue, Order, PackedBits, gemm_bits, take_rows};

use super::conv::{Tail, constant_bias, tail};
use super::dequantize;
use super::matmul::biased;
use super::operand::Indices;
use crate::plan::{Checked, Kernel, Layout, Packed, Planner};

/// Constant weights `[K, N]` as a graph has them.
struct Weights {
    data: Tensor,
    bits: usize,
    order: Order,
    /// Codes from one row to the next.
    stride: usize,
    high_first: bool,
    signed: bool,
    block: usize,
    scales: Vec<f32>,
    zeros: Vec<f32>,
    size: [usize; 2],
    book: Option<[f32; 16]>,
}

impl Weights {
    fn blocked(&self) -> Blocked<'_> {
        Blocked {
            codes: Codes {
                bytes: self.data.bytes(),
                bits: self.bits,
                order: self.order,
                stride: self.stride,
                high_first: self.high_first,
                signed: self.signed,
            },
            block: self.block,
            scales: &self.scales,
            zeros: &self.zeros,
            order: self.order,
            book: self.book.as_ref(),
        }
    }

    /// Itself, where there are as many codes, scales and zero points as there should be.
    fn checked(self) -> Option<Self> {
        let [k, n] = self.size;
        let rows = if self.order == Order::KN { k } else { n };
        let codes = rows.checked_mul(self.stride)?;
        let scales = k.div_ceil(self.block).checked_mul(n)?;
        let fits = k > 0
            && n > 0
            && self.data.bytes().len() == codes.checked_mul(self.bits)?.div_ceil(8)
            && self.scales.len() == scales
            && (self.zeros.len() == 1 || self.zeros.len() == scales);
        fits.then_some(self)
    }
}

/// A positive INT attribute.
fn positive(node: &Node, name: &str, default: Option<i64>) -> Option<usize> {
    let value = node.int(name).or(default)?;
    usize::try_from(value).ok().filter(|&v| v > 0)
}

/// The zero points of rows of `blocks` blocks: numbers, or codes of `bits` bits in rows of whole
/// bytes.
fn zeros_of_rows(t: &Tensor, rows: usize, blocks: usize, bits: usize) -> Option<Vec<f32>> {
    if t.dtype().is_float() {
        return Some(t.to_f32().ok()?.into_owned());
    }
    let row = blocks.checked_mul(bits)?.div_ceil(8);
    if t.dtype() != DType::U8 || t.bytes().len() != rows.checked_mul(row)? {
        return None;
    }
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    let code = |row: &[u8], i: usize| f32::from(row[i * bits / 8] >> (i * bits % 8) & mask);
    let rows = t.bytes().chunks_exact(row.max(1));
    Some(
        rows.flat_map(|row| (0..blocks).map(move |i| code(row, i)))
            .collect(),
    )
}

impl Weights {
    /// Those of a MatMulNBits.
    fn of_n_bits(planner: &Planner, node: &Node) -> Option<Self> {
        let size = [positive(node, "K", None)?, positive(node, "N", None)?];
        let block = positive(node, "block_size", None)?;
        let bits = positive(node, "bits", Some(4)).filter(|b| matches!(b, 2 | 4 | 8))?;
        let plain = node.int("weight_prepacked").unwrap_or(0) == 0 && node.input(4).is_none();
        if !plain || !block.checked_mul(bits)?.is_multiple_of(8) {
            return None;
        }
        let blocks = size[0].div_ceil(block);
        let data = planner.constant(node.input(1)?)?;
        let zeros = match node.input(3) {
            Some(z) => zeros_of_rows(planner.constant(z)?, size[1], blocks, bits)?,
            None => vec![(1u32 << (bits - 1)) as f32],
        };
        Self {
            data: data.clone(),
            bits,
            order: Order::NK,
            stride: blocks.checked_mul(block)?,
            high_first: false,
            signed: false,
            block,
            scales: planner.floats(node.input(2)?)?,
            zeros,
            size,
            book: None,
        }
        .checked()
        .filter(|_| data.dtype() == DType::U8)
    }

    /// Those of a MatMulBnb4 whose blocks lie within rows.
    fn of_bnb4(planner: &Planner, node: &Node) -> Option<Self> {
        let size = [positive(node, "K", None)?, positive(node, "N", None)?];
        let block = positive(node, "block_size", None)?;
        let normal = match node.int("quant_type")? {
            0 => false,
            1 => true,
            _ => return None,
        };
        if node.int("transB").unwrap_or(1) == 0 || !size[0].is_multiple_of(block) {
            return None;
        }
        let data = planner.constant(node.input(1)?)?;
        Self {
            data: data.clone(),
            bits: 4,
            order: Order::NK,
            stride: size[0],
            high_first: true,
            signed: false,
            block,
            scales: planner.floats(node.input(2)?)?,
            zeros: vec![0.0],
            size,
            book: Some(code_book(normal)),
        }
        .checked()
        .filter(|_| data.dtype() == DType::U8)
    }

    /// Those of a GatherBlockQuantized of rows: K is the length of a row, N their number.
    fn of_table(planner: &Planner, node: &Node) -> Option<Self> {
        let data = planner.constant(node.input(0)?)?;
        let &[rows, bytes] = data.dims() else {
            return None;
        };
        let along =
            |name: &str, default: i64| infer::axis(node.int(name).unwrap_or(default), 2).ok();
        if along("gather_axis", 0)? != 0 || along("quantize_axis", 1)? != 1 {
            return None;
        }
        let (bits, signed) = match data.dtype() {
            DType::U8 => (positive(node, "bits", Some(4))?, false),
            other => integer_bits(other).filter(|(bits, _)| *bits < 8)?,
        };
        if !matches!(bits, 2 | 4 | 8) {
            return None;
        }
        let packed = data.dtype() == DType::U8;
        let columns = if packed {
            bytes.checked_mul(8 / bits)?
        } else {
            bytes
        };
        let block = positive(node, "block_size", Some(128))?;
        let blocks = columns.div_ceil(block);
        let scales = planner.constant(node.input(2)?)?;
        if scales.dims() != [rows, blocks] {
            return None;
        }
        let zeros = match node.input(3) {
            Some(z) if packed => zeros_of_rows(planner.constant(z)?, rows, blocks, bits)?,
            Some(z) => numbers(planner.constant(z)?)?,
            None if packed => vec![(1u32 << (bits - 1)) as f32],
            None => vec![0.0],
        };
        Self {
            data: data.clone(),
            bits,
            order: Order::NK,
            stride: columns,
            high_first: false,
            signed,
            block,
            scales: scales.to_f32().ok()?.into_owned(),
            zeros,
            size: [columns, rows],
            book: None,
        }
        .checked()
    }

    /// The constant of a few bits, or of bytes in blocks, that is dequantised to `v`: blocks lie
    /// along K, or each column has a scale, or all have one. Axes after the second have one
    /// element.
    fn of_dequantized(planner: &Planner, v: ValueId, order: Order) -> Option<Self> {
        let graph = planner.graph();
        let node = graph.node(graph.producer_is(v, "DequantizeLinear")?);
        if !keeps_few_bits(graph.constant(node.input(0)?)?, node) {
            return None;
        }
        let data = planner.constant(node.input(0)?)?;
        let [rows, columns, rest @ ..] = data.dims() else {
            return None;
        };
        if rest.iter().any(|&d| d != 1) {
            return None;
        }
        let (bits, signed) = integer_bits(data.dtype())?;
        let size = match order {
            Order::KN => [*rows, *columns],
            Order::NK => [*columns, *rows],
        };
        let (k_axis, n_axis) = if order == Order::KN { (0, 1) } else { (1, 0) };
        let axis = infer::axis(node.int("axis").unwrap_or(1), data.rank()).ok()?;
        let block = usize::try_from(node.int("block_size").unwrap_or(0)).ok()?;
        let scales = planner.constant(node.input(1)?)?;
        let mut all = scales.to_f32().ok()?.into_owned();
        let mut zeros = match node.input(2) {
            Some(z) => numbers(planner.constant(z)?)?,
            None => vec![0.0],
        };
        if zeros.len() != 1 && zeros.len() != all.len() {
            return None;
        }
        let block = match block {
            0 if all.len() == 1 && scales.rank() <= 1 => {
                all = vec![all[0]; size[1]];
                size[0]
            }
            0 if axis == n_axis && scales.dims() == [size[1]] => size[0],
            0 => return None,
            _ if axis != k_axis || scales.dims() != in_blocks(data.dims(), axis, block) => {
                return None;
            }
            block => block,
        };
        if zeros.len() > 1 && zeros.iter().all(|z| *z == zeros[0]) {
            zeros.truncate(1);
        }
        Self {
            data: data.clone(),
            bits,
            order,
            stride: *columns,
            high_first: false,
            signed,
            block,
            scales: all,
            zeros,
            size,
            book: None,
        }
        .checked()
    }
}

fn in_blocks(dims: &[usize], axis: usize, block: usize) -> Vec<usize> {
    let mut dims = dims.to_vec();
    dims[axis] = dims[axis].div_ceil(block);
    dims
}

fn numbers(t: &Tensor) -> Option<Vec<f32>> {
    Some(any(t).ok()?.into_iter().map(|x| x as f32).collect())
}

/// Bits of an integer type of at most 8, and whether it is signed.
fn integer_bits(dtype: DType) -> Option<(usize, bool)> {
    match dtype {
        DType::U2 => Some((2, false)),
        DType::I2 => Some((2, true)),
        DType::U4 => Some((4, false)),
        DType::I4 => Some((4, true)),
        DType::U8 => Some((8, false)),
        DType::I8 => Some((8, true)),
        _ => None,
    }
}

/// Whether a DequantizeLinear of this constant keeps weights that kernels read as they are: of
/// fewer bits than bytes have, or bytes in blocks.
pub(crate) fn keeps_few_bits(data: &Tensor, node: &Node) -> bool {
    let few = integer_bits(data.dtype());
    few.is_some_and(|(bits, _)| bits < 8 || node.int("block_size").unwrap_or(0) != 0)
}

/// A product of rows of `a` with weights.
struct Rows {
    a: ValueId,
    y: ValueId,
    m: usize,
    bias: Option<Vec<f32>>,
    then: Activation,
    layout: Layout,
    /// Rows of A may be rounded to bytes by block.
    bytes: bool,
}

/// Adds the step of a product, with what can be fused behind it.
fn product(planner: &mut Planner, id: NodeId, mut rows: Rows, weights: &Weights) -> Option<()> {
    let ([k, n], m) = (weights.size, rows.m);
    planner.float_dims(rows.y)?;
    if m == 0 || rows.bias.as_ref().is_some_and(|b| b.len() != n) {
        return None;
    }
    let mut nodes = Vec::new();
    if rows.bias.is_none()
        && matches!((rows.layout, rows.then), (Layout::Plain, Activation::None))
        && let Some((add, bias, sum, f)) = biased(planner, rows.y, n)
        && planner.constant(bias).is_some()
    {
        rows.bias = Some(planner.float_weights(bias)?.into_owned());
        (rows.y, rows.then) = (sum, f);
        nodes.push(add);
    }
    let packed = planner.packed(id, |ctx| {
        let packed = PackedBits::new(ctx, &weights.blocked(), [k, n], rows.bytes);
        Some(Packed::Bits(Arc::new(packed)))
    })?;
    let Packed::Bits(packed) = packed else {
        return None;
    };
    let tail = match rows.then {
        Activation::None => tail(planner, id, rows.y, true),
        activation => Tail {
            nodes: vec![id],
            residual: None,
            activation,
            result: rows.y,
        },
    };
    nodes.extend(&tail.nodes);
    let mut reads = vec![planner.read_f32(rows.a, rows.layout)?];
    if let Some(r) = tail.residual {
        reads.push(planner.read_f32(r, rows.layout)?);
    }
    let (kernel, bias) = (packed.kernel_name(), rows.bias);
    let work: Kernel = Box::new(move |ctx, x, y| {
        let residual = x.get(1).map(|r| bytemuck::cast_slice::<_, f32>(r).into());
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            residual,
            activation: tail.activation,
        };
        let (a, c) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        gemm_bits(ctx, m, a, k, &packed, c, n, &epilogue);
    });
    let to = (tail.result, rows.layout);
    planner.step_f32(id, &nodes, to, kernel, reads, work)
}

/// The rows of the first input of node `id`, which end in `k` features.
fn rows_of(planner: &Planner, node: &Node, k: usize) -> Option<Rows> {
    let (a, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(a)?;
    let (last, rest) = dims.split_last()?;
    (*last == k).then(|| Rows {
        a,
        y,
        m: rest.iter().product(),
        bias: None,
        then: Activation::None,
        layout: Layout::Plain,
        bytes: false,
    })
}

/// The activations are rounded to bytes at this `accuracy_level` of MatMulNBits.
const BYTES: i64 = 4;

/// MatMulNBits.
pub(crate) fn n_bits(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let weights = Weights::of_n_bits(planner, node)?;
    let mut rows = rows_of(planner, node, weights.size[0])?;
    rows.bytes = node.int("accuracy_level") == Some(BYTES);
    if let Some(bias) = node.input(5) {
        rows.bias = Some(planner.floats(bias)?);
    }
    product(planner, id, rows, &weights)
}

/// MatMulBnb4.
pub(crate) fn bnb4(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let weights = Weights::of_bnb4(planner, node)?;
    let rows = rows_of(planner, node, weights.size[0])?;
    product(planner, id, rows, &weights)
}

/// A product of rows of the first input of node `id` with weights of a few bits that are
/// dequantised to its second.
pub(crate) fn dequantized(
    planner: &mut Planner,
    id: NodeId,
    bias: Option<ValueId>,
    order: Order,
    then: Activation,
) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b) = (node.input(0)?, node.input(1)?);
    let axis = usize::from(order == Order::KN);
    if dequantize::source(planner, a).is_some() && dequantize::weights(planner, b, axis).is_some() {
        // Both are integers: their product is one of bytes.
        return None;
    }
    let weights = Weights::of_dequantized(planner, b, order)?;
    let mut rows = rows_of(planner, node, weights.size[0])?;
    rows.then = then;
    if let Some(bias) = bias {
        rows.bias = Some(planner.float_weights(bias)?.into_owned());
    }
    product(planner, id, rows, &weights)
}

/// A convolution of single pixels with weights of a few bits.
pub(crate) fn conv(
    planner: &mut Planner,
    id: NodeId,
    g: &ConvGeometry,
    batch: usize,
) -> Option<()> {
    let node = planner.graph().node(id);
    let pixels = (g.kernel, g.stride, g.pad_begin, g.pad_end) == ([1; 2], [1; 2], [0; 2], [0; 2]);
    if !pixels || g.groups != 1 {
        return None;
    }
    let weights = Weights::of_dequantized(planner, node.input(1)?, Order::NK)?;
    let rows = Rows {
        a: node.input(0)?,
        y: node.output(0)?,
        m: batch * g.input[0] * g.input[1],
        bias: constant_bias(planner, id, g.channels_out)?,
        then: Activation::None,
        layout: Layout::Last,
        bytes: false,
    };
    (weights.size == [g.channels_in, g.channels_out])
        .then(|| product(planner, id, rows, &weights))
        .flatten()
}

/// GatherBlockQuantized of rows.
pub(crate) fn gather(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let table = Weights::of_table(planner, node)?;
    let ([k, n], y) = (table.size, node.output(0)?);
    planner.float_dims(y)?;
    let mut reads = Vec::new();
    let indices = Indices::of(planner, node.input(1)?, &mut reads)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let place = |i| place(i, n).ok();
        let places: Vec<_> = indices.get(x).into_iter().map(place).collect();
        let y = bytemuck::cast_slice_mut(y[0]);
        take_rows(ctx, &table.blocked(), [n, k], &places, y);
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), ROWS, reads, work)
}

/// The kernel of rows of a table.
const ROWS: &str = "rows of blocks";

/// Gather of rows of a table of a few bits, which are dequantised when they are gathered.
pub(crate) fn gather_dequantized(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let table = Weights::of_dequantized(planner, node.input(0)?, Order::NK)?;
    let ([k, n], y) = (table.size, node.output(0)?);
    if node.int("axis").unwrap_or(0) != 0 || planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let mut reads = Vec::new();
    let indices = Indices::of(planner, node.input(1)?, &mut reads)?;
    let write = planner.write(y, Layout::Plain)?;
    let name = node.place();
    let work: Checked = Box::new(move |ctx, x, y| {
        let place = |i| place(i, n).map(Some);
        let places: Result<Vec<_>> = indices.get(x).into_iter().map(place).collect();
        let places = places.at(|| name.clone())?;
        let y = bytemuck::cast_slice_mut(y[0]);
        take_rows(ctx, &table.blocked(), [n, k], &places, y);
        Ok(())
    });
    planner.checked_plain_step(id, ROWS, reads, (y, write), work);
    Some(())
}
