//! From which share of zeros on lists are faster than the dense kernel.
//!
//! The time of a product with lists, in parts of that with dense weights, is about
//! `each * kept + turn * (1 / K + 1 / N)`: what is multiplied, and what is turned to columns and back. `each`
//! and `turn` are read off the table of
//! `cargo run --release -p edgesmith-kernels --example bench_sparse [ISA]`, which shows the columns of 50 % and
//! 95 % for them; `docs/performance.md` shows the table.
//!
//! Where bytes are picked from windows of rows, nothing is turned: a tile of outputs takes steps by what is
//! kept of K, a few more because its lists keep pace, and a time of its own for its sums, see [`Picked`].

use super::lists::{FOUR, MOST_INPUTS};
use super::windows::LANES;
use crate::gemm::Order;
use crate::gemm::int8::isa_for;
use crate::{Ctx, Isa};

/// What a list belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Four outputs that follow each other: 4x1 blocks.
    Blocks,
    /// One output: CSR.
    Rows,
}

impl Form {
    /// Both, that which is faster at the same share first.
    pub const ALL: [Form; 2] = [Form::Blocks, Form::Rows];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Blocks => "4x1",
            Form::Rows => "csr",
        }
    }

    /// What it counts.
    pub const fn counts(self) -> &'static str {
        match self {
            Form::Blocks => "blocks",
            Form::Rows => "weights",
        }
    }

    /// Outputs of a list.
    pub(super) const fn rows(self) -> usize {
        match self {
            Form::Blocks => FOUR,
            Form::Rows => 1,
        }
    }
}

/// Lists are taken where they take at most this part of the time of dense weights.
const WORTH: f64 = 0.9;

/// The constants of a form for a few rows (fewer than fill vectors), some (a vector or two), and many.
struct Cost {
    each: [f64; 3],
    turn: [f64; 3],
}

/// The few rows, some and many of [`Cost`].
fn class(m: usize) -> usize {
    match m {
        0..9 => 0,
        9..40 => 1,
        _ => 2,
    }
}

impl Cost {
    /// The time in parts of that of dense weights, of which `kept` are not zero.
    fn time(&self, [m, k, n]: [usize; 3], kept: f64) -> f64 {
        let ends = 1.0 / k as f64 + 1.0 / n as f64;
        self.each[class(m)] * kept + self.turn[class(m)] * ends
    }
}

/// The constants of a form of which bytes are picked, beside dense vectors: for one row, which adds up in
/// fewer chains, and for more.
struct Picked {
    /// For what is kept.
    each: [f64; 2],
    /// For steps that lists take to keep pace.
    pace: f64,
    /// Inputs that would take as long as sums of a tile.
    sums: f64,
}

/// Inputs that would take a dense product as long as its sums.
const DENSE_SUMS: f64 = 16.0;

impl Picked {
    /// The time in parts of that of dense weights, of which `kept` are not zero, in lists of `rows`
    /// outputs.
    fn time(&self, isa: Isa, [m, k, n]: [usize; 3], rows: usize, kept: f64) -> f64 {
        let inputs = k as f64;
        let tile = LANES * rows;
        let unused = n.next_multiple_of(tile) as f64 / n as f64;
        let each = self.each[usize::from(m > 1)];
        let time = each * kept * inputs + (self.pace * inputs + self.sums) * unused;
        // How much faster AMX is with so many inputs.
        let tiles = match isa {
            Isa::Amx if m == 1 => 1.2,
            Isa::Amx => 4.4 * inputs / (inputs + 100.0),
            _ => 1.0,
        };
        tiles.max(1.0) * time / (inputs + DENSE_SUMS)
    }
}

/// Of bytes, in the order of [`Form::ALL`].
static PICKED: [Picked; 2] = [
    Picked {
        each: [0.75, 1.2],
        pace: 0.05,
        sums: 15.5,
    },
    Picked {
        each: [1.5, 2.6],
        pace: 0.13,
        sums: 19.5,
    },
];

/// The constants of an instruction set and of weights of so many bytes, in the order of [`Form::ALL`].
struct Row(Isa, usize, [Cost; 2]);

const fn cost(each: [f64; 3], turn: [f64; 3]) -> Cost {
    Cost { each, turn }
}

/// The constants, best instruction set first. Those of Arm and of the generic set are not measured, but
/// those of the set of x86-64 whose dense kernels are most like theirs.
#[rustfmt::skip]
static COSTS: &[Row] = &[
    Row(Isa::Avx512, 4, [
        cost([1.1, 1.6, 1.0], [5.0, 10.0, 11.0]),
        cost([10.0, 4.9, 2.6], [5.0, 10.0, 11.0]),
    ]),
    Row(Isa::Generic, 4, [
        cost([1.2, 1.1, 1.25], [4.0, 6.0, 7.0]),
        cost([11.5, 3.4, 3.4], [5.0, 5.0, 6.0]),
    ]),
    Row(Isa::Amx, 1, [
        cost([11.8, 8.6, 5.7], [220.0, 175.0, 100.0]),
        cost([48.0, 32.0, 15.0], [220.0, 175.0, 120.0]),
    ]),
    Row(Isa::Avx512Vnni, 1, [
        cost([11.9, 3.3, 1.35], [220.0, 65.0, 38.0]),
        cost([49.0, 12.0, 4.6], [200.0, 65.0, 35.0]),
    ]),
    Row(Isa::Avx512, 1, [
        cost([11.4, 1.4, 1.45], [160.0, 20.0, 11.0]),
        cost([24.0, 3.3, 3.1], [170.0, 16.0, 10.0]),
    ]),
    Row(Isa::AvxVnni, 1, DOT),
    Row(Isa::NeonDot, 1, DOT),
    Row(Isa::Generic, 1, [
        cost([5.2, 1.2, 1.2], [105.0, 16.0, 10.0]),
        cost([15.0, 2.5, 2.5], [80.0, 13.0, 10.0]),
    ]),
];

/// Of a dot product of bytes in narrower vectors.
const DOT: [Cost; 2] = [
    cost([4.9, 1.6, 1.6], [130.0, 40.0, 32.0]),
    cost([13.0, 4.6, 5.2], [200.0, 40.0, 30.0]),
];

/// The constants beside the dense kernel that would be used for `k` rows of weights.
fn costs(isa: Isa, weight_bytes: usize, k: usize) -> &'static [Cost; 2] {
    let isa = match weight_bytes {
        1 => isa_for(isa, k, k),
        _ => isa,
    };
    let mut rows = COSTS.iter().filter(|row| row.1 == weight_bytes);
    &rows
        .find(|row| isa.includes(row.0))
        .expect("there are generic constants for each size of weights")
        .2
}

/// The form in which products of `m` rows with the weights `[K, N]` are quickest, where one is
/// quicker than dense. `is_zero` tells whether an element in this order is.
pub(super) fn choose(
    ctx: &Ctx,
    weight_bytes: usize,
    [m, k, n]: [usize; 3],
    order: Order,
    is_zero: impl Fn(usize) -> bool,
) -> Option<Form> {
    if k == 0 || n == 0 || k > MOST_INPUTS || !has_zeros(k * n, &is_zero) {
        return None;
    }
    let kept = kept(k, n, order, &is_zero);
    let (isa, shape) = (ctx.isa(), [m, k, n]);
    let costs = costs(isa, weight_bytes, k);
    let time = |i: usize| match weight_bytes {
        1 if isa.picks_bytes() => PICKED[i].time(isa, shape, Form::ALL[i].rows(), kept[i]),
        _ => costs[i].time(shape, kept[i]),
    };
    let best = usize::from(time(1) < time(0));
    (time(best) < WORTH).then_some(Form::ALL[best])
}

/// Whether some weights here and there are zero, without a look at all of them.
fn has_zeros(len: usize, is_zero: &impl Fn(usize) -> bool) -> bool {
    const LOOKS: usize = 256;
    // A step that is no divisor of what matrices are wide.
    let step = (len / LOOKS).max(1) | 1;
    let seen = (0..LOOKS).map(|i| i * step % len);
    seen.filter(|i| is_zero(*i)).count() > LOOKS / 4
}

/// The parts of blocks and of weights that are not zero.
fn kept(k: usize, n: usize, order: Order, is_zero: &impl Fn(usize) -> bool) -> [f64; 2] {
    let fours = n.div_ceil(FOUR);
    let (mut blocks, mut weights) = (0usize, 0usize);
    let mut look = |four: usize, i: usize| {
        let one = |o: usize| match order {
            Order::KN => i * n + o,
            Order::NK => o * k + i,
        };
        let outputs = four * FOUR..n.min((four + 1) * FOUR);
        let here = outputs.filter(|o| !is_zero(one(*o))).count();
        blocks += usize::from(here > 0);
        weights += here;
    };
    match order {
        Order::KN => (0..k * fours).for_each(|at| look(at % fours, at / fours)),
        Order::NK => (0..k * fours).for_each(|at| look(at / k, at % k)),
    }
    [
        blocks as f64 / (k * fours) as f64,
        weights as f64 / (k * n) as f64,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Weights `[K, N]` of which so many blocks of 100, or weights, are zero.
    fn matrix(form: Form, zeros: usize, k: usize, n: usize) -> Vec<f32> {
        let mut random = Random::new(3);
        let size = form.rows();
        let kept: Vec<bool> = (0..k * n.div_ceil(size))
            .map(|_| random.below(100) >= zeros)
            .collect();
        (0..k * n)
            .map(|i| f32::from(u8::from(kept[i / n * n.div_ceil(size) + i % n / size])))
            .collect()
    }

    fn chosen(form: Form, zeros: usize, shape: [usize; 3]) -> Option<Form> {
        let b = matrix(form, zeros, shape[1], shape[2]);
        choose(&Ctx::serial(), 4, shape, Order::KN, |i| b[i] == 0.0)
    }

    #[test]
    fn lists_are_chosen_where_most_is_zero_and_the_form_by_where_zeros_are() {
        let shape = [196, 256, 256];
        assert_eq!(chosen(Form::Blocks, 0, shape), None);
        assert_eq!(chosen(Form::Blocks, 80, shape), Some(Form::Blocks));
        assert_eq!(chosen(Form::Rows, 40, shape), None);
        assert_eq!(chosen(Form::Rows, 92, shape), Some(Form::Rows));
        // One row: lists of single weights are slow, and of blocks few are left out.
        assert_eq!(chosen(Form::Rows, 50, [1, 256, 256]), None);
        assert_eq!(chosen(Form::Rows, 80, [1, 256, 256]), Some(Form::Blocks));
    }

    #[test]
    fn both_orders_count_the_same() {
        let (k, n) = (13, 22);
        let b = matrix(Form::Rows, 60, k, n);
        let turned: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
        let one = kept(k, n, Order::KN, &|i| b[i] == 0.0);
        assert_eq!(one, kept(k, n, Order::NK, &|i| turned[i] == 0.0));
        assert!(one[0] > one[1] && one[1] > 0.2);
    }
}
