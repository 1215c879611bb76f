//! Training of quantised networks: what is written stays on its grids, and computes what was trained.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::{DType, Model, NoProgress, NoStore, Result, Tensor, eval, text};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;
use edgesmith_train::draft::{self, Draft};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::{Data, Settings, Training, train};

/// A network of two products whose output is on a grid: with weights of `WEIGHT` and activations
/// bounded at `END`.
fn net(weight: &str, end: u8) -> Model {
    let mut rng = Rng::new(17);
    let source = format!(
        "opset 21 graph g(x: f32[n,8]) -> (y: f32[n,4]) {{
        s: f32[] = {{STEP}} z: u8[] = {{ZERO}} low: u8[] = {{0}} high: u8[] = {{{end}}} t: f32[] = {{LAST}}
        w: {weight}[6,8] = {{hex\"W24\"}} ws: f32[6] = {{0.1,0.08,0.12,0.1,0.09,0.1}}
        wz: {weight}[6] = {{hex\"Z6\"}} b: i32[6] = {{1,2,-3,4,0,-2}} bs: f32[6] = {{SUMS}}
        v: {weight}[4,6] = {{hex\"W12\"}} vs: f32[4] = {{0.1,0.1,0.1,0.1}} vz: {weight}[4] = {{hex\"Z4\"}}
        q = QuantizeLinear(x, s, z) c = Clip(q, low, high) d = DequantizeLinear(c, s, z)
        wd = DequantizeLinear(w, ws, wz) {{axis=0}} bd = DequantizeLinear(b, bs) {{axis=0}}
        h = Gemm(d, wd, bd) {{transB=1}} r = Relu(h)
        q2 = QuantizeLinear(r, s, low) c2 = Clip(q2, low, high) d2 = DequantizeLinear(c2, s, low)
        vd = DequantizeLinear(v, vs, vz) {{axis=0}}
        p = Gemm(d2, vd) {{transB=1}}
        q3 = QuantizeLinear(p, t, z) c3 = Clip(q3, low, high) y = DequantizeLinear(c3, t, z)
        }}"
    );
    let (bytes, step) = match weight {
        "i4" => (1, 0.25f32),
        _ => (2, 0.02),
    };
    let hex = |n: usize, rng: &mut Rng| -> String {
        let byte = |_| match bytes {
            1 => format!("{:02x}", rng.below(256)),
            _ => format!("{:02x}", rng.below(16)),
        };
        (0..n * bytes).map(byte).collect()
    };
    let sums: Vec<String> = [0.1f32, 0.08, 0.12, 0.1, 0.09, 0.1]
        .iter()
        .map(|w| format!("{:?}", w * step))
        .collect();
    let source = source
        .replace("W24", &hex(24, &mut rng))
        .replace("W12", &hex(12, &mut rng))
        .replace("Z6", &"0".repeat(6 * bytes))
        .replace("Z4", &"0".repeat(4 * bytes))
        .replace("STEP", &format!("{step:?}"))
        .replace("LAST", &format!("{:?}", step * 2.0))
        .replace("ZERO", &format!("{}", end / 2 + 1))
        .replace("SUMS", &sums.join(","));
    text::parse(&source).unwrap()
}

/// Rows, and what the outputs should be of them.
struct Rows;

impl Data for Rows {
    fn count(&self) -> usize {
        64
    }

    fn batch(&mut self, samples: &[usize], _: usize) -> Result<Vec<(String, Tensor)>> {
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for &i in samples {
            let row = Rng::new(i as u64).floats(&[8], -1.0, 1.0);
            let row = row.to_f32()?;
            y.extend((0..4).map(|o| row[o] - 0.5 * row[o + 4] + 0.3));
            x.extend_from_slice(&row);
        }
        Ok(vec![
            ("x".into(), Tensor::from_vec(&[samples.len(), 8], x)?),
            ("target/y".into(), Tensor::from_vec(&[samples.len(), 4], y)?),
        ])
    }
}

fn prepared(model: &Model) -> Training {
    let mut draft = Draft::new(model, &draft::Options::default()).unwrap();
    let loss = losses::find("mse").unwrap();
    draft.add_term(loss, 1.0, &Request::default()).unwrap();
    draft.finish().unwrap()
}

fn trained(model: &Model, optimizer: &str, rate: f64) -> (Model, Vec<f64>) {
    let training = prepared(model);
    let name = training.fed[0].name.clone();
    let mut data = Named(name);
    let settings = Settings {
        epochs: 20,
        batch: 16,
        rate,
        optimizer: optimizer.into(),
        threads: 1,
        ..Settings::default()
    };
    let done = train(
        &training,
        &mut data,
        &settings,
        None,
        (&NoStore, "k"),
        &NoProgress,
    )
    .unwrap();
    (done.model, done.history.iter().map(|e| e.loss).collect())
}

/// [`Rows`] whose targets are called as the training graph calls them.
struct Named(String);

impl Data for Named {
    fn count(&self) -> usize {
        Rows.count()
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
        let mut fed = Rows.batch(samples, epoch)?;
        fed[1].0.clone_from(&self.0);
        Ok(fed)
    }
}

fn x() -> Tensor {
    Rng::new(1000).floats(&[200, 8], -1.5, 1.5)
}

#[test]
fn the_loss_falls_and_the_file_keeps_its_types_and_ends() {
    for (weight, end) in [("i4", 15), ("i8", 255)] {
        let before = net(weight, end);
        for (optimizer, rate) in [("adamw", 0.02), ("sgd", 0.05)] {
            let (after, losses) = trained(&before, optimizer, rate);
            assert!(
                losses[19] < 0.7 * losses[0],
                "{weight} {optimizer}: {losses:?}"
            );
            edgesmith_testkit::check(&after);
            let ops = |m: &Model| {
                let mut ops: Vec<String> = m.graph.nodes().map(|(_, n)| n.op.clone()).collect();
                ops.sort();
                ops
            };
            assert_eq!(ops(&after), ops(&before));
            let of = |m: &Model, n: &str| {
                m.graph
                    .constant(m.graph.find_value(n).unwrap())
                    .unwrap()
                    .clone()
            };
            for n in ["w", "v", "wz", "high", "z"] {
                assert_eq!(of(&after, n).dtype(), of(&before, n).dtype(), "{n}");
            }
            assert_ne!(of(&after, "w").bytes(), of(&before, "w").bytes());
            assert_ne!(of(&after, "s").bytes(), of(&before, "s").bytes());
            let y = eval::evaluate(&after, &[("x", x())]).unwrap();
            let mut levels: Vec<u32> = y[0].to_f32().unwrap().iter().map(|y| y.to_bits()).collect();
            levels.sort_unstable();
            levels.dedup();
            assert!(levels.len() <= usize::from(end) + 1, "{}", levels.len());
        }
    }
}

#[test]
fn the_integers_compute_what_training_saw_within_a_step() {
    for (weight, end) in [("i4", 15), ("i8", 255)] {
        let training = prepared(&net(weight, end));
        // Floats between the grids, as in the middle of a run.
        let mut rng = Rng::new(3);
        let moved: Vec<Vec<f32>> = training
            .parameters
            .iter()
            .map(|p| {
                let data = p.data.to_f32().unwrap();
                let one = |w: &f32| {
                    w * (1.0 + 0.3 * rng.uniform(-1.0, 1.0))
                        + if p.is_positive { 0.0 } else { 0.01 }
                };
                data.iter().map(one).collect()
            })
            .collect();
        let shown: Vec<&[f32]> = moved.iter().map(Vec::as_slice).collect();
        let frozen = training.model_with(&shown, &[]).unwrap();
        let mut seen = training.base.clone();
        for (p, data) in training.parameters.iter().zip(&shown) {
            let data = Tensor::from_vec(p.data.dims(), data.to_vec()).unwrap();
            seen.graph.value_mut(p.value.unwrap()).constant = Some(data);
        }
        let t = frozen.graph.find_value("t").unwrap();
        let step = frozen.graph.constant(t).unwrap().to_f32().unwrap()[0];
        let fake = eval::evaluate(&seen, &[("x", x())]).unwrap();
        let mut session = Session::prepare(&frozen, &Options::default()).unwrap();
        let real = session.run(&[("x", x())]).unwrap();
        let (fake, real) = (fake[0].to_f32().unwrap(), real[0].to_f32().unwrap());
        let steps: Vec<f32> = fake
            .iter()
            .zip(&*real)
            .map(|(a, b)| ((a - b) / step).abs())
            .collect();
        let most = steps.iter().fold(0.0f32, |m, s| m.max(*s));
        assert!(most < 1.01, "{weight}: {most} steps");
        // Biases are floats in training, and whole steps of the sums in the file.
        let apart = steps.iter().filter(|s| **s > 0.01).count();
        assert!(
            apart * 20 < steps.len(),
            "{weight}: {apart} of {}",
            steps.len()
        );
        assert!(session.placements().iter().any(|p| p.integer));
        let w = frozen.graph.find_value("w").unwrap();
        let narrow = frozen.graph.constant(w).unwrap().dtype() == DType::I4;
        assert_eq!(narrow, weight == "i4");
    }
}

#[test]
fn bounds_of_pact_learn_from_what_is_over_them_alone() {
    // J. Choi et al., 2018, equation 3: ∂y/∂α is 1 where x is at least α, 0 elsewhere.
    let model = text::parse(
        "opset 21 graph g(x: f32[n,4]) -> (y: f32[n,4]) {
        w: f32[4,4] = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1} s: f32[] = {0.125}
        z: u8[] = {0} low: u8[] = {0} high: u8[] = {15}
        h = MatMul(x, w) r = Relu(h) q = QuantizeLinear(r, s, z) c = Clip(q, low, high)
        y = DequantizeLinear(c, s, z) }",
    )
    .unwrap();
    let options = draft::Options {
        pact: true,
        ..draft::Options::default()
    };
    let mut draft = Draft::new(&model, &options).unwrap();
    let loss = losses::find("mse").unwrap();
    draft.add_term(loss, 1.0, &Request::default()).unwrap();
    let training = draft.finish().unwrap();
    let s = training.parameters.iter().position(|p| p.name == "s");
    let s = s.unwrap();
    assert!((training.parameters[s].decay * training.parameters[s].rate - 1.0).abs() < 1e-6);
    let x = Tensor::from_vec(&[2, 4], vec![-1f32, 0.3, 1.8, 2.5, 1.9, 4.0, 0.9, -2.0]).unwrap();
    let targets = Tensor::from_vec(&[2, 4], vec![0.5f32; 8]).unwrap();
    let mut fed: Vec<(String, Tensor)> = training.initial_inputs().collect();
    fed.push(("x".into(), x));
    fed.push((training.fed[0].name.clone(), targets));
    let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let out = eval::evaluate(&training.graph, &named).unwrap();
    let gradient = out[2 + s].to_f32().unwrap()[0];
    // α is 15 steps of 0.125; 2.5, 1.9 and 4.0 are over it and become it. A mean of eight squares.
    let expected = 15.0 * 3.0 * 2.0 * (1.875 - 0.5) / 8.0;
    assert!((gradient - expected).abs() < 1e-4, "{gradient} {expected}");
}
