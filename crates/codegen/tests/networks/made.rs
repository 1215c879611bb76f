//! Models of one layer, and random networks, quantised by the steps of recipes.

use edgesmith_compress::recipe::{Recipe, Supplies};
use edgesmith_compress::{Batch, Samples};
use edgesmith_ir::types::{Shape, TensorType};
use edgesmith_ir::{Model, NoProgress, Result, Tensor, text};
use edgesmith_passes::{Level, RunOptions};
use edgesmith_testkit::{Rng, networks};

/// Random samples of the input `x`.
struct Drawn(Vec<usize>);

const SAMPLES: usize = 12;

impl Samples for Drawn {
    fn count(&self) -> usize {
        SAMPLES
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        Box::new((0..SAMPLES).step_by(size.max(1)).map(move |first| {
            let range = first..(first + size).min(SAMPLES);
            let mut dims = self.0.clone();
            dims[0] = range.len();
            let x = Rng::new(1000 + first as u64).floats(&dims, -1.0, 1.0);
            Ok((range, vec![("x".into(), x)]))
        }))
    }
}

/// The lengths of the input for one sample.
fn dims(model: &Model) -> Vec<usize> {
    let ty = model.graph.value(model.graph.inputs[0]).tensor_type();
    let shape = ty.and_then(|t| t.shape.clone()).unwrap();
    shape.0.iter().map(|d| d.known().unwrap_or(1)).collect()
}

/// A sample.
pub fn input(model: &Model, seed: u64) -> Tensor {
    Rng::new(seed).floats(&dims(model), -1.0, 1.0)
}

/// The model for one sample, cleaned.
pub fn single(mut model: Model) -> Model {
    let v = model.graph.inputs[0];
    let ty = model.graph.value(v).tensor_type().unwrap().dtype;
    let fixed = TensorType::new(ty, Shape::fixed(&dims(&model)));
    model.graph.value_mut(v).ty = Some(fixed.into());
    edgesmith_passes::optimize(&mut model, Level::Basic, &RunOptions::default()).unwrap();
    model
}

/// The model quantised to signed bytes, for one sample; `more` is text of the step.
pub fn quantised(model: &Model, more: &str) -> Model {
    quantised_to(model, "s8", more)
}

/// The same with activations of the type `activations`.
pub fn quantised_to(model: &Model, activations: &str, more: &str) -> Model {
    let samples = Drawn(dims(model));
    let supplies = Supplies {
        samples: Some(&samples),
        ..Supplies::default()
    };
    let recipe = format!(
        "[[step]]\ndo = \"quantize\"\nto = \"int8\"\nactivations = \"{activations}\"\ninteger-outputs = true\n{more}"
    );
    let recipe = Recipe::parse("r", &recipe).unwrap();
    let (model, _) = recipe.run(model, &supplies, &NoProgress).unwrap();
    single(model)
}

/// A random network of images.
pub fn network(seed: u64) -> Model {
    quantised(&networks::images(seed), "")
}

/// A random network of images, in floats.
pub fn float_network(seed: u64) -> Model {
    single(networks::images(seed))
}

/// A random network of images, in halves.
pub fn half_network(seed: u64) -> Model {
    let recipe = Recipe::parse("r", "[[step]]\ndo = \"quantize\"\nto = \"fp16\"\n").unwrap();
    let model = single(networks::images(seed));
    let (model, _) = recipe
        .run(&model, &Supplies::default(), &NoProgress)
        .unwrap();
    single(model)
}

/// Models of one layer of floats each, by name.
pub fn float_layers() -> Vec<(String, Model)> {
    let mut all = Vec::new();
    let mut add = |name: &str, input: &str, nodes: &str| {
        all.push((
            name.to_owned(),
            single(model(input, nodes, all.len() as u64)),
        ));
    };
    let lstm = "w: f32[1,20,3] = {W60} r: f32[1,20,5] = {W100} b: f32[1,40] = {W40}";
    add(
        "lstm",
        "[7,1,3]",
        &format!("{lstm} y = LSTM(x, w, r, b) {{hidden_size=5}}"),
    );
    add(
        "lstm, last",
        "[7,1,3]",
        &format!(
            "{lstm} a, h, c = LSTM(x, w, r, b) {{hidden_size=5, direction=\"reverse\"}} y = Add(h, c)"
        ),
    );
    let gru = "w: f32[2,12,3] = {W72} r: f32[2,12,4] = {W96} b: f32[2,24] = {W48}";
    for after in [0, 1] {
        add(
            &format!("gru {after}"),
            "[6,1,3]",
            &format!(
                "{gru} y = GRU(x, w, r, b) {{hidden_size=4, direction=\"bidirectional\", linear_before_reset={after}}}"
            ),
        );
    }
    add(
        "layer norm",
        "[1,6,11]",
        "g: f32[11] = {W11} b: f32[11] = {W11} y = LayerNormalization(x, g, b)",
    );
    add(
        "resize",
        "[1,3,4,5]",
        "r: f32[0] = {} s: f32[4] = {1,1,2,1.6} m = Resize(x, r, s) {mode=\"nearest\"} y = Neg(m)",
    );
    for op in ["ReduceMean", "ReduceSum", "ReduceMax"] {
        add(
            op,
            "[1,4,5,6]",
            &format!("a: i64[2] = {{1,2}} m = {op}(x, a) y = Neg(m)"),
        );
    }
    for op in [
        "Abs",
        "Ceil",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Tanh",
        "Softmax",
    ] {
        add(
            op,
            "[1,3,17]",
            &format!("k: f32[] = {{5}} m = Mul(x, k) y = {op}(m)"),
        );
    }
    all
}

/// Convolutions one after another on an image that is larger than they are, quantised.
pub fn chain(seed: u64) -> Model {
    let mut rng = Rng::new(seed);
    let mut nodes = String::new();
    let (mut channels, mut last) = (3, "x".to_owned());
    for i in 0..5 {
        let next = format!("c{i}");
        let wide = [4, 8, 12][rng.below(3)];
        let step = 1 + rng.below(2);
        nodes += &match rng.below(4) {
            0 => format!(
                "w{i}: f32[{channels},1,3,3] = {{W{}}} {next} = Conv({last}, w{i}) {{group={channels}, \
                 pads=[1,1,1,1], strides=[{step},{step}]}} ",
                9 * channels
            ),
            1 => format!("{next} = MaxPool({last}) {{kernel_shape=[2,2], strides=[1,1]}} "),
            n => {
                let (k, pad) = if n == 2 { (1, 0) } else { (3, 1) };
                let before = channels;
                channels = wide;
                format!(
                    "w{i}: f32[{wide},{before},{k},{k}] = {{W{}}} {next} = Conv({last}, w{i}) \
                     {{pads=[{pad},{pad},{pad},{pad}]}} ",
                    wide * before * k * k
                )
            }
        };
        last = next;
    }
    nodes += &format!(
        "wl: f32[2,{channels},1,1] = {{W{}}} y = Conv({last}, wl)",
        2 * channels
    );
    quantised(&model("[n,3,29,13]", &nodes, seed), "")
}

/// A model from the text of its nodes; `W120` in braces stands for 120 random numbers, `I120` for
/// integers.
pub fn model(input: &str, nodes: &str, seed: u64) -> Model {
    let mut rng = Rng::new(seed);
    let mut source = format!("opset 20 graph net(x: f32{input}) -> (y) {{ {nodes} }}");
    while let Some(at) = source.find("{W") {
        let end = at + source[at..].find('}').unwrap();
        let count: usize = source[at + 2..end].parse().unwrap();
        let numbers: Vec<String> = (0..count)
            .map(|_| format!("{:?}", rng.uniform(-0.5, 0.5)))
            .collect();
        source.replace_range(at..=end, &format!("{{{}}}", numbers.join(",")));
    }
    while let Some(at) = source.find("{I") {
        let end = at + source[at..].find('}').unwrap();
        let count: usize = source[at + 2..end].parse().unwrap();
        let numbers: Vec<String> = (0..count)
            .map(|_| (rng.below(255) as i64 - 127).to_string())
            .collect();
        source.replace_range(at..=end, &format!("{{{}}}", numbers.join(",")));
    }
    text::parse(&source).unwrap()
}
