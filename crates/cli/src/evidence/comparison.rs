//! Gathers the evidence of a comparison: makes each variant, runs it, measures it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use edgesmith_compress::calibrate::{self, Statistics};
use edgesmith_compress::evaluate;
use edgesmith_compress::quantize::changes::Changes;
use edgesmith_compress::quantize::{half, int8};
use edgesmith_compress::target::{Needs, Target};
use edgesmith_data::Dataset;
use edgesmith_formats::WriteOptions;
use edgesmith_ir::analysis::quantised;
use edgesmith_ir::{Error, Model, Progress, Result};
use edgesmith_report::Evidence;
use edgesmith_report::evidence::{Accuracy, DataFacts, TargetFacts, Variant};
use edgesmith_runtime::{Options, Session};

mod pruned;

pub use pruned::Pruning;

use super::{BATCH, Made, all_cores, fidelity, machine, measure_latency, relate, warnings};
use crate::measure::{self, Effort};
use crate::{opened, read_back};

/// What a comparison reads, writes and how it measures.
pub struct Job {
    pub model: PathBuf,
    pub data: PathBuf,
    pub calibrate: PathBuf,
    /// Models for the same data beside it: students.
    pub with: Vec<PathBuf>,
    /// How it is pruned, for variants of their own.
    pub prune: Vec<Pruning>,
    pub out: PathBuf,
    pub target: Option<Target>,
    pub runtime: Options,
    pub effort: Effort,
    pub write: WriteOptions,
}

/// A row of the variants.
pub struct VariantDef {
    pub name: &'static str,
    about: &'static str,
    make: fn(&Base) -> Result<(Model, Changes)>,
}

/// Every variant, the baseline first.
pub static VARIANTS: &[VariantDef] = &[
    VariantDef {
        name: "fp32",
        about: "the model as it is",
        make: |b| Ok((b.original.clone(), Changes::default())),
    },
    VariantDef {
        name: "fp16",
        about: "weights and activations as IEEE half",
        make: |b| half::to_fp16(&b.basic, Some(&b.statistics), &half::Settings::default()),
    },
    VariantDef {
        name: "int8",
        about: "static post-training quantisation, per-channel weights, QDQ",
        make: |b| int8::quantize(&b.basic, &b.statistics, &int8::Settings::default()),
    },
];

/// What every variant is made from.
pub struct Base {
    original: Model,
    /// Optimised to level basic: BatchNormalization is in the weights.
    basic: Model,
    statistics: Statistics,
}

impl Base {
    fn of(original: Model, samples: &Dataset, progress: &dyn Progress) -> Result<Self> {
        let basic = opened::optimized(&original, "basic")?;
        let settings = calibrate::Settings::default();
        Ok(Self {
            statistics: calibrate::calibrate(&basic, samples, &settings, progress)?,
            original,
            basic,
        })
    }
}

/// The variants that a model beside has, with what follows its name.
const BESIDE: [(usize, &str); 2] = [(0, ""), (2, "-int8")];

/// The names of the variants, each of which is a file; those of models beside begin as their files.
///
/// # Errors
/// When two would have the same.
pub fn names(with: &[PathBuf], prune: &[Pruning]) -> edgesmith_ir::Result<Vec<String>> {
    let mut names: Vec<String> = VARIANTS.iter().map(|v| v.name.to_owned()).collect();
    let beside = with
        .iter()
        .map(|path| (stem(path), path.display().to_string()));
    let pruned = prune.iter().map(|p| (p.name(), p.name()));
    for (stem, place) in beside.chain(pruned) {
        for (_, end) in BESIDE {
            let name = format!("{stem}{end}");
            if names.contains(&name) {
                let what = format!("two variants would be named {name}");
                return Err(Error::usage(what)
                    .at(place)
                    .hint("give one of the files another name, or prune in another way"));
            }
            names.push(name);
        }
    }
    Ok(names)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Samples that the distance of each node is measured on.
const NODE_SAMPLES: usize = 16;

/// Does the whole job.
///
/// # Errors
/// When a file is at fault, or a step fails; nothing is written before the data is checked.
pub fn gather(job: &Job, progress: &dyn Progress) -> Result<Evidence> {
    let original = opened::open(&job.model)?;
    let test = Dataset::open(&job.data, &original)?;
    let calibration = Dataset::open(&job.calibrate, &original)?;
    check_labels(&original, &test, &job.runtime)?;
    let beside = job
        .with
        .iter()
        .map(|path| beside(path, &original, &test, job));
    let beside = beside.collect::<Result<Vec<_>>>()?;
    let mut base = Base::of(original, &calibration, progress)?;
    let unlike = calibrate::unlike(&calibration, &test, progress)?;
    base.statistics.warnings.extend(unlike);
    crate::commands::compare::create_folder(&job.out)?;
    let made = VARIANTS
        .iter()
        .map(|def| make((def.name, def.about), def, &base, job));
    let mut made = made.collect::<Result<Vec<_>>>()?;
    for pruning in &job.prune {
        let (model, about) = pruning.of(&base.original, &calibration, progress)?;
        let base = Base::of(model, &calibration, progress)?;
        for (of, end) in BESIDE {
            let name = format!("{}{end}", pruning.name());
            let about = match of {
                0 => about.clone(),
                _ => format!("{about}; then {}", VARIANTS[of].about),
            };
            made.push(make((&name, &about), &VARIANTS[of], &base, job)?);
        }
    }
    for (path, model) in job.with.iter().zip(beside) {
        let is_quantised = quantised(&model).is_some();
        let base = Base::of(model, &calibration, progress)?;
        for (of, end) in BESIDE {
            // What is quantised already stays as it is.
            if !(is_quantised && of > 0) {
                let name = format!("{}{end}", stem(path));
                let def = &VARIANTS[of];
                made.push(make((&name, def.about), def, &base, job)?);
            }
        }
    }
    let mut variants = Vec::new();
    for m in &made {
        variants.push(measure_answers(m, &made[0], &test, job, progress)?);
    }
    let (inputs, how) = (test.first(1)?, (&job.runtime, job.effort));
    measure_latency(&made, &mut variants, &inputs, how, progress)?;
    relate(&mut variants);
    let figures = opened::figures(&base.original, &[])?;
    Ok(Evidence {
        tool_version: env!("CARGO_PKG_VERSION").into(),
        model: opened::facts(&job.model, &base.original, &figures)?,
        data: data_facts(job, &test, &calibration, &base.statistics),
        machine: machine(&job.runtime),
        target: job
            .target
            .as_ref()
            .map_or_else(TargetFacts::default, |t| TargetFacts {
                name: t.name.clone(),
                about: t.about.clone(),
                notes: vec![format!("instruction set: {}", t.isa)],
            }),
        warnings: warnings(&variants),
        variants,
        settings: settings(job),
        ..Evidence::default()
    })
}

/// Opens a model for the same data: with the same inputs, and as many answers.
fn beside(path: &Path, original: &Model, test: &Dataset, job: &Job) -> Result<Model> {
    let place = || path.display().to_string();
    let model = opened::open(path)?;
    let inputs = |m: &Model| -> BTreeSet<String> {
        let fed = m.graph.inputs.iter().map(|&v| m.graph.value(v));
        let fed = fed.filter(|v| v.constant.is_none());
        fed.map(|v| v.name.clone()).collect()
    };
    let (own, all) = (inputs(&model), inputs(original));
    if own != all {
        let what = format!("its inputs are {own:?}, those of the model before {all:?}");
        return Err(Error::invalid(what).at(place()));
    }
    let answers = |m: &Model| -> Result<Vec<usize>> {
        let mut session = Session::prepare(m, &job.runtime)?;
        let outputs = session.run(&measure::borrowed(&test.first(1)?))?;
        Ok(outputs.first().map_or_else(Vec::new, |o| o.dims().to_vec()))
    };
    let (own, all) = (answers(&model)?, answers(original)?);
    if own != all {
        let what =
            format!("its answer is of the lengths {own:?}, that of the model before {all:?}");
        return Err(Error::invalid(what).at(place()));
    }
    Ok(model)
}

/// Refuses labels that are no class of the model, before anything is written.
///
/// # Errors
/// When one is none, or the model does not run on the samples.
pub fn check_labels(model: &Model, test: &Dataset, options: &Options) -> Result<()> {
    if test.labels().is_none() {
        return Ok(());
    }
    let mut session = Session::prepare(model, options)?;
    let outputs = session.run(&measure::borrowed(&test.first(1)?))?;
    let classes = outputs
        .first()
        .and_then(|o| o.dims().last().copied())
        .unwrap_or(0);
    test.check_labels(classes)
}

fn make(
    (name, about): (&str, &str),
    def: &'static VariantDef,
    base: &Base,
    job: &Job,
) -> Result<Made> {
    let (model, changes) = (def.make)(base)?;
    let file = job.out.join(format!("{name}.onnx"));
    edgesmith_formats::write(&model, &file, &job.write)?;
    let read = read_back::check(&model, &[&changes], &file)?.model;
    Ok(Made {
        notes: changes.warnings,
        precision: def.name,
        ..Made::of(name, about.into(), &file, &read)?
    })
}

fn measure_answers(
    made: &Made,
    baseline: &Made,
    test: &Dataset,
    job: &Job,
    progress: &dyn Progress,
) -> Result<Variant> {
    let mut session = Session::prepare(&made.ready, &all_cores(&job.runtime))?;
    let evaluation = evaluate::evaluate(&mut session, test, BATCH, progress)?;
    let (mut distance, mut values) = (None, Vec::new());
    if !std::ptr::eq(made, baseline) {
        let base = &baseline.ready;
        distance = Some(fidelity(base, &mut session, test, &job.runtime, progress)?);
    }
    // A model beside has other values under the same names.
    if VARIANTS[1..].iter().any(|v| v.name == made.name) {
        let (own, base) = (&made.ready, &baseline.ready);
        values = evaluate::value_fidelity(base, own, test, NODE_SAMPLES, progress)?;
    }
    let mut variant = made.variant(&mut session, &test.first(1)?)?;
    for node in &mut variant.nodes {
        let found = values.iter().find(|d| d.node == node.name);
        node.sqnr_db = found.map(|d| d.sqnr_db);
    }
    let needs = Needs {
        precision: made.precision,
        reduced: false,
        weight_bytes: made.figures.weight_bytes,
        activation_bytes: variant.peak_activation_bytes.unwrap_or(0),
    };
    Ok(Variant {
        accuracy: evaluation
            .accuracy
            .map(|(correct, total)| Accuracy::of(correct, total)),
        fidelity: distance,
        target_notes: job
            .target
            .as_ref()
            .map_or_else(Vec::new, |t| t.notes(needs)),
        ..variant
    })
}

fn data_facts(
    job: &Job,
    test: &Dataset,
    calibration: &Dataset,
    statistics: &Statistics,
) -> DataFacts {
    DataFacts {
        test_file: opened::name_of(&job.data),
        test_samples: test.len() as u64,
        labelled: test.labels().is_some(),
        calibration_file: opened::name_of(&job.calibrate),
        calibration_samples: calibration.len() as u64,
        warnings: statistics.warnings.clone(),
    }
}

fn settings(job: &Job) -> Vec<(String, String)> {
    let int8 = int8::Settings::default();
    [
        ("ranges of activations", int8.observer.name.to_owned()),
        ("activations", "u8, asymmetric, one scale a tensor".into()),
        ("weights", "i8, symmetric, one scale a channel".into()),
        (
            "bias correction",
            if int8.bias_correction { "on" } else { "off" }.into(),
        ),
        (
            "latency",
            format!("batch 1, up to {} interleaved runs", job.effort.iterations),
        ),
        ("providers", job.runtime.providers.join(", ")),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into()
}
