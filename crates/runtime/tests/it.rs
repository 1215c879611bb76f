//! Sessions against the reference evaluation.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use edgesmith_ir::types::DType;
use edgesmith_ir::{Model, Tensor, eval, ops, text};
use edgesmith_runtime::{Options, Session};

/// Runs both and compares: integers within `ulps` steps, floats to `tolerance` of the largest.
fn agree(what: &str, model: &Model, inputs: &[(&str, Tensor)], tolerance: f32, steps: i64) {
    let expected = match eval::evaluate(model, inputs) {
        Ok(expected) => expected,
        Err(e) => {
            let session = Session::prepare(model, &Options::default());
            let found = session.and_then(|mut s| s.run(inputs));
            assert!(found.is_err(), "{what}: the reference says {e}");
            return;
        }
    };
    for threads in [1, 2] {
        let options = Options {
            threads,
            ..Options::default()
        };
        let mut session =
            Session::prepare(model, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
        for _ in 0..2 {
            let found = session
                .run(inputs)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            for (a, b) in expected.iter().zip(&found) {
                close(what, a, b, tolerance, steps);
            }
        }
    }
}

fn close(what: &str, a: &Tensor, b: &Tensor, tolerance: f32, steps: i64) {
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()), "{what}");
    if matches!(a.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        let finite = a.iter().filter(|x| x.is_finite());
        let largest = finite.fold(1e-6f32, |m, x| m.max(x.abs()));
        for (i, (x, y)) in a.iter().zip(b.iter()).enumerate() {
            let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * largest;
            assert!(same, "{what}: element {i} is {y}, expected {x}");
        }
    } else if let (Ok(a), Ok(b)) = (a.to_i64(), b.to_i64()) {
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            assert!(
                (x - y).abs() <= steps,
                "{what}: element {i} is {y}, expected {x}"
            );
        }
    } else {
        assert_eq!(a, b, "{what}");
    }
}

#[test]
fn every_example_of_every_operator_gives_the_reference_answer() {
    let mut examples = 0;
    for op in ops::OPS
        .iter()
        .filter(|o| o.is_evaluated() && o.deterministic)
    {
        for example in op.examples {
            let (model, inputs) = text::example(example).unwrap();
            let names: Vec<String> = model
                .graph
                .inputs
                .iter()
                .map(|&v| model.graph.value(v).name.clone())
                .collect();
            let inputs: Vec<(&str, Tensor)> =
                names.iter().map(String::as_str).zip(inputs).collect();
            agree(example, &model, &inputs, 2e-3, 0);
            examples += 1;
        }
    }
    assert!(examples > 100, "{examples}");
}

#[test]
fn random_graphs_give_the_reference_answer() {
    for seed in 0..60 {
        let model = edgesmith_testkit::random::graph(seed);
        let inputs = edgesmith_testkit::random::inputs(&model, seed);
        let inputs: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        agree(&format!("seed {seed}"), &model, &inputs, 2e-3, 1);
    }
}

#[test]
fn a_window_longer_than_one_is_placed_at_the_first_run() {
    let model = text::parse(
        "opset 17
         graph g(x: f32[n,1,length]) -> (y) {
           w: f32[1,1,4] = {1,2,3,4}
           y = Conv(x, w)
         }",
    )
    .unwrap();
    let mut session = Session::prepare(&model, &Options::default()).unwrap();
    assert!(session.placements()[0].provider.is_empty());
    let x = Tensor::from_vec(&[1, 1, 6], vec![1f32; 6]).unwrap();
    let y = session.run(&[("x", x)]).unwrap();
    assert_eq!(y[0].to_f32().unwrap()[..], [10.0; 3]);
    assert_eq!(session.placements()[0].provider, "cpu");
}

/// The providers of the rows of a profile that are MatMul.
fn products(model: &Model, inputs: &[(&str, Tensor)]) -> Vec<String> {
    let options = Options {
        profile: true,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options).unwrap();
    session.run(inputs).unwrap();
    let rows = session.profile().nodes.into_iter();
    let products = rows.filter(|row| row.op == "MatMul");
    products.map(|row| row.provider).collect()
}

#[test]
fn graphs_inside_nodes_run_on_kernels() {
    let model = text::parse(
        "opset 17
         graph g(x: f32[n,2], c: bool[]) -> (y: f32[n,2]) {
           w: f32[2,2] = {1,2,3,4}
           k: i64[] = {3}
           a = If(c) {then_branch=graph t() -> (p) {
             capture xi = x
             capture wi = w
             p = MatMul(xi, wi)
           }, else_branch=graph e() -> (q) {
             capture xi = x
             q = Neg(xi)
           }}
           y = Loop(k, _, a) {body=graph b(i, go, v) -> (on, next) {
             capture wi = w
             on = Identity(go)
             next = MatMul(v, wi)
           }}
         }",
    )
    .unwrap();
    let x = Tensor::from_vec(&[3, 2], (0..6).map(|i| i as f32).collect()).unwrap();
    for c in [true, false] {
        let inputs = [
            ("x", x.clone()),
            ("c", Tensor::from_bools(&[], &[c]).unwrap()),
        ];
        agree("if and loop", &model, &inputs, 1e-6, 0);
        let found = products(&model, &inputs);
        assert!(
            !found.is_empty() && found.iter().all(|p| p == "cpu"),
            "{found:?}"
        );
    }
}

#[test]
fn what_depends_on_the_number_of_hits_is_planned_in_the_run() {
    let model = text::parse(
        "opset 17
         graph g(x: f32[n]) -> (y) {
           w: f32[1,2] = {1,-2}
           hits = NonZero(x)
           turned = Transpose(hits)
           floats = Cast(turned) {to=1}
           p = MatMul(floats, w)
           y = Relu(p)
         }",
    )
    .unwrap();
    for values in [vec![0f32, 1.0, 0.0, 2.0], vec![1.0; 5], vec![0.0; 3]] {
        let inputs = [("x", Tensor::vector(values))];
        agree("hits", &model, &inputs, 1e-6, 0);
    }
    let inputs = [("x", Tensor::vector(vec![0f32, 1.0, 3.0]))];
    assert_eq!(products(&model, &inputs), ["cpu"]);
}

/// A graph of one recurrent node on `x: f32[steps,batch,3]`, with weights, and both states given
/// or none.
fn recurrent(op: &str, gates: usize, [hidden, d]: [usize; 2], parts: usize, more: &str) -> String {
    let numbers = |n: usize, seed: usize| {
        let one = |i: usize| format!("{}", ((i * 37 + seed * 11) % 41) as f32 / 40.0 - 0.5);
        (0..n).map(one).collect::<Vec<_>>().join(",")
    };
    let rows = gates * hidden;
    let inputs = [
        "x, w, r",
        "x, w, r, b",
        "x, w, r, b, _, h",
        "x, w, r, b, _, h, c",
    ][parts];
    let outputs = if op == "LSTM" { "y, p, q" } else { "y, p" };
    format!(
        "opset 17
         graph g(x: f32[steps,batch,3], h: f32[{d},batch,{hidden}], c: f32[{d},batch,{hidden}])
             -> ({outputs}) {{
           w: f32[{d},{rows},3] = {{{}}}
           r: f32[{d},{rows},{hidden}] = {{{}}}
           b: f32[{d},{}] = {{{}}}
           {outputs} = {op}({inputs}) {{hidden_size={hidden}{more}}}
         }}",
        numbers(d * rows * 3, 1),
        numbers(d * rows * hidden, 2),
        2 * rows,
        numbers(d * 2 * rows, 3),
    )
}

#[test]
fn recurrent_kernels_give_the_reference_answer() {
    for (op, gates, most, more) in [
        ("LSTM", 4, 4, ""),
        ("GRU", 3, 3, ""),
        ("GRU", 3, 3, ", linear_before_reset=1"),
    ] {
        for (direction, d) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            for (hidden, steps, batch) in [(1, 1, 1), (5, 4, 3), (8, 2, 1), (17, 3, 2)] {
                for parts in 0..most {
                    let more = format!("{more}, direction=\"{direction}\"");
                    let text = recurrent(op, gates, [hidden, d], parts, &more);
                    let model = text::parse(&text).unwrap();
                    let of = |dims: [usize; 3], seed: usize| {
                        let count: usize = dims.iter().product();
                        let one = |i: usize| ((i * 29 + seed) % 31) as f32 / 15.0 - 1.0;
                        Tensor::from_vec(&dims, (0..count).map(one).collect()).unwrap()
                    };
                    let inputs = [
                        ("x", of([steps, batch, 3], 1)),
                        ("h", of([d, batch, hidden], 2)),
                        ("c", of([d, batch, hidden], 3)),
                    ];
                    agree(&text, &model, &inputs, 2e-6, 0);
                }
            }
        }
    }
}

#[test]
fn attention_of_many_sentences_gives_the_reference_answer() {
    for rest in ["i32[29,64]", "i32[29,64], , f32[29,4,64,64]"] {
        let text = format!(
            "com.microsoft.Attention(f32[29,64,32], f32[32,384], f32[384], {rest}) {{num_heads=4, scale=0.01}}"
        );
        let (mut model, all) = text::example(&text).unwrap();
        let mut inputs = Vec::new();
        for (i, (v, tensor)) in std::mem::take(&mut model.graph.inputs)
            .into_iter()
            .zip(&all)
            .enumerate()
        {
            let name = model.graph.value(v).name.clone();
            if i == 1 || i == 2 {
                let constant = format!("{name}c");
                let constant = model.graph.add_constant(&constant, tensor.clone());
                model.graph.replace_uses(v, constant);
            } else {
                model.graph.inputs.push(v);
                inputs.push((name, tensor.clone()));
            }
        }
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        agree(&text, &model, &inputs, 1e-5, 0);
        let mut session = Session::prepare(&model, &Options::default()).unwrap();
        session.run(&inputs).unwrap();
        assert_eq!(session.placements()[0].provider, "cpu", "{text}");
    }
}

#[test]
fn bf16_is_near_f32_or_refused_where_the_cpu_lacks_it() {
    let model = text::parse(
        "opset 17
         graph g(x: f32[2,32], w: f32[32,3]) -> (y) {
           s = Softmax(x)
           y = MatMul(s, w)
         }",
    )
    .unwrap();
    let generic = Options {
        isa: Some(edgesmith_kernels::Isa::Generic),
        bf16: true,
        ..Options::default()
    };
    let error = Session::prepare(&model, &generic).err().unwrap();
    assert!(error.to_string().contains("generic does not multiply BF16"));
    if !edgesmith_kernels::Isa::detect().multiplies_bf16() {
        return;
    }
    let numbers = |n: usize| (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = Tensor::from_vec::<f32>(&[2, 32], numbers(64)).unwrap();
    let w = Tensor::from_vec::<f32>(&[32, 3], numbers(96)).unwrap();
    let inputs = [("x", x), ("w", w)];
    let options = Options {
        bf16: true,
        ..Options::default()
    };
    let y = Session::prepare(&model, &options)
        .unwrap()
        .run(&inputs)
        .unwrap();
    let expected = eval::evaluate(&model, &inputs).unwrap();
    assert_ne!(y[0], expected[0], "products are rounded");
    close("bf16", &expected[0], &y[0], 1.0 / 128.0, 0);
}

/// The same numbers, `offset` bytes behind an even place.
fn moved(tensor: &Tensor, offset: usize) -> Tensor {
    let mut all = vec![0; tensor.byte_len() + 128];
    let first = all.as_ptr().align_offset(64) + offset;
    all[first..][..tensor.byte_len()].copy_from_slice(tensor.bytes());
    let data = bytes::Bytes::from(all).slice(first..first + tensor.byte_len());
    Tensor::from_bytes(tensor.dtype(), tensor.dims(), data).unwrap()
}

#[test]
fn inputs_are_read_wherever_they_lie_and_stay_as_they_are() {
    let model = text::parse(
        "opset 20 graph net(x: f32[2,3,5,4], z: f32[2,60]) -> (x, flat, twice, y) {
        w: f32[2,3,1,1] = {1,2,3,4,5,6} flat = Flatten(x) twice = Add(flat, z) c = Conv(x, w) y = Relu(c) }",
    );
    let model = model.unwrap();
    let numbers = |dims: &[usize], by: f32| {
        let count = dims.iter().product::<usize>();
        Tensor::from_vec(dims, (0..count).map(|i| i as f32 * by - 3.0).collect()).unwrap()
    };
    let (x, z) = (numbers(&[2, 3, 5, 4], 0.1), numbers(&[2, 60], -0.2));
    let want = eval::evaluate(&model, &[("x", x.clone()), ("z", z.clone())]).unwrap();
    let mut session = Session::prepare(&model, &Options::default()).unwrap();
    for offset in [0, 1, 2, 4, 8, 16, 36] {
        let given = [("x", moved(&x, offset)), ("z", moved(&z, 64 - offset))];
        let found = session.run(&given).unwrap();
        for (a, b) in want.iter().zip(&found) {
            close(&format!("{offset} bytes"), a, b, 1e-6, 0);
        }
        assert_eq!(given[0].1, x, "nothing is written to what was given");
    }
}

/// Agrees with the reference, in kernels.
fn agree_by_kernels(what: &str, model: &Model, inputs: &[(&str, Tensor)]) {
    agree(what, model, inputs, 1e-5, 0);
    let mut session = Session::prepare(model, &Options::default()).unwrap();
    session.run(inputs).unwrap();
    let mut placed = session.placements().iter();
    assert!(placed.all(|p| p.provider == "cpu"), "{what}");
}

#[test]
fn forms_of_operators_have_kernels() {
    for example in [
        "Attention(f32[2,3,5,4], f32[2,3,7,4], f32[2,3,7,6])",
        "Attention(f32[2,3,5,4], f32[2,3,7,4], f32[2,3,7,6], f32[5,7])",
        "Attention(f32[2,4,5,4], f32[2,2,7,4], f32[2,2,7,6], f32[2,1,5,7]) {is_causal=1}",
        "Attention(f32[2,2,3,4], f32[2,2,2,4], f32[2,2,2,6], bool[2,1,1,2]{true,true,false,true})",
        "Attention(f32[2,2,3,4], f32[2,2,3,4], f32[2,2,3,6], bool[3,3]) {is_causal=1}",
        "Attention(f32[1,1,2,4], f32[1,1,2,4], f32[1,1,2,6], bool[2,2]{false,false,true,true})",
        "Attention(f32[2,5,12], f32[2,7,12], f32[2,7,9], f32[3,1,7]) {q_num_heads=3,kv_num_heads=3}",
        "Attention(f32[2,5,16], f32[2,7,8], f32[2,7,6], f32[2,4,5,7]) \
         {q_num_heads=4,kv_num_heads=2,is_causal=1,scale=0.7}",
        "Attention@23(f32[1,1,1,33], f32[1,1,130,33], f32[1,1,130,17], f32[1]) {softmax_precision=1}",
        "PRelu(f32[2,3,4,5], f32[3,1,1])",
        "PRelu(f32[2,3,4], f32[4])",
        "PRelu(f32[2,3], f32[1])",
        "PRelu@9(f32[2,3], f32[2,3])",
        "InstanceNormalization(f32[2,3,4,5], f32[3], f32[3]) {epsilon=0.1}",
        "GroupNormalization(f32[2,6,5], f32[6], f32[6]) {num_groups=3}",
        "Softmax(f32[2,3,4,5]) {axis=1}",
        "Softmax(f32[2,3,4,5]) {axis=-2}",
        "Softmax@11(f32[2,3,4,5]) {axis=2}",
        "LogSoftmax(f32[2,17,3]) {axis=1}",
        "LogSoftmax(f32[5,3]) {axis=0}",
        "ArgMax(f32[2,3,70]) {axis=1}",
        "ArgMin(f32[2,3,4]) {axis=-1,keepdims=0,select_last_index=1}",
        "TopK(f32[3,50], i64[1]{7})",
        "TopK(f32[2,9,4], i64[1]{3}) {axis=1,largest=0}",
        "TopK@1(f32[2,5]) {k=2}",
        "ConvTranspose(f32[2,6,5,4], f32[6,1,4,4], f32[6]) {group=6,strides=[2,2],pads=[1,1,1,1]}",
        "ConvTranspose(f32[1,8,9], f32[8,2,3]) {group=4,strides=[2],pads=[1,0]}",
        "ConvTranspose(f32[1,4,3,3], f32[4,1,2,2]) {group=4,strides=[3,3],output_padding=[1,0]}",
    ] {
        let (model, inputs) = text::example(example).unwrap();
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
        let names = names.iter().map(String::as_str);
        agree_by_kernels(example, &model, &names.zip(inputs).collect::<Vec<_>>());
    }
}

#[test]
fn operators_behind_a_convolution_take_its_images_as_they_lie() {
    for then in [
        "PRelu(c, s) ",
        "InstanceNormalization(c, f, b) {epsilon=0.01}",
        "GroupNormalization(c, f, b) {num_groups=2}",
        "Softmax(c) {axis=1}",
        "LogSoftmax(c) {axis=1}",
        "ArgMax(c) {axis=1,keepdims=0}",
        "ArgMin(c) {axis=1}",
        "ArgMax(c) {axis=2}",
        "MaxPool(c) {kernel_shape=[2,2]}",
    ] {
        let text = format!(
            "opset 21 graph net(x: f32[2,4,6,5], w: f32[4,4,1,1], s: f32[4,1,1], f: f32[4], b: f32[4]) -> (y) {{
            c = Conv(x, w) y = {then} }}"
        );
        let model = text::parse(&text).unwrap();
        let inputs = edgesmith_testkit::random::inputs(&model, 5);
        let inputs: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        agree_by_kernels(then, &model, &inputs);
    }
}
