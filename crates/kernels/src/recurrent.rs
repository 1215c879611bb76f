//! RNN, LSTM and GRU with packed weights: the inputs of all steps in one product, then step by step.
//! An LSTM may have weights of bytes; its inputs are then quantised as they come.

use crate::Ctx;
use crate::activation::Activation;
use crate::arena::Buffer;
use crate::gemm::{Bytes, Epilogue, Input8, Order, Output8, PackedF32, PackedI8, gemm, gemm8};
use crate::quantize::quantize8_dynamically;

mod back;
mod gradient;
mod run;
mod steps;

pub use gradient::{Gradients, Slopes, gradients};
pub use run::{Inputs, Outputs};

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
}

/// Sizes of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Elements of an input.
    pub input: usize,
    /// Elements of the state.
    pub hidden: usize,
}

/// What a recurrent operator is, beside its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form<'a> {
    /// The cell.
    pub cell: Cell,
    /// Its sizes.
    pub sizes: Sizes,
    /// Whether each direction is reverse.
    pub directions: &'a [bool],
}

/// Elements that [`Recurrent::run`] keeps for [`gradients`] of so many steps of so many samples.
pub fn kept(form: Form, [steps, batch]: [usize; 2]) -> usize {
    let each = run::kept_by(form.cell, steps, batch * form.sizes.hidden);
    form.directions.len() * each.iter().sum::<usize>()
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

impl Recurrent {
    /// Packs weights as ONNX lays them out: `w` is `[directions, gates * hidden, input]`, `r`
    /// `[directions, gates * hidden, hidden]`, `bias` `[directions, 2 * gates * hidden]`.
    pub fn new(ctx: &Ctx, form: Form, (w, r, bias): (&[f32], &[f32], Option<&[f32]>)) -> Self {
        let Form {
            cell,
            sizes,
            directions,
        } = form;
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
}
