//! Random models answer the same after optimisation, at every level, and stay sound.

use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_testkit::{Tolerance, assert_same_answers, check, random};

/// Folded weights are rounded once more, and errors grow along the graph.
const FOLDED: Tolerance = Tolerance {
    relative: 1e-4,
    absolute: 1e-5,
};

const ALWAYS_VERIFY: RunOptions = RunOptions {
    verify: true,
    stop_after: None,
    only: &[],
    skip: &[],
    measure: false,
    progress: &edgesmith_ir::NoProgress,
};

#[test]
fn optimised_models_answer_like_their_originals() {
    let mut changes = 0;
    for seed in 0..300 {
        let model = random::graph(seed);
        for level in [Level::Basic, Level::Layout] {
            let mut optimised = model.clone();
            let trace = optimize(&mut optimised, level, &ALWAYS_VERIFY)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            changes += trace.changes();
            check(&optimised);
            assert_same_answers(&optimised, &model, seed, FOLDED);
        }
    }
    assert!(
        changes > 1000,
        "only {changes} changes: the passes find nothing"
    );
}

#[test]
fn a_second_optimisation_finds_nothing_more() {
    for seed in 300..400 {
        let mut model = random::graph(seed);
        optimize(&mut model, Level::Layout, &ALWAYS_VERIFY).unwrap();
        let again = optimize(&mut model, Level::Layout, &ALWAYS_VERIFY).unwrap();
        assert_eq!(again.changes(), 0, "seed {seed}: {again:?}");
    }
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
        optimize(&mut model, Level::Layout, &ALWAYS_VERIFY).unwrap();
        assert_eq!(ends(&model), before, "seed {seed}");
    }
}
