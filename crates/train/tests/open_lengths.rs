//! Gradients of models whose batch is left to the run equal those of the same model with numbers.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::analysis::concrete_inputs;
use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::parse;
use edgesmith_ir::{DType, Model, Node, Result, Tensor, ValueId};
use edgesmith_testkit::random;
use edgesmith_train::differentiate;

/// The model with these lengths for its named axes.
fn fixed(model: &Model, lengths: &[(&str, usize)]) -> Model {
    let mut fixed = model.clone();
    for (v, ty) in concrete_inputs(model, lengths) {
        fixed.graph.value_mut(v).ty = Some(ty);
    }
    fixed
}

/// The gradients of `loss` for every input of f64, one output each.
fn gradients(model: &Model, loss: ValueId) -> Result<Model> {
    let mut model = model.clone();
    let is_float = |v: &ValueId| {
        let ty = model.graph.value(*v).tensor_type();
        ty.is_some_and(|t| t.dtype == DType::F64)
    };
    let wanted = model.graph.inputs.iter().copied();
    let wanted: Vec<ValueId> = wanted.filter(is_float).collect();
    let made = differentiate(&mut model, loss, &wanted)?;
    assert!(made.iter().any(Option::is_some), "a gradient");
    model.graph.outputs = made.into_iter().flatten().collect();
    Ok(model)
}

/// Asserts that the gradients of two models with the same values are the same numbers, up to the
/// order of sums.
fn agree(open: &Model, known: &Model, inputs: &[(String, Tensor)]) {
    let [open, known] = [open, known].map(|m| gradients(m, m.graph.outputs[0]).unwrap());
    edgesmith_testkit::check(&open);
    let named: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let found = evaluate(&open, &named).unwrap();
    let expected = evaluate(&known, &named).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.dims(), expected.dims());
        let expected = expected.data::<f64>().unwrap();
        let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (a, b) in found.data::<f64>().unwrap().iter().zip(&*expected) {
            assert!((a - b).abs() <= 1e-12 * scale, "{a} and not {b}");
        }
    }
}

/// Asserts that a model whose output is the loss has the same gradients with named lengths, with
/// lengths of which nothing is known, and with numbers.
fn agree_in_text(text: &str, lengths: &[(&str, usize)], integers: &[(&str, Vec<i64>)]) {
    let model = parse(text).unwrap();
    let mut inputs = random::inputs_with(&model, 3, lengths);
    for (name, data) in integers {
        let (_, tensor) = inputs.iter_mut().find(|(n, _)| n == name).unwrap();
        let dims = tensor.dims().to_vec();
        *tensor = match tensor.dtype() {
            DType::I32 => Tensor::from_vec(&dims, data.iter().map(|&i| i as i32).collect()),
            _ => Tensor::from_vec(&dims, data.clone()),
        }
        .unwrap();
    }
    let known = fixed(&model, lengths);
    agree(&model, &known, &inputs);
    let mut unknown = text.to_owned();
    for (name, _) in lengths {
        for (before, behind) in [("[", ","), ("[", "]"), (",", ",")] {
            let name = format!("{before}{name}{behind}");
            unknown = unknown.replace(&name, &format!("{before}?{behind}"));
        }
    }
    agree(&parse(&unknown).unwrap(), &known, &inputs);
}

#[test]
fn a_convolutional_net() {
    agree_in_text(
        r#"opset 17 graph net(
            x: f64[N,2,8,8], labels: i64[N], w1: f64[4,2,3,3], s: f64[4], b: f64[4],
            w2: f64[4,1,3,3], w3: f64[4,4,1,1], w4: f64[5,6], b4: f64[5]
        ) -> (loss) {
            mean: f64[4] = {0.1,0.2,-0.1,0.3} var: f64[4] = {1,2,0.5,1.5}
            low: f64[] = {0} high: f64[] = {6} parts: i64[2] = {2,4}
            size: i64[4] = {0,0,4,4} none: f32[0] = {} half: f32[4] = {1,1,0.5,0.5}
            c1 = Conv(x, w1) {pads=[1,1,1,1]}
            n1 = BatchNormalization(c1, s, b, mean, var)
            r1 = Clip(n1, low, high)
            c2 = Conv(r1, w2) {pads=[1,1,1,1],group=4}
            r2 = Relu(c2)
            c3 = Conv(r2, w3)
            sum = Add(c3, r1)
            p1 = MaxPool(sum) {kernel_shape=[2,2],strides=[2,2]}
            p2 = AveragePool(sum) {kernel_shape=[2,2],strides=[2,2]}
            p3 = Resize(sum, none, half) {mode="linear"}
            all = Concat(p1, p2, p3) {axis=1}
            left, right = Split(all, rest) {axis=1}
            rest: i64[2] = {6,6}
            gate = GlobalAveragePool(right)
            soft = HardSigmoid(gate)
            gated = Mul(left, soft)
            flat = GlobalAveragePool(gated)
            rows = Flatten(flat)
            scores = Gemm(rows, w4, b4) {transB=1}
            loss = SoftmaxCrossEntropyLoss(scores, labels)
        }"#,
        &[("N", 3)],
        &[("labels", vec![0, 4, 2])],
    );
}

#[test]
fn an_encoder_with_open_batch_and_length() {
    agree_in_text(
        r#"opset 20 graph net(
            ids: i64[N,S], keep: i64[N,S], labels: i64[N], words: f64[7,6], places: f64[9,6],
            wq: f64[6,6], wk: f64[6,6], wv: f64[6,6], wo: f64[6,6], bo: f64[6],
            g1: f64[6], b1: f64[6], w1: f64[6,8], c1: f64[8], w2: f64[8,6], w3: f64[6,3]
        ) -> (loss) {
            zero: i64[1] = {0} one: i64[1] = {1} axes: i64[2] = {1,2} none: i64[] = {0}
            heads: i64[2] = {2,3} whole: i64[1] = {6} hidden: f64[] = {-10000} seen: f64[] = {0}
            root: f64[] = {1.7320508} middle: i64[1] = {1}
            embedded = Gather(words, ids)
            shape = Shape(ids)
            length = Slice(shape, one, two)
            two: i64[1] = {2}
            rows = Slice(places, zero, length, zero)
            x = Add(embedded, rows)
            front = Concat(shape, heads) {axis=0}
            q0 = MatMul(x, wq) q1 = Reshape(q0, front) q = Transpose(q1) {perm=[0,2,1,3]}
            k0 = MatMul(x, wk) k1 = Reshape(k0, front) k = Transpose(k1) {perm=[0,2,3,1]}
            v0 = MatMul(x, wv) v1 = Reshape(v0, front) v = Transpose(v1) {perm=[0,2,1,3]}
            products = MatMul(q, k)
            scaled = Div(products, root)
            flags = Unsqueeze(keep, axes)
            is_hidden = Equal(flags, none)
            mask = Where(is_hidden, hidden, seen)
            masked = Add(scaled, mask)
            weights = Softmax(masked)
            mixed = MatMul(weights, v)
            turned = Transpose(mixed) {perm=[0,2,1,3]}
            back = Concat(shape, whole) {axis=0}
            joined = Reshape(turned, back)
            out0 = MatMul(joined, wo) out = Add(out0, bo)
            both = Add(out, x)
            n1 = LayerNormalization(both, g1, b1)
            f0 = MatMul(n1, w1) f1 = Add(f0, c1) f2 = Gelu(f1) f3 = MatMul(f2, w2)
            sum = Add(f3, n1)
            twice = Concat(sum, embedded) {axis=1}
            pooled = ReduceMean(twice, middle) {keepdims=0}
            scores = MatMul(pooled, w3)
            loss = SoftmaxCrossEntropyLoss(scores, labels)
        }"#,
        &[("N", 2), ("S", 4)],
        &[
            ("ids", vec![0, 3, 6, 1, 2, 2, 5, 0]),
            ("keep", vec![1, 1, 1, 0, 1, 1, 0, 0]),
            ("labels", vec![2, 0]),
        ],
    );
}

#[test]
fn an_optimised_encoder() {
    agree_in_text(
        r#"opset 17 opset "com.microsoft" 1 graph net(
            ids: i32[N,4], keep: i32[N,4], labels: i64[N], words: f64[7,6], places: f64[9,6],
            g0: f64[6], b0: f64[6], w: f64[6,18], c: f64[18], wo: f64[6,6], bo: f64[6],
            g1: f64[6], b1: f64[6], w1: f64[6,8], c1: f64[8], w2: f64[8,6], w3: f64[6,3]
        ) -> (loss) {
            middle: i64[1] = {1} first: i64[] = {0}
            x, index = com.microsoft.EmbedLayerNormalization(ids, _, words, places, _, g0, b0)
            a = com.microsoft.Attention(x, w, c, keep) {num_heads=2}
            h = com.microsoft.MultiHeadAttention(a, x, x, _, keep) {num_heads=3}
            o = MatMul(h, wo)
            n1 = com.microsoft.SkipLayerNormalization(o, x, g1, b1, bo)
            f0 = MatMul(n1, w1) f1 = com.microsoft.BiasGelu(f0, c1) f2 = MatMul(f1, w2)
            sum = Add(f2, n1)
            pooled = Gather(sum, first) {axis=1}
            scores = MatMul(pooled, w3)
            loss = SoftmaxCrossEntropyLoss(scores, labels)
        }"#,
        &[("N", 2)],
        &[
            ("ids", vec![0, 3, 6, 1, 2, 2, 5, 0]),
            ("keep", vec![1, 1, 1, 0, 1, 1, 0, 0]),
            ("labels", vec![2, 0]),
        ],
    );
}

#[test]
fn a_recurrent_net_with_open_batch_and_length() {
    agree_in_text(
        r#"opset 17 graph net(
            x: f64[T,N,3], labels: i64[N], w: f64[2,16,3], r: f64[2,16,4], b: f64[2,32],
            w2: f64[1,9,8], r2: f64[1,9,3], w3: f64[3,5]
        ) -> (loss) {
            shape: i64[3] = {0,0,8} first: i64[1] = {0}
            y = LSTM(x, w, r, b) {direction="bidirectional",hidden_size=4}
            turned = Transpose(y) {perm=[0,2,1,3]}
            rows = Reshape(turned, shape)
            all, last = GRU(rows, w2, r2) {hidden_size=3}
            state = Squeeze(last, first)
            scores = MatMul(state, w3)
            loss = SoftmaxCrossEntropyLoss(scores, labels)
        }"#,
        &[("T", 3), ("N", 2)],
        &[("labels", vec![1, 4])],
    );
}

/// A sum of squares of all outputs of f32, as a loss.
fn with_loss(mut model: Model) -> Option<(Model, ValueId)> {
    let inferred = edgesmith_ir::infer::infer(&model, &[]).unwrap();
    let graph = &mut model.graph;
    let mut losses = Vec::new();
    for o in graph.outputs.clone() {
        if inferred.tensor(o).is_some_and(|t| t.dtype == DType::F32) {
            let keep = edgesmith_ir::Attribute::Int(0);
            let node = Node::new("ReduceSumSquare", "").with("keepdims", keep);
            losses.push(graph.add_op(node, &[o], "loss"));
        }
    }
    let mut rest = losses.into_iter();
    let first = rest.next()?;
    let loss = rest.fold(first, |a, b| {
        graph.add_op(Node::new("Add", ""), &[a, b], "loss")
    });
    graph.outputs = vec![loss];
    Some((model, loss))
}

#[test]
fn random_graphs_have_gradients_for_open_batches_where_they_have_them_for_known_ones() {
    let mut compared = 0;
    for seed in 0..300 {
        let Some((model, loss)) = with_loss(random::graph(seed)) else {
            continue;
        };
        let open = gradients_or_none(&model, loss);
        let known = gradients_or_none(&fixed(&model, &[("batch", 2)]), loss);
        let (open, known) = match (open, known) {
            (Ok(open), Ok(known)) => (open, known),
            (Err(_), Err(_)) => continue,
            (open, known) => panic!("seed {seed}: {:?} {:?}", open.err(), known.err()),
        };
        let inputs = random::inputs_with(&model, seed, &[("batch", 2)]);
        let named: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        let run = |m: &Model| evaluate(m, &named).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let (found, expected) = (run(&open), run(&known));
        for (a, b) in found.iter().zip(&expected) {
            let tolerance = edgesmith_testkit::Tolerance::ROUNDING;
            let difference = edgesmith_testkit::difference(a, b, tolerance);
            assert!(difference.is_none(), "seed {seed}: {difference:?}");
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared} graphs have gradients");
}

/// As [`gradients`], where the loss may depend on nothing.
fn gradients_or_none(model: &Model, loss: ValueId) -> Result<Model> {
    let mut model = model.clone();
    let wanted: Vec<ValueId> = model.graph.inputs.clone();
    let made = differentiate(&mut model, loss, &wanted)?;
    model.graph.outputs = made.into_iter().flatten().collect();
    model.graph.outputs.push(loss);
    Ok(model)
}
