//! Joins the nodes between the projections of attention and its result to one node.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph};
use crate::quantization::{Grid, copy};
use crate::rewrite::{Editor, Scope, nodes_of, shape};

mod mask;
mod operand;
mod projection;

use mask::Hidden;
use operand::{Operand, Role, Rows};
use projection::Projections;

/// Reshape and Transpose by head, the scaled product of queries and keys, a mask, Softmax, the
/// product with the values, Transpose and Reshape back, as PyTorch, Optimum and TensorFlow
/// exporters spell it. Where queries, keys and values are products of one input with constant
/// weights, these are merged and the node is Attention; else MultiHeadAttention. A mask computed
/// from one of zeros and ones by sentence and key becomes that mask; others are added as they are.
/// A QuantizeLinear before the last Transpose comes behind the node.
/// Answers agree within 1e-4 relative.
pub static PASS: Pass = Pass {
    name: "fuse_attention",
    about: "join scaled products, mask and softmax to Attention or MultiHeadAttention",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let softmaxes = nodes_of(graph, &["Softmax"]);
        if softmaxes.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in softmaxes {
            changes += usize::from(fuse(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

/// The scores before the softmax.
struct Scores {
    query: ValueId,
    key: ValueId,
    product: ValueId,
    scale: f64,
    hidden: Hidden,
}

/// What `v` is computed from, where it is scores; the nodes between join the group.
fn scores(g: &mut Group, v: ValueId) -> Option<Scores> {
    if let Some(id) = g.take(v, &["MatMul"]) {
        return Some(Scores {
            query: g.node(id).input(0)?,
            key: g.node(id).input(1)?,
            product: v,
            scale: 1.0,
            hidden: Hidden::Nothing,
        });
    }
    let id = g.take(v, &["Mul", "Div", "Add", "Where"])?;
    let node = g.node(id);
    if matches!(node.op.as_str(), "Mul" | "Div") {
        let (x, factor) = g.with_scalar(id)?;
        let mut found = scores(g, x)?;
        let plain = matches!(found.hidden, Hidden::Nothing);
        let is_divisor = node.op == "Div" && node.input(0) == Some(x);
        if !plain || (node.op == "Div" && !is_divisor) {
            return None;
        }
        found.scale *= if node.op == "Div" {
            1.0 / factor
        } else {
            factor
        };
        return Some(found);
    }
    let sides = if node.op == "Add" { [0, 1] } else { [1, 2] };
    for (own, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
        let mut trial = g.clone();
        let Some(mut found) = node.input(own).and_then(|v| scores(&mut trial, v)) else {
            continue;
        };
        if !matches!(found.hidden, Hidden::Nothing) {
            return None;
        }
        let other = node.input(other)?;
        found.hidden = if node.op == "Add" {
            Hidden::Added(other)
        } else {
            Hidden::where_(g, node.input(0)?, own == 1, other)?
        };
        *g = trial;
        return Some(found);
    }
    None
}

/// Attention as far as it is found.
struct Found {
    nodes: Vec<NodeId>,
    operands: [Operand; 3],
    scale: f64,
    hidden: Hidden,
    product: ValueId,
    /// What rounds the product with the values, before the last Transpose and Reshape.
    rounds: Option<NodeId>,
    /// The last Reshape and its output.
    last: (NodeId, ValueId),
}

fn find(editor: &Editor, softmax: NodeId, types: &Inferred, opset: i64) -> Option<Found> {
    let mut g = Group::new(editor, types);
    g.nodes.push(softmax);
    let node = g.node(softmax);
    let default = if opset < 13 { 1 } else { -1 };
    if !matches!(node.int("axis").unwrap_or(default), -1 | 3) {
        return None;
    }
    let (from, weights) = (node.input(0)?, node.output(0)?);
    let dtype = g.dtype(from)?;
    if g.shape(from)?.rank() != 4 || !matches!(dtype, DType::F32 | DType::F16) {
        return None;
    }
    let scores = scores(&mut g, from)?;
    let product = g.reader(weights, &["MatMul"])?;
    if g.node(product).input(0) != Some(weights) {
        return None;
    }
    let value = g.node(product).input(1)?;
    let mut answers = g.node(product).output(0)?;
    let rounds = g.reader(answers, &["QuantizeLinear"]);
    if let Some(id) = rounds {
        answers = g.node(id).output(0)?;
        let grid = Grid::of(editor, id, answers, types)?;
        grid.axis.is_none().then_some(())?;
    }
    let turn = g.reader(answers, &["Transpose"])?;
    if g.node(turn).ints("perm") != Some(&[0, 2, 1, 3]) {
        return None;
    }
    let turned = g.node(turn).output(0)?;
    let last = g.reader(turned, &["Reshape"])?;
    let q = operand::find(&mut g, scores.query, Role::Query)?;
    let k = operand::find(&mut g, scores.key, Role::Key)?;
    let v = operand::find(&mut g, value, Role::Value)?;
    if q.heads != k.heads || q.heads != v.heads || q.size != k.size || v.scale != 1.0 {
        return None;
    }
    let result = g.node(last).output(0)?;
    Some(Found {
        scale: scores.scale * q.scale * k.scale,
        operands: [q, k, v],
        hidden: scores.hidden,
        product: scores.product,
        rounds,
        last: (last, result),
        nodes: g.closed(&[result])?,
    })
}

fn fuse(editor: &mut Editor, softmax: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let found = find(editor, softmax, types, scope.opset())?;
    let merged = projection::find(editor, types, &found.operands, &found.nodes);
    let merged = merged.filter(|_| found.hidden.suits_attention(editor, types));
    let width = found.operands[2].heads * found.operands[2].size;
    let result = shape(types, found.last.1)?;
    let rounds = found.rounds.map(|id| editor.graph.node(id).clone());
    let is_whole = result.rank() == 3 && result[2].known() == Some(width);
    let target = editor.graph.node(found.last.0).input(1)?;
    let source = editor.graph.value(target).producer();
    if !is_whole && source.is_some_and(|(id, _)| found.nodes.contains(&id)) {
        return None;
    }
    let name = editor.graph.value(found.last.1).name.clone();
    let (Rows::Plain(query) | Rows::ByHead(query)) = found.operands[0].rows;
    let query = merged.as_ref().map_or(query, |p| p.x);
    let scores = [found.product, query];
    let hidden = found.hidden.write(editor, types, scores, scope)?;
    let mut node = Node::new("", "")
        .in_domain(MICROSOFT)
        .with("num_heads", Attribute::Int(found.operands[0].heads as i64))
        .with("scale", Attribute::Float(found.scale as f32));
    if let Some(filter) = hidden.filter {
        node.set("mask_filter_value", Attribute::Float(filter as f32));
    }
    let mut nodes = found.nodes.clone();
    let inputs = match merged {
        Some(projections) => {
            node.op = "Attention".into();
            nodes.extend(&projections.nodes);
            attention_inputs(editor, &mut node, projections, &hidden, &name, scope)
        }
        None => {
            node.op = "MultiHeadAttention".into();
            let mut inputs = Vec::new();
            for operand in &found.operands {
                inputs.push(Some(operand.rows.write(editor, scope)));
            }
            inputs.extend([None, hidden.mask, hidden.bias]);
            inputs
        }
    };
    let mut last = found.last.1;
    if rounds.is_some() {
        let floats = scope.names.fresh(&format!("{name}_floats"));
        last = editor.graph.add_value(&floats, None);
        editor.graph.set_output(found.last.0, 0, Some(last));
    }
    if is_whole {
        editor.fuse(&nodes, node, &inputs, &[Some(last)]);
        round(editor, rounds, last, found.last.1);
        return Some(());
    }
    // The Reshape stays, and takes heads and their elements as one axis.
    nodes.retain(|&id| id != found.last.0);
    let joined = editor
        .graph
        .add_value(&scope.names.fresh(&format!("{name}_heads")), None);
    editor.graph.set_input(found.last.0, 0, Some(joined));
    node.name.clone_from(&editor.graph.node(softmax).name);
    for &id in &nodes {
        editor.graph.remove_node(id);
    }
    let end = inputs
        .iter()
        .rposition(Option::is_some)
        .map_or(0, |i| i + 1);
    editor.graph.add_node(node, &inputs[..end], &[Some(joined)]);
    round(editor, rounds, last, found.last.1);
    Some(())
}

/// Writes the QuantizeLinear that was found, from `floats` to `integers`.
fn round(editor: &mut Editor, found: Option<Node>, floats: ValueId, integers: ValueId) {
    if let Some(found) = found {
        let inputs = [&[Some(floats)], &found.inputs()[1..]].concat();
        editor
            .graph
            .add_node(copy(&found), &inputs, &[Some(integers)]);
    }
}

fn attention_inputs(
    editor: &mut Editor,
    node: &mut Node,
    projections: Projections,
    hidden: &mask::Written,
    name: &str,
    scope: &mut Scope,
) -> Vec<Option<ValueId>> {
    let widths = projections.widths;
    if widths.iter().any(|&w| w != widths[0]) {
        let sizes = widths.iter().map(|&w| w as i64).collect();
        node.set("qkv_hidden_sizes", Attribute::Ints(sizes));
    }
    let mut constant = |what: &str, data: Tensor| {
        let name = scope.names.fresh(&format!("{name}_qkv_{what}"));
        editor.graph.add_constant(&name, data)
    };
    let weight = constant("weight", projections.weight);
    let bias = constant("bias", projections.bias);
    vec![
        Some(projections.x),
        Some(weight),
        Some(bias),
        hidden.mask,
        None,
        hidden.bias,
    ]
}

/// The rows of an operand as a value of three axes.
impl Rows {
    fn write(self, editor: &mut Editor, scope: &mut Scope) -> ValueId {
        match self {
            Rows::Plain(v) => v,
            Rows::ByHead(v) => {
                let name = format!("{}_rows", editor.graph.value(v).name);
                let name = scope.names.fresh(&name);
                let target = Tensor::vector(vec![0i64, 0, -1]);
                let target = editor
                    .graph
                    .add_constant(&scope.names.fresh(&format!("{name}_shape")), target);
                editor
                    .graph
                    .add_op(Node::new("Reshape", &name), &[v, target], &name)
            }
        }
    }
}

#[cfg(test)]
mod tests;
