//! Gradients as a graph pass: reverse-mode differentiation adds, behind the loss, a node or a few
//! for each node before it, in reverse order, in the same vocabulary of operators.
//!
//! To add a rule: write it in the file of its family and add its line to the list.

use std::collections::BTreeSet;

use edgesmith_ir::error::At;
use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{DType, Error, Model, NodeId, Result, ValueId};

mod backward;
mod elements;
mod layers;
mod moves;
mod products;
mod quantised;
mod reductions;

pub use backward::Backward;

/// How the gradient of one operator is passed on.
pub struct Rule {
    /// The operator.
    pub op: &'static str,
    /// Its domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Adds the gradients of the inputs that want one.
    pub backward: fn(&mut Backward) -> Result<()>,
}

const fn rule(op: &'static str, backward: fn(&mut Backward) -> Result<()>) -> Rule {
    Rule {
        op,
        domain: "",
        backward,
    }
}

const fn microsoft(op: &'static str, backward: fn(&mut Backward) -> Result<()>) -> Rule {
    Rule {
        op,
        domain: "com.microsoft",
        backward,
    }
}

/// Nothing passes: the output does not change with the input, or in jumps only.
fn nothing(_: &mut Backward) -> Result<()> {
    Ok(())
}

/// The rules, by domain, then by name.
pub static RULES: &[Rule] = &[
    rule("Abs", elements::by_input),
    rule("Acos", elements::by_input),
    rule("Acosh", elements::by_input),
    rule("Add", elements::add),
    rule("Asin", elements::by_input),
    rule("Asinh", elements::by_input),
    rule("Atan", elements::by_input),
    rule("Atanh", elements::by_input),
    rule("AveragePool", layers::pool),
    rule("BatchNormalization", layers::batch_norm),
    rule("Cast", elements::cast),
    rule("Ceil", nothing),
    rule("Celu", elements::by_input),
    rule("Clip", elements::clip),
    rule("Concat", moves::concat),
    rule("Conv", layers::conv),
    rule("ConvTranspose", layers::conv_transpose),
    rule("Cos", elements::by_input),
    rule("Cosh", elements::by_input),
    rule("CumSum", reductions::cumulate),
    rule("DepthToSpace", moves::moved),
    rule("DequantizeLinear", quantised::dequantize),
    rule("Div", elements::div),
    rule("Dropout", moves::dropout),
    rule("Elu", elements::by_input),
    rule("Erf", elements::by_input),
    rule("Exp", elements::by_output),
    rule("Expand", moves::expand),
    rule("Flatten", moves::reshaped),
    rule("Floor", nothing),
    rule("Gather", moves::moved),
    rule("GatherElements", moves::moved),
    rule("GatherND", moves::moved),
    rule("Gelu", elements::by_input),
    rule("Gemm", products::gemm),
    rule("GlobalAveragePool", layers::pool),
    rule("GlobalMaxPool", layers::pool),
    rule("GroupNormalization", layers::norm),
    rule("HardSigmoid", elements::by_input),
    rule("HardSwish", elements::by_input),
    rule("Identity", moves::same),
    rule("InstanceNormalization", layers::norm),
    rule("LayerNormalization", layers::norm),
    rule("LeakyRelu", elements::by_input),
    rule("Log", elements::by_input),
    rule("LogSoftmax", elements::by_output),
    rule("MatMul", products::matmul),
    rule("Max", elements::extreme),
    rule("MaxPool", layers::pool),
    rule("Mean", elements::mean),
    rule("Min", elements::extreme),
    rule("Mish", elements::by_input),
    rule("Mul", elements::mul),
    rule("Neg", elements::neg),
    rule("NegativeLogLikelihoodLoss", layers::loss),
    rule("PRelu", elements::prelu),
    rule("Pad", moves::moved),
    rule("Pow", elements::pow),
    rule("QuantizeLinear", quantised::quantize),
    rule("RMSNormalization", layers::norm),
    rule("Reciprocal", elements::by_output),
    rule("ReduceL1", reductions::l1),
    rule("ReduceL2", reductions::l2),
    rule("ReduceLogSumExp", reductions::log_sum_exp),
    rule("ReduceMax", reductions::extreme),
    rule("ReduceMean", reductions::mean),
    rule("ReduceMin", reductions::extreme),
    rule("ReduceSum", reductions::sum),
    rule("ReduceSumSquare", reductions::sum_square),
    rule("Relu", elements::by_output),
    rule("Reshape", moves::reshaped),
    rule("Round", nothing),
    rule("Selu", elements::by_input),
    rule("Sigmoid", elements::by_output),
    rule("Sign", nothing),
    rule("Sin", elements::by_input),
    rule("Sinh", elements::by_input),
    rule("Slice", moves::moved),
    rule("Softmax", elements::by_output),
    rule("SoftmaxCrossEntropyLoss", layers::loss),
    rule("Softplus", elements::by_input),
    rule("Softsign", elements::by_input),
    rule("SpaceToDepth", moves::moved),
    rule("Split", moves::split),
    rule("Sqrt", elements::by_output),
    rule("Squeeze", moves::reshaped),
    rule("Sub", elements::sub),
    rule("Sum", elements::sum),
    rule("Swish", elements::by_input),
    rule("Tan", elements::by_input),
    rule("Tanh", elements::by_output),
    rule("ThresholdedRelu", elements::by_input),
    rule("Tile", moves::moved),
    rule("Transpose", moves::transpose),
    rule("Trilu", moves::trilu),
    rule("Unsqueeze", moves::reshaped),
    rule("Where", elements::choose),
    microsoft("FusedMatMul", products::fused),
    microsoft("Gelu", elements::by_input),
];

/// The rule of an operator.
pub fn find(domain: &str, op: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.domain == domain && r.op == op)
}

/// Adds nodes to the main graph that compute the gradients of `loss` with respect to `wanted`,
/// values of that graph: inputs, constants or computed ones. One gradient for each, in order;
/// `None` where the loss does not depend on the value. They are no outputs yet.
///
/// `loss` is one number of a floating-point type. The rules are those of opset 13 and later.
///
/// # Errors
/// When the loss is no single number, or a value on the way has no rule: it is named.
pub fn differentiate(
    model: &mut Model,
    loss: ValueId,
    wanted: &[ValueId],
) -> Result<Vec<Option<ValueId>>> {
    if model.opset() < 13 {
        return Err(Error::unsupported(format!(
            "gradients of opset {} are not done",
            model.opset()
        ))
        .hint("convert the model to opset 13 or later"));
    }
    let inferred = infer::infer(model, &[])?;
    let dtype = inferred.tensor(loss).map(|t| t.dtype);
    let one = match (dtype, inferred.dims(loss)) {
        (Some(d), Some(dims)) if d.is_float() && dims.iter().product::<usize>() == 1 => {
            backward::number(d, &dims, 1.0)?
        }
        _ => {
            let name = &model.graph.value(loss).name;
            return Err(Error::invalid("a loss is one number").at(format!("value \"{name}\"")));
        }
    };
    let order = model.graph.order()?;
    let depends = dependents(model, &inferred, &order, wanted);
    let mut gradients: Vec<Vec<ValueId>> = vec![Vec::new(); model.graph.value_slots()];
    if depends.contains(&loss) {
        let name = model.graph.fresh_name("loss_grad");
        gradients[loss.index()].push(model.graph.add_constant(&name, one));
    }
    for &id in order.iter().rev() {
        pass_back(model, &inferred, &depends, id, &mut gradients)?;
    }
    Ok(wanted
        .iter()
        .map(|&v| backward::total(&mut model.graph, &mut gradients[v.index()]))
        .collect())
}

/// The floating-point values that change with one of `wanted`, and the integers of
/// quantisation among them.
fn dependents(
    model: &Model,
    inferred: &Inferred,
    order: &[NodeId],
    wanted: &[ValueId],
) -> BTreeSet<ValueId> {
    let mut depends: BTreeSet<ValueId> = wanted.iter().copied().collect();
    for &id in order {
        let node = model.graph.node(id);
        let captures = node.subgraphs().flat_map(|g| g.captures.iter());
        let mut read = node.inputs().iter().flatten().copied();
        let touched = read.any(|v| depends.contains(&v))
            || captures.map(|c| c.outer).any(|v| depends.contains(&v));
        let moves = |v: &ValueId| {
            let dtype = inferred.tensor(*v).map(|t| t.dtype);
            dtype.is_none_or(DType::is_float) || node.is("QuantizeLinear")
        };
        if touched {
            depends.extend(node.outputs().iter().flatten().filter(|v| moves(v)));
        }
    }
    depends
}

/// Hands the gradients of a node's outputs on to its inputs.
fn pass_back(
    model: &mut Model,
    inferred: &Inferred,
    depends: &BTreeSet<ValueId>,
    id: NodeId,
    gradients: &mut [Vec<ValueId>],
) -> Result<()> {
    let node = model.graph.node(id).clone();
    let outputs = node.outputs().to_vec();
    let mut made = Vec::with_capacity(outputs.len());
    for v in &outputs {
        let own = v.map(|v| &mut gradients[v.index()]);
        made.push(own.and_then(|own| backward::total(&mut model.graph, own)));
    }
    let wants: Vec<bool> = node
        .inputs()
        .iter()
        .map(|v| v.is_some_and(|v| depends.contains(&v)))
        .collect();
    let captured = node
        .subgraphs()
        .any(|g| g.captures.iter().any(|c| depends.contains(&c.outer)));
    if made.iter().all(Option::is_none) || !(wants.contains(&true) || captured) {
        return Ok(());
    }
    let rule = find(&node.domain, &node.op).ok_or_else(|| {
        let value = outputs.iter().flatten().next();
        let value = value.map_or("", |&v| &model.graph.value(v).name);
        Error::unsupported(format!(
            "the value \"{value}\" has no gradient: there is no rule for {}",
            node.op
        ))
        .hint("train values behind it only, or write the model without this operator")
        .at(node.place())
    })?;
    let mut cx = Backward::new(model, inferred, node, &made, wants);
    (rule.backward)(&mut cx).at(|| cx.place())?;
    for (v, g) in cx.finish() {
        gradients[v.index()].push(g);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_by_domain_and_name_and_name_known_operators() {
        let key = |r: &Rule| (r.domain, r.op);
        assert!(RULES.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        for r in RULES {
            assert!(
                edgesmith_ir::ops::find(r.domain, r.op).is_some(),
                "{}",
                r.op
            );
        }
    }
}
