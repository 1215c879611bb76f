//! How each operator is quantised: one row for each.
//!
//! To add one: write its row, and a check where not every use of the operator qualifies.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Graph, Node, Tensor};

mod check;

/// How the output of an operator gets its scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Multiplies by a constant weight or another activation; its output has its own parameters.
    Product {
        /// May give a float result at no cost when nothing quantised reads it.
        float_output: bool,
    },
    /// Computes byte by byte; its output has its own parameters.
    Own,
    /// Bounds its input: the quantised node before it does that by saturating.
    Bound,
    /// Only moves or selects numbers: its outputs share the parameters of its first input.
    Share,
}

/// Which inputs are activations; others are indices, shapes or bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The first.
    First,
    /// The first two.
    Two,
    /// All.
    All,
}

/// A row of the table.
#[derive(Debug)]
pub struct Rule {
    /// The operator.
    pub name: &'static str,
    /// How its output is quantised.
    pub kind: Kind,
    /// Which inputs are quantised.
    pub data: Data,
    /// The axis of the scales of a product's constant weight; −1 is the last.
    pub weight_axis: fn(&Node) -> i64,
    /// Quantised without being asked for.
    pub default: bool,
    /// Worth quantising even where nothing quantised reads its output: it shrinks its input.
    pub shrinks: bool,
    /// Why a node does not qualify.
    pub check: fn(&Site) -> Result<(), String>,
}

/// A node in its graph.
pub struct Site<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its types.
    pub types: &'a Inferred,
    /// The node.
    pub node: &'a Node,
}

impl Site<'_> {
    /// The data of input `i`, where it is constant.
    pub fn constant(&self, i: usize) -> Option<&Tensor> {
        self.graph.constant(self.node.input(i)?)
    }

    /// True where input `i` is of f32.
    pub fn is_float(&self, i: usize) -> bool {
        let ty = self.node.input(i).and_then(|v| self.types.tensor(v));
        ty.is_some_and(|t| t.dtype == DType::F32)
    }
}

impl Rule {
    const OWN: Rule = Rule {
        name: "",
        kind: Kind::Own,
        data: Data::First,
        weight_axis: |_| 0,
        default: true,
        shrinks: false,
        check: |_| Ok(()),
    };
    const SHARE: Rule = Rule {
        kind: Kind::Share,
        ..Self::OWN
    };

    /// True where this is a product.
    pub fn is_product(&self) -> bool {
        matches!(self.kind, Kind::Product { .. })
    }

    /// How many inputs of `node` are activations.
    pub fn data_inputs(&self, node: &Node) -> usize {
        let n = node.inputs().len();
        match self.data {
            Data::First => n.min(1),
            Data::Two => n.min(2),
            Data::All => n,
        }
    }
}

/// Every operator that is quantised, by name in ASCII order.
pub static RULES: &[Rule] = &[
    Rule {
        name: "Add",
        data: Data::Two,
        check: check::one_constant,
        ..Rule::OWN
    },
    Rule {
        name: "AveragePool",
        shrinks: true,
        ..Rule::OWN
    },
    Rule {
        name: "Clip",
        kind: Kind::Bound,
        check: check::constant_bounds,
        ..Rule::OWN
    },
    Rule {
        name: "Concat",
        data: Data::All,
        check: check::one_constant,
        ..Rule::OWN
    },
    Rule {
        name: "Conv",
        kind: Kind::Product {
            float_output: false,
        },
        check: check::conv,
        ..Rule::OWN
    },
    Rule {
        name: "DepthToSpace",
        ..Rule::SHARE
    },
    Rule {
        name: "Flatten",
        ..Rule::SHARE
    },
    Rule {
        name: "Gather",
        ..Rule::SHARE
    },
    Rule {
        name: "Gemm",
        kind: Kind::Product { float_output: true },
        weight_axis: |n| i64::from(n.int("transB").unwrap_or(0) == 0),
        check: check::gemm,
        ..Rule::OWN
    },
    Rule {
        name: "GlobalAveragePool",
        shrinks: true,
        ..Rule::OWN
    },
    Rule {
        name: "HardSigmoid",
        ..Rule::OWN
    },
    Rule {
        name: "HardSwish",
        ..Rule::OWN
    },
    Rule {
        name: "LeakyRelu",
        ..Rule::OWN
    },
    Rule {
        name: "MatMul",
        kind: Kind::Product { float_output: true },
        weight_axis: |_| -1,
        data: Data::Two,
        check: check::matmul,
        ..Rule::OWN
    },
    Rule {
        name: "MaxPool",
        shrinks: true,
        check: check::one_output,
        ..Rule::SHARE
    },
    Rule {
        name: "Mul",
        data: Data::Two,
        check: check::one_constant,
        ..Rule::OWN
    },
    Rule {
        name: "Pad",
        check: check::pad,
        ..Rule::SHARE
    },
    Rule {
        name: "ReduceMean",
        shrinks: true,
        ..Rule::OWN
    },
    Rule {
        name: "Relu",
        kind: Kind::Bound,
        ..Rule::OWN
    },
    Rule {
        name: "Reshape",
        ..Rule::SHARE
    },
    Rule {
        name: "Resize",
        check: check::resize,
        ..Rule::SHARE
    },
    Rule {
        name: "Sigmoid",
        ..Rule::OWN
    },
    Rule {
        name: "Slice",
        ..Rule::SHARE
    },
    Rule {
        name: "Softmax",
        default: false,
        ..Rule::OWN
    },
    Rule {
        name: "Split",
        ..Rule::SHARE
    },
    Rule {
        name: "Squeeze",
        ..Rule::SHARE
    },
    Rule {
        name: "Transpose",
        ..Rule::SHARE
    },
    Rule {
        name: "Unsqueeze",
        ..Rule::SHARE
    },
];

/// The row of a node's operator.
pub fn find(node: &Node) -> Option<&'static Rule> {
    if !node.domain.is_empty() {
        return None;
    }
    let i = RULES.binary_search_by(|r| r.name.cmp(&node.op)).ok()?;
    Some(&RULES[i])
}

/// The bounds that a Relu or Clip puts on its input.
pub fn bounds(graph: &Graph, node: &Node) -> (f32, f32) {
    let bound = |i: usize, default: f32| {
        let data = node.input(i).and_then(|v| graph.constant(v));
        let value = data.and_then(|t| t.to_f32().ok()?.first().copied());
        value.unwrap_or(default)
    };
    if node.is("Relu") {
        (0.0, f32::INFINITY)
    } else {
        (bound(1, f32::NEG_INFINITY), bound(2, f32::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_without_repeats() {
        for pair in RULES.windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
        }
    }

    #[test]
    fn every_row_is_an_operator() {
        for rule in RULES {
            assert!(
                edgesmith_ir::ops::find("", rule.name).is_some(),
                "{}",
                rule.name
            );
        }
    }
}
