//! Weights of 4 bits as MatMulNBits that are trained with the model of floats as teacher.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_compress::recipe::{Recipe, Supplies};
use edgesmith_ir::{DType, Model, NoProgress, Tensor, eval, text};
use edgesmith_testkit::Rng;

/// Two products with a bias between.
fn net() -> Model {
    let mut rng = Rng::new(5);
    let mut source = "opset 17 graph net(x: f32[n,32]) -> (y: f32[n,8]) {
        w: f32[32,64] = {W2048} b: f32[64] = {W64} v: f32[64,8] = {W512}
        h = MatMul(x, w) a = Add(h, b) r = Relu(a) y = MatMul(r, v) }"
        .to_owned();
    for n in [2048, 64, 512] {
        let list: Vec<String> = (0..n)
            .map(|_| format!("{:?}", rng.uniform(-0.5, 0.5)))
            .collect();
        source = source.replace(&format!("W{n}}}"), &format!("{}}}", list.join(",")));
    }
    text::parse(&source).unwrap()
}

fn run(model: &Model, steps: &str) -> Model {
    let teacher = |_: &str| Ok(net());
    let supplies = Supplies {
        open: Some(&teacher),
        ..Supplies::default()
    };
    let recipe = Recipe::parse("r", steps).unwrap();
    let (model, _) = recipe.run(model, &supplies, &NoProgress).unwrap();
    edgesmith_ir::verify::verify(&model).unwrap();
    model
}

/// The mean square of what two models make apart.
fn apart(a: &Model, b: &Model) -> f64 {
    let x = Rng::new(900).floats(&[300, 32], -1.0, 1.0);
    let [a, b] = [a, b].map(|m| eval::evaluate(m, &[("x", x.clone())]).unwrap());
    let (a, b) = (a[0].to_f32().unwrap(), b[0].to_f32().unwrap());
    let squares = a.iter().zip(&*b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>() / a.len() as f64
}

#[test]
fn training_brings_weights_of_four_bits_nearer_to_the_teacher_in_the_same_file() {
    let name = format!("edgesmith-trained-nbits-{}.npz", std::process::id());
    let data = std::env::temp_dir().join(name);
    let x = Rng::new(1).floats(&[512, 32], -1.0, 1.0);
    edgesmith_formats::npz::write(&data, &[("x".to_owned(), x)], true).unwrap();
    let quantized = run(&net(), "[[step]]\ndo = \"quantize\"\nto = \"int4\"\n");
    let train = format!(
        "[[step]]\ndo = \"train\"\ndata = {:?}\nteacher = \"t\"\nloss = [\"logits-mse\"]\n\
         epochs = 20\nrate = 0.002\ntrain-threads = 1\n",
        data.display().to_string()
    );
    let trained = run(&quantized, &train);
    std::fs::remove_file(&data).unwrap();
    let (before, after) = (apart(&net(), &quantized), apart(&net(), &trained));
    assert!(after < 0.8 * before, "{before} {after}");
    let nodes = |m: &Model| -> Vec<String> {
        let all = m.graph.nodes().filter(|(_, n)| n.op == "MatMulNBits");
        all.map(|(_, n)| format!("{} {:?}", n.name, n.attributes))
            .collect()
    };
    assert_eq!(nodes(&quantized).len(), 2);
    assert_eq!(nodes(&trained), nodes(&quantized));
    let constants = |m: &Model| {
        let all = m.graph.values().filter_map(|(_, v)| v.constant.clone());
        let mut all: Vec<(DType, Vec<usize>)> = all
            .map(|t: Tensor| (t.dtype(), t.dims().to_vec()))
            .collect();
        all.sort_by_key(|t| format!("{t:?}"));
        all
    };
    assert_eq!(constants(&trained), constants(&quantized));
}
