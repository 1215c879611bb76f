//! Which weights of a model can be pruned, and why others are left.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::pattern::matches;
use edgesmith_ir::{DType, Error, Graph, Model, Node, NodeId, Result, ValueId};

use super::pattern::Pattern;
use super::select::Lengths;
use crate::quantize::changes::NOTHING;
use crate::quantize::weight_only::matrix::{Lies, Matrix, turned};

/// A weight that can be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The constant.
    pub weight: ValueId,
    /// Its name.
    pub name: String,
    /// The products that read it, in order.
    pub nodes: Vec<NodeId>,
    /// How it lies; windows of convolutions lie behind the inputs.
    pub lies: Lies,
    /// Outputs and inputs.
    pub lengths: Lengths,
    /// Groups of a convolution: rows of each read inputs of their own.
    pub groups: usize,
}

/// The sites of a model, and what is left.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    /// In the order in which nodes run.
    pub all: Vec<Site>,
    /// Nodes with a weight that are left, and why.
    pub left: BTreeMap<NodeId, String>,
    /// Products from which an output comes without another product.
    pub last: BTreeSet<NodeId>,
}

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Nodes that stay, by name; `*` stands for any text.
    pub exclude: Vec<String>,
    /// Also first and depthwise convolutions, and products before an output.
    pub everything: bool,
    /// The pattern that must fit, where one is known.
    pub pattern: Option<Pattern>,
}

/// Operators between the last product and an output.
const LIGHT: &[&str] = &[
    "Add",
    "ArgMax",
    "Cast",
    "Clip",
    "Div",
    "Flatten",
    "GlobalAveragePool",
    "Identity",
    "LogSoftmax",
    "Mul",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// True of a product that may have a weight to prune.
pub fn is_product(node: &Node) -> bool {
    let op = node.op.as_str();
    [
        "Conv",
        "Gemm",
        "MatMul",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
    ]
    .contains(&op)
}

impl Sites {
    /// The weights that can be pruned.
    ///
    /// # Errors
    /// When the graph has a cycle.
    pub fn of(model: &Model, choice: &Choice) -> Result<Self> {
        let graph = &model.graph;
        let order = graph.order()?;
        let (first, last) = (first(graph, &order), last(graph));
        let mut found = Self::default();
        let mut by_weight: BTreeMap<ValueId, usize> = BTreeMap::new();
        for id in order {
            let node = graph.node(id);
            let reason = if choice.exclude.iter().any(|p| matches(p, &node.name)) {
                Err("excluded by name".to_owned())
            } else if !choice.everything && first.contains(&id) {
                Err("it is the first convolution".into())
            } else if !choice.everything && last.contains(&id) {
                Err("it is the last product before an output".into())
            } else {
                site(graph, id, node, choice.everything)
                    .and_then(|s| misfit(&s, choice.pattern).map_or(Ok(s), Err))
            };
            match reason {
                Ok(site) => match by_weight.get(&site.weight) {
                    Some(&i) => found.all[i].nodes.push(id),
                    None => {
                        by_weight.insert(site.weight, found.all.len());
                        found.all.push(site);
                    }
                },
                Err(why) => _ = found.left.insert(id, why),
            }
        }
        found.drop_shared(graph);
        found.last = last;
        Ok(found)
    }

    /// Leaves weights that something else reads too.
    fn drop_shared(&mut self, graph: &Graph) {
        let captured: BTreeSet<ValueId> = graph.captured().into_iter().collect();
        let left = &mut self.left;
        self.all.retain(|site| {
            let readers = graph.value(site.weight).consumers();
            let others = readers.iter().any(|(id, _)| !site.nodes.contains(id));
            let shared = others || captured.contains(&site.weight) || graph.is_output(site.weight);
            if shared {
                let why = "something else reads its weight too";
                left.extend(site.nodes.iter().map(|id| (*id, why.to_owned())));
            }
            !shared
        });
    }

    /// What is said where nothing can be pruned.
    pub fn nothing(&self) -> Error {
        let kept = self.left.values().filter(|why| *why != NOTHING);
        let mut why: Vec<&String> = kept.collect();
        why.dedup();
        let hint = match why.first() {
            Some(first) => format!("left: {first}; --all-layers takes first and last layers too"),
            None => "MatMul, Gemm and Conv with constant f32 weights can be".into(),
        };
        Error::unsupported("no weight of the model can be pruned").hint(hint)
    }
}

impl Site {
    /// The weight as rows of inputs.
    ///
    /// # Errors
    /// When it is gone, or a number is not finite.
    pub fn matrix(&self, graph: &Graph) -> Result<Matrix> {
        let t = graph.constant(self.weight);
        let t = t.ok_or_else(|| Error::internal("the weight of a site is constant"))?;
        let data = t.to_f32()?;
        if let Some(i) = data.iter().position(|x| !x.is_finite()) {
            let what = format!("number {i} is {}", data[i]);
            return Err(Error::invalid(what).at(format!("weight \"{}\"", self.name)));
        }
        let Lengths { rows, columns, .. } = self.lengths;
        let data = match self.lies {
            Lies::OutputsFirst => data.into_owned(),
            Lies::InputsFirst => turned(&data, columns, rows),
        };
        Ok(Matrix {
            n: rows,
            k: columns,
            data,
        })
    }

    /// Numbers by rows in the order of the tensor.
    pub fn in_order<T: Copy>(&self, by_rows: Vec<T>) -> Vec<T> {
        match self.lies {
            Lies::OutputsFirst => by_rows,
            Lies::InputsFirst => turned(&by_rows, self.lengths.rows, self.lengths.columns),
        }
    }

    /// Numbers in the order of the tensor by rows.
    pub fn by_rows<T: Copy>(&self, in_order: Vec<T>) -> Vec<T> {
        match self.lies {
            Lies::OutputsFirst => in_order,
            Lies::InputsFirst => turned(&in_order, self.lengths.columns, self.lengths.rows),
        }
    }
}

/// Convolutions that no product stands before.
fn first(graph: &Graph, order: &[NodeId]) -> BTreeSet<NodeId> {
    let mut behind: BTreeSet<ValueId> = BTreeSet::new();
    let mut first = BTreeSet::new();
    for &id in order {
        let node = graph.node(id);
        let is_behind = node.inputs().iter().flatten().any(|v| behind.contains(v));
        if !is_behind && node.op.ends_with("Conv") {
            first.insert(id);
        }
        if is_behind || is_product(node) {
            behind.extend(node.outputs().iter().flatten());
        }
    }
    first
}

/// Products from which an output comes without another product.
fn last(graph: &Graph) -> BTreeSet<NodeId> {
    let mut open = graph.outputs.clone();
    let (mut seen, mut last) = (BTreeSet::new(), BTreeSet::new());
    while let Some(v) = open.pop() {
        let Some((id, _)) = graph.value(v).producer().filter(|_| seen.insert(v)) else {
            continue;
        };
        let node = graph.node(id);
        if is_product(node) {
            last.insert(id);
        } else if LIGHT.contains(&node.op.as_str()) {
            let computed = |v: &&ValueId| graph.constant(**v).is_none();
            let inputs: Vec<ValueId> = node
                .inputs()
                .iter()
                .flatten()
                .filter(computed)
                .copied()
                .collect();
            // A sum of two computed values is a residual, and no bias.
            if inputs.len() == 1 {
                open.extend(inputs);
            }
        }
    }
    last
}

fn site(graph: &Graph, id: NodeId, node: &Node, everything: bool) -> Result<Site, String> {
    if !is_product(node) {
        let is_table = node.is("Gather");
        let has_weight = ["LSTM", "GRU", "RNN", "ConvTranspose", "Attention"];
        return Err(match (is_table, has_weight.contains(&node.op.as_str())) {
            (true, _) => "tables stay".into(),
            (_, true) => format!("weights of {} stay", node.op),
            _ => NOTHING.to_owned(),
        });
    }
    let weight = node.input(1).ok_or(NOTHING)?;
    let t = graph.constant(weight).ok_or(NOTHING)?;
    if graph.is_input(weight) {
        return Err("its weight is an input of the graph".into());
    }
    if t.dtype() != DType::F32 {
        return Err(format!("its weight is {}, not f32", t.dtype()));
    }
    let lengths = |rows, columns, taps| Lengths {
        rows,
        columns,
        taps,
    };
    let int = |name| node.int(name).unwrap_or(0) != 0;
    let (lies, of, groups) = match (node.op.as_str(), t.dims()) {
        ("Conv" | "FusedConv", &[rows, channels, ref window @ ..]) if !window.is_empty() => {
            let taps: usize = window.iter().product();
            let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(1);
            if !everything && groups > 1 && channels == 1 {
                return Err("a depthwise convolution has few weights".into());
            }
            let of = lengths(rows, channels * taps, taps);
            (Lies::OutputsFirst, of, groups.max(1))
        }
        ("Gemm" | "FusedGemm", &[a, b]) => match (int("transA"), int("transB")) {
            (true, _) => return Err("its input is transposed".into()),
            (_, true) => (Lies::OutputsFirst, lengths(a, b, 1), 1),
            _ => (Lies::InputsFirst, lengths(b, a, 1), 1),
        },
        ("MatMul", &[a, b]) => (Lies::InputsFirst, lengths(b, a, 1), 1),
        ("FusedMatMul", &[a, b]) if !int("transA") && !int("transBatchA") => match int("transB") {
            true => (Lies::OutputsFirst, lengths(a, b, 1), 1),
            false => (Lies::InputsFirst, lengths(b, a, 1), 1),
        },
        _ => return Err("its weight has not 2 axes".into()),
    };
    if of.rows * of.columns == 0 || of.rows % groups != 0 {
        return Err("its weight is empty".into());
    }
    Ok(Site {
        weight,
        name: graph.value(weight).name.clone(),
        nodes: vec![id],
        lies,
        lengths: of,
        groups,
    })
}

/// Why a weight cannot have the pattern.
fn misfit(site: &Site, pattern: Option<Pattern>) -> Option<String> {
    let of = site.lengths;
    let (channels, rows) = (of.columns / of.taps, of.rows / site.groups);
    match pattern? {
        Pattern::Of { m, .. } if channels < m => {
            Some(format!("it has {channels} inputs, fewer than {m}"))
        }
        Pattern::Blocks { rows: r, .. } if site.groups > 1 && !rows.is_multiple_of(r) => {
            Some(format!("a block of {r} outputs would reach over groups"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use super::*;

    const NET: &str = r#"
opset 17
graph g(x: f32[1,2,4,4], i: i64[1]) -> (y) {
  a: f32[2,2,1,1] = {1,2,3,4}
  d: f32[2,1,1,1] = {1,2}
  b: f32[2,2,1,1] = {1,2,3,4}
  t: f32[2,2] = {1,2,3,4}
  m: f32[2,2] = {5,6,7,8}
  c: f32[2,2] = {1,2,3,4}
  h1 = Conv(x, a) {name="first"}
  h2 = Conv(h1, d) {name="deep", group=2}
  h3 = Conv(h2, b) {name="point"}
  g1 = GlobalAveragePool(h3) {name="pool"}
  f = Flatten(g1) {name="flat"}
  e = Gather(t, i) {name="table"}
  s = MatMul(f, t) {name="tied"}
  p = MatMul(s, m) {name="middle"}
  z = Add(p, e) {name="sum"}
  r = Gemm(z, c) {name="last", transB=1}
  y = Softmax(r) {name="soft"}
}
"#;

    fn names(choice: &Choice) -> (Vec<String>, Vec<String>) {
        let model = parse(NET).unwrap();
        let sites = Sites::of(&model, choice).unwrap();
        let name = |id: &NodeId| model.graph.node(*id).name.clone();
        let left = sites.left.iter().filter(|(_, why)| *why != NOTHING);
        (
            sites.all.iter().map(|s| name(&s.nodes[0])).collect(),
            left.map(|(id, _)| name(id)).collect(),
        )
    }

    #[test]
    fn first_last_depthwise_and_shared_weights_stay() {
        let (found, left) = names(&Choice::default());
        assert_eq!(found, ["point", "middle"]);
        assert_eq!(left, ["first", "deep", "table", "tied", "last"]);
        let all = Choice {
            everything: true,
            exclude: vec!["mid*".into()],
            pattern: None,
        };
        assert_eq!(names(&all).0, ["first", "deep", "point", "last"]);
    }

    #[test]
    fn rows_are_outputs_however_a_weight_lies() {
        let model = parse(NET).unwrap();
        let sites = Sites::of(&model, &Choice::default()).unwrap();
        let by_rows = sites.all[1].matrix(&model.graph).unwrap().data;
        assert_eq!(by_rows, [5.0, 7.0, 6.0, 8.0]);
        assert_eq!(sites.all[1].in_order(by_rows.clone()), [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(sites.all[1].by_rows(vec![5.0, 6.0, 7.0, 8.0]), by_rows);
    }
}
