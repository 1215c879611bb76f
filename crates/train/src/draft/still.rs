//! Constants through which the loss would change, and which are no parameters: they are told.

use std::collections::BTreeSet;

use edgesmith_ir::{Graph, Node, Tensor, ValueId};

use super::Draft;
use crate::grad::{UNFUSED, find};

/// Inputs that do not move what comes out, or are no weights: bounds, sizes, fills and running
/// statistics.
static SETTINGS: &[(&str, &[usize])] = &[
    ("BatchNormalization", &[3, 4]),
    ("Clip", &[1, 2]),
    ("DequantizeLinear", &[1, 2]),
    ("Dropout", &[1, 2]),
    ("OneHot", &[2]),
    ("Pad", &[2]),
    ("QuantizeLinear", &[1, 2]),
    ("Resize", &[1, 2]),
    ("RotaryEmbedding", &[1, 2, 3]),
];

/// Operators that pass no gradient on.
static STEPS: &[&str] = &["Ceil", "Floor", "Hardmax", "Round", "Sign"];

impl Draft {
    /// A note that names the constants of floats, numbers alone left out, on which `loss` depends by
    /// operators that have a gradient, and which are not trained; none where there are none.
    pub(super) fn told_of_still(&self, loss: ValueId) -> Option<String> {
        let known: BTreeSet<&str> = self.frozen.iter().map(String::as_str).collect();
        let names = self.still(loss);
        let names = names.iter().filter(|n| !known.contains(n.as_str()));
        let names: Vec<String> = names.map(|n| format!("\"{n}\"")).collect();
        let (them, stay) = match names.len() {
            0 => return None,
            1 => ("constant", "is no parameter and stays"),
            _ => ("constants", "are no parameters and stay"),
        };
        Some(format!(
            "the {them} {} {stay}: what stands there is not trained",
            names.join(", ")
        ))
    }

    /// Their names, in the order of values; those of bodies of control flow behind.
    fn still(&self, loss: ValueId) -> Vec<String> {
        let graph = &self.model.graph;
        let of_model = self.base.graph.value_slots();
        let (mut found, mut inside) = (BTreeSet::new(), Vec::new());
        let mut seen = BTreeSet::from([loss]);
        let mut due = vec![loss];
        while let Some(v) = due.pop() {
            let Some((id, _)) = graph.value(v).producer() else {
                continue;
            };
            let node = graph.node(id);
            let bodies: Vec<&Graph> = node.subgraphs().collect();
            if !passes(node, !bodies.is_empty()) {
                continue;
            }
            let captured = bodies.iter().flat_map(|g| &g.captures).map(|c| c.outer);
            let settings = SETTINGS.iter().find(|(op, _)| *op == node.op);
            let settings = settings.map_or(&[][..], |s| s.1);
            let given = node.inputs().iter().enumerate();
            let read = given.filter(|(i, _)| !settings.contains(i));
            for v in read.filter_map(|(_, v)| *v).chain(captured) {
                if !seen.insert(v) {
                    continue;
                }
                match &graph.value(v).constant {
                    Some(t) if is_told(t) && v.index() < of_model => _ = found.insert(v),
                    _ => due.push(v),
                }
            }
            bodies.iter().for_each(|body| within(body, &mut inside));
        }
        let names = found.iter().map(|&v| graph.value(v).name.clone());
        inside.sort();
        inside.dedup();
        names.chain(inside).collect()
    }
}

/// Whether a gradient goes through a node, as far as it is known.
fn passes(node: &Node, has_body: bool) -> bool {
    let is = |domain: &str, op: &str| domain == node.domain && op == node.op;
    let is_known =
        find(&node.domain, &node.op).is_some() || UNFUSED.iter().any(|u| is(u.domain, u.op));
    has_body || (is_known && !STEPS.contains(&node.op.as_str()))
}

/// Floats of one axis or more.
fn is_told(t: &Tensor) -> bool {
    t.dtype().is_float() && t.rank() > 0 && t.count() > 0
}

/// The names of constants that the nodes of a body have for themselves.
fn within(body: &Graph, names: &mut Vec<String>) {
    for (_, node) in body.nodes() {
        let read = node.inputs().iter().flatten();
        for &v in read {
            let value = body.value(v);
            if value.constant.as_ref().is_some_and(is_told) {
                names.push(value.name.clone());
            }
        }
        node.subgraphs().for_each(|inner| within(inner, names));
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use crate::draft::{Draft, Options};
    use crate::losses::{self, Request};

    fn notes(text: &str, freeze: &[&str]) -> Vec<String> {
        let options = Options {
            freeze: freeze.iter().map(|f| (*f).to_owned()).collect(),
            ..Options::default()
        };
        let mut draft = Draft::new(&parse(text).unwrap(), &options).unwrap();
        let loss = losses::find("mse").unwrap();
        draft.add_term(loss, 1.0, &Request::default()).unwrap();
        let notes = draft.finish().unwrap().notes;
        let told = notes.into_iter();
        told.filter(|n| n.contains("not trained")).collect()
    }

    #[test]
    fn constants_that_the_loss_depends_on_and_that_are_not_trained_are_named() {
        let text = "opset 17 graph g(x: f32[batch,2]) -> (y: f32[batch,2]) {
            mean: f32[2] = {1,2} w: f32[2,2] = {1,2,3,4} b: f32[2] = {1,2} two: f32[] = {2}
            low: f32[] = {0} high: f32[] = {9}
            c = Sub(x, mean) p = MatMul(c, w) s = Add(p, b) m = Mul(s, two) y = Clip(m, low, high) }";
        let found = notes(text, &["b"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("the constant \"mean\" is"),
            "{found:?}"
        );
    }

    #[test]
    fn weights_of_bodies_are_named() {
        let text = "opset 17 graph g(x: f32[batch,2], c: bool[]) -> (y: f32[batch,2]) {
            w: f32[2,2] = {1,2,3,4} v: f32[2,2] = {1,2,3,4}
            z = If(c) {then_branch=graph t() -> (to: f32[batch,2]) {
                capture x1 = x capture v1 = v to = MatMul(x1, v1) },
              else_branch=graph e() -> (eo: f32[batch,2]) {
                capture x2 = x u: f32[2,2] = {1,2,3,4} eo = MatMul(x2, u) }}
            y = MatMul(z, w) }";
        let found = notes(text, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("the constants \"v\", \"u\" are"),
            "{found:?}"
        );
    }
}
