//! What each operator ties, by its name.

use crate::infer::Inferred;
use crate::{DType, Dim, Model, Node, NodeId, ValueId};

use super::{Axis, Options, Read, Ties, attended, is_named, merged, moved, recurrent, weighted};

/// A rule: it ties or holds every axis of what the node reads and makes, or says why it cannot,
/// and then all of them are held.
type Rule = fn(&mut Cx) -> Result<(), String>;

/// The rules of operators, by name; those of other domains than `ai.onnx` with theirs.
static RULES: &[(&str, Rule)] = &[
    ("Abs", elementwise),
    ("Add", elementwise),
    ("And", elementwise),
    ("Attention", attended::attention),
    ("AveragePool", weighted::pool),
    ("BatchNormalization", weighted::norm),
    ("Cast", elementwise),
    ("Ceil", elementwise),
    ("Celu", elementwise),
    ("Clip", elementwise),
    ("Concat", moved::concat),
    ("Conv", weighted::conv),
    ("ConvTranspose", weighted::conv_transpose),
    ("Cos", elementwise),
    ("DepthToSpace", moved::depth_to_space),
    ("DequantizeLinear", moved::quantised),
    ("Div", elementwise),
    ("Dropout", elementwise),
    ("Elu", elementwise),
    ("Equal", elementwise),
    ("Erf", elementwise),
    ("Exp", elementwise),
    ("Expand", moved::expand),
    ("Flatten", merged::flatten),
    ("Floor", elementwise),
    ("GRU", recurrent::gru),
    ("Gather", moved::gather),
    ("Gelu", elementwise),
    ("Gemm", weighted::gemm),
    ("GlobalAveragePool", weighted::pool),
    ("GlobalLpPool", weighted::pool),
    ("GlobalMaxPool", weighted::pool),
    ("Greater", elementwise),
    ("GreaterOrEqual", elementwise),
    ("GroupNormalization", weighted::group_norm),
    ("HardSigmoid", elementwise),
    ("HardSwish", elementwise),
    ("Identity", elementwise),
    ("InstanceNormalization", weighted::norm),
    ("LSTM", recurrent::lstm),
    ("LayerNormalization", weighted::layer_norm),
    ("LeakyRelu", elementwise),
    ("Less", elementwise),
    ("LessOrEqual", elementwise),
    ("Log", elementwise),
    ("LogSoftmax", moved::softmax),
    ("LpPool", weighted::pool),
    ("MatMul", weighted::matmul),
    ("Max", elementwise),
    ("MaxPool", weighted::pool),
    ("Mean", elementwise),
    ("Min", elementwise),
    ("Mish", elementwise),
    ("Mod", elementwise),
    ("Mul", elementwise),
    ("Neg", elementwise),
    ("Not", elementwise),
    ("Or", elementwise),
    ("PRelu", elementwise),
    ("Pad", moved::pad),
    ("Pow", elementwise),
    ("QuantizeLinear", moved::quantised),
    ("RMSNormalization", weighted::layer_norm),
    ("RNN", recurrent::rnn),
    ("Reciprocal", elementwise),
    ("ReduceL1", moved::reduce),
    ("ReduceL2", moved::reduce),
    ("ReduceLogSumExp", moved::reduce),
    ("ReduceMax", moved::reduce),
    ("ReduceMean", moved::reduce),
    ("ReduceMin", moved::reduce),
    ("ReduceProd", moved::reduce),
    ("ReduceSum", moved::reduce),
    ("ReduceSumSquare", moved::reduce),
    ("Relu", elementwise),
    ("Reshape", merged::reshape),
    ("Resize", moved::resize),
    ("RotaryEmbedding", attended::rotary),
    ("Round", elementwise),
    ("Selu", elementwise),
    ("Sigmoid", elementwise),
    ("Sign", elementwise),
    ("SimplifiedLayerNormalization", weighted::layer_norm),
    ("Sin", elementwise),
    ("Slice", moved::slice),
    ("Softmax", moved::softmax),
    ("Softplus", elementwise),
    ("Softsign", elementwise),
    ("SpaceToDepth", moved::space_to_depth),
    ("Split", moved::split),
    ("Sqrt", elementwise),
    ("Squeeze", moved::squeeze),
    ("Sub", elementwise),
    ("Sum", elementwise),
    ("Swish", elementwise),
    ("Tanh", elementwise),
    ("ThresholdedRelu", elementwise),
    ("Tile", moved::tile),
    ("Transpose", moved::transpose),
    ("Unsqueeze", moved::unsqueeze),
    ("Where", elementwise),
    ("com.microsoft.Attention", attended::merged),
    ("com.microsoft.BiasGelu", elementwise),
    ("com.microsoft.FastGelu", elementwise),
    ("com.microsoft.Gelu", elementwise),
    ("com.microsoft.GroupQueryAttention", attended::group_query),
    ("com.microsoft.MultiHeadAttention", attended::multi_head),
    ("com.microsoft.QuickGelu", elementwise),
    ("com.microsoft.RotaryEmbedding", attended::rotary_of_runtime),
    ("com.microsoft.SkipLayerNormalization", attended::skip_norm),
    (
        "com.microsoft.SkipSimplifiedLayerNormalization",
        attended::skip_norm,
    ),
];

/// Ties what a node reads to what it makes.
///
/// # Errors
/// Why it is not understood.
pub(super) fn tie(cx: &mut Cx) -> Result<(), String> {
    let node = cx.node;
    if node.is("Constant") {
        return Err("it is a constant in a node, which `fold_constants` lifts".into());
    }
    if node.is("Shape") || node.is("Size") {
        return lengths(cx);
    }
    if node.subgraphs().next().is_some() {
        return Err("its bodies read or give it".into());
    }
    let rule = RULES
        .iter()
        .find(|(op, _)| is_named(node, op) && cx.model.function(node).is_none());
    match rule {
        Some((_, rule)) => rule(cx),
        None => Err("what it does with channels is not known".into()),
    }
}

/// Lengths of channels may not be read: later they would be others. Where a constant says which
/// lengths are picked, the others are free.
fn lengths(cx: &mut Cx) -> Result<(), String> {
    const WHY: &str = "it reads lengths";
    let x = cx.x(0)?;
    let rank = cx.rank(x);
    let is_part = cx.node.attribute("start").is_some() || cx.node.attribute("end").is_some();
    let picked = match cx.node.output(0) {
        Some(y) if cx.node.is("Shape") && !is_part => picked(cx, y, rank),
        _ => None,
    };
    for a in 0..rank {
        if picked.as_ref().is_none_or(|p| p.contains(&a)) {
            cx.hold(x, a, WHY);
        }
    }
    Ok(())
}

/// The lengths that the readers of a list of lengths pick; `None` where that is not known.
fn picked(cx: &Cx, lengths: ValueId, rank: usize) -> Option<Vec<usize>> {
    let graph = &cx.model.graph;
    if graph.is_output(lengths) || graph.captured().contains(&lengths) {
        return None;
    }
    let mut all = Vec::new();
    for &(id, input) in graph.value(lengths).consumers() {
        let node = graph.node(id);
        let numbers = |i: usize| graph.constant(node.input(i)?)?.to_i64().ok();
        if input != 0 {
            return None;
        }
        let from_end = |n: i64| if n < 0 { n + rank as i64 } else { n };
        match node.op.as_str() {
            "Gather" => {
                let places = numbers(1)?.into_iter().map(from_end);
                let places: Option<Vec<usize>> = places.map(|p| usize::try_from(p).ok()).collect();
                all.extend(places?);
            }
            "Slice" if node.input(4).is_none() => {
                let (starts, ends) = (numbers(1)?, numbers(2)?);
                let (start, end) = (from_end(*starts.first()?), from_end(*ends.first()?));
                let end = end.clamp(0, rank as i64);
                all.extend(start.clamp(0, end) as usize..end as usize);
            }
            _ => return None,
        }
    }
    Some(all)
}

/// What a rule sees.
pub(super) struct Cx<'a> {
    pub model: &'a Model,
    pub inferred: &'a Inferred,
    pub id: NodeId,
    pub node: &'a Node,
    pub options: Options,
    pub ties: &'a mut Ties,
}

impl Cx<'_> {
    /// Input `i`, whose rank is known.
    pub fn x(&self, i: usize) -> Result<ValueId, String> {
        let v = self.node.input(i);
        let v = v.ok_or_else(|| format!("its input {i} is left out"))?;
        self.ranked(v)
    }

    /// The first output, whose rank is known.
    pub fn y(&self) -> Result<ValueId, String> {
        let v = self.node.output(0).ok_or("its output is left out")?;
        self.ranked(v)
    }

    pub fn ranked(&self, v: ValueId) -> Result<ValueId, String> {
        if self.shape(v).is_none() {
            let name = &self.model.graph.value(v).name;
            return Err(format!("the shape of \"{name}\" is not known"));
        }
        Ok(v)
    }

    /// The lengths of a value, as far as they are known.
    pub fn shape(&self, v: ValueId) -> Option<Vec<Dim>> {
        let shape = match &self.model.graph.value(v).constant {
            Some(data) => data.ty().shape,
            None => self.inferred.tensor(v)?.shape.clone(),
        };
        Some(shape?.iter().cloned().collect())
    }

    /// True of numbers that are known to be f32.
    pub fn is_f32(&self, v: ValueId) -> bool {
        let ty = self.inferred.tensor(v);
        ty.is_some_and(|t| t.dtype == DType::F32)
    }

    /// The number of axes.
    pub fn rank(&self, v: ValueId) -> usize {
        self.ties.rank(v)
    }

    /// A length that has to be known.
    pub fn length(&self, v: ValueId, axis: usize) -> Result<usize, String> {
        self.ties
            .length(Axis::of(v, axis))
            .ok_or_else(|| "a length is not known".to_owned())
    }

    /// An axis that may count from the end.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        let at = usize::try_from(at).ok().filter(|&a| a < rank);
        at.ok_or_else(|| format!("there is no axis {axis}"))
    }

    /// Whole numbers of an attribute, or of a constant input where the opset has them there.
    pub fn ints(&self, attribute: &str, input: usize) -> Result<Option<Vec<i64>>, String> {
        if let Some(list) = self.node.ints(attribute) {
            return Ok(Some(list.to_vec()));
        }
        let Some(v) = self.node.input(input) else {
            return Ok(None);
        };
        let data = self.model.graph.constant(v);
        let list = data.and_then(|t| t.to_i64().ok());
        let list = list.ok_or_else(|| format!("its {attribute} are computed"))?;
        Ok(Some(list.to_vec()))
    }

    /// Ties two axes index by index; where they are not surely of one length, both are held.
    pub fn tie(&mut self, (v, a): (ValueId, usize), (w, b): (ValueId, usize)) {
        let (a, b) = (Axis::of(v, a), Axis::of(w, b));
        match (self.ties.length(a), self.ties.length(b)) {
            (Some(m), Some(n)) if m == n => {
                for i in 0..m {
                    self.ties.unite((a, i), (b, i));
                }
            }
            _ => {
                self.hold(v, a.axis, "lengths are not known to be equal");
                self.hold(w, b.axis, "lengths are not known to be equal");
            }
        }
    }

    /// Ties single indices.
    pub fn tie_at(
        &mut self,
        (v, a, i): (ValueId, usize, usize),
        (w, b, j): (ValueId, usize, usize),
    ) {
        self.ties.unite((Axis::of(v, a), i), (Axis::of(w, b), j));
    }

    /// Holds an axis.
    pub fn hold(&mut self, v: ValueId, axis: usize, why: &str) {
        let reason = self.ties.reason(self.node, why);
        self.ties.hold(Axis::of(v, axis), reason);
    }

    /// Channels are made along this axis, where it is one of a weight.
    pub fn makes(&mut self, v: ValueId, axis: usize) {
        if self.is_weight(v) {
            self.ties.makes.insert(Axis::of(v, axis));
        }
    }

    /// The node sums along this axis of its input.
    pub fn reads(&mut self, input: usize, axis: usize) {
        let node = self.id;
        self.ties.reads.insert(Read { node, input, axis });
    }

    /// True where a value is a constant, or made of one by operators that keep its numbers.
    pub fn is_weight(&self, v: ValueId) -> bool {
        const KEEP: &[&str] = &[
            "Cast",
            "DequantizeLinear",
            "Identity",
            "QuantizeLinear",
            "Reshape",
            "Transpose",
        ];
        let graph = &self.model.graph;
        let mut at = v;
        // A chain is never longer than there are nodes.
        for _ in 0..=graph.node_slots() {
            if graph.constant(at).is_some() {
                return true;
            }
            let maker = graph.value(at).producer().map(|(id, _)| graph.node(id));
            let kept = maker.filter(|n| KEEP.iter().any(|op| n.is(op)));
            match kept.and_then(|n| n.input(0)) {
                Some(x) => at = x,
                None => return false,
            }
        }
        false
    }

    /// Ties an operand to the result as broadcasting lays it: from the last axis on.
    pub fn broadcast(&mut self, x: ValueId, y: ValueId) {
        let (m, n) = (self.rank(x), self.rank(y));
        for a in 0..m {
            if self.ties.length(Axis::of(x, a)) == Some(1) {
                continue;
            }
            match (a + n).checked_sub(m) {
                Some(b) => self.tie((x, a), (y, b)),
                None => self.hold(x, a, "it has more axes than the result"),
            }
        }
    }
}

/// Numbers that meet those at the same place.
fn elementwise(cx: &mut Cx) -> Result<(), String> {
    cx.y()?;
    let inputs: Vec<ValueId> = cx.node.inputs().iter().flatten().copied().collect();
    let outputs: Vec<ValueId> = cx.node.outputs().iter().flatten().copied().collect();
    for &v in inputs.iter().chain(&outputs) {
        cx.ranked(v)?;
    }
    for y in outputs {
        for &x in &inputs {
            cx.broadcast(x, y);
        }
    }
    Ok(())
}
