//! What training graphs are made of runs on kernels, and gives the answers of the reference.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

mod computed;
mod grids;
mod images;
mod recurrent;
mod rows;

use edgesmith_ir::{DType, Model, Tensor, eval, text};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::{Rng, Tolerance, difference};

/// Sums of many products in another order.
const SUMS: Tolerance = Tolerance {
    relative: 1e-5,
    absolute: 1e-5,
};

/// The model and inputs of an example of one node, whose floats are any.
fn example(line: &str, rng: &mut Rng) -> (Model, Vec<(String, Tensor)>) {
    let (model, inputs) = text::example(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let named = model.graph.inputs.iter().zip(inputs);
    let fed = named.map(|(&v, t)| {
        let name = model.graph.value(v).name.clone();
        match t.dtype() {
            DType::F32 => (name, rng.floats(t.dims(), -1.0, 1.0)),
            _ => (name, t),
        }
    });
    let fed = fed.collect();
    (model, fed)
}

/// Attributes of a window over two axes, and lengths of an input that has at least one output.
fn window(rng: &mut Rng, kernel: [usize; 2]) -> (String, [usize; 2]) {
    let (attributes, input, _) = windows(rng, kernel, 2);
    (attributes, input)
}

/// As [`window`], with pads of at most `most` and the lengths of the output.
fn windows(rng: &mut Rng, kernel: [usize; 2], most: usize) -> (String, [usize; 2], [usize; 2]) {
    let mut two = |low, high| [rng.between(low, high), rng.between(low, high)];
    let (stride, dilation) = (two(1, 2), two(1, 2));
    let (begin, end, more) = (two(0, most), two(0, most), two(0, 8));
    let reach = [0, 1].map(|i| dilation[i] * (kernel[i] - 1) + 1);
    let input = [0, 1].map(|i| reach[i] + more[i]);
    let padded = |i: usize| input[i] + begin[i] + end[i];
    let output = [0, 1].map(|i| (padded(i) - reach[i]) / stride[i] + 1);
    let pads = format!("{},{},{},{}", begin[0], begin[1], end[0], end[1]);
    let attributes = format!("pads=[{pads}], strides={stride:?}, dilations={dilation:?}");
    (attributes, input, output)
}

/// A model in text form, and floats for its inputs.
fn model(body: &str, rng: &mut Rng) -> (Model, Vec<(String, Tensor)>) {
    let model = text::parse(body).unwrap_or_else(|e| panic!("{body}: {e}"));
    let inputs = model.graph.inputs.iter().map(|&v| {
        let value = model.graph.value(v);
        let dims = value.tensor_type().unwrap().shape.as_ref().unwrap();
        let dims = dims.known().unwrap();
        (value.name.clone(), rng.floats(&dims, -1.0, 1.0))
    });
    let inputs = inputs.collect();
    (model, inputs)
}

/// Runs the model on kernels alone, in one piece, on one thread and on two, which give the same
/// bytes; and compares with the reference.
#[track_caller]
fn agrees(what: &str, model: &Model, inputs: &[(String, Tensor)], tolerance: Tolerance) {
    let found = on_kernels(what, model, inputs);
    let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
    let expected = eval::evaluate(model, &fed).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        if let Some(how) = difference(found, expected, tolerance) {
            panic!("{what}: output {i}: {how}");
        }
    }
}

/// The outputs of the model by kernels alone.
#[track_caller]
fn on_kernels(what: &str, model: &Model, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
    let mut last: Option<Vec<Tensor>> = None;
    for threads in [1, 2] {
        let options = Options {
            threads,
            ..Options::default()
        };
        let session = Session::prepare(model, &options);
        let mut session = session.unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = session.run(&fed).unwrap_or_else(|e| panic!("{what}: {e}"));
        for p in session.placements() {
            let folded = p.provider.is_empty();
            assert!(
                folded || p.provider == "cpu",
                "{what}: {} by evaluation",
                p.op
            );
        }
        if let Some(last) = &last {
            assert_eq!(last, &found, "{what}: threads change nothing");
        }
        last = Some(found);
    }
    last.unwrap_or_default()
}

/// An example agrees with the reference.
#[track_caller]
fn one_agrees(line: &str, rng: &mut Rng) {
    let (model, inputs) = example(line, rng);
    agrees(line, &model, &inputs, SUMS);
}
