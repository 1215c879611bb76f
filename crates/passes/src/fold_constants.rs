//! Computes now what is the same in every run.

use edgesmith_ir::eval::{EvalCx, evaluate_tensors, items};
use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{
    Budget, DType, Dim, Graph, Limits, Model, Node, NodeId, Result, Tensor, ValueId, ops,
};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, tensor_type};

/// Nodes whose inputs are all constant are evaluated by the reference evaluation; integers that
/// inference sees through (`Shape` of a known shape) are written down. Left alone: operators that
/// may differ from run to run, graph outputs, results that would blow up the file (over 1 MiB and
/// four times their inputs), `DequantizeLinear` and casts of large weights to wider floats, which
/// keep weights small on purpose.
pub static PASS: Pass = Pass {
    name: "fold_constants",
    about: "evaluate nodes whose inputs are all constant",
    level: Level::Basic,
    run,
};

/// A result of up to so many bytes is folded whatever its inputs are.
const SMALL: usize = 1 << 20;

/// A larger result may have so many times the bytes of its inputs.
const GROWTH: usize = 4;

/// What takes more multiply-accumulates is left to the run.
const MAX_WORK: u64 = 1 << 36;

/// A cast of narrower floats to so many bytes or more is a way to store weights.
const STORED_NARROW: usize = 4096;

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    let shell = Model {
        opsets: model.opsets.clone(),
        functions: model.functions.clone(),
        ..Model::default()
    };
    each_graph(model, cx, &mut |graph, scope| fold(graph, scope, &shell))
}

fn fold(graph: &mut Graph, scope: &mut Scope, shell: &Model) -> Result<usize> {
    if graph.nodes().next().is_none() {
        return Ok(0);
    }
    let types = scope.infer(graph)?;
    let order = graph.order()?;
    let mut editor = Editor::new(graph);
    let mut changes = 0;
    for id in order {
        let node = editor.graph.node(id);
        let outputs: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
        if outputs.is_empty() || outputs.iter().any(|&v| editor.is_output(v)) {
            continue;
        }
        let results = match evaluate(&editor, node, shell, &types) {
            Some(results) => results,
            None => match contents(node, &types) {
                Some(results) => results,
                None => continue,
            },
        };
        write(&mut editor, id, &results);
        changes += 1;
    }
    Ok(changes)
}

/// The outputs of the node, where its inputs are constant and folding them is wanted.
fn evaluate(
    editor: &Editor,
    node: &Node,
    shell: &Model,
    types: &Inferred,
) -> Option<Vec<(ValueId, Tensor)>> {
    let def = ops::find(&node.domain, &node.op)?;
    if !def.deterministic || !def.is_evaluated() || shell.function(node).is_some() {
        return None;
    }
    if node.is("DequantizeLinear") || node.subgraphs().next().is_some() {
        return None;
    }
    let mut inputs = Vec::with_capacity(node.inputs().len());
    let mut input_bytes = 0usize;
    for v in node.inputs() {
        let data = match v {
            Some(v) => Some(editor.constant(*v)?.clone()),
            None => None,
        };
        input_bytes += data.as_ref().map_or(0, Tensor::byte_len);
        inputs.push(data);
    }
    let limit = if node.is("Constant") {
        usize::MAX
    } else {
        SMALL.max(input_bytes.saturating_mul(GROWTH))
    };
    let known_bytes = |v: &ValueId| tensor_type(types, *v).and_then(|t| t.bytes());
    let expected: usize = node
        .outputs()
        .iter()
        .flatten()
        .filter_map(known_bytes)
        .sum();
    if expected > limit || stores_narrow(node, &inputs, expected) {
        return None;
    }
    let budget = Budget::new(Limits {
        bytes: limit as u64,
        steps: u64::MAX,
        work: MAX_WORK,
    });
    let inputs = items(inputs);
    let results = evaluate_tensors(&EvalCx::new(shell, node, &inputs).under(&budget)).ok()?;
    let total: usize = results.iter().map(Tensor::byte_len).sum();
    let wanted: Vec<(ValueId, Tensor)> = node
        .outputs()
        .iter()
        .enumerate()
        .filter_map(|(o, v)| Some((*v, o)).and_then(|(v, o)| Some((v?, results.get(o)?.clone()))))
        .collect();
    let all = node.outputs().iter().flatten().count() == wanted.len();
    (total <= limit && all).then_some(wanted)
}

/// A cast of many narrow floats to wider ones.
fn stores_narrow(node: &Node, inputs: &[Option<Tensor>], expected: usize) -> bool {
    let Some(Some(x)) = inputs.first() else {
        return false;
    };
    let to = node
        .int("to")
        .and_then(|t| i32::try_from(t).ok())
        .and_then(DType::from_onnx);
    node.is("Cast")
        && x.dtype().is_float()
        && to.is_some_and(|t| t.is_float() && t.bits() > x.dtype().bits())
        && expected >= STORED_NARROW
}

/// The outputs of the node, where inference knows the integers in all of them.
fn contents(node: &Node, types: &Inferred) -> Option<Vec<(ValueId, Tensor)>> {
    if !node.domain.is_empty() || node.subgraphs().next().is_some() {
        return None;
    }
    let of = |v: ValueId| -> Option<(ValueId, Tensor)> {
        let dims = types.contents.get(v.index())?.as_ref()?;
        let numbers: Vec<i64> = dims
            .iter()
            .map(|d| Dim::known(d).and_then(|n| i64::try_from(n).ok()))
            .collect::<Option<_>>()?;
        let ty = tensor_type(types, v)?;
        let shape = ty.shape.as_ref()?.known()?;
        let data = match ty.dtype {
            DType::I64 => Tensor::from_vec(&shape, numbers),
            DType::I32 => {
                let narrow: Result<Vec<i32>, _> = numbers.into_iter().map(i32::try_from).collect();
                Tensor::from_vec(&shape, narrow.ok()?)
            }
            _ => return None,
        };
        Some((v, data.ok()?))
    };
    node.outputs().iter().flatten().map(|&v| of(v)).collect()
}

fn write(editor: &mut Editor, id: NodeId, results: &[(ValueId, Tensor)]) {
    editor.graph.remove_node(id);
    for (v, data) in results {
        let value = editor.graph.value_mut(*v);
        value.ty = Some(data.ty().into());
        value.constant = Some(data.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn computed_constants_and_known_shapes_become_constants() {
        let text = "opset 17
            graph g(x: f32[2,3]) -> (y: f32[3,2], z: f32[2,3]) {
              s = Shape(x)
              at: i64[2] = {1,0}
              turned = Gather(s, at)
              y = Reshape(x, turned)
              a: f32[2] = {1,2}
              b: f32[2,1] = {3,4}
              c = Add(a, b)
              d = ReduceSum(c) {keepdims=0}
              z = Mul(x, d)
            }";
        let mut ops = left(&PASS, text);
        ops.sort();
        assert_eq!(ops, ["Mul", "Reshape"]);
    }

    #[test]
    fn quantised_weights_stay_quantised() {
        let text = "opset 17
            graph g(x: f32[1,2]) -> (y: f32[1,2]) {
              q: i8[2] = {1,2}
              s: f32[] = {0.5}
              w = DequantizeLinear(q, s)
              y = Add(x, w)
            }";
        assert_eq!(left(&PASS, text), ["DequantizeLinear", "Add"]);
    }

    #[test]
    fn results_that_would_blow_up_the_file_are_not_folded() {
        let text = "opset 17
            graph g(x: f32[1]) -> (y: f32[600,600]) {
              a: f32[1,1] = {1.5}
              n: i64[2] = {600,600}
              big = Expand(a, n)
              y = Add(x, big)
            }";
        assert_eq!(left(&PASS, text), ["Expand", "Add"]);
    }

    #[test]
    fn a_shape_with_unknown_lengths_is_not_folded() {
        let text = "opset 17
            graph g(x: f32[batch,3]) -> (y: i64[2]) {
              s = Shape(x)
              y = Neg(s)
            }";
        assert_eq!(left(&PASS, text), ["Shape", "Neg"]);
    }
}
