//! Recipes: steps in an order, with the data they look at, as a TOML text.

use std::path::Path;

use edgesmith_ir::analysis::{cost, lengths};
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Progress, Result, infer};
use edgesmith_train::Watch;

use crate::calibrate::{Stores, unlike};
use crate::mixed::judge::Size;
use crate::quantize::changes::Changes;
use crate::samples::Samples;
use crate::steps::quantize::settled;
use crate::steps::{Data, Given, Open, ReadMasks, Work};

mod read;
mod write;

/// What is done to a model, in order. Paths are as they are written.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// The model to read.
    pub model: Option<String>,
    /// Where the result goes.
    pub output: Option<String>,
    /// The samples that steps look at.
    pub calibrate: Option<String>,
    /// The first so many of them, where not all.
    pub samples: Option<usize>,
    /// The seed that chooses them, where not the first ones are taken.
    pub seed: Option<u64>,
    /// The samples that goals are judged by, where not those.
    pub evaluate: Option<String>,
    /// When weights lie in a file beside the result: `auto`, `always` or `never`.
    pub external: Option<String>,
    /// The steps.
    pub steps: Vec<Given>,
}

/// What steps may use beside the model.
#[derive(Clone, Copy, Default)]
pub struct Supplies<'a> {
    /// The samples that steps look at.
    pub samples: Option<&'a dyn Samples>,
    /// The samples that goals are judged by, where not those.
    pub evaluate: Option<&'a dyn Samples>,
    /// Where statistics are kept between runs.
    pub stores: Option<&'a dyn Stores>,
    /// Tells the bytes of the file that a model would be.
    pub size: Option<&'a Size<'a>>,
    /// Where paths of settings start.
    pub base: Option<&'a Path>,
    /// Opens another model by its path.
    pub open: Option<&'a Open<'a>>,
    /// Reads masks by their path.
    pub read_masks: Option<&'a ReadMasks<'a>>,
    /// Who follows training; where nobody, `progress` is told of the steps.
    pub follow: Option<&'a dyn Watch>,
}

/// Tells of the steps of training alone.
struct Quiet<'a>(&'a dyn Progress);

impl Progress for Quiet<'_> {
    fn start(&self, phase: &str, total: u64) {
        self.0.start(phase, total);
    }
    fn advance(&self, units: u64) {
        self.0.advance(units);
    }
    fn finish(&self) {
        self.0.finish();
    }
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

impl Watch for Quiet<'_> {}

/// What a step calls the model that the recipe began with, in the place of a path.
pub const SELF: &str = "self";

/// What a step did.
#[derive(Debug)]
pub struct Done {
    /// The step, in one line.
    pub step: String,
    /// Nodes before and after.
    pub nodes: (usize, usize),
    /// What became of the nodes; empty where the step does not say.
    pub changes: Changes,
    /// What was to be said of the data.
    pub warnings: Vec<String>,
    /// The step with what it found in the place of its goal.
    pub settled: Given,
}

/// What a step would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The step, in one line.
    pub step: String,
    /// Samples that it runs through the model.
    pub samples: usize,
    /// Multiply-accumulates that this takes; `None` where shapes depend on the data.
    pub macs: Option<u64>,
    /// Bytes of the model's constants before the first step.
    pub weight_bytes: u64,
    /// About how many bytes of constants there are afterwards; `None` where nothing is known.
    pub bytes_after: Option<u64>,
}

impl Recipe {
    /// Reads a recipe; `name` is what errors call the text.
    ///
    /// # Errors
    /// With `NAME:LINE`, when the text is no TOML, a key or a step is unknown or a value is not
    /// what its key takes.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        read::read(name, text)
    }

    /// The recipe as a text that [`Recipe::parse`] reads as the same.
    pub fn to_toml(&self) -> String {
        write::write(self)
    }

    /// Does the steps.
    ///
    /// # Errors
    /// When a step needs data and there is none, a step fails, or the user cancels.
    pub fn run(
        &self,
        model: &Model,
        supplies: &Supplies,
        progress: &dyn Progress,
    ) -> Result<(Model, Vec<Done>)> {
        let first = model;
        let open = |path: &str| match (path, supplies.open) {
            (SELF, _) => Ok(first.clone()),
            (_, Some(open)) => open(path),
            (_, None) => Err(Error::internal("nobody opens models")),
        };
        let mut model = model.clone();
        let mut all = Vec::new();
        let mut warnings = match (supplies.samples, supplies.evaluate) {
            (Some(own), Some(judged)) => unlike(own, judged, progress)?,
            _ => Vec::new(),
        };
        let quiet = Quiet(progress);
        for given in &self.steps {
            progress.check()?;
            let mut work = Work {
                samples: data(given, supplies.samples)?,
                count: self.samples,
                seed: self.seed,
                evaluate: supplies.evaluate,
                size: supplies.size,
                base: supplies.base.unwrap_or(Path::new("")),
                open: Some(&open),
                read_masks: supplies.read_masks,
                follow: supplies.follow.unwrap_or(&quiet),
                stores: supplies.stores,
                progress,
                warnings: std::mem::take(&mut warnings),
            };
            let applied = (given.step.apply)(given, &model, &mut work);
            let (after, mut changes) = applied.at(|| given.place.clone())?;
            changes.warnings.retain(|w| !work.warnings.contains(w));
            all.push(Done {
                settled: settled(given, &changes),
                step: write::one_line(given),
                nodes: (model.graph.nodes().count(), after.graph.nodes().count()),
                changes,
                warnings: work.warnings,
            });
            model = after;
        }
        Ok((model, all))
    }

    /// What each step would take, with `samples` of data, without running any.
    ///
    /// # Errors
    /// When a step needs data and there is none, or a shape rule of the model fails.
    pub fn plan(&self, model: &Model, samples: Option<&dyn Samples>) -> Result<Vec<Planned>> {
        let (bytes, macs) = figures(model)?;
        let plan = |given: &Given| {
            let count = data(given, samples)?
                .map_or(0, |s| self.samples.map_or(s.count(), |n| n.min(s.count())));
            let bits = (given.step.bits)(given);
            Ok(Planned {
                step: write::one_line(given),
                samples: count,
                macs: macs.map(|m| m.saturating_mul(count as u64)),
                weight_bytes: bytes,
                bytes_after: bits.map(|b| bytes.saturating_mul(b) / 32),
            })
        };
        self.steps.iter().map(plan).collect()
    }
}

/// The samples that a step looks at.
fn data<'a>(given: &Given, samples: Option<&'a dyn Samples>) -> Result<Option<&'a dyn Samples>> {
    match ((given.step.data)(given)?, samples) {
        (Data::Unused, _) => Ok(None),
        (Data::Needed, None) => {
            let e = Error::usage(format!("{} needs data", write::one_line(given)));
            Err(e.at(given.place.as_str()).hint(
                "name an npz with an array for each input, 100 to 500 samples: calibrate = \
                 \"CALIB.npz\", or --calibrate CALIB.npz",
            ))
        }
        (_, samples) => Ok(samples),
    }
}

/// Bytes of the constants, and multiply-accumulates of one sample where shapes are known.
fn figures(model: &Model) -> Result<(u64, Option<u64>)> {
    let inputs = lengths::workable_inputs(model, &[]).unwrap_or_default();
    let types = infer::infer(model, &inputs)?;
    let total = cost::model_cost(model, &types)?;
    let known = types_known(model, &types);
    Ok((total.weight_bytes, known.then_some(total.macs)))
}

fn types_known(model: &Model, types: &infer::Inferred) -> bool {
    let outputs = model.graph.outputs.iter();
    let known =
        |t: &edgesmith_ir::TensorType| t.shape.as_ref().is_some_and(|s| s.known().is_some());
    let mut all = outputs.filter_map(|&v| types.tensor(v));
    all.all(known)
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, Tensor, eval, text};

    use super::*;
    use crate::samples::InMemory;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,3]) -> (y: f32[n,2]) {
  w: f32[3,2] = {0.5,-0.25,1.0,0.75,0.3,0.7}
  h = Identity(x) {name="i"}
  g = MatMul(h, w) {name="m"}
  y = Identity(g) {name="j"}
}
"#;

    const RECIPE: &str = "[[step]]\ndo = \"optimize\"\nlevel = \"basic\"\n\n[[step]]\ndo = \
                          \"quantize\"\nto = \"int8\"\n";

    fn samples() -> InMemory {
        let rows = (0..120).map(|i| ((i * 7919) % 997) as f32 / 500.0 - 1.0);
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[40, 3], rows.collect()).unwrap(),
            labels: None,
        }
    }

    #[test]
    fn steps_are_done_in_order() {
        let model = text::parse(NET).unwrap();
        let recipe = Recipe::parse("r", RECIPE).unwrap();
        let samples = samples();
        let supplies = Supplies {
            samples: Some(&samples),
            ..Supplies::default()
        };
        let (out, done) = recipe.run(&model, &supplies, &NoProgress).unwrap();
        let steps: Vec<&str> = done.iter().map(|d| d.step.as_str()).collect();
        assert_eq!(steps, ["optimize level=basic", "quantize to=int8"]);
        assert_eq!(done[0].nodes, (3, 1));
        assert_eq!(done[1].changes.converted(), 1);
        let x = Tensor::from_vec(&[1, 3], vec![0.5f32, -0.5, 0.25]).unwrap();
        let run = |m: &Model| eval::evaluate(m, &[("x", x.clone())]).unwrap().remove(0);
        let (a, b) = (run(&model), run(&out));
        for (a, b) in a.to_f32().unwrap().iter().zip(&*b.to_f32().unwrap()) {
            assert!((a - b).abs() < 0.02, "{a} {b}");
        }
    }

    #[test]
    fn a_plan_counts_samples_work_and_bytes() {
        let model = text::parse(NET).unwrap();
        let recipe = Recipe::parse("r", &format!("samples = 10\n{RECIPE}")).unwrap();
        let plan = recipe.plan(&model, Some(&samples())).unwrap();
        assert_eq!((plan[0].samples, plan[0].bytes_after), (0, None));
        assert_eq!((plan[1].samples, plan[1].macs), (10, Some(60)));
        assert_eq!((plan[1].weight_bytes, plan[1].bytes_after), (24, Some(6)));
    }

    #[test]
    fn a_step_that_needs_data_says_so_where_it_stands() {
        let model = text::parse(NET).unwrap();
        let recipe = Recipe::parse("r.toml", RECIPE).unwrap();
        let e = recipe.plan(&model, None).unwrap_err().to_string();
        assert!(e.contains("r.toml:5: quantize to=int8 needs data"), "{e}");
        let none = Supplies::default();
        assert!(recipe.run(&model, &none, &NoProgress).is_err());
    }

    #[test]
    fn a_recipe_without_steps_leaves_the_model() {
        let model = text::parse(NET).unwrap();
        let (out, done) = Recipe::default()
            .run(&model, &Supplies::default(), &NoProgress)
            .unwrap();
        assert_eq!(out.graph.nodes().count(), 3);
        assert!(done.is_empty());
    }
}
