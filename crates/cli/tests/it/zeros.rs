//! Weights of which most are zero, from outside.

use super::*;

#[test]
fn zeros_are_multiplied_where_dense_kernels_are_asked_for_and_the_answers_are_the_same() {
    let folder = Folder::new("zeros");
    let mut graph = Graph::new("main");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &[64, 256]));
    // Of every twenty blocks of four outputs nineteen are zero.
    let weight = |i: usize| f32::from(u8::from((i / 4).is_multiple_of(20))) / 4.0;
    let w = Tensor::from_vec(&[256, 320], (0..256 * 320).map(weight).collect()).unwrap();
    let w = graph.add_constant("w", w);
    let y = graph.add_op(Node::new("MatMul", "only"), &[x, w], "y");
    graph.value_mut(y).ty = Some(TensorType::fixed(DType::F32, &[64, 320]).into());
    graph.outputs.push(y);
    let model = Model::new(graph, 17);
    let path = folder.path("model.onnx");
    edgesmith_formats::write(&model, &path, &WriteOptions::default()).unwrap();
    let x = (0..64 * 256).map(|i| (i % 37) as f32 - 18.0).collect();
    let x = Tensor::from_vec(&[64, 256], x).unwrap();
    npz::write(&folder.path("in.npz"), &[("x".into(), x)], false).unwrap();
    for (flag, out) in [("", "a.npz"), ("--dense-kernels", "b.npz")] {
        let words = format!("run model.onnx --input in.npz --output {out} --threads 1 {flag}");
        assert!(folder.run(&words).status.success());
        let words = format!("bench model.onnx --iterations 3 --cold-starts 1 --profile {flag}");
        let output = folder.run(&words);
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert_eq!(
            table.contains("sparse 4x1, 5 % of blocks"),
            flag.is_empty(),
            "{table}"
        );
    }
    let [a, b] = ["a.npz", "b.npz"].map(|name| npz::read(&folder.path(name)).unwrap());
    assert_eq!(a, b);
}
