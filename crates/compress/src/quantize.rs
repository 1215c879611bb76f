//! Models of smaller numbers.

use edgesmith_ir::{Attribute, Graph, NodeId, Result, Tensor, ValueId};

pub mod affine;
pub mod changes;
pub mod equalize;
pub mod float8;
pub mod half;
pub mod int8;
pub mod overflow;
pub mod rules;
pub mod smooth;
pub mod sources;
pub mod weight_only;

/// What nodes of a name are given in the place of what the others get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The name; `*` stands for any text.
    pub pattern: String,
    /// Bits of their weights; `None`: they stay as they are.
    pub bits: Option<usize>,
    /// Numbers of a row that share a scale, where not as with the others; 0 is the whole row.
    pub group: Option<usize>,
}

impl Layer {
    /// Nodes that stay as they are.
    pub fn float(pattern: &str) -> Self {
        Self {
            pattern: pattern.into(),
            bits: None,
            group: None,
        }
    }

    /// Nodes whose weights have so many bits.
    pub fn bits(pattern: &str, bits: usize) -> Self {
        Self {
            bits: Some(bits),
            ..Self::float(pattern)
        }
    }
}

/// Bytes of the constants that nodes read.
pub(crate) fn constant_bytes(graph: &Graph) -> usize {
    let used = |v: ValueId| !graph.value(v).consumers().is_empty() || graph.is_output(v);
    let bytes = |v: ValueId| graph.constant(v).map_or(0, Tensor::byte_len);
    graph
        .values()
        .filter(|(v, _)| used(*v))
        .map(|(v, _)| bytes(v))
        .sum()
}

/// Drops the data of constants that nothing reads, and Constant nodes that nothing reads.
fn drop_unused(graph: &mut Graph) {
    let captured = graph.captured();
    let unused = |graph: &Graph, v: ValueId| {
        graph.value(v).consumers().is_empty() && !graph.is_output(v) && !captured.contains(&v)
    };
    let idle: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| {
            n.is("Constant") && n.outputs().iter().flatten().all(|&v| unused(graph, v))
        })
        .map(|(id, _)| id)
        .collect();
    for id in idle {
        graph.remove_node(id);
    }
    let values: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
    for v in values {
        if unused(graph, v) && !graph.is_input(v) {
            graph.value_mut(v).constant = None;
        }
    }
}

/// Folds `alpha` and `beta` of Gemm nodes into their constants.
///
/// # Errors
/// When a constant cannot be read as f32.
fn plain_gemm(graph: &mut Graph) -> Result<()> {
    let nodes: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| n.is("Gemm"))
        .map(|(id, _)| id)
        .collect();
    for id in nodes {
        for (attribute, input) in [("alpha", 1), ("beta", 2)] {
            fold_factor(graph, id, attribute, input)?;
        }
    }
    Ok(())
}

fn fold_factor(graph: &mut Graph, id: NodeId, attribute: &str, input: usize) -> Result<()> {
    let node = graph.node(id);
    let factor = node.float(attribute).unwrap_or(1.0);
    let Some(v) = node.input(input).filter(|_| factor != 1.0) else {
        return Ok(());
    };
    let Some(t) = graph.constant(v) else {
        return Ok(());
    };
    let scaled = t.to_f32()?.iter().map(|x| x * factor).collect();
    let scaled = Tensor::from_vec(t.dims(), scaled)?;
    replace_constant(graph, id, input, attribute, scaled);
    graph.node_mut(id).set(attribute, Attribute::Float(1.0));
    Ok(())
}

/// Gives a node another constant in the place of input `i`, named after the old one.
fn replace_constant(graph: &mut Graph, id: NodeId, i: usize, suffix: &str, data: Tensor) {
    let old = graph.node(id).input(i).map(|v| graph.value(v).name.clone());
    let name = graph.fresh_name(&format!("{}_{suffix}", old.unwrap_or_default()));
    let constant = graph.add_constant(&name, data);
    graph.set_input(id, i, Some(constant));
}

#[cfg(test)]
pub(crate) mod testing {
    /// `n` numbers from −1 to 1, the same for the same seed.
    pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(next).collect()
    }
}
