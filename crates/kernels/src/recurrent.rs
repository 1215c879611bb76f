//! RNN, LSTM and GRU with packed weights: the inputs of all steps in one product, then step by step.
//! An LSTM may have weights of bytes; its inputs are then quantised as they come.

use crate::Ctx;
use crate::activation::Activation;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::{Bytes, Epilogue, Input8, Order, Output8, PackedF32, PackedI8, gemm, gemm8};
use crate::quantize::quantize8_dynamically;

mod back;
mod gradient;
mod steps;

pub use gradient::{Gradients, Slopes};
use steps::Live;

/// Which cell it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// One gate, which is the state.
    Rnn {
        /// The function of each direction.
        functions: [Activation; 2],
    },
    /// Gates in ONNX's order: input, output, forget, cell.
    Lstm,
    /// Gates in ONNX's order: update, reset, hidden.
    Gru {
        /// Whether the hidden gate's product is reset, and not the state before it.
        linear_before_reset: bool,
    },
}

impl Cell {
    /// Gates of a cell.
    pub fn gates(self) -> usize {
        match self {
            Self::Rnn { .. } => 1,
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
        }
    }

    /// Elements that are kept beside the gates, of as many as a state has: cells, and what a GRU
    /// needs of its hidden gate.
    fn keeps(self) -> [bool; 2] {
        [self == Self::Lstm, matches!(self, Self::Gru { .. })]
    }
}

/// Sizes of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Elements of an input.
    pub input: usize,
    /// Elements of the state.
    pub hidden: usize,
}

/// A recurrent operator of one or two directions, with packed weights.
#[derive(Debug)]
pub struct Recurrent {
    cell: Cell,
    sizes: Sizes,
    directions: Vec<Direction>,
}

/// The weights of one direction.
#[derive(Debug)]
struct Direction {
    is_reverse: bool,
    /// Of the input, for all gates.
    input: Weights,
    /// Of the state; for GRU those of the update and reset gates.
    state: Weights,
    /// Of the state for the hidden gate of GRU.
    hidden: Option<PackedF32>,
    /// What is added to the product of the input.
    bias: Vec<f32>,
    /// What is added to the product of the state for the hidden gate, before it is reset.
    hidden_bias: Vec<f32>,
}

/// A matrix of weights.
#[derive(Debug)]
enum Weights {
    Floats(PackedF32),
    Bytes(WeightsI8),
}

/// A matrix of bytes, `[K, N]`, and the scale of each column.
#[derive(Debug)]
pub struct WeightsI8 {
    /// The bytes.
    pub packed: PackedI8,
    /// What they are multiplied by.
    pub scales: Vec<f32>,
}

impl Weights {
    fn parts(&self) -> Vec<&Buffer> {
        match self {
            Self::Floats(w) => w.parts().collect(),
            Self::Bytes(w) => w.packed.parts().collect(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Floats(w) => w.bytes(),
            Self::Bytes(w) => w.packed.bytes() + w.scales.len() * 4,
        }
    }

    /// `y = x W + bias`, or plus `residual`, for rows of `x`. Bytes take the rows that `together`
    /// says in one range.
    fn product(&self, ctx: &Ctx, x: &[f32], together: usize, epilogue: Epilogue, y: &mut [f32]) {
        let w = match self {
            Self::Floats(w) => {
                let m = y.len() / w.n().max(1);
                return gemm(ctx, m, x, w.k(), w, y, w.n(), &epilogue);
            }
            Self::Bytes(w) => w,
        };
        let (k, n) = (w.packed.k(), w.packed.n());
        let blocks = x.chunks(together * k).zip(y.chunks_mut(together * n));
        let mut bytes = vec![0; together * k];
        for (x, y) in blocks {
            let bytes = &mut bytes[..x.len()];
            let found = quantize8_dynamically(ctx, x, bytes);
            let scale: Vec<f32> = w.scales.iter().map(|s| s * found.scale).collect();
            let to = Output8::F32 {
                y,
                scale: &scale,
                bias: epilogue.bias,
                activation: epilogue.activation,
            };
            let input = Input8 {
                data: Bytes::U8(bytes),
                zero: found.zero,
            };
            gemm8(ctx, x.len() / k.max(1), input, k, &w.packed, None, to, n);
        }
        if let Some(residual) = epilogue.residual {
            y.iter_mut().zip(residual.f32()).for_each(|(y, r)| *y += r);
        }
    }
}

/// What a run reads beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Steps, and samples of each.
    pub sizes: [usize; 2],
    /// `[steps, batch, input]`.
    pub x: &'a [f32],
    /// States and cells before the first step, each `[directions, batch, hidden]`; zeros where there
    /// are none.
    pub start: [Option<&'a [f32]>; 2],
    /// Steps of each sample, none more than there are: behind them outputs are 0 and states stay. A reverse
    /// direction begins with the last of them.
    pub lengths: Option<&'a [usize]>,
}

/// What a run makes; all are optional.
pub struct Outputs<'a> {
    /// `[steps, directions, batch, hidden]`.
    pub all: Option<&'a mut [f32]>,
    /// The last state, `[directions, batch, hidden]`.
    pub state: Option<&'a mut [f32]>,
    /// The last cell of an LSTM, like the state.
    pub cell: Option<&'a mut [f32]>,
}

/// What a direction works with, and where it leaves what it made.
struct Room<'a> {
    /// The products of all inputs, `[steps, batch, gates * hidden]`.
    given: &'a mut [f32],
    /// Gates of a step, or of each step where those are kept.
    gates: &'a mut [f32],
    /// What a GRU needs of its hidden gate, of a step or of each: the sum of the state that is reset, or
    /// the state that is reset before.
    spare: &'a mut [f32],
    /// The state, which is that of the last step in the end.
    h: &'a mut [f32],
    /// The cell of an LSTM.
    c: &'a mut [f32],
    /// States and cells before and behind each step, by time, one more than steps.
    kept: Option<[&'a mut [f32]; 2]>,
}

impl Recurrent {
    /// Packs weights as ONNX lays them out: `w` is `[directions, gates * hidden, input]`, `r`
    /// `[directions, gates * hidden, hidden]`, `bias` `[directions, 2 * gates * hidden]`. Each
    /// direction says whether it is reverse.
    pub fn new(
        ctx: &Ctx,
        cell: Cell,
        sizes: Sizes,
        (w, r, bias): (&[f32], &[f32], Option<&[f32]>),
        directions: &[bool],
    ) -> Self {
        let Sizes { input, hidden } = sizes;
        let rows = cell.gates() * hidden;
        let direction = |(d, &is_reverse): (usize, &bool)| {
            let w = &w[d * rows * input..][..rows * input];
            let r = &r[d * rows * hidden..][..rows * hidden];
            let both = |i: usize| bias.map_or(0.0, |b| b[(2 * d) * rows + i]);
            let mut sum: Vec<f32> = (0..rows).map(|i| both(i) + both(rows + i)).collect();
            let mut hidden_bias = Vec::new();
            let mut own = rows;
            if let Cell::Gru {
                linear_before_reset,
            } = cell
            {
                own = 2 * hidden;
                if linear_before_reset {
                    (own..rows).for_each(|i| sum[i] = both(i));
                    hidden_bias.extend((own..rows).map(|i| both(rows + i)));
                }
            }
            // A state goes through its product at every step: it stays as exact as f32 is.
            let exact = ctx.clone().with_bf16(false);
            let pack = |r: &[f32], n| PackedF32::new(&exact, r, Order::NK, hidden, n);
            Direction {
                is_reverse,
                input: Weights::Floats(PackedF32::new(ctx, w, Order::NK, input, rows)),
                state: Weights::Floats(pack(&r[..own * hidden], own)),
                hidden: (own < rows).then(|| pack(&r[own * hidden..], rows - own)),
                bias: sum,
                hidden_bias,
            }
        };
        Self {
            cell,
            sizes,
            directions: directions.iter().enumerate().map(direction).collect(),
        }
    }

    /// An LSTM with weights of bytes: of the input and of the state for each direction, its bias,
    /// `2 * 4 * hidden` or nothing, and whether it is reverse. The inputs are quantised together,
    /// the states of each sample at each step.
    pub fn of_bytes(
        sizes: Sizes,
        directions: Vec<(WeightsI8, WeightsI8, Option<&[f32]>, bool)>,
    ) -> Self {
        let rows = 4 * sizes.hidden;
        let directions = directions.into_iter();
        let directions = directions.map(|(input, state, bias, is_reverse)| Direction {
            is_reverse,
            input: Weights::Bytes(input),
            state: Weights::Bytes(state),
            hidden: None,
            bias: bias.map_or(vec![0.0; rows], |b| {
                b[..rows]
                    .iter()
                    .zip(&b[rows..])
                    .map(|(a, b)| a + b)
                    .collect()
            }),
            hidden_bias: Vec::new(),
        });
        Self {
            cell: Cell::Lstm,
            sizes,
            directions: directions.collect(),
        }
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> Vec<&Buffer> {
        let mut parts = Vec::new();
        for d in &self.directions {
            parts.extend(d.input.parts());
            parts.extend(d.state.parts());
            parts.extend(d.hidden.iter().flat_map(PackedF32::parts));
        }
        parts
    }

    /// Size of the packed weights.
    pub fn bytes(&self) -> usize {
        let one = |d: &Direction| {
            let hidden = d.hidden.as_ref().map_or(0, PackedF32::bytes);
            d.input.bytes() + d.state.bytes() + hidden
        };
        self.directions.iter().map(one).sum()
    }

    /// The name of the micro-kernel that does the products.
    pub fn kernel_name(&self) -> &'static str {
        match &self.directions[0].input {
            Weights::Floats(w) => w.kernel_name(),
            Weights::Bytes(w) => w.packed.kernel_name(),
        }
    }

    /// Runs over all steps.
    pub fn run(&self, ctx: &Ctx, inputs: Inputs, outputs: Outputs) {
        let [steps, batch] = inputs.sizes;
        self.check(&inputs);
        let n = batch * self.sizes.hidden;
        let size = (steps + 1) * self.cell.gates() * n + 3 * n;
        match &self.directions[0].input {
            Weights::Floats(_) => with_scratch(size, |scratch: &mut [f32]| {
                self.run_in(ctx, inputs, outputs, scratch);
            }),
            // Products of bytes need the scratch themselves.
            Weights::Bytes(_) => self.run_in(ctx, inputs, outputs, &mut vec![0.0; size]),
        }
    }

    /// Panics where the inputs do not have their lengths.
    fn check(&self, inputs: &Inputs) {
        let [steps, batch] = inputs.sizes;
        let x = steps * batch * self.sizes.input;
        assert_eq!(inputs.x.len(), x, "an input a step");
        let longest = inputs.lengths.map_or(0, |lengths| {
            assert_eq!(lengths.len(), batch, "a length for each sample");
            lengths.iter().copied().max().unwrap_or(0)
        });
        assert!(longest <= steps, "no sample has more steps than there are");
    }

    fn run_in(&self, ctx: &Ctx, inputs: Inputs, mut outputs: Outputs, scratch: &mut [f32]) {
        let [steps, batch] = inputs.sizes;
        let size = batch * self.sizes.hidden;
        let rows = self.cell.gates() * size;
        let (given, rest) = scratch.split_at_mut(steps * rows);
        let (gates, rest) = rest.split_at_mut(rows);
        let (h, rest) = rest.split_at_mut(size);
        let (c, spare) = rest.split_at_mut(size);
        let mut room = Room {
            given,
            gates,
            spare,
            h,
            c,
            kept: None,
        };
        for d in 0..self.directions.len() {
            self.direction(ctx, d, &inputs, &mut room, outputs.all.as_deref_mut());
            for (out, state) in [
                (&mut outputs.state, &*room.h),
                (&mut outputs.cell, &*room.c),
            ] {
                if let Some(out) = out {
                    out[d * size..][..size].copy_from_slice(state);
                }
            }
        }
    }

    /// Runs direction `d`.
    fn direction(
        &self,
        ctx: &Ctx,
        d: usize,
        inputs: &Inputs,
        room: &mut Room,
        mut all: Option<&mut [f32]>,
    ) {
        let [steps, batch] = inputs.sizes;
        let (n, count, direction) = (
            self.sizes.hidden,
            self.directions.len(),
            &self.directions[d],
        );
        let (size, rows) = (batch * n, self.cell.gates() * batch * n);
        for (state, start) in [
            (&mut *room.h, inputs.start[0]),
            (&mut *room.c, inputs.start[1]),
        ] {
            match start {
                Some(start) => state.copy_from_slice(&start[d * size..][..size]),
                None => state.fill(0.0),
            }
        }
        let epilogue = Epilogue {
            bias: Some(&direction.bias),
            ..Epilogue::default()
        };
        let product = (inputs.x, steps * batch);
        direction
            .input
            .product(ctx, product.0, product.1, epilogue, room.given);
        room.keep(if direction.is_reverse { steps } else { 0 });
        for step in 0..steps {
            let time = match direction.is_reverse {
                true => steps - 1 - step,
                false => step,
            };
            let live = Live {
                time,
                lengths: inputs.lengths,
            };
            let place = if room.kept.is_some() { time } else { 0 };
            let mut one = Step {
                n,
                live,
                given: &room.given[time * rows..][..rows],
                gates: &mut room.gates[place * rows..][..rows],
                spare: room.spare.get_mut(place * size..(place + 1) * size),
                h: &mut *room.h,
                c: &mut *room.c,
            };
            if !live.span(batch).is_empty() {
                match self.cell {
                    Cell::Rnn { functions } => one.rnn(ctx, direction, functions[d]),
                    Cell::Lstm => one.lstm(ctx, direction),
                    Cell::Gru { .. } => one.gru(ctx, direction),
                }
            }
            room.keep(time + usize::from(!direction.is_reverse));
            if let Some(all) = &mut all {
                let to = &mut all[(time * count + d) * size..][..size];
                to.copy_from_slice(room.h);
                for b in (0..batch).filter(|&b| !live.has(b)) {
                    to[b * n..][..n].fill(0.0);
                }
            }
        }
    }
}

impl Room<'_> {
    /// Keeps the state at place `at`, where states are kept.
    fn keep(&mut self, at: usize) {
        let size = self.h.len();
        if let Some([states, cells]) = &mut self.kept {
            states[at * size..][..size].copy_from_slice(self.h);
            if let Some(cells) = cells.get_mut(at * size..(at + 1) * size) {
                cells.copy_from_slice(self.c);
            }
        }
    }
}

/// A step of all samples.
struct Step<'a> {
    /// Elements of a state.
    n: usize,
    live: Live<'a>,
    given: &'a [f32],
    gates: &'a mut [f32],
    spare: Option<&'a mut [f32]>,
    h: &'a mut [f32],
    c: &'a mut [f32],
}

impl Step<'_> {
    /// Makes of the rows that live the sums of all gates.
    fn sums(&mut self, ctx: &Ctx, d: &Direction) {
        let span = self.live.span(self.h.len() / self.n);
        let width = self.gates.len() / self.h.len() * self.n;
        let rows = span.start * width..span.end * width;
        let epilogue = Epilogue {
            residual: Some(self.given[rows.clone()].into()),
            ..Epilogue::default()
        };
        let h = &self.h[span.start * self.n..span.end * self.n];
        d.state.product(ctx, h, 1, epilogue, &mut self.gates[rows]);
    }

    fn rnn(&mut self, ctx: &Ctx, d: &Direction, function: Activation) {
        self.sums(ctx, d);
        let (n, live) = (self.n, self.live);
        if live.lengths.is_none() {
            return function.apply_to(ctx, self.gates, self.h);
        }
        let rows = self.gates.chunks_exact(n).zip(self.h.chunks_exact_mut(n));
        for (b, (sums, h)) in rows.enumerate() {
            if live.has(b) {
                function.apply_to(ctx, sums, h);
            }
        }
    }

    fn lstm(&mut self, ctx: &Ctx, d: &Direction) {
        self.sums(ctx, d);
        let states = [&mut *self.h, &mut *self.c];
        steps::lstm(ctx, self.live, self.n, self.gates, states);
    }

    fn gru(&mut self, ctx: &Ctx, d: &Direction) {
        let (n, live, given) = (self.n, self.live, self.given);
        let (Some(hidden), Weights::Floats(state), Some(spare)) =
            (&d.hidden, &d.state, &mut self.spare)
        else {
            return;
        };
        let span = live.span(self.h.len() / n);
        let (rows, wide) = (
            span.start * n..span.end * n,
            3 * span.start * n..3 * span.end * n,
        );
        let whole = Epilogue {
            residual: Some(given[wide.clone()].into()),
            ..Epilogue::default()
        };
        let count = span.len();
        let gates = &mut self.gates[wide.clone()];
        gemm(
            ctx,
            count,
            &self.h[rows.clone()],
            n,
            state,
            gates,
            3 * n,
            &whole,
        );
        let is_late = !d.hidden_bias.is_empty();
        let faded = (!is_late).then_some(&mut **spare);
        steps::gru_gates(ctx, live, n, self.gates, self.h, faded);
        let third = wide.start + 2 * n..wide.end;
        let epilogue = Epilogue {
            bias: is_late.then_some(&d.hidden_bias),
            residual: (!is_late).then(|| given[third.clone()].into()),
            ..Epilogue::default()
        };
        let from = if is_late { &self.h[rows] } else { &spare[rows] };
        let to = &mut self.gates[third];
        gemm(ctx, count, from, n, hidden, to, 3 * n, &epilogue);
        let late = is_late.then_some((given, &mut **spare));
        steps::gru_states(ctx, live, n, self.gates, self.h, late);
    }
}
