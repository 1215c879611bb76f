//! Single weights, N of M weights or blocks of weights become zero; tensors keep their lengths.
//!
//! A [`criteria::Criterion`] says which go, a [`pattern::Pattern`] how zeros lie, a
//! [`scope::Scope`] what competes with what. Metadata of the model names what was pruned
//! ([`edgesmith_ir::analysis::pruned`]), so that later steps keep the zeros.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::analysis::{Pruned, mark_pruned, quantised};
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Progress, Result, Tensor};
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_passes::{Level, RunOptions, optimize};

use crate::calibrate::{Sums, model_digest};
use crate::quantize::changes::WeightChange;
use crate::quantize::weight_only::{self, matrix::Matrix};

mod account;
pub mod criteria;
mod errors;
pub mod gradual;
mod inputs;
mod magnitude;
pub mod masks;
pub mod packed;
pub mod pattern;
mod random;
pub mod scope;
pub mod select;
pub mod sites;
mod sparsegpt;
mod tell;
mod wanda;

use account::all_weights;
pub use account::{PrunedWeight, Sparsity, found};
use criteria::{Criterion, Does, Job, Solved};
pub use inputs::Calibration;
use masks::{Mask, Masks};
use pattern::Pattern;
use scope::Scope;
use sites::{Choice, Site, Sites};
pub use tell::notes;

/// What pruning of weights can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How zeros lie.
    pub pattern: Pattern,
    /// The share of zeros.
    pub amount: f64,
    /// What chooses.
    pub criterion: &'static Criterion,
    /// Over what scores compete.
    pub scope: Scope,
    /// Which weights.
    pub choice: Choice,
    /// Masks that stand in the place of the criterion.
    pub given: Option<Masks>,
    /// SparseGPT: the share of the mean of the diagonal of XᵀX that is added to it.
    pub damping: f64,
    /// SparseGPT: what stays is rounded so, and written so, where that form has a place for it.
    pub rounding: Option<weight_only::Settings>,
    /// Of what is random.
    pub seed: u64,
    /// Threads; 0 is one for each core.
    pub threads: usize,
}

impl Settings {
    /// The settings of a criterion and a pattern; `amount` counts where the pattern does not say it.
    pub fn new(criterion: &'static Criterion, pattern: Pattern, amount: f64) -> Self {
        Self {
            pattern,
            amount: pattern.share().unwrap_or(amount),
            criterion,
            scope: criterion.scopes[0],
            choice: Choice::default(),
            given: None,
            damping: 0.01,
            rounding: None,
            seed: 0,
            threads: 0,
        }
    }

    /// # Errors
    /// When the amount is no share, or the criterion has no such scope.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.amount) {
            return Err(
                Error::usage(format!("the amount {} is no share", self.amount))
                    .hint("from 0, which changes nothing, to less than 1"),
            );
        }
        let (criterion, scope) = (self.criterion, self.scope);
        if !criterion.scopes.contains(&scope) {
            let names: Vec<&str> = criterion.scopes.iter().map(|s| s.name()).collect();
            let what = format!("{} has no scope \"{}\"", criterion.name, scope.name());
            return Err(Error::usage(what).hint(format!("it has {}", names.join(", "))));
        }
        if !(0.0..=1.0).contains(&self.damping) {
            let what = format!("the damping {} is no share", self.damping);
            return Err(Error::usage(what));
        }
        if let Some(rounding) = &self.rounding {
            if criterion.name != criteria::SPARSEGPT.name {
                let what = format!("{} does not round what stays", criterion.name);
                return Err(Error::usage(what).hint("sparsegpt does; or quantise afterwards"));
            }
            rounding.check()?;
        }
        Ok(())
    }
}

/// A pruned model, and what became of it.
#[derive(Debug)]
pub struct Done {
    /// The model.
    pub model: Model,
    /// What went; `None` where nothing was to go.
    pub sparsity: Option<Sparsity>,
    /// Weights that were rounded too.
    pub rounded: Vec<WeightChange>,
    /// What is to be said of the data.
    pub warnings: Vec<String>,
}

/// Sets weights of a float model to zero, by what they multiply where `from` says that.
///
/// # Errors
/// When a setting is wrong, the criterion needs samples and there are none, the model is quantised
/// or does not run on them, nothing can be pruned, or the user cancels.
pub fn prune(
    model: &Model,
    settings: &Settings,
    from: Option<&Calibration>,
    progress: &dyn Progress,
) -> Result<Done> {
    settings.check()?;
    refuse_quantised(model)?;
    if settings.amount == 0.0 && settings.given.is_none() {
        return Ok(Done {
            model: model.clone(),
            sparsity: None,
            rounded: Vec::new(),
            warnings: Vec::new(),
        });
    }
    let mut model = plain(model)?;
    if settings.rounding.is_some() {
        model = weight_only::plain(&model)?;
    }
    let choice = Choice {
        pattern: Some(settings.pattern),
        everything: settings.choice.everything || settings.given.is_some(),
        ..settings.choice.clone()
    };
    let mut sites = Sites::of(&model, &choice)?;
    if let Some(given) = &settings.given {
        given.belong(&model)?;
        sites.all.retain(|s| given.all.contains_key(&s.name));
    }
    if sites.all.is_empty() {
        return Err(sites.nothing());
    }
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let plan = Plan::of(&model, &sites, settings, &ctx)?;
    let count = sites.all.len();
    let mut solved: Vec<Option<(Solved, errors::Errors)>> = (0..count).map(|_| None).collect();
    let mut warnings = Vec::new();
    if let Some(from) = from {
        let one = &mut |number: usize, seen: &Sums| {
            let one = plan.one(number, Some(seen))?;
            let tensor = plan.tensor(number, &one.0)?;
            solved[number] = Some(one);
            Ok(tensor)
        };
        warnings = inputs::in_order(&model, &sites.all, from, one, progress)?;
    }
    progress.start("prune weights", count as u64);
    for (number, solved) in solved.iter_mut().enumerate() {
        progress.check()?;
        if solved.is_none() {
            *solved = Some(plan.one(number, None)?);
        }
        progress.advance(1);
    }
    progress.finish();
    let solved = solved.into_iter().flatten().collect();
    let mut done = write(&model, &sites, settings, solved, progress)?;
    done.warnings = warnings;
    Ok(done)
}

fn refuse_quantised(model: &Model) -> Result<()> {
    let Some(node) = quantised(model) else {
        return Ok(());
    };
    let what = format!("the model is quantised: \"{}\" is {}", node.name, node.op);
    Err(Error::unsupported(what).hint("prune the float model, then quantise what comes of it"))
}

/// The model with weights of Constant nodes as constants of the graph.
fn plain(model: &Model) -> Result<Model> {
    let mut plain = model.clone();
    if model.graph.nodes().any(|(_, n)| n.is("Constant")) || !model.functions.is_empty() {
        let only = ["inline_functions", "fold_constants"];
        let run = RunOptions {
            only: &only,
            ..RunOptions::default()
        };
        optimize(&mut plain, Level::Basic, &run)?;
    }
    Ok(plain)
}

/// What goes of each weight, as far as that is known before the first.
struct Plan<'a> {
    model: &'a Model,
    sites: &'a [Site],
    settings: &'a Settings,
    ctx: &'a Ctx,
    shares: Vec<f64>,
    /// Constants that rounding has a form for.
    written: BTreeSet<String>,
    /// Where one threshold is over all.
    chosen: Option<Vec<Vec<bool>>>,
}

impl<'a> Plan<'a> {
    fn of(
        model: &'a Model,
        sites: &'a Sites,
        settings: &'a Settings,
        ctx: &'a Ctx,
    ) -> Result<Self> {
        let lengths: Vec<_> = sites.all.iter().map(|s| s.lengths).collect();
        let mut plan = Self {
            model,
            sites: &sites.all,
            settings,
            ctx,
            shares: settings.scope.shares(&lengths, settings.amount),
            written: (settings.rounding.iter())
                .flat_map(|r| weight_only::writable(model, r))
                .collect(),
            chosen: None,
        };
        if let Some(given) = &settings.given {
            let kept = |s: &Site| given.all.get(&s.name).map(|m| s.by_rows(m.kept()));
            plan.chosen = sites.all.iter().map(kept).collect();
            return Ok(plan);
        }
        if let (Scope::Global, None, Does::Scores(scores)) = (
            settings.scope,
            settings.pattern.share(),
            &settings.criterion.does,
        ) {
            let mut all = Vec::new();
            for (number, site) in sites.all.iter().enumerate() {
                let weight = site.matrix(&model.graph)?;
                all.push((scores(&plan.job(number, &weight, None))?, site.lengths));
            }
            let chosen = select::kept_of_all(&all, settings.pattern, settings.amount);
            plan.chosen = Some(chosen);
        }
        Ok(plan)
    }

    fn job<'j>(&'j self, number: usize, weight: &'j Matrix, seen: Option<&'j Sums>) -> Job<'j> {
        let site = &self.sites[number];
        let rounding = self.settings.rounding.as_ref();
        Job {
            weight,
            lengths: site.lengths,
            number,
            amount: self.shares[number],
            seen,
            scheme: rounding
                .filter(|_| self.written.contains(&site.name))
                .map(|r| r.scheme),
            settings: self.settings,
            ctx: self.ctx,
        }
    }

    /// Prunes a weight; what that costs.
    fn one(&self, number: usize, seen: Option<&Sums>) -> Result<(Solved, errors::Errors)> {
        let site = &self.sites[number];
        let weight = site.matrix(&self.model.graph)?;
        let job = self.job(number, &weight, seen);
        let solved = match &self.chosen {
            Some(chosen) => Solved::masked(&weight, chosen[number].clone()),
            None => {
                let place = || format!("weight \"{}\"", site.name);
                self.settings.criterion.solve(&job).at(place)?
            }
        };
        let errors = errors::of(&job, &solved);
        Ok((solved, errors))
    }

    /// A pruned weight as its tensor.
    fn tensor(&self, number: usize, solved: &Solved) -> Result<Tensor> {
        let site = &self.sites[number];
        let t = self.model.graph.constant(site.weight);
        let dims = t.map(Tensor::dims).unwrap_or_default();
        Tensor::from_vec(dims, site.in_order(solved.numbers.clone()))
    }
}

/// Puts pruned weights into the model, says so in its metadata, and checks what it wrote.
fn write(
    model: &Model,
    sites: &Sites,
    settings: &Settings,
    solved: Vec<(Solved, errors::Errors)>,
    progress: &dyn Progress,
) -> Result<Done> {
    let mut out = model.clone();
    let (mut weights, mut masks) = (Vec::new(), BTreeMap::new());
    let mut rounded = BTreeMap::new();
    for (site, (solved, errors)) in sites.all.iter().zip(solved) {
        check(site, settings.pattern, &solved).at(|| format!("weight \"{}\"", site.name))?;
        let t = model.graph.constant(site.weight);
        let dims = t.map(Tensor::dims).unwrap_or_default();
        let gone = solved.kept.iter().filter(|k| !**k).count();
        let node = |id| model.graph.node(id).name.clone();
        weights.push(PrunedWeight {
            weight: site.name.clone(),
            nodes: site.nodes.iter().copied().map(node).collect(),
            dims: [site.lengths.rows, site.lengths.columns],
            gone,
            output_error: errors.own,
            output_error_of_magnitude: errors.of_magnitude,
        });
        let what = Pruned {
            pattern: settings.pattern.to_string(),
            sparsity: gone as f64 / solved.kept.len().max(1) as f64,
        };
        mark_pruned(&mut out, &site.name, &what);
        let kept = site.in_order(solved.kept);
        masks.insert(site.name.clone(), Mask::of(dims, &kept));
        match solved.blocks {
            Some(blocks) => _ = rounded.insert(site.name.clone(), blocks),
            None => {
                let numbers = Tensor::from_vec(dims, site.in_order(solved.numbers))?;
                out.graph.value_mut(site.weight).constant = Some(numbers);
            }
        }
    }
    let mut done = Done {
        sparsity: Some(Sparsity {
            criterion: match settings.given {
                Some(_) => "masks of a file",
                None => settings.criterion.name,
            },
            scope: settings.scope.name(),
            weights,
            all: all_weights(model),
            masks: Masks {
                pattern: settings.pattern,
                model: model_digest(model),
                all: masks,
            },
        }),
        model: out,
        rounded: Vec::new(),
        warnings: Vec::new(),
    };
    if let Some(rounding) = settings.rounding.as_ref().filter(|_| !rounded.is_empty()) {
        let (model, changes) = weight_only::written(&done.model, rounding, &rounded, progress)?;
        (done.model, done.rounded) = (model, changes.weights);
    }
    Ok(done)
}

/// Every number that does not stay is zero, and zeros lie as the pattern says.
fn check(site: &Site, pattern: Pattern, solved: &Solved) -> Result<()> {
    let count = site.lengths.rows * site.lengths.columns;
    if solved.kept.len() != count || solved.numbers.len() != count {
        return Err(Error::internal("a pruned weight has other lengths"));
    }
    let wrong = |(x, stays): (&f32, &bool)| !stays && x.to_bits() != 0 || !x.is_finite();
    if let Some(blocks) = &solved.blocks {
        let written = blocks.numbers();
        let same = |((a, b), stays): ((&f32, &f32), &bool)| if *stays { a == b } else { *a == 0.0 };
        if !written
            .iter()
            .zip(&solved.numbers)
            .zip(&solved.kept)
            .all(same)
        {
            return Err(Error::internal(
                "a code does not stand for the number that was meant",
            ));
        }
    }
    if solved.numbers.iter().zip(&solved.kept).any(wrong) {
        return Err(Error::internal("a number that goes is not zero"));
    }
    match select::broken(&solved.numbers, site.lengths, pattern) {
        None => Ok(()),
        Some([row, column]) => Err(Error::internal(format!(
            "row {row} does not keep the pattern {pattern} at input {column}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use edgesmith_ir::analysis::pruned;
    use edgesmith_ir::{NoProgress, text};

    use super::criteria::{CRITERIA, MAGNITUDE, SPARSEGPT, WANDA};
    use super::*;
    use crate::calibrate;
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    fn printed(model: &Model) -> String {
        text::print(model).unwrap()
    }

    fn list(n: usize, seed: u32) -> String {
        let all: Vec<String> = numbers(n, seed).iter().map(|x| format!("{x:?}")).collect();
        all.join(",")
    }

    /// Convolutions, one of them in groups, and products, one of a shared weight.
    fn net() -> Model {
        let source = format!(
            r#"
opset 17
graph net(x: f32[n,4,6,6]) -> (y: f32[n,5]) {{
  a: f32[8,4,3,3] = {{{}}}
  b: f32[8,4,3,3] = {{{}}}
  c: f32[16,8,1,1] = {{{}}}
  d: f32[16,16] = {{{}}}
  e: f32[5,16] = {{{}}}
  h1 = Conv(x, a) {{name="first", pads=[1,1,1,1]}}
  h2 = Conv(h1, b) {{name="grouped", group=2, pads=[1,1,1,1]}}
  h3 = Relu(h2)
  h4 = Conv(h3, c) {{name="point"}}
  h5 = GlobalAveragePool(h4)
  h6 = Flatten(h5)
  h7 = MatMul(h6, d) {{name="once"}}
  h8 = MatMul(h7, d) {{name="twice"}}
  y = Gemm(h8, e) {{name="last", transB=1}}
}}
"#,
            list(288, 1),
            list(288, 2),
            list(128, 3),
            list(256, 4),
            list(80, 5)
        );
        text::parse(&source).unwrap()
    }

    fn samples() -> InMemory {
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[40, 4, 6, 6], numbers(40 * 144, 9)).unwrap(),
            labels: None,
        }
    }

    fn calibration(samples: &InMemory, dense: bool) -> Calibration<'_> {
        Calibration {
            samples,
            settings: calibrate::Settings {
                only: Some(BTreeSet::new()),
                threads: 1,
                ..calibrate::Settings::default()
            },
            dense,
        }
    }

    fn pruned_by(settings: &Settings, dense: bool) -> Done {
        let samples = samples();
        prune(
            &net(),
            settings,
            Some(&calibration(&samples, dense)),
            &NoProgress,
        )
        .unwrap()
    }

    #[test]
    fn every_criterion_takes_the_exact_count_and_names_what_it_took() {
        for &criterion in CRITERIA {
            for pattern in ["unstructured", "2:4", "4x1"] {
                let mut settings = Settings::new(criterion, pattern.parse().unwrap(), 0.5);
                settings.threads = 1;
                for dense in [false, true] {
                    let done = pruned_by(&settings, dense);
                    let sparsity = done.sparsity.unwrap();
                    let names: Vec<&str> =
                        sparsity.weights.iter().map(|w| w.weight.as_str()).collect();
                    assert_eq!(names, ["b", "c", "d"], "first and last stay");
                    assert_eq!(sparsity.weights[2].nodes, ["once", "twice"]);
                    let [gone, of] = sparsity.counts();
                    assert_eq!((gone, of), (336, 672), "{criterion:?} {pattern}");
                    assert!(sparsity.weights.iter().all(|w| w.output_error.is_some()));
                    sparsity.hold(&done.model).unwrap();
                    let mut other = done.model.clone();
                    let back = net()
                        .graph
                        .find_value("c")
                        .and_then(|v| net().graph.constant(v).cloned());
                    let v = other.graph.find_value("c").unwrap();
                    other.graph.value_mut(v).constant = back;
                    assert!(sparsity.hold(&other).is_err());
                    let marks = pruned(&done.model);
                    assert_eq!(marks.keys().collect::<Vec<_>>(), ["b", "c", "d"]);
                    assert_eq!(marks["c"].pattern, pattern);
                    assert!((marks["c"].sparsity - 0.5).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn of_the_same_inputs_sparsegpt_costs_less_than_wanda_and_magnitude() {
        let cost = |criterion: &'static Criterion| {
            let settings = Settings::new(criterion, Pattern::Unstructured, 0.5);
            let sparsity = pruned_by(&settings, true).sparsity.unwrap();
            let errors = sparsity.weights.iter().filter_map(|w| w.output_error);
            errors.map(f64::ln).sum::<f64>()
        };
        let [own, wanda, plain] = [&SPARSEGPT, &WANDA, &MAGNITUDE].map(cost);
        assert!(own < wanda && wanda < plain, "{own} {wanda} {plain}");
    }

    #[test]
    fn nothing_to_prune_changes_nothing() {
        for pattern in ["unstructured", "2:4", "4x1"] {
            let mut settings = Settings::new(&MAGNITUDE, pattern.parse().unwrap(), 0.0);
            settings.amount = 0.0;
            let done = prune(&net(), &settings, None, &NoProgress).unwrap();
            assert_eq!(printed(&done.model), printed(&net()));
            assert!(done.sparsity.is_none());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_threads_change_nothing() {
        for &criterion in CRITERIA {
            let made = |threads| {
                let mut settings = Settings::new(criterion, Pattern::Of { n: 2, m: 4 }, 0.5);
                settings.threads = threads;
                printed(&pruned_by(&settings, false).model)
            };
            assert_eq!(made(1), made(2), "{criterion:?}");
        }
    }

    #[test]
    fn masks_of_one_run_prune_another() {
        let settings = Settings::new(&WANDA, Pattern::Unstructured, 0.6);
        let first = pruned_by(&settings, false);
        let masks = first.sparsity.unwrap().masks;
        let mut again = Settings::new(&MAGNITUDE, Pattern::Unstructured, 0.0);
        again.given = Some(masks.clone());
        let done = prune(&net(), &again, None, &NoProgress).unwrap();
        assert_eq!(done.sparsity.unwrap().masks.all, masks.all);
        assert_eq!(printed(&done.model), printed(&first.model));
    }

    #[test]
    fn zeros_of_either_sign_go_first_and_are_written_as_zero() {
        let source = "opset 17 graph g(x: f32[1,4]) -> (z) {
            w: f32[4,2] = {0.0,5.0,-0.0,-0.0,3.0,0.0,2.0,1.0} v: f32[2,2] = {1,2,3,4}
            y = MatMul(x, w) z = MatMul(y, v) }";
        let model = text::parse(source).unwrap();
        let settings = Settings::new(&MAGNITUDE, Pattern::Unstructured, 0.375);
        let done = prune(&model, &settings, None, &NoProgress).unwrap();
        let w = done.model.graph.find_value("w").unwrap();
        let bits = |x: &f32| x.to_bits();
        let found = done.model.graph.constant(w).unwrap().to_f32().unwrap();
        let wanted = [0.0f32, 5.0, 0.0, -0.0, 3.0, 0.0, 2.0, 1.0];
        let gone = done.sparsity.unwrap().weights[0].gone;
        assert_eq!(gone, 3);
        assert_eq!(
            found.iter().map(|x| x.abs()).collect::<Vec<_>>(),
            wanted.map(f32::abs)
        );
        assert!(found.iter().filter(|x| bits(x) == 0).count() >= 3);
    }

    #[test]
    fn bad_input_is_refused_with_a_reason() {
        let refused = |model: &Model, settings: &Settings| {
            let done = prune(model, settings, None, &NoProgress);
            done.unwrap_err().to_string()
        };
        let plain = |amount| Settings::new(&MAGNITUDE, Pattern::Unstructured, amount);
        for amount in [1.5, 1.0, -0.1, f64::NAN] {
            assert!(refused(&net(), &plain(amount)).contains("is no share"));
        }
        let wanda = Settings::new(&WANDA, Pattern::Unstructured, 0.5);
        assert!(refused(&net(), &wanda).contains("calibration saw nothing"));
        let mut global = wanda.clone();
        global.scope = Scope::Global;
        assert!(refused(&net(), &global).contains("wanda has no scope \"global\""));
        let mut all = plain(0.5);
        all.choice.exclude = vec!["*".into()];
        assert!(refused(&net(), &all).contains("no weight of the model can be pruned"));
        let ints = "opset 17 graph g(x: f32[1,2]) -> (y) {
            q: i8[2,2] = {1,2,3,4} s: f32[] = {0.5} w = DequantizeLinear(q, s) y = MatMul(x, w) }";
        let found = refused(&text::parse(ints).unwrap(), &plain(0.5));
        assert!(found.contains("the model is quantised"), "{found}");
        let mut broken = net();
        let v = broken.graph.find_value("c").unwrap();
        let data = Tensor::from_vec(&[16, 8, 1, 1], vec![f32::NAN; 128]).unwrap();
        broken.graph.value_mut(v).constant = Some(data);
        assert!(refused(&broken, &plain(0.5)).contains("number 0 is NaN"));
    }
}
