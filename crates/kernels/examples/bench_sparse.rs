//! Measures lists of weights beside dense weights on one thread, by share of zeros.
//!
//! `cargo run --release -p edgesmith-kernels --example bench_sparse [ISA [f32|int8 [WORD]]]`: a WORD selects
//! shapes that hold it. A number is how much faster a product is with lists than with dense weights: the
//! median of rounds in which each runs in turn. The last is of empty lists, whose sums are begun, rounded and
//! stored: no lists are faster. `crates/kernels/src/sparse/break_even.rs` follows from it.
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::hint::black_box;
use std::time::Instant;

use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::arena::Buffer;
use edgesmith_kernels::gemm::{
    Bytes, Epilogue, Input8, Order, Output8, PackedF32, PackedI8, Requant, gemm, gemm8,
};
use edgesmith_kernels::sparse::{Form, SparseF32, SparseI8};
use edgesmith_kernels::{Ctx, Isa, Threads, cpu::CpuInfo};

/// Parts of 100 that are zero.
const ZEROS: [usize; 8] = [50, 60, 70, 80, 85, 90, 95, 100];

/// Rounds of which the median counts.
const ROUNDS: usize = 15;

/// Rows, inputs, outputs.
const SHAPES: [[usize; 3]; 17] = [
    [49, 128, 128],
    [49, 576, 160],
    [49, 160, 576],
    [196, 128, 128],
    [196, 96, 576],
    [196, 576, 96],
    [196, 384, 384],
    [784, 128, 128],
    [784, 192, 32],
    [784, 32, 192],
    [784, 256, 256],
    [1, 384, 1536],
    [1, 1024, 1000],
    [16, 384, 1536],
    [16, 576, 576],
    [128, 384, 1536],
    [128, 1536, 384],
];

/// Numbers of all kinds.
fn hash(i: usize) -> usize {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

fn floats(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (hash(i) % 2001) as f32 / 1000.0 - 1.0)
        .collect()
}

/// Whether weight `[k, n]` is zero, where so many blocks, or weights, of 100 are.
fn is_zero(form: Form, zeros: usize, k: usize, n: usize) -> bool {
    let place = match form {
        Form::Blocks => k * 100_003 + n / 4,
        Form::Rows => k * 100_003 + n,
    };
    hash(place + 77) % 1000 < zeros * 10
}

/// Microseconds of a call, of enough calls to be measured.
fn time(calls: usize, work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        work();
    }
    start.elapsed().as_secs_f64() * 1e6 / calls as f64
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// The median time of the first, and how many times faster each of the others is than it.
fn compare(works: &mut [&mut dyn FnMut()]) -> (f64, Vec<f64>) {
    let calls: Vec<usize> = works
        .iter_mut()
        .map(|work| {
            work();
            (1000.0 / time(3, *work).max(0.1)).ceil() as usize
        })
        .collect();
    let (mut first, mut ratios) = (Vec::new(), vec![Vec::new(); works.len() - 1]);
    for _ in 0..ROUNDS {
        let dense = time(calls[0], works[0]);
        first.push(dense);
        for (i, work) in works.iter_mut().enumerate().skip(1) {
            ratios[i - 1].push(dense / time(calls[i], *work));
        }
    }
    (median(first), ratios.into_iter().map(median).collect())
}

fn floats_of(ctx: &Ctx, [m, k, n]: [usize; 3]) {
    let (w, bias) = (floats(k * n), floats(n));
    // Aligned, as what a session hands on.
    let [mut a, mut c, mut d] = [m * k, m * n, m * n].map(|len| Buffer::zeroed(4 * len));
    a.typed_mut().copy_from_slice(&floats(m * k));
    let a = a.typed();
    let epilogue = Epilogue {
        bias: Some(&bias),
        residual: None,
        activation: Activation::Relu,
    };
    let dense = PackedF32::new(ctx, &w, Order::KN, k, n);
    let mut lists = Vec::new();
    for form in Form::ALL {
        for zeros in ZEROS {
            let b: Vec<f32> = (0..k * n)
                .map(|i| match is_zero(form, zeros, i / n, i % n) {
                    true => 0.0,
                    false => w[i],
                })
                .collect();
            lists.push(SparseF32::in_form(ctx, &b, Order::KN, [k, n], form));
        }
    }
    let mut first = || {
        let c = c.typed_mut();
        gemm(ctx, m, black_box(a), k, &dense, c, n, &epilogue);
    };
    let (mut us, mut all) = (Vec::new(), Vec::new());
    for list in &lists {
        let mut second = || {
            let d = d.typed_mut();
            list.run(ctx, m, black_box(a), k, d, n, &epilogue);
        };
        let (time, ratios) = compare(&mut [&mut first, &mut second]);
        us.push(time);
        all.extend(ratios);
    }
    rows("f32", [m, k, n], median(us), dense.kernel_name(), &all);
}

fn bytes_of(ctx: &Ctx, [m, k, n]: [usize; 3]) {
    let w: Vec<i8> = (0..k * n).map(|i| (hash(i) % 254) as i8 | 1).collect();
    // Aligned, as what a session hands on.
    let [mut a, mut c, mut d] = [m * k, m * n, m * n].map(Buffer::zeroed);
    for (i, a) in a.bytes_mut().iter_mut().enumerate() {
        *a = hash(i + 5) as u8;
    }
    let a = a.bytes();
    let (bias, mult) = (vec![5; n], vec![0.001; n]);
    let requant = Requant {
        mult: &mult,
        zero: 3,
        lo: 3,
        hi: 255,
    };
    let dense = PackedI8::new(ctx, Bytes::I8(&w), Order::KN, k, n, &[]);
    let (mut us, mut all) = (Vec::new(), Vec::new());
    let input = |a| Input8 {
        data: Bytes::U8(a),
        zero: 3,
    };
    for form in Form::ALL {
        for zeros in ZEROS {
            let b: Vec<i8> = (0..k * n)
                .map(|i| match is_zero(form, zeros, i / n, i % n) {
                    true => 0,
                    false => w[i],
                })
                .collect();
            let list = SparseI8::in_form(ctx, Bytes::I8(&b), Order::KN, [k, n], form);
            let mut first = || {
                let out = Output8::Bytes(c.bytes_mut(), requant);
                gemm8(ctx, m, input(black_box(a)), k, &dense, Some(&bias), out, n);
            };
            let mut second = || {
                let out = Output8::Bytes(d.bytes_mut(), requant);
                list.run(ctx, m, input(black_box(a)), k, Some(&bias), out, n);
            };
            let (time, ratios) = compare(&mut [&mut first, &mut second]);
            us.push(time);
            all.extend(ratios);
        }
    }
    rows("int8", [m, k, n], median(us), dense.kernel_name(), &all);
}

fn rows(types: &str, [m, k, n]: [usize; 3], us: f64, kernel: &str, all: &[f64]) {
    let rate = 2.0 * (m * k * n) as f64 / us / 1e3;
    for (form, ratios) in Form::ALL.iter().zip(all.chunks(ZEROS.len())) {
        let name = format!("{types} {m}x{k}x{n}");
        print!("{name:18} {:3} |", form.name());
        ratios.iter().for_each(|r| print!(" {r:6.2}"));
        println!(" | {us:9.1} us, {rate:7.1} Gop/s, {kernel}");
    }
}

fn main() {
    let arg = |i: usize| std::env::args().nth(i).unwrap_or_default();
    let isa = Isa::detect_capped(Isa::parse(&arg(1)));
    let ctx = Ctx::new(isa, Threads::new(1));
    println!("{}, {}, one thread", CpuInfo::read().brand, isa.name());
    print!("{:23}|", "% of zeros");
    for zeros in ZEROS {
        match zeros {
            100 => print!("  empty"),
            _ => print!(" {zeros:5}%"),
        }
    }
    println!(" | dense");
    for shape in SHAPES {
        let [m, k, n] = shape;
        if !format!("{m}x{k}x{n}").contains(&arg(3)) {
            continue;
        }
        if "f32".contains(&arg(2)) {
            floats_of(&ctx, shape);
        }
        if "int8".contains(&arg(2)) {
            bytes_of(&ctx, shape);
        }
    }
}
