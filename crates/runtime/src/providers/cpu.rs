//! The cpu provider: kernels by instruction set, fused groups, integer arithmetic for Q/DQ groups.

use edgesmith_ir::{NodeId, Result};

use super::Provider;
use crate::plan::Planner;
use qlinear::elements;

mod activations;
mod attention;
mod best;
mod binary;
pub(crate) mod block_weights;
mod compare;
mod conv;
mod conv_transpose;
mod convert;
pub(crate) mod dequantize;
mod dynamic;
pub(crate) mod float8;
mod fused;
mod gather;
mod gradient;
mod grids;
mod matmul;
mod norm;
mod operand;
mod pad;
mod pool;
mod products;
mod qlinear;
mod quantize;
mod recurrent;
mod resize;
mod top;
mod views;

/// The provider.
pub static CPU: Provider = Provider::of_nodes(
    "cpu",
    "kernels for this machine's vector instructions; fuses, and runs Q/DQ groups in integers",
    plan,
    has_kernel,
);

/// A row of the bindings: plans a node and what it fuses; `None` where no kernel fits.
pub(crate) struct Binding {
    op: &'static str,
    plan: fn(&mut Planner, NodeId) -> Option<()>,
}

const fn bind(op: &'static str, plan: fn(&mut Planner, NodeId) -> Option<()>) -> Binding {
    Binding { op, plan }
}

/// The operators of the default domain that have kernels, by name.
static BINDINGS: &[Binding] = &[
    bind("Abs", activations::plan),
    bind("Add", binary::plan),
    bind("ArgMax", best::plan),
    bind("ArgMin", best::plan),
    bind("Attention", attention::standard),
    bind("AveragePool", pool::plan),
    bind("BatchNormalization", norm::batch),
    bind("Cast", convert::cast),
    bind("Ceil", activations::plan),
    bind("Clip", activations::plan),
    bind("Concat", views::concat),
    bind("Conv", conv::plan),
    bind("ConvInteger", dynamic::conv),
    bind("ConvTranspose", conv_transpose::plan),
    bind("DequantizeLinear", dequantize::plan),
    bind("Div", binary::plan),
    bind("Dropout", views::dropout),
    bind("DynamicQuantizeLinear", dynamic::quantize),
    bind("Equal", compare::plan),
    bind("Erf", activations::plan),
    bind("Exp", activations::plan),
    bind("Expand", views::expand),
    bind("Flatten", views::alias),
    bind("Floor", activations::plan),
    bind("GRU", recurrent::plan),
    bind("Gather", gather::plan),
    bind("Gelu", activations::plan),
    bind("Gemm", matmul::gemm),
    bind("GlobalAveragePool", pool::plan),
    bind("GlobalMaxPool", pool::plan),
    bind("Greater", compare::plan),
    bind("GreaterOrEqual", compare::plan),
    bind("GroupNormalization", norm::groups),
    bind("HardSigmoid", activations::plan),
    bind("HardSwish", activations::plan),
    bind("Identity", views::alias),
    bind("InstanceNormalization", norm::groups),
    bind("LSTM", recurrent::plan),
    bind("LayerNormalization", norm::layer),
    bind("LeakyRelu", activations::plan),
    bind("Less", compare::plan),
    bind("LessOrEqual", compare::plan),
    bind("LogSoftmax", norm::softmax),
    bind("MatMul", matmul::matmul),
    bind("MatMulInteger", dynamic::matmul),
    bind("Max", binary::plan),
    bind("MaxPool", pool::plan),
    bind("Min", binary::plan),
    bind("Mish", activations::plan),
    bind("Mul", binary::plan),
    bind("Neg", activations::plan),
    bind("PRelu", binary::plan),
    bind("Pad", pad::plan),
    bind("Pow", activations::plan),
    bind("QLinearConv", qlinear::conv),
    bind("QLinearMatMul", qlinear::matmul),
    bind("QuantizeLinear", quantize::plan),
    bind("RMSNormalization", fused::rms),
    bind("RNN", recurrent::plan),
    bind("Reciprocal", activations::plan),
    bind("ReduceMax", norm::reduce),
    bind("ReduceMean", norm::reduce),
    bind("ReduceSum", norm::reduce),
    bind("Relu", activations::plan),
    bind("Reshape", views::alias),
    bind("Resize", resize::plan),
    bind("Round", activations::plan),
    bind("Sigmoid", activations::plan),
    bind("SimplifiedLayerNormalization", fused::rms),
    bind("Slice", views::slice),
    bind("Softmax", norm::softmax),
    bind("SoftmaxCrossEntropyLoss", gradient::cross_entropy),
    bind("Split", views::split),
    bind("Sqrt", activations::plan),
    bind("Squeeze", views::alias),
    bind("Sub", binary::plan),
    bind("Swish", activations::plan),
    bind("Tanh", activations::plan),
    bind("TopK", top::plan),
    bind("Transpose", views::transpose),
    bind("Unsqueeze", views::alias),
    bind("Upsample", resize::plan),
    bind("Where", gather::where_),
];

/// The operators of `com.microsoft` that have kernels, by name.
static MICROSOFT: &[Binding] = &[
    bind("Attention", attention::merged),
    bind("BiasGelu", fused::gelu),
    bind("DynamicQuantizeLSTM", recurrent::plan),
    bind("DynamicQuantizeMatMul", dynamic::from_floats),
    bind("EmbedLayerNormalization", fused::embed),
    bind("FastGelu", fused::gelu),
    bind("FusedConv", conv::plan),
    bind("FusedGemm", matmul::gemm),
    bind("FusedMatMul", matmul::fused),
    bind("GatherBlockQuantized", block_weights::gather),
    bind("Gelu", activations::plan),
    bind("MatMulBnb4", block_weights::bnb4),
    bind("MatMulIntegerToFloat", dynamic::to_floats),
    bind("MatMulNBits", block_weights::n_bits),
    bind("MultiHeadAttention", attention::multi_head),
    bind("QGemm", qlinear::gemm),
    bind("QLinearAdd", elements::add),
    bind("QLinearAveragePool", pool::qlinear),
    bind("QLinearConcat", elements::concat),
    bind("QLinearGlobalAveragePool", pool::qlinear),
    bind("QLinearLeakyRelu", elements::table),
    bind("QLinearMul", elements::mul),
    bind("QLinearSigmoid", elements::table),
    bind("QLinearSoftmax", elements::softmax),
    bind("QLinearWhere", elements::where_),
    bind("QuickGelu", activations::plan),
    bind("SkipLayerNormalization", fused::skip),
    bind("SkipSimplifiedLayerNormalization", fused::skip),
];

/// The binding of an operator.
fn binding(domain: &str, op: &str) -> Option<&'static Binding> {
    let list = match domain {
        "" => BINDINGS,
        "com.microsoft" => MICROSOFT,
        edgesmith_ir::ops::gradient::DOMAIN => gradient::GRADIENTS,
        _ => return None,
    };
    list.iter().find(|b| b.op == op)
}

/// True where this provider has kernels for an operator.
pub fn has_kernel(domain: &str, op: &str) -> bool {
    binding(domain, op).is_some()
}

fn plan(planner: &mut Planner, id: NodeId) -> Result<bool> {
    let node = planner.graph().node(id);
    let binding = binding(&node.domain, &node.op);
    Ok(binding.is_some_and(|b| (b.plan)(planner, id).is_some()))
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;
    use crate::{Options, Session};

    const LISTS: [(&str, &[Binding]); 3] = [
        ("", BINDINGS),
        ("com.microsoft", MICROSOFT),
        (edgesmith_ir::ops::gradient::DOMAIN, gradient::GRADIENTS),
    ];

    #[test]
    fn bindings_stand_by_name_and_name_known_operators() {
        for (domain, list) in LISTS {
            assert!(list.windows(2).all(|w| w[0].op < w[1].op));
            for b in list {
                assert!(edgesmith_ir::ops::find(domain, b.op).is_some(), "{}", b.op);
            }
        }
    }

    /// Random numbers are no indices into its tables.
    const NO_EXAMPLE: &[&str] = &["EmbedLayerNormalization"];

    #[test]
    fn each_binding_takes_an_example_of_its_operator() {
        let mut idle = Vec::new();
        for (domain, list) in LISTS {
            for b in list {
                let op = edgesmith_ir::ops::find(domain, b.op).unwrap();
                if !op.examples.iter().any(|example| runs_here(example)) {
                    idle.push(b.op);
                }
            }
        }
        assert_eq!(idle, NO_EXAMPLE);
    }

    /// Whether the example runs here with all its inputs, or with all but one constant.
    fn runs_here(example: &str) -> bool {
        let (model, inputs) = text::example(example).unwrap();
        (0..=inputs.len()).any(|alone| {
            let (mut model, mut fed) = (model.clone(), Vec::new());
            let names: Vec<_> = model.graph.inputs.drain(..).collect();
            for (i, (v, tensor)) in names.into_iter().zip(&inputs).enumerate() {
                let name = model.graph.value(v).name.clone();
                if i == alone || alone == inputs.len() {
                    model.graph.inputs.push(v);
                    fed.push((name, tensor.clone()));
                } else {
                    let constant = model
                        .graph
                        .add_constant(&format!("{name}c"), tensor.clone());
                    model.graph.replace_uses(v, constant);
                }
            }
            let fed: Vec<_> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
            let mut session = Session::prepare(&model, &Options::default()).unwrap();
            session.run(&fed).is_ok() && session.placements().iter().all(|p| p.provider == CPU.name)
        })
    }
}
