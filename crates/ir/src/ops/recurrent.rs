//! RNN, GRU and LSTM: the loop over time, directions and lengths that they share, and a step of
//! each.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::unary::{sigmoid, softplus};
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{Dim, Error, Result, Shape, Tensor, checked_count};

const ATTRS: &[AttrDef] = &[
    attr("activation_alpha", AttrKind::Floats),
    attr("activation_beta", AttrKind::Floats),
    attr("activations", AttrKind::Strings),
    attr("clip", AttrKind::Float(None)),
    attr("direction", AttrKind::String(Some("forward"))),
    attr("hidden_size", AttrKind::Int(None)),
    attr("input_forget", AttrKind::Int(Some(0))),
    attr("layout", AttrKind::Int(Some(0))),
    attr("linear_before_reset", AttrKind::Int(Some(0))),
    attr("output_sequence", AttrKind::Int(None)),
];

/// ONNX RNN.
pub static RNN: OpDef = OpDef {
    name: "RNN",
    since: &[1, 7, 14, 22],
    inputs: Arity(3, 6),
    outputs: Arity(0, 2),
    attrs: ATTRS,
    infer: |cx| infer(cx, 1),
    eval: Some(|cx| {
        eval(
            cx,
            &Cell {
                gates: 1,
                defaults: &["Tanh"],
                step: rnn_step,
                narrow: None,
            },
        )
    }),
    examples: &["RNN(f32[4,2,3], f32[1,5,3], f32[1,5,5])"],
    ..OpDef::BASE
};

/// ONNX GRU; gates in the order update, reset, hidden.
pub static GRU: OpDef = OpDef {
    name: "GRU",
    since: &[1, 3, 7, 14, 22],
    inputs: Arity(3, 6),
    outputs: Arity(0, 2),
    attrs: ATTRS,
    infer: |cx| infer(cx, 1),
    eval: Some(|cx| {
        eval(
            cx,
            &Cell {
                gates: 3,
                defaults: &["Sigmoid", "Tanh"],
                step: gru_step,
                narrow: None,
            },
        )
    }),
    examples: &["GRU(f32[4,2,3], f32[1,15,3], f32[1,15,5], f32[1,30])"],
    ..OpDef::BASE
};

/// ONNX LSTM; gates in the order input, output, forget, cell.
pub static LSTM: OpDef = OpDef {
    name: "LSTM",
    since: &[1, 7, 14, 22],
    inputs: Arity(3, 8),
    outputs: Arity(0, 3),
    attrs: ATTRS,
    infer: |cx| infer(cx, 2),
    eval: Some(|cx| lstm(cx, None)),
    examples: &[
        "LSTM(f32[4,2,3], f32[1,20,3], f32[1,20,5], f32[1,40])",
        "LSTM(f32[4,2,3], f32[2,20,3], f32[2,20,5]) {direction=\"bidirectional\"}",
    ],
    ..OpDef::BASE
};

/// What tells the three operators apart.
struct Cell {
    gates: usize,
    defaults: &'static [&'static str],
    step: fn(&Direction, &[f64], &mut State),
    /// What is done to the inputs of all products.
    narrow: Option<Narrow>,
}

/// A rounding of numbers together.
pub type Narrow = fn(&[f64]) -> Result<Vec<f64>>;

/// LSTM of the inputs in ONNX's order. Where `narrow` is given, it rounds the input as a whole,
/// and the hidden state of each sample before each step.
///
/// # Errors
/// When the inputs do not fit each other.
pub fn lstm(cx: &EvalCx, narrow: Option<Narrow>) -> Result<Vec<Tensor>> {
    eval(
        cx,
        &Cell {
            gates: 4,
            defaults: &["Sigmoid", "Tanh", "Tanh"],
            step: lstm_step,
            narrow,
        },
    )
}

/// The state of one sample.
#[derive(Clone)]
struct State {
    hidden: Vec<f64>,
    cell: Vec<f64>,
}

/// The weights and functions of one direction.
struct Direction {
    /// Width of the hidden state, and of the input.
    size: usize,
    width: usize,
    w: Vec<f64>,
    r: Vec<f64>,
    /// Biases of the input, then of the recurrence, by gate.
    bias: Vec<f64>,
    peephole: Vec<f64>,
    clip: f64,
    functions: Vec<Function>,
    linear_before_reset: bool,
    input_forget: bool,
}

/// An activation function by ONNX's name, with its parameters.
#[derive(Clone, Copy)]
struct Function {
    f: fn(f64, f64, f64) -> f64,
    alpha: f64,
    beta: f64,
}

/// Name, default α, default β, function of (x, α, β).
type FunctionRow = (&'static str, f64, f64, fn(f64, f64, f64) -> f64);

static FUNCTIONS: &[FunctionRow] = &[
    ("affine", 1.0, 0.0, |x, a, b| a * x + b),
    (
        "elu",
        1.0,
        0.0,
        |x, a, _| if x < 0.0 { a * x.exp_m1() } else { x },
    ),
    ("hardsigmoid", 0.2, 0.5, |x, a, b| {
        (a * x + b).clamp(0.0, 1.0)
    }),
    (
        "leakyrelu",
        0.01,
        0.0,
        |x, a, _| if x < 0.0 { a * x } else { x },
    ),
    ("relu", 0.0, 0.0, |x, _, _| x.max(0.0)),
    ("scaledtanh", 1.0, 1.0, |x, a, b| a * (b * x).tanh()),
    ("sigmoid", 0.0, 0.0, |x, _, _| sigmoid(x)),
    ("softplus", 0.0, 0.0, |x, _, _| softplus(x)),
    ("softsign", 0.0, 0.0, |x, _, _| x / (1.0 + x.abs())),
    ("tanh", 0.0, 0.0, |x, _, _| x.tanh()),
    (
        "thresholdedrelu",
        1.0,
        0.0,
        |x, a, _| if x > a { x } else { 0.0 },
    ),
];

/// The functions of all directions, in order.
fn functions(cx: &EvalCx, defaults: &[&str], directions: usize) -> Result<Vec<Function>> {
    let count = defaults.len() * directions;
    let names: Vec<String> = match cx.node.attribute("activations") {
        Some(crate::Attribute::Strings(v)) if !v.is_empty() => v
            .iter()
            .map(|s| String::from_utf8_lossy(s).to_lowercase())
            .collect(),
        _ => (0..count)
            .map(|i| defaults[i % defaults.len()].to_lowercase())
            .collect(),
    };
    if names.len() != count {
        return Err(Error::invalid(format!(
            "expected {count} activations, found {}",
            names.len()
        )));
    }
    let parameter = |list: &str, i: usize| cx.node.floats(list).and_then(|v| v.get(i).copied());
    let find = |(i, name): (usize, &String)| {
        let row = FUNCTIONS.iter().find(|r| r.0 == name);
        let &(_, alpha, beta, f) =
            row.ok_or_else(|| Error::invalid(format!("activation \"{name}\" is unknown")))?;
        Ok(Function {
            f,
            alpha: parameter("activation_alpha", i).map_or(alpha, f64::from),
            beta: parameter("activation_beta", i).map_or(beta, f64::from),
        })
    };
    names.iter().enumerate().map(find).collect()
}

impl Direction {
    /// The input and the recurrent part of gate `g`, biases included.
    fn gate(&self, g: usize, x: &[f64], h: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let dot = |m: &[f64], v: &[f64]| m.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
        let half = self.bias.len() / 2;
        let row = |k: usize| g * self.size + k;
        let from_x = (0..self.size)
            .map(|k| dot(&self.w[row(k) * self.width..][..self.width], x) + self.bias[row(k)]);
        let from_h = (0..self.size)
            .map(|k| dot(&self.r[row(k) * self.size..][..self.size], h) + self.bias[half + row(k)]);
        (from_x.collect(), from_h.collect())
    }

    fn apply(&self, f: usize, x: f64) -> f64 {
        let function = self.functions[f];
        (function.f)(
            x.clamp(-self.clip, self.clip),
            function.alpha,
            function.beta,
        )
    }

    fn sums(&self, g: usize, x: &[f64], h: &[f64]) -> Vec<f64> {
        let (a, b) = self.gate(g, x, h);
        a.iter().zip(&b).map(|(a, b)| a + b).collect()
    }
}

fn rnn_step(d: &Direction, x: &[f64], s: &mut State) {
    let sums = d.sums(0, x, &s.hidden);
    s.hidden = sums.into_iter().map(|v| d.apply(0, v)).collect();
}

fn gru_step(d: &Direction, x: &[f64], s: &mut State) {
    let gate = |g| -> Vec<f64> {
        let sums = d.sums(g, x, &s.hidden);
        sums.into_iter().map(|v| d.apply(0, v)).collect()
    };
    let (update, reset) = (gate(0), gate(1));
    let inner: Vec<f64> = if d.linear_before_reset {
        let (from_x, from_h) = d.gate(2, x, &s.hidden);
        (0..d.size)
            .map(|k| from_x[k] + reset[k] * from_h[k])
            .collect()
    } else {
        let faded: Vec<f64> = reset.iter().zip(&s.hidden).map(|(r, h)| r * h).collect();
        d.sums(2, x, &faded)
    };
    for (k, h) in s.hidden.iter_mut().enumerate() {
        *h = (1.0 - update[k]) * d.apply(1, inner[k]) + update[k] * *h;
    }
}

fn lstm_step(d: &Direction, x: &[f64], s: &mut State) {
    let [input, output, forget, cell] = [0, 1, 2, 3].map(|g| d.sums(g, x, &s.hidden));
    let peep = |part: usize, k: usize| d.peephole.get(part * d.size + k).copied().unwrap_or(0.0);
    for k in 0..d.size {
        let old = s.cell[k];
        let i = d.apply(0, input[k] + peep(0, k) * old);
        let f = match d.input_forget {
            true => 1.0 - i,
            false => d.apply(0, forget[k] + peep(2, k) * old),
        };
        s.cell[k] = f * old + i * d.apply(1, cell[k]);
        let o = d.apply(0, output[k] + peep(1, k) * s.cell[k]);
        s.hidden[k] = o * (d.functions[2].f)(s.cell[k], d.functions[2].alpha, d.functions[2].beta);
    }
}

/// Lengths of one run.
struct Extent {
    steps: usize,
    batch: usize,
    width: usize,
    size: usize,
    directions: usize,
    /// The batch is the first axis.
    batch_first: bool,
}

impl Extent {
    fn of(cx: &EvalCx, gates: usize) -> Result<Self> {
        let (x, r) = (cx.input(0)?, cx.input(2)?);
        expect_rank("the input", x, 3..=3)?;
        expect_rank("the recurrence weight", r, 3..=3)?;
        let batch_first = cx.int("layout", 0) != 0;
        let (steps, batch) = match batch_first {
            true => (x.dims()[1], x.dims()[0]),
            false => (x.dims()[0], x.dims()[1]),
        };
        let (width, size) = (x.dims()[2], r.dims()[2]);
        let directions = direction(cx.node.string("direction"))?;
        let rows = size.saturating_mul(gates);
        expect_dims("the weight", cx.input(1)?, &[directions, rows, width])?;
        expect_dims("the recurrence weight", r, &[directions, rows, size])?;
        Ok(Self {
            steps,
            batch,
            width,
            size,
            directions,
            batch_first,
        })
    }

    /// Where the state of sample `b` in direction `d` starts in a state tensor.
    fn state(&self, d: usize, b: usize) -> usize {
        let index = match self.batch_first {
            true => b * self.directions + d,
            false => d * self.batch + b,
        };
        index * self.size
    }

    fn state_dims(&self) -> [usize; 3] {
        match self.batch_first {
            true => [self.batch, self.directions, self.size],
            false => [self.directions, self.batch, self.size],
        }
    }

    /// Where the output of step `t` starts.
    fn output(&self, t: usize, d: usize, b: usize) -> usize {
        let index = match self.batch_first {
            true => (b * self.steps + t) * self.directions + d,
            false => (t * self.directions + d) * self.batch + b,
        };
        index * self.size
    }

    fn output_dims(&self) -> [usize; 4] {
        match self.batch_first {
            true => [self.batch, self.steps, self.directions, self.size],
            false => [self.steps, self.directions, self.batch, self.size],
        }
    }

    fn input(&self, t: usize, b: usize) -> usize {
        let index = match self.batch_first {
            true => b * self.steps + t,
            false => t * self.batch + b,
        };
        index * self.width
    }
}

fn direction(word: Option<&str>) -> Result<usize> {
    match word.unwrap_or("forward") {
        "forward" | "reverse" => Ok(1),
        "bidirectional" => Ok(2),
        other => Err(Error::invalid(format!(
            "direction \"{other}\" is none of forward, reverse, bidirectional"
        ))),
    }
}

/// An input of these lengths, zeros where it is left out.
fn or_zeros(cx: &EvalCx, i: usize, dims: &[usize]) -> Result<Vec<f64>> {
    match cx.optional(i) {
        None => Ok(vec![0.0; checked_count(dims)?]),
        Some(t) => {
            expect_dims(&format!("input {i}"), t, dims)?;
            floats(t)
        }
    }
}

fn directions(cx: &EvalCx, e: &Extent, cell: &Cell) -> Result<Vec<Direction>> {
    let functions = functions(cx, cell.defaults, e.directions)?;
    let bias = or_zeros(cx, 3, &[e.directions, 2 * cell.gates * e.size])?;
    let peephole = match cx.optional(7) {
        Some(_) => or_zeros(cx, 7, &[e.directions, 3 * e.size])?,
        None => Vec::new(),
    };
    let (w, r) = (floats(cx.input(1)?)?, floats(cx.input(2)?)?);
    let part =
        |v: &[f64], d: usize| v[v.len() / e.directions * d..][..v.len() / e.directions].to_vec();
    let each = cell.defaults.len();
    let clip = cx
        .node
        .float("clip")
        .map_or(f64::INFINITY, |c| f64::from(c.abs()));
    if clip.is_nan() {
        return Err(Error::invalid("the clip is no number"));
    }
    Ok((0..e.directions)
        .map(|d| Direction {
            size: e.size,
            width: e.width,
            w: part(&w, d),
            r: part(&r, d),
            bias: part(&bias, d),
            peephole: part(&peephole, d),
            clip,
            functions: functions[d * each..][..each].to_vec(),
            linear_before_reset: cx.int("linear_before_reset", 0) != 0,
            input_forget: cx.int("input_forget", 0) != 0,
        })
        .collect())
}

fn eval(cx: &EvalCx, cell: &Cell) -> Result<Vec<Tensor>> {
    let e = Extent::of(cx, cell.gates)?;
    let x = cx.input(0)?;
    let mut data = floats(x)?;
    if let Some(narrow) = cell.narrow {
        data = narrow(&data)?;
    }
    let mut hidden = or_zeros(cx, 5, &e.state_dims())?;
    let mut cells = or_zeros(cx, 6, &e.state_dims())?;
    let lens = match cx.optional(4) {
        None => vec![e.steps; e.batch],
        Some(t) => {
            expect_dims("sequence_lens", t, &[e.batch])?;
            let len = |l: i64| usize::try_from(l).unwrap_or(0).min(e.steps);
            t.to_i64()?.into_iter().map(len).collect()
        }
    };
    let mut y = vec![0.0; checked_count(&e.output_dims())?];
    for (d, weights) in directions(cx, &e, cell)?.iter().enumerate() {
        let backwards = d == 1 || cx.node.string("direction") == Some("reverse");
        for (b, &len) in lens.iter().enumerate() {
            let at = e.state(d, b)..e.state(d, b) + e.size;
            let mut state = State {
                hidden: hidden[at.clone()].to_vec(),
                cell: cells[at.clone()].to_vec(),
            };
            for step in 0..len {
                let t = if backwards { len - 1 - step } else { step };
                if let Some(narrow) = cell.narrow {
                    state.hidden = narrow(&state.hidden)?;
                }
                (cell.step)(weights, &data[e.input(t, b)..][..e.width], &mut state);
                y[e.output(t, d, b)..][..e.size].copy_from_slice(&state.hidden);
            }
            hidden[at.clone()].copy_from_slice(&state.hidden);
            cells[at].copy_from_slice(&state.cell);
        }
    }
    let mut out = vec![
        from_floats(x.dtype(), &e.output_dims(), y)?,
        from_floats(x.dtype(), &e.state_dims(), hidden)?,
    ];
    if cell.gates == 4 {
        out.push(from_floats(x.dtype(), &e.state_dims(), cells)?);
    }
    Ok(out)
}

/// The rule of all three: `states` state outputs follow the sequence of outputs.
fn infer(cx: &mut InferCx, states: usize) -> Result<()> {
    let directions = Dim::Known(direction(cx.node.string("direction"))?);
    let dim = |i: usize, axis: usize| match cx.shape(i) {
        None => Ok(Dim::Unknown),
        Some(s) if s.rank() == 3 => Ok(s[axis].clone()),
        Some(s) => Err(Error::invalid(format!(
            "input {i} should have 3 axes, found {s}"
        ))),
    };
    let size = dim(2, 2)?;
    let (first, second) = (dim(0, 0)?, dim(0, 1)?);
    let (sequence, state): (Shape, Shape) = if cx.node.int("layout").unwrap_or(0) != 0 {
        (
            [first.clone(), second, directions.clone(), size.clone()]
                .into_iter()
                .collect(),
            [first, directions, size].into_iter().collect(),
        )
    } else {
        (
            [first, directions.clone(), second.clone(), size.clone()]
                .into_iter()
                .collect(),
            [directions, second, size].into_iter().collect(),
        )
    };
    let dtype = cx.dtype(0);
    cx.set_tensor(0, dtype, Some(sequence));
    for o in 1..=states {
        cx.set_tensor(o, dtype, Some(state.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_one_neuron_is_its_activation() {
        let d = Direction {
            size: 1,
            width: 1,
            w: vec![2.0],
            r: vec![1.0],
            bias: vec![0.25, 0.25],
            peephole: Vec::new(),
            clip: 1.0,
            functions: vec![Function {
                f: FUNCTIONS[0].3,
                alpha: 1.0,
                beta: 0.0,
            }],
            linear_before_reset: false,
            input_forget: false,
        };
        let mut s = State {
            hidden: vec![-2.0],
            cell: Vec::new(),
        };
        rnn_step(&d, &[1.0], &mut s);
        assert_eq!(s.hidden, [0.5]);
        rnn_step(&d, &[1.0], &mut s);
        assert_eq!(s.hidden, [1.0]);
    }
}
