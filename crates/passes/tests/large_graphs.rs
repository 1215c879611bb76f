//! Passes stay fast on graphs of ten thousand nodes.

use std::time::{Duration, Instant};

use edgesmith_ir::{DType, Graph, Model, Node, Tensor, TensorType, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};

/// Layers of a product with bias, two branches and their product; in each an Identity and a node
/// that nobody reads.
fn tower(layers: usize) -> Model {
    let mut g = Graph::new("tower");
    let mut x = g.add_input("x", TensorType::fixed(DType::F32, &[1, 2]));
    let shared = g.add_constant("shared", Tensor::vector(vec![0.5f32, -0.5]));
    for i in 0..layers {
        let weight =
            Tensor::from_vec(&[2, 2], vec![1.0 / (i + 1) as f32; 4]).expect("four elements");
        let w = g.add_constant(&format!("w_{i}"), weight);
        let mut op = |name: &str, inputs: &[ValueId]| {
            let out = g.add_value(&format!("{name}_{i}"), None);
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            g.add_node(Node::new(name, ""), &inputs, &[Some(out)]);
            out
        };
        let same = op("Identity", &[x]);
        op("Sigmoid", &[x]);
        let product = op("MatMul", &[same, w]);
        let sum = op("Add", &[product, shared]);
        let (a, b) = (op("Relu", &[sum]), op("Abs", &[sum]));
        x = op("Mul", &[a, b]);
    }
    g.outputs.push(x);
    Model::new(g, 17)
}

#[test]
fn ten_thousand_nodes_take_seconds_not_minutes() {
    let mut model = tower(1500);
    let options = RunOptions {
        verify: false,
        ..RunOptions::default()
    };
    let start = Instant::now();
    let trace = optimize(&mut model, Level::Layout, &options).unwrap();
    let taken = start.elapsed();
    assert_eq!(model.graph.nodes().count(), 1500 * 4);
    assert!(trace.changes() >= 1500 * 3);
    assert!(taken < Duration::from_secs(20), "took {taken:?}");
}
