//! Whether the samples of a batch go through a graph apart from each other, so that a batch can be
//! run in pieces.

use crate::graph::{Graph, Model, Node, ValueId};
use crate::infer::Inferred;
use crate::types::Dim;

/// The axis along which samples lie in each input and output; `None`: the same for all samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// In the order of the graph's inputs.
    pub inputs: Vec<Option<usize>>,
    /// In the order of the graph's outputs.
    pub outputs: Vec<Option<usize>>,
    /// How many there are.
    pub count: usize,
}

/// What is known of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    /// It is the same for all samples.
    Shared,
    /// Lengths, or computed from lengths: good for shapes only.
    Lengths,
    /// Samples lie along this axis, and each depends on the same sample of the inputs alone.
    Along(usize),
}

/// The axes of samples where every output sample depends on the same sample of the inputs only:
/// `None` where an operator mixes samples or is not known not to. `inferred` is for one batch.
///
/// Samples lie along the open axis that comes first in the inputs.
pub fn independent(model: &Model, inferred: &Inferred) -> Option<Samples> {
    let graph = &model.graph;
    let shape = |v: ValueId| graph.value(v).tensor_type()?.shape.as_ref();
    let open = |v: &ValueId| shape(*v)?.iter().find(|d| d.known().is_none()).cloned();
    let sample = graph.inputs.iter().find_map(open)?;
    let mut lies: Vec<Option<Lies>> = vec![None; graph.value_slots()];
    for (v, value) in graph.values() {
        if value.constant.is_some() {
            lies[v.index()] = Some(Lies::Shared);
        }
    }
    let mut axes = Vec::new();
    let mut count = None;
    for &v in &graph.inputs {
        let along = |d: &Dim| d.same(&sample) || (*d == Dim::Unknown && sample == Dim::Unknown);
        let found: Vec<usize> = match shape(v) {
            Some(s) => (0..s.rank()).filter(|&i| along(&s[i])).collect(),
            None => return None,
        };
        let axis = match found[..] {
            [] => None,
            [one] => Some(one),
            _ => return None,
        };
        if let Some(axis) = axis {
            let length = *inferred.dims(v)?.get(axis)?;
            if count.is_some_and(|c| c != length) {
                return None;
            }
            count = Some(length);
        }
        lies[v.index()] = Some(axis.map_or(Lies::Shared, Lies::Along));
        axes.push(axis);
    }
    let count = count?;
    for id in graph.order().ok()? {
        let node = graph.node(id);
        let found = Seen {
            graph,
            inferred,
            lies: &lies,
            node,
            count,
        }
        .outputs()?;
        for &v in node.outputs().iter().flatten() {
            if let Lies::Along(axis) = found
                && *inferred.dims(v)?.get(axis)? != count
            {
                return None;
            }
            lies[v.index()] = Some(found);
        }
    }
    let mut outputs = Vec::new();
    for &v in &graph.outputs {
        outputs.push(match lies[v.index()]? {
            Lies::Along(axis) => Some(axis),
            Lies::Shared => None,
            Lies::Lengths => return None,
        });
    }
    Some(Samples {
        inputs: axes,
        outputs,
        count,
    })
}

/// Operators on single elements, of any number of inputs, which broadcast.
const ELEMENTS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "BiasGelu",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "QLinearAdd",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Where",
];

/// Operators of which samples lie along axis 0 of the first input and of the output, while others
/// are weights or, where they are computed, lie along axis 0 too.
const WINDOWS: &[&str] = &[
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "EmbedLayerNormalization",
    "FusedConv",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LpPool",
    "MaxPool",
    "MultiHeadAttention",
    "QLinearAveragePool",
    "QLinearConv",
    "QLinearGlobalAveragePool",
];

/// Operators that normalise within the last axes.
const NORMS: &[&str] = &[
    "LayerNormalization",
    "LogSoftmax",
    "QLinearSoftmax",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Softmax",
];

/// One node and what its inputs are.
struct Seen<'a> {
    graph: &'a Graph,
    inferred: &'a Inferred,
    lies: &'a [Option<Lies>],
    node: &'a Node,
    count: usize,
}

impl Seen<'_> {
    fn lies(&self, i: usize) -> Option<Lies> {
        self.lies[self.node.input(i)?.index()]
    }

    fn rank(&self, i: usize) -> Option<usize> {
        Some(self.inferred.dims(self.node.input(i)?)?.len())
    }

    /// The axis of the first input, where all others are shared.
    fn only_first(&self) -> Option<usize> {
        let others = 1..self.node.inputs().len();
        let shared = |i: usize| self.node.input(i).is_none() || self.lies(i) == Some(Lies::Shared);
        match self.lies(0)? {
            Lies::Along(axis) if others.into_iter().all(shared) => Some(axis),
            _ => None,
        }
    }

    fn axis(&self, name: &str, default: i64, rank: usize) -> Option<usize> {
        crate::infer::axis(self.node.int(name).unwrap_or(default), rank).ok()
    }

    /// Integers of an attribute or, in later versions, of constant input `i`.
    fn ints(&self, name: &str, i: usize) -> Option<Vec<i64>> {
        match self.node.ints(name) {
            Some(ints) => Some(ints.to_vec()),
            None => self.graph.constant(self.node.input(i)?)?.to_i64().ok(),
        }
    }

    fn outputs(&self) -> Option<Lies> {
        let node = self.node;
        let mut given = node.inputs().iter().flatten();
        let of: Option<Vec<Lies>> = given.clone().map(|v| self.lies[v.index()]).collect();
        let of = of?;
        if node.subgraphs().next().is_some() {
            return None;
        }
        let op = node.op.as_str();
        if op == "Shape" || op == "Size" {
            return Some(Lies::Lengths);
        }
        if of.iter().all(|&l| l == Lies::Shared) {
            let known = crate::ops::find(&node.domain, op)?;
            return known.deterministic.then_some(Lies::Shared);
        }
        if of
            .iter()
            .all(|&l| matches!(l, Lies::Shared | Lies::Lengths))
        {
            let small = given.all(|v| self.inferred.dims(*v).is_some_and(|d| d.len() <= 1));
            let plain = matches!(
                op,
                "Add"
                    | "Cast"
                    | "Concat"
                    | "Div"
                    | "Gather"
                    | "Identity"
                    | "Mul"
                    | "Slice"
                    | "Squeeze"
                    | "Sub"
                    | "Unsqueeze"
            );
            return (small && plain).then_some(Lies::Lengths);
        }
        let axis = match node.domain.as_str() {
            "" | "com.microsoft" => self.along(op)?,
            _ => return None,
        };
        Some(Lies::Along(axis))
    }

    /// The axis of the output, for a node that reads samples.
    fn along(&self, op: &str) -> Option<usize> {
        match op {
            op if ELEMENTS.contains(&op) => self.elements(),
            op if WINDOWS.contains(&op) => self.windows(),
            op if NORMS.contains(&op) => self.norm(op),
            "QuantizeLinear" | "DequantizeLinear" => {
                let axis = self.only_first()?;
                let scalar = self.rank(1)? == 0 || self.inferred.dims(self.node.input(1)?)?[0] == 1;
                (scalar || self.axis("axis", 1, self.rank(0)?)? != axis).then_some(axis)
            }
            "Gemm" | "FusedGemm" | "QGemm" => {
                let plain = self.node.int("transA").unwrap_or(0) == 0 && self.only_first()? == 0;
                let bias = if op == "QGemm" { 6 } else { 2 };
                (plain && self.bias_repeats(bias)).then_some(0)
            }
            "QLinearMatMul" => {
                let axis = self.only_first()?;
                let one = |i: usize| {
                    let dims = self.inferred.dims(self.node.input(i)?)?;
                    Some(dims.iter().all(|&n| n == 1))
                };
                let one_grid = one(1)? && one(2)?;
                let fits = one_grid && self.rank(3)? == 2 && axis + 1 < self.rank(0)?;
                fits.then_some(axis)
            }
            "MatMul" | "FusedMatMul" => self.product(),
            "MatMulNBits" | "MatMulBnb4" => {
                let axis = self.only_first()?;
                (axis + 1 < self.rank(0)?).then_some(axis)
            }
            "GatherBlockQuantized" => match (self.lies(0)?, self.lies(1)?) {
                (Lies::Shared, Lies::Along(i))
                    if self.node.int("gather_axis").unwrap_or(0) == 0 =>
                {
                    Some(i)
                }
                _ => None,
            },
            "Flatten" => {
                let axis = self.axis("axis", 1, self.rank(0)? + 1)?;
                (self.only_first()? == 0 && axis >= 1).then_some(0)
            }
            "Reshape" => self.reshape(),
            "Transpose" => {
                let (axis, rank) = (self.only_first()?, self.rank(0)?);
                match self.node.ints("perm") {
                    Some(perm) => perm.iter().position(|&p| usize::try_from(p) == Ok(axis)),
                    None => Some(rank - 1 - axis),
                }
            }
            "Concat" => {
                let same = self.lies(0)?;
                let Lies::Along(axis) = same else { return None };
                let all = (0..self.node.inputs().len()).all(|i| self.lies(i) == Some(same));
                (all && self.axis("axis", 1, self.rank(0)?)? != axis).then_some(axis)
            }
            "Gather" => self.gather(),
            "Unsqueeze" => {
                let mut axis = self.only_first()?;
                let axes = self.ints("axes", 1)?;
                let rank = self.rank(0)? + axes.len();
                let mut axes: Vec<usize> = axes
                    .iter()
                    .map(|&a| crate::infer::axis(a, rank).ok())
                    .collect::<Option<_>>()?;
                axes.sort_unstable();
                axes.iter().for_each(|&a| axis += usize::from(a <= axis));
                Some(axis)
            }
            _ => None,
        }
    }

    /// Every input that has samples has them along the same axis of the output; the others repeat
    /// along it.
    fn elements(&self) -> Option<usize> {
        let out = self.inferred.dims(self.node.output(0)?)?.len();
        let mut found = None;
        for (i, v) in self.node.inputs().iter().enumerate() {
            let Some(v) = v else { continue };
            let rank = self.rank(i)?;
            if let Lies::Along(axis) = self.lies[v.index()]? {
                let axis = (axis + out).checked_sub(rank)?;
                if found.is_some_and(|f| f != axis) {
                    return None;
                }
                found = Some(axis);
            }
        }
        let axis = found?;
        let repeats = (0..self.node.inputs().len()).all(|i| {
            let Some(v) = self.node.input(i) else {
                return true;
            };
            match self.lies[v.index()] {
                Some(Lies::Shared) => self.inferred.dims(v).is_some_and(|d| {
                    let from_end = out - axis;
                    d.len() < from_end || d[d.len() - from_end] == 1
                }),
                Some(Lies::Along(_)) => true,
                _ => false,
            }
        });
        repeats.then_some(axis)
    }

    /// True where input `i` is left out, or the same for every row.
    fn bias_repeats(&self, i: usize) -> bool {
        let Some(v) = self.node.input(i) else {
            return true;
        };
        let dims = self.inferred.dims(v);
        dims.is_some_and(|d| d.len() < 2 || d[0] == 1)
    }

    fn windows(&self) -> Option<usize> {
        let training = self.node.int("training_mode").unwrap_or(0) != 0;
        let whole = (0..self.node.inputs().len()).all(|i| match self.lies(i) {
            None => self.node.input(i).is_none(),
            Some(Lies::Along(axis)) => axis == 0,
            Some(Lies::Shared) => {
                let dims = self.node.input(i).and_then(|v| self.inferred.dims(v));
                // What is not constant and could be a batch of masks or ids is not repeated.
                let constant = self.node.input(i).and_then(|v| self.graph.constant(v));
                constant.is_some() || dims.is_some_and(|d| d.first() != Some(&self.count))
            }
            Some(Lies::Lengths) => false,
        });
        (whole && !training && self.lies(0)? == Lies::Along(0)).then_some(0)
    }

    fn norm(&self, op: &str) -> Option<usize> {
        let axis = match op {
            "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => self.elements()?,
            _ => self.only_first()?,
        };
        let rank = self.rank(0)?;
        let first = self.axis("axis", -1, rank)?;
        let others = self.node.outputs().iter().skip(1).flatten().next();
        (axis < first && others.is_none()).then_some(axis)
    }

    fn product(&self) -> Option<usize> {
        let set = |name: &str| self.node.int(name).unwrap_or(0) != 0;
        if ["transA", "transB", "transBatchA", "transBatchB"]
            .into_iter()
            .any(set)
        {
            return None;
        }
        let (a, b) = (self.rank(0)?, self.rank(1)?);
        let out = self.inferred.dims(self.node.output(0)?)?.len();
        match (self.lies(0)?, self.lies(1)?) {
            (Lies::Along(axis), Lies::Shared) if b == 2 && axis + 1 < a => Some(axis),
            (Lies::Along(x), Lies::Along(y)) => {
                let same = out == a.max(b) && x + b == y + a && x + 2 < a;
                same.then_some(x + out - a)
            }
            _ => None,
        }
    }

    fn reshape(&self) -> Option<usize> {
        let target = self.lies(1)?;
        let out = self.inferred.dims(self.node.output(0)?)?;
        let shaped = matches!(target, Lies::Shared | Lies::Lengths);
        let first = self.lies(0)? == Lies::Along(0) && out.first() == Some(&self.count);
        (shaped && first).then_some(0)
    }

    fn gather(&self) -> Option<usize> {
        let axis = self.axis("axis", 0, self.rank(0)?)?;
        match (self.lies(0)?, self.lies(1)?) {
            (Lies::Shared, Lies::Along(i)) => Some(axis + i),
            (Lies::Along(x), Lies::Shared) if x < axis => Some(x),
            (Lies::Along(x), Lies::Shared) if x > axis => Some(x - 1 + self.rank(1)?),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::infer;
    use crate::types::{Shape, TensorType, Type};

    const ROWS: &str = "1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7";

    /// The axes of the outputs of `body` for `x: f32[n,4]` and four samples.
    fn axes(body: &str) -> Option<Vec<Option<usize>>> {
        let text = format!("opset 17 graph g (x: f32[n,4]) -> (y) {{ {body} }}");
        let model = crate::text::parse(&text).expect("it is a model");
        let ty = TensorType::new(crate::DType::F32, Shape::fixed(&[4, 4]));
        let inputs = [(model.graph.inputs[0], Type::from(ty))];
        let inferred = infer(&model, &inputs).expect("shapes fit");
        independent(&model, &inferred).map(|s| s.outputs)
    }

    #[test]
    fn rows_stay_apart_through_products_sums_and_norms() {
        let w = &format!("w: f32[4,4] = {{{ROWS}}} b: f32[4] = {{1, 1, 1, 1}}");
        let body = format!("{w} m = MatMul(x, w) a = Add(m, b) y = Softmax(a)");
        assert_eq!(axes(&body), Some(vec![Some(0)]));
        assert_eq!(axes("y = Transpose(x)"), Some(vec![Some(1)]));
    }

    #[test]
    fn rows_of_bytes_stay_apart() {
        let w = &format!(
            "w: i8[4,4] = {{{ROWS}}} s: f32[] = {{0.5}} z: u8[] = {{3}} v: i8[] = {{0}}
             q = QuantizeLinear(x, s, z)"
        );
        for (end, found) in [
            ("b = com.microsoft.QGemm(q, s, z, w, s, v, _, s, z)", true),
            ("b = QLinearMatMul(q, s, z, w, s, v, s, z)", true),
            (
                "rows: u8[4] = {1,2,3,4} b = QLinearMatMul(q, s, rows, w, s, v, s, z)",
                false,
            ),
            (
                "c: u8[1] = {5} b = com.microsoft.QLinearAdd(c, x, z, c, s, z, s, z)",
                false,
            ),
            ("b = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z)", true),
            (
                "b = com.microsoft.QLinearSoftmax(q, s, z, s, z) {opset=13}",
                true,
            ),
            (
                "b = com.microsoft.QLinearSoftmax(q, s, z, s, z) {axis=0, opset=13}",
                false,
            ),
            (
                "t = Transpose(q) b = com.microsoft.QLinearMul(q, s, z, t, s, z, s, z)",
                false,
            ),
        ] {
            let along = axes(&format!("{w} {end} y = DequantizeLinear(b, s, z)"));
            assert_eq!(along, found.then(|| vec![Some(0)]), "{end}");
        }
    }

    #[test]
    fn what_mixes_rows_is_refused() {
        assert_eq!(axes("y = Softmax(x) {axis=0}"), None);
        assert_eq!(axes("y = ReduceMean(x) {axes=[0]}"), None);
        assert_eq!(axes("t = Transpose(x) y = MatMul(x, t)"), None);
        assert_eq!(axes("t = Transpose(x) y = Add(x, t)"), None);
        assert_eq!(
            axes(&format!("c: f32[4,4] = {{{ROWS}}} y = Add(x, c)")),
            None,
            "rows of a constant differ"
        );
    }

    #[test]
    fn lengths_may_shape_what_is_computed_but_not_enter_it() {
        let shaped = "s = Shape(x) y = Reshape(x, s)";
        assert_eq!(axes(shaped), Some(vec![Some(0)]));
        let counted =
            "s = Shape(x) f = Cast(s) {to=1} m: i64[1] = {0} n = Gather(f, m) y = Div(x, n)";
        assert_eq!(axes(counted), None);
    }
}
