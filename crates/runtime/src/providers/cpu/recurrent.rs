//! RNN, LSTM and GRU with the activations that ONNX names first, of an RNN also others, and
//! DynamicQuantizeLSTM of `com.microsoft`. Weights are packed once where they are constant, else in each run.

use std::sync::Arc;

use edgesmith_ir::{DType, Node, NodeId, Tensor, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::gemm::{Order, PackedI8};
use edgesmith_kernels::recurrent::{
    self as kernel, Cell, Inputs, Outputs, Recurrent, Sizes, WeightsI8,
};

use super::dequantize::bytes;
use super::dynamic::signed;
use super::operand::{Indices, Operand};
use crate::plan::{Layout, Packed, Planner, SlotId, Spec};

/// Gates of all steps that a kernel keeps at a time, in elements; more is left to evaluation.
const MOST: usize = 1 << 26;

/// A recurrent node that kernels take.
pub(crate) struct Form {
    pub cell: Cell,
    /// Whether each direction is reverse.
    pub directions: &'static [bool],
    pub steps: usize,
    pub batch: usize,
    pub sizes: Sizes,
}

impl Form {
    /// Of a node of RNN, LSTM, GRU or their gradients.
    pub fn of(planner: &Planner, id: NodeId) -> Option<Self> {
        let node = planner.graph().node(id);
        let directions = directions(node).filter(|_| is_plain(node))?;
        let cell = cell(node, directions.len())?;
        let (x, r) = (node.input(0)?, node.input(2)?);
        let (dtype, dims) = planner.typed(x)?;
        let &[steps, batch, input] = dims.as_slice() else {
            return None;
        };
        let axis = if node.op == "DynamicQuantizeLSTM" {
            1
        } else {
            2
        };
        let hidden = *planner.typed(r)?.1.get(axis)?;
        if dtype != DType::F32 || batch * hidden * steps == 0 {
            return None;
        }
        let gates = steps
            .checked_mul(batch)?
            .checked_mul(cell.gates() * hidden)?;
        (gates <= MOST).then_some(Self {
            cell,
            directions,
            steps,
            batch,
            sizes: Sizes { input, hidden },
        })
    }

    /// As kernels see it.
    pub fn kernel(&self) -> kernel::Form<'_> {
        kernel::Form {
            cell: self.cell,
            sizes: self.sizes,
            directions: self.directions,
        }
    }

    /// Steps, and samples of each.
    pub fn extent(&self) -> [usize; 2] {
        [self.steps, self.batch]
    }

    /// Rows of the weights of a direction.
    pub fn rows(&self) -> usize {
        self.cell.gates() * self.sizes.hidden
    }

    /// The dimensions of the weights of the input, of the state, and of the bias.
    pub fn weight_dims(&self) -> [Vec<usize>; 3] {
        let (d, rows) = (self.directions.len(), self.rows());
        let Sizes { input, hidden } = self.sizes;
        [
            vec![d, rows, input],
            vec![d, rows, hidden],
            vec![d, 2 * rows],
        ]
    }

    /// The dimensions of a state.
    pub fn state_dims(&self) -> [usize; 3] {
        [self.directions.len(), self.batch, self.sizes.hidden]
    }
}

/// What a recurrent node reads beside its input and weights.
pub(crate) struct Given {
    start: [Option<Operand>; 2],
    lengths: Option<Indices>,
}

impl Given {
    /// Of node `id`; what is read is added to `reads`.
    pub fn of(
        planner: &mut Planner,
        id: NodeId,
        form: &Form,
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        let node = planner.graph().node(id);
        let lengths = match node.input(4) {
            Some(v) if planner.typed(v)?.1 == [form.batch] => {
                let lengths = Indices::of(planner, v, reads)?;
                let whole = |&n: &i64| n >= form.steps as i64;
                let all = matches!(&lengths, Indices::Constant(l) if l.iter().all(whole));
                (!all).then_some(lengths)
            }
            Some(_) => return None,
            None => None,
        };
        let states = if form.cell == Cell::Lstm { 2 } else { 1 };
        let mut start = [None, None];
        for (i, start) in start.iter_mut().enumerate().take(states) {
            if let Some(v) = node.input(5 + i) {
                *start = Some(operand(planner, v, &form.state_dims(), reads)?);
            }
        }
        Some(Self { start, lengths })
    }

    /// The lengths of the samples of a run of `steps` steps.
    pub fn lengths(&self, steps: usize, x: &[&[u8]]) -> Option<Vec<usize>> {
        let lengths = self.lengths.as_ref()?.get(x).into_iter();
        let of = |n: i64| usize::try_from(n).unwrap_or(0).min(steps);
        Some(lengths.map(of).collect())
    }

    /// The first states and cells.
    pub fn start<'a>(&'a self, x: &[&'a [u8]]) -> [Option<&'a [f32]>; 2] {
        [&self.start[0], &self.start[1]].map(|s| s.as_ref().map(|s| s.get(x)))
    }
}

/// The floats of `v`, which has these dimensions.
pub(crate) fn operand(
    planner: &mut Planner,
    v: ValueId,
    dims: &[usize],
    reads: &mut Vec<SlotId>,
) -> Option<Operand> {
    let fits = planner.typed(v)? == (DType::F32, dims.to_vec());
    fits.then(|| Operand::of(planner, v, reads)).flatten()
}

/// Weights and bias that are not all constant.
pub(crate) struct Computed {
    w: Operand,
    r: Operand,
    bias: Option<Operand>,
}

impl Computed {
    /// Of node `id`; what is read is added to `reads`.
    pub fn of(
        planner: &mut Planner,
        id: NodeId,
        form: &Form,
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        let node = planner.graph().node(id);
        let [wide, tall, bias] = form.weight_dims();
        Some(Self {
            w: operand(planner, node.input(1)?, &wide, reads)?,
            r: operand(planner, node.input(2)?, &tall, reads)?,
            bias: match node.input(3) {
                Some(v) => Some(operand(planner, v, &bias, reads)?),
                None => None,
            },
        })
    }

    /// Of the input, of the state, and the bias, out of what a step reads.
    pub fn get<'a>(&'a self, x: &[&'a [u8]]) -> (&'a [f32], &'a [f32], Option<&'a [f32]>) {
        let bias = self.bias.as_ref().map(|b| b.get(x));
        (self.w.get(x), self.r.get(x), bias)
    }
}

/// Weights of a step.
enum Weights {
    Packed(Arc<Recurrent>),
    Computed(Computed),
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

/// The cell of a node of so many directions, where its functions are those of a kernel.
fn cell(node: &Node, directions: usize) -> Option<Cell> {
    let names = node.strings("activations").unwrap_or_default();
    let plain = |wanted: &[&str]| {
        let wanted = wanted.iter().cycle();
        let mut pairs = names.iter().zip(wanted);
        let bare = ["activation_alpha", "activation_beta"];
        pairs.all(|(a, b)| a.eq_ignore_ascii_case(b))
            && bare.iter().all(|n| node.attribute(n).is_none())
    };
    match node.op.trim_end_matches("Grad") {
        "LSTM" | "DynamicQuantizeLSTM" => plain(&["Sigmoid", "Tanh", "Tanh"]).then_some(Cell::Lstm),
        "GRU" => plain(&["Sigmoid", "Tanh"]).then_some(Cell::Gru {
            linear_before_reset: node.int("linear_before_reset").unwrap_or(0) != 0,
        }),
        _ if names.is_empty() => Some(Cell::Rnn {
            functions: [Activation::Tanh; 2],
        }),
        _ if names.len() == directions => {
            let mut functions = [Activation::Tanh; 2];
            for (i, (to, name)) in functions.iter_mut().zip(names).enumerate() {
                *to = function(node, i, &name.to_ascii_lowercase())?;
            }
            Some(Cell::Rnn { functions })
        }
        _ => None,
    }
}

/// Function `i` of an RNN.
fn function(node: &Node, i: usize, name: &str) -> Option<Activation> {
    let parameter = |list: &str, default: f32| {
        let given = node.floats(list).and_then(|v| v.get(i).copied());
        given.unwrap_or(default)
    };
    Some(match name {
        "hardsigmoid" => Activation::HardSigmoid {
            alpha: parameter("activation_alpha", 0.2),
            beta: parameter("activation_beta", 0.5),
        },
        "leakyrelu" => Activation::LeakyRelu {
            alpha: parameter("activation_alpha", 0.01),
        },
        "relu" => Activation::Relu,
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}

/// True where the other attributes leave the cell as it is defined.
fn is_plain(node: &Node) -> bool {
    let off = |name: &str| node.int(name).unwrap_or(0) == 0;
    off("layout") && off("input_forget") && node.attribute("clip").is_none()
}

/// RNN, LSTM, GRU, and DynamicQuantizeLSTM, whose weights are bytes.
pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let form = Form::of(planner, id)?;
    let node = planner.graph().node(id);
    let is_bytes = node.op == "DynamicQuantizeLSTM";
    if (form.cell == Cell::Lstm && node.input(7).is_some()) || (is_bytes && form.sizes.input == 0) {
        return None;
    }
    let mut reads = vec![planner.read(node.input(0)?, Layout::Plain)?];
    let given = Given::of(planner, id, &form, &mut reads)?;
    let constant = [1, 2, 3].iter().filter_map(|&i| node.input(i));
    let is_constant = constant.into_iter().all(|v| planner.constant(v).is_some());
    let weights = match is_constant {
        true => Weights::Packed(packed(planner, id, &form)?),
        false => Weights::Computed(Computed::of(planner, id, &form, &mut reads)?),
    };
    let made: Vec<Option<ValueId>> = (0..3).map(|o| node.output(o)).collect();
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for &v in made.iter().flatten() {
        writes.push(planner.write(v, Layout::Plain)?);
        makes.push((v, Layout::Plain));
    }
    if keeps(planner, id) {
        let size = kernel::kept(form.kernel(), form.extent());
        writes.push(planner.keep(id, 4 * size));
    }
    let wanted: Vec<bool> = made.iter().map(Option::is_some).collect();
    let spec = Spec {
        kernel: match &weights {
            Weights::Packed(recurrent) => recurrent.kernel_name(),
            Weights::Computed(_) => "gemm packed on the fly",
        },
        integer: is_bytes,
        reads,
        writes,
        makes,
        work: Box::new(move |ctx, x, y| {
            let mut y = y.iter_mut().map(|y| bytemuck::cast_slice_mut(y));
            let mut next = |o: usize| wanted[o].then(|| y.next()).flatten();
            let outputs = Outputs {
                all: next(0),
                state: next(1),
                cell: next(2),
            };
            let kept = y.next();
            let lengths = given.lengths(form.steps, x);
            let inputs = Inputs {
                sizes: form.extent(),
                x: bytemuck::cast_slice(x[0]),
                start: given.start(x),
                lengths: lengths.as_deref(),
            };
            match &weights {
                Weights::Packed(recurrent) => recurrent.run(ctx, inputs, outputs, kept),
                Weights::Computed(own) => {
                    let recurrent = Recurrent::new(ctx, form.kernel(), own.get(x));
                    recurrent.run(ctx, inputs, outputs, kept);
                }
            }
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// The nodes of operator `op` that read what node `id` reads up to the initial states, with the same
/// attributes.
fn twins(planner: &Planner, id: NodeId, op: &str) -> Vec<NodeId> {
    let graph = planner.graph();
    let node = graph.node(id);
    let inputs = if op.starts_with("LSTM") { 7 } else { 6 };
    let same = |other: &Node| {
        other.op == op
            && (0..inputs).all(|i| node.input(i) == other.input(i))
            && node.attributes == other.attributes
    };
    let consumers = node.input(0).map(|x| graph.value(x).consumers());
    let readers = consumers.into_iter().flatten().map(|&(reader, _)| reader);
    readers.filter(|&reader| same(graph.node(reader))).collect()
}

/// Whether node `id` keeps what a gradient needs: where there is one, and the same is not computed
/// again behind it.
fn keeps(planner: &Planner, id: NodeId) -> bool {
    let graph = planner.graph();
    let op = &graph.node(id).op;
    let comes = |&other: &NodeId| {
        let mut made = graph.node(other).outputs().iter().flatten();
        other != id && made.any(|&v| planner.pending(v).is_some())
    };
    !twins(planner, id, &format!("{op}Grad")).is_empty()
        && !twins(planner, id, op).iter().any(comes)
}

/// What a run forward keeps for the gradient `id`, where one does.
pub(crate) fn kept_for(planner: &Planner, id: NodeId) -> Option<SlotId> {
    let op = planner.graph().node(id).op.trim_end_matches("Grad");
    let mut forward = twins(planner, id, op).into_iter();
    forward.find_map(|id| planner.kept_by(id))
}

/// The constant weights of node `id`.
fn packed(planner: &mut Planner, id: NodeId, form: &Form) -> Option<Arc<Recurrent>> {
    let Form {
        directions, sizes, ..
    } = *form;
    let Sizes { input, hidden } = sizes;
    let (d, rows) = (directions.len(), form.rows());
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
            let recurrent = Recurrent::new(ctx, form.kernel(), weights);
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
