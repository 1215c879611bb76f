//! Losses against the formulas of their papers as plain loops over f64, and their gradients.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::parse;
use edgesmith_ir::{Model, Tensor};
use edgesmith_testkit::Rng;
use edgesmith_train::draft::Options;
use edgesmith_train::losses::{self, Needs, Request};
use edgesmith_train::training::Wanted;
use edgesmith_train::{Draft, Training};

/// Two networks, what they are asked, and what is known of each sample.
struct Case {
    student: Model,
    teacher: Model,
    x: Tensor,
    labels: Vec<i64>,
    targets: Tensor,
}

const BATCH: usize = 4;

fn list(rng: &mut Rng, count: usize) -> String {
    let all: Vec<String> = (0..count)
        .map(|_| format!("{:?}", rng.uniform(-1.0, 1.0)))
        .collect();
    all.join(",")
}

/// A network of `x` whose value "h" is a product along the last axis, of `width` numbers, and "y" what
/// `end` makes of it.
fn network(dims: &[usize], width: usize, end: &str, seed: u64) -> Model {
    let mut rng = Rng::new(seed);
    let of: Vec<String> = dims.iter().map(usize::to_string).collect();
    let last = *dims.last().unwrap();
    parse(&format!(
        "opset 17 graph g(x: f32[batch,{}]) -> (y) {{ w: f32[{last},{width}] = {{{}}}
        h = MatMul(x, w) y = {end} }}",
        of.join(","),
        list(&mut rng, last * width)
    ))
    .unwrap()
}

impl Case {
    /// Student and teacher of values `h` of these lengths behind the batch, `own` and `other` wide.
    fn new(dims: &[usize], [own, other]: [usize; 2], end: &str) -> Self {
        let count = BATCH * dims.iter().product::<usize>();
        let mut rng = Rng::new(77);
        let lengths = [&[BATCH], dims].concat();
        let targets = [&lengths[..lengths.len() - 1], &[own]].concat();
        let numbers = |n: usize, rng: &mut Rng| (0..n).map(|_| rng.uniform(-2.0, 2.0)).collect();
        let data: Vec<f32> = numbers(count, &mut rng);
        let wanted: Vec<f32> = numbers(targets.iter().product(), &mut rng);
        Self {
            student: network(dims, own, end, 1),
            teacher: network(dims, other, end, 5),
            x: Tensor::from_vec(&lengths, data).unwrap(),
            labels: vec![1, 0, 1, 1],
            targets: Tensor::from_vec(&targets, wanted).unwrap(),
        }
    }

    fn training(&self, loss: &str, request: &Request) -> Training {
        let mut draft = Draft::new(&self.student, &Options::default()).unwrap();
        draft.set_teacher(&self.teacher).unwrap();
        let loss = losses::find(loss).unwrap();
        draft.add_term(loss, 1.0, request).unwrap();
        draft.finish().unwrap()
    }

    /// A value of a network for the samples.
    fn of(&self, model: &Model, name: &str) -> Tensor {
        let mut model = model.clone();
        model.graph.outputs = vec![model.graph.find_value(name).unwrap()];
        let made = evaluate(&model, &[("x", self.x.clone())]).unwrap();
        made.into_iter().next().unwrap()
    }

    /// The outputs of a training graph with other numbers for parameters.
    fn outputs(&self, training: &Training, parameters: &[Vec<f32>]) -> Vec<Tensor> {
        let mut fed: Vec<(String, Tensor)> = training.initial_inputs().collect();
        for (p, data) in training.parameters.iter().zip(parameters) {
            let own = fed.iter_mut().find(|(n, _)| *n == p.name).unwrap();
            own.1 = Tensor::from_vec(p.data.dims(), data.clone()).unwrap();
        }
        fed.push(("x".into(), self.x.clone()));
        for f in &training.fed {
            let data = match f.wanted {
                Wanted::Labels => Tensor::vector(self.labels.clone()),
                Wanted::Targets => self.targets.clone(),
                Wanted::Teacher => self.of(&self.teacher, &f.of),
                Wanted::Shares(_) => panic!("samples are not mixed"),
            };
            fed.push((f.name.clone(), data));
        }
        let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        evaluate(&training.graph, &named).unwrap()
    }

    fn value(&self, loss: &str, request: &Request) -> f64 {
        let out = self.outputs(&self.training(loss, request), &[]);
        f64::from(out[1].to_f32().unwrap()[0])
    }
}

fn pair(name: &str) -> Request {
    Request {
        student: Some(name.into()),
        teacher: Some(name.into()),
        ..Request::default()
    }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    let data = t.to_f32().unwrap();
    data.iter().map(|&x| f64::from(x)).collect()
}

/// A value of the student and of the teacher.
fn both(case: &Case, name: &str) -> (Vec<f64>, Vec<f64>) {
    let of = |m| numbers(&case.of(m, name));
    (of(&case.student), of(&case.teacher))
}

fn mean_square(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for i in 0..a.len() {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    sum / a.len() as f64
}

fn assert_near(found: f64, expected: f64) {
    assert!(expected.abs() > 1e-3, "{expected} tells nothing");
    assert!(
        (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
        "{found} {expected}"
    );
}

#[test]
fn mse_is_the_mean_square_of_what_is_missing() {
    let case = Case::new(&[4], [5, 5], "Relu(h)");
    let (s, _) = both(&case, "y");
    let expected = mean_square(&s, &numbers(&case.targets));
    assert_near(case.value("mse", &Request::default()), expected);
    let case = Case::new(&[4], [4, 4], "Relu(h)");
    let like = Request {
        like_input: Some("x".into()),
        ..Request::default()
    };
    let (s, _) = both(&case, "y");
    assert_near(case.value("mse", &like), mean_square(&s, &numbers(&case.x)));
}

#[test]
fn logits_mse_is_of_the_scores_in_front_of_the_softmax() {
    let case = Case::new(&[4], [5, 5], "Softmax(h)");
    let (s, t) = both(&case, "h");
    assert_near(
        case.value("logits-mse", &Request::default()),
        mean_square(&s, &t),
    );
}

#[test]
fn a_hint_is_the_mean_square_behind_the_projection_of_rows_and_of_images() {
    let case = Case::new(&[2, 4], [5, 5], "Relu(h)");
    let (s, t) = both(&case, "h");
    assert_near(case.value("hint", &pair("h")), mean_square(&s, &t));
    // Rows: R is of the last axis.
    let case = Case::new(&[2, 4], [3, 5], "Relu(h)");
    let (s, t) = both(&case, "h");
    let training = case.training("hint", &pair("h"));
    let r = training.parameters.iter().find(|p| p.value.is_none());
    let r = numbers(&r.unwrap().data);
    let mut projected = Vec::new();
    for row in s.chunks(3) {
        for o in 0..5 {
            projected.push((0..3).map(|i| r[o * 3 + i] * row[i]).sum());
        }
    }
    assert_near(case.value("hint", &pair("h")), mean_square(&projected, &t));
}

#[test]
fn attention_transfer_compares_normed_maps_of_squares() {
    // Channels may differ, pixels not: the transposed value has the product's axis first.
    let case = Case::new(&[2, 3, 4], [6, 5], "Transpose(h) {perm=[0,3,1,2]}");
    let (s, t) = both(&case, "y");
    let map = |f: &[f64], channels: usize| -> Vec<f64> {
        let mut maps = Vec::new();
        for image in f.chunks(channels * 6) {
            let mut a = [0.0; 6];
            for channel in image.chunks(6) {
                for (p, x) in channel.iter().enumerate() {
                    a[p] += x * x / channels as f64;
                }
            }
            let length = a.iter().map(|x| x * x).sum::<f64>().sqrt();
            maps.extend(a.iter().map(|x| x / length));
        }
        maps
    };
    let expected = mean_square(&map(&s, 6), &map(&t, 5));
    assert_near(case.value("attention-transfer", &pair("y")), expected);
}

#[test]
fn attention_scores_count_masked_ones_as_0() {
    let mut case = Case::new(&[2, 4, 4], [4, 4], "Softmax(h)");
    let mut data = numbers(&case.x);
    data.iter_mut().step_by(5).for_each(|x| *x *= 1e4);
    let data = data.into_iter().map(|x| x as f32).collect();
    case.x = Tensor::from_vec(case.x.dims(), data).unwrap();
    let (s, t) = both(&case, "h");
    let masked = |f: &[f64]| -> Vec<f64> {
        let kept = f.iter().map(|&x| if x <= -100.0 { 0.0 } else { x });
        kept.map(|x| x.min(1e9)).collect()
    };
    assert!(s.iter().any(|&x| x <= -100.0) && t.iter().any(|&x| x <= -100.0));
    let expected = mean_square(&masked(&s), &masked(&t));
    let found = case.value("attention-scores", &pair("h"));
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
}

#[test]
fn cosine_is_of_the_last_axis() {
    let case = Case::new(&[2, 4], [5, 5], "Relu(h)");
    let (s, t) = both(&case, "h");
    let mut sum = 0.0;
    for (a, b) in s.chunks(5).zip(t.chunks(5)) {
        let dot: f64 = (0..5).map(|i| a[i] * b[i]).sum();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        sum += 1.0 - dot / (length(a) * length(b));
    }
    assert_near(case.value("cosine", &pair("h")), sum / 8.0);
}

fn softmax(line: &[f64]) -> Vec<f64> {
    let sum: f64 = line.iter().map(|v| v.exp()).sum();
    line.iter().map(|v| v.exp() / sum).collect()
}

fn kl(q: &[f64], p: &[f64]) -> f64 {
    let mut sum = 0.0;
    for i in 0..q.len() {
        sum += q[i] * (q[i] / p[i]).ln();
    }
    sum
}

#[test]
fn attention_is_the_mean_divergence_of_rows_from_the_teacher() {
    let case = Case::new(&[2, 4, 4], [4, 4], "Softmax(h)");
    let (s, t) = both(&case, "y");
    let rows = s.chunks(4).zip(t.chunks(4));
    let sum: f64 = rows.map(|(s, t)| kl(t, s)).sum();
    let count = (BATCH * 2 * 4) as f64;
    assert_near(case.value("attention", &pair("y")), sum / count);
}

#[test]
fn value_relation_is_of_scaled_products_of_words() {
    // Two heads of four words; widths may differ.
    let case = Case::new(&[2, 4, 3], [5, 6], "Relu(h)");
    let (s, t) = both(&case, "h");
    let relations = |f: &[f64], width: usize| -> Vec<Vec<f64>> {
        let mut all = Vec::new();
        for head in f.chunks(4 * width) {
            for a in head.chunks(width) {
                let scores: Vec<f64> = head
                    .chunks(width)
                    .map(|b| (0..width).map(|i| a[i] * b[i]).sum::<f64>() / (width as f64).sqrt())
                    .collect();
                all.push(softmax(&scores));
            }
        }
        all
    };
    let (s, t) = (relations(&s, 5), relations(&t, 6));
    let sum: f64 = s.iter().zip(&t).map(|(s, t)| kl(t, s)).sum();
    assert_near(
        case.value("value-relation", &pair("h")),
        sum / s.len() as f64,
    );
}

#[test]
fn similarity_is_of_rows_of_normed_products_of_samples() {
    let case = Case::new(&[2, 4], [5, 3], "Relu(h)");
    let (s, t) = both(&case, "h");
    let normed = |f: &[f64], width: usize| -> Vec<f64> {
        let mut all = Vec::new();
        for a in f.chunks(width) {
            let row: Vec<f64> = f
                .chunks(width)
                .map(|b| (0..width).map(|i| a[i] * b[i]).sum())
                .collect();
            let length = row.iter().map(|x: &f64| x * x).sum::<f64>().sqrt();
            all.extend(row.iter().map(|x| x / length));
        }
        all
    };
    let expected = mean_square(&normed(&s, 10), &normed(&t, 6));
    assert_near(case.value("similarity", &pair("h")), expected);
}

#[test]
fn decoupled_distillation_weighs_the_other_classes_by_beta() {
    let case = Case::new(&[4], [5, 5], "Softmax(h)");
    let (s, t) = both(&case, "h");
    for (temperature, beta) in [(2.0, 3.0), (1.0, 8.0), (4.0, 0.5)] {
        let request = Request {
            temperature: Some(temperature),
            beta: Some(beta),
            ..Request::default()
        };
        let mut sum = 0.0;
        for (i, (s, t)) in s.chunks(5).zip(t.chunks(5)).enumerate() {
            let soft = |v: &[f64]| softmax(&v.iter().map(|x| x / temperature).collect::<Vec<_>>());
            let (p, q) = (soft(s), soft(t));
            let class = case.labels[i] as usize;
            let target = kl(&[q[class], 1.0 - q[class]], &[p[class], 1.0 - p[class]]);
            let others = |p: &[f64]| -> Vec<f64> {
                let rest = (0..5).filter(|&c| c != class);
                rest.map(|c| p[c] / (1.0 - p[class])).collect()
            };
            sum += target + beta * kl(&others(&q), &others(&p));
        }
        let expected = temperature * temperature * sum / BATCH as f64;
        assert_near(case.value("dkd", &request), expected);
    }
}

fn cross_entropy(s: f64, y: f64) -> f64 {
    let p = 1.0 / (1.0 + (-s).exp());
    -y * p.ln() - (1.0 - y) * (1.0 - p).ln()
}

#[test]
fn binary_cross_entropy_is_of_one_score_and_the_class_0_or_1() {
    for end in ["Sigmoid(h)", "Identity(h)", "Squeeze(h, a)"] {
        let mut case = Case::new(&[4], [1, 1], "Relu(h)");
        for model in [&mut case.student, &mut case.teacher] {
            let text = edgesmith_ir::text::print(model)
                .unwrap()
                .replace("Relu(h)", end);
            let text = text.replace("h = MatMul", "a: i64[1] = {1} h = MatMul");
            *model = parse(&text).unwrap();
        }
        let (s, _) = both(&case, "h");
        let of = |i: usize| cross_entropy(s[i], case.labels[i] as f64);
        let expected = (0..BATCH).map(of).sum::<f64>() / BATCH as f64;
        let plain = Request::default();
        assert_near(case.value("binary-cross-entropy", &plain), expected);
        // A sample without a class does not count.
        case.labels[1] = -1;
        let expected = [0, 2, 3]
            .iter()
            .map(|&i| cross_entropy(s[i], 1.0))
            .sum::<f64>()
            / 3.0;
        let request = Request {
            unlabelled: true,
            ..plain
        };
        assert_near(case.value("binary-cross-entropy", &request), expected);
    }
}

#[test]
fn binary_cross_entropy_of_several_scores_takes_a_number_for_each() {
    let mut case = Case::new(&[4], [5, 5], "Sigmoid(h)");
    let hits: Vec<f32> = (0..BATCH * 5)
        .map(|i| f32::from(u8::from(i % 3 == 0)))
        .collect();
    case.targets = Tensor::from_vec(&[BATCH, 5], hits.clone()).unwrap();
    let (s, _) = both(&case, "h");
    let of = |(s, y): (&f64, &f32)| cross_entropy(*s, f64::from(*y));
    let expected = s.iter().zip(&hits).map(of).sum::<f64>() / hits.len() as f64;
    let plain = Request::default();
    assert_near(case.value("binary-cross-entropy", &plain), expected);
    let smooth = Request {
        smoothing: Some(0.2),
        ..plain
    };
    let of = |(s, y): (&f64, &f32)| cross_entropy(*s, 0.8 * f64::from(*y) + 0.1);
    let expected = s.iter().zip(&hits).map(of).sum::<f64>() / hits.len() as f64;
    assert_near(case.value("binary-cross-entropy", &smooth), expected);
}

#[test]
fn large_scores_have_a_finite_binary_cross_entropy() {
    let mut case = Case::new(&[4], [1, 1], "Identity(h)");
    let data = numbers(&case.x)
        .into_iter()
        .map(|x| x as f32 * 1e4)
        .collect();
    case.x = Tensor::from_vec(case.x.dims(), data).unwrap();
    let found = case.value("binary-cross-entropy", &Request::default());
    assert!(found.is_finite() && found > 1.0, "{found}");
}

/// The loss along its gradient rises by the square of the gradient's length.
#[test]
fn every_loss_falls_along_its_gradient_as_its_gradient_says() {
    for loss in losses::LOSSES {
        let (case, request) = match loss.name {
            "attention-transfer" => {
                let case = Case::new(&[2, 3, 4], [6, 5], "Transpose(h) {perm=[0,3,1,2]}");
                (case, pair("y"))
            }
            "attention" => (Case::new(&[2, 4, 4], [4, 4], "Softmax(h)"), pair("y")),
            "attention-scores" => (Case::new(&[2, 4, 4], [4, 4], "Softmax(h)"), pair("h")),
            "value-relation" => (Case::new(&[2, 4, 3], [5, 6], "Relu(h)"), pair("h")),
            _ if loss.needs == Needs::Pair => (Case::new(&[4], [5, 5], "Relu(h)"), pair("h")),
            _ => (Case::new(&[4], [5, 5], "Identity(h)"), Request::default()),
        };
        let training = case.training(loss.name, &request);
        assert!(!training.parameters.is_empty(), "{}", loss.name);
        let at: Vec<Vec<f32>> = training
            .parameters
            .iter()
            .map(|p| p.data.to_f32().unwrap().into_owned())
            .collect();
        let made = case.outputs(&training, &at);
        let gradients: Vec<Vec<f64>> = made[2..].iter().map(numbers).collect();
        let square: f64 = gradients.iter().flatten().map(|g| g * g).sum();
        assert!(
            square > 1e-8,
            "{}: {square} is no gradient, loss {:?}",
            loss.name,
            numbers(&made[1])
        );
        let step = 1e-2 / square.sqrt();
        let moved = |by: f64| -> f64 {
            let along = |(p, g): (&Vec<f32>, &Vec<f64>)| -> Vec<f32> {
                let pairs = p.iter().zip(g);
                pairs
                    .map(|(p, g)| (f64::from(*p) + by * g) as f32)
                    .collect()
            };
            let there: Vec<Vec<f32>> = at.iter().zip(&gradients).map(along).collect();
            numbers(&case.outputs(&training, &there)[1])[0]
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        assert!(
            (slope / square - 1.0).abs() < 0.02,
            "{}: {slope} {square}",
            loss.name
        );
    }
}
