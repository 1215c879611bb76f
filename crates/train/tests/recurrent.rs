//! A recurrent network trains on kernels alone, with the gates of the run forward.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::random::Random;
use edgesmith_ir::{Tensor, text};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::{Draft, draft};

fn floats(dims: &[usize], random: &mut Random) -> Tensor {
    let count = dims.iter().product();
    let one = |_| (random.unit() as f32 - 0.5) * 0.5;
    Tensor::from_vec(dims, (0..count).map(one).collect()).unwrap()
}

#[test]
fn all_nodes_of_a_step_of_training_have_kernels() {
    let mut random = Random::new(5);
    for (op, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let mut model = text::parse(&format!(
            "opset 17 graph net(x: f32[N,6,5], w: f32[1,{rows},5], r: f32[1,{rows},8],
                b: f32[1,{both}], v: f32[8,4]) -> (y) {{
                turned = Transpose(x) {{perm=[1,0,2]}}
                all, last = {op}(turned, w, r, b) {{hidden_size=8}}
                axis: i64[1] = {{0}}
                state = Squeeze(last, axis)
                y = MatMul(state, v)
            }}",
            rows = gates * 8,
            both = gates * 16,
        ))
        .unwrap();
        let graph = &mut model.graph;
        for (v, name) in graph
            .inputs
            .split_off(1)
            .into_iter()
            .zip(["w", "r", "b", "v"])
        {
            let dims = graph.value(v).tensor_type().unwrap().shape.clone();
            let tensor = floats(&dims.unwrap().known().unwrap(), &mut random);
            let constant = graph.add_constant(&format!("{name}c"), tensor);
            graph.replace_uses(v, constant);
        }
        let mut draft = Draft::new(&model, &draft::Options::default()).unwrap();
        let loss = losses::find("cross-entropy").unwrap();
        draft.add_term(loss, 1.0, &Request::default()).unwrap();
        let training = draft.finish().unwrap();
        let mut fed = vec![
            ("x".to_owned(), floats(&[3, 6, 5], &mut random)),
            (
                "labels".to_owned(),
                Tensor::from_vec(&[3], vec![0i64, 3, 1]).unwrap(),
            ),
        ];
        fed.extend(training.initial_inputs());
        let fed: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (&n[..], t.clone())).collect();
        let mut session = Session::prepare(&training.graph, &Options::default()).unwrap();
        session.run(&fed).unwrap();
        let mut through_time = 0;
        for p in session.placements() {
            assert!(
                p.provider.is_empty() || p.provider == "cpu",
                "{op}: {}",
                p.op
            );
            if p.op == format!("{op}Grad") {
                assert_eq!(p.kernel, "through time: by gates that were kept", "{op}");
                through_time += 1;
            }
        }
        assert_eq!(through_time, 1, "{op}");
    }
}
