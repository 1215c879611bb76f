//! Cases of recurrent layers on f32 and of layers on int16.

use super::cases::{Case, int8, words};
use super::multiply::geometry;
use super::real::{case, floats, near};
use edgesmith_codegen::kernels::{
    Flavour, Geometry, bias_gru_f32, bias_lstm_f32, pack_conv, pack_dense, pack_gru_f32,
    pack_lstm_f32, requantise16,
};
use edgesmith_ir::random::Random;

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

fn product(w: &[f32], row: usize, x: &[f64]) -> f64 {
    let w = &w[row * x.len()..][..x.len()];
    w.iter().zip(x).map(|(a, b)| f64::from(*a) * b).sum()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// h and c lie one behind the other, and are the answer.
fn lstm(r: &mut Random, inputs: usize, n: usize) -> Case {
    let (w, u) = (near(r, 4 * n * inputs), near(r, 4 * n * n));
    let (bw, bu) = (near(r, 4 * n), near(r, 4 * n));
    let (x, state) = (near(r, inputs), near(r, 2 * n));
    let (xs, h) = (wide(&x), wide(&state[..n]));
    let gate = |g: usize, i: usize| {
        let row = g * n + i;
        product(&w, row, &xs) + product(&u, row, &h) + f64::from(bw[row]) + f64::from(bu[row])
    };
    let c = |i: usize| {
        sigmoid(gate(2, i)) * f64::from(state[n + i]) + sigmoid(gate(0, i)) * gate(3, i).tanh()
    };
    let mut y: Vec<f64> = (0..n).map(|i| sigmoid(gate(1, i)) * c(i).tanh()).collect();
    y.extend((0..n).map(c));
    let mut one = case(34, &[inputs, n], [300, 1], &state, &y);
    one.scratch = 4 * n;
    one.overlap = Some(0);
    one.arrays[1] = floats(&x);
    one.arrays[2] = floats(&pack_lstm_f32(&w, &u, inputs, n));
    one.arrays[3] = floats(&bias_lstm_f32(&bw, &bu, n));
    one
}

fn gru(r: &mut Random, inputs: usize, n: usize, after: bool) -> Case {
    let (w, u) = (near(r, 3 * n * inputs), near(r, 3 * n * n));
    let (bw, bu) = (near(r, 3 * n), near(r, 3 * n));
    let (x, state) = (near(r, inputs), near(r, n));
    let (xs, h) = (wide(&x), wide(&state));
    let of_x = |g: usize, i: usize| product(&w, g * n + i, &xs) + f64::from(bw[g * n + i]);
    let of_h = |g: usize, i: usize, h: &[f64]| product(&u, g * n + i, h) + f64::from(bu[g * n + i]);
    let reset = |i: usize| sigmoid(of_x(1, i) + of_h(1, i, &h));
    let left: Vec<f64> = (0..n).map(|i| reset(i) * h[i]).collect();
    let y: Vec<f64> = (0..n)
        .map(|i| {
            let z = sigmoid(of_x(0, i) + of_h(0, i, &h));
            let seen = if after {
                reset(i) * of_h(2, i, &h)
            } else {
                of_h(2, i, &left)
            };
            (1.0 - z) * (of_x(2, i) + seen).tanh() + z * h[i]
        })
        .collect();
    let (packed, again) = pack_gru_f32(&w, &u, inputs, n, after);
    let mut one = case(35, &[inputs, n, usize::from(after)], [300, 1], &state, &y);
    one.scratch = 12 * n;
    one.overlap = Some(0);
    one.arrays[1] = floats(&x);
    one.arrays[2] = floats(&packed);
    one.arrays[3] = floats(&bias_gru_f32(&bw, &bu, n));
    one.arrays[4] = floats(&again);
    one
}

fn halves(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn int16(r: &mut Random, count: usize) -> Vec<i16> {
    (0..count).map(|_| r.bits() as i16).collect()
}

/// A case by its sums without biases, channels innermost.
fn wide_case(
    r: &mut Random,
    kernel: i32,
    q: &[usize],
    x: &[i16],
    channels: usize,
    sums: &[i64],
) -> Case {
    let bias: Vec<i32> = (0..channels)
        .map(|_| r.below(100_000) as i32 - 50_000)
        .collect();
    let mult: Vec<i32> = (0..channels)
        .map(|_| (1 << 21) + r.below(1 << 21) as i32)
        .collect();
    let most = sums
        .iter()
        .map(|s| s.unsigned_abs())
        .max()
        .unwrap_or(1)
        .max(1 << 20);
    let shift = most.ilog2() + 21 - 14;
    let bounds = [[-32768, 32767], [0, 32767], [-20000, 15000]][r.below(3)];
    let y: Vec<i16> = sums
        .iter()
        .enumerate()
        .map(|(i, s)| (s + i64::from(bias[i % channels]), mult[i % channels]))
        .map(|(acc, mult)| requantise16(acc, mult, shift, bounds))
        .collect();
    let mut parameters: Vec<i32> = q.iter().map(|v| *v as i32).collect();
    parameters.resize(15, 0);
    parameters.extend([bounds[0], bounds[1], shift as i32]);
    Case {
        kernel,
        parameters,
        arrays: [halves(x), vec![], vec![], words(&bias), words(&mult)],
        answer: halves(&y),
        ..Case::default()
    }
}

fn conv16(r: &mut Random, g: &Geometry) -> Case {
    let x = int16(r, g.in_h * g.in_w * g.in_c);
    let w = int8(r, g.out_c * g.depth());
    let wider: Vec<i64> = x.iter().map(|v| i64::from(*v)).collect();
    let mut sums = Vec::new();
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for c in 0..g.out_c {
                sums.push(super::multiply::sum(g, &wider, &w, 0, [oy, ox, c]));
            }
        }
    }
    let q = g.sizes();
    let mut one = wide_case(r, 17, &q, &x, g.out_c, &sums);
    one.scratch = 2 * g.depth() * g.groups;
    one.arrays[2] = pack_conv(Flavour::C, &w, g);
    one
}

fn dense16(r: &mut Random, [rows, inputs, outputs]: [usize; 3]) -> Case {
    let (x, w) = (int16(r, rows * inputs), int8(r, inputs * outputs));
    let sum = |x: &[i16], w: &[i8]| -> i64 {
        x.iter()
            .zip(w)
            .map(|(a, b)| i64::from(*a) * i64::from(*b))
            .sum()
    };
    let sums: Vec<i64> = x
        .chunks(inputs)
        .flat_map(|x| w.chunks(inputs).map(move |w| sum(x, w)))
        .collect();
    let mut one = wide_case(r, 18, &[rows, inputs, outputs], &x, outputs, &sums);
    one.arrays[2] = pack_dense(Flavour::C, &w, inputs);
    one
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut r = Random::new(23);
    let r = &mut r;
    let mut out = Vec::new();
    for (inputs, n) in [(1, 1), (3, 5), (8, 16)] {
        out.push(lstm(r, inputs, n));
        out.push(gru(r, inputs, n, true));
        out.push(gru(r, inputs, n, false));
    }
    for i in 0..12 {
        let c = 1 + r.below(6);
        let channels = [[c, 5, 1], [2 * c, 4, 2], [c, c, c]][i % 3];
        let kernel = [1 + r.below(3), 1 + r.below(3)];
        let g = geometry(r, kernel, channels, 4);
        out.push(conv16(r, &g));
    }
    for sizes in [[1, 1, 1], [2, 33, 5], [1, 2000, 3]] {
        out.push(dense16(r, sizes));
    }
    out
}
