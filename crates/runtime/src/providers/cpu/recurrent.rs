//! LSTM and GRU with constant weights and the activations that ONNX names first.

use std::sync::Arc;

use edgesmith_ir::{DType, Node, NodeId, ValueId};
use edgesmith_kernels::recurrent::{Cell, Outputs, Recurrent, Sizes};

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
    let (x, w, r) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let (dtype, dims) = planner.typed(x)?;
    let &[steps, batch, input] = dims.as_slice() else {
        return None;
    };
    let hidden = *planner.typed(r)?.1.get(2)?;
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
    if gates > MOST {
        return None;
    }
    let (wide, tall) = (planner.floats(w)?, planner.floats(r)?);
    let bias = match node.input(3) {
        Some(v) => Some(planner.floats(v)?),
        None => None,
    };
    let d = directions.len();
    let fits = wide.len() == d * rows * input
        && tall.len() == d * rows * hidden
        && bias.as_ref().is_none_or(|b| b.len() == d * 2 * rows);
    if !fits {
        return None;
    }
    let packed = planner.packed(id, |ctx| {
        let weights = (&wide[..], &tall[..], bias.as_deref());
        let sizes = Sizes { input, hidden };
        let recurrent = Recurrent::new(ctx, cell, sizes, weights, directions);
        Some(Packed::Recurrent(Arc::new(recurrent)))
    })?;
    let Packed::Recurrent(recurrent) = packed else {
        return None;
    };
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
        integer: false,
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
