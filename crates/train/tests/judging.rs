//! What says which epoch is the best, and what becomes of runs whose numbers are none any more.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Model, NoProgress, NoStore, Result, Tensor};
use edgesmith_train::architectures::{self, Spec};
use edgesmith_train::draft::Options;
use edgesmith_train::losses::{self, Request};
use edgesmith_train::trainer::Outcome;
use edgesmith_train::{Data, Draft, JudgedBy, Settings, Training, train};

/// Noise of which the first number says the class; from epoch `broken_from` on sums of it are no floats any more.
struct Noise {
    first: usize,
    count: usize,
    broken_from: usize,
    /// The sample that holds a NaN.
    unlucky: Option<usize>,
}

impl Noise {
    fn new(first: usize, count: usize) -> Self {
        let (broken_from, unlucky) = (usize::MAX, None);
        Self {
            first,
            count,
            broken_from,
            unlucky,
        }
    }
}

impl Data for Noise {
    fn count(&self) -> usize {
        self.count
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
        let scale = if epoch >= self.broken_from { 1e38 } else { 1.0 };
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for &i in samples {
            let mut random = Random::of(&[5, (self.first + i) as u64]);
            let class = random.below(4);
            let at = images.len();
            images.extend((0..64).map(|_| scale * random.normal().clamp(-3.0, 3.0) as f32));
            images[at + class] += 3.0;
            if self.unlucky == Some(i) {
                images[at] = f32::NAN;
            }
            labels.push(class as i64);
        }
        let x = Tensor::from_vec(&[samples.len(), 1, 8, 8], images)?;
        Ok(vec![
            ("x".into(), x),
            ("labels".into(), Tensor::vector(labels)),
        ])
    }
}

fn classifier(name: &str, dropout: f64) -> Training {
    let spec = Spec {
        input: "x".into(),
        dims: vec![1, 8, 8],
        classes: 4,
        seed: 3,
        ..Spec::default()
    };
    let model = (architectures::find(name).unwrap().build)(&spec).unwrap();
    let options = Options {
        dropout,
        ..Options::default()
    };
    let mut draft = Draft::new(&model, &options).unwrap();
    let loss = losses::find("cross-entropy").unwrap();
    draft.add_term(loss, 1.0, &Request::default()).unwrap();
    draft.finish().unwrap()
}

fn settings() -> Settings {
    Settings {
        epochs: 3,
        batch: 16,
        rate: 5e-3,
        threads: 1,
        ..Settings::default()
    }
}

fn run(
    training: &Training,
    mut data: Noise,
    settings: &Settings,
    judge: Option<JudgedBy>,
) -> Result<Outcome> {
    let store = (&NoStore as &dyn edgesmith_ir::Store, "");
    train(training, &mut data, settings, judge, store, &NoProgress)
}

/// The cross entropy of a model on samples, as its file would have it.
fn cross_entropy(model: &Model, mut data: Noise) -> f64 {
    let samples: Vec<usize> = (0..data.count).collect();
    let batch = data.batch(&samples, 0).unwrap();
    let scores = evaluate(model, &[("x", batch[0].1.clone())]).unwrap();
    let (scores, labels) = (scores[0].to_f32().unwrap(), batch[1].1.to_i64().unwrap());
    let each = scores.chunks(4).zip(labels).map(|(line, label)| {
        let sum: f64 = line.iter().map(|&x| f64::from(x).exp()).sum();
        sum.ln() - f64::from(line[label as usize])
    });
    each.sum::<f64>() / samples.len() as f64
}

#[test]
fn the_loss_on_others_is_that_of_the_model_as_it_is_used() {
    for (name, dropout) in [("resnet-8", 0.0), ("lenet-300-100", 0.3)] {
        let training = classifier(name, dropout);
        // The last batch is smaller than the others.
        let mut held = Noise::new(500, 40);
        let judge = JudgedBy::Loss(&mut held);
        let made = run(&training, Noise::new(0, 64), &settings(), Some(judge)).unwrap();
        let told: Vec<f64> = made.history.iter().map(|e| e.validation.unwrap()).collect();
        let least = told.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(told[made.best], least, "{name}");
        let own = cross_entropy(&made.model, Noise::new(500, 40));
        assert!((own - least).abs() < 1e-4 * least, "{name}: {own} {told:?}");
    }
}

#[test]
fn patience_ends_by_the_loss_on_others() {
    let training = classifier("lenet-300-100", 0.0);
    // Labels of the others have nothing to do with those that are learned.
    let mut held = Noise::new(900, 32);
    let patient = Settings {
        epochs: 40,
        patience: 2,
        rate: 0.02,
        ..settings()
    };
    let judge = Some(JudgedBy::Loss(&mut held));
    let made = run(&training, Noise::new(0, 16), &patient, judge).unwrap();
    assert!(made.history.len() < 40, "it learns 16 samples by heart");
    assert_eq!(made.history.len(), made.best + 3);
}

#[test]
fn numbers_that_are_none_end_a_run_with_the_best_epoch_before() {
    let training = classifier("lenet-300-100", 0.0);
    let data = || Noise {
        broken_from: 2,
        ..Noise::new(0, 64)
    };
    let long = Settings {
        epochs: 6,
        ..settings()
    };
    let mut held = Noise::new(500, 40);
    let judge = Some(JudgedBy::Loss(&mut held));
    let made = run(&training, data(), &long, judge).unwrap();
    assert!(made.broken.is_some() && made.history.len() < 6);
    let left = cross_entropy(&made.model, Noise::new(500, 40));
    assert!((left - made.history[made.best].validation.unwrap()).abs() < 1e-3);
    let alone = run(&training, data(), &long, None).unwrap_err().to_string();
    assert!(alone.contains("NaN") && alone.contains("--rate"), "{alone}");
}

#[test]
fn parameters_that_are_no_numbers_are_not_written() {
    // One step: its loss is a number, what it leaves is none.
    let wild = Settings {
        epochs: 1,
        batch: 64,
        rate: 1e38,
        warmup: 0.0,
        schedule: "constant".into(),
        ..settings()
    };
    let training = classifier("lenet-300-100", 0.0);
    let e = run(&training, Noise::new(0, 64), &wild, None).unwrap_err();
    assert!(e.to_string().contains("after epoch 1"), "{e}");
}

#[test]
fn the_sample_that_holds_a_nan_is_named() {
    let data = Noise {
        unlucky: Some(37),
        ..Noise::new(0, 64)
    };
    let training = classifier("lenet-300-100", 0.0);
    let e = run(&training, data, &settings(), None)
        .unwrap_err()
        .to_string();
    assert!(e.contains("example 37 has the number NaN in \"x\""), "{e}");
}

#[test]
fn a_graph_that_moves_nothing_of_the_model_is_refused() {
    let mut training = classifier("lenet-300-100", 0.0);
    training.parameters.iter_mut().for_each(|p| p.value = None);
    let e = run(&training, Noise::new(0, 64), &settings(), None).unwrap_err();
    assert!(e.to_string().contains("nothing of the model"), "{e}");
}
