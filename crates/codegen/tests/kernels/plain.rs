//! Cases of kernels on int8 without weights.

use super::cases::{Case, bytes, int8, words};
use edgesmith_codegen::kernels::integer::{Add8, Softmax8, multiplier, requantise};
use edgesmith_ir::random::Random;

const WHOLE: [i32; 2] = [-128, 127];

fn bounds(r: &mut Random, zero: i32) -> [i32; 2] {
    [WHOLE, [zero, 127], [-90, 100]][r.below(3)]
}

fn ints<const N: usize>(values: [usize; N]) -> Vec<i32> {
    values.iter().map(|v| *v as i32).collect()
}

fn with_requant(mut q: Vec<i32>, zero: i32, bounds: [i32; 2], shift: u32) -> Vec<i32> {
    q.resize(16, 0);
    q.extend([zero, bounds[0], bounds[1], shift as i32]);
    q
}

fn adds(r: &mut Random, out: &mut Vec<Case>) {
    for (rows, count) in [(1, 1), (1, 37), (5, 13), (3, 16), (1, 64)] {
        let (a, b) = (int8(r, rows * count), int8(r, count));
        let zeros = [r.bits() as i8, r.bits() as i8];
        let factors = [r.unit() * 2.0, r.unit() * 3.0 - 1.5];
        let (add, zero) = (Add8::of(factors, zeros).unwrap(), r.below(200) as i32 - 100);
        let limits = bounds(r, zero);
        let y = a.iter().zip(b.iter().cycle());
        let y: Vec<i8> = y.map(|(a, b)| add.apply(*a, *b, zero, limits)).collect();
        let mut q = ints([rows * count, count]);
        q.extend([add.mult_a, add.mult_b, add.bias, add.shift as i32, zero]);
        q.extend(limits);
        out.push(Case {
            kernel: 5,
            parameters: q,
            overlap: (r.below(2) == 0).then_some(0),
            arrays: [bytes(&a), bytes(&b), vec![], vec![], vec![]],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

fn muls(r: &mut Random, out: &mut Vec<Case>) {
    for (rows, count) in [(1, 1), (1, 29), (4, 15), (2, 16)] {
        let (a, b) = (int8(r, rows * count), int8(r, count));
        let zeros = [r.bits() as i8, r.bits() as i8].map(i32::from);
        let (shift, zero) = (r.below(10) as u32, r.below(200) as i32 - 100);
        let mult = multiplier(r.unit() * 0.01 / f64::from(1 << (shift / 2)), shift).unwrap();
        let limits = bounds(r, zero);
        let one = |(a, b): (&i8, &i8)| {
            let acc = (i32::from(*a) - zeros[0]) * (i32::from(*b) - zeros[1]);
            requantise(acc, mult, shift, zero, limits)
        };
        let y: Vec<i8> = a.iter().zip(b.iter().cycle()).map(one).collect();
        let mut q = ints([rows * count, count]);
        q.extend(zeros);
        out.push(Case {
            kernel: 6,
            parameters: with_requant(q, zero, limits, shift),
            overlap: (r.below(2) == 0).then_some(0),
            arrays: [bytes(&a), bytes(&b), vec![], vec![], words(&[mult])],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

fn pools(r: &mut Random, out: &mut Vec<Case>) {
    for i in 0..24 {
        let kernel = [1 + r.below(4), 1 + r.below(4)];
        let stride = [1 + r.below(3), 1 + r.below(3)];
        let pad = [r.below(kernel[0]), r.below(kernel[1])];
        let after = [r.below(kernel[0]), r.below(kernel[1])];
        let c = [1, 3, 4, 16, 21][r.below(5)];
        let size = [kernel[0] + r.below(5), kernel[1] + r.below(6)];
        let length = |i: usize| (size[i] + pad[i] + after[i] - kernel[i]) / stride[i] + 1;
        let outs = [length(0), length(1)];
        let x = int8(r, size[0] * size[1] * c);
        let (zero_in, zero, shift) = (r.bits() as i8, r.below(200) as i32 - 100, r.below(8) as u32);
        let counted = r.below(2);
        let most = kernel[0] * kernel[1];
        let counts = if counted == 1 { most } else { 1 };
        let mult: Vec<i32> = (1..=counts)
            .map(|n| if counted == 1 { n } else { most })
            .map(|n| multiplier(0.45 / n as f64 / f64::from(1 << shift), 0).unwrap())
            .collect();
        let limits = bounds(r, zero);
        let mut y = Vec::new();
        for oy in 0..outs[0] {
            for ox in 0..outs[1] {
                for ch in 0..c {
                    let mut seen = Vec::new();
                    for ky in 0..kernel[0] {
                        for kx in 0..kernel[1] {
                            let iy = (oy * stride[0] + ky).wrapping_sub(pad[0]);
                            let ix = (ox * stride[1] + kx).wrapping_sub(pad[1]);
                            if iy < size[0] && ix < size[1] {
                                seen.push(x[(iy * size[1] + ix) * c + ch]);
                            }
                        }
                    }
                    let sum: i32 = seen
                        .iter()
                        .map(|v| i32::from(*v) - i32::from(zero_in))
                        .sum();
                    let at = if counted == 1 {
                        seen.len().max(1) - 1
                    } else {
                        0
                    };
                    y.push(if i % 2 == 0 {
                        seen.iter().copied().max().unwrap_or(-128)
                    } else {
                        requantise(sum, mult[at], shift, zero, limits)
                    });
                }
            }
        }
        let mut q = ints([
            size[0], size[1], c, outs[0], outs[1], kernel[0], kernel[1], stride[0], stride[1],
            pad[0], pad[1],
        ]);
        q.extend([zero_in.into(), counted as i32]);
        out.push(Case {
            kernel: 7 + i % 2,
            parameters: with_requant(q, zero, limits, shift),
            arrays: [bytes(&x), vec![], vec![], vec![], words(&mult)],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

fn means(r: &mut Random, out: &mut Vec<Case>) {
    for (n, c) in [(1, 1), (9, 5), (49, 16), (25, 64), (7, 33)] {
        let x = int8(r, n * c);
        let zero_in = i32::from(r.bits() as i8);
        let mult = multiplier(0.4 / n as f64, 0).unwrap();
        let limits = bounds(r, 5);
        let y: Vec<i8> = (0..c)
            .map(|c0| x.iter().skip(c0).step_by(c))
            .map(|col| col.map(|v| i32::from(*v) - zero_in).sum())
            .map(|acc| requantise(acc, mult, 0, 5, limits))
            .collect();
        let mut q = ints([n, c]);
        q.push(zero_in);
        out.push(Case {
            kernel: 9,
            parameters: with_requant(q, 5, limits, 0),
            overlap: (r.below(2) == 0).then_some(0),
            arrays: [bytes(&x), vec![], vec![], vec![], words(&[mult])],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

fn tables(r: &mut Random, out: &mut Vec<Case>) {
    let table = int8(r, 256);
    for count in [1, 3, 4, 39, 64] {
        let x = int8(r, count);
        let y: Vec<i8> = x.iter().map(|v| table[usize::from(*v as u8)]).collect();
        out.push(Case {
            kernel: 10,
            parameters: ints([count]),
            overlap: (r.below(2) == 0).then_some(0),
            arrays: [bytes(&x), bytes(&table), vec![], vec![], vec![]],
            answer: bytes(&y),
            ..Case::default()
        });
    }
    for (rows, n, scale) in [(1, 1, 0.1), (3, 10, 0.2), (2, 100, 0.01), (5, 12, 0.0625)] {
        let x = int8(r, rows * n);
        let softmax = Softmax8::of(scale, n);
        let mult = multiplier(256.0 / f64::from(1 << 30), 0).unwrap();
        let row = |x: &[i8]| softmax.apply(x, mult, -128, WHOLE);
        let y: Vec<i8> = x.chunks(n).flat_map(row).collect();
        let table: Vec<i32> = softmax.table.iter().map(|v| *v as i32).collect();
        out.push(Case {
            kernel: 11,
            parameters: with_requant(ints([rows, n, softmax.bits as usize]), -128, WHOLE, 0),
            overlap: (r.below(2) == 0).then_some(0),
            arrays: [bytes(&x), words(&table), vec![], vec![], words(&[mult])],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

fn moves(r: &mut Random, out: &mut Vec<Case>) {
    for _ in 0..12 {
        let run = [1, 2, 4, 12][r.below(4)];
        let size: Vec<usize> = (0..5).map(|_| 1 + r.below(4)).collect();
        let order = r.order(5);
        let mut from = vec![0; 5];
        let mut step = run;
        for axis in order {
            from[axis] = step;
            step *= size[axis];
        }
        let mut to = vec![0; 5];
        let mut end = run;
        for axis in (0..5).rev() {
            to[axis] = end;
            end *= size[axis];
        }
        let x = int8(r, step);
        let mut y = vec![0; end];
        for i in 0..end / run {
            let (mut rest, mut at) = (i, 0);
            for axis in (0..5).rev() {
                at += rest % size[axis] * from[axis];
                rest /= size[axis];
            }
            y[i * run..][..run].copy_from_slice(&x[at..][..run]);
        }
        let all = size.iter().chain(&from).chain(&to).chain([&run]);
        out.push(Case {
            kernel: 12,
            parameters: all.map(|v| *v as i32).collect(),
            arrays: [bytes(&x), vec![], vec![], vec![], vec![]],
            answer: bytes(&y),
            ..Case::default()
        });
    }
    for run in [1, 3, 8] {
        let (h, w, oh, ow) = (
            1 + r.below(4),
            1 + r.below(4),
            1 + r.below(7),
            1 + r.below(7),
        );
        let rows: Vec<usize> = (0..oh).map(|i| i * h / oh).collect();
        let columns: Vec<usize> = (0..ow).map(|i| i * w / ow).collect();
        let x = int8(r, h * w * run);
        let mut y = Vec::new();
        for row in &rows {
            for column in &columns {
                y.extend(&x[(row * w + column) * run..][..run]);
            }
        }
        let table = rows
            .iter()
            .chain(&columns)
            .flat_map(|v| (*v as u16).to_le_bytes());
        out.push(Case {
            kernel: 13,
            parameters: ints([w, oh, ow, run]),
            arrays: [bytes(&x), table.collect(), vec![], vec![], vec![]],
            answer: bytes(&y),
            ..Case::default()
        });
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut r = Random::new(21);
    let mut out = Vec::new();
    adds(&mut r, &mut out);
    muls(&mut r, &mut out);
    pools(&mut r, &mut out);
    means(&mut r, &mut out);
    tables(&mut r, &mut out);
    moves(&mut r, &mut out);
    out
}
