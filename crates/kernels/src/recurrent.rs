//! LSTM and GRU with packed weights: the inputs of all steps in one product, then step by step.

use crate::Ctx;
use crate::activation::Activation;
use crate::arena::with_scratch;
use crate::gemm::{Epilogue, Order, PackedF32, gemm};

/// Which cell it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
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
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
        }
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
    input: PackedF32,
    /// Of the state; for GRU those of the update and reset gates.
    state: PackedF32,
    /// Of the state for the hidden gate of GRU.
    hidden: Option<PackedF32>,
    /// What is added to the product of the input.
    bias: Vec<f32>,
    /// What is added to the product of the state for the hidden gate, before it is reset.
    hidden_bias: Vec<f32>,
}

/// What a run makes; all but the states are optional.
pub struct Outputs<'a> {
    /// `[steps, directions, batch, hidden]`.
    pub all: Option<&'a mut [f32]>,
    /// The last state, `[directions, batch, hidden]`.
    pub state: Option<&'a mut [f32]>,
    /// The last cell of an LSTM, like the state.
    pub cell: Option<&'a mut [f32]>,
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
            let pack = |r: &[f32], n| PackedF32::new(ctx, r, Order::NK, hidden, n);
            Direction {
                is_reverse,
                input: PackedF32::new(ctx, w, Order::NK, input, rows),
                state: pack(&r[..own * hidden], own),
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
        self.directions[0].input.kernel_name()
    }

    /// Runs over `x`, `[steps, batch, input]`, from the states and cells `start`, each
    /// `[directions, batch, hidden]`, or from zeros.
    pub fn run(
        &self,
        ctx: &Ctx,
        [steps, batch]: [usize; 2],
        x: &[f32],
        start: [Option<&[f32]>; 2],
        mut outputs: Outputs,
    ) {
        let (size, rows) = (
            batch * self.sizes.hidden,
            batch * self.cell.gates() * self.sizes.hidden,
        );
        assert_eq!(x.len(), steps * batch * self.sizes.input, "an input a step");
        let count = self.directions.len();
        with_scratch((steps + 1) * rows + 3 * size, |scratch: &mut [f32]| {
            let (given, rest) = scratch.split_at_mut(steps * rows);
            let (gates, rest) = rest.split_at_mut(rows);
            let (h, rest) = rest.split_at_mut(size);
            let (c, spare) = rest.split_at_mut(size);
            for (d, direction) in self.directions.iter().enumerate() {
                for (state, start) in [(&mut *h, start[0]), (&mut *c, start[1])] {
                    match start {
                        Some(start) => state.copy_from_slice(&start[d * size..][..size]),
                        None => state.fill(0.0),
                    }
                }
                self.product(ctx, x, &direction.input, &direction.bias, given);
                for step in 0..steps {
                    let t = match direction.is_reverse {
                        true => steps - 1 - step,
                        false => step,
                    };
                    let given = &given[t * rows..][..rows];
                    match self.cell {
                        Cell::Lstm => self.lstm(ctx, direction, given, gates, (h, c, spare)),
                        Cell::Gru { .. } => self.gru(ctx, direction, given, gates, (h, spare)),
                    }
                    if let Some(all) = &mut outputs.all {
                        all[(t * count + d) * size..][..size].copy_from_slice(h);
                    }
                }
                for (out, state) in [(&mut outputs.state, &*h), (&mut outputs.cell, &*c)] {
                    if let Some(out) = out {
                        out[d * size..][..size].copy_from_slice(state);
                    }
                }
            }
        });
    }

    /// The product of the inputs of all steps, with the bias.
    fn product(&self, ctx: &Ctx, x: &[f32], w: &PackedF32, bias: &[f32], to: &mut [f32]) {
        let epilogue = Epilogue {
            bias: Some(bias),
            ..Epilogue::default()
        };
        let m = to.len() / w.n().max(1);
        gemm(ctx, m, x, w.k(), w, to, w.n(), &epilogue);
    }

    fn lstm(
        &self,
        ctx: &Ctx,
        d: &Direction,
        given: &[f32],
        gates: &mut [f32],
        (h, c, spare): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let n = self.sizes.hidden;
        let batch = h.len() / n.max(1);
        let epilogue = Epilogue {
            residual: Some(given),
            ..Epilogue::default()
        };
        gemm(ctx, batch, h, n, &d.state, gates, 4 * n, &epilogue);
        for (b, gates) in gates.chunks_exact_mut(4 * n).enumerate() {
            let (squashed, turned) = gates.split_at_mut(3 * n);
            Activation::Sigmoid.apply(ctx, squashed);
            Activation::Tanh.apply(ctx, turned);
            let (i, f) = (&squashed[..n], &squashed[2 * n..]);
            let c = &mut c[b * n..][..n];
            for (((c, f), i), t) in c.iter_mut().zip(f).zip(i).zip(&*turned) {
                *c = f * *c + i * t;
            }
            let spare = &mut spare[..n];
            Activation::Tanh.apply_to(ctx, c, spare);
            let o = &squashed[n..2 * n];
            for ((h, o), t) in h[b * n..][..n].iter_mut().zip(o).zip(&*spare) {
                *h = o * t;
            }
        }
    }

    fn gru(
        &self,
        ctx: &Ctx,
        d: &Direction,
        given: &[f32],
        gates: &mut [f32],
        (h, spare): (&mut [f32], &mut [f32]),
    ) {
        let n = self.sizes.hidden;
        let batch = h.len() / n.max(1);
        let Some(hidden) = &d.hidden else { return };
        let with = |residual| Epilogue {
            residual,
            ..Epilogue::default()
        };
        gemm(ctx, batch, h, n, &d.state, gates, 3 * n, &with(Some(given)));
        for gates in gates.chunks_exact_mut(3 * n) {
            Activation::Sigmoid.apply(ctx, &mut gates[..2 * n]);
        }
        let is_late = !d.hidden_bias.is_empty();
        let epilogue = Epilogue {
            bias: is_late.then_some(&d.hidden_bias),
            ..with((!is_late).then(|| &given[2 * n..]))
        };
        if !is_late {
            let reset = gates.chunks_exact(3 * n).flat_map(|g| &g[n..2 * n]);
            for ((to, r), h) in spare.iter_mut().zip(reset).zip(&*h) {
                *to = r * h;
            }
        }
        let from = if is_late { &*h } else { &*spare };
        gemm(
            ctx,
            batch,
            from,
            n,
            hidden,
            &mut gates[2 * n..],
            3 * n,
            &epilogue,
        );
        let rows = gates.chunks_exact_mut(3 * n).zip(given.chunks_exact(3 * n));
        for (b, (gates, given)) in rows.enumerate() {
            let (squashed, turned) = gates.split_at_mut(2 * n);
            if is_late {
                for ((t, r), x) in turned.iter_mut().zip(&squashed[n..]).zip(&given[2 * n..]) {
                    *t = x + r * *t;
                }
            }
            Activation::Tanh.apply(ctx, turned);
            for ((h, z), t) in h[b * n..][..n].iter_mut().zip(&*squashed).zip(&*turned) {
                *h = (1.0 - z) * t + z * *h;
            }
        }
    }
}
