//! Where two models differ in what they compute: nodes, attributes, edges, constants.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::graph::Function;
use crate::{Attribute, Error, Graph, Model, Node, Result, Tensor, ValueId};

/// Says where `other` is not what `model` is: an operator, attribute, edge, type of an input or
/// byte of a constant is another. Nodes are compared in the order in which they run. Names of
/// values and nodes, documentation and metadata play no part, nor do constants that nothing reads.
///
/// # Errors
/// The first difference, as an internal error with its place; or when a graph has a cycle.
pub fn difference(model: &Model, other: &Model) -> Result<()> {
    same("opsets", &model.opsets, &other.opsets)?;
    let names = |m: &Model| m.functions.iter().map(head).collect::<Vec<_>>();
    same("functions", &names(model), &names(other))?;
    for (a, b) in model.functions.iter().zip(&other.functions) {
        let place = |e: Error| e.at(format!("function \"{}\"", a.name));
        let mut pairs = Pairs::new(&a.graph, &b.graph, None);
        pairs.attributes(&a.defaults, &b.defaults).map_err(place)?;
        pairs.graphs().map_err(place)?;
    }
    Pairs::new(&model.graph, &other.graph, None).graphs()
}

fn head(f: &Function) -> String {
    let (attributes, opsets) = (&f.attributes, &f.opsets);
    let names = [&f.domain, &f.name, &f.overload];
    format!("{names:?} {attributes:?} {opsets:?}")
}

/// # Errors
/// When the two are not equal.
fn same<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::internal(format!(
        "{what}: expected {expected:?}, found {found:?}"
    )))
}

fn same_tensor(what: &str, expected: &Tensor, found: &Tensor) -> Result<()> {
    same(what, &expected.ty(), &found.ty())?;
    if expected == found {
        return Ok(());
    }
    Err(Error::internal(format!("{what}: its numbers are others")))
}

/// Told that a value of the graph around one, and a value of the graph around the other, stand for
/// each other.
type Outside<'a> = &'a mut dyn FnMut(ValueId, ValueId) -> Result<()>;

/// Values of two graphs that stand for each other, found on the way.
struct Pairs<'a> {
    graph: &'a Graph,
    other: &'a Graph,
    known: HashMap<ValueId, ValueId>,
    outside: Option<Outside<'a>>,
}

impl<'a> Pairs<'a> {
    fn new(graph: &'a Graph, other: &'a Graph, outside: Option<Outside<'a>>) -> Self {
        Self {
            graph,
            other,
            known: HashMap::new(),
            outside,
        }
    }

    fn graphs(&mut self) -> Result<()> {
        let (graph, other) = (self.graph, self.other);
        same("inputs", &graph.inputs.len(), &other.inputs.len())?;
        for (&a, &b) in graph.inputs.iter().zip(&other.inputs) {
            self.value(Some(a), Some(b))?;
            same("type", &graph.value(a).ty, &other.value(b).ty)
                .map_err(|e| e.at(format!("input \"{}\"", graph.value(a).name)))?;
        }
        let (order, others) = (graph.order()?, other.order()?);
        same("number of nodes", &order.len(), &others.len())?;
        for (a, b) in order.into_iter().zip(others) {
            let (a, b) = (graph.node(a), other.node(b));
            self.nodes(a, b).map_err(|e| e.at(a.place()))?;
        }
        same("outputs", &graph.outputs.len(), &other.outputs.len())?;
        for (&a, &b) in graph.outputs.iter().zip(&other.outputs) {
            self.value(Some(a), Some(b))?;
        }
        Ok(())
    }

    fn nodes(&mut self, a: &Node, b: &Node) -> Result<()> {
        let head = |n: &Node| [&n.op, &n.domain, &n.overload].map(Clone::clone);
        same("node", &head(a), &head(b))?;
        self.edges("inputs", a.inputs(), b.inputs())?;
        self.edges("outputs", a.outputs(), b.outputs())?;
        self.attributes(&a.attributes, &b.attributes)
    }

    /// Left out at the end is the same as not there.
    fn edges(&mut self, what: &str, a: &[Option<ValueId>], b: &[Option<ValueId>]) -> Result<()> {
        let used = |v: &[Option<ValueId>]| v.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        same(what, &used(a), &used(b))?;
        for (a, b) in a[..used(a)].iter().zip(&b[..used(b)]) {
            self.value(*a, *b)?;
        }
        Ok(())
    }

    fn value(&mut self, a: Option<ValueId>, b: Option<ValueId>) -> Result<()> {
        let (a, b) = match (a, b) {
            (None, None) => return Ok(()),
            (Some(a), Some(b)) => (a, b),
            _ => return same("an edge", &a.is_some(), &b.is_some()),
        };
        let name = &self.graph.value(a).name;
        if let Some(mate) = self.known.insert(a, b) {
            let names = [mate, b].map(|v| &self.other.value(v).name);
            return same(&format!("reads of \"{name}\""), names[0], names[1]);
        }
        let what = format!("constant \"{name}\"");
        match (self.graph.constant(a), self.other.constant(b)) {
            (Some(a), Some(b)) => same_tensor(&what, a, b)?,
            (a, b) => same(&what, &a.is_some(), &b.is_some())?,
        }
        let outer = |graph: &Graph, v| {
            let capture = graph.captures.iter().find(|c| c.inner == v);
            capture.map(|c| c.outer)
        };
        match (
            outer(self.graph, a),
            outer(self.other, b),
            &mut self.outside,
        ) {
            (Some(a), Some(b), Some(outside)) => outside(a, b),
            (a, b, _) => same("a capture", &a.is_some(), &b.is_some()),
        }
    }

    fn attributes(&mut self, a: &[(String, Attribute)], b: &[(String, Attribute)]) -> Result<()> {
        same("number of attributes", &a.len(), &b.len())?;
        for ((name, a), (other, b)) in a.iter().zip(b) {
            same("attribute", name, other)?;
            self.attribute(a, b)
                .map_err(|e| e.at(format!("attribute \"{name}\"")))?;
        }
        Ok(())
    }

    fn attribute(&mut self, a: &Attribute, b: &Attribute) -> Result<()> {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        match (a, b) {
            (Attribute::Float(a), Attribute::Float(b)) => same("bits", &a.to_bits(), &b.to_bits()),
            (Attribute::Floats(a), Attribute::Floats(b)) => same("bits", &bits(a), &bits(b)),
            (Attribute::Tensor(a), Attribute::Tensor(b)) => same_tensor("tensor", a, b),
            (Attribute::Graph(a), Attribute::Graph(b)) => self.inner(a, b),
            (Attribute::Graphs(a), Attribute::Graphs(b)) => {
                same("number of graphs", &a.len(), &b.len())?;
                let mut pairs = a.iter().zip(b);
                pairs.try_for_each(|(a, b)| self.inner(a, b))
            }
            (a, b) if a == b => Ok(()),
            _ => Err(Error::internal("it is another")),
        }
    }

    fn inner(&mut self, a: &Graph, b: &Graph) -> Result<()> {
        let outside: Outside = &mut |a, b| self.value(Some(a), Some(b));
        Pairs::new(a, b, Some(outside)).graphs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, ops, text};

    const NET: &str = r#"
opset 17
graph g(x: f32[n,2], c: bool[]) -> (y: f32[n,2]) {
  w: f32[2,2] = {1,2,3,4}
  m = MatMul(x, w) {name="m"}
  s = Add(m, x) {name="s"}
  y = LeakyRelu(s) {alpha=0.5, name="r"}
}
"#;

    fn net() -> Model {
        text::parse(NET).unwrap()
    }

    fn told(change: impl FnOnce(&mut Graph)) -> String {
        let mut other = net();
        change(&mut other.graph);
        let found = difference(&net(), &other);
        found.map_or_else(|e| e.to_string(), |()| "nothing".into())
    }

    #[test]
    fn names_and_idle_constants_play_no_part() {
        assert_eq!(
            told(|g| {
                let s = g.find_value("s").unwrap();
                g.value_mut(s).name = "other".into();
                let made = g.value(s).producer().unwrap().0;
                g.node_mut(made).name = "other".into();
                g.add_constant("idle", Tensor::scalar(1f32));
            }),
            "nothing"
        );
    }

    #[test]
    fn each_difference_is_told_with_its_place() {
        let found = told(|g| {
            let w = g.find_value("w").unwrap();
            let other = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 5.0]).unwrap();
            g.value_mut(w).constant = Some(other);
        });
        assert_eq!(
            found,
            "MatMul \"m\": constant \"w\": its numbers are others"
        );
        let node = |g: &Graph, name: &str| g.nodes().find(|(_, n)| n.name == name).unwrap().0;
        let found = told(|g| {
            g.node_mut(node(g, "r"))
                .set("alpha", Attribute::Float(0.25))
        });
        assert!(found.contains("attribute \"alpha\""), "{found}");
        let found = told(|g| {
            let m = g.find_value("m");
            g.set_input(node(g, "s"), 1, m);
        });
        assert!(found.contains("Add \"s\""), "{found}");
        let found = told(|g| g.node_mut(node(g, "s")).op = "Sub".into());
        assert!(found.contains("\"Sub\""), "{found}");
        let found = told(|g| {
            let x = g.inputs[0];
            g.value_mut(x).ty = Some(crate::TensorType::fixed(DType::F32, &[1, 2]).into());
        });
        assert!(found.contains("input \"x\""), "{found}");
    }

    #[test]
    fn graphs_inside_nodes_are_compared() {
        let examples = ops::OPS
            .iter()
            .filter(|d| d.name == "If" || d.name == "Loop");
        let mut bodies = 0;
        for example in examples.flat_map(|d| d.examples) {
            let (model, _) = text::example(example).unwrap();
            difference(&model, &model.clone()).unwrap();
            let mut other = model.clone();
            let ids: Vec<_> = other.graph.nodes().map(|(id, _)| id).collect();
            for id in ids {
                for body in other.graph.node_mut(id).subgraphs_mut() {
                    let first = body.nodes().next().map(|(id, _)| id);
                    if let Some(first) = first {
                        body.node_mut(first).op = "Another".into();
                        bodies += 1;
                    }
                }
            }
            assert!(difference(&model, &other).is_err());
        }
        assert!(bodies > 0);
    }
}
