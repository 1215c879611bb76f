//! LSTM and GRU with constant weights and the activations that ONNX names first, and
//! DynamicQuantizeLSTM of `com.microsoft`.

use std::sync::Arc;

use edgesmith_ir::{DType, Node, NodeId, Tensor, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::gemm::{Order, PackedI8};
use edgesmith_kernels::recurrent::{Cell, Outputs, Recurrent, Sizes, WeightsI8};

use super::dequantize::bytes;
use super::dynamic::signed;
use crate::plan::{Layout, Packed, Planner, Spec};

/// Where the first states come from.
enum Start {
    Zero,
    Constant(Vec<f32>),
    Read(usize),
}

impl Start {
    fn state<'a>(&'a self, reads: &[&'a [u8]]) -> Option<&'a [f32]> {
        match self {
            Self::Zero => None,
            Self::Constant(state) => Some(state),
            Self::Read(i) => Some(bytemuck::cast_slice(reads[*i])),
        }
    }
}

/// Gates of all steps that a kernel keeps at a time, in elements; more is left to evaluation.
const MOST: usize = 1 << 26;

pub(crate) fn lstm(planner: &mut Planner, id: NodeId) -> Option<()> {
    plan(planner, id, Cell::Lstm, &["Sigmoid", "Tanh", "Tanh"])
}

pub(crate) fn gru(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let linear_before_reset = node.int("linear_before_reset").unwrap_or(0) != 0;
    let cell = Cell::Gru {
        linear_before_reset,
    };
    plan(planner, id, cell, &["Sigmoid", "Tanh"])
}

/// An LSTM whose weights are bytes.
pub(crate) fn dynamic_lstm(planner: &mut Planner, id: NodeId) -> Option<()> {
    plan(planner, id, Cell::Lstm, &["Sigmoid", "Tanh", "Tanh"])
}

/// Whether each direction is reverse.
fn directions(node: &Node) -> Option<&'static [bool]> {
    match node.string("direction").unwrap_or("forward") {
        "forward" => Some(&[false]),
        "reverse" => Some(&[true]),
        "bidirectional" => Some(&[false, true]),
        _ => None,
    }
}

/// True where the attributes leave the cell as it is defined.
fn is_plain(node: &Node, functions: &[&str]) -> bool {
    let same = node.strings("activations").is_none_or(|all| {
        let wanted = functions.iter().cycle();
        all.iter()
            .zip(wanted)
            .all(|(a, b)| a.eq_ignore_ascii_case(b))
    });
    let off = |name: &str| node.int(name).unwrap_or(0) == 0;
    let bare = ["clip", "activation_alpha", "activation_beta"];
    same && off("layout") && off("input_forget") && bare.iter().all(|n| node.attribute(n).is_none())
}

fn plan(planner: &mut Planner, id: NodeId, cell: Cell, functions: &[&str]) -> Option<()> {
    let node = planner.graph().node(id);
    let directions = directions(node).filter(|_| is_plain(node, functions))?;
    let (x, r) = (node.input(0)?, node.input(2)?);
    let (dtype, dims) = planner.typed(x)?;
    let &[steps, batch, input] = dims.as_slice() else {
        return None;
    };
    let is_bytes = node.op == "DynamicQuantizeLSTM";
    let hidden = *planner.typed(r)?.1.get(if is_bytes { 1 } else { 2 })?;
    let rows = cell.gates() * hidden;
    let lengths = match node.input(4) {
        Some(v) => planner.constant(v)?.to_i64().ok()?,
        None => Vec::new(),
    };
    let is_whole = lengths.iter().all(|&n| n == steps as i64);
    if dtype != DType::F32 || node.input(7).is_some() || !is_whole || batch * hidden * steps == 0 {
        return None;
    }
    let gates = steps.checked_mul(batch)?.checked_mul(rows)?;
    if gates > MOST || (is_bytes && input == 0) {
        return None;
    }
    let d = directions.len();
    let sizes = Sizes { input, hidden };
    let recurrent = packed(planner, id, cell, sizes, directions)?;
    let mut reads = vec![planner.read(x, Layout::Plain)?];
    let mut starts = [Start::Zero, Start::Zero];
    for (i, start) in starts.iter_mut().enumerate() {
        if let Some(v) = node.input(5 + i).filter(|_| i == 0 || cell == Cell::Lstm) {
            let (dtype, dims) = planner.typed(v)?;
            if dtype != DType::F32 || dims != [d, batch, hidden] {
                return None;
            }
            *start = match planner.floats(v) {
                Some(constant) => Start::Constant(constant),
                None => {
                    reads.push(planner.read(v, Layout::Plain)?);
                    Start::Read(reads.len() - 1)
                }
            };
        }
    }
    let made: Vec<Option<ValueId>> = (0..3).map(|o| node.output(o)).collect();
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for &v in made.iter().flatten() {
        writes.push(planner.write(v, Layout::Plain)?);
        makes.push((v, Layout::Plain));
    }
    let given: Vec<bool> = made.iter().map(Option::is_some).collect();
    let spec = Spec {
        kernel: recurrent.kernel_name(),
        integer: is_bytes,
        reads,
        writes,
        makes,
        work: Box::new(move |ctx, x, y| {
            let start = [starts[0].state(x), starts[1].state(x)];
            let mut y = y.iter_mut().map(|y| bytemuck::cast_slice_mut(y));
            let mut next = |o: usize| given[o].then(|| y.next()).flatten();
            let outputs = Outputs {
                all: next(0),
                state: next(1),
                cell: next(2),
            };
            let x = bytemuck::cast_slice(x[0]);
            recurrent.run(ctx, [steps, batch], x, start, outputs);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// The weights of node `id`.
fn packed(
    planner: &mut Planner,
    id: NodeId,
    cell: Cell,
    sizes: Sizes,
    directions: &'static [bool],
) -> Option<Arc<Recurrent>> {
    let Sizes { input, hidden } = sizes;
    let (d, rows) = (directions.len(), cell.gates() * hidden);
    let node = planner.graph().node(id);
    let (w, r) = (node.input(1)?, node.input(2)?);
    let bias = match node.input(3) {
        Some(v) => Some(planner.floats(v)?),
        None => None,
    };
    if bias.as_ref().is_some_and(|b| b.len() != d * 2 * rows) {
        return None;
    }
    let packed = if node.op == "DynamicQuantizeLSTM" {
        let bytes = |v, at| {
            let parameters = (node.input(at), node.input(at + 1));
            Bytes::of(planner, v, parameters, d)
        };
        let (wide, tall) = (bytes(w, 8)?, bytes(r, 10)?);
        if wide.dims != [input, rows] || tall.dims != [hidden, rows] {
            return None;
        }
        planner.packed(id, |ctx| {
            let direction = |(i, &is_reverse): (usize, &bool)| {
                let own = bias.as_ref().map(|b| &b[i * 2 * rows..][..2 * rows]);
                (wide.pack(ctx, i), tall.pack(ctx, i), own, is_reverse)
            };
            let all = directions.iter().enumerate().map(direction).collect();
            Some(Packed::Recurrent(Arc::new(Recurrent::of_bytes(sizes, all))))
        })?
    } else {
        let (wide, tall) = (planner.floats(w)?, planner.floats(r)?);
        if wide.len() != d * rows * input || tall.len() != d * rows * hidden {
            return None;
        }
        planner.packed(id, |ctx| {
            let weights = (&wide[..], &tall[..], bias.as_deref());
            let recurrent = Recurrent::new(ctx, cell, sizes, weights, directions);
            Some(Packed::Recurrent(Arc::new(recurrent)))
        })?
    };
    match packed {
        Packed::Recurrent(recurrent) => Some(recurrent),
        _ => None,
    }
}

/// Weights of bytes, a matrix for each direction, with scales and zero points: one for each
/// direction, or one for each of its columns.
struct Bytes<'a> {
    data: &'a Tensor,
    dims: [usize; 2],
    is_signed: bool,
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

impl<'a> Bytes<'a> {
    fn of(
        planner: &Planner<'a>,
        v: ValueId,
        (scale, zero): (Option<ValueId>, Option<ValueId>),
        directions: usize,
    ) -> Option<Self> {
        let data = planner.constant(v)?;
        let is_signed = signed(data.dtype())?;
        let &[d, k, n] = data.dims() else {
            return None;
        };
        let scales = planner.floats(scale?)?;
        let zeros = planner.constant(zero?)?.to_i64().ok()?;
        let zeros: Option<Vec<i32>> = zeros.into_iter().map(|z| i32::try_from(z).ok()).collect();
        let zeros = zeros?;
        let fits = |count: usize| count == d || count == d * n;
        (d == directions && fits(scales.len()) && fits(zeros.len())).then_some(Self {
            data,
            dims: [k, n],
            is_signed,
            scales,
            zeros,
        })
    }

    /// The matrix of direction `d`.
    fn pack(&self, ctx: &Ctx, d: usize) -> WeightsI8 {
        let [k, n] = self.dims;
        let own = &self.data.bytes()[d * k * n..][..k * n];
        let zeros = of_direction(&self.zeros, d, n);
        let is_plain = zeros.iter().all(|&z| z == 0);
        let zeros = if is_plain { &[] } else { zeros };
        let scales = of_direction(&self.scales, d, n);
        WeightsI8 {
            packed: PackedI8::new(ctx, bytes(own, self.is_signed), Order::KN, k, n, zeros),
            scales: (0..n).map(|c| scales[c % scales.len()]).collect(),
        }
    }
}

/// What belongs to direction `d` of numbers for each direction, or for each of its `n` columns.
fn of_direction<T>(all: &[T], d: usize, n: usize) -> &[T] {
    let size = if all.len() >= n { n } else { 1 };
    &all[d * size..][..size]
}
