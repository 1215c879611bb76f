//! Weights drawn anew: a network of the same form that has learned nothing.

use edgesmith_ir::analysis::{PRUNED, quantised};
use edgesmith_ir::pattern::matches;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Model, Node, Result, Tensor};

use crate::trainable::{self, Start};

/// The model with all parameters as they are before training, of a seed, and with running statistics
/// of means 0 and variances 1. Constants whose names are of a pattern in `keep` stay. Each parameter
/// depends on the seed and its place among all alone.
///
/// # Errors
/// When it has integer weights, or no parameters.
pub fn fresh(model: &Model, seed: u64, keep: &[String]) -> Result<Model> {
    let mut model = model.clone();
    if let Some(node) = quantised(&model) {
        let what = format!("the model is quantised: it has {}", node.op);
        return Err(Error::unsupported(what).hint("draw weights anew before it is quantised"));
    }
    let places = trainable::places(&model)?;
    if places.is_empty() {
        return Err(Error::unsupported("the model has no weights"));
    }
    let stays = |name: &str| keep.iter().any(|p| matches(p, name));
    for (i, place) in places.iter().enumerate() {
        let value = model.graph.value(place.value);
        let Some(t) = value.constant.as_ref().filter(|_| !stays(&value.name)) else {
            continue;
        };
        let node = model.graph.node(place.node);
        let dims = t.dims().to_vec();
        let mut random = Random::of(&[seed, 0xF4E5, i as u64]);
        let mut draw = drawn(place.start, fans(node, place.input, &dims), &mut random);
        let data: Vec<f32> = (0..t.count()).map(|_| draw() as f32).collect();
        let value = model.graph.value_mut(place.value);
        value.constant = Some(Tensor::from_vec(&dims, data)?);
        // What is drawn has no zeros that were pruned.
        let mark = format!("{PRUNED}{}", value.name);
        model.metadata.retain(|(key, _)| *key != mark);
    }
    let norms = model
        .graph
        .nodes()
        .filter(|(_, n)| n.is("BatchNormalization"));
    let states: Vec<_> = norms
        .flat_map(|(_, n)| [(n.input(3), 0f32), (n.input(4), 1.0)])
        .collect();
    for (v, x) in states {
        let Some(value) = v.map(|v| model.graph.value_mut(v)) else {
            continue;
        };
        if let Some(t) = value.constant.take() {
            let filled = Tensor::from_vec(t.dims(), vec![x; t.count()])?;
            value.constant = Some(if stays(&value.name) { t } else { filled });
        }
    }
    Ok(model)
}

/// The inputs of a sum and the outputs of an input of a weight, and the hidden units of a
/// recurrent one.
fn fans(node: &Node, input: usize, dims: &[usize]) -> [usize; 3] {
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let hidden = dims.last().copied().unwrap_or(1);
    let [a, b] = match dims {
        [.., a, b] => [*a, *b],
        _ => [1, product(dims)],
    };
    let pixels = product(dims.get(2..).unwrap_or_default());
    match node.op.as_str() {
        "Conv" | "FusedConv" => [product(&dims[1..]), dims[0] * pixels, hidden],
        "ConvTranspose" => [dims[0] * pixels, product(&dims[1..]), hidden],
        "Gemm" | "FusedGemm" if node.int("transB").unwrap_or(0) != 0 => [b, a, hidden],
        "RNN" | "LSTM" | "GRU" => [b, a, node.int("hidden_size").unwrap_or(1).max(1) as usize],
        _ if input == 0 => [b, a, hidden],
        _ => [a, b, hidden],
    }
}

fn drawn(
    start: Start,
    [from, to, hidden]: [usize; 3],
    random: &mut Random,
) -> Box<dyn FnMut() -> f64 + '_> {
    let bound = match start {
        Start::Filled(x) => return Box::new(move || f64::from(x)),
        Start::Table => return Box::new(|| random.normal() * 0.02),
        Start::He => (6.0 / from.max(1) as f64).sqrt(),
        Start::Glorot => (6.0 / (from + to).max(1) as f64).sqrt(),
        Start::Recurrent => 1.0 / (hidden.max(1) as f64).sqrt(),
    };
    Box::new(move || (2.0 * random.unit() - 1.0) * bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{self, Spec};

    fn network(name: &str, seed: u64) -> Model {
        let spec = Spec {
            input: "x".into(),
            dims: vec![1, 16, 16],
            classes: 4,
            seed,
            ..Spec::default()
        };
        (architectures::find(name).unwrap().build)(&spec).unwrap()
    }

    fn numbers(model: &Model, name: &str) -> Vec<f32> {
        let v = model.graph.find_value(name).unwrap();
        let t = model.graph.value(v).constant.clone().unwrap();
        t.to_f32().unwrap().into_owned()
    }

    #[test]
    fn weights_are_drawn_as_those_of_a_new_network() {
        let spread = |data: &[f32]| {
            let sum: f64 = data.iter().map(|x| f64::from(*x).powi(2)).sum();
            (sum / data.len() as f64).sqrt()
        };
        let made = network("ds-cnn", 1);
        let again = fresh(&made, 2, &[]).unwrap();
        let weights = made
            .graph
            .values()
            .filter(|(_, v)| v.name.ends_with(".weight"));
        for (_, v) in weights {
            let (a, b) = (numbers(&made, &v.name), numbers(&again, &v.name));
            assert_ne!(a, b, "{}", v.name);
            let ratio = spread(&b) / spread(&a);
            assert!((0.8..1.25).contains(&ratio), "{} {ratio}", v.name);
        }
    }

    #[test]
    fn biases_scales_and_statistics_begin_at_0_and_1() {
        let mut made = network("resnet-8", 1);
        for part in ["scale", "bias", "mean", "variance"] {
            let v = made.graph.find_value(&format!("norm2.{part}")).unwrap();
            made.graph.value_mut(v).constant = Some(Tensor::vector(vec![7f32; 16]));
        }
        let again = fresh(&made, 2, &["norm2.bias".into()]).unwrap();
        let all = |part: &str| numbers(&again, &format!("norm2.{part}"));
        assert_eq!(all("scale"), [1.0; 16]);
        assert_eq!(all("bias"), [7.0; 16], "it is kept");
        assert_eq!(all("mean"), [0.0; 16]);
        assert_eq!(all("variance"), [1.0; 16]);
    }

    #[test]
    fn the_same_seed_draws_the_same_and_what_was_does_not_matter() {
        let (a, b) = (network("lenet-5", 1), network("lenet-5", 5));
        let of = |m: &Model, seed| numbers(&fresh(m, seed, &[]).unwrap(), "conv1.weight");
        assert_eq!(of(&a, 3), of(&b, 3));
        assert_ne!(of(&a, 3), of(&a, 4));
    }
}
