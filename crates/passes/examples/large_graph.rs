//! Times the optimiser on a made model: `cargo run --release -p edgesmith-passes --example
//! large_graph -- [NODES]`.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::collections::BTreeMap;
use std::time::Instant;

use edgesmith_ir::{Attribute, DType, Dim, Graph, Model, Node, Shape, Tensor, TensorType, ValueId};
use edgesmith_passes::{Level, PASSES, PassCx, RunOptions, optimize};

/// Chains and diamonds of products, sums, activations, reshapes and transposes, with what
/// exporters leave behind: constants in nodes, computed shapes, nodes that do nothing, duplicates.
fn tower(nodes: usize) -> Model {
    let mut g = Graph::new("tower");
    let shape: Shape = [Dim::symbol("batch"), 2.into(), 4.into()]
        .into_iter()
        .collect();
    let mut x = g.add_input("x", TensorType::new(DType::F32, shape));
    let shared = g.add_constant("shared", Tensor::vector(vec![0.5f32, -0.5, 1.0, 2.0]));
    let mut made = 0;
    while made < nodes {
        let mut op = |node: Node, inputs: &[ValueId]| {
            made += 1;
            let out = g.add_value(&format!("v{made}"), None);
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            g.add_node(node, &inputs, &[Some(out)]);
            out
        };
        let plain = |name: &str| Node::new(name, name);
        let data = |t: Tensor| Node::new("Constant", "").with("value", Attribute::Tensor(t));
        let w = Tensor::from_vec(&[4, 4], vec![0.25f32; 16]).expect("sixteen elements");
        let w = op(data(w), &[]);
        let same = op(plain("Identity"), &[x]);
        op(plain("Sigmoid"), &[x]);
        let product = op(plain("MatMul"), &[same, w]);
        let sum = op(plain("Add"), &[product, shared]);
        let (a, b) = (op(plain("Relu"), &[sum]), op(plain("Relu"), &[sum]));
        let turn = plain("Transpose").with("perm", Attribute::Ints(vec![0, 2, 1]));
        let a = op(turn.clone(), &[a]);
        let a = op(turn, &[a]);
        let lengths = op(plain("Shape"), &[x]);
        let first = op(data(Tensor::vector(vec![0i64])), &[]);
        let first = op(plain("Gather"), &[lengths, first]);
        let rest = op(data(Tensor::vector(vec![8i64])), &[]);
        let join = plain("Concat").with("axis", Attribute::Int(0));
        let target = op(join, &[first, rest]);
        let flat = op(plain("Reshape"), &[b, target]);
        let target = op(data(Tensor::vector(vec![-1i64, 2, 4])), &[]);
        let b = op(plain("Reshape"), &[flat, target]);
        x = op(plain("Mul"), &[a, b]);
    }
    g.outputs.push(x);
    Model::new(g, 17)
}

fn main() {
    let nodes = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let model = tower(nodes.unwrap_or(10_000));
    let options = RunOptions {
        verify: false,
        ..RunOptions::default()
    };
    for level in [Level::Basic, Level::Extended, Level::Layout] {
        let mut after = model.clone();
        let start = Instant::now();
        let trace = optimize(&mut after, level, &options).expect("the model is sound");
        println!(
            "{level}: {} nodes to {} by {} changes in {} ms",
            model.graph.nodes().count(),
            after.graph.nodes().count(),
            trace.changes(),
            start.elapsed().as_millis()
        );
    }
    let mut after = model;
    let cx = PassCx::new(&edgesmith_ir::NoProgress);
    let mut times: BTreeMap<u128, Vec<&str>> = BTreeMap::new();
    for pass in PASSES {
        let start = Instant::now();
        (pass.run)(&mut after, &cx).expect("the model is sound");
        let taken = start.elapsed().as_micros();
        times.entry(taken).or_default().push(pass.name);
    }
    for (taken, names) in times.iter().rev().take(8) {
        println!("{taken} us: {}", names.join(", "));
    }
}
