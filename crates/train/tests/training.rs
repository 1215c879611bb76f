//! Runs of the trainer from beginning to end.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::random::Random;
use edgesmith_ir::{NoProgress, NoStore, Progress, Result, Store, Tensor};
use edgesmith_train::architectures::{self, Spec};
use edgesmith_train::draft::Options;
use edgesmith_train::losses::{self, Request};
use edgesmith_train::trainer::Watch;
use edgesmith_train::{Data, Draft, Settings, Training, train};

/// Images of a bright quarter, which is the class.
struct Quarters {
    count: usize,
}

impl Quarters {
    fn image(i: usize) -> (Vec<f32>, i64) {
        let mut random = Random::of(&[99, i as u64]);
        let class = random.below(4);
        let mut data: Vec<f32> = (0..64).map(|_| random.normal() as f32).collect();
        for (p, x) in data.iter_mut().enumerate() {
            let quarter = p / 32 * 2 + p % 8 / 4;
            *x += if quarter == class { 1.0 } else { 0.0 };
        }
        (data, class as i64)
    }
}

impl Data for Quarters {
    fn count(&self) -> usize {
        self.count
    }

    fn batch(&mut self, samples: &[usize], _: usize) -> Result<Vec<(String, Tensor)>> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for &i in samples {
            let (image, label) = Self::image(i);
            images.extend(image);
            labels.push(label);
        }
        Ok(vec![
            (
                "x".into(),
                Tensor::from_vec(&[samples.len(), 1, 8, 8], images)?,
            ),
            ("labels".into(), Tensor::vector(labels)),
        ])
    }
}

fn classifier(name: &str) -> Training {
    let spec = Spec {
        input: "x".into(),
        dims: vec![1, 8, 8],
        classes: 4,
        seed: 3,
        ..Spec::default()
    };
    prepared(&(architectures::find(name).unwrap().build)(&spec).unwrap())
}

fn prepared(model: &edgesmith_ir::Model) -> Training {
    prepared_as(model, &Options::default())
}

fn prepared_as(model: &edgesmith_ir::Model, options: &Options) -> Training {
    let mut draft = Draft::new(model, options).unwrap();
    let loss = losses::find("cross-entropy").unwrap();
    draft.add_term(loss, 1.0, &Request::default()).unwrap();
    draft.finish().unwrap()
}

fn right(model: &edgesmith_ir::Model) -> f64 {
    let mut data = Quarters { count: 2000 };
    let samples: Vec<usize> = (1000..1400).collect();
    let batch = data.batch(&samples, 0).unwrap();
    let scores = evaluate(model, &[("x", batch[0].1.clone())]).unwrap();
    let (scores, labels) = (scores[0].to_f32().unwrap(), batch[1].1.to_i64().unwrap());
    let right = scores.chunks(4).zip(labels).filter(|(line, label)| {
        let best = (0..4).max_by(|&a, &b| line[a].total_cmp(&line[b])).unwrap();
        best as i64 == *label
    });
    right.count() as f64 / 400.0
}

fn settings() -> Settings {
    Settings {
        epochs: 3,
        batch: 20,
        rate: 5e-3,
        threads: 1,
        ..Settings::default()
    }
}

#[test]
fn a_small_network_learns_where_the_light_is() {
    for name in ["small-cnn", "lenet-300-100"] {
        let training = classifier(name);
        let mut data = Quarters { count: 1000 };
        let made = train(
            &training,
            &mut data,
            &settings(),
            None,
            (&NoStore, ""),
            &NoProgress,
        )
        .unwrap();
        let right = right(&made.model);
        assert!(right > 0.9, "{name} {right}");
        assert_eq!(made.history.len(), 3);
        assert!(made.history[2].loss < made.history[0].loss);
    }
}

#[test]
fn a_network_with_batch_normalisation_learns_and_keeps_statistics() {
    let training = classifier("resnet-8");
    let mut data = Quarters { count: 60 };
    let settings = Settings {
        epochs: 2,
        ..settings()
    };
    let made = train(
        &training,
        &mut data,
        &settings,
        None,
        (&NoStore, ""),
        &NoProgress,
    )
    .unwrap();
    assert!(made.history[1].loss < made.history[0].loss);
    let mean = made.model.graph.find_value("norm2.mean").unwrap();
    let mean = made.model.graph.value(mean).constant.clone().unwrap();
    assert!(mean.to_f32().unwrap().iter().all(|&x| x != 0.0));
}

/// Texts of eight words below 12, of which the first is the class.
struct Texts;

impl Data for Texts {
    fn count(&self) -> usize {
        64
    }

    fn batch(&mut self, samples: &[usize], _: usize) -> Result<Vec<(String, Tensor)>> {
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for &i in samples {
            let mut random = Random::of(&[7, i as u64]);
            let class = random.below(2) as i64;
            ids.push(class);
            ids.extend((0..7).map(|_| 2 + random.below(10) as i64));
            labels.push(class);
        }
        let dims = [samples.len(), 8];
        let mask = vec![1i64; samples.len() * 8];
        Ok(vec![
            ("input_ids".into(), Tensor::from_vec(&dims, ids)?),
            ("attention_mask".into(), Tensor::from_vec(&dims, mask)?),
            ("labels".into(), Tensor::vector(labels)),
        ])
    }
}

#[test]
fn an_encoder_learns_which_word_matters() {
    let spec = Spec {
        input: "input_ids".into(),
        dims: vec![8],
        vocabulary: Some(12),
        classes: 2,
        seed: 3,
    };
    let training = prepared(&(architectures::find("encoder-2").unwrap().build)(&spec).unwrap());
    let settings = Settings {
        epochs: 4,
        batch: 16,
        rate: 1e-3,
        ..settings()
    };
    let made = train(
        &training,
        &mut Texts,
        &settings,
        None,
        (&NoStore, ""),
        &NoProgress,
    )
    .unwrap();
    let losses: Vec<f64> = made.history.iter().map(|e| e.loss).collect();
    assert!(losses[3] < 0.5 * losses[0], "{losses:?}");
}

#[derive(Default)]
struct Memory(RefCell<Option<Vec<u8>>>);

impl Store for Memory {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.borrow().clone()
    }

    fn save(&self, bytes: &[u8]) -> Result<()> {
        *self.0.borrow_mut() = Some(bytes.to_vec());
        Ok(())
    }

    fn forget(&self) {
        *self.0.borrow_mut() = None;
    }
}

/// Cancels after so many steps.
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
fn a_run_that_was_broken_off_goes_on_to_the_same_bytes() {
    let training = classifier("small-cnn");
    let settings = Settings {
        ema: 0.9,
        clip: 1.0,
        ..settings()
    };
    let run = |store: &dyn Store, watch: &dyn Watch| {
        let mut data = Quarters { count: 200 };
        train(&training, &mut data, &settings, None, (store, "k"), watch)
    };
    let whole = run(&NoStore, &NoProgress).unwrap();
    for at in [1, 7, 10, 23] {
        let store = Memory::default();
        let broken = run(&store, &Cancels(AtomicUsize::new(at)));
        assert!(broken.is_err());
        let resumed = run(&store, &NoProgress).unwrap();
        assert_eq!(resumed.resumed_at, at);
        assert_eq!(resumed.model.graph, whole.model.graph, "broken off at {at}");
        assert_eq!(resumed.history, whole.history);
    }
}

#[test]
fn the_state_of_another_run_is_not_taken_up() {
    let training = classifier("lenet-300-100");
    let store = Memory::default();
    let mut data = Quarters { count: 40 };
    let mut run = |key| {
        train(
            &training,
            &mut data,
            &settings(),
            None,
            (&store, key),
            &NoProgress,
        )
    };
    run("a").unwrap();
    assert_eq!(run("b").unwrap().resumed_at, 0);
    assert_eq!(run("b").unwrap().resumed_at, 6);
}

/// Quarters of which sample i is of length i / 10; it remembers the batches.
struct Lengthy {
    of: Quarters,
    seen: Vec<Vec<usize>>,
}

impl Data for Lengthy {
    fn count(&self) -> usize {
        self.of.count
    }

    fn lengths(&self) -> Result<Option<Vec<usize>>> {
        Ok(Some((0..self.of.count).map(|i| i / 10).collect()))
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
        self.seen.push(samples.to_vec());
        self.of.batch(samples, epoch)
    }
}

#[test]
fn a_batch_has_samples_of_like_length_where_they_have_one() {
    let mut data = Lengthy {
        of: Quarters { count: 100 },
        seen: Vec::new(),
    };
    let (training, settings) = (classifier("lenet-300-100"), settings());
    let store: (&dyn Store, &str) = (&NoStore, "");
    train(&training, &mut data, &settings, None, store, &NoProgress).unwrap();
    assert_eq!(data.seen.len(), 15);
    for batch in &data.seen {
        let lengths = batch.iter().map(|i| i / 10);
        let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
        assert_eq!(most - least, 1, "{batch:?}");
    }
    let mut epoch = data.seen[..5].concat();
    epoch.sort_unstable();
    assert_eq!(epoch, (0..100).collect::<Vec<_>>());
    assert_ne!(data.seen[..5], data.seen[5..10]);
}

fn quarters(name: &str, recompute: bool, settings: &Settings) -> edgesmith_ir::Model {
    let options = Options {
        recompute,
        ..Options::default()
    };
    let training = prepared_as(&classifier(name).base, &options);
    trained(&training, settings).unwrap()
}

fn trained(training: &Training, settings: &Settings) -> Result<edgesmith_ir::Model> {
    let (mut data, store) = (Quarters { count: 200 }, (&NoStore as &dyn Store, ""));
    train(training, &mut data, settings, None, store, &NoProgress).map(|made| made.model)
}

#[test]
fn values_that_are_computed_again_train_to_the_same_bytes() {
    for name in ["small-cnn", "resnet-8"] {
        let (kept, again) = (
            quarters(name, false, &settings()),
            quarters(name, true, &settings()),
        );
        let constants = |m: &edgesmith_ir::Model| -> Vec<Tensor> {
            let values = m.graph.values();
            values.filter_map(|(_, v)| v.constant.clone()).collect()
        };
        assert_eq!(constants(&kept), constants(&again), "{name}");
    }
}

#[test]
fn products_of_bf16_learn_as_well_or_are_refused() {
    let settings = Settings {
        epochs: 10,
        bf16: true,
        ..settings()
    };
    match trained(&classifier("lenet-300-100"), &settings) {
        Ok(model) => assert!(right(&model) > 0.85, "{}", right(&model)),
        Err(e) => assert!(e.to_string().contains("does not multiply BF16"), "{e}"),
    }
}

#[test]
fn statistics_of_norms_stay_from_the_part_of_the_run_on_that_is_told() {
    let from = |freeze_norms_from| Options {
        freeze_norms_from,
        ..Options::default()
    };
    let base = classifier("resnet-8").base;
    // Weights that do not move see the same batches in the first epoch.
    let still = |epochs| Settings {
        epochs,
        rate: 1e-30,
        ..settings()
    };
    let made =
        |freeze, epochs| trained(&prepared_as(&base, &from(freeze)), &still(epochs)).unwrap();
    let statistics = |m: &edgesmith_ir::Model| -> Vec<Tensor> {
        let norms = m.graph.nodes().filter(|(_, n)| n.is("BatchNormalization"));
        let both = norms.flat_map(|(_, n)| [n.input(3), n.input(4)]);
        both.map(|v| m.graph.constant(v.unwrap()).unwrap().clone())
            .collect()
    };
    let half = statistics(&made(Some(0.5), 2));
    assert!(!half.is_empty());
    assert_eq!(half, statistics(&made(None, 1)));
    assert_ne!(half, statistics(&made(None, 2)));
    assert_eq!(statistics(&made(Some(0.0), 2)), statistics(&base));
}
