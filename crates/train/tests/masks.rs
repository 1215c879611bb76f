//! Zeros of pruned weights stay zero whatever is trained, and masks that grow end where they should.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgesmith_ir::analysis::{Pruned, mark_pruned};
use edgesmith_ir::{DType, Model, NoProgress, NoStore, Progress, Result, Store, Tensor, text};
use edgesmith_testkit::Rng;
use edgesmith_train::draft::{self, Draft};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::masked::{Gradual, Kept};
use edgesmith_train::optimizer::OPTIMIZERS;
use edgesmith_train::trainer::Watch;
use edgesmith_train::{Data, JudgedBy, Settings, Training, train};

/// Rows of eight numbers, and what the outputs should be of them.
struct Rows(String);

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
        let n = samples.len();
        Ok(vec![
            ("x".into(), Tensor::from_vec(&[n, 8], x)?),
            (self.0.clone(), Tensor::from_vec(&[n, 4], y)?),
        ])
    }
}

/// Two products; every fifth number of the weights is zero.
fn net(is_marked: bool) -> Model {
    let mut rng = Rng::new(5);
    let mut list = |rows: usize, columns: usize| {
        let data = rng.floats(&[rows, columns], -0.7, 0.7);
        let data = data.to_f32().unwrap().into_owned();
        let cut = |(i, x): (usize, f32)| if i % 5 == 1 { 0.0 } else { x };
        let data = data.into_iter().enumerate().map(cut);
        data.map(|x| format!("{x:?}")).collect::<Vec<_>>().join(",")
    };
    let source = format!(
        "opset 17 graph g(x: f32[n,8]) -> (y: f32[n,4]) {{
        w: f32[8,6] = {{{}}} b: f32[6] = {{1,1,1,1,1,1}} v: f32[4,6] = {{{}}} c: f32[4] = {{0,0,0,0}}
        h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v, c) {{transB=1}} }}",
        list(8, 6),
        list(4, 6)
    );
    let mut model = text::parse(&source).unwrap();
    for name in ["w", "v"].iter().filter(|_| is_marked) {
        let what = Pruned {
            pattern: "unstructured".into(),
            sparsity: 0.2,
        };
        mark_pruned(&mut model, name, &what);
    }
    model
}

fn prepared(model: &Model, masks: Kept) -> Training {
    let options = draft::Options {
        masks,
        ..draft::Options::default()
    };
    let mut draft = Draft::new(model, &options).unwrap();
    let loss = losses::find("mse").unwrap();
    draft.add_term(loss, 1.0, &Request::default()).unwrap();
    draft.finish().unwrap()
}

fn settings() -> Settings {
    Settings {
        epochs: 5,
        batch: 16,
        rate: 0.02,
        decay: 0.1,
        ema: 0.9,
        clip: 0.5,
        threads: 1,
        ..Settings::default()
    }
}

fn run(
    training: &Training,
    settings: &Settings,
    store: &dyn Store,
    watch: &dyn Watch,
) -> Result<Model> {
    let mut data = Rows(training.fed[0].name.clone());
    train(training, &mut data, settings, None, (store, "k"), watch).map(|made| made.model)
}

fn numbers(model: &Model, name: &str) -> Vec<f32> {
    let v = model.graph.find_value(name).unwrap();
    model
        .graph
        .constant(v)
        .unwrap()
        .to_f32()
        .unwrap()
        .into_owned()
}

#[test]
fn zeros_stay_with_every_optimizer_decay_and_running_means() {
    for optimizer in OPTIMIZERS {
        for ema in [0.0, 0.9] {
            let settings = Settings {
                optimizer: optimizer.name.into(),
                ema,
                ..settings()
            };
            let model = net(true);
            let training = prepared(&model, Kept::new());
            assert!(
                training
                    .notes
                    .iter()
                    .any(|n| n.contains("keep their zeros"))
            );
            let after = run(&training, &settings, &NoStore, &NoProgress).unwrap();
            for name in ["w", "v"] {
                let (before, after) = (numbers(&model, name), numbers(&after, name));
                for (b, a) in before.iter().zip(&after) {
                    match *b == 0.0 {
                        true => assert_eq!(a.to_bits(), 0, "{} {name}", optimizer.name),
                        false => assert_ne!(a, b, "{} {name}", optimizer.name),
                    }
                }
            }
            // Zeros of biases are none that were pruned.
            assert!(numbers(&after, "c").iter().all(|x| *x != 0.0));
        }
    }
}

#[test]
fn zeros_of_a_model_that_was_not_pruned_learn() {
    let training = prepared(&net(false), Kept::new());
    let after = run(&training, &settings(), &NoStore, &NoProgress).unwrap();
    assert!(numbers(&after, "w").iter().all(|x| *x != 0.0));
}

#[test]
fn a_mask_that_is_given_takes_numbers_away() {
    let kept: Vec<bool> = (0..48).map(|i| i % 2 == 0).collect();
    let masks = Kept::from([("w".to_owned(), kept.clone())]);
    let training = prepared(&net(false), masks);
    let after = run(&training, &settings(), &NoStore, &NoProgress).unwrap();
    for (x, stays) in numbers(&after, "w").iter().zip(kept) {
        assert_eq!(*x != 0.0, stays);
    }
}

/// The same net with weights of integers, on grids of `dtype`.
fn quantised(dtype: &str) -> Model {
    let mut rng = Rng::new(3);
    let mut hex = |count: usize| -> String {
        let number = |i: usize, rng: &mut Rng| match i % 3 {
            1 => 0,
            _ => 1 + rng.below(6),
        };
        let all: Vec<usize> = (0..count).map(|i| number(i, &mut rng)).collect();
        match dtype {
            "i4" => all
                .chunks(2)
                .map(|p| format!("{:02x}", p[0] | p[1] << 4))
                .collect(),
            _ => all.iter().map(|x| format!("{x:02x}")).collect(),
        }
    };
    let source = format!(
        "opset 21 graph g(x: f32[n,8]) -> (y: f32[n,4]) {{
        s: f32[] = {{0.02}} z: u8[] = {{128}} zero: u8[] = {{0}}
        w_q: {dtype}[6,8] = {{hex\"{}\"}} ws: f32[6] = {{0.1,0.08,0.12,0.1,0.09,0.1}} wz: {dtype}[6] = {{hex\"{}\"}}
        v_q: {dtype}[4,6] = {{hex\"{}\"}} vs: f32[4] = {{0.1,0.1,0.1,0.1}} vz: {dtype}[4] = {{hex\"{}\"}}
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w_q, ws, wz) {{axis=0}} h = Gemm(d, wd) {{transB=1}} r = Relu(h)
        q2 = QuantizeLinear(r, s, zero) d2 = DequantizeLinear(q2, s, zero)
        vd = DequantizeLinear(v_q, vs, vz) {{axis=0}} y = Gemm(d2, vd) {{transB=1}} }}",
        hex(48),
        "0".repeat(if dtype == "i4" { 6 } else { 12 }),
        hex(24),
        "0".repeat(if dtype == "i4" { 4 } else { 8 })
    );
    let mut model = text::parse(&source).unwrap();
    for name in ["w", "v"] {
        let what = Pruned {
            pattern: "unstructured".into(),
            sparsity: 1.0 / 3.0,
        };
        mark_pruned(&mut model, name, &what);
    }
    model
}

fn integers(model: &Model, name: &str) -> Vec<i64> {
    let v = model.graph.find_value(name).unwrap();
    let t = model.graph.constant(v).unwrap();
    match t.dtype() {
        DType::I4 => {
            let all = edgesmith_ir::packed::decode_integers(t).unwrap();
            all.into_iter().map(i64::from).collect()
        }
        _ => t.to_i64().unwrap(),
    }
}

#[test]
fn zeros_of_integers_stay_while_scales_learn() {
    for dtype in ["i8", "i4"] {
        let model = quantised(dtype);
        let training = prepared(&model, Kept::new());
        let settings = Settings {
            epochs: 20,
            ..settings()
        };
        let after = run(&training, &settings, &NoStore, &NoProgress).unwrap();
        let mut moved = 0;
        for name in ["w_q", "v_q"] {
            let (before, after) = (integers(&model, name), integers(&after, name));
            for (b, a) in before.iter().zip(&after) {
                assert!(*b != 0 || *a == 0, "{dtype} {name} {b} {a}");
                moved += usize::from(a != b);
            }
        }
        assert!(moved > 5, "{dtype} {moved}");
    }
}

/// The smallest numbers of `w` go, more and more.
#[derive(Debug)]
struct Growing {
    seen: Mutex<Vec<Vec<bool>>>,
}

impl Gradual for Growing {
    fn names(&self) -> Vec<String> {
        vec!["w".into()]
    }

    fn fixed_from(&self, total: usize) -> usize {
        total * 3 / 5
    }

    fn due(&self, step: usize, total: usize) -> Option<f64> {
        let last = self.fixed_from(total);
        let is_due = step == last || step < last && step.is_multiple_of(2);
        is_due.then(|| 0.75 * step as f64 / last as f64)
    }

    fn choose(&self, parameters: &[&[f32]], sparsity: f64) -> Result<Vec<Vec<bool>>> {
        let w = parameters[0];
        let mut order: Vec<usize> = (0..w.len()).collect();
        order.sort_by(|a, b| w[*a].abs().total_cmp(&w[*b].abs()).then(a.cmp(b)));
        let mut kept = vec![true; w.len()];
        let gone = (sparsity * w.len() as f64).round() as usize;
        order[..gone].iter().for_each(|&i| kept[i] = false);
        self.seen.lock().unwrap().push(kept.clone());
        Ok(vec![kept])
    }
}

fn growing() -> (Training, Arc<Growing>) {
    let mut training = prepared(&net(false), Kept::new());
    let growing = Arc::new(Growing {
        seen: Mutex::default(),
    });
    training.gradual = Some(Arc::<Growing>::clone(&growing));
    (training, growing)
}

#[test]
fn masks_that_grow_end_at_the_exact_count_and_what_is_zero_can_come_back_before() {
    let (training, growing) = growing();
    let settings = Settings {
        epochs: 20,
        rate: 0.05,
        ..settings()
    };
    let after = run(&training, &settings, &NoStore, &NoProgress).unwrap();
    let gone = numbers(&after, "w")
        .iter()
        .filter(|x| x.to_bits() == 0)
        .count();
    assert_eq!(gone, 36);
    let seen = growing.seen.lock().unwrap();
    let comes_back = |pair: &[Vec<bool>]| pair[0].iter().zip(&pair[1]).any(|(a, b)| !a && *b);
    assert!(seen.windows(2).any(comes_back));
    let last = seen.last().unwrap();
    for (x, stays) in numbers(&after, "w").iter().zip(last) {
        assert!(*stays || *x == 0.0);
    }
}

#[test]
fn only_models_that_are_sparse_enough_are_chosen() {
    let (training, _) = growing();
    let mut data = Rows(training.fed[0].name.clone());
    // The first epoch is judged best by far.
    let mut left = 10.0;
    let mut judge = |_: &Model| {
        left -= 1.0;
        Ok(left)
    };
    let store = (&NoStore as &dyn Store, "k");
    let made = train(
        &training,
        &mut data,
        &settings(),
        Some(JudgedBy::Model(&mut judge)),
        store,
        &NoProgress,
    );
    let made = made.unwrap();
    assert_eq!(made.best, 3, "masks stay from the fourth epoch on");
    let gone = numbers(&made.model, "w")
        .iter()
        .filter(|x| **x == 0.0)
        .count();
    assert_eq!(gone, 36);
}

#[derive(Default)]
struct Memory(Mutex<Option<Vec<u8>>>);

impl Store for Memory {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
    fn save(&self, bytes: &[u8]) -> Result<()> {
        *self.0.lock().unwrap() = Some(bytes.to_vec());
        Ok(())
    }
    fn forget(&self) {
        *self.0.lock().unwrap() = None;
    }
}

struct Cancels(AtomicUsize);

impl Progress for Cancels {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, units: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0
            .store(left.saturating_sub(units as usize), Ordering::Relaxed);
    }
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Watch for Cancels {}

#[test]
fn a_run_with_masks_that_was_broken_off_goes_on_to_the_same_bytes() {
    for (name, training) in [
        ("growing", growing().0),
        ("zeros", prepared(&net(true), Kept::new())),
        ("integers", prepared(&quantised("i4"), Kept::new())),
    ] {
        let whole = run(&training, &settings(), &NoStore, &NoProgress).unwrap();
        for at in [1, 3, 8, 11, 12, 13, 17] {
            let store = Memory::default();
            assert!(
                run(
                    &training,
                    &settings(),
                    &store,
                    &Cancels(AtomicUsize::new(at))
                )
                .is_err()
            );
            let resumed = run(&training, &settings(), &store, &NoProgress).unwrap();
            assert_eq!(
                text::print(&resumed).unwrap(),
                text::print(&whole).unwrap(),
                "{name} broken off at {at}"
            );
        }
    }
}
