//! For tests: a pass on a model in text form, checked in every way that holds for all passes.

use edgesmith_ir::text::parse;
use edgesmith_ir::{Model, NoProgress};
use edgesmith_testkit::{Tolerance, assert_same_answers, check};

use crate::pass::{Pass, PassCx};

/// Runs the pass until it changes nothing and returns the model. The model is sound before and
/// after, answers as before, and the ends of its graph keep their names.
///
/// # Panics
/// When one of that does not hold.
pub(crate) fn run(pass: &Pass, text: &str) -> Model {
    let before = parse(text).expect("the test's model reads");
    check(&before);
    let mut after = before.clone();
    let cx = PassCx::new(&NoProgress);
    let mut rounds = 0;
    while (pass.run)(&mut after, &cx).expect("the pass runs") > 0 {
        check(&after);
        rounds += 1;
        assert!(rounds < 10, "the pass comes to an end");
    }
    let ends = |m: &Model| -> Vec<String> {
        let all = m.graph.inputs.iter().chain(&m.graph.outputs);
        all.map(|&v| m.graph.value(v).name.clone()).collect()
    };
    assert_eq!(ends(&after), ends(&before));
    for seed in 0..3 {
        assert_same_answers(&after, &before, seed, Tolerance::ROUNDING);
    }
    after
}

/// The operators of the main graph, in the order in which they run.
pub(crate) fn ops(model: &Model) -> Vec<String> {
    let order = model.graph.order().expect("the graph has no cycle");
    order
        .into_iter()
        .map(|id| model.graph.node(id).op.clone())
        .collect()
}

/// The operators that are left after the pass.
pub(crate) fn left(pass: &Pass, text: &str) -> Vec<String> {
    ops(&run(pass, text))
}
