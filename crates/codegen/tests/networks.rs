//! Random networks, quantised: the program against the reference evaluation, and the C against the
//! program, bit by bit, under sanitizers.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]
#![allow(clippy::print_stderr, reason = "a test that could not be run says so")]

#[path = "networks/host.rs"]
mod host;
#[path = "networks/layers.rs"]
mod layers;
#[path = "networks/made.rs"]
mod made;

use std::collections::BTreeMap;

use edgesmith_codegen::program::{Data, Program};
use edgesmith_codegen::{Firmware, Flavour, lower, split};
use edgesmith_ir::{DType, Model, Tensor, eval};
use edgesmith_testkit::{Tolerance, assert_close};

/// The answers of a program in the type of the graph.
fn answers(program: &Program, x: &Tensor) -> (Vec<Data>, Vec<Tensor>) {
    let input = program.input(0, x).unwrap();
    let raw = program.run(&[input]).unwrap();
    let typed = raw.iter().enumerate();
    let typed = typed.map(|(i, d)| program.output(i, d, DType::F32).unwrap());
    let typed = typed.collect();
    (raw, typed)
}

/// How far apart two answers are at most, in steps of the output.
fn steps(found: &Tensor, expected: &Tensor, scale: f32) -> f32 {
    let (a, b) = (found.to_f32().unwrap(), expected.to_f32().unwrap());
    let apart = a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f32::max) / scale
}

/// The reasons for which models were not lowered, but for those that are told.
fn refused(reasons: &BTreeMap<String, usize>, told: &[&str]) -> Vec<String> {
    let unknown = reasons
        .keys()
        .filter(|r| !told.iter().any(|t| r.contains(t)));
    unknown.cloned().collect()
}

#[test]
fn one_quantised_layer_is_at_most_one_step_off_the_reference() {
    for (name, model) in layers::layers() {
        let program = lower(&model).unwrap_or_else(|e| panic!("{name}: {e}"));
        let scale = program.buffers[program.outputs[0].buffer]
            .grid
            .unwrap()
            .scale;
        let mut off = 0;
        for seed in 0..20 {
            let x = made::input(&model, seed);
            let expected = eval::evaluate(&model, &[("x", x.clone())]).unwrap();
            let (_, found) = answers(&program, &x);
            let apart = steps(&found[0], &expected[0], scale);
            assert!(apart < 1.01, "{name}, seed {seed}: {apart} steps");
            off += usize::from(apart > 0.5);
        }
        // Floats of the reference have 24 bits, which is little for results of 16.
        let allowed = if name.starts_with("16 bits") { 10 } else { 2 };
        assert!(off <= allowed, "{name}: {off} of 20 answers are off");
    }
}

/// Checks the 60 networks of `make` that can be lowered: `least` of them or more, and the others are refused
/// for reasons that are known.
fn all_lowered(make: fn(u64) -> Model, least: usize, check: impl Fn(u64, &Model, &Program)) {
    let mut reasons = BTreeMap::new();
    let mut lowered = 0;
    for seed in 0..60 {
        let model = make(seed);
        match lower(&model) {
            Ok(program) => {
                lowered += 1;
                check(seed, &model, &program);
            }
            Err(e) => *reasons.entry(e.to_string()).or_insert(0) += 1,
        }
    }
    let unknown = refused(
        &reasons,
        &[
            "has no emitter",
            "both sides are computed",
            "bytes of one constant scale",
        ],
    );
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(lowered >= least, "{lowered} of 60: {reasons:#?}");
}

#[test]
fn quantised_networks_answer_as_the_reference_does() {
    let check = |seed: u64, model: &Model, program: &Program| {
        let grid = program.buffers[program.outputs[0].buffer].grid;
        let scale = grid.map_or(0.05, |g| g.scale);
        let mut apart = Vec::new();
        for n in 0..5 {
            let x = made::input(model, n);
            let expected = eval::evaluate(model, &[("x", x.clone())]).unwrap();
            let (_, found) = answers(program, &x);
            apart.push(steps(&found[0], &expected[0], scale));
        }
        apart.sort_by(f32::total_cmp);
        // A step that is off by one next to a half goes on through what follows.
        assert!(apart[2] < 2.5 && apart[4] < 8.0, "seed {seed}: {apart:?}");
    };
    all_lowered(made::network, 20, check);
}

/// A model as a case for a C compiler, its layers split by rows where `by_rows`; nothing where it has no
/// code. How many chains were split is added to `splits`.
fn case(
    name: &str,
    model: &Model,
    prefix: &str,
    by_rows: bool,
    splits: &mut usize,
) -> Option<host::Case> {
    let mut program = lower(model).ok()?;
    if by_rows {
        split(&mut program, Flavour::C, 0, 1.0);
        *splits += program.notes.len();
    }
    let inputs: Vec<Tensor> = (0..3).map(|n| made::input(model, n)).collect();
    let expected = inputs.iter().map(|x| answers(&program, x).0[0].to_bytes());
    let given = inputs
        .iter()
        .map(|x| program.input(0, x).unwrap().to_bytes());
    let (expected, given) = (expected.collect(), given.collect());
    Some(host::Case {
        name: name.to_owned(),
        firmware: Firmware::new(program, prefix, Flavour::C, name).unwrap(),
        given,
        expected,
        near: if name.contains("halves") { 0.02 } else { 1e-4 },
    })
}

#[test]
fn code_answers_as_its_program_under_sanitizers() {
    let mut all: Vec<(String, Model)> = layers::layers();
    all.extend((0..30).map(|seed| (format!("network {seed}"), made::network(seed))));
    let float = |seed| {
        (
            format!("network {seed} of floats"),
            made::float_network(seed),
        )
    };
    all.extend((0..30).map(float));
    all.extend(made::float_layers());
    let halves = |seed| {
        (
            format!("network {seed} of halves"),
            made::half_network(seed),
        )
    };
    all.extend((0..10).map(halves));
    let mut splits = 0;
    let mut cases = Vec::new();
    for (name, model) in all {
        cases.extend(case(
            &name,
            &model,
            &format!("net{}", cases.len()),
            false,
            &mut splits,
        ));
    }
    assert!(cases.len() > 70, "{} cases", cases.len());
    host::check(&cases);
}

#[test]
fn layers_done_by_rows_give_the_same_bytes() {
    let mut splits = 0;
    let mut cases = Vec::new();
    for seed in 0..24 {
        let name = format!("chain {seed}");
        let model = made::chain(seed);
        cases.extend(case(
            &name,
            &model,
            &format!("chain{seed}"),
            true,
            &mut splits,
        ));
    }
    assert!(splits >= 6, "{splits} chains were split");
    host::check(&cases);
}

#[test]
fn layers_of_floats_answer_as_the_reference_does() {
    for (name, model) in made::float_layers() {
        let program = lower(&model).unwrap_or_else(|e| panic!("{name}: {e}"));
        let x = made::input(&model, 1);
        let expected = eval::evaluate(&model, &[("x", x.clone())]).unwrap();
        let (_, found) = answers(&program, &x);
        let near = Tolerance {
            relative: 1e-5,
            absolute: 1e-6,
        };
        assert_close(&found[0], &expected[0], near);
    }
}

#[test]
fn networks_of_floats_answer_as_the_reference_does() {
    let check = |seed: u64, model: &Model, program: &Program| {
        let x = made::input(model, seed);
        let expected = eval::evaluate(model, &[("x", x.clone())]).unwrap();
        let (_, found) = answers(program, &x);
        let near = Tolerance {
            relative: 1e-4,
            absolute: 1e-4,
        };
        assert_close(&found[0], &expected[0], near);
    };
    all_lowered(made::float_network, 30, check);
}

#[test]
fn a_state_that_is_kept_goes_from_run_to_run() {
    let model = edgesmith_ir::text::parse(
        "opset 17 graph g(x: f32[1,4], h: f32[1,4]) -> (y, k) {
            a: f32[4,4] = {0.5,0,0,0,0,0.5,0,0,0,0,0.5,0,0.25,0,0,0.5}
            m = MatMul(h, a) k = Add(x, m) y = Relu(k) }",
    )
    .unwrap();
    let mut program = lower(&model).unwrap();
    program.keep("h", "k").unwrap();
    let mut states = program.rest();
    let x = Data::F32(vec![1.0, -2.0, 3.0, 4.0]);
    let first = program
        .run_on(&mut states, std::slice::from_ref(&x))
        .unwrap();
    assert_eq!(first, [Data::F32(vec![1.0, 0.0, 3.0, 4.0])]);
    let second = program.run_on(&mut states, &[x]).unwrap();
    assert_eq!(second, [Data::F32(vec![2.5, 0.0, 4.5, 6.0])]);
    assert_eq!(states, [Data::F32(vec![2.5, -3.0, 4.5, 6.0])]);
    let firmware = Firmware::new(program, "kept", Flavour::C, "test").unwrap();
    let expected = [[1.0f32, 0.0, 3.0, 4.0], [2.5, 0.0, 4.5, 6.0]];
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    host::check(&[host::Case {
        name: "kept".into(),
        firmware,
        given: vec![bytes(&[1.0, -2.0, 3.0, 4.0]); 2],
        expected: expected.iter().map(|e| bytes(e)).collect(),
        near: 0.0,
    }]);
}

#[test]
fn names_of_a_file_stay_in_their_comments_and_lengths_within_reason() {
    let hostile = "opset 17 graph g(x: f32[1,4]) -> (y) {
        a = Relu(x) {name=\"*/ int evil; /*\"} y = Neg(a) {name=\"line\"} }";
    let model = edgesmith_ir::text::parse(hostile).unwrap();
    let program = lower(&model).unwrap();
    let firmware = Firmware::new(program, "named", Flavour::C, "*/ #error */").unwrap();
    let one = |x: f32| x.to_le_bytes().to_vec();
    host::check(&[host::Case {
        name: "named".into(),
        firmware,
        given: vec![[1.0f32, -2.0, 3.0, 0.5].map(one).concat()],
        expected: vec![[-1.0f32, 0.0, -3.0, -0.5].map(one).concat()],
        near: 0.0,
    }]);
    let huge = "opset 17 graph g(x: f32[1,65536,65536]) -> (y) { y = Relu(x) }";
    let model = edgesmith_ir::text::parse(huge).unwrap();
    let error = lower(&model).err().map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.contains("more elements than code counts")));
}
