//! Times the steps of training a network on random images, and shows where the time goes:
//! `train_step NETWORK [--batch N] [--dims 1,28,28] [--threads N] [--steps N] [--profile]`.
#![allow(
    clippy::print_stdout,
    reason = "a program that prints what it measures"
)]

use std::time::Instant;

use edgesmith_ir::{Error, Result, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::architectures::{self, Spec};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::random::Random;
use edgesmith_train::{Draft, Training, draft};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = words.iter().position(|w| w == name)?;
        words.get(at + 1).map(String::as_str)
    };
    let count = |name: &str, default: usize| {
        after(name).map_or(Ok(default), |w| {
            w.parse()
                .map_err(|_| Error::usage(format!("{name} {w} is no number")))
        })
    };
    let network = words.first().map_or("small-cnn", String::as_str);
    let dims = after("--dims").unwrap_or("1,28,28").split(',');
    let dims: Vec<usize> = dims.map(|d| d.parse().unwrap_or(1)).collect();
    let (batch, steps, threads) = (
        count("--batch", 64)?,
        count("--steps", 200)?,
        count("--threads", 1)?,
    );
    let training = training(network, &dims)?;
    let options = Options {
        threads,
        profile: words.iter().any(|w| w == "--profile"),
        batch_bytes: usize::MAX,
        ..Options::default()
    };
    let mut session = Session::prepare(&training.graph, &options)?;
    let fed = batch_of(&training, &dims, batch)?;
    let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    session.run(&named)?;
    session.reset_profile();
    let mut times = Vec::new();
    for _ in 0..steps {
        let started = Instant::now();
        session.run(&named)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{network}: {:.3} ms at least, {:.3} ms in the median of {steps} steps",
        times[0],
        times[steps / 2]
    );
    if let Some(memory) = session.memory() {
        println!(
            "arena {} bytes, lower bound {}",
            memory.arena_bytes, memory.lower_bound
        );
    }
    if options.profile {
        let profile = session.profile();
        let mut rows = profile.nodes.clone();
        rows.sort_by_key(|r| std::cmp::Reverse(r.ns));
        for r in rows.iter().take(40) {
            let ms = r.ns as f64 / 1e6 / steps as f64;
            println!(
                "{ms:9.4} ms  {:28} {:10} {:28} {}",
                r.op, r.provider, r.kernel, r.name
            );
        }
    }
    Ok(())
}

fn training(network: &str, dims: &[usize]) -> Result<Training> {
    let spec = Spec {
        input: "x".into(),
        dims: dims.to_vec(),
        classes: 10,
        seed: 0,
        ..Spec::default()
    };
    let model = (architectures::find(network)?.build)(&spec)?;
    let mut draft = Draft::new(&model, &draft::Options::default())?;
    draft.add_term(losses::find("cross-entropy")?, 1.0, &Request::default())?;
    draft.finish()
}

fn batch_of(training: &Training, dims: &[usize], batch: usize) -> Result<Vec<(String, Tensor)>> {
    let mut random = Random::of(&[1]);
    let count = batch * dims.iter().product::<usize>();
    let data: Vec<f32> = (0..count).map(|_| random.unit() as f32).collect();
    let labels: Vec<i64> = (0..batch).map(|_| random.below(10) as i64).collect();
    let dims = [&[batch], dims].concat();
    let mut fed = vec![
        ("x".to_owned(), Tensor::from_vec(&dims, data)?),
        ("labels".to_owned(), Tensor::vector(labels)),
    ];
    fed.extend(
        training
            .terms
            .iter()
            .map(|t| (t.input.clone(), Tensor::scalar(1f32))),
    );
    fed.extend(
        training
            .parameters
            .iter()
            .map(|p| (p.name.clone(), p.data.clone())),
    );
    fed.extend(
        training
            .states
            .iter()
            .map(|s| (s.name.clone(), s.data.clone())),
    );
    Ok(fed)
}
