//! Gradients of recurrent cells through time: the forward pass is run again and keeps its gates, steps
//! are taken back one by one, and what they leave is multiplied for all steps together.

use super::back;
use super::{Activation, Cell, Inputs, Live, Recurrent, Room, Sizes};
use crate::Ctx;
use crate::activation::Derivative;
use crate::arena::with_scratch;
use crate::gemm::{Epilogue, Order, PackedF32, Side, gemm, products};
use crate::norm::column_sums;
use crate::parts::add_to;

/// The gradients of what a run makes, laid out like it; what is left out is 0.
#[derive(Clone, Copy, Debug)]
pub struct Slopes<'a> {
    /// Of the outputs of all steps.
    pub all: Option<&'a [f32]>,
    /// Of the last state.
    pub state: Option<&'a [f32]>,
    /// Of the last cell.
    pub cell: Option<&'a [f32]>,
}

/// Where gradients go, each laid out like what it belongs to; what is left out is not computed.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input.
    pub x: Option<&'a mut [f32]>,
    /// Of the weights of the input.
    pub w: Option<&'a mut [f32]>,
    /// Of those of the state.
    pub r: Option<&'a mut [f32]>,
    /// Of the biases.
    pub bias: Option<&'a mut [f32]>,
    /// Of the first state.
    pub state: Option<&'a mut [f32]>,
    /// Of the first cell of an LSTM.
    pub cell: Option<&'a mut [f32]>,
}

/// What the way back works with; all but the last three are for each step, by time.
struct Way<'a> {
    room: Room<'a>,
    /// Of a GRU the gradients of the sums that the state makes: of all gates where the reset gate
    /// works late, else of update and reset gate; behind them those of the hidden gate.
    of_state: &'a mut [f32],
    /// A state more.
    next: &'a mut [f32],
    /// And another.
    between: &'a mut [f32],
}

impl Cell {
    /// Whether [`Recurrent::gradients`] knows the way back.
    pub fn has_gradient(self) -> bool {
        match self {
            Self::Rnn { functions } => functions.iter().all(|&f| derivative(f).is_some()),
            _ => true,
        }
    }
}

/// The derivative of a function by its value.
fn derivative(f: Activation) -> Option<Derivative> {
    match f {
        Activation::Tanh => Some(Derivative::Tanh),
        Activation::Relu => Some(Derivative::Relu),
        Activation::Sigmoid => Some(Derivative::Sigmoid),
        _ => None,
    }
}

impl Recurrent {
    /// The gradients of a run with weights `w` and `r`, which this was made of, from those of its
    /// outputs. They do not depend on the number of threads.
    pub fn gradients(
        &self,
        ctx: &Ctx,
        [w, r]: [&[f32]; 2],
        inputs: Inputs,
        slopes: Slopes,
        mut to: Gradients,
    ) {
        let [steps, batch] = inputs.sizes;
        self.check(&inputs);
        let size = batch * self.sizes.hidden;
        let rows = self.cell.gates() * size;
        let [cells, spare] = self.cell.keeps().map(usize::from);
        let lengths = [
            steps * rows,
            steps * rows,
            (steps + 1) * size,
            cells * (steps + 1) * size,
            spare * steps * size,
            3 * spare * steps * size,
        ];
        let whole = lengths.iter().sum::<usize>() + 4 * size;
        with_scratch(whole, |scratch: &mut [f32]| {
            let mut rest = scratch;
            let mut take = |n: usize| {
                let (part, others) = std::mem::take(&mut rest).split_at_mut(n);
                rest = others;
                part
            };
            let [given, gates, states, cells, spare, of_state] = lengths.map(&mut take);
            let [h, c, next, between] = [size; 4].map(&mut take);
            let mut way = Way {
                room: Room {
                    given,
                    gates,
                    spare,
                    h,
                    c,
                    kept: Some([states, cells]),
                },
                of_state,
                next,
                between,
            };
            for d in 0..self.directions.len() {
                if inputs.lengths.is_some() {
                    // What steps leave out is multiplied by 0.
                    way.room.spare.fill(0.0);
                }
                self.direction(ctx, d, &inputs, &mut way.room, None);
                self.back(ctx, d, r, &inputs, &slopes, &mut way);
                self.multiply(ctx, d, w, inputs.x, &way, &mut to);
                for (to, from) in [(&mut to.state, &*way.room.h), (&mut to.cell, &*way.room.c)] {
                    if let Some(to) = to {
                        to[d * size..][..size].copy_from_slice(from);
                    }
                }
            }
        });
    }

    /// Takes the steps of direction `d` back, from the states that it has kept. In the end the products
    /// of inputs are the gradients of the sums of gates, and states are those of the first ones.
    fn back(
        &self,
        ctx: &Ctx,
        d: usize,
        r: &[f32],
        inputs: &Inputs,
        slopes: &Slopes,
        way: &mut Way,
    ) {
        let ([steps, batch], n) = (inputs.sizes, self.sizes.hidden);
        let (size, count, is_reverse) = (
            batch * n,
            self.directions.len(),
            self.directions[d].is_reverse,
        );
        for (state, slope) in [
            (&mut *way.room.h, slopes.state),
            (&mut *way.room.c, slopes.cell),
        ] {
            match slope {
                Some(slope) => state.copy_from_slice(&slope[d * size..][..size]),
                None => state.fill(0.0),
            }
        }
        let weights = BackWeights::new(ctx, self.cell, n, &r[d * self.cell.gates() * n * n..]);
        for step in 0..steps {
            let time = if is_reverse { step } else { steps - 1 - step };
            let live = Live {
                time,
                lengths: inputs.lengths,
            };
            let dy = slopes
                .all
                .map(|all| &all[(time * count + d) * size..][..size]);
            let place = Place {
                live,
                time,
                before: time + usize::from(is_reverse),
                behind: time + usize::from(!is_reverse),
            };
            match self.cell {
                Cell::Rnn { functions } => way.rnn(ctx, place, functions[d], dy, &weights),
                Cell::Lstm => way.lstm(ctx, place, dy, &weights),
                Cell::Gru { .. } => way.gru(ctx, place, dy, &weights),
            }
        }
    }

    /// The products of direction `d` over all steps.
    fn multiply(&self, ctx: &Ctx, d: usize, w: &[f32], x: &[f32], way: &Way, to: &mut Gradients) {
        let Sizes { input, hidden: n } = self.sizes;
        let wide = self.cell.gates() * n;
        let (sums, count) = (&*way.room.given, way.room.given.len() / wide);
        if let Some(dx) = &mut to.x {
            let w = PackedF32::new(
                ctx,
                &w[d * wide * input..][..wide * input],
                Order::KN,
                wide,
                input,
            );
            let plain = Epilogue::default();
            if d == 0 {
                gemm(ctx, count, sums, wide, &w, dx, input, &plain);
            } else {
                with_scratch(dx.len(), |more: &mut [f32]| {
                    gemm(ctx, count, sums, wide, &w, more, input, &plain);
                    add_to(ctx, dx, more);
                });
            }
        }
        if let Some(dw) = &mut to.w {
            let dw = &mut dw[d * wide * input..][..wide * input];
            turned_product(ctx, sums, x, dw, [wide, count, input]);
        }
        let (size, is_reverse) = (way.next.len(), self.directions[d].is_reverse);
        if let (Some(dr), Some([states, _])) = (&mut to.r, &way.room.kept) {
            let dr = &mut dr[d * wide * n..][..wide * n];
            let before = &states[usize::from(is_reverse) * size..][..count * n];
            match self.cell {
                Cell::Gru {
                    linear_before_reset: false,
                } => {
                    let (gates, hidden) = dr.split_at_mut(2 * n * n);
                    let (of_gates, of_hidden) = way.of_state.split_at(2 * count * n);
                    turned_product(ctx, of_gates, before, gates, [2 * n, count, n]);
                    turned_product(ctx, of_hidden, way.room.spare, hidden, [n, count, n]);
                }
                Cell::Gru { .. } => {
                    turned_product(ctx, way.of_state, before, dr, [wide, count, n]);
                }
                _ => turned_product(ctx, sums, before, dr, [wide, count, n]),
            }
        }
        if let Some(bias) = &mut to.bias {
            let (own, recurrent) = bias[d * 2 * wide..][..2 * wide].split_at_mut(wide);
            column_sums(ctx, sums, own);
            match self.cell {
                Cell::Gru {
                    linear_before_reset: true,
                } => column_sums(ctx, way.of_state, recurrent),
                _ => recurrent.copy_from_slice(own),
            }
        }
    }
}

/// `c = aᵀ b` of `[k, m]` and `[k, n]`.
fn turned_product(ctx: &Ctx, a: &[f32], b: &[f32], c: &mut [f32], size: [usize; 3]) {
    let side = |data, turned| Side {
        data,
        step: 0,
        turned,
    };
    let sides = [side(a, true), side(b, false)];
    products(ctx, 1, size, sides, 1.0, c, &Epilogue::default());
}

/// The weights of the state, for products from the gates.
struct BackWeights {
    /// Of all gates; of a GRU whose reset gate works early, of the first two.
    gates: PackedF32,
    /// Of the hidden gate of such a GRU.
    hidden: Option<PackedF32>,
}

impl BackWeights {
    fn new(ctx: &Ctx, cell: Cell, n: usize, r: &[f32]) -> Self {
        let early = Cell::Gru {
            linear_before_reset: false,
        };
        let own = if cell == early {
            2 * n
        } else {
            cell.gates() * n
        };
        // As exact as on the way forward.
        let exact = ctx.clone().with_bf16(false);
        let pack = |r: &[f32]| PackedF32::new(&exact, r, Order::KN, r.len() / n, n);
        Self {
            gates: pack(&r[..own * n]),
            hidden: (cell == early).then(|| pack(&r[own * n..][..n * n])),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    live: Live<'a>,
    time: usize,
    /// Places of the states before and behind the step.
    before: usize,
    behind: usize,
}

impl Way<'_> {
    /// The slope of the states before a step: what is left of it, and what `sums` give by `weights`.
    fn through(&mut self, ctx: &Ctx, live: Live, sums: Sums, time: usize, weights: &PackedF32) {
        let size = self.next.len();
        let n = weights.n();
        let (slope, next) = (&mut self.room.h, &mut self.next);
        let sums = match sums {
            Sums::OfInput => &self.room.given[..],
            Sums::OfState => &self.of_state[..],
        };
        let wide = weights.k();
        let sums = &sums[time * size / n * wide..][..size / n * wide];
        let span = live.span(size / n);
        if span.len() < size / n {
            next.copy_from_slice(slope);
        }
        let rows = span.start * n..span.end * n;
        let epilogue = Epilogue {
            residual: Some(slope[rows.clone()].into()),
            ..Epilogue::default()
        };
        let from = &sums[span.start * wide..span.end * wide];
        gemm(
            ctx,
            span.len(),
            from,
            wide,
            weights,
            &mut next[rows],
            n,
            &epilogue,
        );
        std::mem::swap(slope, next);
    }

    fn rnn(
        &mut self,
        ctx: &Ctx,
        place: Place,
        function: Activation,
        dy: Option<&[f32]>,
        weights: &BackWeights,
    ) {
        let (size, n) = (self.next.len(), weights.gates.n());
        let Some([states, _]) = &self.room.kept else {
            return;
        };
        if let Some(dy) = dy {
            for b in (0..size / n).filter(|&b| place.live.has(b)) {
                let rows = b * n..(b + 1) * n;
                let slope = self.room.h[rows.clone()].iter_mut();
                slope.zip(&dy[rows]).for_each(|(s, d)| *s += d);
            }
        }
        let states = &states[place.behind * size..][..size];
        let sums = &mut self.room.given[place.time * size..][..size];
        if let Some(derivative) = derivative(function) {
            derivative.apply_to(ctx, states, self.room.h, sums);
        }
        for b in 0..size / n {
            let done = match place.live.has(b) {
                true => &mut *self.room.h,
                false => &mut *sums,
            };
            done[b * n..][..n].fill(0.0);
        }
        self.through(ctx, place.live, Sums::OfInput, place.time, &weights.gates);
    }

    fn lstm(&mut self, ctx: &Ctx, place: Place, dy: Option<&[f32]>, weights: &BackWeights) {
        let (size, n) = (self.next.len(), weights.gates.n());
        let room = &mut self.room;
        let Some([_, cells]) = &room.kept else {
            return;
        };
        let gates = &room.gates[place.time * 4 * size..][..4 * size];
        let cells = [place.before, place.behind].map(|at| &cells[at * size..][..size]);
        let sums = &mut room.given[place.time * 4 * size..][..4 * size];
        let slopes = [&mut *room.h, &mut *room.c];
        back::lstm(ctx, place.live, n, (gates, cells), dy, slopes, sums);
        self.through(ctx, place.live, Sums::OfInput, place.time, &weights.gates);
    }

    fn gru(&mut self, ctx: &Ctx, place: Place, dy: Option<&[f32]>, weights: &BackWeights) {
        let (size, n) = (self.next.len(), weights.gates.n());
        let (live, time) = (place.live, place.time);
        let room = &mut self.room;
        let Some([states, _]) = &room.kept else {
            return;
        };
        let before = &states[place.before * size..][..size];
        let gates = &room.gates[time * 3 * size..][..3 * size];
        let sums = &mut room.given[time * 3 * size..][..3 * size];
        let from = (gates, before);
        let Some(hidden) = &weights.hidden else {
            let kept = &room.spare[time * size..][..size];
            let of_state = &mut self.of_state[time * 3 * size..][..3 * size];
            let late = Some((kept, of_state));
            back::gru(ctx, live, n, from, dy, room.h, (sums, late));
            self.through(ctx, live, Sums::OfState, time, &weights.gates);
            return;
        };
        back::gru(ctx, live, n, from, dy, room.h, (&mut *sums, None));
        let whole = self.of_state.len() / 3 * 2;
        let (of_gates, of_hidden) = self.of_state.split_at_mut(whole);
        let of_gates = &mut of_gates[time * 2 * size..][..2 * size];
        let of_hidden = &mut of_hidden[time * size..][..size];
        for (to, from) in of_hidden.chunks_exact_mut(n).zip(sums.chunks_exact(3 * n)) {
            to.copy_from_slice(&from[2 * n..]);
        }
        let faded = &mut *self.between;
        gemm(
            ctx,
            size / n,
            of_hidden,
            n,
            hidden,
            faded,
            n,
            &Epilogue::default(),
        );
        let from = (gates, before, &*faded);
        back::gru_reset(ctx, live, n, from, room.h, [sums, of_gates]);
        self.through(ctx, live, Sums::OfState, time, &weights.gates);
    }
}

/// Which sums go back to the states.
#[derive(Clone, Copy)]
enum Sums {
    OfInput,
    OfState,
}
