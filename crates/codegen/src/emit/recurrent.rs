//! LSTM and GRU of floats, step by step, with the usual functions.

use std::fmt::Write as _;

use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use super::moves::{Copies, Moves};
use crate::kernels::{self, Flavour};
use crate::lower::{Held, Lowering};
use crate::program::{Cost, Data, Element, Layer};

/// Which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru {
        /// The reset gate is taken behind the product.
        after: bool,
    },
}

/// The numbers of a direction.
struct Direction {
    w: Vec<f32>,
    r: Vec<f32>,
    /// Of x, then of h.
    bias: Vec<f32>,
    backward: bool,
}

/// A recurrent layer. It makes what each step gives, then h and, of an LSTM, c of each direction.
struct Recurrent {
    cell: Cell,
    steps: usize,
    inputs: usize,
    hidden: usize,
    directions: Vec<Direction>,
    /// The states that are read behind x: h, and c.
    given: [bool; 2],
}

/// LSTM and GRU over one sequence.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let is_lstm = node.is("LSTM");
    let x = l.read(id, 0)?;
    let &[steps, 1, inputs] = x.dims.as_slice() else {
        return Err(
            Error::unsupported(format!("an input of lengths {:?}", x.dims))
                .hint("code runs one sequence at a time: [steps, 1, numbers]"),
        );
    };
    let hidden = usize::try_from(node.int("hidden_size").unwrap_or(0)).unwrap_or(0);
    plain(l, id, is_lstm)?;
    let cell = match is_lstm {
        true => Cell::Lstm,
        false => Cell::Gru {
            after: node.int("linear_before_reset").unwrap_or(0) != 0,
        },
    };
    let gates = if is_lstm { 4 } else { 3 };
    let directions = directions(l, id, [gates, hidden, inputs])?;
    let mut reads = vec![l.float(&x)?];
    let given = states(l, id, if is_lstm { 2 } else { 1 }, &mut reads)?;
    reads[0] = l.row_major(&reads[0]);
    let layer = Recurrent {
        cell,
        steps,
        inputs,
        hidden,
        directions,
        given,
    };
    let (whole, parts) = (layer.count(), layer.parts());
    let name = format!("{} (all)", l.graph.node(id).name);
    let all = l.buffer(&name, Element::F32, &[whole], None);
    let reads: Vec<&Held> = reads.iter().collect();
    l.step(id, &reads, &all, layer);
    outputs(l, id, &all, parts)
}

/// Reads the first states that are computed, h and then c, behind x; says which they are.
fn states(l: &mut Lowering, id: NodeId, count: usize, reads: &mut Vec<Held>) -> Result<[bool; 2]> {
    let mut given = [false; 2];
    for (i, given) in given.iter_mut().enumerate().take(count) {
        let Some(v) = l.graph.node(id).input(5 + i) else {
            continue;
        };
        match l.is_held(v) {
            true => {
                let state = l.value(v)?;
                let state = l.float(&state)?;
                reads.push(l.row_major(&state));
                *given = true;
            }
            false if l.floats(v).is_some_and(|f| f.iter().all(|&x| x == 0.0)) => {}
            false => {
                return Err(Error::unsupported(
                    "a first state that is constant and not 0",
                ));
            }
        }
    }
    Ok(given)
}

/// Copies each output that is read out of what the layer makes: where it begins, and its length.
fn outputs(l: &mut Lowering, id: NodeId, all: &Held, parts: [(usize, usize); 3]) -> Result<()> {
    for (&v, (first, length)) in l.graph.node(id).outputs().iter().zip(parts) {
        let Some(v) =
            v.filter(|&v| l.graph.is_output(v) || !l.graph.value(v).consumers().is_empty())
        else {
            continue;
        };
        let dims = l.typed(v)?.1;
        let name = l.graph.value(v).name.clone();
        let made = l.buffer(&name, Element::F32, &dims, None);
        let copies = Copies {
            dims: vec![length],
            from: vec![1],
            to: vec![1],
            first,
            at: 0,
        };
        let layer = Moves::new(Element::F32, vec![copies], None)?;
        l.step(id, &[all], &made, layer);
        l.hold(v, made);
    }
    Ok(())
}

/// Refuses what the kernels do not compute.
fn plain(l: &Lowering, id: NodeId, is_lstm: bool) -> Result<()> {
    let node = l.graph.node(id);
    let usual: &[&str] = match is_lstm {
        true => &["Sigmoid", "Tanh", "Tanh"],
        false => &["Sigmoid", "Tanh"],
    };
    let functions = node.strings("activations").unwrap_or_default();
    let others = functions
        .iter()
        .enumerate()
        .any(|(i, f)| f != usual[i % usual.len()]);
    let peeps = is_lstm && node.input(7).is_some();
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    if others || peeps || node.input(4).is_some() || node.float("clip").is_some() {
        return Err(Error::unsupported(
            "other functions, peepholes, lengths of sequences and clip have no emitter",
        ));
    }
    if set("layout") || set("input_forget") {
        return Err(Error::unsupported(
            "layout and input_forget have no emitter",
        ));
    }
    Ok(())
}

/// The weights and biases of each direction.
fn directions(
    l: &Lowering,
    id: NodeId,
    [gates, hidden, inputs]: [usize; 3],
) -> Result<Vec<Direction>> {
    let node = l.graph.node(id);
    let floats = |i: usize| node.input(i).and_then(|v| l.floats(v));
    let (Some(w), Some(r)) = (floats(1), floats(2)) else {
        return Err(Error::unsupported("its weights are computed"));
    };
    let names: &[bool] = match node.string("direction").unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        _ => &[false, true],
    };
    let rows = gates * hidden;
    let bias = match node.input(3) {
        None => vec![0.0; names.len() * 2 * rows],
        Some(v) => l
            .floats(v)
            .ok_or_else(|| Error::unsupported("its biases are computed"))?,
    };
    let fits = w.len() == names.len() * rows * inputs
        && r.len() == names.len() * rows * hidden
        && bias.len() == names.len() * 2 * rows;
    if !fits || hidden == 0 {
        return Err(Error::invalid("its weights do not fit hidden_size"));
    }
    let part = |all: &[f32], d: usize, length: usize| all[d * length..(d + 1) * length].to_vec();
    Ok(names
        .iter()
        .enumerate()
        .map(|(d, &backward)| Direction {
            w: part(&w, d, rows * inputs),
            r: part(&r, d, rows * hidden),
            bias: part(&bias, d, 2 * rows),
            backward,
        })
        .collect())
}

impl Recurrent {
    /// States of each direction.
    fn states(&self) -> usize {
        if self.cell == Cell::Lstm { 2 } else { 1 }
    }

    /// Elements that it makes.
    fn count(&self) -> usize {
        self.directions.len() * self.hidden * (self.steps + self.states())
    }

    /// Where its outputs begin in what it makes, and their lengths: all steps, h, c.
    fn parts(&self) -> [(usize, usize); 3] {
        let own = self.directions.len() * self.hidden;
        let far = self.steps * own;
        [(0, far), (far, own), (far + own, own)]
    }

    /// Which of the values that it reads is first state `i`, where it is given.
    fn given(&self, i: usize) -> Option<usize> {
        let from = self.given[..i].iter().filter(|g| **g).count() + 1;
        self.given[i].then_some(from)
    }

    /// The statements that set the states of direction `d` to the first ones.
    fn first(&self, call: &Call, d: usize, states: &[String; 2]) -> String {
        let (at, bytes) = (d * self.hidden, 4 * self.hidden);
        let mut text = String::new();
        for (i, state) in states.iter().enumerate().take(self.states()) {
            let _ = match self.given(i) {
                Some(from) => writeln!(
                    text,
                    "    (void)memcpy({state}, &(({})[{at}]), {bytes}u);",
                    call.reads[from]
                ),
                None => writeln!(text, "    (void)memset({state}, 0, {bytes}u);"),
            };
        }
        text
    }

    /// The names of a direction's parameters and of its weights.
    fn numbers(&self, call: &mut Call, direction: &Direction) -> (String, String) {
        let (n, inputs) = (self.hidden, self.inputs);
        let Direction { w, r, bias, .. } = direction;
        let (bx, bh) = bias.split_at(bias.len() / 2);
        match self.cell {
            Cell::Lstm => {
                let packed = kernels::pack_lstm_f32(w, r, inputs, n);
                let bias = call.f32s("bias", &kernels::bias_lstm_f32(bx, bh, n));
                let weights = call.f32s("weights", &packed);
                let fields = format!(".in = {inputs}, .hidden = {n}, .bias = {bias}");
                (call.parameters("recurrent", &fields), weights)
            }
            Cell::Gru { after } => {
                let (packed, again) = kernels::pack_gru_f32(w, r, inputs, n, after);
                let bias = call.f32s("bias", &kernels::bias_gru_f32(bx, bh, n));
                let weights = call.f32s("weights", &packed);
                let again = match again.as_slice() {
                    [] => "(void *)0".to_owned(),
                    again => call.f32s("again", again),
                };
                let fields = format!(
                    ".in = {inputs}, .hidden = {n}, .after = {}, .bias = {bias}, .again = {again}",
                    i32::from(after)
                );
                (call.parameters("gru", &fields), weights)
            }
        }
    }

    /// One step of a direction; `h` and `c` are its states, and `c` is of an LSTM.
    fn step(&self, d: &Direction, x: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = self.hidden;
        let dot = |m: &[f32], v: &[f32], row: usize| {
            let m = &m[row * v.len()..(row + 1) * v.len()];
            m.iter().zip(v).map(|(a, b)| a * b).sum::<f32>()
        };
        let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
        let (bx, bh) = d.bias.split_at(d.bias.len() / 2);
        let gate = |g: usize, i: usize, h: &[f32]| {
            let row = g * n + i;
            dot(&d.w, x, row) + dot(&d.r, h, row) + bx[row] + bh[row]
        };
        let old = h.to_vec();
        match self.cell {
            Cell::Lstm => {
                for i in 0..n {
                    let [input, output, forget] = [0, 1, 2].map(|g| sigmoid(gate(g, i, &old)));
                    c[i] = forget * c[i] + input * gate(3, i, &old).tanh();
                    h[i] = output * c[i].tanh();
                }
            }
            Cell::Gru { after } => {
                let [update, reset]: [Vec<f32>; 2] =
                    [0, 1].map(|g| (0..n).map(|i| sigmoid(gate(g, i, &old))).collect());
                let left: Vec<f32> = reset.iter().zip(&old).map(|(r, h)| r * h).collect();
                for i in 0..n {
                    let row = 2 * n + i;
                    let of_h = match after {
                        true => reset[i] * (dot(&d.r, &old, row) + bh[row]),
                        false => dot(&d.r, &left, row) + bh[row],
                    };
                    let new = (dot(&d.w, x, row) + bx[row] + of_h).tanh();
                    h[i] = (1.0 - update[i]) * new + update[i] * old[i];
                }
            }
        }
    }
}

impl Layer for Recurrent {
    fn kernel(&self) -> &'static str {
        if self.cell == Cell::Lstm {
            "lstm_f32"
        } else {
            "gru_f32"
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel(self.kernel());
        let (n, count) = (self.hidden, self.directions.len());
        let far = self.steps * count * n;
        let (y, x) = (call.write.clone(), call.reads[0].clone());
        let at = |offset: usize| format!("&(({y})[{offset}])");
        let scratch = format!("(float *){}", call.scratch);
        let mut text = String::from("{\n    int32_t t;\n");
        for (d, direction) in self.directions.iter().enumerate() {
            call.part = d + 1;
            let states = [at(far + d * n), at(far + (count + d) * n)];
            text += &self.first(call, d, &states);
            let (layer, weights) = self.numbers(call, direction);
            let rest = format!("{}, {scratch}", states[..self.states()].join(", "));
            let place = match direction.backward {
                true => format!("({} - t)", self.steps - 1),
                false => "t".to_owned(),
            };
            let _ = write!(
                text,
                "    for (t = 0; t < {steps}; t++) {{\n        \
                 {f}(&{layer}, &(({x})[{place} * {inputs}]), {weights}, {rest});\n        \
                 (void)memcpy(&(({y})[({place} * {width}) + {own}]), {h}, {bytes}u);\n    }}\n",
                steps = self.steps,
                inputs = self.inputs,
                width = count * n,
                own = d * n,
                h = states[0],
                bytes = 4 * n
            );
        }
        call.part = 0;
        text + "}"
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::F32(y) = write else { return };
        let (n, count) = (self.hidden, self.directions.len());
        let far = self.steps * count * n;
        for (d, direction) in self.directions.iter().enumerate() {
            let first = |i: usize| match self.given(i) {
                Some(from) => reads[from].f32()[d * n..(d + 1) * n].to_vec(),
                None => vec![0.0; n],
            };
            let (mut h, mut c) = (first(0), first(1));
            for t in 0..self.steps {
                let t = if direction.backward {
                    self.steps - 1 - t
                } else {
                    t
                };
                let x = &reads[0].f32()[t * self.inputs..(t + 1) * self.inputs];
                self.step(direction, x, &mut h, &mut c);
                let at = (t * count + d) * n;
                y[at..at + n].copy_from_slice(&h);
            }
            y[far + d * n..far + (d + 1) * n].copy_from_slice(&h);
            if self.cell == Cell::Lstm {
                let at = far + (count + d) * n;
                y[at..at + n].copy_from_slice(&c);
            }
        }
    }

    fn scratch(&self, _: Flavour) -> usize {
        4 * self.hidden * if self.cell == Cell::Lstm { 1 } else { 3 }
    }

    fn cost(&self) -> Cost {
        let weights: usize = self.directions.iter().map(|d| d.w.len() + d.r.len()).sum();
        let biases: usize = self.directions.iter().map(|d| d.bias.len() / 2).sum();
        Cost {
            macs: (self.steps * weights) as u64,
            weights: 4 * (weights + biases),
        }
    }
}
