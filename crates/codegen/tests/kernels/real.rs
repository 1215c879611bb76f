//! Cases of kernels on f32, whose answers are made in f64.

use super::cases::{Case, bytes, int8};
use super::multiply::geometry;
use edgesmith_codegen::kernels::{
    Geometry, pack_conv_f32, pack_dense_f32, pack_depthwise_f32, scratch_conv_f32,
};
use edgesmith_ir::random::Random;

/// Bytes of f32.
pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Numbers from -1 to 1.
pub fn near(r: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| (r.unit() * 2.0 - 1.0) as f32).collect()
}

/// A case whose answers may differ by `part` 1e-8 of themselves and of `least`.
pub fn case(kernel: i32, q: &[usize], [part, least]: [i32; 2], x: &[f32], y: &[f64]) -> Case {
    let mut parameters: Vec<i32> = q.iter().map(|v| *v as i32).collect();
    parameters.resize(21, 0);
    parameters.extend([least, part]);
    Case {
        kernel,
        parameters,
        arrays: [floats(x), vec![], vec![], vec![], vec![]],
        answer: floats(&y.iter().map(|v| *v as f32).collect::<Vec<_>>()),
        ..Case::default()
    }
}

fn sum(g: &Geometry, x: &[f32], w: &[f32], [oy, ox, oc]: [usize; 3]) -> f64 {
    let (per, channels) = (g.in_c / g.groups, g.out_c / g.groups);
    let mut acc = 0.0;
    for ky in 0..g.kernel[0] {
        for kx in 0..g.kernel[1] {
            let iy = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad[0]);
            let ix = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad[1]);
            if iy >= g.in_h || ix >= g.in_w {
                continue;
            }
            for c in 0..per {
                let v = x[(iy * g.in_w + ix) * g.in_c + oc / channels * per + c];
                let u = w[((oc * g.kernel[0] + ky) * g.kernel[1] + kx) * per + c];
                acc += f64::from(v) * f64::from(u);
            }
        }
    }
    acc
}

fn conv(r: &mut Random, kernel: i32, g: &Geometry) -> Case {
    let x = near(r, g.in_h * g.in_w * g.in_c);
    let w = near(r, g.out_c * g.depth());
    let bias = near(r, g.out_c);
    let (lo, hi) = [(f32::MIN, f32::MAX), (0.0, 6.0), (0.0, f32::MAX)][r.below(3)];
    let mut y = Vec::new();
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for (c, b) in bias.iter().enumerate() {
                let v = sum(g, &x, &w, [oy, ox, c]) + f64::from(*b);
                y.push(v.clamp(lo.into(), hi.into()));
            }
        }
    }
    let q = g.sizes();
    let packed = match kernel {
        22 => pack_depthwise_f32(&w, g),
        _ => pack_conv_f32(&w, g),
    };
    let mut case = case(kernel, &q, [1000, 1], &x, &y);
    case.scratch = if kernel == 22 { 0 } else { scratch_conv_f32(g) };
    case.arrays[2] = floats(&packed);
    case.arrays[3] = floats(&bias);
    case.arrays[4] = floats(&[lo, hi]);
    case
}

fn convs(r: &mut Random, out: &mut Vec<Case>) {
    for i in 0..40 {
        let kernel = [1 + r.below(4), 1 + r.below(4)];
        let (c, d) = (1 + r.below(9), 1 + r.below(9));
        let g = match i % 4 {
            0 | 1 => geometry(r, kernel, [c, d, 1], 5),
            2 => geometry(r, kernel, [2 * c, 2 * d, 2], 5),
            _ => geometry(r, kernel, [c, c, c], 5),
        };
        out.push(conv(r, if i % 4 == 3 { 22 } else { 20 }, &g));
    }
    for (pixels, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (4, 8, 8), (5, 16, 10)] {
        let g = Geometry {
            in_h: 1,
            in_w: pixels,
            in_c: inputs,
            out_h: 1,
            out_w: pixels,
            out_c: outputs,
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0, 0],
            dilation: [1, 1],
            groups: 1,
        };
        let mut one = conv(r, 21, &g);
        one.overlap = (outputs <= inputs).then_some(0);
        out.push(one);
    }
    for [rows, inputs, outputs] in [[1, 1, 1], [2, 17, 5], [3, 40, 8]] {
        let (x, w, bias) = (
            near(r, rows * inputs),
            near(r, inputs * outputs),
            near(r, outputs),
        );
        let product = |x: &[f32], w: &[f32]| -> f64 {
            x.iter()
                .zip(w)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let y: Vec<f64> = x
            .chunks(inputs)
            .flat_map(|x| {
                w.chunks(inputs)
                    .zip(&bias)
                    .map(move |(w, b)| product(x, w) + f64::from(*b))
            })
            .collect();
        let mut one = case(23, &[rows, inputs, outputs], [1000, 1], &x, &y);
        one.arrays[2] = floats(&pack_dense_f32(&w, inputs));
        one.arrays[3] = floats(&bias);
        one.arrays[4] = floats(&[f32::MIN, f32::MAX]);
        out.push(one);
    }
}

fn pools(r: &mut Random, out: &mut Vec<Case>) {
    for i in 0..12 {
        let kernel = [1 + r.below(3), 1 + r.below(3)];
        let c = 1 + r.below(6);
        let mut g = geometry(r, kernel, [c, c, c], 5);
        while g.dilation != [1, 1] {
            g = geometry(r, kernel, [c, c, c], 5);
        }
        let counted = r.below(2);
        let x = near(r, g.in_h * g.in_w * c);
        let mut y = Vec::new();
        for o in 0..g.out_h * g.out_w * c {
            let (oy, ox, ch) = (o / c / g.out_w, o / c % g.out_w, o % c);
            let mut seen = Vec::new();
            for k in 0..kernel[0] * kernel[1] {
                let iy = (oy * g.stride[0] + k / kernel[1]).wrapping_sub(g.pad[0]);
                let ix = (ox * g.stride[1] + k % kernel[1]).wrapping_sub(g.pad[1]);
                if iy < g.in_h && ix < g.in_w {
                    seen.push(f64::from(x[(iy * g.in_w + ix) * c + ch]));
                }
            }
            let n = if counted == 1 {
                seen.len()
            } else {
                kernel[0] * kernel[1]
            };
            y.push(if i % 2 == 0 {
                seen.iter().copied().fold(f64::from(f32::MIN), f64::max)
            } else {
                seen.iter().sum::<f64>() / n.max(1) as f64
            });
        }
        let q = [
            g.in_h,
            g.in_w,
            c,
            g.out_h,
            g.out_w,
            kernel[0],
            kernel[1],
            g.stride[0],
            g.stride[1],
            g.pad[0],
            g.pad[1],
            0,
            counted,
        ];
        out.push(case(24 + i % 2, &q, [200, 1], &x, &y));
    }
}

fn rows(r: &mut Random, out: &mut Vec<Case>) {
    for (rows, n) in [(1, 1), (3, 10), (2, 33)] {
        let x: Vec<f32> = near(r, rows * n).iter().map(|v| v * 20.0).collect();
        let soft = |row: &[f32]| -> Vec<f64> {
            let exps: Vec<f64> = row.iter().map(|v| f64::from(*v).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.iter().map(|e| e / sum).collect()
        };
        let y: Vec<f64> = x.chunks(n).flat_map(soft).collect();
        let mut one = case(26, &[rows, n], [300, 0], &x, &y);
        one.overlap = (r.below(2) == 0).then_some(0);
        out.push(one);
        let (gain, shift, epsilon) = (near(r, n), near(r, n), 30f32);
        let norm = |row: &[f32]| -> Vec<f64> {
            let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let mean = row.iter().sum::<f64>() / n as f64;
            let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            let one = |(i, v): (usize, &f64)| {
                (v - mean) / (var + f64::from(epsilon)).sqrt() * f64::from(gain[i])
                    + f64::from(shift[i])
            };
            row.iter().enumerate().map(one).collect()
        };
        let y: Vec<f64> = x.chunks(n).flat_map(norm).collect();
        let mut one = case(27, &[rows, n], [500, 1], &x, &y);
        one.arrays[1] = floats(&[&[epsilon], &gain[..], &shift].concat());
        out.push(one);
    }
    for (outer, n, inner) in [(1, 1, 1), (3, 7, 1), (2, 5, 4)] {
        let x = near(r, outer * n * inner);
        let line = |i: usize| {
            let at = i / inner * n * inner + i % inner;
            x.iter()
                .skip(at)
                .step_by(inner)
                .take(n)
                .map(|v| f64::from(*v))
        };
        let all = |f: &dyn Fn(usize) -> f64| (0..outer * inner).map(f).collect::<Vec<f64>>();
        let q = [outer, n, inner];
        out.push(case(28, &q, [200, 1], &x, &all(&|i| line(i).sum())));
        out.push(case(
            29,
            &q,
            [200, 1],
            &x,
            &all(&|i| line(i).sum::<f64>() / n as f64),
        ));
        out.push(case(
            30,
            &q,
            [0, 0],
            &x,
            &all(&|i| line(i).fold(f64::MIN, f64::max)),
        ));
    }
}

/// erf by its series, or by the continued fraction of what is left.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// A function of the list: its number, the real one, the range, what it may differ by.
type Unary = (i32, fn(f64) -> f64, [f64; 2], [i32; 2]);

static UNARY: &[Unary] = &[
    (40, f64::exp, [-86.0, 88.0], [24, 0]),
    (41, f64::ln, [1e-30, 30.0], [36, 0]),
    (42, f64::tanh, [-10.0, 10.0], [36, 0]),
    (43, |v| 1.0 / (1.0 + (-v).exp()), [-20.0, 20.0], [48, 0]),
    (44, erf, [-4.0, 4.0], [20, 1]),
    (45, f64::sqrt, [0.0, 1e6], [12, 0]),
    (46, |v| -v, [-3.0, 3.0], [0, 0]),
    (47, f64::abs, [-3.0, 3.0], [0, 0]),
    (
        48,
        |v| 0.5 * v * (1.0 + erf(v / 2f64.sqrt())),
        [-4.0, 4.0],
        [40, 1],
    ),
    (49, |v| v / (1.0 + (-v).exp()), [-20.0, 20.0], [60, 0]),
    (
        50,
        |v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0),
        [-5.0, 5.0],
        [12, 1],
    ),
];

fn functions(r: &mut Random, out: &mut Vec<Case>) {
    for (kernel, real, [lo, hi], allowed) in UNARY {
        let x: Vec<f32> = (0..300)
            .map(|_| (lo + r.unit() * (hi - lo)) as f32)
            .collect();
        let small = x.iter().map(|v| v * 1e-4);
        let x: Vec<f32> = x.iter().copied().chain(small).collect();
        let y: Vec<f64> = x.iter().map(|v| real(f64::from(*v))).collect();
        let mut one = case(*kernel, &[x.len()], *allowed, &x, &y);
        one.overlap = (r.below(2) == 0).then_some(0);
        out.push(one);
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 1e-40];
    for (kernel, y) in [
        (40, [f64::NAN, f64::INFINITY, 0.0, 1.0, 1.0]),
        (
            41,
            [
                f64::NAN,
                f64::INFINITY,
                f64::NAN,
                f64::NEG_INFINITY,
                1e-40f64.ln(),
            ],
        ),
        (42, [f64::NAN, 1.0, -1.0, 0.0, 1e-40]),
        (43, [f64::NAN, 1.0, 0.0, 0.5, 0.5]),
        (45, [f64::NAN, f64::INFINITY, f64::NAN, 0.0, 1e-20]),
    ] {
        let exact = f64::from(special[4]);
        let y = y.map(|v| if v == 1e-40 { exact } else { v });
        out.push(case(kernel, &[5], [10000, 0], &special, &y));
    }
    let x = near(r, 40);
    let y: Vec<f64> = x.iter().map(|v| f64::from(v.clamp(-0.2, 0.5))).collect();
    let mut one = case(31, &[40], [0, 0], &x, &y);
    one.arrays[1] = floats(&[-0.2, 0.5]);
    out.push(one);
}

fn binaries(r: &mut Random, out: &mut Vec<Case>) {
    let ops: [fn(f64, f64) -> f64; 6] = [
        |a, b| a + b,
        |a, b| a - b,
        |a, b| a * b,
        |a, b| a / b,
        f64::min,
        f64::max,
    ];
    for (i, op) in ops.iter().enumerate() {
        for _ in 0..2 {
            let size: Vec<usize> = (0..5).map(|_| 1 + r.below(3)).collect();
            let operand = |r: &mut Random| {
                let mut steps = vec![0; 5];
                let mut step = 1;
                for axis in (0..5).rev() {
                    if r.below(3) > 0 {
                        steps[axis] = step;
                        step *= size[axis];
                    }
                }
                (steps, near(r, step))
            };
            let (a, b) = (operand(r), operand(r));
            let at = |steps: &[usize], i: usize| {
                let mut rest = i;
                let mut at = 0;
                for axis in (0..5).rev() {
                    at += rest % size[axis] * steps[axis];
                    rest /= size[axis];
                }
                at
            };
            let count: usize = size.iter().product();
            let y: Vec<f64> = (0..count)
                .map(|i| op(a.1[at(&a.0, i)].into(), b.1[at(&b.0, i)].into()))
                .collect();
            let q: Vec<usize> = size.iter().chain(&a.0).chain(&b.0).copied().collect();
            let mut one = case(60 + i as i32, &q, [12, 0], &a.1, &y);
            one.arrays[1] = floats(&b.1);
            out.push(one);
        }
    }
}

fn quantisers(r: &mut Random, out: &mut Vec<Case>) {
    let (scale, zero) = (0.25f32, -7);
    let mut x: Vec<f32> = near(r, 60).iter().map(|v| v * 40.0).collect();
    x.extend([
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.125,
        0.375,
        -0.125,
        -0.375,
        1e30,
        -1e30,
    ]);
    let q: Vec<i8> = x
        .iter()
        .map(|v| (v / scale).round_ties_even())
        .map(|v| {
            if v.is_nan() {
                -7
            } else {
                (f64::from(v) - 7.0).clamp(-128.0, 127.0) as i8
            }
        })
        .collect();
    let mut one = case(32, &[x.len()], [0, 0], &x, &[]);
    one.parameters[1] = zero;
    one.arrays[1] = floats(&[scale]);
    one.answer = bytes(&q);
    out.push(one);
    let x = int8(r, 50);
    let y: Vec<f64> = x
        .iter()
        .map(|v| f64::from((f32::from(*v) + 7.0) * 0.3f32))
        .collect();
    let mut one = case(33, &[50], [0, 0], &[], &y);
    one.parameters[1] = zero;
    one.arrays[0] = bytes(&x);
    one.arrays[1] = floats(&[0.3]);
    out.push(one);
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut r = Random::new(22);
    let mut out = Vec::new();
    convs(&mut r, &mut out);
    pools(&mut r, &mut out);
    rows(&mut r, &mut out);
    functions(&mut r, &mut out);
    binaries(&mut r, &mut out);
    quantisers(&mut r, &mut out);
    out
}
