//! Uses of operators of random shapes, axes and settings, as texts: a seed is a use.

use edgesmith_testkit::Rng;

/// How many uses of each family.
pub const EACH: u64 = 20;

/// A family and what makes a use of it.
type Family = (&'static str, fn(&mut Rng) -> String);

/// The families.
pub static FAMILIES: &[Family] = &[
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("MatMul", matmul),
    ("Gemm", gemm),
    ("pools", pool),
    ("pools of all pixels", global_pool),
    ("normalisations", norm),
    ("Softmax", softmax),
    ("Gather", gather),
    ("Slice", slice),
    ("Concat", concat),
    ("reductions", reduction),
    ("elementwise", elementwise),
    ("recurrent", recurrent),
];

/// A number from `least` to `most`.
fn from(rng: &mut Rng, least: usize, most: usize) -> usize {
    least + rng.below(most - least + 1)
}

fn flag(rng: &mut Rng) -> bool {
    from(rng, 0, 1) == 1
}

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[from(rng, 0, of.len() - 1)]
}

fn joined<T: ToString>(list: &[T]) -> String {
    let all: Vec<String> = list.iter().map(T::to_string).collect();
    all.join(",")
}

fn floats(dims: &[usize]) -> String {
    format!("f64[{}]", joined(dims))
}

/// Numbers away from 0, from 0.6 to 2.4; some below 0 where `signed`.
fn far(rng: &mut Rng, dims: &[usize], signed: bool) -> String {
    let count: usize = dims.iter().product();
    let numbers: Vec<String> = (0..count)
        .map(|_| {
            let sign = if signed && flag(rng) { "-" } else { "" };
            format!("{sign}{:?}", f64::from(rng.uniform(0.6, 2.4)))
        })
        .collect();
    format!("{}{{{}}}", floats(dims), numbers.join(","))
}

fn ints(list: &[i64]) -> String {
    format!("i64[{}]{{{}}}", list.len(), joined(list))
}

fn several(rng: &mut Rng, count: usize, least: usize, most: usize) -> Vec<usize> {
    (0..count).map(|_| from(rng, least, most)).collect()
}

/// A window over images of `rank` axes, and images into which it goes.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    image: Vec<usize>,
}

fn window(rng: &mut Rng, rank: usize, farthest: usize) -> Window {
    let most = if rank == 3 { 2 } else { 3 };
    let kernel = several(rng, rank, 1, most);
    let dilations = several(rng, rank, 1, farthest);
    let reach: Vec<usize> = kernel
        .iter()
        .zip(&dilations)
        .map(|(k, d)| (k - 1) * d)
        .collect();
    let ends = [&reach[..], &reach[..]].concat();
    let pads = ends.iter().map(|&r| from(rng, 0, r.min(2).min(r)));
    let pads: Vec<usize> = pads.collect();
    let more = if rank == 3 { 1 } else { 3 };
    let image = reach.iter().map(|r| r + 1 + from(rng, 0, more)).collect();
    Window {
        strides: several(rng, rank, 1, 2),
        kernel,
        dilations,
        pads,
        image,
    }
}

impl Window {
    fn attributes(&self) -> String {
        format!(
            "strides=[{}],dilations=[{}],pads=[{}]",
            joined(&self.strides),
            joined(&self.dilations),
            joined(&self.pads)
        )
    }
}

/// Rank of images: mostly two.
fn rank(rng: &mut Rng) -> usize {
    one(rng, &[1, 2, 2, 3])
}

fn conv(rng: &mut Rng) -> String {
    let rank = rank(rng);
    let w = window(rng, rank, 2);
    let (group, batch) = (from(rng, 1, 3), from(rng, 1, 2));
    let (own, made) = (from(rng, 1, 2), from(rng, 1, 2));
    let x = floats(&[&[batch, group * own], &w.image[..]].concat());
    let k = floats(&[&[group * made, own], &w.kernel[..]].concat());
    let bias = match flag(rng) {
        true => format!(", {}", floats(&[group * made])),
        false => String::new(),
    };
    format!("Conv({x}, {k}{bias}) {{group={group},{}}}", w.attributes())
}

fn conv_transpose(rng: &mut Rng) -> String {
    let rank = from(rng, 1, 2);
    let mut w = window(rng, rank, 2);
    w.image = several(rng, rank, 2, 4);
    w.pads = w.pads.iter().map(|p| (*p).min(1)).collect();
    let over: Vec<usize> = w.strides.iter().map(|s| from(rng, 0, s - 1)).collect();
    let (group, batch) = (from(rng, 1, 2), from(rng, 1, 2));
    let (own, made) = (from(rng, 1, 2), from(rng, 1, 2));
    let x = floats(&[&[batch, group * own], &w.image[..]].concat());
    let k = floats(&[&[group * own, made], &w.kernel[..]].concat());
    let bias = match flag(rng) {
        true => format!(", {}", floats(&[group * made])),
        false => String::new(),
    };
    format!(
        "ConvTranspose({x}, {k}{bias}) {{group={group},output_padding=[{}],{}}}",
        joined(&over),
        w.attributes()
    )
}

/// Two shapes that broadcast.
fn broadcast(rng: &mut Rng, most: usize) -> [Vec<usize>; 2] {
    let rank = from(rng, 0, most);
    let full = several(rng, rank, 1, 3);
    [(); 2].map(|()| {
        let some = full
            .iter()
            .map(|&n| if from(rng, 0, 2) == 0 { 1 } else { n });
        let some: Vec<usize> = some.collect();
        some[from(rng, 0, rank)..].to_vec()
    })
}

fn matmul(rng: &mut Rng) -> String {
    let [m, k, n] = [(); 3].map(|()| from(rng, 1, 4));
    let [a, b] = broadcast(rng, 2);
    let a = match from(rng, 0, 4) {
        0 => vec![k],
        _ => [&a[..], &[m, k]].concat(),
    };
    let b = match from(rng, 0, 4) {
        0 => vec![k],
        _ => [&b[..], &[k, n]].concat(),
    };
    format!("MatMul({}, {})", floats(&a), floats(&b))
}

fn gemm(rng: &mut Rng) -> String {
    let [m, k, n] = [(); 3].map(|()| from(rng, 1, 4));
    let (ta, tb) = (flag(rng), flag(rng));
    let a = if ta { [k, m] } else { [m, k] };
    let b = if tb { [n, k] } else { [k, n] };
    let c: Vec<usize> = match from(rng, 0, 5) {
        0 => vec![],
        1 => vec![n],
        2 => vec![1, n],
        3 => vec![m, 1],
        4 => vec![1],
        _ => vec![m, n],
    };
    let c = match flag(rng) {
        true => format!(", {}", floats(&c)),
        false => String::new(),
    };
    format!(
        "Gemm({}, {}{c}) {{transA={},transB={},alpha={:?},beta={:?}}}",
        floats(&a),
        floats(&b),
        u8::from(ta),
        u8::from(tb),
        rng.uniform(0.5, 1.5),
        rng.uniform(0.5, 1.5)
    )
}

fn pool(rng: &mut Rng) -> String {
    let op = one(rng, &["AveragePool", "MaxPool", "LpPool"]);
    let rank = rank(rng);
    let mut w = window(rng, rank, 2);
    // A pad is shorter than the window.
    let kernels = w.kernel.iter().cycle();
    w.pads = w
        .pads
        .iter()
        .zip(kernels)
        .map(|(p, k)| (*p).min(k - 1))
        .collect();
    let more = match op {
        "AveragePool" => format!(",count_include_pad={}", from(rng, 0, 1)),
        "LpPool" => format!(",p={}", from(rng, 2, 3)),
        _ => String::new(),
    };
    let x = floats(&[&[from(rng, 1, 2), from(rng, 1, 2)], &w.image[..]].concat());
    format!(
        "{op}({x}) {{kernel_shape=[{}],{},ceil_mode={}{more}}}",
        joined(&w.kernel),
        w.attributes(),
        from(rng, 0, 1)
    )
}

fn global_pool(rng: &mut Rng) -> String {
    let op = one(rng, &["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]);
    let rank = rank(rng);
    let dims = [several(rng, 2, 1, 3), several(rng, rank, 1, 3)].concat();
    format!("{op}({})", floats(&dims))
}

fn norm(rng: &mut Rng) -> String {
    let rank = rank(rng);
    let image = several(rng, rank, 2, 3);
    let channels = 2 * from(rng, 1, 2);
    let dims = [&[from(rng, 2, 3), channels], &image[..]].concat();
    let x = floats(&dims);
    let c = floats(&[channels]);
    match from(rng, 0, 5) {
        0 => {
            let variance = far(rng, &[channels], false);
            let training = from(rng, 0, 1);
            format!(
                "BatchNormalization({x}, {c}, {c}, {}, {variance}) {{training_mode={training}}}",
                far(rng, &[channels], true)
            )
        }
        1 => format!("InstanceNormalization({x}, {c}, {c})"),
        2 => format!("GroupNormalization({x}, {c}, {c}) {{num_groups=2}}"),
        3 => format!("LRN({x}) {{size={},alpha=0.5,beta=0.7}}", from(rng, 1, 4)),
        4 => {
            let axis = from(rng, 0, dims.len() - 1);
            format!("LpNormalization({x}) {{axis={axis},p=2}}")
        }
        _ => {
            let op = one(rng, &["LayerNormalization", "RMSNormalization"]);
            let axis = from(rng, 1, dims.len() - 1);
            let scale = floats(&dims[axis..]);
            let shift = match op == "LayerNormalization" && flag(rng) {
                true => format!(", {scale}"),
                false => String::new(),
            };
            format!("{op}({x}, {scale}{shift}) {{axis={axis}}}")
        }
    }
}

/// Lengths of 1 to 4 axes, of 1 to 4 each.
fn dims(rng: &mut Rng) -> Vec<usize> {
    let rank = from(rng, 1, 4);
    let most = if rank == 4 { 3 } else { 4 };
    several(rng, rank, 1, most)
}

/// An axis of `rank`, from the front or from the back.
fn axis(rng: &mut Rng, rank: usize) -> i64 {
    from(rng, 0, 2 * rank - 1) as i64 - rank as i64
}

fn softmax(rng: &mut Rng) -> String {
    let op = one(rng, &["Softmax", "LogSoftmax"]);
    let dims = dims(rng);
    format!("{op}({}) {{axis={}}}", floats(&dims), axis(rng, dims.len()))
}

fn gather(rng: &mut Rng) -> String {
    let dims = dims(rng);
    let axis = axis(rng, dims.len());
    let length = dims[axis.rem_euclid(dims.len() as i64) as usize] as i64;
    let rank = from(rng, 0, 2);
    let of = several(rng, rank, 1, 3);
    let count: usize = of.iter().product();
    let index = |rng: &mut Rng| from(rng, 0, 2 * length as usize - 1) as i64 - length;
    let indices: Vec<i64> = (0..count).map(|_| index(rng)).collect();
    format!(
        "Gather({}, i64[{}]{{{}}}) {{axis={axis}}}",
        floats(&dims),
        joined(&of),
        joined(&indices)
    )
}

fn slice(rng: &mut Rng) -> String {
    let dims = dims(rng);
    let mut axes: Vec<usize> = (0..dims.len()).filter(|_| flag(rng)).collect();
    if axes.is_empty() {
        axes.push(from(rng, 0, dims.len() - 1));
    }
    let (mut starts, mut ends, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for &a in &axes {
        let n = dims[a];
        let (low, step) = (from(rng, 0, n - 1), from(rng, 1, 2) as i64);
        let high = from(rng, low + 1, n);
        if flag(rng) {
            starts.push(low as i64);
            ends.push(if high == n {
                i64::from(i32::MAX)
            } else {
                high as i64
            });
            steps.push(step);
        } else {
            starts.push(high as i64 - 1 - n as i64);
            ends.push(if low == 0 {
                -i64::from(i32::MAX)
            } else {
                low as i64 - 1
            });
            steps.push(-step);
        }
    }
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    format!(
        "Slice({}, {}, {}, {}, {})",
        floats(&dims),
        ints(&starts),
        ints(&ends),
        ints(&axes),
        ints(&steps)
    )
}

fn concat(rng: &mut Rng) -> String {
    let dims = dims(rng);
    let axis = axis(rng, dims.len());
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let parts: Vec<String> = (0..from(rng, 1, 3))
        .map(|_| {
            let mut own = dims.clone();
            own[at] = from(rng, 1, 3);
            floats(&own)
        })
        .collect();
    format!("Concat({}) {{axis={axis}}}", parts.join(", "))
}

fn reduction(rng: &mut Rng) -> String {
    let op = one(
        rng,
        &[
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ],
    );
    let dims = dims(rng);
    let x = match op {
        "ReduceLogSum" => far(rng, &dims, false),
        "ReduceL1" | "ReduceL2" | "ReduceProd" => far(rng, &dims, true),
        _ => floats(&dims),
    };
    let axes: Vec<i64> = (0..dims.len() as i64).filter(|_| flag(rng)).collect();
    let axes = match axes.is_empty() {
        true => String::new(),
        false => format!(", {}", ints(&axes)),
    };
    format!("{op}({x}{axes}) {{keepdims={}}}", from(rng, 0, 1))
}

fn elementwise(rng: &mut Rng) -> String {
    let [a, b] = broadcast(rng, 4);
    let (x, y) = (floats(&a), floats(&b));
    match from(rng, 0, 9) {
        0 => format!("Add({x}, {y})"),
        1 => format!("Sub({x}, {y})"),
        2 => format!("Mul({x}, {y})"),
        3 => format!("Div({x}, {})", far(rng, &b, true)),
        4 => format!("Pow({}, {y})", far(rng, &a, false)),
        5 => format!("Max({x}, {y}, f64[1])"),
        6 => format!("Min({x}, {y})"),
        7 => format!("Mean({x}, {y})"),
        8 => {
            let mut one = b.clone();
            one.iter_mut().for_each(|n| *n = 1);
            format!("PRelu({y}, {})", floats(&one))
        }
        _ => {
            let count: usize = a.iter().product();
            let chosen: Vec<bool> = (0..count).map(|_| flag(rng)).collect();
            let chosen = joined(&chosen);
            format!("Where(bool[{}]{{{chosen}}}, {x}, {y})", joined(&a))
        }
    }
}

fn recurrent(rng: &mut Rng) -> String {
    let (op, gates) = one(rng, &[("LSTM", 4), ("GRU", 3), ("RNN", 1)]);
    let [length, batch, width, hidden] = [(); 4].map(|()| from(rng, 1, 3));
    let direction = one(rng, &["forward", "reverse", "bidirectional"]);
    let ways = if direction == "bidirectional" { 2 } else { 1 };
    let rows = gates * hidden;
    let mut inputs = vec![
        floats(&[length, batch, width]),
        floats(&[ways, rows, width]),
        floats(&[ways, rows, hidden]),
    ];
    if flag(rng) {
        inputs.push(floats(&[ways, 2 * rows]));
        if flag(rng) {
            let lengths = several(rng, batch, 1, length);
            inputs.push(format!("i32[{batch}]{{{}}}", joined(&lengths)));
            inputs.push(floats(&[ways, batch, hidden]));
        }
    }
    let more = match op == "GRU" && flag(rng) {
        true => ",linear_before_reset=1",
        false => "",
    };
    format!(
        "{op}({}) {{direction=\"{direction}\"{more}}} -> {}",
        inputs.join(", "),
        from(rng, 1, 2)
    )
}
