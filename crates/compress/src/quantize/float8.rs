//! Floats of 8 bits (FP8): weights with a scale a channel behind DequantizeLinear, and activations
//! with one scale between QuantizeLinear and DequantizeLinear where calibration saw them.
//!
//! A scale takes the largest magnitude to the largest number of the format, and numbers are rounded
//! as ONNX's QuantizeLinear does: the quotient in f32, to nearest, ties to even, saturating. Zero
//! points are zero, products and biases stay in 32 bits.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::error::At;
use edgesmith_ir::{
    Attribute, DType, Error, Graph, Model, Node, NodeId, Result, Tensor, ValueId, packed,
};
use edgesmith_passes::convert_opset;

use super::changes::{
    Activations, Changes, Fate, NOTHING, NodeChange, RangeChange, Ranges, WeightChange,
};
use super::int8::weights::{float_bias, mean_loss};
use super::overflow::{self, Format, Lost};
use crate::calibrate::Statistics;
use edgesmith_ir::pattern::matches;

/// The first opset whose QuantizeLinear and DequantizeLinear take floats of 8 bits.
pub const MIN_OPSET: i64 = 19;

/// Shorter constants stay: a node takes more than it saves.
const FEWEST: usize = 16;

/// Which float of 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Float8 {
    /// 4 bits of exponent, 3 of fraction, no infinity; up to 448.
    #[default]
    E4m3,
    /// 5 bits of exponent, 2 of fraction; up to 57344.
    E5m2,
}

impl Float8 {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
        }
    }

    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Self::E4m3 => DType::F8E4M3FN,
            Self::E5m2 => DType::F8E5M2,
        }
    }

    /// Its range.
    pub fn format(self) -> &'static Format {
        match self {
            Self::E4m3 => &overflow::E4M3,
            Self::E5m2 => &overflow::E5M2,
        }
    }

    /// The scale that takes `most` to the largest number; 1 where that is no f32 to divide by.
    fn scale(self, most: f64) -> f32 {
        let scale = (most / self.format().largest) as f32;
        if scale >= f32::MIN_POSITIVE {
            scale
        } else {
            1.0
        }
    }
}

/// What the conversion can be told.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which float of 8 bits.
    pub float8: Float8,
    /// Activations become FP8 too.
    pub activations: bool,
    /// Nodes that stay as they are, by name; `*` stands for any text.
    pub exclude: Vec<String>,
}

/// A node with a weight.
struct Site {
    node: NodeId,
    weight: ValueId,
    /// The index of the input that is the weight.
    input: usize,
    /// The axis of the scales.
    axis: usize,
    /// What it multiplies, where that is computed.
    reads: Option<ValueId>,
}

/// The names of the activations that a full conversion has to know of, and that correct biases.
pub fn needs(graph: &Graph, settings: &Settings) -> BTreeSet<String> {
    let (sites, _) = sites(graph, settings);
    let reads = sites.iter().filter_map(|s| s.reads);
    reads.map(|v| graph.value(v).name.clone()).collect()
}

/// Converts the weights of a model to FP8, and what they multiply where that is asked for. Where
/// `statistics` are given, biases of Conv and Gemm make up for the mean error of their weights.
/// Values keep their names. An opset below [`MIN_OPSET`] is raised to it.
///
/// # Errors
/// When the opset cannot be raised, calibration saw nothing of an activation that becomes FP8, or no
/// weight can be converted.
pub fn to_fp8(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
) -> Result<(Model, Changes)> {
    let mut out = model.clone();
    if out.opset() < MIN_OPSET {
        convert_opset(&mut out, MIN_OPSET)?;
    }
    let (sites, left) = sites(&out.graph, settings);
    if sites.is_empty() {
        return Err(Error::unsupported("no weight of the model can be FP8")
            .hint("those of Conv, Gemm, MatMul and Gather with constant f32 weights can be"));
    }
    let mut writer = Writer {
        graph: &mut out.graph,
        settings,
        weights: BTreeMap::new(),
        activations: BTreeMap::new(),
        zero: None,
        changes: Vec::new(),
        rows: Vec::new(),
    };
    for site in &sites {
        let place = writer.graph.node(site.node).place();
        writer.site(site, statistics).at(|| place)?;
    }
    let mut changes = Changes {
        nodes: account(model, &left),
        weight_bytes_before: super::constant_bytes(&model.graph),
        narrowing_nodes: writer.activations.len(),
        widening_nodes: writer.activations.len() + writer.weights.len(),
        ..Changes::default()
    };
    let ranges = Ranges {
        format: settings.float8.format().name,
        largest: settings.float8.format().largest,
        activations: match settings.activations {
            true => Activations::LookedAt,
            false => Activations::StayFloat,
        },
        rows: writer.rows,
    };
    changes.weights = writer.changes;
    changes.warnings.extend(ranges.warning());
    if settings.activations {
        changes.warnings.push(UNLOADABLE.into());
    }
    changes.ranges = Some(ranges);
    super::drop_unused(&mut out.graph);
    changes.weight_bytes_after = super::constant_bytes(&out.graph);
    Ok((out, changes))
}

/// What ONNX Runtime does with FP8 activations: its fusions of products take them for integers.
const UNLOADABLE: &str = "ONNX Runtime 1.31 on a CPU loads FP8 activations only with graph \
    optimization off (ORT_DISABLE_ALL): its fusions take them for integers";

fn account(model: &Model, left: &BTreeMap<NodeId, String>) -> Vec<NodeChange> {
    let fate = |id| {
        left.get(&id)
            .map_or(Fate::Converted, |why| Fate::Left(why.clone()))
    };
    let change = |(id, node): (NodeId, &Node)| NodeChange {
        name: node.name.clone(),
        op: node.op.clone(),
        fate: fate(id),
    };
    model.graph.nodes().map(change).collect()
}

/// The nodes whose weight can be FP8, and why the others are left.
fn sites(graph: &Graph, settings: &Settings) -> (Vec<Site>, BTreeMap<NodeId, String>) {
    let (mut sites, mut left) = (Vec::new(), BTreeMap::new());
    for (id, node) in graph.nodes() {
        match site(graph, id, node, settings) {
            Ok(site) => sites.push(site),
            Err(reason) => _ = left.insert(id, reason),
        }
    }
    (sites, left)
}

fn site(graph: &Graph, id: NodeId, node: &Node, settings: &Settings) -> Result<Site, String> {
    let is_known =
        node.domain.is_empty() && matches!(node.op.as_str(), "Conv" | "Gemm" | "MatMul" | "Gather");
    if !is_known {
        return Err(NOTHING.into());
    }
    let input = usize::from(!node.is("Gather"));
    let weight = node.input(input).ok_or(NOTHING)?;
    let t = graph.constant(weight).ok_or("its weight is computed")?;
    let axis = match node.op.as_str() {
        "Gemm" if node.int("transB").unwrap_or(0) == 0 => 1,
        "MatMul" => t.rank().saturating_sub(1),
        _ => 0,
    };
    let is_rows = node.int("axis").unwrap_or(0) == 0 && t.rank() == 2;
    let all_finite = |t: &Tensor| {
        let data = t.to_f32();
        data.is_ok_and(|data| data.iter().all(|x| x.is_finite()))
    };
    let named = settings.exclude.iter().any(|p| matches(p, &node.name));
    match () {
        () if named => Err("excluded by name".into()),
        () if t.dtype() != DType::F32 => Err("its weight is not f32".into()),
        () if t.count() < FEWEST => Err(format!("its weight has under {FEWEST} numbers")),
        () if input == 0 && !is_rows => Err("it takes no whole rows".into()),
        () if !all_finite(t) => Err("its weight has numbers that are not finite".into()),
        () => Ok(Site {
            node: id,
            weight,
            input,
            axis,
            reads: node
                .input(0)
                .filter(|&v| input == 1 && graph.constant(v).is_none()),
        }),
    }
}

/// The model in progress.
struct Writer<'a> {
    graph: &'a mut Graph,
    settings: &'a Settings,
    /// Dequantised weights, and their place in `changes` and `rows`.
    weights: BTreeMap<(ValueId, usize), (ValueId, usize)>,
    /// Dequantised activations, and their place in `rows`.
    activations: BTreeMap<ValueId, (ValueId, usize)>,
    /// The zero point of activations.
    zero: Option<ValueId>,
    changes: Vec<WeightChange>,
    rows: Vec<RangeChange>,
}

impl Writer<'_> {
    fn site(&mut self, site: &Site, statistics: Option<&Statistics>) -> Result<()> {
        let name = self.graph.node(site.node).name.clone();
        let (weight, row) = self.weight(site)?;
        self.graph.set_input(site.node, site.input, Some(weight));
        let change = self
            .changes
            .iter_mut()
            .find(|c| c.weight == self.rows[row].name);
        change.into_iter().for_each(|c| c.nodes.push(name.clone()));
        self.rows[row].nodes.push(name.clone());
        if let (Some(v), Some(statistics)) = (site.reads, statistics) {
            self.correct_bias(site, v, statistics)?;
        }
        if let (Some(v), true) = (site.reads, self.settings.activations) {
            let (activation, row) = self.activation(v, statistics)?;
            self.graph.set_input(site.node, 0, Some(activation));
            self.rows[row].nodes.push(name);
        }
        Ok(())
    }

    fn weight(&mut self, site: &Site) -> Result<(ValueId, usize)> {
        let key = (site.weight, site.axis);
        if let Some(&found) = self.weights.get(&key) {
            return Ok(found);
        }
        let name = self.graph.value(site.weight).name.clone();
        let t = self.graph.constant(site.weight).cloned();
        let t = t.ok_or_else(|| Error::internal("the weight of a site is constant"))?;
        let weight = Weight::of(&t, site.axis, self.settings.float8)?;
        let (row, change) = weight.judged(&t, &name, self.settings.float8)?;
        let scale = Tensor::vector(weight.scales);
        let inputs = [
            self.add(&format!("{name}_fp8"), weight.codes),
            self.add(&format!("{name}_scale"), scale),
        ];
        let node = Node::new("DequantizeLinear", &format!("{name}_dq"))
            .with("axis", Attribute::Int(site.axis as i64));
        let made = self.graph.add_op(node, &inputs, &format!("{name}_dq"));
        self.changes.push(change);
        self.rows.push(row);
        let found = (made, self.rows.len() - 1);
        self.weights.insert(key, found);
        Ok(found)
    }

    /// Adds to the bias of a node what rounding its weight takes from each output on average.
    fn correct_bias(&mut self, site: &Site, v: ValueId, statistics: &Statistics) -> Result<()> {
        let node = self.graph.node(site.node);
        let is_one = |name: &&str| node.float(name).unwrap_or(1.0) == 1.0;
        let is_plain = ["alpha", "beta"].iter().all(is_one);
        let seen = statistics.of(&self.graph.value(v).name);
        let (Some(channels), Some(t)) = (
            seen.and_then(|s| s.channels.as_ref()),
            self.graph.constant(site.weight),
        ) else {
            return Ok(());
        };
        if node.is("MatMul") || !is_plain || node.int("transA").unwrap_or(0) != 0 {
            return Ok(());
        }
        let errors = Weight::of(t, site.axis, self.settings.float8)?.errors(t)?;
        let Some(loss) = mean_loss(node, t.dims(), &errors, &channels.means()) else {
            return Ok(());
        };
        let bias = match (node.input(2), float_bias(self.graph, node, loss.len())?) {
            (None, _) => vec![0.0; loss.len()],
            (Some(_), Some(bias)) if bias.len() == loss.len() => bias,
            _ => return Ok(()),
        };
        let corrected = bias
            .iter()
            .zip(&loss)
            .map(|(&b, l)| (f64::from(b) + l) as f32);
        let corrected = Tensor::vector(corrected.collect::<Vec<f32>>());
        super::replace_constant(self.graph, site.node, 2, "corrected", corrected);
        Ok(())
    }

    fn activation(
        &mut self,
        v: ValueId,
        statistics: Option<&Statistics>,
    ) -> Result<(ValueId, usize)> {
        if let Some(&found) = self.activations.get(&v) {
            return Ok(found);
        }
        let name = self.graph.value(v).name.clone();
        let seen = statistics.and_then(|s| s.of(&name));
        let seen =
            seen.ok_or_else(|| Error::invalid(format!("calibration saw nothing of \"{name}\"")))?;
        let (least, most) = seen.range();
        let scale = self.settings.float8.scale(most.max(-least));
        let lost = Lost::of(seen, scale, self.settings.float8.format());
        self.rows.push(lost.scaled(&name, false));
        let scale = self.add(&format!("{name}_scale"), Tensor::scalar(scale));
        let zero = self.zero()?;
        let node = Node::new("QuantizeLinear", &format!("{name}_q"));
        let codes = self
            .graph
            .add_op(node, &[v, scale, zero], &format!("{name}_q"));
        let node = Node::new("DequantizeLinear", &format!("{name}_dq"));
        let inputs = [codes, scale, zero];
        let made = self.graph.add_op(node, &inputs, &format!("{name}_dq"));
        let found = (made, self.rows.len() - 1);
        self.activations.insert(v, found);
        Ok(found)
    }

    fn zero(&mut self) -> Result<ValueId> {
        if let Some(zero) = self.zero {
            return Ok(zero);
        }
        let zero = packed::encode_floats(self.settings.float8.dtype(), &[], &[0.0], true)?;
        let zero = self.add(&format!("zero_{}", self.settings.float8.name()), zero);
        self.zero = Some(zero);
        Ok(zero)
    }

    fn add(&mut self, name: &str, data: Tensor) -> ValueId {
        let name = self.graph.fresh_name(name);
        self.graph.add_constant(&name, data)
    }
}

/// A weight in FP8.
struct Weight {
    codes: Tensor,
    scales: Vec<f32>,
    /// Elements that lie together in a channel, one channel after the other.
    inner: usize,
}

impl Weight {
    fn of(t: &Tensor, axis: usize, float8: Float8) -> Result<Self> {
        let data = t.to_f32()?;
        let (channels, inner) = (
            t.dims()[axis],
            t.dims()[axis + 1..].iter().product::<usize>(),
        );
        let mut most = vec![0.0f64; channels];
        for (i, w) in data.iter().enumerate() {
            let m = &mut most[i / inner % channels];
            *m = m.max(f64::from(w.abs()));
        }
        let scales: Vec<f32> = most.into_iter().map(|m| float8.scale(m)).collect();
        let quotient = |(i, &w): (usize, &f32)| f64::from(w / scales[i / inner % channels]);
        let quotients: Vec<f64> = data.iter().enumerate().map(quotient).collect();
        Ok(Self {
            codes: packed::encode_floats(float8.dtype(), t.dims(), &quotients, true)?,
            scales,
            inner,
        })
    }

    fn scale(&self, i: usize) -> f32 {
        self.scales[i / self.inner % self.scales.len()]
    }

    /// How far each original element lies above its rounded one.
    fn errors(&self, t: &Tensor) -> Result<Vec<f64>> {
        let kept = packed::decode_floats(&self.codes)?;
        let pairs = t.to_f32()?.into_owned().into_iter().zip(kept);
        let error = |(i, (w, k)): (usize, (f32, f32))| f64::from(w - k * self.scale(i));
        Ok(pairs.enumerate().map(error).collect())
    }

    /// What the weight loses, against the numbers `t`.
    fn judged(
        &self,
        t: &Tensor,
        name: &str,
        float8: Float8,
    ) -> Result<(RangeChange, WeightChange)> {
        let (mut lost, mut signal) = (Lost::default(), 0.0f64);
        for (i, &w) in t.to_f32()?.iter().enumerate() {
            lost.add(w, self.scale(i), float8.format());
            signal += f64::from(w).powi(2);
        }
        let noise: f64 = self.errors(t)?.iter().map(|e| e * e).sum();
        let outputs = self.scales.len();
        let bytes = self.codes.byte_len() + 4 * outputs;
        let change = WeightChange {
            weight: name.to_owned(),
            nodes: Vec::new(),
            dims: [outputs, t.count() / outputs],
            bits: 8.0 * bytes as f64 / t.count() as f64,
            sqnr_db: 10.0 * (signal / noise).log10(),
            output_error: None,
            output_error_of_rounding: None,
        };
        Ok((lost.scaled(name, true), change))
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text, verify};

    use super::*;
    use crate::calibrate::ValueStatistics;
    use crate::quantize::testing::numbers;

    fn codes(float8: Float8, data: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let t = Tensor::from_vec(&[1, data.len()], data.to_vec()).unwrap();
        let w = Weight::of(&t, 0, float8).unwrap();
        (w.codes.bytes().to_vec(), w.scales)
    }

    #[test]
    fn codes_are_those_of_the_format() {
        let step = 0.5f32.powi(9);
        let data = [
            448.0,
            -448.0,
            1.0,
            -1.5,
            step,
            step / 2.0,
            step / 2.0 + 1e-6,
            1.5 * step,
            7.0 * step,
            8.0 * step,
            17.0,
            0.0,
            -0.0,
        ];
        let (codes, scales) = codes(Float8::E4m3, &data);
        assert_eq!(scales, [1.0]);
        let expected = [
            0x7e, 0xfe, 0x38, 0xbc, 0x01, 0x00, 0x01, 0x02, 0x07, 0x08, 0x58, 0x00, 0x80,
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn codes_of_the_other_format_are_too() {
        let step = 0.5f32.powi(16);
        let (codes, scales) = codes(
            Float8::E5m2,
            &[57344.0, -1.0, 1.125, 1.375, step, step / 2.0],
        );
        assert_eq!(
            (codes, scales),
            (vec![0x7b, 0xbc, 0x3c, 0x3e, 0x01, 0x00], vec![1.0])
        );
    }

    #[test]
    fn every_channel_reaches_the_largest_number_and_an_empty_one_has_scale_one() {
        let t = Tensor::from_vec(&[2, 3], vec![3.0f32, 0.0, -7e-3, -1.0, 0.0, 7e-3]).unwrap();
        let w = Weight::of(&t, 1, Float8::E4m3).unwrap();
        assert_eq!(
            w.scales,
            [
                (3.0f64 / 448.0) as f32,
                1.0,
                (f64::from(7e-3f32) / 448.0) as f32
            ]
        );
        let codes = w.codes.bytes();
        assert_eq!(
            (codes[0], codes[1], codes[2], codes[5]),
            (0x7e, 0, 0xfe, 0x7e)
        );
    }

    /// A convolution, a product, a linear layer, and a table with few numbers.
    fn net() -> Model {
        let list = |n, seed| {
            let all: Vec<String> = numbers(n, seed).iter().map(|x| format!("{x:?}")).collect();
            all.join(",")
        };
        let source = format!(
            "opset 13\ngraph net(x: f32[n,2,4,4], i: i64[n]) -> (y: f32[n,3], e: f32[n,8]) {{\n\
             wc: f32[4,2,3,3] = {{{}}}\nb: f32[4] = {{0.1,-0.2,0.3,0.05}}\n\
             wm: f32[4,5] = {{{}}}\nwg: f32[3,5] = {{{}}}\nwt: f32[4,8] = {{{}}}\n\
             c = Conv(x, wc, b) {{pads=[1,1,1,1], name=\"conv\"}}\nr = Relu(c) {{name=\"relu\"}}\n\
             p = GlobalAveragePool(r)\nf = Flatten(p)\nm = MatMul(f, wm) {{name=\"matmul\"}}\n\
             y = Gemm(m, wg) {{transB=1, name=\"gemm\"}}\ne = Gather(wt, i) {{name=\"gather\"}}\n}}\n",
            list(72, 1),
            list(20, 2),
            list(15, 3),
            list(32, 4)
        );
        text::parse(&source).unwrap()
    }

    fn inputs() -> [(&'static str, Tensor); 2] {
        let x = Tensor::from_vec(&[3, 2, 4, 4], numbers(96, 9)).unwrap();
        [("x", x), ("i", Tensor::vector(vec![0i64, 3, 1]))]
    }

    fn statistics(model: &Model) -> Statistics {
        let mut s = Statistics::default();
        eval::evaluate_with(model, &inputs(), &mut |v, t| {
            if t.dtype() == DType::F32 {
                let name = model.graph.value(v).name.clone();
                let seen = s.values.entry(name);
                let seen = seen.or_insert_with(|| ValueStatistics::new(Some(1)));
                seen.add(t).unwrap();
            }
        })
        .unwrap();
        s
    }

    fn sqnr(a: &[Tensor], b: &[Tensor]) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        for (a, b) in a.iter().zip(b) {
            for (a, b) in a.to_f32().unwrap().iter().zip(&*b.to_f32().unwrap()) {
                signal += f64::from(*a).powi(2);
                noise += f64::from(a - b).powi(2);
            }
        }
        10.0 * (signal / noise).log10()
    }

    fn fates(changes: &Changes) -> Vec<(&str, bool)> {
        let named = changes.nodes.iter().filter(|n| !n.name.is_empty());
        named
            .map(|n| (n.name.as_str(), n.fate == Fate::Converted))
            .collect()
    }

    #[test]
    fn weights_alone_are_near_and_take_the_bytes_that_are_told() {
        let model = net();
        for (float8, least) in [(Float8::E4m3, 27.0), (Float8::E5m2, 21.0)] {
            let settings = Settings {
                float8,
                ..Settings::default()
            };
            let (small, changes) = to_fp8(&model, None, &settings).unwrap();
            verify::verify(&small).unwrap();
            assert_eq!(small.opset(), MIN_OPSET);
            assert_eq!(
                fates(&changes),
                [
                    ("conv", true),
                    ("relu", false),
                    ("matmul", true),
                    ("gemm", false),
                    ("gather", true)
                ]
            );
            // 72 + 20 + 32 numbers, 4 + 5 + 4 scales, a bias of 4 and the matrix of 15.
            assert_eq!(changes.weight_bytes_after, 124 + 4 * (13 + 4 + 15));
            let bits: f64 = changes
                .weights
                .iter()
                .map(|w| w.bits * (w.dims[0] * w.dims[1]) as f64)
                .sum();
            assert!((bits - 8.0 * (124.0 + 4.0 * 13.0)).abs() < 1e-9);
            let found = eval::evaluate(&small, &inputs()).unwrap();
            let db = sqnr(&eval::evaluate(&model, &inputs()).unwrap(), &found);
            assert!(db > least, "{db}");
            assert_eq!(changes.narrowing_nodes, 0);
        }
    }

    #[test]
    fn activations_are_rounded_where_they_were_seen() {
        let model = net();
        let settings = Settings::default();
        let full = Settings {
            activations: true,
            ..Settings::default()
        };
        let statistics = statistics(&model);
        assert_eq!(
            needs(&model.graph, &settings),
            ["f", "x"].map(String::from).into()
        );
        let (small, changes) = to_fp8(&model, Some(&statistics), &full).unwrap();
        verify::verify(&small).unwrap();
        assert_eq!((changes.narrowing_nodes, changes.widening_nodes), (2, 5));
        let expected = eval::evaluate(&model, &inputs()).unwrap();
        let found = eval::evaluate(&small, &inputs()).unwrap();
        let weights = to_fp8(&model, None, &settings).unwrap().0;
        let alone = eval::evaluate(&weights, &inputs()).unwrap();
        let (full, alone) = (sqnr(&expected, &found), sqnr(&expected, &alone));
        assert!(full > 24.0 && full < alone, "{full} {alone}");
        let rows = changes.ranges.unwrap().rows;
        let x = rows.iter().find(|r| r.name == "x").unwrap();
        assert!(x.headroom.is_none() && x.overflow == 0.0 && x.nodes == ["conv"]);
    }

    #[test]
    fn biases_make_up_for_the_mean_error_of_weights() {
        let model = net();
        let sums_of_f = |model: &Model| {
            let mut sums = vec![0.0f64; 5];
            eval::evaluate_with(model, &inputs(), &mut |v, t| {
                if model.graph.value(v).name == "m" {
                    let data = t.to_f32().unwrap();
                    let each = data.iter().enumerate();
                    each.for_each(|(i, &x)| sums[i % 5] += f64::from(x));
                }
            })
            .unwrap();
            sums
        };
        let apart = |other: &Model| -> f64 {
            let pairs = sums_of_f(&model).into_iter().zip(sums_of_f(other));
            pairs.map(|(a, b)| (a - b).abs()).sum()
        };
        let settings = Settings {
            float8: Float8::E5m2,
            exclude: vec!["matmul".into()],
            ..Settings::default()
        };
        let plain = to_fp8(&model, None, &settings).unwrap().0;
        let mut statistics = statistics(&model);
        let corrected = to_fp8(&model, Some(&statistics), &settings).unwrap().0;
        let bias = |model: &Model| {
            let mut nodes = model.graph.nodes();
            let conv = nodes.find(|(_, n)| n.is("Conv")).unwrap().1;
            model
                .graph
                .constant(conv.input(2).unwrap())
                .unwrap()
                .clone()
        };
        assert_ne!(bias(&plain), bias(&corrected));
        let (with, without) = (apart(&corrected), apart(&plain));
        assert!(with < without, "{with} {without}");
        statistics.values.remove("x");
        let unseen = to_fp8(&model, Some(&statistics), &settings).unwrap().0;
        assert_eq!(bias(&plain), bias(&unseen));
    }

    #[test]
    fn what_calibration_did_not_see_is_an_error() {
        let settings = Settings {
            activations: true,
            ..Settings::default()
        };
        let e = to_fp8(&net(), Some(&Statistics::default()), &settings).unwrap_err();
        assert!(e.to_string().contains("saw nothing of \"x\""), "{e}");
    }

    #[test]
    fn a_weight_that_two_nodes_share_is_written_once() {
        let list: Vec<String> = numbers(16, 1).iter().map(|x| format!("{x:?}")).collect();
        let source = format!(
            "opset 19\ngraph g(x: f32[n,4]) -> (y: f32[n,4]) {{\nw: f32[4,4] = {{{}}}\n\
             h = MatMul(x, w) {{name=\"a\"}}\ny = MatMul(h, w) {{name=\"b\"}}\n}}\n",
            list.join(",")
        );
        let (small, changes) =
            to_fp8(&text::parse(&source).unwrap(), None, &Settings::default()).unwrap();
        assert_eq!(changes.weights[0].nodes, ["a", "b"]);
        assert_eq!(
            small
                .graph
                .nodes()
                .filter(|(_, n)| n.is("DequantizeLinear"))
                .count(),
            1
        );
        assert_eq!(changes.weight_bytes_after, 16 + 16);
    }

    #[test]
    fn excluded_nodes_stay() {
        let settings = Settings {
            exclude: vec!["mat*".into()],
            ..Settings::default()
        };
        let (_, changes) = to_fp8(&net(), None, &settings).unwrap();
        let converted = fates(&changes).into_iter().filter(|f| f.1).map(|f| f.0);
        assert_eq!(converted.collect::<Vec<_>>(), ["conv", "gather"]);
        assert_eq!(changes.weights[0].dims, [4, 18]);
    }
}
