//! Zeros of a pruned model through what is done to it afterwards: passes, INT8, weights of 4 bits.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_compress::recipe::{Recipe, Supplies};
use edgesmith_compress::{Batch, Samples};
use edgesmith_ir::analysis::pruned;
use edgesmith_ir::{DType, Model, NoProgress, Result, Tensor, eval, packed, text, verify};
use edgesmith_testkit::Rng;

/// Convolutions with a normalisation, and products.
fn net() -> Model {
    let mut rng = Rng::new(3);
    let mut source = "opset 17 graph net(x: f32[n,2,6,6]) -> (y: f32[n,3]) {
        w1: f32[8,2,3,3] = {W144} w2: f32[8,8,3,3] = {W576} wm: f32[8,32] = {W256} wn: f32[32,32] = {W1024}
        wf: f32[32,3] = {W96} bf: f32[3] = {0.5,-0.5,0.25}
        s: f32[8] = {1,-2,0.5,1,1,-1,2,1} o: f32[8] = {0,0,0.1,0,0,0.2,0,0}
        mean: f32[8] = {0,0.1,0,0,0,0,0,0} var: f32[8] = {1,1,2,1,1,1,1,1}
        c1 = Conv(x, w1) {pads=[1,1,1,1], name=\"first\"} r1 = Relu(c1)
        c2 = Conv(r1, w2) {pads=[1,1,1,1], name=\"middle\"}
        n2 = BatchNormalization(c2, s, o, mean, var) r2 = Relu(n2)
        g = GlobalAveragePool(r2) f = Flatten(g) m = MatMul(f, wm) {name=\"wide\"} rm = Relu(m)
        mn = MatMul(rm, wn) {name=\"deep\"} rn = Relu(mn) y = Gemm(rn, wf, bf) {name=\"last\"} }"
        .to_owned();
    for n in [144, 576, 256, 1024, 96] {
        let list: Vec<String> = (0..n)
            .map(|_| format!("{:?}", rng.uniform(-0.5, 0.5)))
            .collect();
        source = source.replace(&format!("W{n}}}"), &format!("{}}}", list.join(",")));
    }
    text::parse(&source).unwrap()
}

fn input(seed: u64) -> Tensor {
    Rng::new(seed).floats(&[40, 2, 6, 6], -1.0, 1.0)
}

/// Samples of one tensor, for the input `x`.
struct Rows(Tensor);

impl Samples for Rows {
    fn count(&self) -> usize {
        self.0.dims()[0]
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let (count, dims) = (self.count(), self.0.dims());
        let of_one: usize = dims[1..].iter().product();
        Box::new((0..count).step_by(size).map(move |first| {
            let range = first..(first + size).min(count);
            let data = self.0.to_f32()?[range.start * of_one..range.end * of_one].to_vec();
            let dims = [&[range.len()], &dims[1..]].concat();
            Ok((range, vec![("x".into(), Tensor::from_vec(&dims, data)?)]))
        }))
    }
}

fn done(steps: &str) -> Model {
    let samples = Rows(input(7));
    let supplies = Supplies {
        samples: Some(&samples),
        ..Supplies::default()
    };
    let recipe = Recipe::parse("r", steps).unwrap();
    let (model, _) = recipe.run(&net(), &supplies, &NoProgress).unwrap();
    verify::verify(&model).unwrap();
    model
}

fn refused(steps: &str) -> String {
    let recipe =
        Recipe::parse("r", steps).and_then(|r| r.run(&net(), &Supplies::default(), &NoProgress));
    recipe.unwrap_err().to_string()
}

const PRUNE: &str = "[[step]]\ndo = \"prune\"\nstructure = \"2:4\"\ncriterion = \"wanda\"\n";

/// The numbers of the constants whose names begin so and which are weights, where 0 is 0.
fn weights(model: &Model, name: &str) -> (Vec<usize>, Vec<i64>) {
    let is_it = |n: &str| n == name || n == format!("{name}_q");
    let mut all = model.graph.values().filter(|(_, v)| is_it(&v.name));
    let t = all.find_map(|(_, v)| v.constant.clone()).unwrap();
    let numbers = match t.dtype() {
        DType::F32 => t
            .to_f32()
            .unwrap()
            .iter()
            .map(|x| i64::from(*x != 0.0))
            .collect(),
        DType::I4 => packed::decode_integers(&t)
            .unwrap()
            .into_iter()
            .map(i64::from)
            .collect(),
        _ => t.to_i64().unwrap(),
    };
    (t.dims().to_vec(), numbers)
}

/// Zeros of each group of four inputs, at least two; how many there are.
fn groups(model: &Model, name: &str, is_inputs_first: bool) -> usize {
    let (dims, numbers) = weights(model, name);
    let taps: usize = dims[2..].iter().product();
    let (rows, columns) = match is_inputs_first {
        true => (dims[1], dims[0]),
        false => (dims[0], dims[1]),
    };
    let at = |row: usize, column: usize, tap: usize| match is_inputs_first {
        true => numbers[column * rows + row],
        false => numbers[(row * columns + column) * taps + tap],
    };
    let mut zeros = 0;
    for row in 0..rows {
        for tap in 0..taps {
            for first in (0..columns).step_by(4) {
                let group = (first..first + 4).filter(|&c| at(row, c, tap) == 0).count();
                assert!(group >= 2, "{name} {row} {first} {tap}");
                zeros += group;
            }
        }
    }
    zeros
}

#[test]
fn of_each_group_two_stay_zero_through_passes_and_integers() {
    let float = done(PRUNE);
    assert_eq!(
        pruned(&float).keys().collect::<Vec<_>>(),
        ["w2", "wm", "wn"]
    );
    let all = [("w2", false), ("wm", true), ("wn", true)];
    for (name, turned) in all {
        groups(&float, name, turned);
    }
    for quantize in ["to = \"int8\"", "to = \"int8\"\nweights = \"s4\""] {
        let steps = format!("{PRUNE}\n[[step]]\ndo = \"quantize\"\n{quantize}\n");
        let model = done(&steps);
        for (name, turned) in all {
            groups(&model, name, turned);
        }
        assert_eq!(pruned(&model).len(), 3, "what was pruned is still named");
    }
}

#[test]
fn passes_keep_as_many_zeros_as_there_were() {
    let float = done(PRUNE);
    let zeros = |model: &Model| -> usize {
        let constants = model
            .graph
            .values()
            .filter_map(|(_, v)| v.constant.as_ref());
        let weights = constants.filter(|t| t.rank() > 1 && t.dtype() == DType::F32);
        weights
            .map(|t| t.to_f32().unwrap().iter().filter(|x| **x == 0.0).count())
            .sum()
    };
    for level in ["basic", "extended", "layout"] {
        let steps = format!("{PRUNE}\n[[step]]\ndo = \"optimize\"\nlevel = \"{level}\"\n");
        let model = done(&steps);
        assert_eq!(zeros(&model), zeros(&float), "{level}");
        let x = [("x", input(9))];
        let (a, b) = (
            eval::evaluate(&float, &x).unwrap(),
            eval::evaluate(&model, &x).unwrap(),
        );
        for (a, b) in a[0].to_f32().unwrap().iter().zip(&*b[0].to_f32().unwrap()) {
            assert!((a - b).abs() < 1e-4, "{level} {a} {b}");
        }
    }
}

#[test]
fn what_is_pruned_and_rounded_together_computes_what_was_meant() {
    for to in ["int4", "int8"] {
        let steps = format!(
            "[[step]]\ndo = \"prune\"\nstructure = \"2:4\"\ncriterion = \"sparsegpt\"\nquantize = \"{to}\"\ngroup = \"32\"\n"
        );
        let model = done(&steps);
        let ops: Vec<&str> = model.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
        assert_eq!(
            ops.iter().filter(|op| **op == "MatMulNBits").count(),
            1,
            "{ops:?}"
        );
        // Codes of `deep`: of each four inputs two are the middle.
        let (_, node) = model
            .graph
            .nodes()
            .find(|(_, n)| n.op == "MatMulNBits")
            .unwrap();
        let codes = model.graph.constant(node.input(1).unwrap()).unwrap();
        let bytes = codes.data::<u8>().unwrap();
        let codes: Vec<u8> = match to {
            "int4" => bytes.iter().flat_map(|b| [b & 15, b >> 4]).collect(),
            _ => bytes.to_vec(),
        };
        let middle = if to == "int4" { 8 } else { 128 };
        for group in codes.chunks(4) {
            assert!(
                group.iter().filter(|c| **c == middle).count() >= 2,
                "{group:?}"
            );
        }
    }
}

#[test]
fn steps_refuse_what_does_not_go_together() {
    let prune = |more: &str| format!("[[step]]\ndo = \"prune\"\n{more}\n");
    for (more, what) in [
        ("structure = \"unstructured\"\namount = 1.5", "is no share"),
        ("structure = \"4:2\"", "of 2 numbers 4 cannot stay"),
        ("structure = \"odd\"", "\"odd\" is no structure"),
        (
            "structure = \"2:4\"\namount = 0.3",
            "takes 0.5 of each group",
        ),
        (
            "structure = \"2:4\"\nscope = \"global\"",
            "there is no scope",
        ),
        ("structure = \"unstructured\"", "needs an amount"),
        ("structure = \"2:4\"\ncriterion = \"wanda\"", "needs data"),
        ("structure = \"2:4\"\nquantize = \"int4\"", "does not round"),
        (
            "structure = \"2:4\"\ngroup = \"32\"",
            "with \"quantize\" alone",
        ),
        ("amount = 0.5", "needs the key \"structure\""),
    ] {
        let found = refused(&prune(more));
        assert!(found.contains(what), "{more}: {found}");
    }
}
