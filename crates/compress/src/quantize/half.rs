//! Floats of 16 bits: FP16 for constants and arithmetic, BF16 for constants.
//!
//! In FP16 every node computes in 16 bits, except those of [`keep::KEEP`], those whose constants
//! or activations do not fit, and those that are excluded; Cast nodes stand between. ONNX gives
//! most operators BF16 only since opset 22 and ONNX Runtime has no BF16 kernels on processors, so
//! BF16 narrows the constants alone and widens each where it is read.

use std::collections::BTreeMap;

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{
    Attribute, DType, Error, Graph, Model, Node, NodeId, Result, Tensor, Type, ValueId, ops,
};
use half::{bf16, f16};

use super::changes::{Changes, Fate, NodeChange};
use super::overflow;
use super::sources::Source;
use crate::calibrate::Statistics;
use edgesmith_ir::pattern::matches;

pub mod keep;

/// What the conversion can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Graph inputs and outputs stay in 32 bits.
    pub keep_io: bool,
    /// Normalizations stay in 32 bits.
    pub keep_norms: bool,
    /// Nodes that stay as they are, by name; `*` stands for any text.
    pub exclude: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_io: true,
            keep_norms: true,
            exclude: Vec::new(),
        }
    }
}

/// Activations over half of the largest FP16 number are not trusted to it.
const LARGEST: f32 = 65504.0;

/// Converts a model to FP16. `statistics`, where given, say which activations would overflow.
///
/// # Errors
/// When a shape rule of the model fails, or no node can be converted.
pub fn to_fp16(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
) -> Result<(Model, Changes)> {
    let types = infer::infer(model, &[])?;
    let mut out = model.clone();
    let mut changes = Changes {
        weight_bytes_before: super::constant_bytes(&model.graph),
        ..Changes::default()
    };
    let left = kept_nodes(&model.graph, &types, statistics, settings)?;
    let mut narrow = Narrow {
        graph: &mut out.graph,
        types: &types,
        halves: vec![false; types.types.len()],
        twins: BTreeMap::new(),
        changes: &mut changes,
    };
    narrow.run(&left, settings.keep_io)?;
    let is_left = |id| left.contains_key(&id);
    let ranges = overflow::analyse(&model.graph, &overflow::FP16, statistics, false, &is_left)?;
    changes.warnings.extend(ranges.warning());
    changes.ranges = Some(ranges);
    changes.nodes = account(&model.graph, &left);
    super::drop_unused(&mut out.graph);
    changes.weight_bytes_after = super::constant_bytes(&out.graph);
    if changes.converted() == 0 {
        return Err(Error::unsupported(
            "no node of the model can be converted to fp16",
        ));
    }
    Ok((out, changes))
}

fn account(graph: &Graph, left: &BTreeMap<NodeId, String>) -> Vec<NodeChange> {
    let fate = |id: NodeId| {
        left.get(&id)
            .map_or(Fate::Converted, |r| Fate::Left(r.clone()))
    };
    graph
        .nodes()
        .map(|(id, n)| NodeChange {
            name: n.name.clone(),
            op: n.op.clone(),
            fate: fate(id),
        })
        .collect()
}

fn is_float(types: &Inferred, v: ValueId) -> bool {
    types.tensor(v).is_some_and(|t| t.dtype == DType::F32)
}

/// The nodes that stay in 32 bits, and why.
fn kept_nodes(
    graph: &Graph,
    types: &Inferred,
    statistics: Option<&Statistics>,
    settings: &Settings,
) -> Result<BTreeMap<NodeId, String>> {
    let mut left = BTreeMap::new();
    for (id, node) in graph.nodes() {
        if let Some(reason) = kept(graph, types, node, statistics, settings)? {
            left.insert(id, reason);
        }
    }
    Ok(left)
}

fn kept(
    graph: &Graph,
    types: &Inferred,
    node: &Node,
    statistics: Option<&Statistics>,
    settings: &Settings,
) -> Result<Option<String>> {
    let values = || {
        node.inputs()
            .iter()
            .chain(node.outputs())
            .flatten()
            .copied()
    };
    if !values().any(|v| is_float(types, v)) {
        return Ok(Some("it has no 32-bit floats".into()));
    }
    if node.is("Constant") {
        return Ok(Some("its readers take a narrow copy".into()));
    }
    if !node.domain.is_empty() || ops::find("", &node.op).is_none() {
        return Ok(Some(
            "the operator is not known to take 16-bit floats".into(),
        ));
    }
    if settings.exclude.iter().any(|p| matches(p, &node.name)) {
        return Ok(Some("excluded by name".into()));
    }
    if let Some(keep) = keep::find(&node.op)
        && (settings.keep_norms || !keep.norm)
    {
        return Ok(Some(keep.reason.into()));
    }
    if node
        .outputs()
        .iter()
        .flatten()
        .any(|&v| types.types[v.index()].is_none())
    {
        return Ok(Some("the type of its output is unknown".into()));
    }
    for v in values().filter(|&v| is_float(types, v)) {
        let name = &graph.value(v).name;
        if let Some(t) = graph.constant(v) {
            let most = t
                .to_f32()?
                .iter()
                .filter(|x| x.is_finite())
                .fold(0.0f32, |m, x| m.max(x.abs()));
            if most > LARGEST {
                return Ok(Some(format!("constant \"{name}\" reaches {most:e}")));
            }
        } else if let Some(seen) = statistics.and_then(|s| s.of(name)) {
            let most = seen.max.max(-seen.min);
            if most > LARGEST / 2.0 || seen.not_finite > 0 {
                return Ok(Some(format!("\"{name}\" reached {most:e} in calibration")));
            }
        }
    }
    Ok(None)
}

struct Narrow<'a> {
    graph: &'a mut Graph,
    types: &'a Inferred,
    /// Values that are in 16 bits now, by index; values added later are not asked for.
    halves: Vec<bool>,
    /// The same number in the other width, by value and whether it is the narrow one.
    twins: BTreeMap<(ValueId, bool), ValueId>,
    changes: &'a mut Changes,
}

impl Narrow<'_> {
    fn run(&mut self, left: &BTreeMap<NodeId, String>, keep_io: bool) -> Result<()> {
        if !keep_io {
            for v in self.graph.inputs.clone() {
                self.mark(v);
            }
        }
        for id in self.graph.order()? {
            if left.contains_key(&id) {
                self.keep(id);
            } else {
                self.narrow(id)?;
            }
        }
        for v in self.graph.outputs.clone() {
            self.output(v, keep_io);
        }
        Ok(())
    }

    fn mark(&mut self, v: ValueId) {
        if !is_float(self.types, v) {
            return;
        }
        self.halves[v.index()] = true;
        if let Some(Type::Tensor(t)) = &mut self.graph.value_mut(v).ty {
            t.dtype = DType::F16;
        }
    }

    fn narrow(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        if node.is("Shape") || node.is("Size") {
            return Ok(());
        }
        let inputs = node.inputs().to_vec();
        for (i, v) in inputs.into_iter().enumerate() {
            if let Some(v) = v.filter(|&v| is_float(self.types, v) && !self.halves[v.index()]) {
                let twin = self.narrow_twin(v)?;
                self.record(v, twin, id);
                self.graph.set_input(id, i, Some(twin));
            }
        }
        let node = self.graph.node_mut(id);
        if node.is("Cast") && node.int("to") == Some(i64::from(DType::F32.onnx())) {
            node.set("to", Attribute::Int(DType::F16.onnx().into()));
        }
        for v in self.graph.node(id).outputs().to_vec().into_iter().flatten() {
            self.mark(v);
        }
        Ok(())
    }

    fn narrow_twin(&mut self, v: ValueId) -> Result<ValueId> {
        if let Some(&twin) = self.twins.get(&(v, true)) {
            return Ok(twin);
        }
        let name = self.graph.value(v).name.clone();
        let twin = if let Some(t) = self.graph.constant(v).cloned() {
            let data = t.to_f32()?.iter().map(|&x| f16::from_f32(x)).collect();
            let name = self.graph.fresh_name(&format!("{name}_fp16"));
            self.graph
                .add_constant(&name, Tensor::from_vec(t.dims(), data)?)
        } else {
            self.changes.narrowing_nodes += 1;
            cast(self.graph, v, DType::F16, &format!("{name}_fp16"))
        };
        self.twins.insert((v, true), twin);
        Ok(twin)
    }

    /// Keeps what the constant `twin` was made from, and that the node `id` reads it.
    fn record(&mut self, v: ValueId, twin: ValueId, id: NodeId) {
        if let Some(float) = self.graph.constant(v).cloned() {
            let (constant, node) = (&self.graph.value(twin).name, &self.graph.node(id).name);
            narrowed(self.changes, constant, node, float);
        }
    }

    fn wide_twin(&mut self, v: ValueId) -> ValueId {
        if let Some(&twin) = self.twins.get(&(v, false)) {
            return twin;
        }
        let name = format!("{}_fp32", self.graph.value(v).name);
        let twin = cast(self.graph, v, DType::F32, &name);
        self.changes.widening_nodes += 1;
        self.twins.insert((v, false), twin);
        twin
    }

    fn keep(&mut self, id: NodeId) {
        let inputs = self.graph.node(id).inputs().to_vec();
        for (i, v) in inputs.into_iter().enumerate() {
            if let Some(v) = v.filter(|v| self.halves[v.index()]) {
                let twin = self.wide_twin(v);
                self.graph.set_input(id, i, Some(twin));
            }
        }
        let captured: Vec<ValueId> = self
            .graph
            .node(id)
            .subgraphs()
            .flat_map(|g| g.captures.iter().map(|c| c.outer))
            .collect();
        for v in captured
            .into_iter()
            .filter(|v| self.halves[v.index()])
            .collect::<Vec<_>>()
        {
            let twin = self.wide_twin(v);
            let graphs = self.graph.node_mut(id).subgraphs_mut();
            for capture in graphs
                .flat_map(|g| &mut g.captures)
                .filter(|c| c.outer == v)
            {
                capture.outer = twin;
            }
        }
    }

    /// Gives a graph output its width; its name stays.
    fn output(&mut self, v: ValueId, keep_io: bool) {
        let half = self.halves[v.index()];
        if !is_float(self.types, v) || half != keep_io || self.graph.is_input(v) {
            return;
        }
        let Some((maker, i)) = self.graph.value(v).producer() else {
            return;
        };
        let (from, to, suffix) = if half {
            (DType::F16, DType::F32, "fp16")
        } else {
            (DType::F32, DType::F16, "fp32")
        };
        let name = self
            .graph
            .fresh_name(&format!("{}_{suffix}", self.graph.value(v).name));
        let typed = |ty: Option<Type>, dtype| match ty {
            Some(Type::Tensor(t)) => Some(Type::Tensor(edgesmith_ir::TensorType { dtype, ..t })),
            other => other,
        };
        let ty = self.graph.value(v).ty.clone();
        let raw = self.graph.add_value(&name, typed(ty.clone(), from));
        self.graph.set_output(maker, i, Some(raw));
        self.graph.replace_reads(v, raw);
        self.graph.value_mut(v).ty = typed(ty, to);
        let node = Node::new("Cast", &format!("{}_Cast", self.graph.value(v).name))
            .with("to", Attribute::Int(to.onnx().into()));
        self.graph.add_node(node, &[Some(raw)], &[Some(v)]);
        if half {
            self.changes.widening_nodes += 1;
        } else {
            self.changes.narrowing_nodes += 1;
        }
        self.halves[v.index()] = !half;
    }
}

/// Keeps what a narrow constant was made from.
fn narrowed(changes: &mut Changes, constant: &str, node: &str, float: Tensor) {
    let known = changes.sources.iter_mut().find(|s| s.constant == constant);
    match known {
        Some(source) => source.read_by(node),
        None => changes.sources.push(Source::narrow(constant, node, float)),
    }
}

fn cast(graph: &mut Graph, v: ValueId, to: DType, name: &str) -> ValueId {
    let node =
        Node::new("Cast", &format!("{name}_Cast")).with("to", Attribute::Int(to.onnx().into()));
    graph.add_op(node, &[v], name)
}

/// Stores the constants of a model as BF16, rounded half to even, and widens them where they are
/// read: half the bytes, the same arithmetic.
///
/// # Errors
/// When a shape rule of the model fails, or it has no constants of 32-bit floats.
pub fn to_bf16(model: &Model, settings: &Settings) -> Result<(Model, Changes)> {
    let mut out = model.clone();
    let mut changes = Changes {
        weight_bytes_before: super::constant_bytes(&model.graph),
        ..Changes::default()
    };
    let mut twins: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (id, node) in model.graph.nodes() {
        let mut fate = Fate::Left("it reads no constants of 32-bit floats".into());
        let excluded = settings.exclude.iter().any(|p| matches(p, &node.name));
        for (i, v) in node.inputs().iter().enumerate() {
            let Some((v, t)) = v.and_then(|v| Some((v, model.graph.constant(v)?))) else {
                continue;
            };
            if t.dtype() != DType::F32 || t.count() < MIN_COUNT || excluded {
                continue;
            }
            let twin = match twins.get(&v) {
                Some(&twin) => twin,
                None => {
                    let twin = widened(&mut out.graph, v, t)?;
                    changes.widening_nodes += 1;
                    twins.insert(v, twin);
                    twin
                }
            };
            let widened = out.graph.value(twin).producer();
            let narrow = widened.and_then(|(cast, _)| out.graph.node(cast).input(0));
            if let Some(narrow) = narrow {
                let constant = &out.graph.value(narrow).name;
                narrowed(&mut changes, constant, &node.name, t.clone());
            }
            out.graph.set_input(id, i, Some(twin));
            fate = Fate::Converted;
        }
        if excluded {
            fate = Fate::Left("excluded by name".into());
        }
        changes.nodes.push(NodeChange {
            name: node.name.clone(),
            op: node.op.clone(),
            fate,
        });
    }
    if twins.is_empty() {
        return Err(Error::unsupported(
            "the model has no constants of 32-bit floats",
        ));
    }
    let mut ranges = overflow::analyse(&model.graph, &overflow::BF16, None, true, &|_| false)?;
    let names: Vec<&str> = twins
        .keys()
        .map(|&v| model.graph.value(v).name.as_str())
        .collect();
    ranges.rows.retain(|r| names.contains(&r.name.as_str()));
    changes.warnings.extend(ranges.warning());
    changes.ranges = Some(ranges);
    super::drop_unused(&mut out.graph);
    changes.weight_bytes_after = super::constant_bytes(&out.graph);
    Ok((out, changes))
}

/// Shorter constants stay: a Cast node takes more than it saves.
const MIN_COUNT: usize = 16;

fn widened(graph: &mut Graph, v: ValueId, t: &Tensor) -> Result<ValueId> {
    let data = t.to_f32()?.iter().map(|&x| bf16::from_f32(x)).collect();
    let name = graph.value(v).name.clone();
    let narrow = graph.fresh_name(&format!("{name}_bf16"));
    let narrow = graph.add_constant(&narrow, Tensor::from_vec(t.dims(), data)?);
    Ok(cast(graph, narrow, DType::F32, &format!("{name}_fp32")))
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text, verify};

    use super::*;
    use crate::calibrate::ValueStatistics;
    use crate::quantize::sources::compare;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,4]) -> (y: f32[n,2], h: f32[n,4]) {
  w: f32[4,4] = {0.5,-0.25,1.0,0.1,0.3,0.7,-0.9,0.2,0.0,1.0,0.4,-0.6,0.33,0.77,-0.11,0.05}
  v: f32[4,2] = {0.5,-0.25,1.0,0.1,1e-6,0.7,1e-9,0.2}
  h = MatMul(x, w) {name="first"}
  e = Exp(h) {name="exp"}
  r = Relu(e) {name="relu"}
  y = MatMul(r, v) {name="second"}
}
"#;

    fn answers(model: &Model, dtype: DType) -> Vec<Tensor> {
        let x = vec![0.5f32, -1.0, 0.25, 1.5, 0.1, 0.2, 0.3, 0.4];
        let x = if dtype == DType::F16 {
            Tensor::from_vec(&[2, 4], x.into_iter().map(f16::from_f32).collect()).unwrap()
        } else {
            Tensor::from_vec(&[2, 4], x).unwrap()
        };
        eval::evaluate(model, &[("x", x)]).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor, tolerance: f32) {
        for (x, y) in a.to_f32().unwrap().iter().zip(&*b.to_f32().unwrap()) {
            assert!(
                (x - y).abs() <= tolerance * x.abs().max(1.0),
                "{x} against {y}"
            );
        }
    }

    fn converted(settings: &Settings) -> (Model, Changes) {
        let (half, changes) = to_fp16(&text::parse(NET).unwrap(), None, settings).unwrap();
        let found = compare(&half.graph, &changes.sources).unwrap();
        let readers: Vec<_> = found.iter().map(|c| c.nodes.join(" ")).collect();
        assert_eq!(readers, ["first", "second"]);
        verify::verify(&half).unwrap();
        (half, changes)
    }

    #[test]
    fn answers_stay_close_and_ports_keep_their_types() {
        let (half, changes) = converted(&Settings::default());
        let (a, b) = (
            answers(&text::parse(NET).unwrap(), DType::F32),
            answers(&half, DType::F32),
        );
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(b.dtype(), DType::F32);
            close(a, b, 5e-3);
        }
        assert_eq!(changes.weight_bytes_after * 2, changes.weight_bytes_before);
        // x, e in; h twice and y out, of which those to the graph's own outputs are two.
        assert_eq!((changes.narrowing_nodes, changes.widening_nodes), (2, 3));
        let ranges = changes.ranges.unwrap();
        let row = ranges.rows.iter().find(|r| r.name == "v").unwrap();
        assert_eq!((row.subnormal, row.zero, row.kept), (0.125, 0.125, false));
        let warning =
            "fp16: over 1 % of the numbers of \"v\" become zero: --exclude keeps \"second\"";
        assert_eq!(changes.warnings, [warning]);
    }

    #[test]
    fn ports_become_narrow_where_that_is_asked_for() {
        let (half, _) = converted(&Settings {
            keep_io: false,
            ..Settings::default()
        });
        for t in answers(&half, DType::F16) {
            assert_eq!(t.dtype(), DType::F16);
        }
    }

    #[test]
    fn what_does_not_fit_stays_wide() {
        let model = text::parse(NET).unwrap();
        let mut seen = ValueStatistics::new(None);
        seen.add(&Tensor::vector(vec![1.0f32, 8e4])).unwrap();
        let mut s = Statistics::default();
        s.values.insert("r".into(), seen);
        let (half, changes) = to_fp16(&model, Some(&s), &Settings::default()).unwrap();
        let left = |name: &str| {
            let node = changes.nodes.iter().find(|n| n.name == name).unwrap();
            matches!(node.fate, Fate::Left(_))
        };
        assert_eq!(
            ["first", "exp", "relu", "second"].map(left),
            [false, true, true, true]
        );
        verify::verify(&half).unwrap();
        let said = &changes.warnings[0];
        assert_eq!(
            said,
            "fp16: numbers of \"r\" are beyond 65504, kept in float: \"relu\", \"second\""
        );
    }

    #[test]
    fn what_comes_near_the_largest_number_stays_wide_too() {
        let mut seen = ValueStatistics::new(None);
        seen.add(&Tensor::vector(vec![1.0f32, 4e4])).unwrap();
        let mut s = Statistics::default();
        s.values.insert("r".into(), seen);
        let (_, changes) =
            to_fp16(&text::parse(NET).unwrap(), Some(&s), &Settings::default()).unwrap();
        let rows = changes.ranges.unwrap().rows;
        let row = rows.iter().find(|r| r.name == "r").unwrap();
        assert_eq!((row.kept, row.overflow), (true, 0.0));
        assert!(row.headroom.unwrap() < 2.0);
    }

    #[test]
    fn bf16_rounds_constants_and_nothing_else() {
        let model = text::parse(NET).unwrap();
        let (narrow, changes) = to_bf16(&model, &Settings::default()).unwrap();
        let found = compare(&narrow.graph, &changes.sources).unwrap();
        assert_eq!(found[0].nodes, ["first"]);
        verify::verify(&narrow).unwrap();
        // The second matrix is too short to be worth a node.
        assert_eq!(changes.weight_bytes_before - changes.weight_bytes_after, 32);
        let (a, b) = (answers(&model, DType::F32), answers(&narrow, DType::F32));
        close(&a[1], &b[1], 1e-2);
        assert_ne!(a[1], b[1]);
    }
}
