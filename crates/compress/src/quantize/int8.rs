//! Static INT8: products on bytes, with quantise and dequantise nodes around them (QDQ).
//!
//! Every product whose weight is constant computes `DQ(x), DQ(w), DQ(b) → product → Q`, the form
//! that ONNX Runtime and this program fuse to integer kernels. Activations have one scale and
//! zero point a tensor, weights a scale a channel and zero point 0, biases the product of both
//! scales in 32 bits. Operators between products follow [`super::rules`].

use std::collections::BTreeSet;

use edgesmith_ir::{Error, Model, Result};
use edgesmith_passes::convert_opset;

use super::affine::{Affine, Byte};
use super::changes::{Changes, Fate, NodeChange};
use crate::calibrate::Statistics;
use crate::calibrate::observers::{self, Observer, Tuning};

mod adaptive;
mod blocks;
mod correct;
mod dynamic;
mod plan;
mod post_training;
mod qoperator;
mod rewrite;
pub(super) mod weights;

pub use dynamic::quantize_dynamic;
pub use post_training::{Look, Ready, look, post_training};

use adaptive::Inputs;
use plan::Plan;
use rewrite::Rewrite;

/// How the ranges of weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightRange {
    /// The largest magnitude of a channel.
    #[default]
    MinMax,
    /// The range of a channel with the smallest squared error.
    Mse,
}

/// What is looked at where weights are rounded up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoundBy {
    /// The output of each product, see [`adaptive`].
    #[default]
    Layers,
    /// The output of several together, see [`blocks`], after each for itself.
    Blocks,
}

/// How integer operators are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Float operators between DequantizeLinear and QuantizeLinear.
    #[default]
    Qdq,
    /// Operators on integers (QLinearConv, QLinearMatMul, and those of ONNX Runtime), where there
    /// are any; the others stay as in [`Format::Qdq`].
    QOperator,
}

/// What static INT8 can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The type of activations.
    pub activations: Byte,
    /// Ranges of activations are the same on both sides of zero.
    pub symmetric: bool,
    /// How ranges of activations are chosen.
    pub observer: &'static Observer,
    /// What the observer is told.
    pub tuning: Tuning,
    /// How ranges of weights are chosen.
    pub weights: WeightRange,
    /// A scale for each channel of a weight, and not one for all.
    pub per_channel: bool,
    /// Weights of 4 bits.
    pub narrow_weights: bool,
    /// The first and the last product have 8 bits where others have 4.
    pub wide_ends: bool,
    /// Weights of 7 bits, for processors whose byte products saturate in 16 bits.
    pub reduce_range: bool,
    /// Scales of activations and weights are rounded up to powers of two, for devices that shift
    /// and do not multiply.
    pub power_of_two_scales: bool,
    /// Channels of activations that spread give some of that to the weights, see [`super::smooth`].
    pub smooth: bool,
    /// How integer operators are written.
    pub format: Format,
    /// Weights of neighbours share their ranges by channel, see [`super::equalize`]: for weights with
    /// one scale.
    pub equalize: bool,
    /// So many samples by whose means [`post_training`] corrects biases, one product after the other;
    /// 0 leaves that out.
    pub bias_samples: usize,
    /// So many samples by which [`post_training`] rounds weights up or down, see [`adaptive`]; 0 rounds
    /// to nearest.
    pub adaptive_samples: usize,
    /// What these samples are looked at for.
    pub round_by: RoundBy,
    /// Biases make up for the mean error of the rounded weights.
    pub bias_correction: bool,
    /// The first product stays as it is.
    pub keep_first: bool,
    /// The last product stays as it is.
    pub keep_last: bool,
    /// Outputs of the model are rounded to integers too, and Softmax and products of two computed
    /// operands compute on them: nothing is left that needs floats.
    pub integer_outputs: bool,
    /// Nodes that stay as they are, by name; `*` stands for any text.
    pub exclude: Vec<String>,
    /// Operators quantised beyond the default ones; `MatMul` stands for those of two computed operands.
    pub also: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            activations: Byte::Unsigned,
            symmetric: false,
            observer: observers::OBSERVERS[0],
            tuning: Tuning::default(),
            weights: WeightRange::default(),
            per_channel: true,
            narrow_weights: false,
            wide_ends: false,
            reduce_range: false,
            power_of_two_scales: false,
            smooth: true,
            equalize: false,
            bias_samples: 0,
            adaptive_samples: 0,
            round_by: RoundBy::default(),
            format: Format::default(),
            bias_correction: true,
            keep_first: false,
            keep_last: false,
            integer_outputs: false,
            exclude: Vec::new(),
            also: Vec::new(),
        }
    }
}

impl Settings {
    /// The largest magnitude of a quantised weight, of 8 bits where `wide`.
    fn weight_limit(&self, wide: bool) -> i32 {
        match (self.narrow_weights && !wide, self.reduce_range) {
            (true, _) => 7,
            (false, true) => 63,
            (false, false) => 127,
        }
    }

    /// The parameters of activations in that range.
    fn affine(&self, range: (f64, f64), byte: Byte) -> Affine {
        let affine = Affine::of(range, byte, self.symmetric);
        if self.power_of_two_scales {
            affine.power_of_two()
        } else {
            affine
        }
    }
}

/// The first opset whose QuantizeLinear makes numbers of 16 bits; before, that of ONNX Runtime does.
const WIDE_OPSET: i64 = 21;

/// The first opset whose DequantizeLinear reads numbers of 4 bits.
const NARROW_OPSET: i64 = 21;

/// The domain of ONNX Runtime's operators.
const MICROSOFT: &str = "com.microsoft";

/// The first opset whose QuantizeLinear has a scale for each channel.
pub const MIN_OPSET: i64 = 13;

/// The names of the values that [`quantize`] needs to know of with these settings: what calibration
/// can be told to look at.
///
/// # Errors
/// When the opset cannot be raised, or a shape rule fails.
pub fn needs(model: &Model, settings: &Settings) -> Result<BTreeSet<String>> {
    let model = prepared(model, settings)?;
    Plan::needs(&model, settings)
}

/// The model in the form that is quantised.
fn prepared(model: &Model, settings: &Settings) -> Result<Model> {
    let mut out = model.clone();
    let least = match settings.narrow_weights {
        true => NARROW_OPSET,
        false => MIN_OPSET,
    };
    if out.opset() < least {
        convert_opset(&mut out, least)?;
    }
    super::plain_gemm(&mut out.graph)?;
    Ok(out)
}

/// Quantises a float model by what was seen of its values. The values of the model keep their
/// names; those that are quantised are dequantised under the same name. An opset below
/// [`MIN_OPSET`], or with weights of 4 bits below 21, is raised to it.
///
/// Activations of 4 bits are bytes that a Clip bounds between QuantizeLinear and DequantizeLinear:
/// so they meet the same integer kernels here and in ONNX Runtime, in any opset.
///
/// # Errors
/// When the opset cannot be raised, a shape rule fails, or nothing can be quantised.
pub fn quantize(
    model: &Model,
    statistics: &Statistics,
    settings: &Settings,
) -> Result<(Model, Changes)> {
    quantize_knowing(model, statistics, None, settings)
}

/// As [`quantize`], with weights rounded by what products multiply them with, where that is known.
fn quantize_knowing(
    model: &Model,
    statistics: &Statistics,
    inputs: Option<&Inputs>,
    settings: &Settings,
) -> Result<(Model, Changes)> {
    let mut out = prepared(model, settings)?;
    let plan = Plan::of(&out, statistics, settings)?;
    if plan.is_empty() {
        return Err(Error::unsupported("no node of the model can be quantised")
            .hint("INT8 needs Conv, Gemm or MatMul with constant weights, and calibration data"));
    }
    let mut changes = Changes {
        warnings: outliers(&out, &plan, statistics, settings)
            .into_iter()
            .collect(),
        nodes: account(model, &plan),
        weight_bytes_before: super::constant_bytes(&model.graph),
        ..Changes::default()
    };
    let is_foreign = settings.activations.is_wide() && out.opset() < WIDE_OPSET;
    let domain = if is_foreign { MICROSOFT } else { "" };
    if is_foreign {
        out.opsets.insert(MICROSOFT.into(), 1);
    }
    let mut rewrite = Rewrite::new(&mut out.graph, &plan, statistics, settings, domain);
    rewrite.inputs = inputs;
    rewrite.run()?;
    changes.narrowing_nodes = rewrite.quantizers;
    changes.widening_nodes = rewrite.dequantizers;
    changes.sources = rewrite.sources;
    if settings.format == Format::QOperator {
        qoperator::fuse(&mut out)?;
    }
    super::drop_unused(&mut out.graph);
    changes.weight_bytes_after = super::constant_bytes(&out.graph);
    Ok((out, changes))
}

/// A range so many times wider than that of all but one number in ten thousand is ruled by few.
const WIDER: f64 = 8.0;

/// Says which activations have a range that few numbers rule.
fn outliers(
    model: &Model,
    plan: &Plan,
    statistics: &Statistics,
    settings: &Settings,
) -> Option<String> {
    let levels = settings.activations.levels(false);
    let wider = |name: &str| {
        let seen = statistics.of(name)?;
        let (lo, hi) = (observers::PERCENTILE.range)(seen, levels, &Tuning::default());
        let (least, most) = seen.range();
        Some((most - least) / (hi - lo).max(f64::from(f32::MIN_POSITIVE)))
    };
    let values = plan.made.keys().chain(plan.read.keys());
    let named = values.map(|v| model.graph.value(*v).name.as_str());
    let found: Vec<(f64, &str)> = named
        .filter_map(|n| Some((wider(n)?, n)))
        .filter(|(w, _)| *w > WIDER)
        .collect();
    let (times, name) = found.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!(
        "the ranges of {} activations are ruled by under 0.01 % of their numbers, that of \"{name}\" \
         {times:.0} times: 16-bit activations or leaving its readers in float may be closer",
        found.len()
    ))
}

fn account(model: &Model, plan: &Plan) -> Vec<NodeChange> {
    let fate = |id| {
        if let Some(producer) = plan.producer_of_bound(id) {
            return Fate::Absorbed(model.graph.node(producer).name.clone());
        }
        match plan.left.get(&id) {
            Some(reason) => Fate::Left(reason.clone()),
            None => Fate::Converted,
        }
    };
    let change = |(id, node): (_, &edgesmith_ir::Node)| NodeChange {
        name: node.name.clone(),
        op: node.op.clone(),
        fate: fate(id),
    };
    model.graph.nodes().map(change).collect()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{Tensor, eval, text, verify};

    use super::*;
    use crate::calibrate::ValueStatistics;
    use crate::quantize::sources;
    use crate::quantize::testing::numbers;

    /// A small network with a branch, bounds, pools and a head.
    const NET: &str = r#"
opset 17
graph net(x: f32[n,2,6,6]) -> (y: f32[n,3]) {
  w1: f32[4,2,3,3] = {WEIGHT72}
  b1: f32[4] = {0.1,-0.2,0.3,0.05}
  w2: f32[4,1,3,3] = {WEIGHT36}
  w3: f32[4,4,1,1] = {WEIGHT16}
  wf: f32[4,3] = {WEIGHT12}
  bf: f32[3] = {0.5,-0.5,0.25}
  six: f32[] = {6.0}
  zero: f32[] = {0.0}
  c1 = Conv(x, w1, b1) {pads=[1,1,1,1], name="c1"}
  r1 = Relu(c1) {name="r1"}
  c2 = Conv(r1, w2) {pads=[1,1,1,1], group=4, name="c2"}
  r2 = Clip(c2, zero, six) {name="r2"}
  c3 = Conv(r2, w3) {name="c3"}
  a = Add(c3, r1) {name="a"}
  ra = Relu(a) {name="ra"}
  p = MaxPool(ra) {kernel_shape=[2,2], strides=[2,2], name="p"}
  g = GlobalAveragePool(p) {name="g"}
  f = Flatten(g) {name="f"}
  y = Gemm(f, wf, bf) {name="y", alpha=0.5}
}
"#;

    fn net() -> Model {
        let mut source = NET.to_owned();
        for (n, seed) in [(72, 1), (36, 2), (16, 3), (12, 4)] {
            let list: Vec<String> = numbers(n, seed).iter().map(|x| format!("{x:?}")).collect();
            source = source.replace(&format!("WEIGHT{n}"), &list.join(","));
        }
        text::parse(&source).unwrap()
    }

    fn input(seed: u32) -> Tensor {
        Tensor::from_vec(&[8, 2, 6, 6], numbers(8 * 72, seed)).unwrap()
    }

    fn statistics(model: &Model) -> Statistics {
        let mut s = Statistics {
            samples: 32,
            ..Statistics::default()
        };
        for seed in 10..14 {
            eval::evaluate_with(model, &[("x", input(seed))], &mut |v, t| {
                let name = model.graph.value(v).name.clone();
                let channels = Some(if name == "f" { -1 } else { 1 });
                let seen = s
                    .values
                    .entry(name)
                    .or_insert_with(|| ValueStatistics::new(channels));
                seen.add(t).unwrap();
            })
            .unwrap();
        }
        s
    }

    fn sqnr(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        let signal: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
        let noise: f64 = a
            .iter()
            .zip(&*b)
            .map(|(x, y)| f64::from(x - y).powi(2))
            .sum();
        10.0 * (signal / noise).log10()
    }

    fn quality(settings: &Settings) -> f64 {
        let model = net();
        let (q, changes) = quantize(&model, &statistics(&model), settings).unwrap();
        verify::verify(&q).unwrap();
        let found = sources::compare(&q.graph, &changes.sources).unwrap();
        assert_eq!(found.len(), 4, "each weight lies within half a step");
        let x = [("x", input(10))];
        let (a, b) = (
            eval::evaluate(&model, &x).unwrap(),
            eval::evaluate(&q, &x).unwrap(),
        );
        sqnr(&a[0], &b[0])
    }

    #[test]
    fn stays_close_to_the_float_model_in_every_variant() {
        let variants = [
            Settings::default(),
            Settings {
                activations: Byte::Signed,
                ..Settings::default()
            },
            Settings {
                activations: Byte::Signed,
                symmetric: true,
                ..Settings::default()
            },
            Settings {
                weights: WeightRange::Mse,
                ..Settings::default()
            },
            Settings {
                per_channel: false,
                ..Settings::default()
            },
            Settings {
                bias_correction: false,
                ..Settings::default()
            },
            Settings {
                reduce_range: true,
                ..Settings::default()
            },
        ];
        for (settings, least) in variants
            .iter()
            .zip([32.0, 32.0, 28.0, 32.0, 28.0, 32.0, 26.0])
        {
            let db = quality(settings);
            assert!(db > least, "{db} dB with {settings:?}");
        }
    }

    #[test]
    fn bounds_go_where_saturation_does_their_work() {
        let model = net();
        let (q, changes) = quantize(&model, &statistics(&model), &Settings::default()).unwrap();
        assert!(q.graph.nodes().all(|(_, n)| !n.is("Relu") && !n.is("Clip")));
        let absorbed: Vec<_> = changes
            .nodes
            .iter()
            .filter_map(|n| match &n.fate {
                Fate::Absorbed(into) => Some((n.name.as_str(), into.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(absorbed, [("r1", "c1"), ("r2", "c2"), ("ra", "a")]);
        assert_eq!(changes.converted(), changes.nodes.len());
        let symmetric = Settings {
            activations: Byte::Signed,
            symmetric: true,
            ..Settings::default()
        };
        let (q, _) = quantize(&model, &statistics(&model), &symmetric).unwrap();
        assert_eq!(
            q.graph
                .nodes()
                .filter(|(_, n)| n.is("Relu") || n.is("Clip"))
                .count(),
            3
        );
    }

    #[test]
    fn shared_parameters_and_counts_are_as_planned() {
        let model = net();
        let (q, changes) = quantize(&model, &statistics(&model), &Settings::default()).unwrap();
        // Quantised: x, r1, r2, c3, ra, p, g, f. The head gives floats.
        assert_eq!(changes.narrowing_nodes, 8);
        // Beside those: 4 weights, and the biases of c1, c2, c3 and y.
        assert_eq!(changes.widening_nodes, 16);
        assert!(changes.weight_bytes_after < changes.weight_bytes_before);
        let scale = |name: &str| {
            let v = q.graph.find_value(name).unwrap();
            let dequantize = q.graph.node(q.graph.value(v).producer().unwrap().0);
            q.graph
                .constant(dequantize.input(1).unwrap())
                .unwrap()
                .to_f32()
                .unwrap()[0]
        };
        assert_eq!(scale("p"), scale("ra"));
        assert_eq!(scale("f"), scale("g"));
        let biases = q
            .graph
            .nodes()
            .filter(|(_, n)| n.is("Conv") || n.is("Gemm"));
        for (_, n) in biases {
            let dequantize = q
                .graph
                .producer_is(n.input(2).unwrap(), "DequantizeLinear")
                .unwrap();
            let ints = q.graph.node(dequantize).input(0).unwrap();
            assert_eq!(
                q.graph.constant(ints).unwrap().dtype(),
                edgesmith_ir::DType::I32
            );
        }
    }

    #[test]
    fn an_activation_between_floats_is_left_alone() {
        let model = net();
        let exclude = vec!["c1".into(), "c3".into()];
        let settings = Settings {
            exclude,
            ..Settings::default()
        };
        let (_, changes) = quantize(&model, &statistics(&model), &settings).unwrap();
        let left: Vec<&str> = changes
            .nodes
            .iter()
            .filter(|n| matches!(n.fate, Fate::Left(_)))
            .map(|n| n.name.as_str())
            .collect();
        assert_eq!(left, ["c1", "r1", "c3", "a", "ra", "p", "g", "f"]);
    }

    #[test]
    fn bias_correction_removes_the_mean_error_of_an_output() {
        let model = net();
        let bias = |bias_correction| {
            let settings = Settings {
                bias_correction,
                reduce_range: true,
                ..Settings::default()
            };
            let (q, _) = quantize(&model, &statistics(&model), &settings).unwrap();
            let mut shift = 0.0;
            for seed in 10..14 {
                let x = [("x", input(seed))];
                let (a, b) = (
                    eval::evaluate(&model, &x).unwrap(),
                    eval::evaluate(&q, &x).unwrap(),
                );
                let (a, b) = (a[0].to_f32().unwrap(), b[0].to_f32().unwrap());
                shift += a
                    .iter()
                    .zip(&*b)
                    .map(|(x, y)| f64::from(x - y))
                    .sum::<f64>();
            }
            shift.abs()
        };
        assert!(
            bias(true) < bias(false),
            "{} against {}",
            bias(true),
            bias(false)
        );
    }

    #[test]
    fn sixteen_bits_are_closer_in_either_domain() {
        for activations in [Byte::Unsigned16, Byte::Signed16] {
            let settings = Settings {
                activations,
                ..Settings::default()
            };
            let db = quality(&settings);
            assert!(db > quality(&Settings::default()) + 3.0, "{db}");
        }
    }

    #[test]
    fn integer_operators_compute_what_the_pairs_do() {
        let model = net();
        let s = statistics(&model);
        let with = |activations, format| {
            let settings = Settings {
                activations,
                format,
                ..Settings::default()
            };
            quantize(&model, &s, &settings).unwrap().0
        };
        for activations in [Byte::Unsigned, Byte::Signed] {
            let (pairs, ints) = (
                with(activations, Format::Qdq),
                with(activations, Format::QOperator),
            );
            verify::verify(&ints).unwrap();
            let ops: Vec<&str> = ints.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
            assert!(!ops.contains(&"Conv") && !ops.contains(&"Add"), "{ops:?}");
            assert!(!ops.contains(&"DequantizeLinear"), "{ops:?}");
            let x = [("x", input(10))];
            let (a, b) = (
                eval::evaluate(&pairs, &x).unwrap(),
                eval::evaluate(&ints, &x).unwrap(),
            );
            assert!(sqnr(&a[0], &b[0]) > 38.0, "{}", sqnr(&a[0], &b[0]));
        }
    }

    #[test]
    fn ranges_that_few_numbers_rule_are_warned_of() {
        let model = net();
        let mut s = statistics(&model);
        let warned = |s: &Statistics| {
            quantize(&model, s, &Settings::default())
                .unwrap()
                .1
                .warnings
        };
        assert!(warned(&s).is_empty(), "{:?}", warned(&s));
        let mut many = numbers(50_000, 3);
        many.push(200.0);
        let r1 = s.values.get_mut("r1").unwrap();
        r1.add(&Tensor::vector(many)).unwrap();
        assert!(warned(&s)[0].contains("\"r1\""), "{:?}", warned(&s));
    }

    #[test]
    fn scales_are_powers_of_two_where_that_is_asked_for() {
        let model = net();
        let settings = Settings {
            power_of_two_scales: true,
            ..Settings::default()
        };
        let (q, _) = quantize(&model, &statistics(&model), &settings).unwrap();
        let mut seen = 0;
        for (_, node) in q.graph.nodes().filter(|(_, n)| n.is("DequantizeLinear")) {
            let scales = q.graph.constant(node.input(1).unwrap()).unwrap();
            for s in scales.to_f32().unwrap().iter() {
                assert_eq!(s.to_bits() & 0x7F_FFFF, 0, "{} {s}", node.name);
                seen += 1;
            }
        }
        assert!(seen > 20);
        assert!(quality(&settings) > 24.0, "{}", quality(&settings));
    }

    #[test]
    fn what_is_needed_is_enough() {
        let model = net();
        let settings = Settings::default();
        let needed = needs(&model, &settings).unwrap();
        let all = statistics(&model);
        let mut few = all.clone();
        few.values.retain(|name, _| needed.contains(name));
        assert!(few.values.len() < all.values.len());
        assert!(!needed.contains("c1") && needed.contains("r1"));
        let printed =
            |s: &Statistics| text::print(&quantize(&model, s, &settings).unwrap().0).unwrap();
        assert_eq!(printed(&all), printed(&few));
    }

    /// What a model computes of `x`.
    fn seen_of(model: &Model, x: &Tensor) -> Statistics {
        let mut s = Statistics::default();
        eval::evaluate_with(model, &[("x", x.clone())], &mut |v, t| {
            let seen = s.values.entry(model.graph.value(v).name.clone());
            seen.or_insert_with(|| ValueStatistics::new(None))
                .add(t)
                .unwrap();
        })
        .unwrap();
        s
    }

    #[test]
    fn a_product_of_two_computed_operands_is_quantised_when_asked_for() {
        let model = text::parse(
            "opset 17\ngraph g(x: f32[2,2]) -> (y) {\n  w: f32[2,2] = {1.0,0.5,0.25,1.0}\n  \
             h = MatMul(x, w) {name=\"with a constant\"}\n  y = MatMul(x, h) {name=\"computed\"}\n}\n",
        )
        .unwrap();
        let x = Tensor::from_vec(&[2, 2], vec![0.5f32, -1.0, 1.0, 0.25]).unwrap();
        let s = seen_of(&model, &x);
        let left = |settings: Settings| -> Vec<String> {
            let (_, changes) = quantize(&model, &s, &settings).unwrap();
            let nodes = changes.nodes.into_iter();
            let left = nodes.filter(|n| matches!(n.fate, Fate::Left(_)));
            left.map(|n| n.name).collect()
        };
        assert_eq!(left(Settings::default()), ["computed"]);
        let also = Settings {
            also: vec!["MatMul".into()],
            ..Settings::default()
        };
        assert!(left(also).is_empty());
        let integer_outputs = Settings {
            integer_outputs: true,
            ..Settings::default()
        };
        assert!(left(integer_outputs).is_empty());
    }

    #[test]
    fn an_old_opset_is_raised() {
        let mut model = text::parse(
            "opset 12\ngraph g(x: f32[n,2]) -> (y: f32[n,1,2]) {\n  w: f32[2,2] = {1.0,0.5,0.25,1.0}\n  \
             h = MatMul(x, w) {name=\"m\"}\n  y = Unsqueeze(h) {axes=[1]}\n}\n",
        )
        .unwrap();
        model.graph.name = "old".into();
        let x = Tensor::from_vec(&[2, 2], vec![0.5f32, -1.0, 1.0, 0.25]).unwrap();
        let (q, _) = quantize(&model, &seen_of(&model, &x), &Settings::default()).unwrap();
        assert_eq!(q.opset(), MIN_OPSET);
        let a = eval::evaluate(&model, &[("x", x.clone())]).unwrap();
        let b = eval::evaluate(&q, &[("x", x)]).unwrap();
        assert!(sqnr(&a[0], &b[0]) > 30.0);
    }

    #[test]
    fn a_model_without_products_or_statistics_is_refused() {
        let e = quantize(&net(), &Statistics::default(), &Settings::default()).unwrap_err();
        assert!(e.to_string().contains("no node"));
    }
}
