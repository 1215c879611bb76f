//! The way of recurrent cells forward: what a run reads and makes, and its steps.

use super::steps::{self, Live};
use super::{Cell, Direction, Recurrent, Weights};
use crate::Ctx;
use crate::activation::Activation;
use crate::arena::with_scratch;
use crate::gemm::{Epilogue, gemm};

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

/// Elements that a direction keeps for the way back: gates, states, cells, and what a GRU needs of its
/// hidden gate.
pub(super) fn kept_by(cell: Cell, steps: usize, size: usize) -> [usize; 4] {
    let has = |is: bool| usize::from(is);
    [
        steps * cell.gates() * size,
        (steps + 1) * size,
        has(cell == Cell::Lstm) * (steps + 1) * size,
        has(matches!(cell, Cell::Gru { .. })) * steps * size,
    ]
}

impl Inputs<'_> {
    /// Panics where they do not have their lengths.
    pub(super) fn check(&self, width: usize) {
        let [steps, batch] = self.sizes;
        assert_eq!(self.x.len(), steps * batch * width, "an input a step");
        let longest = self.lengths.map_or(0, |lengths| {
            assert_eq!(lengths.len(), batch, "a length for each sample");
            lengths.iter().copied().max().unwrap_or(0)
        });
        assert!(longest <= steps, "no sample has more steps than there are");
    }
}

impl Recurrent {
    /// Runs over all steps. What the way back needs goes to `kept`, which has [`super::kept`]
    /// elements.
    pub fn run(&self, ctx: &Ctx, inputs: Inputs, outputs: Outputs, kept: Option<&mut [f32]>) {
        let [steps, batch] = inputs.sizes;
        inputs.check(self.sizes.input);
        let n = batch * self.sizes.hidden;
        let size = (steps + 1) * self.cell.gates() * n + 3 * n;
        match &self.directions[0].input {
            Weights::Floats(_) => with_scratch(size, |scratch: &mut [f32]| {
                self.run_in(ctx, inputs, outputs, kept, scratch);
            }),
            // Products of bytes need the scratch themselves.
            Weights::Bytes(_) => self.run_in(ctx, inputs, outputs, kept, &mut vec![0.0; size]),
        }
    }

    fn run_in(
        &self,
        ctx: &Ctx,
        inputs: Inputs,
        mut outputs: Outputs,
        mut kept: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) {
        let [steps, batch] = inputs.sizes;
        let size = batch * self.sizes.hidden;
        let rows = self.cell.gates() * size;
        let (given, rest) = scratch.split_at_mut(steps * rows);
        let (gates, rest) = rest.split_at_mut(rows);
        let (h, rest) = rest.split_at_mut(size);
        let (c, spare) = rest.split_at_mut(size);
        let each = kept_by(self.cell, steps, size);
        for d in 0..self.directions.len() {
            let mut room = Room {
                given: &mut *given,
                gates: &mut *gates,
                spare: &mut *spare,
                h: &mut *h,
                c: &mut *c,
                kept: None,
            };
            if let Some(kept) = &mut kept {
                let whole: usize = each.iter().sum();
                let own = &mut kept[d * whole..][..whole];
                let (gates, own) = own.split_at_mut(each[0]);
                let (states, own) = own.split_at_mut(each[1]);
                let (cells, spare) = own.split_at_mut(each[2]);
                if inputs.lengths.is_some() {
                    // What steps leave out is multiplied by 0 on the way back.
                    spare.fill(0.0);
                }
                (room.gates, room.spare) = (gates, spare);
                room.kept = Some([states, cells]);
            }
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
        let together = steps * batch;
        direction
            .input
            .product(ctx, inputs.x, together, epilogue, room.given);
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
