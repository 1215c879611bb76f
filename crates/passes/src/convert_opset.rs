//! Raises the opset of a model: operators whose form changed are written in the new form.
//!
//! The list of changes is [`UPGRADES`]. An operator that is not in it means the same before and
//! after, as ONNX's change log (Changelog.md) says for opsets 7 to 21.

use edgesmith_ir::error::At;
use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Error, Graph, Model, Node, NodeId, Result, Tensor, ValueId};
use half::f16;

use crate::pass::PassCx;
use crate::rewrite::{Names, each_graph, nodes_of, rank, tensor_type};

/// The oldest opset that can be raised.
pub const OLDEST: i64 = 7;
/// The newest opset that can be reached.
pub const NEWEST: i64 = 21;

/// A change of an operator's form.
pub struct Upgrade {
    /// The operator.
    pub op: &'static str,
    /// The opset that brought the new form.
    pub since: i64,
    apply: fn(&mut Site) -> Result<()>,
}

/// A node to be rewritten.
struct Site<'a> {
    graph: &'a mut Graph,
    id: NodeId,
    types: Option<&'a Inferred>,
    names: &'a mut Names,
    /// The opset that is aimed at.
    to: i64,
}

const fn row(op: &'static str, since: i64, apply: fn(&mut Site) -> Result<()>) -> Upgrade {
    Upgrade { op, since, apply }
}

/// Every change, in the order in which opsets brought them.
pub static UPGRADES: &[Upgrade] = &[
    row("BatchNormalization", 9, plain_norm),
    row("Scan", 9, |_| refuse("its batch axis went in opset 9")),
    row("Upsample", 9, |s| s.move_to_input("scales", 1, floats)),
    row("Slice", 10, slice),
    row("TopK", 10, |s| s.move_to_input("k", 1, ints)),
    row("Upsample", 10, upsample),
    row("Clip", 11, clip),
    row("Pad", 11, pad),
    row("Resize", 11, resize),
    row("Scatter", 11, |s| s.rename("ScatterElements")),
    row("Dropout", 12, |s| s.drop("ratio")),
    row("Hardmax", 13, flat_softmax),
    row("LogSoftmax", 13, flat_softmax),
    row("ReduceSum", 13, |s| s.move_to_input("axes", 1, ints)),
    row("Softmax", 13, flat_softmax),
    row("Split", 13, |s| s.move_to_input("split", 1, ints)),
    row("Squeeze", 13, |s| s.move_to_input("axes", 1, ints)),
    row("Unsqueeze", 13, |s| s.move_to_input("axes", 1, ints)),
    row("BatchNormalization", 14, one_output),
    row("ReduceL1", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceL2", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceLogSum", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceLogSumExp", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceMax", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceMean", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceMin", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceProd", 18, |s| s.move_to_input("axes", 1, ints)),
    row("ReduceSumSquare", 18, |s| s.move_to_input("axes", 1, ints)),
    row("Split", 18, count_outputs),
    row("DFT", 20, |_| {
        refuse("its axis became an input in opset 20")
    }),
    row("GridSample", 20, grid_modes),
    row("GroupNormalization", 21, |_| {
        refuse("its scale is by channel since opset 21")
    }),
];

/// Raises the opset of the default domain to `to`; how many nodes were rewritten. Functions of
/// the model have opsets of their own and stay.
///
/// # Errors
/// When `to` is lower than the model's opset, one of both is outside [`OLDEST`] to [`NEWEST`], or
/// a node cannot be written in the new form; the model is unusable then.
pub fn convert_opset(model: &mut Model, to: i64) -> Result<usize> {
    let from = model.opset();
    if from == to {
        return Ok(0);
    }
    if to < from {
        return Err(Error::unsupported(format!(
            "opset {from} cannot be lowered to {to}"
        )));
    }
    if from < OLDEST || to > NEWEST {
        return Err(Error::unsupported(format!(
            "opset {from} cannot be raised to {to}, only {OLDEST} to {NEWEST} are known"
        )));
    }
    let due = |u: &&Upgrade| from < u.since && u.since <= to;
    let cx = PassCx::new(&edgesmith_ir::NoProgress);
    let changes = each_graph(model, &cx, &mut |graph, scope| {
        let types = scope.infer(graph).ok();
        let mut changes = 0;
        for upgrade in UPGRADES.iter().filter(due) {
            for id in nodes_of(graph, &[upgrade.op]) {
                let place = graph.node(id).place();
                let names = &mut *scope.names;
                let mut site = Site {
                    graph,
                    id,
                    types: types.as_deref(),
                    names,
                    to,
                };
                (upgrade.apply)(&mut site).at(|| place)?;
                changes += 1;
            }
        }
        Ok(changes)
    })?;
    model.opsets.insert(String::new(), to);
    model.ir_version = model.ir_version.max(ir_version(to));
    Ok(changes)
}

/// The IR version that came with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

fn refuse(reason: &str) -> Result<()> {
    Err(Error::unsupported(format!(
        "the node cannot be converted: {reason}"
    )))
}

fn ints(a: &Attribute) -> Option<Tensor> {
    match a {
        Attribute::Ints(v) => Some(Tensor::vector(v.clone())),
        Attribute::Int(i) => Some(Tensor::vector(vec![*i])),
        _ => None,
    }
}

fn floats(a: &Attribute) -> Option<Tensor> {
    match a {
        Attribute::Floats(v) => Some(Tensor::vector(v.clone())),
        _ => None,
    }
}

fn text(t: &'static str) -> Attribute {
    Attribute::String(bytes::Bytes::from_static(t.as_bytes()))
}

impl Site<'_> {
    fn node(&self) -> &Node {
        self.graph.node(self.id)
    }

    fn take(&mut self, name: &str) -> Option<Attribute> {
        let attributes = &mut self.graph.node_mut(self.id).attributes;
        let i = attributes.iter().position(|(n, _)| n == name)?;
        Some(attributes.remove(i).1)
    }

    fn drop(&mut self, name: &str) -> Result<()> {
        self.take(name);
        Ok(())
    }

    fn rename(&mut self, op: &str) -> Result<()> {
        self.graph.node_mut(self.id).op = op.into();
        Ok(())
    }

    fn constant(&mut self, name: &str, data: Tensor) -> ValueId {
        let name = self.names.fresh(&format!("{}_{name}", self.node().name));
        self.graph.add_constant(&name, data)
    }

    /// Lets an attribute that is given become input `i`.
    fn move_to_input(
        &mut self,
        name: &str,
        i: usize,
        read: fn(&Attribute) -> Option<Tensor>,
    ) -> Result<()> {
        let Some(attribute) = self.take(name) else {
            return Ok(());
        };
        let data = read(&attribute).ok_or_else(|| {
            Error::invalid(format!(
                "attribute \"{name}\" has a type that it cannot have"
            ))
        })?;
        let v = self.constant(name, data);
        self.graph.set_input(self.id, i, Some(v));
        Ok(())
    }

    /// A scalar of the element type of the first input.
    fn scalar_like_input(&self, x: f32) -> Tensor {
        let input = self.node().input(0);
        let dtype = input.and_then(|v| Some(tensor_type(self.types?, v)?.dtype));
        match dtype {
            Some(DType::F16) => Tensor::scalar(f16::from_f32(x)),
            Some(DType::F64) => Tensor::scalar(f64::from(x)),
            _ => Tensor::scalar(x),
        }
    }

    /// Whether some axis becomes longer, and whether some becomes shorter; `None` where that is not
    /// known.
    fn shrinks(&self, scales: Option<ValueId>) -> Option<[bool; 2]> {
        if let Some(scales) = self.graph.constant(scales?) {
            let scales = scales.to_f32().ok()?;
            return Some([
                scales.iter().any(|&s| s > 1.0),
                scales.iter().any(|&s| s < 1.0),
            ]);
        }
        let shape = |v: Option<ValueId>| tensor_type(self.types?, v?)?.shape.as_ref();
        let (x, y) = (shape(self.node().input(0))?, shape(self.node().output(0))?);
        let mut found = [false; 2];
        for (x, y) in x.iter().zip(y.iter()).filter(|(x, y)| !x.same(y)) {
            let (x, y) = (x.known()?, y.known()?);
            found = [found[0] || y > x, found[1] || y < x];
        }
        Some(found)
    }

    fn scalar_input(&mut self, name: &str, i: usize) -> Result<()> {
        if let Some(Attribute::Float(x)) = self.take(name) {
            let v = self.constant(name, self.scalar_like_input(x));
            self.graph.set_input(self.id, i, Some(v));
        }
        Ok(())
    }
}

fn plain_norm(s: &mut Site) -> Result<()> {
    if s.node().int("spatial") == Some(0) {
        return refuse("statistics for each position went in opset 9");
    }
    s.drop("spatial")
}

fn one_output(s: &mut Site) -> Result<()> {
    if s.node().outputs().iter().skip(1).flatten().next().is_some() {
        return refuse("it trains");
    }
    Ok(())
}

fn slice(s: &mut Site) -> Result<()> {
    s.move_to_input("starts", 1, ints)?;
    s.move_to_input("ends", 2, ints)?;
    s.move_to_input("axes", 3, ints)
}

fn clip(s: &mut Site) -> Result<()> {
    s.scalar_input("min", 1)?;
    s.scalar_input("max", 2)
}

fn pad(s: &mut Site) -> Result<()> {
    s.move_to_input("pads", 1, ints)?;
    s.scalar_input("value", 2)
}

/// Upsample makes axes longer only, whatever its scales.
fn upsample(s: &mut Site) -> Result<()> {
    if s.to > 10 {
        s.graph.node_mut(s.id).set("nearest_mode", text("floor"));
    }
    s.rename("Resize")
}

/// Opset 10 samples at `i / scale`; its nearest element is the one before where an axis becomes
/// longer, and the one after where it becomes shorter, as in ONNX Runtime.
fn resize(s: &mut Site) -> Result<()> {
    let scales = s.node().input(1);
    let is_nearest = !matches!(s.node().string("mode"), Some(mode) if mode != "nearest");
    let is_upsample = s.node().attribute("nearest_mode").is_some();
    let rounding = match (is_nearest && !is_upsample, s.shrinks(scales)) {
        (false, _) => "floor",
        (true, Some([_, false])) => "floor",
        (true, Some([false, true])) => "ceil",
        (true, Some([true, true])) => {
            return refuse("it makes one axis longer and another shorter");
        }
        (true, None) => return refuse("whether it makes axes longer or shorter is not known"),
    };
    let roi = s.constant("roi", Tensor::vector(Vec::<f32>::new()));
    s.graph.set_input(s.id, 2, scales);
    s.graph.set_input(s.id, 1, Some(roi));
    let node = s.graph.node_mut(s.id);
    node.set("coordinate_transformation_mode", text("asymmetric"));
    node.set("nearest_mode", text(rounding));
    Ok(())
}

/// Before opset 13 the axes from `axis` on count as one: flatten them, and shape them back.
fn flat_softmax(s: &mut Site) -> Result<()> {
    let axis = s.node().int("axis").unwrap_or(1);
    let (Some(x), Some(y)) = (s.node().input(0), s.node().output(0)) else {
        return Ok(());
    };
    let rank = s.types.and_then(|t| rank(t, x)).map(|r| r as i64);
    s.graph.node_mut(s.id).set("axis", Attribute::Int(-1));
    if axis == -1 || rank == Some(axis + 1) {
        return Ok(());
    }
    let name = s.node().name.clone();
    let mut op = |node: Node, inputs: &[ValueId]| {
        let out = s
            .graph
            .add_value(&s.names.fresh(&format!("{name}_{}", node.op)), None);
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        s.graph.add_node(node, &inputs, &[Some(out)]);
        out
    };
    let shape = op(Node::new("Shape", &format!("{name}_Shape")), &[x]);
    let flatten = Node::new("Flatten", &format!("{name}_Flatten"));
    let flat = op(flatten.with("axis", Attribute::Int(axis)), &[x]);
    let rows = s
        .graph
        .add_value(&s.names.fresh(&format!("{name}_rows")), None);
    s.graph.set_input(s.id, 0, Some(flat));
    s.graph.set_output(s.id, 0, Some(rows));
    let node = Node::new("Reshape", &format!("{name}_Reshape"));
    s.graph
        .add_node(node, &[Some(rows), Some(shape)], &[Some(y)]);
    Ok(())
}

fn count_outputs(s: &mut Site) -> Result<()> {
    if s.node().input(1).is_none() {
        let outputs = s.node().outputs().len() as i64;
        s.graph
            .node_mut(s.id)
            .set("num_outputs", Attribute::Int(outputs));
    }
    Ok(())
}

fn grid_modes(s: &mut Site) -> Result<()> {
    let new = match s.node().string("mode") {
        None | Some("bilinear") => "linear",
        Some("bicubic") => "cubic",
        _ => return Ok(()),
    };
    s.graph.node_mut(s.id).set("mode", text(new));
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, verify};

    use super::*;

    /// Runs an example before and after conversion; its operators after.
    fn same_answer(example: &str, to: i64) -> Vec<String> {
        let (model, inputs) = edgesmith_ir::text::example(example).unwrap();
        let names: Vec<String> = model
            .graph
            .inputs
            .iter()
            .map(|&v| model.graph.value(v).name.clone())
            .collect();
        let inputs: Vec<(&str, Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
        let mut raised = model.clone();
        convert_opset(&mut raised, to).unwrap();
        assert_eq!(raised.opset(), to);
        verify::verify(&raised).unwrap();
        let before = eval::evaluate(&model, &inputs).unwrap();
        assert_eq!(
            before,
            eval::evaluate(&raised, &inputs).unwrap(),
            "{example}"
        );
        raised.graph.nodes().map(|(_, n)| n.op.clone()).collect()
    }

    #[test]
    fn answers_stay_equal_where_attributes_became_inputs() {
        for example in [
            "Squeeze@11(f32[1,3,1]) {axes=[0]}",
            "Squeeze@11(f32[1,3,1])",
            "Unsqueeze@11(f32[3,4]) {axes=[1]}",
            "ReduceSum@11(f32[3,4]) {axes=[1], keepdims=0}",
            "ReduceMean@11(f32[3,4]) {axes=[0]}",
            "ReduceMax@12(f32[3,4])",
            "Split@11(f32[5,2]) {axis=0, split=[2,3]} -> 2",
            "Split@11(f32[6,2]) {axis=0} -> 2",
            "Clip@7(f32[3,4]) {min=-0.5, max=0.25}",
            "Clip@10(f32[3,4]) {max=0.25}",
            "Pad@7(f32[2,3]) {pads=[1,0,0,2], value=0.5}",
            "Slice@7(f32[4,5]) {starts=[1], ends=[3], axes=[1]}",
        ] {
            assert_eq!(same_answer(example, 18).len(), 1);
        }
    }

    #[test]
    fn answers_stay_equal_where_operators_got_other_names_or_forms() {
        for (example, ops) in [
            (
                "BatchNormalization@7(f32[2,3,4], f32[3], f32[3], f32[3], f32[3]{1,2,3})",
                1,
            ),
            ("Dropout@7(f32[3,4]) {ratio=0.4}", 1),
            ("Dropout@10(f32[3,4]) {ratio=0.4}", 1),
            ("Hardmax@11(f32[2,3,4]) {axis=1}", 4),
            ("LogSoftmax@7(f32[2,3,4])", 4),
            ("Resize@10(f32[1,2,3,2], f32[4]{1,1,2,1.5})", 1),
            (
                "Resize@10(f32[1,2,3,4], f32[4]{1,1,2,0.7}) {mode=\"linear\"}",
                1,
            ),
            ("Resize@10(f32[1,2,5,7], f32[4]{1,1,0.5,0.6})", 1),
            ("Upsample@9(f32[1,2,2,3], f32[4]{1,1,2,1})", 1),
            ("Scatter@9(f32[2,3], i64[1,2]{1,0}, f32[1,2])", 1),
            ("Softmax@7(f32[2,3,4]) {axis=0}", 4),
            ("TopK@7(f32[2,5]) {k=2}", 1),
            ("TopK@7(f32[5,2]) {k=3, axis=0}", 1),
            ("Upsample@7(f32[1,1,2,2]) {scales=[1.0,1.0,2.0,3.0]}", 1),
            (
                "Upsample@7(f32[1,1,2,2]) {scales=[1.0,1.0,2.0,2.5],mode=\"linear\"}",
                1,
            ),
            ("Upsample@9(f32[1,1,2,2], f32[4]{1,1,2,3})", 1),
            (
                "Upsample@9(f32[1,1,2,2], f32[4]{1,1,2,3}) {mode=\"linear\"}",
                1,
            ),
        ] {
            assert_eq!(same_answer(example, 13).len(), ops, "{example}");
            assert_eq!(same_answer(example, 21).len(), ops, "{example}");
        }
    }

    #[test]
    fn a_flat_softmax_is_flattened_and_shaped_back() {
        let ops = same_answer("Softmax@11(f32[2,3,4]) {axis=1}", 13);
        assert_eq!(ops.len(), 4);
        assert_eq!(
            same_answer("Softmax@11(f32[2,3]) {axis=1}", 13),
            ["Softmax"]
        );
        assert_eq!(same_answer("LogSoftmax@11(f32[2,3])", 17), ["LogSoftmax"]);
    }

    #[test]
    fn what_cannot_be_converted_is_refused() {
        let (mut model, _) = edgesmith_ir::text::example("Relu@13(f32[2])").unwrap();
        assert!(convert_opset(&mut model, 12).is_err());
        assert!(convert_opset(&mut model, NEWEST + 1).is_err());
        assert_eq!(convert_opset(&mut model, 13).unwrap(), 0);
        let both_ways = "Resize@10(f32[1,1,4,4], f32[4]{1,1,2,0.5})";
        let unknown = "Resize@10(f32[1,1,4,4], f32[4])";
        for example in [both_ways, unknown] {
            let (mut model, _) = edgesmith_ir::text::example(example).unwrap();
            let e = convert_opset(&mut model, 13).unwrap_err().to_string();
            assert!(e.contains("longer"), "{e}");
        }
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", edgesmith_ir::TensorType::fixed(DType::F32, &[1, 2, 2]));
        let node = Node::new("BatchNormalization", "bn").with("spatial", Attribute::Int(0));
        let y = graph.add_op(node, &[x, x, x, x, x], "y");
        graph.outputs.push(y);
        let e = convert_opset(&mut Model::new(graph, 7), 13).unwrap_err();
        assert!(e.to_string().contains("BatchNormalization \"bn\""), "{e}");
    }

    #[test]
    fn the_list_follows_the_opsets() {
        assert!(UPGRADES.windows(2).all(|p| p[0].since <= p[1].since));
    }
}
