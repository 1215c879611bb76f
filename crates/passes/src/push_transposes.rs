//! Moves Transposes behind what works element by element, to where they meet and cancel.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, Model, NodeId, Result, Tensor, ValueId};

use crate::merge_transposes::order;
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Names, each_graph, nodes_of};

/// A Transpose moves behind the only node that reads it, where that is a function of single
/// elements, a Softmax, a Pad, or a sum, product or Concat whose other operands are constants along
/// one axis or turned alike; only where another Transpose, or such a joint, comes next. Bit for bit.
pub static PASS: Pass = Pass {
    name: "push_transposes",
    about: "move Transposes to where they join or cancel",
    level: Level::Layout,
    run,
};

/// Functions of single elements; what else they read has one element.
const SINGLE: &[&str] = &[
    "Abs",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
];

const PAIRS: &[&str] = &["Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"];

/// No Transpose is moved past more nodes than this at a time.
const MAX_STEPS: usize = 64;

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let transposes = nodes_of(graph, &["Transpose"]);
        if transposes.len() < 2 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let opset = scope.opset();
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in transposes {
            let mut push = Push {
                editor: &mut editor,
                types: &types,
                names: scope.names,
                opset,
            };
            changes += push.far(id).unwrap_or(0);
        }
        Ok(changes)
    })
}

struct Push<'p, 'g> {
    editor: &'p mut Editor<'g>,
    types: &'p Inferred,
    names: &'p mut Names,
    opset: i64,
}

/// How a Transpose gets past a node.
enum Way {
    /// Nothing else changes.
    Freely,
    /// The axis of the node is another one.
    Axis(i64),
    /// The padding of each axis.
    Pads(Vec<i64>),
    /// The constant at this input has other dimensions.
    Constant(usize, Tensor),
    /// All inputs come from Transposes of one order; an axis, where the node has one.
    Joint(Option<i64>),
}

impl Push<'_, '_> {
    /// Moves the Transpose as far as it pays; how far.
    fn far(&mut self, id: NodeId) -> Option<usize> {
        self.editor.graph.get_node(id)?;
        let perm = order(self.editor, id, self.types)?;
        let is_whole = (0..perm.len()).all(|axis| perm.contains(&axis));
        if !is_whole || !self.pays(id, &perm) {
            return None;
        }
        let mut steps = 0;
        while steps < MAX_STEPS && self.step(id, &perm).is_some() {
            steps += 1;
        }
        Some(steps)
    }

    /// The only reader of what `id` makes, and at which input.
    fn reader(&self, id: NodeId) -> Option<(NodeId, usize)> {
        let made = self.editor.graph.node(id).output(0)?;
        let reader = *self.editor.graph.value(made).consumers().first()?;
        self.editor.has_one_reader(made).then_some(reader)
    }

    /// True where a Transpose or a joint follows, past nodes that it can be moved behind.
    fn pays(&self, id: NodeId, perm: &[usize]) -> bool {
        let mut at = id;
        for _ in 0..MAX_STEPS {
            let Some((reader, input)) = self.reader(at) else {
                return false;
            };
            if self.editor.graph.node(reader).is("Transpose") {
                return true;
            }
            match self.way(reader, input, perm) {
                Some(Way::Joint(_)) => return true,
                Some(_) => at = reader,
                None => return self.joins_later(reader, perm),
            }
        }
        false
    }

    /// True where every input of a node is turned by `perm` further up.
    fn joins_later(&self, id: NodeId, perm: &[usize]) -> bool {
        let node = self.editor.graph.node(id);
        let joins = node.is("Concat") || PAIRS.iter().any(|op| node.is(op));
        let inputs = node.inputs();
        joins
            && inputs
                .iter()
                .all(|v| v.is_some_and(|v| self.is_turned(v, perm)))
    }

    fn is_turned(&self, mut v: ValueId, perm: &[usize]) -> bool {
        for _ in 0..MAX_STEPS {
            let Some((id, 0)) = self.editor.graph.value(v).producer() else {
                return false;
            };
            if !self.editor.has_one_reader(v) {
                return false;
            }
            let node = self.editor.graph.node(id);
            if node.is("Transpose") {
                return order(self.editor, id, self.types).as_deref() == Some(perm);
            }
            let Some(source) = node.input(0) else {
                return false;
            };
            if !matches!(
                self.way(id, 0, perm),
                Some(Way::Freely | Way::Axis(_) | Way::Constant(..) | Way::Pads(_))
            ) {
                return false;
            }
            v = source;
        }
        false
    }

    fn step(&mut self, id: NodeId, perm: &[usize]) -> Option<()> {
        let (reader, input) = self.reader(id)?;
        let way = self.way(reader, input, perm)?;
        self.editor.graph.node(id).input(0)?;
        self.editor.graph.node(reader).output(0)?;
        if self.editor.graph.node(reader).outputs().len() != 1 {
            return None;
        }
        match way {
            Way::Freely => (),
            Way::Axis(axis) => {
                let node = self.editor.graph.node_mut(reader);
                node.set("axis", Attribute::Int(axis));
            }
            Way::Pads(pads) if self.opset < 11 => {
                let node = self.editor.graph.node_mut(reader);
                node.set("pads", Attribute::Ints(pads));
            }
            Way::Pads(pads) => {
                let pads = Tensor::vector(pads);
                self.editor
                    .set_constant(reader, 1, pads, "pads", self.names);
            }
            Way::Constant(i, data) => {
                self.editor
                    .set_constant(reader, i, data, "turned", self.names);
            }
            Way::Joint(axis) => {
                if let Some(axis) = axis {
                    let node = self.editor.graph.node_mut(reader);
                    node.set("axis", Attribute::Int(axis));
                }
                self.join(id, reader);
            }
        }
        self.editor.move_behind(id, (reader, input), self.names)
    }

    /// Lets all inputs of `reader` but that from `kept` be what their Transposes read.
    fn join(&mut self, kept: NodeId, reader: NodeId) {
        let inputs = self.editor.graph.node(reader).inputs().to_vec();
        for (i, v) in inputs.into_iter().enumerate() {
            let producer = v.and_then(|v| self.editor.graph.value(v).producer());
            let Some((id, _)) = producer.filter(|(id, _)| *id != kept) else {
                continue;
            };
            let source = self.editor.graph.node(id).input(0);
            self.editor.graph.set_input(reader, i, source);
            self.editor.graph.remove_node(id);
        }
    }

    /// How what is turned by `perm` at input `i` of a node can be turned behind it.
    fn way(&self, id: NodeId, i: usize, perm: &[usize]) -> Option<Way> {
        let node = self.editor.graph.node(id);
        let axis = |from: Option<i64>| {
            let axis = from?;
            let axis = if axis < 0 {
                axis + perm.len() as i64
            } else {
                axis
            };
            Some(*perm.get(usize::try_from(axis).ok()?)? as i64)
        };
        if i == 0 && SINGLE.iter().any(|op| node.is(op)) {
            return Some(Way::Freely);
        }
        if (node.is("Softmax") || node.is("LogSoftmax")) && self.opset >= 13 {
            return Some(Way::Axis(axis(node.int("axis").or(Some(-1)))?));
        }
        if node.is("Pad") && i == 0 && node.input(3).is_none() {
            let pads = self.editor.ints(id, "pads", 1)?;
            let n = perm.len();
            let mut turned = vec![0; 2 * n];
            for (k, &p) in perm.iter().enumerate() {
                (turned[p], turned[n + p]) = (*pads.get(k)?, *pads.get(n + k)?);
            }
            return Some(Way::Pads(turned));
        }
        let is_pair = PAIRS.iter().any(|op| node.is(op)) && node.inputs().len() == 2;
        if is_pair && self.opset >= 7 {
            let other = node.input(1 - i)?;
            if let Some(data) = self.editor.constant(other) {
                return Some(Way::Constant(1 - i, along_one_axis(data, perm)?));
            }
        }
        let joins = is_pair && self.opset >= 7 || node.is("Concat");
        let alike = |v: &Option<ValueId>| {
            let id = self.turner((*v)?)?;
            (order(self.editor, id, self.types).as_deref() == Some(perm)).then_some(())
        };
        let all = node.inputs().len() > 1 && node.inputs().iter().all(|v| alike(v).is_some());
        if !joins || !all {
            return None;
        }
        match node.is("Concat") {
            true => Some(Way::Joint(Some(axis(node.int("axis"))?))),
            false => Some(Way::Joint(None)),
        }
    }

    /// The Transpose that makes `v` for one reader.
    fn turner(&self, v: ValueId) -> Option<NodeId> {
        let (id, 0) = self.editor.graph.value(v).producer()? else {
            return None;
        };
        let is_turner = self.editor.graph.node(id).is("Transpose") && self.editor.has_one_reader(v);
        is_turner.then_some(id)
    }
}

/// A constant that differs along one axis at most, as it is before the axes are turned by `perm`.
fn along_one_axis(data: &Tensor, perm: &[usize]) -> Option<Tensor> {
    let dims = data.dims();
    let missing = perm.len().checked_sub(dims.len())?;
    let long = dims.iter().filter(|&&n| n != 1).count();
    if long > 1 {
        return None;
    }
    let mut turned = vec![1; perm.len()];
    for (k, &n) in dims.iter().enumerate() {
        turned[perm[missing + k]] = n;
    }
    data.reshaped(&turned).ok()
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(body: &str) -> Vec<String> {
        let text = format!(
            "opset 17\ngraph g(x: f32[2,3,4,5], z: f32[2,3,4,5]) -> (y) {{
               bias: f32[3] = {{1,2,3}}
               grid: f32[5,3] = {{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}
               pads: i64[8] = {{0,1,0,2,0,0,3,0}}
               low: f32[] = {{0.5}}
               a = Transpose(x) {{perm=[0,2,3,1]}}
               {body}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn a_transpose_moves_to_the_next() {
        for body in [
            "b = Relu(a)",
            "b = Clip(a, low)",
            "b = Add(a, bias)",
            "b = Sub(bias, a)",
            "b = Mul(a, low)",
            "b = Pad(a, pads)",
            "b = Softmax(a) {axis=-1}",
        ] {
            let ops = around(&format!("{body}\ny = Transpose(b) {{perm=[0,3,1,2]}}"));
            assert_eq!(ops[1..], ["Transpose", "Transpose"], "{body}");
        }
    }

    #[test]
    fn two_that_meet_become_one() {
        let other = "c = Transpose(z) {perm=[0,2,3,1]}\n";
        for body in [
            "y = Mul(a, c)",
            "y = Concat(a, c) {axis=3}",
            "b = Tanh(a)\ny = Concat(b, c) {axis=-2}",
            "b = Tanh(a)\nd = Abs(c)\ny = Add(d, b)",
        ] {
            let ops = around(&format!("{other}{body}"));
            let turns = ops.iter().filter(|op| *op == "Transpose").count();
            assert_eq!(
                (turns, ops.last().unwrap().as_str()),
                (1, "Transpose"),
                "{body}"
            );
        }
    }

    #[test]
    fn what_gains_nothing_stays() {
        for body in [
            "y = Relu(a)",
            "b = Add(a, grid)\ny = Transpose(b) {perm=[0,3,1,2]}",
            "b = Relu(a)\nc = Transpose(b) {perm=[0,3,1,2]}\ny = Add(c, x)\nd = Abs(a)\n",
            "c = Transpose(z) {perm=[0,3,2,1]}\nd = Transpose(c) {perm=[0,2,1,3]}\ny = Sub(a, d)",
        ] {
            assert_eq!(around(body)[0], "Transpose", "{body}");
        }
    }
}
