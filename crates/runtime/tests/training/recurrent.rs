//! Recurrent operators with weights that are computed or constant, samples of any lengths, and their gradients.

use edgesmith_ir::{DType, Model, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

use super::{SUMS, agrees, example, model, one_agrees};

/// Operators, gates of each, states of each, and attributes.
const CELLS: [(&str, usize, usize, &str); 6] = [
    ("LSTM", 4, 2, ""),
    ("GRU", 3, 1, ""),
    ("GRU", 3, 1, ", linear_before_reset=1"),
    ("RNN", 1, 1, ""),
    ("RNN", 1, 1, "relu"),
    ("RNN", 1, 1, "sigmoid"),
];

/// Widths of input and state, steps, samples.
const SIZES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [3, 5, 4, 3],
    [4, 16, 3, 2],
    [2, 17, 5, 1],
    [7, 33, 6, 9],
    [5, 1, 3, 4],
    [20, 40, 9, 33],
];

/// The parts of a use of a cell: its inputs from X to the initial states, and its attributes.
struct Use {
    inputs: Vec<String>,
    attributes: String,
    /// `[directions, samples, width]`.
    state: String,
    /// As the outputs of all steps.
    all: String,
}

/// A use with bias, lengths and states or without.
fn some_use(
    rng: &mut Rng,
    (op, gates, states, more): (&str, usize, usize, &str),
    [input, n, steps, batch]: [usize; 4],
    direction: &str,
    lengths: Option<&str>,
) -> Use {
    let d = if direction == "bidirectional" { 2 } else { 1 };
    let state = format!("f32[{d},{batch},{n}]");
    let mut inputs = vec![
        format!("f32[{steps},{batch},{input}]"),
        format!("f32[{d},{},{input}]", gates * n),
        format!("f32[{d},{},{n}]", gates * n),
    ];
    let mut maybe = |text: String| match rng.below(3) {
        0 => "_".to_owned(),
        _ => text,
    };
    inputs.push(maybe(format!("f32[{d},{}]", 2 * gates * n)));
    inputs.push(lengths.unwrap_or("_").to_owned());
    (0..states).for_each(|_| inputs.push(maybe(state.clone())));
    let more = match (op, more) {
        ("RNN", "") | (_, "") => String::new(),
        ("RNN", f) => format!(", activations=[{}]", vec![format!("\"{f}\""); d].join(",")),
        (_, more) => more.to_owned(),
    };
    Use {
        inputs,
        attributes: format!("{{direction=\"{direction}\"{more}}}"),
        state,
        all: format!("f32[{steps},{d},{batch},{n}]"),
    }
}

/// Lengths of samples: none, constant or fed, with one of each end.
fn some_lengths(rng: &mut Rng, [_, _, steps, batch]: [usize; 4]) -> Option<String> {
    match rng.below(3) {
        0 => None,
        1 => {
            let each: Vec<String> = (0..batch)
                .map(|_| rng.below(steps + 1).to_string())
                .collect();
            Some(format!("i32[{batch}]{{{}}}", each.join(",")))
        }
        _ => Some(format!("i32[{batch}]")),
    }
}

/// An example whose fed integers are lengths of up to `steps`, and whose weights of the state are no
/// larger than keeps what is rounded from growing step by step.
fn fed(line: &str, steps: usize, rng: &mut Rng) -> (Model, Vec<(String, Tensor)>) {
    let (model, mut inputs) = example(line, rng);
    for (name, tensor) in &mut inputs {
        if name == "x2" {
            let most = 1.0 / (tensor.dims()[2] as f32).sqrt();
            *tensor = rng.floats(tensor.dims(), -most, most);
        }
        if tensor.dtype() == DType::I32 {
            let batch = tensor.dims()[0];
            let mut any: Vec<i32> = (0..batch).map(|_| rng.below(steps + 1) as i32).collect();
            any[0] = 0;
            any[batch - 1] = steps as i32;
            *tensor = Tensor::from_vec(&[batch], any).unwrap();
        }
    }
    (model, inputs)
}

/// Makes inputs 1 to 3 of the one node constants, where they are fed.
fn with_constant_weights(model: &mut Model, inputs: &mut Vec<(String, Tensor)>) {
    let (_, node) = model.graph.nodes().next().unwrap();
    let weights: Vec<_> = (1..4).filter_map(|i| node.input(i)).collect();
    for v in weights {
        let name = model.graph.value(v).name.clone();
        let at = inputs.iter().position(|(n, _)| *n == name).unwrap();
        let (_, tensor) = inputs.remove(at);
        let constant = model.graph.add_constant(&format!("{name}c"), tensor);
        model.graph.replace_uses(v, constant);
        model.graph.inputs.retain(|&i| i != v);
    }
}

#[test]
fn recurrent_cells_of_any_lengths_agree_with_weights_of_either_kind() {
    let mut rng = Rng::new(61);
    for cell in CELLS {
        for direction in ["forward", "reverse", "bidirectional"] {
            for size in SIZES {
                let lengths = some_lengths(&mut rng, size);
                let one = some_use(&mut rng, cell, size, direction, lengths.as_deref());
                let outputs = 1 + rng.below(cell.2 + 1);
                let line = format!(
                    "{}({}) {} -> {outputs}",
                    cell.0,
                    one.inputs.join(", "),
                    one.attributes
                );
                let (mut model, mut inputs) = fed(&line, size[2], &mut rng);
                agrees(&line, &model, &inputs, SUMS);
                with_constant_weights(&mut model, &mut inputs);
                agrees(&format!("constant: {line}"), &model, &inputs, SUMS);
            }
        }
    }
    for functions in ["\"HardSigmoid\",\"Tanh\"", "\"LeakyRelu\",\"HardSigmoid\""] {
        let line = format!(
            "RNN(f32[4,3,5], f32[2,6,5], f32[2,6,6], f32[2,12]) {{direction=\"bidirectional\",\
             activations=[{functions}],activation_alpha=[0.3,0.15],activation_beta=[0.4,0.45]}} -> 2"
        );
        one_agrees(&line, &mut rng);
    }
}

#[test]
fn gradients_through_time_agree() {
    let mut rng = Rng::new(62);
    for cell in CELLS {
        for direction in ["forward", "reverse", "bidirectional"] {
            for size in SIZES {
                let lengths = some_lengths(&mut rng, size);
                let mut one = some_use(&mut rng, cell, size, direction, lengths.as_deref());
                // Gradients of initial states where there are such, up to the first that is left out.
                let states = one.inputs[5..].iter().take_while(|i| *i != "_").count();
                let outputs = 1 + rng.below(4 + states);
                if cell.0 == "LSTM" {
                    one.inputs.push("_".into());
                }
                let slopes = [&one.all, &one.state, &one.state];
                for slope in &slopes[..=cell.2] {
                    let slope = if rng.below(3) == 0 { "_" } else { slope };
                    one.inputs.push(slope.to_owned());
                }
                let line = format!(
                    "edgesmith.{}Grad({}) {} -> {outputs}",
                    cell.0,
                    one.inputs.join(", "),
                    one.attributes
                );
                let (model, inputs) = fed(&line, size[2], &mut rng);
                agrees(&line, &model, &inputs, SUMS);
            }
        }
    }
}

#[test]
fn gradients_that_are_wanted_alone_agree() {
    let mut rng = Rng::new(63);
    for outputs in [
        "_, dw",
        "dx, _, dr",
        "_, _, _, db",
        "_, _, _, _, dh",
        "_, _, _, _, _, dc",
        "_, dw, dr, db, _, dc",
    ] {
        let made = outputs.replace("_, ", "");
        let body = format!(
            "opset 17 graph g(x: f32[5,3,4], w: f32[1,28,4], r: f32[1,28,7], b: f32[1,56],
                h: f32[1,3,7], c: f32[1,3,7], d: f32[5,1,3,7], e: f32[1,3,7]) -> ({made}) {{
                {outputs} = edgesmith.LSTMGrad(x, w, r, b, _, h, c, _, d, _, e)
            }}"
        );
        let (graph, inputs) = model(&body, &mut rng);
        agrees(outputs, &graph, &inputs, SUMS);
    }
}

#[test]
fn a_step_forward_and_back_agrees_and_so_does_one_that_is_computed_again() {
    let mut rng = Rng::new(64);
    for (op, gates, more) in [
        ("LSTM", 4, ""),
        ("GRU", 3, ""),
        ("GRU", 3, "linear_before_reset=1, "),
        ("RNN", 1, ""),
    ] {
        for direction in ["forward", "bidirectional"] {
            let (d, rows) = (if direction == "forward" { 1 } else { 2 }, gates * 9);
            let attributes = format!("{{{more}direction=\"{direction}\"}}");
            let (given, states) = match op {
                "LSTM" => ("h, c", "h, c, _"),
                _ => ("h", "h"),
            };
            let body = format!(
                "opset 17 graph g(x: f32[4,6,5], w: f32[{d},{rows},5], r: f32[{d},{rows},9],
                    h: f32[{d},6,9], c: f32[{d},6,9]) -> (y, dx, dw, dr, db, e, ew) {{
                    l: i32[6] = {{4,0,1,4,3,2}}
                    y, s = {op}(x, w, r, _, l, {given}) {attributes}
                    p = Tanh(y)
                    dx, dw, dr, db = edgesmith.{op}Grad(x, w, r, _, l, {states}, p, s) {attributes}
                    again, _ = {op}(dx, w, r, _, l, {given}) {attributes}
                    same, _ = {op}(dx, w, r, _, l, {given}) {attributes}
                    e = Add(again, same)
                    _, ew = edgesmith.{op}Grad(dx, w, r, _, l, {states}, e) {attributes}
                }}"
            );
            let (graph, mut inputs) = model(&body, &mut rng);
            inputs[2].1 = rng.floats(&[d, rows, 9], -0.3, 0.3);
            agrees(&body, &graph, &inputs, SUMS);
            let session = Session::prepare(&graph, &Options::default()).unwrap();
            let gradients = session
                .placements()
                .iter()
                .filter(|p| p.op.ends_with("Grad"));
            for gradient in gradients {
                assert_eq!(gradient.kernel, "through time: by gates that were kept");
            }
        }
    }
}
