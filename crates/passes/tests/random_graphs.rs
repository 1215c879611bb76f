//! Random models answer the same after optimisation, at every level, and stay sound.

#[path = "../examples/random_graphs/property.rs"]
mod property;

use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_testkit::property::holds;
use edgesmith_testkit::random;

/// Models of one run of the tests; `cargo xtask random-graphs` tries more.
const COUNT: u64 = 300;

#[test]
fn optimised_models_are_sound_answer_alike_and_are_at_a_fixed_point() {
    if let Err(fault) = holds(0..COUNT, &property::optimising_keeps_meaning) {
        panic!("seed {}: {}\n{}", fault.seed, fault.message, fault.text);
    }
}

#[test]
fn every_pass_of_the_basic_level_finds_work_in_random_models() {
    let mut changes = std::collections::BTreeMap::new();
    for seed in 0..600 {
        let mut model = random::graph(seed);
        let trace = optimize(&mut model, Level::Basic, &RunOptions::default()).unwrap();
        for step in trace.steps {
            *changes.entry(step.name).or_insert(0) += step.changes;
        }
    }
    // Random models have no functions.
    changes.remove("inline_functions");
    let idle: Vec<_> = changes.iter().filter(|(_, n)| **n == 0).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn inputs_and_outputs_keep_names_and_order() {
    for seed in 400..450 {
        let mut model = random::graph(seed);
        let ends = |m: &edgesmith_ir::Model| -> Vec<String> {
            let g = &m.graph;
            let all = g.inputs.iter().chain(&g.outputs);
            all.map(|&v| g.value(v).name.clone()).collect()
        };
        let before = ends(&model);
        optimize(&mut model, Level::Layout, &RunOptions::default()).unwrap();
        assert_eq!(ends(&model), before, "seed {seed}");
    }
}
