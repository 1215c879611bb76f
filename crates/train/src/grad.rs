//! Gradients as a graph pass: reverse-mode differentiation adds, behind the loss, a node or a few
//! for each node before it, in reverse order, in the same vocabulary of operators.
//!
//! To add a rule: write it in the file of its family and add its line to the list.

use std::collections::BTreeSet;

use edgesmith_ir::error::At;
use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{DType, Error, Model, NodeId, Result, Tensor, ValueId};

mod backward;
mod einsum;
mod elements;
mod fused;
mod layers;
mod moves;
mod names;
mod products;
mod quantised;
mod recompute;
mod recurrent;
mod reductions;
mod site;
mod unfuse;

pub use backward::Backward;
pub use quantised::STEADY_SCALE;
pub use recompute::Keep;
pub use site::Site;
pub use unfuse::{UNFUSED, Unfused};

use names::Names;

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
    rule("CastLike", elements::cast),
    rule("Ceil", nothing),
    rule("Celu", elements::by_input),
    rule("CenterCropPad", moves::moved),
    rule("Clip", elements::clip),
    rule("Col2Im", moves::moved),
    rule("Compress", moves::moved),
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
    rule("Einsum", einsum::einsum),
    rule("Elu", elements::by_input),
    rule("Erf", elements::by_input),
    rule("Exp", elements::by_output),
    rule("Expand", moves::expand),
    rule("Flatten", moves::reshaped),
    rule("Floor", nothing),
    rule("GRU", recurrent::of_one_state),
    rule("Gather", moves::moved),
    rule("GatherElements", moves::moved),
    rule("GatherND", moves::moved),
    rule("Gelu", elements::by_input),
    rule("Gemm", products::gemm),
    rule("GlobalAveragePool", layers::pool),
    rule("GlobalLpPool", layers::pool),
    rule("GlobalMaxPool", layers::pool),
    rule("GridSample", layers::grid_sample),
    rule("GroupNormalization", layers::norm),
    rule("HardSigmoid", elements::by_input),
    rule("HardSwish", elements::by_input),
    rule("Hardmax", nothing),
    rule("Identity", moves::same),
    rule("InstanceNormalization", layers::norm),
    rule("LRN", elements::by_input),
    rule("LSTM", recurrent::lstm),
    rule("LayerNormalization", layers::norm),
    rule("LeakyRelu", elements::by_input),
    rule("Log", elements::by_input),
    rule("LogSoftmax", elements::by_output),
    rule("LpNormalization", elements::by_input),
    rule("LpPool", layers::pool),
    rule("MatMul", products::matmul),
    rule("Max", elements::extreme),
    rule("MaxPool", layers::pool),
    rule("MaxUnpool", moves::moved),
    rule("Mean", elements::mean),
    rule("Min", elements::extreme),
    rule("Mish", elements::by_input),
    rule("Mod", elements::modulo),
    rule("Mul", elements::mul),
    rule("Neg", elements::neg),
    rule("NegativeLogLikelihoodLoss", layers::loss),
    rule("OneHot", moves::one_hot),
    rule("PRelu", elements::prelu),
    rule("Pad", moves::moved),
    rule("Pow", elements::pow),
    rule("QuantizeLinear", quantised::quantize),
    rule("RMSNormalization", layers::norm),
    rule("RNN", recurrent::of_one_state),
    rule("Reciprocal", elements::by_output),
    rule("ReduceL1", reductions::l1),
    rule("ReduceL2", reductions::l2),
    rule("ReduceLogSum", reductions::log_sum),
    rule("ReduceLogSumExp", reductions::log_sum_exp),
    rule("ReduceMax", reductions::extreme),
    rule("ReduceMean", reductions::mean),
    rule("ReduceMin", reductions::extreme),
    rule("ReduceProd", reductions::product),
    rule("ReduceSum", reductions::sum),
    rule("ReduceSumSquare", reductions::sum_square),
    rule("Relu", elements::by_output),
    rule("Reshape", moves::reshaped),
    rule("Resize", layers::resize),
    rule("ReverseSequence", moves::reverse_sequence),
    rule("RotaryEmbedding", fused::rotary),
    rule("Round", nothing),
    rule("ScatterElements", moves::scatter),
    rule("ScatterND", moves::scatter),
    rule("Selu", elements::by_input),
    rule("Shrink", elements::shrink),
    rule("Sigmoid", elements::by_output),
    rule("Sign", nothing),
    rule("SimplifiedLayerNormalization", layers::norm),
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
    rule("TopK", moves::top_k),
    rule("Transpose", moves::transpose),
    rule("Trilu", moves::trilu),
    rule("Unsqueeze", moves::reshaped),
    rule("Where", elements::choose),
    microsoft("BiasGelu", fused::biased_gelu),
    microsoft("EmbedLayerNormalization", fused::embed_layer_norm),
    microsoft("FastGelu", fused::biased_gelu),
    microsoft("FusedMatMul", products::fused),
    microsoft("Gelu", elements::by_input),
    microsoft("QuickGelu", fused::quick_gelu),
    microsoft("RotaryEmbedding", fused::rotary_of_positions),
    microsoft("SkipLayerNormalization", fused::skip_layer_norm),
    microsoft(
        "SkipSimplifiedLayerNormalization",
        fused::skip_root_mean_square_norm,
    ),
    microsoft("TransposeMatMul", products::fused),
];

/// The rule of an operator.
pub fn find(domain: &str, op: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.domain == domain && r.op == op)
}

/// The oldest opset that the rules are written for.
const OPSET: i64 = 13;

/// Adds nodes to the main graph that compute the gradients of `loss` with respect to `wanted`,
/// values of that graph: inputs, constants or computed ones. One gradient for each, in order;
/// `None` where the loss does not depend on the value. They are no outputs yet.
///
/// `loss` is one number of a floating-point type. A model of an older opset is raised to 13, and
/// operators of [`UNFUSED`] on the way are taken apart; both keep the graph's values.
///
/// # Errors
/// When the loss is no single number, a value on the way has no rule (it is named), or the model
/// cannot be raised. The model is then as it was.
pub fn differentiate(
    model: &mut Model,
    loss: ValueId,
    wanted: &[ValueId],
) -> Result<Vec<Option<ValueId>>> {
    differentiate_keeping(model, loss, wanted, Keep::Everything)
}

/// As [`differentiate`], where values of the forward pass that are not kept are computed again
/// before a gradient reads them: more work in less memory. The gradients are the same bits.
///
/// # Errors
/// As [`differentiate`].
pub fn differentiate_keeping(
    model: &mut Model,
    loss: ValueId,
    wanted: &[ValueId],
    keep: Keep,
) -> Result<Vec<Option<ValueId>>> {
    let mut trained = model.clone();
    let gradients = add_gradients(&mut trained, loss, wanted, keep)?;
    *model = trained;
    Ok(gradients)
}

fn add_gradients(
    model: &mut Model,
    loss: ValueId,
    wanted: &[ValueId],
    keep: Keep,
) -> Result<Vec<Option<ValueId>>> {
    raise(model)?;
    let mut names = Names::of(&model.graph);
    let mut view = View::of(model, wanted)?;
    if unfuse::unfuse(model, &view.inferred, &mut names, &view.depends)? > 0 {
        view = View::of(model, wanted)?;
    }
    let one = view.one(model, loss)?;
    let forward = model.graph.node_slots();
    let mut gradients: Vec<Vec<ValueId>> = vec![Vec::new(); model.graph.value_slots()];
    if view.depends.contains(&loss) {
        let name = names.fresh("loss_grad");
        gradients[loss.index()].push(model.graph.add_constant(&name, one));
    }
    for &id in view.order.iter().rev() {
        pass_back(model, &view, &mut names, id, &mut gradients)?;
    }
    let wanted = wanted.iter();
    let made = wanted
        .map(|&v| backward::total(&mut model.graph, &mut names, &mut gradients[v.index()]))
        .collect();
    if keep != Keep::Everything {
        let ids = model.graph.nodes().map(|(id, _)| id);
        let behind: Vec<NodeId> = ids.filter(|id| id.index() >= forward).collect();
        recompute::recompute(model, &view, &mut names, keep, &behind, &gradients);
    }
    Ok(made)
}

/// Raises the model to the oldest opset that the rules are written for, if it is older.
fn raise(model: &mut Model) -> Result<()> {
    if model.opset() >= OPSET {
        return Ok(());
    }
    let from = model.opset();
    edgesmith_passes::convert_opset(model, OPSET).map_err(|e| {
        e.at(format!("gradients of opset {from}"))
            .hint(format!("export the model at opset {OPSET} or later"))
    })?;
    Ok(())
}

/// What is known of a forward graph.
struct View {
    inferred: Inferred,
    order: Vec<NodeId>,
    depends: BTreeSet<ValueId>,
}

impl View {
    fn of(model: &Model, wanted: &[ValueId]) -> Result<Self> {
        let inferred = infer::infer(model, &[])?;
        let order = model.graph.order()?;
        let depends = dependents(model, &inferred, &order, wanted);
        Ok(Self {
            inferred,
            order,
            depends,
        })
    }

    /// The gradient of the loss with respect to itself.
    fn one(&self, model: &Model, loss: ValueId) -> Result<Tensor> {
        let dtype = self.inferred.tensor(loss).map(|t| t.dtype);
        match (dtype, self.inferred.dims(loss)) {
            (Some(d), Some(dims)) if d.is_float() && dims.iter().product::<usize>() == 1 => {
                site::number(d, &dims, 1.0)
            }
            _ => {
                let name = &model.graph.value(loss).name;
                Err(Error::invalid("a loss is one number").at(format!("value \"{name}\"")))
            }
        }
    }
}

/// The floating-point values that change with one of `wanted`, and the integers of
/// quantisation among them, bounded or not.
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
            dtype.is_none_or(DType::is_float) || node.is("QuantizeLinear") || node.is("Clip")
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
    view: &View,
    names: &mut Names,
    id: NodeId,
    gradients: &mut [Vec<ValueId>],
) -> Result<()> {
    let (node, depends) = (model.graph.node(id).clone(), &view.depends);
    let outputs = node.outputs().to_vec();
    let mut made = Vec::with_capacity(outputs.len());
    for v in &outputs {
        let own = v.map(|v| &mut gradients[v.index()]);
        made.push(own.and_then(|own| backward::total(&mut model.graph, names, own)));
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
    let site = Site::new(model, &view.inferred, names, node);
    let mut cx = Backward::new(site, &made, wants);
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
