//! What a plan knows before it runs: types for the given input shapes, and values that are the
//! same in every run of these shapes.

use edgesmith_ir::graph::ValueId;
use edgesmith_ir::infer::{Inferred, infer};
use edgesmith_ir::{
    Budget, DType, Dim, Graph, Item, Model, Node, NodeId, Result, Tensor, Type, eval, ops,
};

use crate::providers::cpu::{block_weights, float8};

/// Nodes that make more elements than this are not computed ahead of time.
const MAX_FOLDED: usize = 1 << 24;

/// A model in which shapes are numbers and values that depend on nothing else are constants.
pub(crate) struct Concrete {
    /// A copy of the model; folded nodes are gone from it.
    pub model: Model,
    /// What is known of its values.
    pub inferred: Inferred,
    /// The nodes that were folded, in order.
    pub folded: Vec<NodeId>,
}

/// Infers `model` for `inputs` and folds until nothing changes. With `keep_dequantize`,
/// DequantizeLinear stays where it is, so that integer kernels find it.
///
/// # Errors
/// When a rule or an evaluation fails; the error names the node.
pub(crate) fn concrete(
    model: &Model,
    inputs: &[(ValueId, Type)],
    keep_dequantize: bool,
    budget: &Budget,
) -> Result<Concrete> {
    let mut model = model.clone();
    for (v, ty) in inputs {
        model.graph.value_mut(*v).ty = Some(ty.clone());
    }
    // What the file says of values that nodes make may be wrong, and kernels rely on shapes.
    let made: Vec<ValueId> = model
        .graph
        .values()
        .filter(|(_, value)| value.producer().is_some())
        .map(|(v, _)| v)
        .collect();
    for v in made {
        model.graph.value_mut(v).ty = None;
    }
    let mut folded = Vec::new();
    loop {
        let inferred = infer(&model, inputs)?;
        let before = folded.len();
        for id in model.graph.order()? {
            if let Some(outputs) = fold(&model, &inferred, id, keep_dequantize, budget) {
                let made = model.graph.node(id).outputs().to_vec();
                model.graph.remove_node(id);
                for (v, t) in made.into_iter().zip(outputs) {
                    if let Some(v) = v {
                        model.graph.value_mut(v).constant = Some(t);
                    }
                }
                folded.push(id);
            }
        }
        if folded.len() == before {
            return Ok(Concrete {
                model,
                inferred,
                folded,
            });
        }
    }
}

/// The outputs of a node that are the same in every run.
fn fold(
    model: &Model,
    inferred: &Inferred,
    id: NodeId,
    keep_dequantize: bool,
    budget: &Budget,
) -> Option<Vec<Tensor>> {
    let graph = &model.graph;
    let node = graph.node(id);
    let def = ops::find(&node.domain, &node.op)?;
    if node.subgraphs().next().is_some() || !def.deterministic || model.function(node).is_some() {
        return None;
    }
    let known: Option<Vec<Tensor>> = node
        .outputs()
        .iter()
        .map(|v| from_contents(inferred, (*v)?))
        .collect();
    if known.is_some() || (node.is("DequantizeLinear") && keeps(graph, node, keep_dequantize)) {
        return known;
    }
    let inputs: Option<Vec<Option<Item>>> = node
        .inputs()
        .iter()
        .map(|v| match v {
            Some(v) => Some(Some(graph.constant(*v)?.clone().into())),
            None => Some(None),
        })
        .collect();
    let inputs = inputs?;
    let small = node.outputs().iter().flatten().all(|v| {
        let count = |d: smallvec::SmallVec<[usize; 6]>| d.iter().product::<usize>();
        inferred.dims(*v).is_none_or(|d| count(d) <= MAX_FOLDED)
    });
    if !small {
        return None;
    }
    let outputs =
        eval::evaluate_tensors(&eval::EvalCx::new(model, node, &inputs).under(budget)).ok()?;
    (outputs.len() >= node.outputs().len()).then_some(outputs)
}

/// Whether a DequantizeLinear stays, for the kernels that read it.
fn keeps(graph: &Graph, node: &Node, all: bool) -> bool {
    match node.input(0).and_then(|v| graph.constant(v)) {
        Some(data) if float8::is_float8(data.dtype()) => float8::keeps(graph, node),
        Some(data) => all || block_weights::keeps_few_bits(data, node),
        None => all,
    }
}

/// The tensor of a value whose integers inference knows.
fn from_contents(inferred: &Inferred, v: ValueId) -> Option<Tensor> {
    let dims = inferred.dims(v)?;
    let contents = inferred.contents[v.index()].as_ref()?;
    let numbers: Vec<i64> = contents
        .iter()
        .map(|d| match d {
            Dim::Known(n) => i64::try_from(*n).ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    match inferred.tensor(v)?.dtype {
        DType::I64 => Tensor::from_vec(&dims, numbers).ok(),
        DType::I32 => {
            let small: Option<Vec<i32>> = numbers.iter().map(|&n| i32::try_from(n).ok()).collect();
            Tensor::from_vec(&dims, small?).ok()
        }
        _ => None,
    }
}
