//! Weights alone in 2, 3, 4 or 8 bits, in blocks: activations stay in float.
//!
//! A weight is rounded by a [`method`], to codes in [`blocks`] or of a table ([`nf4`]), and written
//! in a [`format`]. XᵀX of what it multiplies comes from calibration ([`grams`] says of which
//! values).

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Error, Graph, Model, NodeId, Progress, Result, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_passes::convert_opset;

use super::Layer;
use super::changes::{Changes, Fate, NodeChange};
use crate::calibrate::Statistics;

pub mod awq;
pub mod blocks;
mod by_segment;
pub(crate) mod factor;
pub mod format;
pub mod gptq;
pub mod hqq;
mod kept;
pub mod matrix;
pub mod method;
pub mod nf4;
mod prices;
pub(crate) mod range;
mod rounding;
pub mod rtn;
mod scale;
mod sites;

use blocks::Scheme;
pub use by_segment::{Calibration, by_segment};
use format::Format;
use matrix::Lies;
use method::Method;
pub use prices::{Priced, prices};
use rounding::{Change, Rounding, gram, write};
use sites::Site;
pub use sites::grams;

/// What weight-only quantisation can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How weights are rounded.
    pub method: &'static Method,
    /// The form in which they are written.
    pub format: &'static Format,
    /// Bits and blocks.
    pub scheme: Scheme,
    /// Grids are searched for that cost less than the whole range.
    pub search_range: bool,
    /// GPTQ: the share of the mean of the diagonal of XᵀX that is added to it.
    pub damping: f64,
    /// GPTQ: columns in the order of their share in the inputs, with static groups.
    pub act_order: bool,
    /// GPTQ, AWQ: what a weight multiplies comes from the weights rounded before it.
    pub sequential: bool,
    /// GPTQ, AWQ: the model is run in segments whose weights and XᵀX take at most so many bytes.
    pub segment: usize,
    /// NF4: the largest magnitudes of blocks in 8 bits.
    pub double_quantize: bool,
    /// Tables of embeddings are rounded too.
    pub embeddings: bool,
    /// Nodes that stay as they are, by name; `*` stands for any text.
    pub exclude: Vec<String>,
    /// What single nodes are given; where more than one names a node, the last counts.
    pub layers: Vec<Layer>,
    /// Threads; 0 is one for each core.
    pub threads: usize,
}

impl Settings {
    /// Settings of a method for codes of `bits` bits.
    pub fn new(method: &'static Method, bits: usize) -> Self {
        let is_table = method.name == method::NF4.name;
        Self {
            method,
            format: if is_table {
                &format::BNB4
            } else {
                &format::MATMULNBITS
            },
            scheme: Scheme {
                bits,
                group: if is_table { 64 } else { 128 },
                symmetric: false,
            },
            search_range: false,
            damping: 0.01,
            act_order: true,
            sequential: false,
            segment: 1 << 30,
            double_quantize: false,
            embeddings: true,
            exclude: Vec::new(),
            layers: Vec::new(),
            threads: 0,
        }
    }

    /// Bits and blocks of the weight of a node; `None` where it stays as it is.
    fn scheme_of(&self, node: &str) -> Option<Scheme> {
        let named = |pattern: &String| edgesmith_ir::pattern::matches(pattern, node);
        if self.exclude.iter().any(named) {
            return None;
        }
        let Some(layer) = self.layers.iter().rev().find(|l| named(&l.pattern)) else {
            return Some(self.scheme);
        };
        Some(Scheme {
            bits: layer.bits?,
            group: layer.group.unwrap_or(self.scheme.group),
            ..self.scheme
        })
    }

    /// # Errors
    /// When bits or blocks are not done.
    pub(crate) fn check(&self) -> Result<()> {
        let Scheme { bits, group, .. } = self.scheme;
        if ![2, 3, 4, 8].contains(&bits) {
            return Err(Error::usage(format!("weights of {bits} bits are not done"))
                .hint("2, 3, 4 and 8 are"));
        }
        if group != 0 && !(group.is_power_of_two() && (16..=256).contains(&group)) {
            return Err(
                Error::usage(format!("blocks of {group} numbers are not done"))
                    .hint("16, 32, 64, 128 and 256 are, and whole rows"),
            );
        }
        let is_table = self.method.name == method::NF4.name;
        if is_table != (self.format.name == format::BNB4.name) {
            let (method, format) = (self.method.name, self.format.name);
            return Err(Error::usage(format!("{method} is not written as {format}"))
                .hint("nf4 is written as bnb4, and nothing else is"));
        }
        Ok(())
    }
}

/// The name of a weight, how it lies, and its bits and numbers of a block.
type KnownAs = (String, Lies, usize, usize);

/// Weights that were rounded before, by name and scheme, for models that differ in the bits of others.
#[derive(Debug, Default)]
pub struct Known {
    weights: BTreeMap<KnownAs, Change>,
    codes: usize,
}

/// Codes that are kept at most.
const MOST_KNOWN: usize = 1 << 30;

impl Known {
    fn key(graph: &Graph, site: &Site) -> KnownAs {
        let Scheme { bits, group, .. } = site.scheme;
        (
            graph.value(site.weight).name.clone(),
            site.lies,
            bits,
            group,
        )
    }

    fn add(&mut self, key: KnownAs, one: &Change) {
        let codes = one.1.dims.iter().product::<usize>();
        if !self.weights.contains_key(&key) && self.codes + codes <= MOST_KNOWN {
            self.codes += codes;
            self.weights.insert(key, one.clone());
        }
    }
}

/// Rounds the weights of a float model. Values keep their names.
///
/// # Errors
/// When the settings do not fit each other, the method needs XᵀX and there is none, the opset
/// cannot be raised, nothing can be rounded, or the user cancels.
pub fn quantize(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<(Model, Changes)> {
    quantize_knowing(model, statistics, settings, None, progress)
}

/// A model whose Gemms have no factors of constants: those are in the constants. What is calibrated and
/// what is rounded are then the same.
///
/// # Errors
/// When a constant cannot be read as f32.
pub fn plain(model: &Model) -> Result<Model> {
    let mut plain = model.clone();
    super::plain_gemm(&mut plain.graph)?;
    Ok(plain)
}

/// As [`quantize`], with what is known of the same model and settings but for layers.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_knowing(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
    known: Option<&mut Known>,
    progress: &dyn Progress,
) -> Result<(Model, Changes)> {
    let found = Found::of(model, settings)?;
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let mut rounding = Rounding::new(settings, &ctx);
    if settings.method.scales_inputs {
        let (graph, sites) = (&found.out.graph, &found.sites);
        rounding.scales = rounding.find_scales(graph, sites, statistics, progress)?;
    }
    // Scales of inputs depend on the bits of all that read them.
    let mut known = known.filter(|_| !settings.method.scales_inputs);
    let one = |graph: &Graph, _, sites: &[&Site]| {
        let known_as = Known::key(graph, sites[0]);
        if let Some(one) = known.as_ref().and_then(|k| k.weights.get(&known_as)) {
            return Ok(one.clone());
        }
        let gram = statistics.and_then(|s| gram(graph, sites, s));
        let one = rounding.one(graph, sites, gram.as_deref())?;
        if let Some(known) = &mut known {
            known.add(known_as, &one);
        }
        Ok(one)
    };
    found.written(settings, &rounding.scales, one, progress)
}

/// The names of the constants that can be written as `settings` say.
pub(crate) fn writable(model: &Model, settings: &Settings) -> BTreeSet<String> {
    let (sites, _) = sites::find(&model.graph, settings);
    let products = sites.iter().filter(|s| s.does != sites::Use::Table);
    products
        .map(|s| model.graph.value(s.weight).name.clone())
        .collect()
}

/// The model with the weights that are in `rounded`, by the name of the constant, written as `settings`
/// say; others stay.
///
/// # Errors
/// When the settings do not fit each other, or the opset cannot be raised.
pub(crate) fn written(
    model: &Model,
    settings: &Settings,
    rounded: &BTreeMap<String, blocks::Blocks>,
    progress: &dyn Progress,
) -> Result<(Model, Changes)> {
    let mut found = Found::of(model, settings)?;
    let name = |graph: &Graph, site: &Site| graph.value(site.weight).name.clone();
    let graph = found.out.graph.clone();
    found
        .sites
        .retain(|s| rounded.contains_key(&name(&graph, s)));
    let one = |graph: &Graph, _: usize, sites: &[&Site]| {
        let blocks = rounded.get(&name(graph, sites[0]));
        let blocks = blocks.ok_or_else(|| Error::internal("a rounded weight is there"))?;
        rounding::known(graph, sites[0], blocks)
    };
    found.written(settings, &BTreeMap::new(), one, progress)
}

/// A model whose weights can be rounded, and which they are.
struct Found {
    out: Model,
    sites: Vec<Site>,
    /// What is known before the first is rounded.
    changes: Changes,
}

impl Found {
    /// # Errors
    /// When the settings do not fit each other, the opset cannot be raised, or nothing can be
    /// rounded.
    fn of(model: &Model, settings: &Settings) -> Result<Self> {
        settings.check()?;
        let mut out = model.clone();
        if out.opset() < settings.format.opset {
            convert_opset(&mut out, settings.format.opset)?;
        }
        super::plain_gemm(&mut out.graph)?;
        let (sites, left) = sites::find(&out.graph, settings);
        if sites.is_empty() {
            return Err(
                Error::unsupported("no weight of the model can be rounded alone")
                    .hint("MatMul, Gemm, Gather and 1x1 Conv with constant f32 weights can be"),
            );
        }
        let changes = Changes {
            nodes: account(model, &left),
            weight_bytes_before: super::constant_bytes(&model.graph),
            ..Changes::default()
        };
        Ok(Self {
            out,
            sites,
            changes,
        })
    }

    /// The model with its weights as `one` rounds them, which is told the number of each, and with
    /// inputs divided by `scales`.
    fn written(
        mut self,
        settings: &Settings,
        scales: &BTreeMap<ValueId, Vec<f32>>,
        one: impl FnMut(&Graph, usize, &[&Site]) -> Result<Change>,
        progress: &dyn Progress,
    ) -> Result<(Model, Changes)> {
        let (out, changes) = (&mut self.out, &mut self.changes);
        changes.rescaled = scale::insert(&mut out.graph, &mut self.sites, scales);
        changes.weights = write(out, &self.sites, settings, one, progress)?;
        super::drop_unused(&mut out.graph);
        changes.weight_bytes_after = super::constant_bytes(&out.graph);
        Ok((self.out, self.changes))
    }
}

fn account(model: &Model, left: &BTreeMap<NodeId, String>) -> Vec<NodeChange> {
    let fate = |id| {
        left.get(&id)
            .map_or(Fate::Converted, |why| Fate::Left(why.clone()))
    };
    let change = |(id, node): (NodeId, &edgesmith_ir::Node)| NodeChange {
        name: node.name.clone(),
        op: node.op.clone(),
        fate: fate(id),
    };
    model.graph.nodes().map(change).collect()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, Tensor, eval, text, verify};

    use super::blocks::{Blocks, Zeros};
    use super::method::Job;
    use super::rounding::matrix_of;
    use super::*;
    use crate::calibrate;
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    fn list(data: &[f32]) -> String {
        data.iter()
            .map(|x| format!("{x:?}"))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// One node of each kind, each with a weight of 20 outputs and 40 inputs.
    fn net() -> Model {
        let source = format!(
            r#"
opset 17
graph net(x: f32[n,40], i: i64[m], p: f32[n,40,2,2]) -> (a, b, c, t, v) {{
  wa: f32[40,20] = {{{}}}
  wb: f32[20,40] = {{{}}}
  wc: f32[40,20] = {{{}}}
  table: f32[20,40] = {{{}}}
  wv: f32[20,40,1,1] = {{{}}}
  bias: f32[20] = {{{}}}
  a = MatMul(x, wa) {{name="a"}}
  b = Gemm(x, wb, bias) {{name="b", transB=1}}
  c = Gemm(x, wc) {{name="c", alpha=0.5}}
  t = Gather(table, i) {{name="t"}}
  v = Conv(p, wv, bias) {{name="v"}}
}}
"#,
            list(&numbers(800, 1)),
            list(&numbers(800, 2)),
            list(&numbers(800, 3)),
            list(&numbers(800, 4)),
            list(&numbers(800, 5)),
            list(&numbers(20, 6)),
        );
        text::parse(&source).unwrap()
    }

    fn fed() -> Vec<(&'static str, Tensor)> {
        vec![
            ("x", Tensor::from_vec(&[3, 40], numbers(120, 11)).unwrap()),
            ("i", Tensor::vector(vec![0i64, 19, 7, 7])),
            (
                "p",
                Tensor::from_vec(&[3, 40, 2, 2], numbers(480, 12)).unwrap(),
            ),
        ]
    }

    /// The model with its weights replaced by what the codes stand for.
    fn emulated(model: &Model, settings: &Settings) -> Model {
        let mut model = model.clone();
        super::super::plain_gemm(&mut model.graph).unwrap();
        let (sites, _) = sites::find(&model.graph, settings);
        let ctx = Ctx::serial();
        for site in &sites {
            let weight = matrix_of(&model.graph, site).unwrap();
            let job = Job {
                weight: &weight,
                hessian: None,
                scheme: settings.scheme,
                settings,
                ctx: ctx.clone(),
            };
            let kept = (settings.method.round)(&job).unwrap().numbers();
            let kept = match site.lies {
                Lies::OutputsFirst => kept,
                Lies::InputsFirst => matrix::turned(&kept, weight.n, weight.k),
            };
            let dims = model.graph.constant(site.weight).unwrap().dims().to_vec();
            let kept = Tensor::from_vec(&dims, kept).unwrap();
            let v = model.graph.add_constant("kept", kept);
            model.graph.set_input(site.node, site.input, Some(v));
        }
        model
    }

    fn apart(a: &[Tensor], b: &[Tensor]) -> f32 {
        let pairs = a.iter().zip(b).flat_map(|(a, b)| {
            assert_eq!(a.dims(), b.dims());
            let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
            a.iter()
                .zip(b.iter())
                .map(|(a, b)| (a - b).abs())
                .collect::<Vec<_>>()
        });
        pairs.fold(0.0, f32::max)
    }

    fn settings(
        method: &'static Method,
        bits: usize,
        group: usize,
        form: &'static Format,
    ) -> Settings {
        let mut settings = Settings::new(method, bits);
        settings.scheme.group = group;
        settings.format = form;
        settings
    }

    #[test]
    fn every_form_holds_the_numbers_of_the_codes() {
        let model = net();
        for form in [&format::MATMULNBITS, &format::QDQ] {
            for bits in [2, 3, 4, 8] {
                if bits == 2 && form.name == "qdq" {
                    continue;
                }
                for (group, symmetric) in [(16, false), (32, true), (0, false), (64, true)] {
                    let mut settings = settings(&method::RTN, bits, group, form);
                    settings.scheme.symmetric = symmetric;
                    let (q, changes) = quantize(&model, None, &settings, &NoProgress).unwrap();
                    verify::verify(&q).unwrap();
                    let written = if bits == 2 { 4 } else { 5 };
                    assert_eq!(
                        (changes.converted(), changes.weights.len()),
                        (written, written)
                    );
                    let wanted = eval::evaluate(&emulated(&model, &settings), &fed()).unwrap();
                    let found = eval::evaluate(&q, &fed()).unwrap();
                    let apart = apart(&wanted, &found);
                    assert!(
                        apart < 1e-5,
                        "{} {bits} {group} {symmetric}: {apart}",
                        form.name
                    );
                }
            }
        }
    }

    #[test]
    fn nf4_holds_the_numbers_of_the_codes_with_nested_statistics_or_without() {
        let model = net();
        for double_quantize in [false, true] {
            let mut settings = settings(&method::NF4, 4, 16, &format::BNB4);
            settings.double_quantize = double_quantize;
            let (q, changes) = quantize(&model, None, &settings, &NoProgress).unwrap();
            verify::verify(&q).unwrap();
            assert_eq!(changes.converted(), 3);
            settings.embeddings = false;
            settings.exclude = vec!["v".into()];
            let wanted = eval::evaluate(&emulated(&model, &settings), &fed()).unwrap();
            assert!(apart(&wanted, &eval::evaluate(&q, &fed()).unwrap()) < 1e-5);
            let bits = if double_quantize {
                4.0 + (50.0 * 8.0 + 64.0) / 800.0
            } else {
                6.0
            };
            assert!(
                (changes.weights[0].bits - bits).abs() < 0.2,
                "{}",
                changes.weights[0].bits
            );
        }
    }

    #[test]
    fn zero_points_between_codes_stand_in_matmulnbits() {
        let model = net();
        let mut settings = settings(&method::HQQ, 3, 16, &format::MATMULNBITS);
        settings.embeddings = false;
        settings.exclude = vec!["v".into()];
        let (q, _) = quantize(&model, None, &settings, &NoProgress).unwrap();
        let wanted = eval::evaluate(&emulated(&model, &settings), &fed()).unwrap();
        assert!(apart(&wanted, &eval::evaluate(&q, &fed()).unwrap()) < 1e-5);
        settings.format = &format::QDQ;
        let refused = quantize(&model, None, &settings, &NoProgress).unwrap_err();
        assert!(refused.to_string().contains("zero points"), "{refused}");
    }

    #[test]
    fn what_is_excluded_or_too_small_is_left_with_the_reason() {
        let mut settings = settings(&method::RTN, 4, 32, &format::QDQ);
        settings.exclude = vec!["a".into()];
        settings.embeddings = false;
        let (_, changes) = quantize(&net(), None, &settings, &NoProgress).unwrap();
        let left: Vec<&str> = changes
            .nodes
            .iter()
            .filter_map(|n| match &n.fate {
                Fate::Left(why) => Some(why.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(left, ["excluded by name", "tables are kept"]);
    }

    #[test]
    fn a_bias_that_matmulnbits_does_not_take_leaves_its_node_in_float() {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,16], y: f32[4]) -> (a, b, c, d) {{\n  w: f32[16,4] = {{{}}}\n  \
             row: f32[4] = {{1,2,3,4}}\n  rows: f32[1,4] = {{1,2,3,4}}\n  one: f32[] = {{1}}\n  \
             a = Gemm(x, w, row) {{name=\"a\"}}\n  b = Gemm(x, w, rows) {{name=\"b\"}}\n  \
             c = Gemm(x, w, one) {{name=\"c\"}}\n  d = Gemm(x, w, y) {{name=\"d\"}}\n}}\n",
            list(&numbers(64, 3))
        );
        let model = text::parse(&source).unwrap();
        let rounded = |form| {
            let settings = settings(&method::RTN, 4, 16, form);
            let (q, changes) = quantize(&model, None, &settings, &NoProgress).unwrap();
            verify::verify(&q).unwrap();
            let left = changes.nodes.iter().filter(|n| match &n.fate {
                Fate::Left(why) => why.contains("bias"),
                _ => false,
            });
            let left: Vec<String> = left.map(|n| n.name.clone()).collect();
            (changes.weights[0].nodes.clone(), left)
        };
        let names = |list: &[&str]| list.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let (done, left) = rounded(&format::MATMULNBITS);
        assert_eq!((done, left), (names(&["a"]), names(&["b", "c", "d"])));
        let (done, left) = rounded(&format::QDQ);
        assert_eq!((done, left), (names(&["a", "b", "c", "d"]), names(&[])));
    }

    #[test]
    fn a_weight_rounded_in_parts_of_its_rows_is_what_it_is_at_once() {
        let model = net();
        for method in [&method::RTN, &method::HQQ] {
            let mut settings = settings(method, 3, 16, &format::QDQ);
            for symmetric in [false, true] {
                settings.scheme.symmetric = symmetric;
                let ctx = Ctx::serial();
                let rounding = Rounding::new(&settings, &ctx);
                for site in &sites::find(&model.graph, &settings).0 {
                    let is_table = site.does == sites::Use::Table;
                    let parts = |most| {
                        rounding
                            .in_parts(&model.graph, site, is_table, most)
                            .unwrap()
                    };
                    let weight = matrix_of(&model.graph, site).unwrap();
                    let t = model.graph.constant(site.weight).unwrap();
                    let part = matrix::Matrix::part(t, site.lies, 3..9).unwrap();
                    assert_eq!(part.data, weight.data[3 * 40..9 * 40]);
                    assert_eq!(parts(100), parts(1 << 20));
                }
            }
        }
    }

    #[test]
    fn zero_points_of_parts_are_numbers_where_those_of_one_are() {
        let one = |zeros| Blocks {
            n: 1,
            k: 1,
            scheme: Settings::new(&method::RTN, 4).scheme,
            codes: vec![1],
            scales: vec![1.0],
            zeros,
        };
        let mut all = one(Zeros::Codes(vec![2]));
        all.append(one(Zeros::Floats(vec![2.5])));
        assert_eq!(all.zeros, Zeros::Floats(vec![2.0, 2.5]));
        assert_eq!((all.n, all.numbers()), (2, vec![-1.0, -1.5]));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        for (bits, group) in [(5, 32), (4, 8), (4, 48), (4, 512)] {
            let settings = settings(&method::RTN, bits, group, &format::QDQ);
            assert!(
                quantize(&net(), None, &settings, &NoProgress).is_err(),
                "{bits} {group}"
            );
        }
        let crossed = settings(&method::NF4, 4, 32, &format::QDQ);
        assert!(quantize(&net(), None, &crossed, &NoProgress).is_err());
    }

    #[test]
    fn a_weight_that_two_nodes_read_is_written_once() {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,16]) -> (a, b) {{\n  w: f32[16,16] = {{{}}}\n  \
             a = MatMul(x, w) {{name=\"a\"}}\n  b = MatMul(a, w) {{name=\"b\"}}\n}}\n",
            list(&numbers(256, 3))
        );
        let model = text::parse(&source).unwrap();
        for form in [&format::MATMULNBITS, &format::QDQ] {
            let settings = settings(&method::RTN, 4, 16, form);
            let (q, changes) = quantize(&model, None, &settings, &NoProgress).unwrap();
            assert_eq!(
                (changes.weights.len(), &changes.weights[0].nodes[..]),
                (1, &["a".to_owned(), "b".into()][..])
            );
            let codes = q
                .graph
                .values()
                .filter(|(v, x)| x.name.starts_with("w_q") && q.graph.constant(*v).is_some());
            assert_eq!(codes.count(), 1);
        }
    }

    #[test]
    fn scales_of_inputs_change_nothing_but_what_is_rounded() {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,16]) -> (a, b, c) {{\n  w: f32[16,16] = {{{}}}\n  \
             s: f32[16] = {{{}}}\n  o: f32[16] = {{{}}}\n  \
             h = LayerNormalization(x, s, o) {{name=\"h\"}}\n  a = MatMul(h, w) {{name=\"a\"}}\n  \
             r = Relu(a) {{name=\"r\"}}\n  b = MatMul(r, w) {{name=\"b\"}}\n  c = Neg(r) {{name=\"c\"}}\n}}\n",
            list(&numbers(256, 3)),
            list(&numbers(16, 4)),
            list(&numbers(16, 5)),
        );
        let model = text::parse(&source).unwrap();
        let rtn = settings(&method::RTN, 4, 16, &format::QDQ);
        let mut scaled = model.clone();
        let (mut sites, _) = sites::find(&scaled.graph, &rtn);
        let scales: BTreeMap<ValueId, Vec<f32>> = sites
            .iter()
            .map(|s| {
                (
                    s.reads.unwrap(),
                    numbers(16, 9).iter().map(|x| x + 1.5).collect(),
                )
            })
            .collect();
        for site in &sites {
            let s = &scales[&site.reads.unwrap()];
            let weight = matrix_of(&scaled.graph, site).unwrap().scaled(s);
            let data = Tensor::from_vec(&[16, 16], matrix::turned(&weight.data, 16, 16)).unwrap();
            let v = scaled.graph.add_constant("scaled", data);
            scaled.graph.set_input(site.node, 1, Some(v));
        }
        scale::insert(&mut scaled.graph, &mut sites, &scales);
        let muls = scaled.graph.nodes().filter(|(_, n)| n.is("Mul")).count();
        assert_eq!(muls, 1, "the norm takes the first over");
        let x = [("x", Tensor::from_vec(&[3, 16], numbers(48, 13)).unwrap())];
        let (a, b) = (
            eval::evaluate(&model, &x).unwrap(),
            eval::evaluate(&scaled, &x).unwrap(),
        );
        assert!(apart(&a, &b) < 1e-5);
    }

    #[test]
    fn a_value_that_products_read_by_two_axes_has_one_gram() {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,16,2,32]) -> (a, b) {{\n  w: f32[8,16,1,1] = {{{}}}\n  \
             v: f32[32,8] = {{{}}}\n  a = Conv(x, w) {{name=\"a\"}}\n  \
             b = MatMul(x, v) {{name=\"b\"}}\n}}\n",
            list(&numbers(128, 3)),
            list(&numbers(256, 4)),
        );
        let model = text::parse(&source).unwrap();
        let settings = settings(&method::GPTQ, 4, 16, &format::MATMULNBITS);
        let asked = calibrate::Settings {
            grams: grams(&model.graph, &settings),
            ..calibrate::Settings::default()
        };
        let samples = InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[2, 16, 2, 32], numbers(2048, 5)).unwrap(),
            labels: None,
        };
        let seen = calibrate::calibrate(&model, &samples, &asked, &NoProgress).unwrap();
        let (_, changes) = quantize(&model, Some(&seen), &settings, &NoProgress).unwrap();
        assert_eq!(changes.weights.len(), 1);
        let left = |n: &NodeChange| matches!(&n.fate, Fate::Left(why) if why.contains("axis"));
        assert!(changes.nodes.iter().any(|n| n.name == "b" && left(n)));
    }

    #[test]
    fn numbers_of_blocks_follow_their_grids() {
        let blocks = Blocks {
            n: 1,
            k: 3,
            scheme: Scheme {
                bits: 4,
                group: 2,
                symmetric: false,
            },
            codes: vec![0, 15, 7],
            scales: vec![0.5, 2.0],
            zeros: Zeros::Codes(vec![1, 7]),
        };
        assert_eq!(blocks.numbers(), [-0.5, 7.0, 0.0]);
    }
}
