//! Losses against their formulas, written out by hand.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::parse;
use edgesmith_ir::{Model, Tensor};
use edgesmith_train::draft::Options;
use edgesmith_train::losses::{self, Request};
use edgesmith_train::training::Wanted;
use edgesmith_train::{Draft, Training};

/// A student of `width` features and 3 scores.
fn network(width: usize, name: &str) -> Model {
    let numbers = |n: usize, step: f32| {
        let all: Vec<String> = (0..n)
            .map(|i| format!("{}", ((i * 7 % 11) as f32 - 5.0) * step))
            .collect();
        all.join(",")
    };
    parse(&format!(
        "opset 17 graph {name}(x: f32[batch,4]) -> (y) {{
        w: f32[4,{width}] = {{{}}} v: f32[{width},3] = {{{}}}
        h = MatMul(x, w) y = MatMul(h, v) }}",
        numbers(4 * width, 0.1),
        numbers(3 * width, 0.2)
    ))
    .unwrap()
}

fn x() -> Tensor {
    let data = (0..20)
        .map(|i| ((i * 13 % 17) as f32 - 8.0) / 8.0)
        .collect();
    Tensor::from_vec(&[5, 4], data).unwrap()
}

/// The scores (or features) of a network for the five samples.
fn values(model: &Model, name: &str) -> Vec<Vec<f64>> {
    let mut model = model.clone();
    let v = model.graph.find_value(name).unwrap();
    model.graph.outputs = vec![v];
    let out = evaluate(&model, &[("x", x())]).unwrap();
    let width = out[0].dims()[1];
    let data = out[0].to_f32().unwrap();
    data.chunks(width)
        .map(|l| l.iter().map(|&v| f64::from(v)).collect())
        .collect()
}

fn training(loss: &str, request: &Request) -> Training {
    let mut draft = Draft::new(&network(6, "s"), &Options::default()).unwrap();
    draft.set_teacher(&network(8, "t")).unwrap();
    draft
        .add_term(losses::find(loss).unwrap(), 1.0, request)
        .unwrap();
    draft.finish().unwrap()
}

const LABELS: [i64; 5] = [2, 0, 1, 1, 0];

/// Of mixed samples.
const SHARES: [[f32; 3]; 5] = [
    [0.7, 0.0, 0.3],
    [1.0, 0.0, 0.0],
    [0.0, 0.5, 0.5],
    [0.2, 0.2, 0.6],
    [0.0, 1.0, 0.0],
];

/// The value of a loss.
fn value(loss: &str, request: &Request) -> f64 {
    let training = training(loss, request);
    let teacher = network(8, "t");
    let mut fed = vec![("x".to_owned(), x())];
    for f in &training.fed {
        fed.push((
            f.name.clone(),
            match f.of.as_str() {
                "" if f.wanted == Wanted::Shares(3) => {
                    Tensor::from_vec(&[5, 3], SHARES.concat()).unwrap()
                }
                "" => Tensor::vector(LABELS.to_vec()),
                of => {
                    let lines = values(&teacher, of);
                    let width = lines[0].len();
                    let data = lines.into_iter().flatten().map(|v| v as f32).collect();
                    Tensor::from_vec(&[5, width], data).unwrap()
                }
            },
        ));
    }
    fed.extend(training.initial_inputs());
    let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let out = evaluate(&training.graph, &named).unwrap();
    f64::from(out[1].to_f32().unwrap()[0])
}

fn softmax(line: &[f64], t: f64) -> Vec<f64> {
    let sum: f64 = line.iter().map(|v| (v / t).exp()).sum();
    line.iter().map(|v| (v / t).exp() / sum).collect()
}

fn kl(q: &[f64], p: &[f64]) -> f64 {
    q.iter().zip(p).map(|(q, p)| q * (q / p).ln()).sum()
}

/// The mean over samples of a function of the student's and the teacher's scores.
fn mean(f: impl Fn(&[f64], &[f64], usize) -> f64) -> f64 {
    let (s, t) = (values(&network(6, "s"), "y"), values(&network(8, "t"), "y"));
    (0..5)
        .map(|i| f(&s[i], &t[i], LABELS[i] as usize))
        .sum::<f64>()
        / 5.0
}

fn assert_near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
        "{found} {expected}"
    );
}

#[test]
fn cross_entropy_is_minus_the_logarithm_of_the_class() {
    let expected = mean(|s, _, l| -softmax(s, 1.0)[l].ln());
    assert_near(value("cross-entropy", &Request::default()), expected);
}

#[test]
fn samples_without_a_class_do_not_count() {
    let request = Request {
        unlabelled: true,
        ..Request::default()
    };
    assert_near(
        value("cross-entropy", &request),
        value("cross-entropy", &Request::default()),
    );
}

#[test]
fn smoothed_labels_give_a_share_to_all_classes_alike() {
    let all = |s: &[f64]| -softmax(s, 1.0).iter().map(|p| p.ln()).sum::<f64>() / 3.0;
    let expected = mean(|s, _, l| -0.8 * softmax(s, 1.0)[l].ln() + 0.2 * all(s));
    for unlabelled in [false, true] {
        let request = Request {
            smoothing: Some(0.2),
            unlabelled,
            ..Request::default()
        };
        assert_near(value("cross-entropy", &request), expected);
    }
    let request = Request {
        smoothing: Some(1.0),
        ..Request::default()
    };
    let loss = losses::find("cross-entropy").unwrap();
    let mut draft = Draft::new(&network(6, "s"), &Options::default()).unwrap();
    assert!(draft.add_term(loss, 1.0, &request).is_err());
}

#[test]
fn a_mixed_sample_has_a_share_of_several_classes() {
    let request = Request {
        is_mixed: true,
        ..Request::default()
    };
    let scores = values(&network(6, "s"), "y");
    let of = |(s, q): (&Vec<f64>, &[f32; 3])| -> f64 {
        let parts = softmax(s, 1.0).into_iter().zip(q);
        parts.map(|(p, q)| -f64::from(*q) * p.ln()).sum()
    };
    let expected = scores.iter().zip(&SHARES).map(of).sum::<f64>() / 5.0;
    assert_near(value("cross-entropy", &request), expected);
    let loss = losses::find("dkd").unwrap();
    let mut draft = Draft::new(&network(6, "s"), &Options::default()).unwrap();
    draft.set_teacher(&network(8, "t")).unwrap();
    let error = draft.add_term(loss, 1.0, &request).unwrap_err().to_string();
    assert!(error.contains("no one class"), "{error}");
}

#[test]
fn softened_answers_diverge_by_t_squared_times_kl() {
    for t in [1.0, 4.0, 20.0] {
        let request = Request {
            temperature: Some(t),
            ..Request::default()
        };
        let expected = t * t * mean(|s, r, _| kl(&softmax(r, t), &softmax(s, t)));
        assert_near(value("kd", &request), expected);
    }
}

#[test]
fn decoupled_distillation_with_its_own_weights_is_kd() {
    // KL = TCKD + (1 − q[class])·NCKD (B. Zhao et al., equation 7).
    let of = |beta: f64| {
        let request = Request {
            temperature: Some(2.0),
            beta: Some(beta),
            ..Request::default()
        };
        value("dkd", &request)
    };
    let (target, both) = (of(0.0), of(1.0));
    let binary = |s: &[f64], l: usize| vec![s[l], 1.0 - s[l]];
    let expected =
        4.0 * mean(|s, t, l| kl(&binary(&softmax(t, 2.0), l), &binary(&softmax(s, 2.0), l)));
    assert_near(target, expected);
    let others = |v: &[f64], l: usize| {
        let rest: Vec<f64> = (0..3).filter(|&i| i != l).map(|i| v[i]).collect();
        softmax(&rest, 2.0)
    };
    let expected = 4.0 * mean(|s, t, l| kl(&others(t, l), &others(s, l)));
    assert_near(both - target, expected);
}

fn features() -> Request {
    Request {
        student: Some("h".into()),
        teacher: Some("h".into()),
        ..Request::default()
    }
}

#[test]
fn a_hint_of_another_width_goes_through_a_projection() {
    let training = training("hint", &features());
    let own: Vec<&str> = training
        .parameters
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(own, ["w", "projection"]);
    assert!(training.parameters[1].value.is_none());
    assert!(
        training.notes.iter().any(|n| n.contains("\"v\"")),
        "{:?}",
        training.notes
    );
}

/// Distances of all pairs by their mean over those that are apart.
fn distances(f: &[Vec<f64>]) -> Vec<f64> {
    let distance = |a: &[f64], b: &[f64]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let all: Vec<f64> = f
        .iter()
        .flat_map(|a| f.iter().map(move |b| distance(a, b)))
        .collect();
    let apart: Vec<f64> = all.iter().copied().filter(|d| *d > 1e-5).collect();
    let mean = apart.iter().sum::<f64>() / apart.len() as f64;
    all.iter().map(|d| d / mean).collect()
}

fn smooth(a: f64, b: f64) -> f64 {
    match (a - b).abs() {
        d if d < 1.0 => 0.5 * d * d,
        d => d - 0.5,
    }
}

#[test]
fn relations_by_distance_compare_normed_distances() {
    let (s, t) = (values(&network(6, "s"), "h"), values(&network(8, "t"), "h"));
    let (s, t) = (distances(&s), distances(&t));
    let expected = s.iter().zip(&t).map(|(a, b)| smooth(*a, *b)).sum::<f64>() / 25.0;
    assert_near(value("rkd-distance", &features()), expected);
}

#[test]
fn relations_by_angle_compare_cosines_of_all_triples() {
    let cosines = |f: &[Vec<f64>]| -> Vec<f64> {
        let unit = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            let length = d.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6);
            d.iter().map(|v| v / length).collect()
        };
        let mut all = Vec::new();
        for j in 0..5 {
            for i in 0..5 {
                for k in 0..5 {
                    let (a, b) = (unit(&f[i], &f[j]), unit(&f[k], &f[j]));
                    all.push(a.iter().zip(&b).map(|(a, b)| a * b).sum());
                }
            }
        }
        all
    };
    let (s, t) = (values(&network(6, "s"), "h"), values(&network(8, "t"), "h"));
    let (s, t) = (cosines(&s), cosines(&t));
    let expected = s.iter().zip(&t).map(|(a, b)| smooth(*a, *b)).sum::<f64>() / 125.0;
    assert_near(value("rkd-angle", &features()), expected);
}

#[test]
fn a_teacher_of_other_classes_is_refused_early() {
    let mut draft = Draft::new(&network(6, "s"), &Options::default()).unwrap();
    let teacher = parse(
        "opset 17 graph t(x: f32[batch,4]) -> (y) { w: f32[4,2] = {1,2,3,4,5,6,7,8} y = MatMul(x, w) }",
    );
    draft.set_teacher(&teacher.unwrap()).unwrap();
    let error = draft.add_term(losses::find("kd").unwrap(), 1.0, &Request::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("3 classes, the teacher 2"), "{error}");
}

#[test]
fn a_teacher_of_other_inputs_is_refused_early() {
    let mut draft = Draft::new(&network(6, "s"), &Options::default()).unwrap();
    let teacher = parse("opset 17 graph t(z: f32[batch,4]) -> (y) { y = Relu(z) }").unwrap();
    let error = draft.set_teacher(&teacher).unwrap_err().to_string();
    assert!(error.contains("\"z\""), "{error}");
}
