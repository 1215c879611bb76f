//! Functions of one element: alone, fused behind another node, or as a table over bytes.

use edgesmith_ir::{DType, Node, NodeId, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::quantize::{lookup8, table8};

use super::dequantize::{self, quantized_output};
use crate::plan::{Layout, Planner, Spec};

/// The function of a node, where kernels have it.
pub(crate) fn of(planner: &Planner, node: &Node) -> Option<Activation> {
    let float = |name: &str, default: f32| node.float(name).unwrap_or(default);
    if node.domain == "com.microsoft" {
        return Some(match node.op.as_str() {
            "Gelu" => Activation::Gelu,
            "FastGelu" if node.input(1).is_none() => Activation::GeluTanh,
            "QuickGelu" => Activation::Swish {
                alpha: float("alpha", 1.702),
            },
            _ => return None,
        });
    }
    if !node.domain.is_empty() {
        return None;
    }
    Some(match node.op.as_str() {
        "Relu" => Activation::Relu,
        "Clip" => {
            let bound = |i: usize, name: &str, default: f32| match node.input(i) {
                Some(v) => planner.floats(v)?.first().copied(),
                None => Some(float(name, default)),
            };
            Activation::Clip {
                min: bound(1, "min", f32::MIN)?,
                max: bound(2, "max", f32::MAX)?,
            }
        }
        "LeakyRelu" => Activation::LeakyRelu {
            alpha: float("alpha", 0.01),
        },
        "HardSigmoid" => Activation::HardSigmoid {
            alpha: float("alpha", 0.2),
            beta: float("beta", 0.5),
        },
        "HardSwish" => Activation::HardSwish,
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "Exp" => Activation::Exp,
        "Erf" => Activation::Erf,
        "Gelu" if node.string("approximate").is_none_or(|a| a == "none") => Activation::Gelu,
        "Gelu" if node.string("approximate") == Some("tanh") => Activation::GeluTanh,
        "Mish" => Activation::Mish,
        "Abs" => Activation::Abs,
        "Neg" => Activation::Neg,
        "Reciprocal" => Activation::Reciprocal,
        "Sqrt" => Activation::Sqrt,
        "Floor" => Activation::Floor,
        "Ceil" => Activation::Ceil,
        "Round" => Activation::Round,
        "Pow" => power(planner, node)?,
        "Swish" => Activation::Swish {
            alpha: float("alpha", 1.0),
        },
        _ => return None,
    })
}

/// A power that is a product or a quotient, where the exponent adds no axes.
fn power(planner: &Planner, node: &Node) -> Option<Activation> {
    let (base, exponent) = (node.input(0)?, node.input(1)?);
    let dims = &planner.typed(exponent)?.1;
    if dims.iter().any(|&n| n != 1) || dims.len() > planner.typed(base)?.1.len() {
        return None;
    }
    match planner.floats(exponent)?[..] {
        [-1.0] => Some(Activation::Reciprocal),
        [1.0] => Some(Activation::None),
        [2.0] => Some(Activation::Square),
        [3.0] => Some(Activation::Cube),
        _ => None,
    }
}

/// The activation of a fused node of `com.microsoft`, where kernels have it.
pub(crate) fn fused(node: &Node) -> Option<Activation> {
    let given = node.floats("activation_params").map(<[f32]>::to_vec);
    // FusedGemm has an attribute for each parameter.
    let own = || {
        let names = ["activation_alpha", "activation_beta"];
        names.iter().filter_map(|n| node.float(n)).collect()
    };
    let parameters: Vec<f32> = given.unwrap_or_else(own);
    Some(match (node.string("activation"), parameters.as_slice()) {
        (None | Some(""), _) => Activation::None,
        (Some("Relu"), _) => Activation::Relu,
        (Some("Sigmoid"), _) => Activation::Sigmoid,
        (Some("Tanh"), _) => Activation::Tanh,
        (Some("LeakyRelu"), &[alpha]) => Activation::LeakyRelu { alpha },
        (Some("Clip"), &[min, max]) => Activation::Clip { min, max },
        (Some("HardSigmoid"), &[alpha, beta]) => Activation::HardSigmoid { alpha, beta },
        _ => return None,
    })
}

/// The node that applies a function to `v` and nothing else reads `v`: node, function, result.
pub(crate) fn after(planner: &Planner, v: ValueId) -> Option<(NodeId, Activation, ValueId)> {
    let id = planner.only_reader(v)?;
    let node = planner.graph().node(id);
    // The bounds of a Clip may be the value in question.
    if node.input(0) != Some(v) {
        return None;
    }
    Some((id, of(planner, node)?, node.output(0)?))
}

/// The layout in which a value is there already.
pub(crate) fn present_layout(planner: &Planner, v: ValueId) -> Layout {
    if planner.has_last(v) {
        Layout::Last
    } else {
        Layout::Plain
    }
}

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    if let Some((signed, [low, high])) = byte_bounds(planner, node) {
        let table = std::array::from_fn(|q| match signed {
            true => i32::from(q as u8 as i8).clamp(low, high) as u8,
            false => (q as i32).clamp(low, high) as u8,
        });
        return by_table(planner, &[id], x, y, table);
    }
    let f = of(planner, node)?;
    if integer(planner, id, x, y, f).is_some() {
        return Some(());
    }
    planner.float_dims(y)?;
    let layout = present_layout(planner, x);
    let read = planner.read_f32(x, layout)?;
    planner.step_f32(
        id,
        &[id],
        (y, layout),
        "elementwise",
        vec![read],
        Box::new(move |ctx, x, y| {
            f.apply_to(
                ctx,
                bytemuck::cast_slice(x[0]),
                bytemuck::cast_slice_mut(y[0]),
            );
        }),
    )
}

/// Whether the bytes that a Clip or ClipGrad bounds are signed, and its bounds, where these are
/// constant and in order.
pub(crate) fn byte_bounds(planner: &Planner, node: &Node) -> Option<(bool, [i32; 2])> {
    let x = node.input(0)?;
    let (signed, ends) = match planner.typed(x)?.0 {
        DType::U8 => (false, [0, 255]),
        DType::I8 => (true, [-128, 127]),
        _ => return None,
    };
    let bound = |i: usize| match node.input(i) {
        Some(v) => i32::try_from(*planner.constant(v)?.to_i64().ok()?.first()?).ok(),
        None => Some(ends[i - 1]),
    };
    let bounds = [bound(1)?, bound(2)?];
    let clips = matches!(node.op.as_str(), "Clip" | "ClipGrad");
    (clips && bounds[0] <= bounds[1]).then_some((signed, bounds))
}

/// DQ → f → Q as a table of 256 bytes.
fn integer(planner: &mut Planner, id: NodeId, x: ValueId, y: ValueId, f: Activation) -> Option<()> {
    let from = dequantize::source(planner, x)?;
    let (q, to) = quantized_output(planner, y)?;
    let table = table8(from.quant, from.signed, to.quant, to.signed, |v| {
        let mut one = [v];
        f.apply(&edgesmith_kernels::Ctx::serial(), &mut one);
        one[0]
    });
    by_table(planner, &[id, q], from.value, to.value, table)
}

/// Nodes that look each byte of `from` up in a table, as one step.
pub(crate) fn by_table(
    planner: &mut Planner,
    nodes: &[NodeId],
    from: ValueId,
    to: ValueId,
    table: [u8; 256],
) -> Option<()> {
    let layout = present_layout(planner, from);
    let read = planner.read(from, layout)?;
    let write = planner.write(to, layout)?;
    let spec = Spec {
        kernel: "table-8",
        integer: true,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(to, layout)],
        work: Box::new(move |ctx, x, y| lookup8(ctx, x[0], &table, y[0])),
    };
    planner.step(nodes[0], nodes, spec);
    Some(())
}
