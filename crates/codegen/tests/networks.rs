//! Random networks, quantised: the program against the reference evaluation, and the C against the
//! program, bit by bit, under sanitizers.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

#[path = "networks/host.rs"]
mod host;
#[path = "networks/made.rs"]
mod made;

use std::collections::BTreeMap;

use edgesmith_codegen::program::{Data, Program};
use edgesmith_codegen::{Firmware, Flavour, lower};
use edgesmith_ir::{DType, Model, Tensor, eval};

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
    for (name, model) in made::layers() {
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
        assert!(off <= 2, "{name}: {off} of 20 answers are off");
    }
}

#[test]
fn quantised_networks_answer_as_the_reference_does() {
    let mut reasons = BTreeMap::new();
    let mut lowered = 0;
    for seed in 0..60 {
        let model = made::network(seed);
        let program = match lower(&model) {
            Ok(program) => program,
            Err(e) => {
                *reasons.entry(e.to_string()).or_insert(0) += 1;
                continue;
            }
        };
        lowered += 1;
        let grid = program.buffers[program.outputs[0].buffer].grid;
        let scale = grid.map_or(0.05, |g| g.scale);
        let mut apart = Vec::new();
        for n in 0..5 {
            let x = made::input(&model, n);
            let expected = eval::evaluate(&model, &[("x", x.clone())]).unwrap();
            let (_, found) = answers(&program, &x);
            apart.push(steps(&found[0], &expected[0], scale));
        }
        apart.sort_by(f32::total_cmp);
        // A step that is off by one next to a half goes on through what follows.
        assert!(apart[2] < 2.5 && apart[4] < 8.0, "seed {seed}: {apart:?}");
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
    assert!(lowered >= 20, "{lowered} of 60: {reasons:#?}");
}

#[test]
fn code_answers_as_its_program_under_sanitizers() {
    let mut all: Vec<(String, Model)> = made::layers();
    all.extend((0..30).map(|seed| (format!("network {seed}"), made::network(seed))));
    let mut cases = Vec::new();
    for (name, model) in all {
        let Ok(program) = lower(&model) else { continue };
        if program
            .buffers
            .iter()
            .any(|b| b.element == edgesmith_codegen::program::Element::F32)
        {
            continue;
        }
        let inputs: Vec<Tensor> = (0..3).map(|n| made::input(&model, n)).collect();
        let expected: Vec<Vec<u8>> = inputs
            .iter()
            .map(|x| answers(&program, x).0[0].to_bytes())
            .collect();
        let given: Vec<Vec<u8>> = inputs
            .iter()
            .map(|x| program.input(0, x).unwrap().to_bytes())
            .collect();
        let prefix = format!("net{}", cases.len());
        let firmware = Firmware::new(program, &prefix, Flavour::C, &name).unwrap();
        cases.push(host::Case {
            name,
            firmware,
            given,
            expected,
        });
    }
    assert!(cases.len() > 40, "{} cases", cases.len());
    host::check(&cases);
}
