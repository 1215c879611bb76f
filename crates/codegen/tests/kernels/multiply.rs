//! Cases of convolutions and dense layers on int8.

use super::cases::{Case, bytes, int8, words};
use edgesmith_codegen::kernels::{
    Flavour, Geometry, depthwise_in_place, pack_conv, pack_conv_w4, pack_dense, pack_dense_w4,
    pack_depthwise, pack_depthwise_3x3, scratch_conv, scratch_conv_1x1, scratch_conv_1x1_w4,
    scratch_conv_w4, scratch_depthwise, scratch_depthwise_3x3,
};
use edgesmith_ir::random::Random;

/// What follows a sum.
struct Requant {
    bias: Vec<i32>,
    mult: Vec<i32>,
    zero: i32,
    lo: i32,
    hi: i32,
    shift: i32,
}

impl Requant {
    fn random(r: &mut Random, channels: usize, depth: usize) -> Self {
        let shift = [0, 0, 1, 3, 7][r.below(5)].min(16 - depth.ilog2() as i32);
        let spread = (depth as f64).sqrt() * 73.0 * 73.0 / 40.0;
        let real = 1.0 / spread / f64::from(1 << shift);
        let mult = |r: &mut Random| ((real * (0.5 + r.unit())).min(0.499) * 4_294_967_296.0) as i32;
        let zero = [-128, 0, 17, -3][r.below(4)];
        let (lo, hi) = [(-128, 127), (-128, 127), (zero.max(-128), 127), (-100, 90)][r.below(4)];
        Self {
            bias: (0..channels).map(|_| r.below(4000) as i32 - 2000).collect(),
            mult: (0..channels).map(|_| mult(r)).collect(),
            zero,
            lo,
            hi,
            shift,
        }
    }

    fn of(&self, channel: usize, acc: i64) -> i8 {
        let acc = acc + i64::from(self.bias[channel]);
        let scaled = i64::from(i32::try_from(acc << self.shift).unwrap());
        let y = (scaled * i64::from(self.mult[channel]) + 0x8000_0000) >> 32;
        (y + i64::from(self.zero)).clamp(self.lo.into(), self.hi.into()) as i8
    }

    fn parameters(&self) -> [i32; 4] {
        [self.zero, self.lo, self.hi, self.shift]
    }
}

/// The sum of an output element over its window; outside is `zero`.
pub fn sum(g: &Geometry, x: &[i64], w: &[i8], zero: i64, at: [usize; 3]) -> i64 {
    let (per, channels) = (g.in_c / g.groups, g.out_c / g.groups);
    let group = at[2] / channels;
    let mut acc = 0;
    for ky in 0..g.kernel[0] {
        for kx in 0..g.kernel[1] {
            let iy = (at[0] * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad[0]);
            let ix = (at[1] * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad[1]);
            for c in 0..per {
                let v = if iy < g.in_h && ix < g.in_w {
                    x[(iy * g.in_w + ix) * g.in_c + group * per + c]
                } else {
                    zero
                };
                let k = ((at[2] * g.kernel[0] + ky) * g.kernel[1] + kx) * per + c;
                acc += v * i64::from(w[k]);
            }
        }
    }
    acc
}

fn answer(g: &Geometry, x: &[i8], w: &[i8], zero: i8, to: &Requant) -> Vec<i8> {
    let (wide, zero) = (
        x.iter().map(|v| i64::from(*v)).collect::<Vec<_>>(),
        i64::from(zero),
    );
    let mut y = Vec::new();
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for c in 0..g.out_c {
                y.push(to.of(c, sum(g, &wide, w, zero, [oy, ox, c])));
            }
        }
    }
    y
}

fn parameters(g: &Geometry, zero: i8, to: &Requant) -> Vec<i32> {
    let sizes = g.sizes();
    let mut q: Vec<i32> = sizes.iter().map(|v| *v as i32).collect();
    q.push(zero.into());
    q.extend(to.parameters());
    q
}

/// Sizes of a convolution with padding that is less than the kernel.
pub fn geometry(r: &mut Random, kernel: [usize; 2], channels: [usize; 3], most: usize) -> Geometry {
    let stride = [1 + r.below(2), 1 + r.below(2)];
    let dilation = [[1, 1], [1, 1], [1, 1], [2, 1], [1, 3]][r.below(5)];
    let span = |i: usize| (kernel[i] - 1) * dilation[i] + 1;
    let mut size = |i: usize| {
        let before = r.below(span(i));
        let after = r.below(span(i));
        let within = r.below(most);
        let length = (span(i).saturating_sub(before + after)).max(1) + within;
        (
            length,
            before,
            (length + before + after - span(i)) / stride[i] + 1,
        )
    };
    let (rows, columns) = (size(0), size(1));
    Geometry {
        in_h: rows.0,
        in_w: columns.0,
        in_c: channels[0],
        out_h: rows.2,
        out_w: columns.2,
        out_c: channels[1],
        kernel,
        stride,
        pad: [rows.1, columns.1],
        dilation,
        groups: channels[2],
    }
}

/// Where the answer may start in front of what is read: the least that the steps allow.
fn lead(g: &Geometry, step: usize) -> usize {
    let start = |pixel: usize| {
        let at = |o: usize, i: usize| (o * g.stride[i]).saturating_sub(g.pad[i]);
        (at(pixel / g.out_w, 0) * g.in_w + at(pixel % g.out_w, 1)) * g.in_c
    };
    let pixels = g.out_h * g.out_w;
    let least = |from: usize| (from..pixels).map(start).min();
    let ends = (0..pixels).step_by(step).filter_map(|p| {
        let end = (p + step).min(pixels) * g.out_c;
        least(p + step).map(|s| end.saturating_sub(s))
    });
    ends.max().unwrap_or(0)
}

/// Weights, by 16 times what is packed for a kernel of 4 bits.
fn weights(r: &mut Random, kernel: i32, count: usize) -> (Vec<i8>, Vec<i8>) {
    let raw = int8(r, count);
    if kernel < 14 {
        return (raw.clone(), raw);
    }
    let four: Vec<i8> = raw.iter().map(|w| w >> 4).collect();
    (four.iter().map(|w| w * 16).collect(), four)
}

fn conv_case(r: &mut Random, flavour: Flavour, kernel: i32, g: &Geometry) -> Case {
    let x = int8(r, g.in_h * g.in_w * g.in_c);
    let (w, raw) = weights(r, kernel, g.out_c * g.depth());
    let zero = int8(r, 1)[0];
    let to = Requant::random(r, g.out_c, g.depth());
    let (packed, scratch) = match kernel {
        0 => (pack_conv(flavour, &w, g), scratch_conv(flavour, g)),
        1 => (pack_conv(flavour, &w, g), scratch_conv_1x1(flavour, g)),
        14 => (pack_conv_w4(flavour, &raw, g), scratch_conv_w4(flavour, g)),
        15 => (
            pack_conv_w4(flavour, &raw, g),
            scratch_conv_1x1_w4(flavour, g),
        ),
        2 => (
            pack_depthwise(flavour, &w, g),
            scratch_depthwise(flavour, g),
        ),
        _ => (
            pack_depthwise_3x3(flavour, &w, g),
            scratch_depthwise_3x3(flavour, g),
        ),
    };
    let y = answer(g, &x, &w, zero, &to);
    let mut case = Case {
        kernel,
        parameters: parameters(g, zero, &to),
        scratch,
        overlap: None,
        arrays: [
            bytes(&x),
            Vec::new(),
            packed,
            words(&to.bias),
            words(&to.mult),
        ],
        answer: bytes(&y),
    };
    if r.below(2) == 0 {
        let depthwise = kernel == 2 || kernel == 3;
        if depthwise && depthwise_in_place(g) {
            case.overlap = Some(0);
        } else if !depthwise {
            over(
                &mut case,
                lead(g, edgesmith_codegen::kernels::pixels(flavour)),
            );
        }
    }
    case
}

/// Moves x so that the answer lies before it, over its start.
fn over(case: &mut Case, lead: usize) {
    let mut x = vec![0u8; lead.next_multiple_of(16)];
    case.parameters.resize(23, 0);
    case.parameters.push(x.len() as i32);
    case.overlap = Some(x.len() - lead);
    x.extend(&case.arrays[0]);
    let needed = case.overlap.unwrap_or(0) + case.answer.len();
    case.arrays[0] = x;
    if case.arrays[0].len() < needed {
        case.arrays[0].resize(needed, 0);
    }
}

fn dense_case(r: &mut Random, flavour: Flavour, kernel: i32, sizes: [usize; 3]) -> Case {
    let [rows, inputs, outputs] = sizes;
    let x = int8(r, rows * inputs);
    let (w, raw) = weights(r, kernel, inputs * outputs);
    let to = Requant::random(r, outputs, inputs);
    let mut y = Vec::new();
    for row in x.chunks(inputs) {
        for (c, w) in w.chunks(inputs).enumerate() {
            let acc = row
                .iter()
                .zip(w)
                .map(|(a, b)| i64::from(*a) * i64::from(*b));
            y.push(to.of(c, acc.sum()));
        }
    }
    let mut q: Vec<i32> = vec![rows as i32, inputs as i32, outputs as i32];
    q.resize(16, 0);
    q.extend(to.parameters());
    Case {
        kernel,
        parameters: q,
        arrays: [
            bytes(&x),
            Vec::new(),
            match kernel {
                4 => pack_dense(flavour, &w, inputs),
                _ => pack_dense_w4(flavour, &raw, inputs),
            },
            words(&to.bias),
            words(&to.mult),
        ],
        answer: bytes(&y),
        ..Case::default()
    }
}

/// All of them.
pub fn cases(flavour: Flavour) -> Vec<Case> {
    let mut r = Random::new(20);
    let r = &mut r;
    let mut out = Vec::new();
    for i in 0..100 {
        let kernel = [1 + r.below(5), 1 + r.below(5)];
        let channels = if i % 4 == 3 {
            let (groups, per, outs) = (1 + r.below(4), 1 + r.below(5), 1 + r.below(3));
            [groups * per, groups * outs, groups]
        } else {
            [[1, 3, 4, 8, 5, 16, 20][r.below(7)], 1 + r.below(11), 1]
        };
        let g = geometry(r, kernel, channels, 5);
        out.push(conv_case(r, flavour, if i % 3 == 2 { 14 } else { 0 }, &g));
    }
    for (rows, columns, inputs, outputs) in [
        (1, 1, 1, 1),
        (1, 2, 3, 2),
        (3, 3, 4, 5),
        (2, 5, 16, 16),
        (3, 3, 33, 8),
        (5, 1, 18, 3),
        (2, 2, 64, 7),
        (1, 7, 20, 20),
        (1, 3, 129, 4),
        (4, 4, 7, 12),
    ] {
        let g = Geometry {
            in_h: rows,
            in_w: columns,
            in_c: inputs,
            out_h: rows,
            out_w: columns,
            out_c: outputs,
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0, 0],
            dilation: [1, 1],
            groups: 1,
        };
        out.push(conv_case(r, flavour, 1, &g));
        out.push(conv_case(r, flavour, 1, &g));
        out.push(conv_case(r, flavour, 15, &g));
    }
    for _ in 0..40 {
        let c = [1, 2, 3, 5, 8, 16, 19, 33][r.below(8)];
        let kernel = [1 + r.below(5), 1 + r.below(5)];
        let g = geometry(r, kernel, [c, c, c], 7);
        out.push(conv_case(r, flavour, 2, &g));
    }
    for _ in 0..60 {
        let c = [1, 2, 3, 5, 8, 16, 19, 33][r.below(8)];
        let mut g = geometry(r, [3, 3], [c, c, c], 9);
        while g.dilation != [1, 1] {
            g = geometry(r, [3, 3], [c, c, c], 9);
        }
        out.push(conv_case(r, flavour, 3, &g));
    }
    for sizes in [
        [1, 1, 1],
        [1, 3, 2],
        [2, 4, 4],
        [1, 17, 5],
        [3, 64, 10],
        [1, 129, 6],
        [2, 32, 9],
    ] {
        out.push(dense_case(r, flavour, 4, sizes));
        out.push(dense_case(r, flavour, 16, sizes));
    }
    out
}
