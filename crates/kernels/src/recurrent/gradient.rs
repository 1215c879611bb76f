//! Gradients of recurrent cells through time: steps are taken back one by one by the gates that the run forward
//! kept, and what they leave is multiplied for all steps together.

use super::run::{Inputs, Outputs, kept_by};
use super::steps::Live;
use super::{Activation, Cell, Form, Recurrent, Sizes, back};
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

/// What the way back reads of the way forward, by time.
#[derive(Clone, Copy)]
struct Kept<'a> {
    gates: &'a [f32],
    /// States before and behind each step.
    states: &'a [f32],
    /// Cells of an LSTM, alike.
    cells: &'a [f32],
    /// What a GRU needs of its hidden gate.
    spare: &'a [f32],
}

impl<'a> Kept<'a> {
    fn of(kept: &'a [f32], lengths: [usize; 4]) -> Self {
        let (gates, rest) = kept.split_at(lengths[0]);
        let (states, rest) = rest.split_at(lengths[1]);
        let (cells, spare) = rest.split_at(lengths[2]);
        Self {
            gates,
            states,
            cells,
            spare,
        }
    }
}

/// What the way back works with.
struct Way<'a> {
    form: Form<'a>,
    kept: Kept<'a>,
    /// The gradients of the sums of all gates that inputs make, of each step.
    sums: &'a mut [f32],
    /// Of a GRU the gradients of the sums that the state makes, of each step: of all gates where the reset
    /// gate works late; else of update and reset gate for all steps, then those of the hidden gate.
    of_state: &'a mut [f32],
    /// The gradient of states behind the step that comes next.
    slope: &'a mut [f32],
    /// That of cells.
    of_cells: &'a mut [f32],
    /// The slope of states before a step, while it is made.
    next: &'a mut [f32],
    /// The slope of what a reset gate leaves of states.
    between: &'a mut [f32],
}

impl Cell {
    /// Whether [`gradients`] knows the way back.
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

/// The gradients of a run from those of its outputs; of `weights` as [`Recurrent::new`] takes them, and what
/// the run kept ([`super::kept`]), without which it is run again. They do not depend on the number of threads.
pub fn gradients(
    ctx: &Ctx,
    form: Form,
    weights: (&[f32], &[f32], Option<&[f32]>),
    inputs: Inputs,
    kept: Option<&[f32]>,
    slopes: Slopes,
    to: Gradients,
) {
    inputs.check(form.sizes.input);
    if let Some(kept) = kept {
        return of_kept(ctx, form, [weights.0, weights.1], inputs, kept, slopes, to);
    }
    with_scratch(super::kept(form, inputs.sizes), |kept: &mut [f32]| {
        let none = Outputs {
            all: None,
            state: None,
            cell: None,
        };
        Recurrent::new(ctx, form, weights).run(ctx, inputs, none, Some(kept));
        of_kept(ctx, form, [weights.0, weights.1], inputs, kept, slopes, to);
    });
}

/// [`gradients`] by what the run kept.
fn of_kept(
    ctx: &Ctx,
    form: Form,
    [w, r]: [&[f32]; 2],
    inputs: Inputs,
    kept: &[f32],
    slopes: Slopes,
    mut to: Gradients,
) {
    let [steps, batch] = inputs.sizes;
    let size = batch * form.sizes.hidden;
    let lengths = kept_by(form.cell, steps, size);
    let whole: usize = lengths.iter().sum();
    let (of_sums, of_state) = (lengths[0], 3 * lengths[3]);
    with_scratch(of_sums + of_state + 4 * size, |scratch: &mut [f32]| {
        let (sums, rest) = scratch.split_at_mut(of_sums);
        let (of_state, rest) = rest.split_at_mut(of_state);
        let (slope, rest) = rest.split_at_mut(size);
        let (of_cells, rest) = rest.split_at_mut(size);
        let (next, between) = rest.split_at_mut(size);
        for d in 0..form.directions.len() {
            let mut way = Way {
                form,
                kept: Kept::of(&kept[d * whole..][..whole], lengths),
                sums: &mut *sums,
                of_state: &mut *of_state,
                slope: &mut *slope,
                of_cells: &mut *of_cells,
                next: &mut *next,
                between: &mut *between,
            };
            way.back(ctx, d, r, &inputs, &slopes);
            way.multiply(ctx, d, w, inputs.x, &mut to);
            for (to, from) in [(&mut to.state, &*way.slope), (&mut to.cell, &*way.of_cells)] {
                if let Some(to) = to {
                    to[d * size..][..size].copy_from_slice(from);
                }
            }
        }
    });
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
    /// Takes the steps of direction `d` back. In the end slopes are those of the first states and cells.
    fn back(&mut self, ctx: &Ctx, d: usize, r: &[f32], inputs: &Inputs, slopes: &Slopes) {
        let ([steps, batch], n) = (inputs.sizes, self.form.sizes.hidden);
        let (size, count, is_reverse) = (
            batch * n,
            self.form.directions.len(),
            self.form.directions[d],
        );
        for (state, slope) in [
            (&mut *self.slope, slopes.state),
            (&mut *self.of_cells, slopes.cell),
        ] {
            match slope {
                Some(slope) => state.copy_from_slice(&slope[d * size..][..size]),
                None => state.fill(0.0),
            }
        }
        let weights = BackWeights::new(
            ctx,
            self.form.cell,
            n,
            &r[d * self.form.cell.gates() * n * n..],
        );
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
            match self.form.cell {
                Cell::Rnn { functions } => self.rnn(ctx, place, functions[d], dy, &weights),
                Cell::Lstm => self.lstm(ctx, place, dy, &weights),
                Cell::Gru { .. } => self.gru(ctx, place, dy, &weights),
            }
        }
    }

    /// The products of direction `d` over all steps.
    fn multiply(&self, ctx: &Ctx, d: usize, w: &[f32], x: &[f32], to: &mut Gradients) {
        let Sizes { input, hidden: n } = self.form.sizes;
        let wide = self.form.cell.gates() * n;
        let (sums, count) = (&*self.sums, self.sums.len() / wide);
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
        let (size, is_reverse) = (self.next.len(), self.form.directions[d]);
        if let Some(dr) = &mut to.r {
            let dr = &mut dr[d * wide * n..][..wide * n];
            let before = &self.kept.states[usize::from(is_reverse) * size..][..count * n];
            match self.form.cell {
                Cell::Gru {
                    linear_before_reset: false,
                } => {
                    let (gates, hidden) = dr.split_at_mut(2 * n * n);
                    let (of_gates, of_hidden) = self.of_state.split_at(2 * count * n);
                    turned_product(ctx, of_gates, before, gates, [2 * n, count, n]);
                    turned_product(ctx, of_hidden, self.kept.spare, hidden, [n, count, n]);
                }
                Cell::Gru { .. } => {
                    turned_product(ctx, self.of_state, before, dr, [wide, count, n]);
                }
                _ => turned_product(ctx, sums, before, dr, [wide, count, n]),
            }
        }
        if let Some(bias) = &mut to.bias {
            let (own, recurrent) = bias[d * 2 * wide..][..2 * wide].split_at_mut(wide);
            column_sums(ctx, sums, own);
            match self.form.cell {
                Cell::Gru {
                    linear_before_reset: true,
                } => column_sums(ctx, self.of_state, recurrent),
                _ => recurrent.copy_from_slice(own),
            }
        }
    }

    /// The slope of the states before a step: what is left of it, and what `sums` give by `weights`.
    fn through(&mut self, ctx: &Ctx, live: Live, sums: Sums, time: usize, weights: &PackedF32) {
        let size = self.next.len();
        let n = weights.n();
        let (slope, next) = (&mut self.slope, &mut self.next);
        let sums = match sums {
            Sums::OfInput => &self.sums[..],
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
        if let Some(dy) = dy {
            for b in (0..size / n).filter(|&b| place.live.has(b)) {
                let rows = b * n..(b + 1) * n;
                let slope = self.slope[rows.clone()].iter_mut();
                slope.zip(&dy[rows]).for_each(|(s, d)| *s += d);
            }
        }
        let states = &self.kept.states[place.behind * size..][..size];
        let sums = &mut self.sums[place.time * size..][..size];
        if let Some(derivative) = derivative(function) {
            derivative.apply_to(ctx, states, self.slope, sums);
        }
        for b in 0..size / n {
            let done = match place.live.has(b) {
                true => &mut *self.slope,
                false => &mut *sums,
            };
            done[b * n..][..n].fill(0.0);
        }
        self.through(ctx, place.live, Sums::OfInput, place.time, &weights.gates);
    }

    fn lstm(&mut self, ctx: &Ctx, place: Place, dy: Option<&[f32]>, weights: &BackWeights) {
        let (size, n) = (self.next.len(), weights.gates.n());
        let gates = &self.kept.gates[place.time * 4 * size..][..4 * size];
        let cells = [place.before, place.behind].map(|at| &self.kept.cells[at * size..][..size]);
        let sums = &mut self.sums[place.time * 4 * size..][..4 * size];
        let slopes = [&mut *self.slope, &mut *self.of_cells];
        back::lstm(ctx, place.live, n, (gates, cells), dy, slopes, sums);
        self.through(ctx, place.live, Sums::OfInput, place.time, &weights.gates);
    }

    fn gru(&mut self, ctx: &Ctx, place: Place, dy: Option<&[f32]>, weights: &BackWeights) {
        let (size, n) = (self.next.len(), weights.gates.n());
        let (live, time) = (place.live, place.time);
        let before = &self.kept.states[place.before * size..][..size];
        let gates = &self.kept.gates[time * 3 * size..][..3 * size];
        let sums = &mut self.sums[time * 3 * size..][..3 * size];
        let from = (gates, before);
        let Some(hidden) = &weights.hidden else {
            let kept = &self.kept.spare[time * size..][..size];
            let of_state = &mut self.of_state[time * 3 * size..][..3 * size];
            let late = Some((kept, of_state));
            back::gru(ctx, live, n, from, dy, self.slope, (sums, late));
            self.through(ctx, live, Sums::OfState, time, &weights.gates);
            return;
        };
        back::gru(ctx, live, n, from, dy, self.slope, (&mut *sums, None));
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
        back::gru_reset(ctx, live, n, from, self.slope, [sums, of_gates]);
        self.through(ctx, live, Sums::OfState, time, &weights.gates);
    }
}

/// Which sums go back to the states.
#[derive(Clone, Copy)]
enum Sums {
    OfInput,
    OfState,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    /// The outputs of a run and its gradients, one after another.
    fn all(ctx: &Ctx, cell: Cell, sizes: Sizes, directions: &[bool], seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let [steps, batch] = [1 + random.below(5), 1 + random.below(40)];
        let Sizes { input, hidden } = sizes;
        let (d, rows) = (directions.len(), cell.gates() * hidden);
        let of = |random: &mut Random, n: usize, most: f32| -> Vec<f32> {
            random.floats(n).iter().map(|x| x * most).collect()
        };
        let small = 1.0 / (hidden as f32).sqrt();
        let w = of(&mut random, d * rows * input, 1.0);
        let r = of(&mut random, d * rows * hidden, small);
        let bias = of(&mut random, d * 2 * rows, 1.0);
        let x = of(&mut random, steps * batch * input, 1.0);
        let [h, c, dh, dc] = [0; 4].map(|_| of(&mut random, d * batch * hidden, 1.0));
        let dy = of(&mut random, steps * d * batch * hidden, 1.0);
        let lengths: Vec<usize> = (0..batch).map(|_| random.below(steps + 1)).collect();
        let inputs = Inputs {
            sizes: [steps, batch],
            x: &x,
            start: [Some(&h), Some(&c)],
            lengths: seed.is_multiple_of(2).then_some(&lengths),
        };
        let form = Form {
            cell,
            sizes,
            directions,
        };
        let weights = (&w[..], &r[..], Some(&bias[..]));
        let recurrent = Recurrent::new(ctx, form, weights);
        let mut kept = vec![f32::NAN; super::super::kept(form, inputs.sizes)];
        let [mut y, mut state, mut of_cell] = [&dy, &h, &c].map(|x| vec![f32::NAN; x.len()]);
        let outputs = Outputs {
            all: Some(&mut y),
            state: Some(&mut state),
            cell: Some(&mut of_cell),
        };
        recurrent.run(ctx, inputs, outputs, Some(&mut kept));
        let made = [&x, &w, &r, &bias, &h, &c];
        let [mut dx, mut dw, mut dr, mut db, mut first, mut of_first] =
            made.map(|x| vec![f32::NAN; x.len()]);
        let to = Gradients {
            x: Some(&mut dx),
            w: Some(&mut dw),
            r: Some(&mut dr),
            bias: Some(&mut db),
            state: Some(&mut first),
            cell: Some(&mut of_first),
        };
        let slopes = Slopes {
            all: Some(&dy),
            state: Some(&dh),
            cell: Some(&dc),
        };
        let kept = (!seed.is_multiple_of(3)).then_some(&kept[..]);
        gradients(ctx, form, weights, inputs, kept, slopes, to);
        [y, state, of_cell, dx, dw, dr, db, first, of_first].concat()
    }

    #[test]
    fn all_sets_give_about_the_same_and_threads_change_nothing() {
        let rnn = |f| Cell::Rnn { functions: [f; 2] };
        let gru = |linear_before_reset| Cell::Gru {
            linear_before_reset,
        };
        let cells = [
            Cell::Lstm,
            gru(false),
            gru(true),
            rnn(Activation::Tanh),
            rnn(Activation::Relu),
            rnn(Activation::Sigmoid),
        ];
        for (i, cell) in cells.into_iter().enumerate() {
            for (j, directions) in [&[false][..], &[true], &[false, true]]
                .into_iter()
                .enumerate()
            {
                for (k, hidden) in [1, 7, 16, 90].into_iter().enumerate() {
                    let sizes = Sizes { input: 5, hidden };
                    let seed = (i * 100 + j * 10 + k) as u64;
                    let mut last: Option<(crate::Isa, Vec<f32>)> = None;
                    for ctx in contexts() {
                        let found = all(&ctx, cell, sizes, directions, seed);
                        assert!(found.iter().all(|x| x.is_finite()), "{cell:?} {sizes:?}");
                        match &last {
                            Some((isa, one)) if *isa == ctx.isa() => {
                                assert_eq!(one, &found, "{cell:?} {sizes:?}: threads");
                            }
                            Some((_, one)) => {
                                close(&found, one, 1e-4, &format!("{cell:?} {sizes:?}"));
                            }
                            None => {}
                        }
                        last = Some((ctx.isa(), found));
                    }
                }
            }
        }
    }
}
