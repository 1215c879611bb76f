//! Operators that are several in one, written as these: what has no rule of its own is taken apart
//! before the graph is differentiated.
//!
//! To add one: write the function that makes its outputs of other operators, and add its line.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::error::At;
use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, Error, Graph, Model, Node, NodeId, Result, ValueId};

use super::names::Names;
use super::site::Site;

mod attention;

/// An operator that is taken apart.
pub struct Unfused {
    /// The operator.
    pub op: &'static str,
    /// Its domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Adds operators that compute its outputs: one value for each that the node has.
    pub parts: fn(&mut Site) -> Result<Vec<Option<ValueId>>>,
}

/// The list, by domain, then by name.
pub static UNFUSED: &[Unfused] = &[
    Unfused {
        op: "Attention",
        domain: "",
        parts: attention::of_heads,
    },
    Unfused {
        op: "MeanVarianceNormalization",
        domain: "",
        parts: mean_variance,
    },
    Unfused {
        op: "Attention",
        domain: "com.microsoft",
        parts: attention::of_one_weight,
    },
    Unfused {
        op: "FusedConv",
        domain: "com.microsoft",
        parts: conv,
    },
    Unfused {
        op: "FusedGemm",
        domain: "com.microsoft",
        parts: gemm,
    },
    Unfused {
        op: "MultiHeadAttention",
        domain: "com.microsoft",
        parts: attention::multi_head,
    },
];

/// Takes apart the nodes that make one of `depends`; how many.
///
/// # Errors
/// When a node has a form that is not known; it is named.
pub(super) fn unfuse(
    model: &mut Model,
    inferred: &Inferred,
    names: &mut Names,
    depends: &BTreeSet<ValueId>,
) -> Result<usize> {
    let row = |node: &Node| {
        let mut rows = UNFUSED.iter();
        rows.find(|u| u.domain == node.domain && u.op == node.op)
    };
    let is_due = |node: &Node| node.outputs().iter().flatten().any(|v| depends.contains(v));
    let found: Vec<(NodeId, &Unfused)> = model
        .graph
        .nodes()
        .filter(|(_, node)| is_due(node))
        .filter_map(|(id, node)| Some((id, row(node)?)))
        .collect();
    for &(id, unfused) in &found {
        let node = model.graph.node(id).clone();
        let place = node.place();
        let outputs = node.outputs().to_vec();
        let before = model.graph.value_slots();
        let mut site = Site::new(model, inferred, names, node);
        let parts = (unfused.parts)(&mut site).at(|| place.clone())?;
        model.graph.remove_node(id);
        let mut stands = BTreeMap::new();
        for (o, old) in outputs.into_iter().enumerate() {
            let Some(old) = old else { continue };
            let new = parts.get(o).copied().flatten();
            let new = new.ok_or_else(|| {
                Error::unsupported(format!("output {o} is not done")).at(place.clone())
            })?;
            let first = *stands.entry(new).or_insert(old);
            match first == old && new.index() >= before {
                true => stand_in(&mut model.graph, names, old, new),
                false if first == old => repeat(&mut model.graph, names, old, new),
                false => repeat(&mut model.graph, names, old, first),
            }
        }
    }
    Ok(found.len())
}

/// Lets the node that makes `new` make `old` instead.
fn stand_in(graph: &mut Graph, names: &mut Names, old: ValueId, new: ValueId) {
    match graph.value(new).producer() {
        Some((maker, o)) => {
            graph.set_output(maker, o, Some(old));
            graph.replace_reads(new, old);
        }
        None => repeat(graph, names, old, new),
    }
}

/// Lets `old` be what `new` is too.
fn repeat(graph: &mut Graph, names: &mut Names, old: ValueId, new: ValueId) {
    let name = names.fresh("unfused");
    let node = Node::new("Identity", &name);
    graph.add_node(node, &[Some(new)], &[Some(old)]);
}

/// The activation of a fused node, by its parameters in ONNX's order.
fn activated(site: &mut Site, v: ValueId, parameters: &[(&str, f32)]) -> Result<ValueId> {
    let name = site.node().string("activation").unwrap_or("").to_owned();
    if name.is_empty() {
        return Ok(v);
    }
    let taken: &[&str] = match name.as_str() {
        "Relu" | "Sigmoid" | "Tanh" | "Softsign" | "Softplus" => &[],
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        _ => {
            return Err(Error::unsupported(format!(
                "the gradient of the activation \"{name}\" is not done"
            )));
        }
    };
    let mut node = Node::new(&name, "");
    for (name, x) in parameters.iter().filter(|(n, _)| taken.contains(n)) {
        node.set(name, Attribute::Float(*x));
    }
    Ok(site.add(node, &[v]))
}

/// FusedConv: `activation(Conv(X, W, B) + Z)`.
fn conv(site: &mut Site) -> Result<Vec<Option<ValueId>>> {
    let mut node = Node::new("Conv", "");
    let keep = |name: &str| !name.starts_with("activation");
    let attributes = site.node().attributes.iter().filter(|(n, _)| keep(n));
    node.attributes = attributes.cloned().collect();
    let inputs = [0, 1, 2].map(|i| site.node().input(i));
    let made = site.emit(node, &inputs, &[true]);
    let mut y = made[0].ok_or_else(|| Error::internal("one output was asked for"))?;
    if let Some(z) = site.node().input(3) {
        y = site.op("Add", &[y, z]);
    }
    let given = site
        .node()
        .floats("activation_params")
        .unwrap_or(&[])
        .to_vec();
    if site.node().string("activation") == Some("Clip") {
        let &[low, high] = given.as_slice() else {
            return Err(Error::invalid("a Clip has two parameters"));
        };
        let x = site.x(0)?;
        let bounds = [low, high].map(|b| site.number(x, f64::from(b)));
        let [low, high] = bounds;
        return Ok(vec![Some(site.op("Clip", &[y, low?, high?]))]);
    }
    let named: Vec<(&str, f32)> = ["alpha", "beta"].into_iter().zip(given).collect();
    Ok(vec![Some(activated(site, y, &named)?)])
}

/// FusedGemm: `activation(Gemm(A, B, C))`.
fn gemm(site: &mut Site) -> Result<Vec<Option<ValueId>>> {
    let mut node = Node::new("Gemm", "");
    let keep = |name: &str| !name.starts_with("activation");
    let attributes = site.node().attributes.iter().filter(|(n, _)| keep(n));
    node.attributes = attributes.cloned().collect();
    let inputs = [0, 1, 2].map(|i| site.node().input(i));
    let made = site.emit(node, &inputs, &[true]);
    let y = made[0].ok_or_else(|| Error::internal("one output was asked for"))?;
    let own = ["alpha", "beta"].into_iter().filter_map(|name| {
        let given = site.node().float(&format!("activation_{name}"));
        Some((name, given?))
    });
    let own: Vec<(&str, f32)> = own.collect();
    Ok(vec![Some(activated(site, y, &own)?)])
}

/// MeanVarianceNormalization: (X − mean) / (deviation + 1e-9).
fn mean_variance(site: &mut Site) -> Result<Vec<Option<ValueId>>> {
    let x = site.x(0)?;
    let axes = site.node().ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let mean = |site: &mut Site, v: ValueId| {
        if site.opset() < 18 {
            let node = Node::new("ReduceMean", "").with("axes", Attribute::Ints(axes.clone()));
            return site.add(node, &[v]);
        }
        let axes = site.list(&axes);
        site.op("ReduceMean", &[v, axes])
    };
    let means = mean(site, x);
    let centred = site.op("Sub", &[x, means]);
    let squares = site.op("Mul", &[centred, centred]);
    let variance = mean(site, squares);
    let deviation = site.op("Sqrt", &[variance]);
    let epsilon = site.number(x, 1e-9)?;
    let deviation = site.op("Add", &[deviation, epsilon]);
    Ok(vec![Some(site.op("Div", &[centred, deviation]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_stands_by_domain_and_name_and_names_operators_without_a_rule() {
        let key = |u: &Unfused| (u.domain, u.op);
        assert!(UNFUSED.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        for u in UNFUSED {
            assert!(
                edgesmith_ir::ops::find(u.domain, u.op).is_some(),
                "{}",
                u.op
            );
            assert!(super::super::find(u.domain, u.op).is_none(), "{}", u.op);
        }
    }
}
