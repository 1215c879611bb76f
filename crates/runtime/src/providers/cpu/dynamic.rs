//! Products of bytes whose scale and zero point are found at run time: DynamicQuantizeLinear,
//! MatMulInteger, ConvInteger, and MatMulIntegerToFloat and DynamicQuantizeMatMul of
//! `com.microsoft`.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::gemm::{Input8, Order, Output8};
use edgesmith_kernels::quantize::quantize8_dynamically;

use super::activations::{self, present_layout};
use super::binary;
use super::conv::{Integer, byte_conv, geometry};
use super::dequantize::{Weights, bytes};
use super::matmul::byte_product;
use super::operand::{Indices, Operand};
use super::qlinear::products;
use crate::plan::{Layout, Planner, SlotId, Spec};

pub(crate) fn quantize(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let x = node.input(0)?;
    let made = [node.output(0)?, node.output(1)?, node.output(2)?];
    let layout = present_layout(planner, x);
    if planner.typed(x)?.0 != DType::F32 {
        return None;
    }
    let read = planner.read(x, layout)?;
    let [y, scale, zero] = made;
    let writes = vec![
        planner.write(y, layout)?,
        planner.write(scale, Layout::Plain)?,
        planner.write(zero, Layout::Plain)?,
    ];
    let spec = Spec {
        kernel: "quantize-8-dynamic",
        integer: false,
        reads: vec![read],
        writes,
        makes: vec![(y, layout), (scale, Layout::Plain), (zero, Layout::Plain)],
        work: Box::new(|ctx, x, y| {
            let [y, scale, zero] = y else { return };
            let found = quantize8_dynamically(ctx, bytemuck::cast_slice(x[0]), y);
            scale.copy_from_slice(&found.scale.to_ne_bytes());
            zero.fill(found.zero as u8);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// A zero point of the activations.
enum Zero {
    Constant(i32),
    /// In the slot read at this place; signed or not.
    Read(usize, bool),
}

impl Zero {
    fn of(planner: &mut Planner, v: Option<ValueId>, reads: &mut Vec<SlotId>) -> Option<Self> {
        let Some(v) = v else {
            return Some(Self::Constant(0));
        };
        let (dtype, dims) = planner.typed(v)?;
        let is_signed = signed(dtype)?;
        if dims.iter().product::<usize>() != 1 {
            return None;
        }
        if let Some(t) = planner.constant(v) {
            let zero = *t.to_i64().ok()?.first()?;
            return i32::try_from(zero).ok().map(Self::Constant);
        }
        reads.push(planner.read(v, Layout::Plain)?);
        Some(Self::Read(reads.len() - 1, is_signed))
    }

    fn get(&self, x: &[&[u8]]) -> i32 {
        match *self {
            Self::Constant(zero) => zero,
            Self::Read(at, true) => i32::from(x[at][0] as i8),
            Self::Read(at, false) => i32::from(x[at][0]),
        }
    }
}

/// Constant weights of bytes with one zero point, or one for each column.
fn weights(
    planner: &Planner,
    w: ValueId,
    zero: Option<ValueId>,
    columns: usize,
) -> Option<Weights> {
    let data = planner.constant(w)?;
    let signed = signed(data.dtype())?;
    let zeros = match zero {
        Some(z) => planner.constant(z)?.to_i64().ok()?,
        None => Vec::new(),
    };
    if zeros.len() > 1 && zeros.len() != columns {
        return None;
    }
    let zeros: Option<Vec<i32>> = zeros.into_iter().map(|z| i32::try_from(z).ok()).collect();
    Some(Weights {
        data: data.bytes().to_vec(),
        signed,
        scales: Vec::new(),
        zeros: zeros
            .filter(|z| z.iter().any(|&z| z != 0))
            .unwrap_or_default(),
    })
}

/// Whether bytes are signed; `None` for other types.
pub(crate) fn signed(dtype: DType) -> Option<bool> {
    match dtype {
        DType::I8 => Some(true),
        DType::U8 => Some(false),
        _ => None,
    }
}

/// A product of bytes with constant weights.
struct Product {
    columns: usize,
    with: Integer,
}

impl Product {
    /// Rows of `x` times the matrix `b`, `[K, N]`.
    fn of_matrix(
        planner: &mut Planner,
        id: NodeId,
        (a, b): (ValueId, ValueId),
        zero: Option<ValueId>,
    ) -> Option<Self> {
        let dims = planner.typed(a)?.1;
        let (&k, rows) = dims.split_last()?;
        let m: usize = rows.iter().product();
        let &[depth, n] = planner.typed(b)?.1.as_slice() else {
            return None;
        };
        if rows.is_empty() || m * k * n == 0 || depth != k {
            return None;
        }
        let weights = weights(planner, b, zero, n)?;
        let with = byte_product(planner, id, &weights, [m, k, n], Order::KN)?;
        Some(Self { columns: n, with })
    }

    fn of_images(
        planner: &mut Planner,
        id: NodeId,
        (x, w): (ValueId, ValueId),
        zero: Option<ValueId>,
    ) -> Option<Self> {
        let (geometry, batch) = geometry(planner, id, x, w)?;
        let weights = weights(planner, w, zero, geometry.channels_out)?;
        let with = byte_conv(planner, id, &weights, geometry, batch)?;
        Some(Self {
            columns: geometry.channels_out,
            with,
        })
    }
}

/// How sums become floats, and the nodes that say so.
struct Scaled {
    nodes: Vec<NodeId>,
    /// Added to the sums.
    start: Option<Indices>,
    /// Each one number, or one for each column; their product is the scale.
    scales: Vec<Operand>,
    bias: Option<Vec<f32>>,
    activation: Activation,
    result: ValueId,
}

impl Scaled {
    /// The scale of each column.
    fn columns(&self, x: &[&[u8]], columns: usize) -> Vec<f32> {
        let mut scale = vec![1f32; columns];
        for by in &self.scales {
            let by = by.get(x);
            for (i, s) in scale.iter_mut().enumerate() {
                *s *= by[if by.len() == 1 { 0 } else { i }];
            }
        }
        scale
    }
}

/// One number, or one for each column of a result of `dims`, whose columns are at `axis`.
fn by_column(planner: &Planner, v: ValueId, dims: &[usize], axis: usize) -> Option<()> {
    let own = planner.float_dims(v)?;
    let fits = own.len() <= dims.len()
        && (own.iter().product::<usize>() == 1 || binary::along(&own, dims, axis));
    fits.then_some(())
}

/// `Mul(Cast(y), scale)`, with an Add of an integer for each column before it, an Add of constants
/// and a function after it, where nothing else reads what lies between.
fn scaled(
    planner: &mut Planner,
    y: ValueId,
    axis: usize,
    reads: &mut Vec<SlotId>,
) -> Option<Scaled> {
    let dims = planner.typed(y)?.1;
    let (mut nodes, mut start) = (Vec::new(), None);
    let mut cast = planner.only_reader(y)?;
    if let Some((row, sum)) = other(planner, cast, "Add", y) {
        if !binary::along(&planner.typed(row)?.1, &dims, axis) {
            return None;
        }
        start = Some(Indices::of(planner, row, reads)?);
        nodes.push(cast);
        cast = planner.only_reader(sum)?;
    }
    let node = planner.graph().node(cast);
    let floats = node.output(0)?;
    if !node.is("Cast") || planner.typed(floats)?.0 != DType::F32 {
        return None;
    }
    let mul = planner.only_reader(floats)?;
    let (scale, mut result) = other(planner, mul, "Mul", floats)?;
    by_column(planner, scale, &dims, axis)?;
    nodes.extend([cast, mul]);
    if planner.constant(scale).is_none() && !planner.is_ready(scale) {
        early(planner, scale)?;
    }
    let scales = vec![Operand::of(planner, scale, reads)?];
    let mut bias = None;
    if let Some(add) = planner.only_reader(result)
        && let Some((row, sum)) = other(planner, add, "Add", result)
        && by_column(planner, row, &dims, axis).is_some()
        && let Some(row) = planner.floats(row)
    {
        nodes.push(add);
        result = sum;
        bias = Some(match row[..] {
            [one] => vec![one; dims[axis]],
            _ => row,
        });
    }
    let mut activation = Activation::None;
    if let Some((node, f, y)) = activations::after(planner, result) {
        nodes.push(node);
        (activation, result) = (f, y);
    }
    Some(Scaled {
        nodes,
        start,
        scales,
        bias,
        activation,
        result,
    })
}

/// The other operand of node `id`, an `op` of `v` and it, and the result.
fn other(planner: &Planner, id: NodeId, op: &str, v: ValueId) -> Option<(ValueId, ValueId)> {
    let node = planner.graph().node(id);
    let other = match (node.input(0)?, node.input(1)?) {
        (a, b) if a == v && b != v => b,
        (a, b) if b == v && a != v => a,
        _ => return None,
    };
    let plain = node.is(op) && node.int("axis").is_none();
    plain.then_some((other, node.output(0)?))
}

/// Plans the product of scales that makes `v` now, where its factors are there.
fn early(planner: &mut Planner, v: ValueId) -> Option<()> {
    let id = planner.pending(v)?;
    let node = planner.graph().node(id);
    let mut inputs = node.inputs().iter().flatten();
    let ready = inputs.all(|&v| planner.constant(v).is_some() || planner.is_ready(v));
    if !node.is("Mul") || !ready {
        return None;
    }
    binary::plan(planner, id)
}

pub(crate) fn matmul(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let operands = (node.input(0)?, node.input(1)?);
    let (zero, own) = (node.input(2), node.input(3));
    let product = Product::of_matrix(planner, id, operands, own)?;
    sums(planner, id, operands.0, zero, product)
}

pub(crate) fn conv(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let operands = (node.input(0)?, node.input(1)?);
    let (zero, own) = (node.input(2), node.input(3));
    let product = Product::of_images(planner, id, operands, own)?;
    sums(planner, id, operands.0, zero, product)
}

/// The step of a node whose result is the sums, as floats where scaling them is all that follows.
fn sums(
    planner: &mut Planner,
    id: NodeId,
    x: ValueId,
    zero: Option<ValueId>,
    product: Product,
) -> Option<()> {
    let y = planner.graph().node(id).output(0)?;
    let is_signed = signed(planner.typed(x)?.0)?;
    let axis = match product.with.layout {
        Layout::Last => 1,
        Layout::Plain => planner.typed(y)?.1.len() - 1,
    };
    let mut reads = vec![planner.read(x, product.with.layout)?];
    let zero = Zero::of(planner, zero, &mut reads)?;
    if let Some(scaled) = scaled(planner, y, axis, &mut reads) {
        return floats(planner, id, reads, (is_signed, zero), product, scaled);
    }
    let Integer {
        layout,
        kernel,
        told,
        run,
        ..
    } = product.with;
    let write = planner.write(y, layout)?;
    let spec = Spec {
        kernel,
        integer: true,
        reads,
        writes: vec![write],
        makes: vec![(y, layout)],
        work: Box::new(move |ctx, x, y| {
            let input = Input8 {
                data: bytes(x[0], is_signed),
                zero: zero.get(x),
            };
            run(
                ctx,
                None,
                input,
                None,
                Output8::I32(bytemuck::cast_slice_mut(y[0])),
            );
        }),
    };
    planner.step(id, &[id], spec);
    planner.tell(&[id], told);
    Some(())
}

/// The step of node `id` whose result is scaled sums. The bytes are the first of `reads`.
fn floats(
    planner: &mut Planner,
    id: NodeId,
    reads: Vec<SlotId>,
    (is_signed, zero): (bool, Zero),
    product: Product,
    scaled: Scaled,
) -> Option<()> {
    let nodes: Vec<NodeId> = [id]
        .into_iter()
        .chain(scaled.nodes.iter().copied())
        .collect();
    let (to, kernel) = ((scaled.result, product.with.layout), product.with.kernel);
    let told = product.with.told;
    let work = Box::new(move |ctx: &_, x: &[&[u8]], y: &mut [&mut [u8]]| {
        let input = Input8 {
            data: bytes(x[0], is_signed),
            zero: zero.get(x),
        };
        let scale = scaled.columns(x, product.columns);
        let start = scaled.start.as_ref().map(|s| s.get(x));
        let start: Option<Vec<i32>> = start.map(|s| s.iter().map(|&b| b as i32).collect());
        let to = Output8::F32 {
            y: bytemuck::cast_slice_mut(y[0]),
            scale: &scale,
            bias: scaled.bias.as_deref(),
            activation: scaled.activation,
        };
        (product.with.run)(ctx, None, input, start.as_deref(), to);
    });
    planner.step_f32(id, &nodes, to, kernel, reads, work)?;
    planner.tell(&nodes, told);
    planner.mark_integer(&nodes);
    planner.mark_step_integer();
    Some(())
}

/// The scales at `at` and the bias of a node that scales its sums itself.
fn own_scale(
    planner: &mut Planner,
    y: ValueId,
    (at, bias): (&[Option<ValueId>], Option<ValueId>),
    reads: &mut Vec<SlotId>,
) -> Option<Scaled> {
    let dims = planner.typed(y)?.1;
    let axis = dims.len().checked_sub(1)?;
    let mut scales = Vec::new();
    for scale in at {
        by_column(planner, (*scale)?, &dims, axis)?;
        scales.push(Operand::of(planner, (*scale)?, reads)?);
    }
    let bias = match bias {
        Some(b) => Some(planner.floats(b)?),
        None => None,
    };
    if bias.as_ref().is_some_and(|b| b.len() != dims[axis]) {
        return None;
    }
    Some(Scaled {
        nodes: Vec::new(),
        start: None,
        scales,
        bias,
        activation: Activation::None,
        result: y,
    })
}

/// MatMulIntegerToFloat of one scale for all rows.
pub(crate) fn to_floats(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let one = |v: ValueId| Some(planner.typed(v)?.1.iter().product::<usize>() == 1);
    if planner.typed(y)?.0 != DType::F32 || !one(node.input(2)?)? {
        return None;
    }
    if planner.constant(b).is_none() {
        return products::to_floats(planner, id);
    }
    let is_signed = signed(planner.typed(a)?.0)?;
    let product = Product::of_matrix(planner, id, (a, b), node.input(5))?;
    let mut reads = vec![planner.read(a, Layout::Plain)?];
    let zero = Zero::of(planner, node.input(4), &mut reads)?;
    let scales = [node.input(2), node.input(3)];
    let scaled = own_scale(planner, y, (&scales, node.input(6)), &mut reads)?;
    floats(planner, id, reads, (is_signed, zero), product, scaled)
}

/// DynamicQuantizeMatMul: the bytes of the first operand are the step's own.
pub(crate) fn from_floats(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    if planner.typed(a)?.0 != DType::F32 {
        return None;
    }
    let product = Product::of_matrix(planner, id, (a, b), node.input(3))?;
    let mut reads = vec![planner.read(a, Layout::Plain)?];
    let scaled = own_scale(planner, y, (&[node.input(2)], node.input(4)), &mut reads)?;
    let count: usize = planner.typed(a)?.1.iter().product();
    let (layout, kernel) = (product.with.layout, product.with.kernel);
    let writes = vec![planner.write(y, layout)?, planner.slot(count)];
    let spec = Spec {
        kernel,
        integer: true,
        reads,
        writes,
        makes: vec![(y, layout)],
        work: Box::new(move |ctx, x, y| {
            let [y, own] = y else { return };
            let found = quantize8_dynamically(ctx, bytemuck::cast_slice(x[0]), own);
            let mut scale = scaled.columns(x, product.columns);
            scale.iter_mut().for_each(|s| *s *= found.scale);
            let to = Output8::F32 {
                y: bytemuck::cast_slice_mut(y),
                scale: &scale,
                bias: scaled.bias.as_deref(),
                activation: Activation::None,
            };
            let input = Input8 {
                data: bytes(own, false),
                zero: found.zero,
            };
            (product.with.run)(ctx, None, input, None, to);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}
