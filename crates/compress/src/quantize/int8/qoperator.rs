//! Writes integer operators where DequantizeLinear, an operator and QuantizeLinear stand: QLinearConv,
//! QLinearMatMul, and those of ONNX Runtime. What has no such operator stays as it is.

use edgesmith_ir::{Attribute, Graph, Model, Node, NodeId, Result, ValueId};

use super::MICROSOFT;

/// Integers with their scale and zero point.
#[derive(Clone, Copy)]
struct Ints {
    value: ValueId,
    scale: ValueId,
    zero: ValueId,
}

impl Ints {
    /// What `v` is dequantised from.
    fn from(graph: &Graph, v: ValueId) -> Option<Self> {
        let node = graph.node(graph.producer_is(v, "DequantizeLinear")?);
        Some(Self {
            value: node.input(0)?,
            scale: node.input(1)?,
            zero: node.input(2)?,
        })
    }

    /// What `v` is quantised to by the node that alone reads it.
    fn to(graph: &Graph, v: ValueId) -> Option<(NodeId, Self)> {
        let (id, _) = graph.sole_consumer(v)?;
        let node = graph.node(id);
        let ints = Self {
            value: node.output(0)?,
            scale: node.input(1)?,
            zero: node.input(2)?,
        };
        node.is("QuantizeLinear").then_some((id, ints))
    }

    fn all(self) -> [Option<ValueId>; 3] {
        [Some(self.value), Some(self.scale), Some(self.zero)]
    }

    fn grid(self) -> [Option<ValueId>; 2] {
        [Some(self.scale), Some(self.zero)]
    }
}

/// The inputs of an integer operator: from those of the float one, the grid of the result and the bias.
type Inputs = fn(&[Ints], Option<Ints>, Option<ValueId>) -> Vec<Option<ValueId>>;

/// A row of the table of integer operators.
struct Form {
    /// The float operator.
    from: &'static str,
    /// The integer operator.
    to: &'static str,
    domain: &'static str,
    /// Its inputs.
    inputs: Inputs,
    /// There is a form with a float result.
    float_result: bool,
}

static FORMS: &[Form] = &[
    Form {
        from: "Add",
        to: "QLinearAdd",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "AveragePool",
        to: "QLinearAveragePool",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "Concat",
        to: "QLinearConcat",
        domain: MICROSOFT,
        inputs: |x, y, _| {
            let grid = y.into_iter().flat_map(Ints::grid);
            grid.chain(x.iter().flat_map(|x| x.all())).collect()
        },
        float_result: false,
    },
    Form {
        from: "Conv",
        to: "QLinearConv",
        domain: "",
        inputs: |x, y, bias| plain(x, y, None).into_iter().chain([bias]).collect(),
        float_result: false,
    },
    Form {
        from: "Gemm",
        to: "QGemm",
        domain: MICROSOFT,
        inputs: |x, y, bias| {
            let ints = x.iter().flat_map(|x| x.all()).chain([bias]);
            ints.chain(y.into_iter().flat_map(Ints::grid)).collect()
        },
        float_result: true,
    },
    Form {
        from: "GlobalAveragePool",
        to: "QLinearGlobalAveragePool",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "LeakyRelu",
        to: "QLinearLeakyRelu",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "MatMul",
        to: "QLinearMatMul",
        domain: "",
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "Mul",
        to: "QLinearMul",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
    Form {
        from: "Sigmoid",
        to: "QLinearSigmoid",
        domain: MICROSOFT,
        inputs: plain,
        float_result: false,
    },
];

/// Operators that move integers as they do floats.
const MOVES: &[&str] = &[
    "Flatten",
    "MaxPool",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

fn plain(x: &[Ints], y: Option<Ints>, _: Option<ValueId>) -> Vec<Option<ValueId>> {
    let ints = x.iter().flat_map(|x| x.all());
    ints.chain(y.into_iter().flat_map(Ints::grid)).collect()
}

/// Rewrites all groups of the main graph.
///
/// # Errors
/// When the graph has a cycle.
pub(super) fn fuse(model: &mut Model) -> Result<()> {
    for id in model.graph.order()? {
        if model.graph.get_node(id).is_none() {
            continue;
        }
        if !moves(&mut model.graph, id) {
            joins(&mut model.graph, id);
        }
    }
    drop_idle(&mut model.graph);
    if model.graph.nodes().any(|(_, n)| n.domain == MICROSOFT) {
        model.opsets.insert(MICROSOFT.into(), 1);
    }
    Ok(())
}

/// Lets a node that only moves numbers move integers.
fn moves(graph: &mut Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    if !node.domain.is_empty() || !MOVES.contains(&node.op.as_str()) {
        return false;
    }
    let (Some(from), Some(made)) = (
        node.input(0).and_then(|v| Ints::from(graph, v)),
        node.output(0),
    ) else {
        return false;
    };
    let Some((quantizer, to)) = Ints::to(graph, made).filter(|_| !graph.is_output(made)) else {
        return false;
    };
    let same = |a: ValueId, b: ValueId| match (graph.constant(a), graph.constant(b)) {
        (Some(a), Some(b)) => a.dtype() == b.dtype() && a.bytes() == b.bytes(),
        _ => a == b,
    };
    if node.output(1).is_some() || !same(from.scale, to.scale) || !same(from.zero, to.zero) {
        return false;
    }
    graph.remove_node(quantizer);
    graph.set_input(id, 0, Some(from.value));
    graph.set_output(id, 0, Some(to.value));
    true
}

/// Puts the integer operator in the place of a float one, where its inputs and its result allow it.
fn joins(graph: &mut Graph, id: NodeId) -> Option<()> {
    let node = graph.node(id).clone();
    let form = FORMS.iter().find(|f| node.is(f.from))?;
    let made = node.output(0)?;
    let has_bias = matches!(form.from, "Conv" | "Gemm");
    let data = if has_bias {
        &node.inputs()[..2]
    } else {
        node.inputs()
    };
    let ints: Option<Vec<Ints>> = data.iter().map(|v| Ints::from(graph, (*v)?)).collect();
    let ints = ints?;
    let bias = match node.input(2).filter(|_| has_bias) {
        Some(v) => {
            let source = graph.producer_is(v, "DequantizeLinear")?;
            Some(graph.node(source).input(0)?)
        }
        None => None,
    };
    let to = Ints::to(graph, made).filter(|_| !graph.is_output(made));
    let mut fused = Node::new(form.to, &node.name).in_domain(form.domain);
    fused.attributes.clone_from(&node.attributes);
    fused.attributes.retain(|(name, _)| &**name != "beta");
    if to.is_none() && node.is("MatMul") {
        return to_float(graph, id, &ints);
    }
    if to.is_none() && !form.float_result {
        return None;
    }
    if form.to == "QLinearConcat" && node.int("axis").unwrap_or(0) < 0 {
        return None;
    }
    if form.to == "QLinearGlobalAveragePool" {
        fused.set("channels_last", Attribute::Int(0));
    }
    let mut inputs = (form.inputs)(&ints, to.map(|(_, y)| y), bias);
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let output = match to {
        Some((quantizer, y)) => {
            graph.remove_node(quantizer);
            y.value
        }
        None => made,
    };
    graph.remove_node(id);
    graph.add_node(fused, &inputs, &[Some(output)]);
    Some(())
}

/// A product of integers with a float result.
fn to_float(graph: &mut Graph, id: NodeId, ints: &[Ints]) -> Option<()> {
    let node = graph.node(id).clone();
    let (&[a, b], made) = (ints, node.output(0)?) else {
        return None;
    };
    let fused = Node::new("MatMulIntegerToFloat", &node.name).in_domain(MICROSOFT);
    let inputs = [a.value, b.value, a.scale, b.scale, a.zero, b.zero].map(Some);
    graph.remove_node(id);
    graph.add_node(fused, &inputs, &[Some(made)]);
    Some(())
}

/// Removes nodes that dequantise what nothing reads any more.
fn drop_idle(graph: &mut Graph) {
    let captured = graph.captured();
    let is_idle = |v: ValueId| {
        graph.value(v).consumers().is_empty() && !graph.is_output(v) && !captured.contains(&v)
    };
    let idle: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| n.is("DequantizeLinear") && n.output(0).is_some_and(is_idle))
        .map(|(id, _)| id)
        .collect();
    for id in idle {
        graph.remove_node(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_an_operator_that_is_known() {
        for form in FORMS {
            assert!(
                edgesmith_ir::ops::find("", form.from).is_some(),
                "{}",
                form.from
            );
            assert!(
                edgesmith_ir::ops::find(form.domain, form.to).is_some(),
                "{}",
                form.to
            );
        }
    }

    #[test]
    fn the_table_is_in_order_without_repeats() {
        assert!(FORMS.windows(2).all(|p| p[0].from < p[1].from));
    }
}
