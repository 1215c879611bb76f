//! Which constants of a model became which of the one that was made from it.

use edgesmith_ir::{Attribute, Graph, Shape, Tensor, ValueId};
use edgesmith_report::evidence::{Stored, TensorRow};

/// A constant, with the node that it is for.
struct Held<'a> {
    name: &'a str,
    node: &'a str,
    tensor: &'a Tensor,
    /// It tells how others are to be read: a scale or a zero point.
    is_grid: bool,
}

/// Operators between a constant and the node that it is for.
const BETWEEN: &[&str] = &[
    "Cast",
    "DequantizeLinear",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Transpose",
];

/// The constants of both, those that belong together in one row, the largest first.
pub fn rows(before: &Graph, after: &Graph) -> Vec<TensorRow> {
    let mut old = held(before);
    old.sort_by_key(|h| std::cmp::Reverse(h.tensor.byte_len()));
    let mut new: Vec<Option<Held>> = held(after).into_iter().map(Some).collect();
    // Names first, so that what is unchanged is taken by nothing else.
    let same = |o: &Held, n: &Held| o.name == n.name;
    let mut mates: Vec<Option<Held>> = old.iter().map(|o| take(&mut new, o, same)).collect();
    let followers: [fn(&Held, &Held) -> bool; 3] = [derived, read_alike, packed];
    for follows in followers {
        for (o, mate) in old.iter().zip(&mut mates).filter(|(_, m)| m.is_none()) {
            *mate = take(&mut new, o, follows);
        }
    }
    let kept = old
        .iter()
        .zip(&mates)
        .map(|(o, n)| row(Some(o), n.as_ref()));
    let added = new.iter().flatten().map(|n| row(None, Some(n)));
    let mut rows: Vec<TensorRow> = kept.chain(added).collect();
    let bytes = |s: &Option<Stored>| s.as_ref().map_or(0, |s| s.bytes);
    rows.sort_by_key(|r| std::cmp::Reverse(bytes(&r.before).max(bytes(&r.after))));
    rows
}

/// As many numbers under a longer name.
fn derived(old: &Held, new: &Held) -> bool {
    let rest = new.name.strip_prefix(old.name);
    rest.is_some_and(|r| r.starts_with('_')) && new.tensor.count() == old.tensor.count()
}

/// As many numbers for the same node.
fn read_alike(old: &Held, new: &Held) -> bool {
    !old.node.is_empty() && new.node == old.node && new.tensor.count() == old.tensor.count()
}

/// A weight for the same node whose numbers share bytes.
fn packed(old: &Held, new: &Held) -> bool {
    let (were, are) = (old.tensor.count(), new.tensor.byte_len());
    let is_packed = (were.div_ceil(8)..were * 2).contains(&are);
    !old.node.is_empty() && new.node == old.node && old.tensor.rank() > 1 && is_packed
}

/// Takes the largest that follows `old` out of `new`, integers before floats.
fn take<'a>(
    new: &mut [Option<Held<'a>>],
    old: &Held,
    follows: fn(&Held, &Held) -> bool,
) -> Option<Held<'a>> {
    let fits = |n: &Held| n.is_grid == old.is_grid && follows(old, n);
    let all = new.iter_mut().filter(|n| n.as_ref().is_some_and(fits));
    let key = |n: &Held| (!n.tensor.dtype().is_float(), n.tensor.byte_len());
    all.max_by_key(|n| n.as_ref().map(key))?.take()
}

fn row(before: Option<&Held>, after: Option<&Held>) -> TensorRow {
    let stored = |h: &Held| Stored {
        dtype: h.tensor.dtype().to_string(),
        shape: Shape::fixed(h.tensor.dims()).to_string(),
        bytes: h.tensor.byte_len() as u64,
    };
    let text = |part: for<'a> fn(&Held<'a>) -> &'a str| {
        let held = before.or(after);
        held.map_or_else(String::new, |h| part(h).to_owned())
    };
    TensorRow {
        name: text(|h| h.name),
        node: text(|h| h.node),
        before: before.map(stored),
        after: after.map(stored),
    }
}

/// The constants that something reads, those of nodes and of graphs inside nodes too.
fn held(graph: &Graph) -> Vec<Held<'_>> {
    let is_read = |v: ValueId| !graph.value(v).consumers().is_empty() || graph.is_output(v);
    let captured = graph.captured();
    let own = graph
        .values()
        .filter(|(v, _)| is_read(*v) || captured.contains(v));
    let own = own.filter_map(|(v, value)| {
        let tensor = value.constant.as_ref().or_else(|| made(graph, v))?;
        Some(Held {
            name: &value.name,
            node: reader(graph, v),
            tensor,
            is_grid: is_grid(graph, v),
        })
    });
    let inner = graph
        .nodes()
        .flat_map(|(_, n)| n.subgraphs())
        .flat_map(held);
    own.chain(inner).collect()
}

/// What a Constant node makes.
fn made(graph: &Graph, v: ValueId) -> Option<&Tensor> {
    match graph
        .node(graph.producer_is(v, "Constant")?)
        .attribute("value")?
    {
        Attribute::Tensor(t) => Some(t),
        _ => None,
    }
}

fn is_grid(graph: &Graph, v: ValueId) -> bool {
    graph.value(v).consumers().first().is_some_and(|&(id, i)| {
        let op = graph.node(id).op.as_str();
        i > 0 && (op == "DequantizeLinear" || op == "QuantizeLinear")
    })
}

/// The name of the node that a value is for: the first that reads it and does more than change its
/// form.
fn reader(graph: &Graph, mut v: ValueId) -> &str {
    loop {
        let Some(&(id, _)) = graph.value(v).consumers().first() else {
            return "";
        };
        let node = graph.node(id);
        match node.output(0) {
            Some(next) if BETWEEN.contains(&node.op.as_str()) => v = next,
            _ => return &node.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;

    #[test]
    fn weights_and_biases_find_what_they_became() {
        let before = text::parse(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,3]) {\n  w: f32[2,3] = {1,2,3,4,5,6}\n  \
             b: f32[3] = {1,2,3}\n  k: f32[1] = {2}\n  h = Mul(x, k) {name=\"s\"}\n  \
             y = Gemm(h, w, b) {name=\"m\"}\n}\n",
        );
        let after = text::parse(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,3]) {\n  q: i8[2,3] = {1,2,3,4,5,6}\n  \
             q_scale: f32[3] = {1,1,1}\n  c: i32[3] = {1,2,3}\n  c_scale: f32[3] = {1,1,1}\n  \
             k: f32[1] = {2}\n  h = Mul(x, k) {name=\"s\"}\n  w2 = DequantizeLinear(q, q_scale)\n  \
             b2 = DequantizeLinear(c, c_scale)\n  y = Gemm(h, w2, b2) {name=\"m\"}\n}\n",
        );
        let (before, after) = (
            before.expect("it is a model"),
            after.expect("it is a model"),
        );
        let rows = rows(&before.graph, &after.graph);
        let dtype = |s: &Option<Stored>| s.as_ref().map_or("none".into(), |s| s.dtype.clone());
        let mut told: Vec<String> = rows
            .iter()
            .map(|r| format!("{} {} {}", r.name, dtype(&r.before), dtype(&r.after)))
            .collect();
        assert_eq!(told[0], "w f32 i8");
        told.sort();
        let expected = [
            "b f32 i32",
            "c_scale none f32",
            "k f32 f32",
            "q_scale none f32",
            "w f32 i8",
        ];
        assert_eq!(told, expected);
        assert!(rows.iter().all(|r| r.node == "m" || r.name == "k"));
    }
}
