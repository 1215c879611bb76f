//! Measures kernels on one thread against this machine's own peak.
//!
//! `cargo run --release -p edgesmith-kernels --example bench_kernels [ISA|bf16|all [WORD]]`: a WORD
//! selects lines that hold it; `bf16` rounds floats to BF16 where this CPU multiplies that.
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::hint::black_box;
use std::time::Instant;

use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::attention::{Rows, Scores, Shape, attention};
use edgesmith_kernels::conv::{ConvF32, ConvGeometry, ConvI8};
use edgesmith_kernels::floats::Floats;
use edgesmith_kernels::gemm::{
    Bytes, Epilogue, Input8, Order, Output8, PackedF32, PackedI8, Requant, gemm, gemm8,
};
use edgesmith_kernels::{Ctx, Isa, Threads, cpu::CpuInfo};

/// Bytes of all kinds.
fn bytes(n: usize) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8;
    (0..n).map(byte).collect()
}

/// Numbers of all kinds in -1..1.
fn floats(n: usize) -> Vec<f32> {
    let float = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 7) as u16 as f32 / 32768.0 - 1.0;
    (0..n).map(float).collect()
}

/// Best seconds of a call, over a quarter of a second.
fn time(mut work: impl FnMut()) -> f64 {
    work();
    let (mut best, begin) = (f64::INFINITY, Instant::now());
    while begin.elapsed().as_secs_f64() < 0.25 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn line(name: &str, kernel: &str, ops: usize, f32: f64, int8: f64, peak: f64) {
    let (a, b) = (2.0 * ops as f64 / f32 / 1e9, 2.0 * ops as f64 / int8 / 1e9);
    println!(
        "{name:34} f32 {a:7.1} GFLOP/s {:4.0}%   int8 {b:7.1} Gop/s   x{:.2}   {kernel}",
        100.0 * a / peak,
        b / a
    );
}

/// The rate of a product that stays in the L1 cache, which only the multipliers limit.
fn peak(ctx: &Ctx) -> f64 {
    let (m, k, n) = (48, 128, 32);
    let packed = PackedF32::new(ctx, &floats(k * n), Order::KN, k, n);
    let (a, mut c) = (floats(m * k), vec![0.0; m * n]);
    let seconds = time(|| {
        for _ in 0..100 {
            gemm(
                ctx,
                m,
                black_box(&a),
                k,
                &packed,
                &mut c,
                n,
                &Epilogue::default(),
            );
        }
    });
    200.0 * (m * k * n) as f64 / seconds / 1e9
}

fn convolution(ctx: &Ctx, name: &str, g: ConvGeometry, peak: f64) {
    let [h, w] = g.output();
    let weights = g.channels_out * g.kernel[0] * g.kernel[1] * g.channels_in / g.groups;
    let (input, output) = (
        g.input[0] * g.input[1] * g.channels_in,
        h * w * g.channels_out,
    );
    let (x, f) = (floats(input), floats(weights));
    let (q, i) = (
        bytes(input),
        bytes(weights).iter().map(|&b| b as i8).collect::<Vec<_>>(),
    );
    let (bias, mult) = (vec![0.5; g.channels_out], vec![0.01; g.channels_out]);
    let bias8 = vec![5; g.channels_out];
    let conv = ConvF32::prepare(ctx, g, &f).expect("the geometry is right");
    let conv8 = ConvI8::prepare(ctx, g, Bytes::I8(&i), &[]).expect("the geometry is right");
    let (mut y, mut y8) = (vec![0.0; output], vec![0; output]);
    let epilogue = Epilogue {
        bias: Some(&bias),
        residual: None,
        activation: Activation::Relu,
    };
    let seconds = time(|| conv.run(ctx, 1, black_box(&x), &mut y, &epilogue));
    let seconds8 = time(|| {
        let input = Input8 {
            data: Bytes::U8(black_box(&q)),
            zero: 3,
        };
        let to = Requant {
            mult: &mult,
            zero: 3,
            lo: 3,
            hi: 255,
        };
        conv8.run(ctx, 1, input, Some(&bias8), Output8::Bytes(&mut y8, to));
    });
    line(name, conv8.kernel_name(), g.macs(), seconds, seconds8, peak);
}

/// A product with one matrix, or with `copies` of it in turn, as the layers of a model are.
fn product(ctx: &Ctx, [m, k, n]: [usize; 3], copies: usize, peak: f64) {
    let packed = vec![PackedF32::new(ctx, &floats(k * n), Order::KN, k, n); copies];
    let packed8 = PackedI8::new(
        ctx,
        Bytes::I8(&bytes(k * n).iter().map(|&b| b as i8).collect::<Vec<_>>()),
        Order::KN,
        k,
        n,
        &[],
    );
    let packed8 = vec![packed8; copies];
    let (mut layers, mut layers8) = (packed.iter().cycle(), packed8.iter().cycle());
    let (a, a8, mult) = (floats(m * k), bytes(m * k), vec![0.01; n]);
    let (mut c, mut c8) = (vec![0.0; m * n], vec![0; m * n]);
    let seconds = time(|| {
        gemm(
            ctx,
            m,
            black_box(&a),
            k,
            layers.next().expect("there is one"),
            &mut c,
            n,
            &Epilogue::default(),
        )
    });
    let seconds8 = time(|| {
        let input = Input8 {
            data: Bytes::U8(black_box(&a8)),
            zero: 3,
        };
        let to = Requant {
            mult: &mult,
            zero: 3,
            lo: 0,
            hi: 255,
        };
        gemm8(
            ctx,
            m,
            input,
            k,
            layers8.next().expect("there is one"),
            None,
            Output8::Bytes(&mut c8, to),
            n,
        );
    });
    let name = match copies {
        1 => format!("gemm {m}x{k}x{n}"),
        _ => format!("gemm {m}x{k}x{n} of {copies} layers"),
    };
    line(
        &name,
        packed8[0].kernel_name(),
        m * k * n,
        seconds,
        seconds8,
        peak,
    );
}

/// Attention of twelve heads of 32 elements.
fn heads(ctx: &Ctx, places: usize) {
    let shape = Shape {
        batch: 1,
        heads: 12,
        queries: places,
        keys: places,
        size: 32,
        value_size: 32,
    };
    let data = floats(places * 12 * 32);
    let rows = Rows {
        data: Floats::F32(&data),
        batch: 0,
        head: 32,
        row: 12 * 32,
    };
    let scores = Scores {
        scale: 0.2,
        ..Scores::default()
    };
    let mut y = vec![0.0; data.len()];
    let seconds = time(|| attention(ctx, shape, [rows; 3], scores, &mut y));
    let rate = 4.0 * (12 * places * places * 32) as f64 / seconds / 1e9;
    println!(
        "{:34} f32 {rate:7.1} GFLOP/s",
        format!("attention 12x{places}x32")
    );
}

fn main() {
    let first = std::env::args().nth(1).unwrap_or_default();
    let word = std::env::args().nth(2).unwrap_or_default();
    let isa = Isa::detect_capped(Isa::parse(&first));
    let ctx = Ctx::new(isa, Threads::new(1)).with_bf16(first == "bf16");
    let peak = peak(&ctx);
    let info = CpuInfo::read();
    println!(
        "{}, {}: peak {peak:.1} GFLOP/s on one thread",
        info.brand,
        ctx.isa().name()
    );
    for (shape, copies) in [
        ([1, 1024, 1000], 1),
        ([128, 768, 768], 1),
        ([196, 512, 512], 1),
        ([512, 512, 512], 1),
        ([384, 1024, 1024], 1),
        ([508, 1280, 512], 1),
        ([1, 384, 1536], 24),
        ([16, 384, 1536], 24),
        ([128, 384, 384], 24),
        ([128, 384, 1536], 24),
        ([128, 1536, 384], 24),
        ([512, 384, 1536], 24),
        ([1024, 384, 1536], 24),
        ([1024, 1536, 384], 24),
        ([4096, 384, 1536], 6),
    ] {
        if "gemm".contains(&word) {
            product(&ctx, shape, copies, peak);
        }
    }
    for places in [16, 128, 512] {
        if "attention".contains(&word) {
            heads(&ctx, places);
        }
    }
    for (kernel, stride, size, inputs, outputs, groups) in [
        (3, 1, 28, 1, 32, 1),
        (3, 2, 224, 3, 32, 1),
        (3, 2, 96, 3, 8, 1),
        (1, 1, 112, 32, 16, 1),
        (1, 1, 56, 24, 144, 1),
        (1, 1, 28, 32, 16, 1),
        (1, 1, 28, 24, 144, 1),
        (1, 1, 28, 144, 24, 1),
        (1, 1, 28, 16, 96, 1),
        (1, 1, 28, 192, 32, 1),
        (1, 1, 14, 32, 64, 1),
        (1, 1, 14, 64, 64, 1),
        (1, 1, 7, 128, 128, 1),
        (1, 1, 14, 96, 576, 1),
        (1, 1, 14, 576, 96, 1),
        (1, 1, 7, 320, 1280, 1),
        (3, 1, 56, 64, 64, 1),
        (3, 1, 28, 128, 128, 1),
        (3, 1, 14, 256, 256, 1),
        (3, 2, 28, 128, 256, 1),
        (3, 1, 32, 32, 32, 1),
        (3, 1, 32, 16, 16, 1),
        (3, 1, 8, 64, 64, 1),
        (5, 1, 22, 256, 512, 1),
        (3, 1, 48, 8, 8, 8),
        (3, 1, 112, 32, 32, 32),
        (3, 2, 28, 32, 32, 32),
        (3, 1, 14, 64, 64, 64),
        (3, 1, 25, 64, 64, 64),
        (3, 1, 7, 256, 256, 256),
        (3, 2, 112, 96, 96, 96),
        (3, 1, 56, 144, 144, 144),
        (3, 1, 14, 576, 576, 576),
        (3, 1, 7, 960, 960, 960),
        (5, 1, 14, 480, 480, 480),
    ] {
        let pad = (kernel - 1) / 2;
        let g = ConvGeometry {
            kernel: [kernel; 2],
            stride: [stride; 2],
            pad_begin: [pad; 2],
            pad_end: [pad; 2],
            dilation: [1; 2],
            groups,
            input: [size; 2],
            channels_in: inputs,
            channels_out: outputs,
        };
        let kind = if groups > 1 { "depthwise" } else { "conv" };
        let name = format!("{kind} {kernel}x{kernel}/{stride} {size} {inputs}->{outputs}");
        if name.contains(&word) {
            convolution(&ctx, &name, g, peak);
        }
    }
}
