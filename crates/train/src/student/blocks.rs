//! Blocks that repeat along the residual stream.

use std::collections::HashMap;
use std::fmt::Write;

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Graph, Model, NodeId, Result, Tensor, ValueId};

use super::stream;

/// Blocks of one form, each on the result of the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What the first block takes, then the result of each block.
    pub values: Vec<ValueId>,
}

impl Run {
    /// The number of blocks.
    pub fn count(&self) -> usize {
        self.values.len() - 1
    }
}

/// What stands between two values of the stream.
struct Segment {
    /// What it computes, written so that equal texts are equal computations but for their weights.
    form: String,
    /// It adds something to what it takes.
    is_residual: bool,
}

/// Every run of two blocks or more: a block begins with a part that adds to what it takes, has the
/// same operators and weights of the same shapes as the next, and gives what it takes in shape.
///
/// # Errors
/// When the graph has a cycle or its types cannot be inferred.
pub fn runs(model: &Model) -> Result<Vec<Run>> {
    let graph = &model.graph;
    let inferred = infer::infer(model, &[])?;
    let order = graph.order()?;
    let cuts = stream::cuts(model)?;
    let segments: Vec<Segment> = cuts
        .windows(2)
        .map(|pair| segment(graph, &order, pair[0], pair[1]))
        .collect();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < segments.len() {
        match repeated(&segments, &cuts, &inferred, at) {
            Some((period, count)) => {
                let values = (0..=count).map(|i| cuts[at + i * period]);
                runs.push(Run {
                    values: values.collect(),
                });
                at += period * count;
            }
            None => at += 1,
        }
    }
    Ok(runs)
}

/// The length of a block that begins here, and how often it stands behind itself: of all lengths
/// the one that goes farthest, the shortest of these.
fn repeated(
    segments: &[Segment],
    cuts: &[ValueId],
    inferred: &Inferred,
    at: usize,
) -> Option<(usize, usize)> {
    if !segments[at].is_residual {
        return None;
    }
    let rest = &segments[at..];
    let mut best: Option<(usize, usize)> = None;
    for period in 1..=rest.len() / 2 {
        let same = rest.iter().zip(&rest[period..]);
        let same = same.take_while(|(a, b)| a.form == b.form).count();
        let count = same / period + 1;
        let farthest = best.map_or(0, |(p, c)| p * c);
        let keeps_shape = || same_shape(inferred, cuts[at], cuts[at + period]);
        if count > 1 && count * period > farthest && keeps_shape() {
            best = Some((period, count));
        }
    }
    best
}

fn same_shape(inferred: &Inferred, a: ValueId, b: ValueId) -> bool {
    let (Some(a), Some(b)) = (inferred.tensor(a), inferred.tensor(b)) else {
        return false;
    };
    match (&a.shape, &b.shape) {
        (Some(x), Some(y)) => a.dtype == b.dtype && x.unify(y).is_some(),
        _ => false,
    }
}

fn segment(graph: &Graph, order: &[NodeId], from: ValueId, to: ValueId) -> Segment {
    let nodes = stream::between(graph, order, from, to);
    let places: HashMap<NodeId, usize> = nodes.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut form = String::new();
    for &id in &nodes {
        let node = graph.node(id);
        let _ = write!(form, "{}.{} {:?} (", node.domain, node.op, node.attributes);
        for v in node.inputs() {
            form.push_str(&operand(graph, &places, from, *v));
            form.push(',');
        }
        form.push_str(");");
    }
    let adds = graph.producer_is(to, "Add");
    let is_residual = adds.is_some_and(|id| graph.node(id).inputs().contains(&Some(from)));
    Segment { form, is_residual }
}

/// An operand: what the segment takes, a node's result by the node's place, or a constant by its
/// shape, and by its numbers where they are no weights.
fn operand(
    graph: &Graph,
    places: &HashMap<NodeId, usize>,
    from: ValueId,
    v: Option<ValueId>,
) -> String {
    let Some(v) = v else {
        return "none".into();
    };
    if v == from {
        return "x".into();
    }
    let value = graph.value(v);
    if let Some((place, output)) = value
        .producer()
        .and_then(|(id, o)| Some((places.get(&id)?, o)))
    {
        return format!("{place}.{output}");
    }
    match graph.constant(v) {
        Some(data) if is_weight(data) => format!("{}", data.ty()),
        Some(data) => format!("{} {:?}", data.ty(), data.bytes()),
        None => format!("\"{}\"", value.name),
    }
}

fn is_weight(data: &Tensor) -> bool {
    data.dtype().is_float() && data.count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{self, Spec};

    fn counts(name: &str, spec: &Spec) -> Vec<usize> {
        let model = (architectures::find(name).unwrap().build)(spec).unwrap();
        runs(&model).unwrap().iter().map(Run::count).collect()
    }

    #[test]
    fn layers_of_encoders_and_equal_blocks_of_residual_networks_are_found() {
        let image = Spec {
            input: "x".into(),
            dims: vec![3, 16, 16],
            classes: 4,
            ..Spec::default()
        };
        let text = Spec {
            input: "input_ids".into(),
            dims: vec![6],
            vocabulary: Some(20),
            classes: 2,
            seed: 0,
        };
        assert_eq!(counts("encoder-4", &text), [4]);
        assert_eq!(counts("resnet-20", &image), [3, 2, 2]);
        assert_eq!(counts("resnet-8", &image), Vec::<usize>::new());
        assert_eq!(counts("small-cnn", &image), Vec::<usize>::new());
    }
}
