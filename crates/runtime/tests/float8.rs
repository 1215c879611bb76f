//! Floats of 8 bits run on kernels and give the numbers of the reference evaluation.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::{
    Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId, eval, packed,
};
use edgesmith_runtime::{Options, Placement, Session};
use edgesmith_testkit::{Rng, Tolerance, difference};

const TYPES: [DType; 2] = [DType::F8E4M3FN, DType::F8E5M2];

/// Random codes, of which some are subnormal.
fn codes(rng: &mut Rng, dtype: DType, dims: &[usize]) -> Tensor {
    let t = rng.floats(dims, -300.0, 300.0);
    let data = t.to_f32().unwrap();
    let values: Vec<f64> = data
        .iter()
        .enumerate()
        .map(|(i, &x)| {
            if i % 5 == 0 {
                f64::from(x) * 1e-5
            } else {
                f64::from(x)
            }
        })
        .collect();
    packed::encode_floats(dtype, dims, &values, true).unwrap()
}

fn zero(dtype: DType, dims: &[usize]) -> Tensor {
    let values = vec![0.0; dims.iter().product()];
    packed::encode_floats(dtype, dims, &values, true).unwrap()
}

/// A constant of codes that is dequantised along `axis`.
fn weight(g: &mut Graph, rng: &mut Rng, dtype: DType, dims: &[usize], axis: usize) -> ValueId {
    let codes = codes(rng, dtype, dims);
    let q = g.add_constant("wq", codes);
    let s = g.add_constant("ws", rng.floats(&[dims[axis]], 1e-4, 1e-3));
    let node = Node::new("DequantizeLinear", "dq").with("axis", Attribute::Int(axis as i64));
    g.add_op(node, &[q, s], "w")
}

fn model(mut g: Graph, y: ValueId) -> Model {
    g.outputs.push(y);
    Model::new(g, 19)
}

/// The placements of a session that gives what the reference does, with and without integers.
fn agrees(model: &Model, name: &str, x: &Tensor, relative: f32) -> Vec<Vec<Placement>> {
    let inputs = [(name, x.clone())];
    let expected = eval::evaluate(model, &inputs).unwrap().remove(0);
    let run = |integer| {
        let options = Options {
            threads: 1,
            integer,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options).unwrap();
        let found = session.run(&inputs).unwrap().remove(0);
        let tolerance = Tolerance {
            relative,
            absolute: 0.0,
        };
        assert_eq!(difference(&found, &expected, tolerance), None);
        session.placements().to_vec()
    };
    [false, true].map(run).to_vec()
}

fn kernels(placements: &[Placement]) -> Vec<&str> {
    placements.iter().map(|p| p.kernel.as_str()).collect()
}

#[test]
fn products_read_weights_that_are_made_floats_once() {
    let mut rng = Rng::new(1);
    let cases: [(&str, &[usize], &[usize], usize); 4] = [
        ("MatMul", &[3, 8], &[8, 5], 1),
        ("Gemm", &[3, 8], &[8, 5], 1),
        ("Conv", &[1, 4, 6, 6], &[8, 4, 3, 3], 0),
        ("Conv", &[1, 4, 6, 6], &[8, 4, 1, 1], 0),
    ];
    for dtype in TYPES {
        for (op, input, dims, axis) in cases {
            let mut g = Graph::new("g");
            let x = g.add_input("x", TensorType::fixed(DType::F32, input));
            let w = weight(&mut g, &mut rng, dtype, dims, axis);
            let y = g.add_op(Node::new(op, "product"), &[x, w], "y");
            let x = rng.floats(input, -1.0, 1.0);
            for placements in agrees(&model(g, y), "x", &x, 1e-5) {
                let dq = placements.iter().find(|p| p.node == "dq");
                assert!(
                    dq.is_none_or(|p| p.kernel == "in the nodes after it"),
                    "{op}"
                );
                assert!(placements.iter().all(|p| p.provider == "cpu"), "{op}");
            }
        }
    }
}

#[test]
fn rows_of_a_table_become_floats_when_they_are_gathered() {
    let mut rng = Rng::new(2);
    for dtype in TYPES {
        let mut g = Graph::new("g");
        let i = g.add_input("i", TensorType::fixed(DType::I64, &[2, 3]));
        let w = weight(&mut g, &mut rng, dtype, &[7, 9], 0);
        let y = g.add_op(Node::new("Gather", "gather"), &[w, i], "y");
        let indices = Tensor::from_vec(&[2, 3], vec![0i64, 6, -1, 3, 3, 2]).unwrap();
        for placements in agrees(&model(g, y), "i", &indices, 0.0) {
            assert!(kernels(&placements).contains(&"rows of float8"));
        }
    }
}

#[test]
fn a_place_outside_of_a_table_is_an_error() {
    let mut g = Graph::new("g");
    let i = g.add_input("i", TensorType::fixed(DType::I64, &[1]));
    let w = weight(&mut g, &mut Rng::new(3), TYPES[0], &[7, 9], 0);
    let y = g.add_op(Node::new("Gather", "gather"), &[w, i], "y");
    let mut session = Session::prepare(&model(g, y), &Options::default()).unwrap();
    let e = session
        .run(&[("i", Tensor::vector(vec![7i64]))])
        .unwrap_err();
    assert!(e.to_string().contains("gather"), "{e}");
}

#[test]
fn constants_that_other_nodes_read_are_made_floats_when_a_session_is_prepared() {
    let mut rng = Rng::new(4);
    let mut g = Graph::new("g");
    let x = g.add_input("x", TensorType::fixed(DType::F32, &[4, 6]));
    let w = weight(&mut g, &mut rng, TYPES[0], &[4, 6], 0);
    let y = g.add_op(Node::new("Mul", "mul"), &[x, w], "y");
    let x = rng.floats(&[4, 6], -1.0, 1.0);
    for placements in agrees(&model(g, y), "x", &x, 0.0) {
        assert!(placements.iter().all(|p| p.provider != "reference"));
    }
}

#[test]
fn activations_are_rounded_and_widened_by_kernels() {
    let mut rng = Rng::new(5);
    for dtype in TYPES {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[5, 33]));
        let s = g.add_constant("s", Tensor::scalar(0.003f32));
        let z = g.add_constant("z", zero(dtype, &[]));
        let q = g.add_op(Node::new("QuantizeLinear", "q"), &[x, s, z], "q");
        let y = g.add_op(Node::new("DequantizeLinear", "d"), &[q, s, z], "y");
        let x = rng.floats(&[5, 33], -2.0, 2.0);
        for placements in agrees(&model(g, y), "x", &x, 0.0) {
            assert_eq!(
                kernels(&placements),
                ["quantize-float8", "dequantize-float8"]
            );
        }
    }
}

#[test]
fn zero_points_that_are_not_zero_are_left_to_the_reference() {
    let mut rng = Rng::new(6);
    let mut g = Graph::new("g");
    let x = g.add_input("x", TensorType::fixed(DType::F32, &[2, 8]));
    let (q, s) = (
        codes(&mut rng, TYPES[0], &[8, 3]),
        rng.floats(&[3], 0.1, 0.2),
    );
    let z = packed::encode_floats(TYPES[0], &[3], &[0.0, 1.0, 0.0], true).unwrap();
    let inputs = [q, s, z].map(|t| g.add_constant(&format!("c{}", t.ty()), t));
    let w = g.add_op(Node::new("DequantizeLinear", "dq"), &inputs, "w");
    let y = g.add_op(Node::new("MatMul", "product"), &[x, w], "y");
    let x = rng.floats(&[2, 8], -1.0, 1.0);
    agrees(&model(g, y), "x", &x, 1e-5);
}
