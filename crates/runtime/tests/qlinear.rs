//! Operators on bytes of known scales run by integer kernels, and give the bytes of their definitions.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use std::fmt::Write;

use edgesmith_ir::{Model, Tensor, eval, text};
use edgesmith_kernels::Isa;
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

/// A graph that is written down, and what it is fed with.
struct Written {
    rng: Rng,
    heads: Vec<String>,
    lines: String,
    fed: Vec<(String, Tensor)>,
}

/// Scales that differ hugely.
const SCALES: &[f32] = &[0.0001, 0.0039, 0.02, 0.1, 1.0, 40.0];

impl Written {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            heads: Vec::new(),
            lines: String::new(),
            fed: Vec::new(),
        }
    }

    /// Random bytes, one in four at an end of the range.
    fn bytes(&mut self, signed: bool, dims: &[usize]) -> Tensor {
        let mut byte = || match self.rng.below(8) {
            0 => 0u8,
            1 => 255,
            _ => self.rng.below(256) as u8,
        };
        let data: Vec<u8> = (0..dims.iter().product()).map(|_| byte()).collect();
        if signed {
            // From -128 to 127.
            let data = data.into_iter().map(|b| (b ^ 0x80) as i8).collect();
            return Tensor::from_vec(dims, data).unwrap();
        }
        Tensor::from_vec(dims, data).unwrap()
    }

    /// An operand of bytes, computed or constant; its name.
    fn operand(&mut self, signed: bool, dims: &[usize], constant: bool) -> String {
        let name = format!("v{}", self.fed.len() + self.lines.len());
        let tensor = self.bytes(signed, dims);
        let ty = tensor.ty().to_string();
        if constant {
            let data = tensor.to_i64().unwrap();
            let data: Vec<String> = data.iter().map(i64::to_string).collect();
            let _ = writeln!(self.lines, "{name}: {ty} = {{{}}}", data.join(","));
        } else {
            self.heads.push(format!("{name}: {ty}"));
            self.fed.push((name.clone(), tensor));
        }
        name
    }

    /// A line that makes a value; its name.
    fn made(&mut self, right: &str) -> String {
        let name = format!("m{}", self.lines.len());
        let _ = writeln!(self.lines, "{name} = {right}");
        name
    }

    /// The names of a scale, and of a zero point at an end of its range or anywhere.
    fn grid(&mut self, signed: bool, scale: f32) -> String {
        let low = if signed { -128 } else { 0 };
        let zero = low
            + match self.rng.below(4) {
                0 => 0,
                1 => 255,
                2 => 128,
                _ => self.rng.below(256) as i32,
            };
        let (at, ty) = (self.lines.len(), if signed { "i8" } else { "u8" });
        let _ = writeln!(self.lines, "s{at}: f32[] = {{{scale}}}");
        let _ = writeln!(self.lines, "z{at}: {ty}[] = {{{zero}}}");
        format!("s{at}, z{at}")
    }

    fn any_grid(&mut self, signed: bool) -> String {
        let scale = *self.rng.pick(SCALES);
        self.grid(signed, scale)
    }

    /// The bytes of `operator` are at most `apart` from those of its definition, by every
    /// instruction set, on one thread and two; whether a kernel makes them is `fast`.
    #[track_caller]
    fn check(mut self, operator: &str, apart: i64, fast: bool) {
        let _ = writeln!(self.lines, "y = {operator}");
        let heads = self.heads.join(", ");
        let text = format!("opset 17 graph g({heads}) -> (y) {{ {} }}", self.lines);
        let model = text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let fed: Vec<_> = self
            .fed
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        let want = eval::evaluate(&model, &fed).unwrap().remove(0);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for threads in [1, 2] {
                let found = run(&model, &fed, isa, threads, fast);
                assert_eq!(found.ty(), want.ty(), "{text}");
                let (a, b) = (found.to_f32().unwrap(), want.to_f32().unwrap());
                let far = a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs());
                let far = far.fold(0f32, f32::max);
                assert!(far <= apart as f32, "{}: {far} apart\n{text}", isa.name());
            }
        }
    }
}

fn run(model: &Model, fed: &[(&str, Tensor)], isa: Isa, threads: usize, fast: bool) -> Tensor {
    let options = Options {
        isa: Some(isa),
        threads,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options).unwrap();
    let found = session.run(fed).unwrap().remove(0);
    let is_fast = session.placements().iter().all(|p| p.provider == "cpu");
    assert_eq!(is_fast, fast, "{:?}", session.placements());
    found
}

/// Shapes of two operands.
const PAIRS: &[(&[usize], &[usize])] = &[
    (&[], &[]),
    (&[0], &[0]),
    (&[0], &[1]),
    (&[1], &[1]),
    (&[1], &[1, 3]),
    (&[3, 0, 2], &[1, 1, 2]),
    (&[15], &[15]),
    (&[16], &[16]),
    (&[17], &[17]),
    (&[33], &[1]),
    (&[3, 31], &[31]),
    (&[3, 1], &[1, 5]),
    (&[2, 3, 5, 7], &[2, 3, 5, 7]),
    (&[2, 3, 5, 7], &[3, 1, 1]),
    (&[1, 16, 4, 4], &[1, 16, 1, 1]),
    (&[2, 3, 5, 7], &[2, 3, 1, 1]),
    (&[2, 3, 5, 7], &[2, 1, 5, 1]),
    (&[2, 1, 5, 7], &[1, 3, 1, 7]),
    (&[70_001], &[70_001]),
];

#[test]
fn sums_and_products_broadcast() {
    for (i, &(a, b)) in PAIRS.iter().enumerate() {
        for way in 0..16 {
            let mut w = Written::new(100 * i as u64 + way);
            let bit = |n: u64| way >> n & 1 == 1;
            let op = if bit(0) { "QLinearAdd" } else { "QLinearMul" };
            let (a, b) = if bit(1) { (b, a) } else { (a, b) };
            let big = a.iter().product::<usize>() > 1000;
            let mut x = w.operand(bit(2), a, false);
            if a.len() == 4 && bit(3) {
                // Leaves the channels last.
                x = w.made(&format!("MaxPool({x}) {{kernel_shape=[1,1]}}"));
            }
            let y = w.operand(bit(2), b, bit(3) && !big);
            let [p, q, r] = [0; 3].map(|_| w.any_grid(bit(2)));
            let operator = format!("com.microsoft.{op}({x}, {p}, {y}, {q}, {r})");
            w.check(&operator, 0, true);
        }
    }
}

#[test]
fn scales_that_overflow_are_left_to_the_definition() {
    let mut w = Written::new(1);
    let (a, b) = (w.operand(false, &[3], false), w.operand(false, &[3], false));
    let [p, q, r] = [1e30, 1.0, 1e-6].map(|s| w.grid(false, s));
    let operator = format!("com.microsoft.QLinearAdd({a}, {p}, {b}, {q}, {r})");
    w.check(&operator, 0, false);
}

#[test]
fn zero_points_beyond_bytes_are_left_to_the_definition() {
    for (operator, dims) in [
        ("com.microsoft.QLinearAdd(x, s, z, x, s, z, s, z)", "4"),
        (
            "com.microsoft.QLinearGlobalAveragePool(x, s, z, s, z)",
            "1,1,2,2",
        ),
    ] {
        let text = format!(
            "opset 17 graph g(x: u8[{dims}]) -> (y) {{ s: f32[] = {{1}} z: i32[] = {{-2147483648}} y = {operator} }}"
        );
        let model = text::parse(&text).unwrap();
        let dims: Vec<usize> = dims.split(',').map(|d| d.parse().unwrap()).collect();
        let x = Tensor::from_vec(&dims, vec![1u8, 2, 3, 4]).unwrap();
        let found = Session::prepare(&model, &Options::default())
            .and_then(|mut session| session.run(&[("x", x)]));
        assert!(found.is_err(), "{operator}");
    }
}

#[test]
fn windows_whose_sums_leave_32_bits_are_left_to_the_definition() {
    for (sides, fast) in [([2901, 2902], true), ([2902, 2903], false)] {
        let [h, w] = sides;
        let text = format!(
            "opset 17 graph g(x: u8[1,1,{h},{w}]) -> (y) {{ s: f32[] = {{1}} z: u8[] = {{0}} \
             y = com.microsoft.QLinearGlobalAveragePool(x, s, z, s, z) }}"
        );
        let model = text::parse(&text).unwrap();
        let session = Session::prepare(&model, &Options::default()).unwrap();
        let is_fast = session.placements().iter().all(|p| p.provider == "cpu");
        assert_eq!(is_fast, fast, "{sides:?}");
    }
}

#[test]
fn functions_of_a_byte_are_tables() {
    for (i, length) in [0, 1, 15, 16, 17, 1000].into_iter().enumerate() {
        for (j, op) in ["QLinearSigmoid", "QLinearLeakyRelu"]
            .into_iter()
            .enumerate()
        {
            for signed in [false, true] {
                let mut w = Written::new(10 * i as u64 + j as u64);
                let x = w.operand(signed, &[length], false);
                let (p, q) = (w.any_grid(signed), w.any_grid(signed));
                w.check(&format!("com.microsoft.{op}({x}, {p}, {q})"), 0, true);
            }
        }
    }
}

#[test]
fn softmax_of_bytes_is_exact() {
    let shapes: &[(&[usize], &str, bool)] = &[
        (&[3, 0], "opset=13", true),
        (&[0, 4], "opset=13", true),
        (&[1, 1], "opset=13", true),
        (&[5, 17], "axis=-1, opset=13", true),
        (&[2, 3, 300], "axis=2, opset=13", true),
        (&[2, 3, 4], "axis=1, opset=12", true),
        (&[2, 3, 4], "axis=1, opset=13", false),
    ];
    for (i, (dims, attributes, fast)) in shapes.iter().enumerate() {
        for signed in [false, true] {
            for scale in [0.003, 0.2, 30.0] {
                let mut w = Written::new(i as u64);
                let x = w.operand(signed, dims, false);
                let (p, q) = (w.grid(signed, scale), w.grid(signed, 0.00390625));
                let operator =
                    format!("com.microsoft.QLinearSoftmax({x}, {p}, {q}) {{{attributes}}}");
                w.check(&operator, 0, *fast);
            }
        }
    }
}

#[test]
fn pools_of_bytes_are_means_and_largest() {
    let windows: &[(&str, i64)] = &[
        (
            "com.microsoft.QLinearGlobalAveragePool({} ) {channels_last=0}",
            0,
        ),
        (
            "com.microsoft.QLinearAveragePool({}) {kernel_shape=[2,3]}",
            1,
        ),
        (
            "com.microsoft.QLinearAveragePool({}) {kernel_shape=[1,1]}",
            1,
        ),
        (
            "com.microsoft.QLinearAveragePool({}) {kernel_shape=[3,3], pads=[1,1,1,1], \
             strides=[2,2], count_include_pad=1}",
            1,
        ),
        (
            "com.microsoft.QLinearAveragePool({}) {kernel_shape=[2,2], strides=[2,2], ceil_mode=1}",
            1,
        ),
    ];
    for (i, (window, apart)) in windows.iter().enumerate() {
        for (j, dims) in [[1, 1, 3, 3], [2, 17, 5, 4], [1, 16, 7, 7]]
            .iter()
            .enumerate()
        {
            for signed in [false, true] {
                for scale in [0.02, 0.05, 3.0] {
                    let mut w = Written::new((10 * i + j) as u64);
                    let x = w.operand(signed, dims, false);
                    let (p, q) = (w.grid(signed, scale), w.grid(signed, 0.05));
                    w.check(
                        &window.replace("{}", &format!("{x}, {p}, {q}")),
                        *apart,
                        true,
                    );
                }
            }
        }
    }
    for signed in [false, true] {
        let mut w = Written::new(5);
        let x = w.operand(signed, &[2, 17, 5, 5], false);
        let operator =
            format!("MaxPool({x}) {{kernel_shape=[3,2], pads=[1,0,1,1], strides=[2,1]}}");
        w.check(&operator, 0, true);
    }
}

#[test]
fn bytes_are_padded_and_repeated() {
    let windows = [
        "pads: i64[8] = {0,0,1,2,0,1,0,3} v: u8[] = {77}",
        "scales: f32[4] = {1.0,1.0,2.0,3.0}",
        "scales: f32[4] = {1.0,1.0,0.5,0.5}",
        "scales: f32[4] = {1.0,3.0,2.0,2.0}",
    ];
    for (seed, head) in windows.into_iter().enumerate() {
        for last in [false, true] {
            let mut w = Written::new(seed as u64);
            let mut x = w.operand(false, &[2, 3, 4, 6], false);
            let _ = writeln!(w.lines, "{head}");
            if last {
                x = w.made(&format!("MaxPool({x}) {{kernel_shape=[1,1]}}"));
            }
            let operator = match seed {
                0 => format!("Pad({x}, pads, v)"),
                _ => format!(
                    "Resize({x}, _, scales) {{mode=\"nearest\", nearest_mode=\"floor\", \
                     coordinate_transformation_mode=\"asymmetric\"}}"
                ),
            };
            w.check(&operator, 0, true);
        }
    }
    for signed in [false, true] {
        let mut w = Written::new(9);
        let x = w.operand(signed, &[3, 5], false);
        let _ = writeln!(w.lines, "pads: i64[4] = {{1,0,0,2}}");
        w.check(&format!("Pad({x}, pads)"), 0, true);
    }
}

#[test]
fn parts_are_joined_on_one_grid() {
    for seed in 0..12 {
        let mut w = Written::new(seed);
        let signed = seed % 2 == 1;
        let to = w.grid(signed, 0.1);
        let mut inputs = to.clone();
        for (i, length) in [3, 0, 1, 16].into_iter().enumerate() {
            let x = w.operand(signed, &[2, length, 4], i == 2);
            let own = if i == 0 {
                to.clone()
            } else {
                w.any_grid(signed)
            };
            let _ = write!(inputs, ", {x}, {own}");
        }
        w.check(
            &format!("com.microsoft.QLinearConcat({inputs}) {{axis=1}}"),
            0,
            true,
        );
    }
}

#[test]
fn a_choice_is_on_one_grid() {
    for (seed, (a, b)) in [(&[2, 3][..], &[3][..]), (&[1], &[2, 3]), (&[2, 3], &[2, 1])]
        .into_iter()
        .enumerate()
    {
        let mut w = Written::new(seed as u64);
        w.heads.push("c: bool[2,1]".into());
        let condition = Tensor::from_bools(&[2, 1], &[true, false]).unwrap();
        w.fed.push(("c".into(), condition));
        let (x, y) = (w.operand(false, a, false), w.operand(false, b, seed == 0));
        let [p, q, r] = [0.1, 0.3, 0.1].map(|s| w.grid(false, s));
        w.check(
            &format!("com.microsoft.QLinearWhere(c, {x}, {p}, {y}, {q}, {r})"),
            0,
            true,
        );
    }
}

#[test]
fn products_with_constant_weights_are_exact() {
    let sizes = [
        [1, 1, 1],
        [1, 64, 1001],
        [3, 15, 16],
        [5, 17, 33],
        [33, 128, 31],
        [0, 3, 4],
    ];
    for (seed, [m, k, n]) in sizes.into_iter().enumerate() {
        for way in 0..8 {
            let mut w = Written::new(10 * seed as u64 + way);
            let (signed, turned, bias) = (way & 1 == 1, way & 2 == 2, way & 4 == 4);
            let a = w.operand(signed, &[m, k], false);
            let dims = if turned { [n, k] } else { [k, n] };
            let b = w.operand(true, &dims, true);
            let p = w.grid(signed, 0.02);
            let scales: Vec<String> = (0..n)
                .map(|i| format!("{}", 0.001 + 0.0001 * i as f32))
                .collect();
            let zeros = vec!["0"; n].join(",");
            let biases: Vec<String> = (0..n).map(|i| format!("{}", 91 * i as i32 - 700)).collect();
            let _ = write!(
                w.lines,
                "ws: f32[{n}] = {{{}}} wz: i8[{n}] = {{{zeros}}} c: i32[{n}] = {{{}}}",
                scales.join(","),
                biases.join(",")
            );
            let r = w.grid(signed, 0.05);
            let c = if bias { "c" } else { "_" };
            let operator = format!(
                "com.microsoft.QGemm({a}, {p}, {b}, ws, wz, {c}, {r}) {{transB={}, alpha={}}}",
                u8::from(turned),
                if bias { "1.0" } else { "0.5" }
            );
            w.check(&operator, 0, m > 0);
        }
    }
}

#[test]
fn products_of_computed_bytes_are_exact() {
    let shapes: &[(&[usize], &[usize], bool)] = &[
        (&[1, 1], &[1, 1], true),
        (&[2, 3, 5, 17], &[2, 3, 17, 4], true),
        (&[4, 33, 64], &[64, 31], true),
        (&[16, 250], &[3, 250, 16], true),
        (&[2, 0, 3], &[2, 3, 4], false),
        (&[2, 1, 3, 4], &[1, 3, 4, 5], false),
    ];
    for (seed, (a, b, fast)) in shapes.iter().enumerate() {
        for signed in [false, true] {
            let mut w = Written::new(seed as u64);
            let (x, y) = (w.operand(signed, a, false), w.operand(signed, b, false));
            let [p, q] = [0.02, 0.03].map(|s| w.grid(signed, s));
            let r = w.grid(signed, 2.0);
            w.check(&format!("QLinearMatMul({x}, {p}, {y}, {q}, {r})"), 0, *fast);
        }
    }
}

#[test]
fn a_product_of_computed_bytes_is_floats_too() {
    let mut w = Written::new(3);
    let (x, y) = (
        w.operand(false, &[2, 7, 9], false),
        w.operand(true, &[2, 9, 5], false),
    );
    let _ = writeln!(
        w.lines,
        "s: f32[] = {{0.5}} t: f32[] = {{0.25}} u: u8[] = {{7}} v: i8[] = {{-3}}"
    );
    let operator = format!("com.microsoft.MatMulIntegerToFloat({x}, {y}, s, t, u, v)");
    w.check(&operator, 0, true);
}
