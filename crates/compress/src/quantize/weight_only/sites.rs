//! Which nodes have a weight that can be rounded alone, and how it lies.

use std::collections::BTreeMap;

use edgesmith_ir::{DType, Graph, Node, NodeId, Tensor, ValueId};

use super::Settings;
use super::blocks::Scheme;
use super::matrix::Lies;
use crate::calibrate::segments::Product;
use crate::quantize::changes::NOTHING;

/// The least inputs of a weight: blocks have 16 numbers and more.
const FEWEST: usize = 16;

/// What a node does with its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Multiplies the last axis of an activation: MatMul, Gemm.
    Product,
    /// Multiplies the channels of an image: 1×1 Conv.
    Pointwise,
    /// Looks rows up: Gather.
    Table,
}

/// A node and its weight.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// The node.
    pub node: NodeId,
    /// What it does.
    pub does: Use,
    /// The constant.
    pub weight: ValueId,
    /// The index of the input that is the weight.
    pub input: usize,
    /// How it lies.
    pub lies: Lies,
    /// What the weight multiplies; `None` for tables.
    pub reads: Option<ValueId>,
    /// Bits and blocks.
    pub scheme: Scheme,
    /// The place in the order of the first site that reads the same value.
    pub since: usize,
}

/// The sites of a graph in the order in which nodes run, and why other nodes with a constant weight are left.
pub fn find(graph: &Graph, settings: &Settings) -> (Vec<Site>, BTreeMap<NodeId, String>) {
    let (mut sites, mut left) = (Vec::new(), BTreeMap::new());
    for (id, node) in graph.nodes() {
        let found = site(graph, id, node, settings.scheme).and_then(|site| {
            let is_table = site.does == Use::Table;
            let scheme = match settings.scheme_of(&node.name) {
                None => return Err("excluded by name".into()),
                Some(_) if is_table && !settings.embeddings => return Err("tables are kept".into()),
                Some(scheme) => scheme,
            };
            let site = Site { scheme, ..site };
            no_form(graph, &site, settings).map_or(Ok(site), |reason| Err(reason.into()))
        });
        match found {
            Ok(site) => sites.push(site),
            Err(reason) => _ = left.insert(id, reason),
        }
    }
    if let Ok(order) = graph.order() {
        let place: BTreeMap<NodeId, usize> = order.into_iter().zip(0..).collect();
        sites.sort_by_key(|s| place.get(&s.node).copied());
    }
    let mut first: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (at, site) in sites.iter_mut().enumerate() {
        site.since = site.reads.map_or(at, |v| *first.entry(v).or_insert(at));
    }
    if settings.method.needs_data {
        // There is one XᵀX of a value, of its rows along one axis.
        let mut axes: BTreeMap<ValueId, i64> = BTreeMap::new();
        sites.retain(|s| {
            let axis = s.axis();
            let fits = |v: ValueId| *axes.entry(v).or_insert(axis) == axis;
            let fits = s.reads.is_none_or(fits);
            if !fits {
                left.insert(
                    s.node,
                    "another product reads its input by another axis".into(),
                );
            }
            fits
        });
    }
    (sites, left)
}

impl Site {
    /// The axis of a row of what it multiplies.
    fn axis(&self) -> i64 {
        if self.does == Use::Pointwise { 1 } else { -1 }
    }
}

/// Why a weight cannot be written in the form that was asked for.
fn no_form(graph: &Graph, site: &Site, settings: &Settings) -> Option<&'static str> {
    let is_product = site.does == Use::Product;
    let is_point = site.does == Use::Pointwise;
    let bits = site.scheme.bits;
    match (settings.method.name, settings.format.name) {
        ("nf4", _) if !is_product => Some("NF4 has a form for products only"),
        ("hqq", _) if is_point => Some("zero points between codes have a form for products only"),
        _ if is_point && bits == 2 => Some("2 bits have no form for convolutions"),
        (_, "matmulnbits") if is_product && !has_row_as_bias(graph, site) => {
            Some("its bias is not a constant of one axis, a number for each column")
        }
        _ => None,
    }
}

/// True where a product has no bias, or one that MatMulNBits takes.
fn has_row_as_bias(graph: &Graph, site: &Site) -> bool {
    let node = graph.node(site.node);
    let Some(bias) = node.input(2).filter(|_| node.is("Gemm")) else {
        return true;
    };
    let dims = |v| graph.constant(v).map(Tensor::dims);
    let columns = dims(site.weight).map(|d| d[usize::from(site.lies == Lies::InputsFirst)]);
    dims(bias).is_some_and(|d| d.len() == 1 && d.first() == columns.as_ref())
}

/// The values whose XᵀX methods ask for, with the axis of a row.
pub fn grams(graph: &Graph, settings: &Settings) -> BTreeMap<String, i64> {
    let products = products(graph, settings).into_values();
    products
        .map(|p| (graph.value(p.reads).name.clone(), p.axis))
        .collect()
}

/// The nodes for whose weights methods ask for XᵀX.
pub fn products(graph: &Graph, settings: &Settings) -> BTreeMap<NodeId, Product> {
    let (sites, _) = find(graph, settings);
    let product = |s: &Site| {
        let dims = graph.constant(s.weight).map(Tensor::dims)?;
        let product = Product {
            reads: s.reads?,
            axis: s.axis(),
            k: dims[usize::from(s.lies == Lies::OutputsFirst)],
        };
        Some((s.node, product))
    };
    sites.iter().filter_map(product).collect()
}

fn site(graph: &Graph, id: NodeId, node: &Node, scheme: Scheme) -> Result<Site, String> {
    let other = || NOTHING.to_owned();
    if !node.domain.is_empty() {
        return Err(other());
    }
    let (does, input, lies) = match node.op.as_str() {
        "MatMul" => (Use::Product, 1, Lies::InputsFirst),
        "Gemm" if node.int("transB").unwrap_or(0) != 0 => (Use::Product, 1, Lies::OutputsFirst),
        "Gemm" => (Use::Product, 1, Lies::InputsFirst),
        "Conv" => (Use::Pointwise, 1, Lies::OutputsFirst),
        "Gather" => (Use::Table, 0, Lies::OutputsFirst),
        _ => return Err(other()),
    };
    let weight = node.input(input).ok_or_else(other)?;
    let t = graph.constant(weight).ok_or("its weight is computed")?;
    fits(graph, node, does, t)?;
    let inputs = t.dims()[usize::from(lies == Lies::OutputsFirst)];
    if inputs < FEWEST {
        return Err(format!("its weight has {inputs} inputs, under {FEWEST}"));
    }
    let reads = node.input(0).filter(|_| does != Use::Table);
    Ok(Site {
        node: id,
        does,
        weight,
        input,
        lies,
        reads,
        scheme,
        since: 0,
    })
}

fn fits(graph: &Graph, node: &Node, does: Use, t: &Tensor) -> Result<(), String> {
    let require = |ok: bool, reason: &str| if ok { Ok(()) } else { Err(reason.to_owned()) };
    require(t.dtype() == DType::F32, "its weight is not f32")?;
    match does {
        Use::Product => {
            require(t.rank() == 2, "its weight has not 2 axes")?;
            let turned = node.is("Gemm") && node.int("transA").unwrap_or(0) != 0;
            require(!turned, "its input is transposed")?;
            // Factors of constants go into them before they are rounded: `plain_gemm`.
            let is_computed = |&v: &ValueId| graph.constant(v).is_none();
            let bias = node
                .input(2)
                .filter(|_| node.is("Gemm"))
                .filter(is_computed);
            let is_plain = node.float("beta").unwrap_or(1.0) == 1.0;
            require(
                bias.is_none() || is_plain,
                "beta of a computed bias is not 1",
            )
        }
        Use::Pointwise => {
            let is_point = t.rank() > 2 && t.dims()[2..].iter().all(|&d| d == 1);
            require(is_point, "its window is more than one point")?;
            let is_dense = node.int("group").unwrap_or(1) == 1;
            require(is_dense, "it has groups")
        }
        Use::Table => {
            require(t.rank() == 2, "its table has not 2 axes")?;
            require(node.int("axis").unwrap_or(0) == 0, "it takes no whole rows")
        }
    }
}
