//! A new last layer: what makes a classifier of a network that gives features.

use edgesmith_ir::types::Dim;
use edgesmith_ir::{Attribute, DType, Error, Model, Node, Result, Tensor, ValueId, infer};

use edgesmith_ir::random::Random;

/// A model whose only output are the scores of `classes` classes, by a linear layer behind the
/// first output of `model`, or the value `from`: features of each sample as they are, the mean of
/// words or of pixels otherwise. Words that `attention_mask` masks do not count.
///
/// # Errors
/// When there is no such value, or its shape is not known.
pub fn with_head(model: &Model, from: Option<&str>, classes: usize, seed: u64) -> Result<Model> {
    let mut model = model.clone();
    let features = match from {
        Some(name) => model
            .graph
            .find_value(name)
            .ok_or_else(|| Error::usage(format!("the model has no value \"{name}\"")))?,
        None => *model
            .graph
            .outputs
            .first()
            .ok_or_else(|| Error::invalid("the model has no output"))?,
    };
    let inferred = infer::infer(&model, &[])?;
    let shape = inferred.tensor(features).and_then(|t| t.shape.clone());
    let shape =
        shape.ok_or_else(|| Error::unsupported("the shape of the features is not known"))?;
    if inferred.tensor(features).map(|t| t.dtype) != Some(DType::F32) || classes == 0 {
        return Err(Error::unsupported(
            "a head is of f32 features and at least one class",
        ));
    }
    let dims: Vec<Option<usize>> = shape.iter().map(Dim::known).collect();
    let (pooled, width) = match dims[..] {
        [_, Some(width)] => (features, width),
        [_, _, Some(width)] => (mean_of_words(&mut model, features)?, width),
        [_, Some(width), _, _] => (mean_of_pixels(&mut model, features), width),
        _ => {
            return Err(Error::unsupported(format!("features of {shape} have no width"))
                .hint("features are [batch, width], [batch, words, width] or [batch, channels, height, width]"));
        }
    };
    let graph = &mut model.graph;
    let mut random = Random::of(&[seed, 0x4EAD]);
    // Small numbers, so that the first answers say nothing yet.
    let data = (0..classes * width)
        .map(|_| (random.normal() * 0.02) as f32)
        .collect();
    let name = graph.fresh_name("head.weight");
    let weight = graph.add_constant(&name, Tensor::from_vec(&[classes, width], data)?);
    let name = graph.fresh_name("head.bias");
    let bias = graph.add_constant(&name, Tensor::vector(vec![0f32; classes]));
    let node = Node::new("Gemm", "head").with("transB", Attribute::Int(1));
    let logits = graph.add_op(node, &[pooled, weight, bias], "logits");
    graph.outputs = vec![logits];
    edgesmith_passes::optimize(
        &mut model,
        edgesmith_passes::Level::Basic,
        &edgesmith_passes::RunOptions {
            only: &["remove_dead_nodes"],
            ..edgesmith_passes::RunOptions::default()
        },
    )?;
    Ok(model)
}

fn mean_of_pixels(model: &mut Model, x: ValueId) -> ValueId {
    let mean = model.graph.add_op(
        Node::new("GlobalAveragePool", "head/pool"),
        &[x],
        "head/pool",
    );
    model.graph.add_op(
        Node::new("Flatten", "head/flatten"),
        &[mean],
        "head/flatten",
    )
}

/// The mean over the second axis of what is not masked.
fn mean_of_words(model: &mut Model, x: ValueId) -> Result<ValueId> {
    let graph = &mut model.graph;
    let mask = graph
        .find_value("attention_mask")
        .filter(|&v| graph.is_input(v));
    let list = |graph: &mut edgesmith_ir::Graph, n: i64| {
        let name = graph.fresh_name("head/axis");
        graph.add_constant(&name, Tensor::vector(vec![n]))
    };
    let sum = |graph: &mut edgesmith_ir::Graph, v: ValueId, name: &str| {
        let axis = list(graph, 1);
        let node = Node::new("ReduceSum", name).with("keepdims", Attribute::Int(0));
        graph.add_op(node, &[v, axis], name)
    };
    let Some(mask) = mask else {
        let node = Node::new("ReduceMean", "head/mean")
            .with("axes", Attribute::Ints(vec![1]))
            .with("keepdims", Attribute::Int(0));
        if model.opset() >= 18 {
            return Err(Error::unsupported(
                "features of words without attention_mask are not done",
            ));
        }
        return Ok(model.graph.add_op(node, &[x], "head/mean"));
    };
    let to = Attribute::Int(i64::from(DType::F32.onnx()));
    let cast = Node::new("Cast", "head/mask").with("to", to);
    let mask = graph.add_op(cast, &[mask], "head/mask");
    let axis = list(graph, 2);
    let mask = graph.add_op(
        Node::new("Unsqueeze", "head/unsqueeze"),
        &[mask, axis],
        "head/mask",
    );
    let kept = graph.add_op(Node::new("Mul", "head/kept"), &[x, mask], "head/kept");
    let total = sum(graph, kept, "head/sum");
    let count = sum(graph, mask, "head/words");
    let name = graph.fresh_name("head/one");
    let one = graph.add_constant(&name, Tensor::scalar(1f32));
    let count = graph.add_op(Node::new("Max", "head/count"), &[count, one], "head/count");
    Ok(graph.add_op(Node::new("Div", "head/mean"), &[total, count], "head/mean"))
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text};

    use super::*;

    #[test]
    fn masked_words_do_not_count_in_the_mean() {
        let model = text::parse(
            "opset 17 graph g(x: f32[b,3,2], attention_mask: i64[b,3]) -> (y) { y = Identity(x) }",
        );
        let model = with_head(&model.unwrap(), None, 2, 1).unwrap();
        edgesmith_testkit::check(&model);
        let run = |last: f32| {
            let x = Tensor::from_vec(&[1, 3, 2], vec![1.0, 2.0, 3.0, 4.0, last, last]).unwrap();
            let mask = Tensor::from_vec(&[1, 3], vec![1i64, 1, 0]).unwrap();
            let out = eval::evaluate(&model, &[("x", x), ("attention_mask", mask)]).unwrap();
            out[0].to_f32().unwrap().to_vec()
        };
        assert_eq!(run(5.0), run(-100.0));
        assert_eq!(run(0.0).len(), 2);
    }
}
