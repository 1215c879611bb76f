//! Merges nodes that compute the same from the same, and constants that are equal.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use edgesmith_ir::{Attribute, Model, Node, NodeId, Result, Tensor, ValueId, ops};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph};

/// Operators that may differ from run to run, that are unknown, or that have subgraphs are never
/// merged. A merged constant has several readers: whoever changes one for a single node copies it.
/// Zero points of the weights of QLinearConv and QLinearMatMul stay apart: ONNX Runtime refuses a
/// file that shares them where it is asked to sum exactly (`session.x64quantprecision`).
pub static PASS: Pass = Pass {
    name: "merge_duplicates",
    about: "merge equal constants, and nodes that compute the same",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, _| {
        let order = graph.order()?;
        let mut editor = Editor::new(graph);
        let mut changes = merge_constants(&mut editor);
        let mut seen: HashMap<u64, Vec<NodeId>> = HashMap::new();
        for id in order {
            let node = editor.graph.node(id);
            if !is_mergeable(node) {
                continue;
            }
            let bucket = seen.entry(hash_node(node)).or_default();
            let twin = bucket
                .iter()
                .copied()
                .find(|&other| same(editor.graph.node(other), editor.graph.node(id)));
            match twin {
                Some(twin) if merge(&mut editor, twin, id) => changes += 1,
                Some(_) => {}
                None => bucket.push(id),
            }
        }
        Ok(changes)
    })
}

fn merge_constants(editor: &mut Editor) -> usize {
    let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
    let mut pairs = Vec::new();
    for (id, value) in editor.graph.values() {
        let Some(data) = &value.constant else {
            continue;
        };
        let stays = editor.is_unread(id) || editor.is_output(id) || is_weight_zero(editor, id);
        if stays || editor.constant(id).is_none() {
            continue;
        }
        let mut hasher = DefaultHasher::new();
        hash_tensor(data, &mut hasher);
        let bucket = seen.entry(hasher.finish()).or_default();
        let twin = bucket
            .iter()
            .find(|&&other| editor.graph.value(other).constant.as_ref() == Some(data));
        match twin {
            Some(&twin) => pairs.push((id, twin)),
            None => bucket.push(id),
        }
    }
    for &(old, new) in &pairs {
        editor.replace(old, new);
        editor.graph.value_mut(old).constant = None;
    }
    pairs.len()
}

fn is_weight_zero(editor: &Editor, v: ValueId) -> bool {
    let mut readers = editor.graph.value(v).consumers().iter();
    readers.any(|&(id, i)| {
        let node = editor.graph.node(id);
        i == 5 && (node.is("QLinearConv") || node.is("QLinearMatMul"))
    })
}

fn is_mergeable(node: &Node) -> bool {
    ops::find(&node.domain, &node.op).is_some_and(|def| def.deterministic)
        && node.subgraphs().next().is_none()
        && !node
            .attributes
            .iter()
            .any(|(_, a)| matches!(a, Attribute::Opaque(_) | Attribute::Reference(..)))
}

/// The hash of the ends of the data: equal tensors hash alike, long ones quickly.
fn hash_tensor(t: &Tensor, state: &mut DefaultHasher) {
    const END: usize = 4096;
    t.dtype().hash(state);
    t.dims().hash(state);
    let bytes = t.bytes();
    bytes[..bytes.len().min(END)].hash(state);
    bytes[bytes.len().saturating_sub(END)..].hash(state);
    if let Ok(strings) = t.strings() {
        strings.hash(state);
    }
}

fn hash_node(node: &Node) -> u64 {
    let mut state = DefaultHasher::new();
    node.domain.hash(&mut state);
    node.op.hash(&mut state);
    node.inputs().hash(&mut state);
    for (name, attribute) in &node.attributes {
        name.hash(&mut state);
        match attribute {
            Attribute::Float(x) => x.to_bits().hash(&mut state),
            Attribute::Floats(v) => v.iter().for_each(|x| x.to_bits().hash(&mut state)),
            Attribute::Int(i) => i.hash(&mut state),
            Attribute::Ints(v) => v.hash(&mut state),
            Attribute::String(s) => s.hash(&mut state),
            Attribute::Tensor(t) => hash_tensor(t, &mut state),
            _ => {}
        }
    }
    state.finish()
}

fn same(a: &Node, b: &Node) -> bool {
    a.op == b.op
        && a.domain == b.domain
        && a.overload == b.overload
        && a.inputs() == b.inputs()
        && a.attributes == b.attributes
        && bits(a) == bits(b)
}

/// The floats among the attributes, bit by bit: −0.0 is not 0.0.
fn bits(node: &Node) -> Vec<u32> {
    let mut bits = Vec::new();
    for (_, attribute) in &node.attributes {
        match attribute {
            Attribute::Float(x) => bits.push(x.to_bits()),
            Attribute::Floats(v) => bits.extend(v.iter().map(|x| x.to_bits())),
            _ => {}
        }
    }
    bits
}

/// Lets `first` do the work of `second`; false where a graph output stands in the way.
fn merge(editor: &mut Editor, first: NodeId, second: NodeId) -> bool {
    let made = |editor: &Editor, id| editor.graph.node(id).outputs().to_vec();
    let (kept, gone) = (made(editor, first), made(editor, second));
    let mut pairs = Vec::new();
    for (i, old) in gone.iter().enumerate() {
        let Some(old) = *old else { continue };
        match kept.get(i).copied().flatten() {
            Some(new) if !editor.is_output(old) => pairs.push((old, new)),
            _ => return false,
        }
    }
    editor.graph.remove_node(second);
    for (old, new) in pairs {
        editor.replace(old, new);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn equal_nodes_on_equal_constants_become_one() {
        let text = "opset 17
            graph g(x: f32[2]) -> (z: f32[2]) {
              v: f32[2] = {1,2}
              w: f32[2] = {1,2}
              a = Add(x, v)
              b = Add(x, w)
              z = Mul(a, b)
            }";
        assert_eq!(left(&PASS, text), ["Add", "Mul"]);
    }

    #[test]
    fn other_attributes_other_inputs_and_outputs_keep_nodes_apart() {
        let text = "opset 17
            graph g(x: f32[2]) -> (z: f32[2], o: f32[2]) {
              a = LeakyRelu(x) {alpha=0.0}
              b = LeakyRelu(x) {alpha=-0.0}
              c = Add(a, b)
              z = Relu(c)
              o = Relu(c)
            }";
        let ops = left(&PASS, text);
        assert_eq!(ops, ["LeakyRelu", "LeakyRelu", "Add", "Relu", "Relu"]);
    }
}
