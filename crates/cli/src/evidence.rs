//! Gathers the evidence of a comparison: makes each variant, runs it, measures it.

use std::path::{Path, PathBuf};

use edgesmith_compress::calibrate::{self, Statistics};
use edgesmith_compress::evaluate::{self, ValueFidelity};
use edgesmith_compress::quantize::changes::Changes;
use edgesmith_compress::quantize::{half, int8};
use edgesmith_compress::target::{Needs, Target};
use edgesmith_data::Dataset;
use edgesmith_formats::WriteOptions;
use edgesmith_ir::{Model, Progress, Result};
use edgesmith_kernels::cpu::CpuInfo;
use edgesmith_report::Evidence;
use edgesmith_report::evidence::{
    Accuracy, DataFacts, Execution, Fidelity, Machine, NodeRow, OpCount, TargetFacts, Variant,
};
use edgesmith_runtime::{Options, Placement, Session};

use crate::measure::{self, Effort, Inputs};
use crate::opened;

/// What a comparison reads, writes and how it measures.
pub struct Job {
    pub model: PathBuf,
    pub data: PathBuf,
    pub calibrate: PathBuf,
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

/// A variant as it was read back from its file.
struct Made {
    def: &'static VariantDef,
    file: PathBuf,
    ready: Model,
    figures: opened::Figures,
    changes: Changes,
}

/// Samples of one run while accuracy is counted.
const BATCH: usize = 32;

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
    let basic = opened::optimized(&original, "basic")?;
    check_labels(&basic, &test, &job.runtime)?;
    let statistics = calibrate::calibrate(
        &basic,
        &calibration,
        &calibrate::Settings::default(),
        progress,
    )?;
    let base = Base {
        original,
        basic,
        statistics,
    };
    crate::commands::compare::create_folder(&job.out)?;
    let made = VARIANTS
        .iter()
        .map(|def| make(def, &base, job))
        .collect::<Result<Vec<_>>>()?;
    let mut variants = Vec::new();
    for m in &made {
        variants.push(measure_answers(m, &made[0], &test, job, progress)?);
    }
    measure_latency(&made, &mut variants, &test, job, progress)?;
    relate(&mut variants);
    let figures = opened::figures(&base.original, &[])?;
    Ok(Evidence {
        tool_version: env!("CARGO_PKG_VERSION").into(),
        model: opened::facts(&job.model, &base.original, &figures)?,
        data: data_facts(job, &test, &calibration, &base.statistics),
        machine: machine(job),
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

fn make(def: &'static VariantDef, base: &Base, job: &Job) -> Result<Made> {
    let (model, changes) = (def.make)(base)?;
    let file = job.out.join(format!("{}.onnx", def.name));
    edgesmith_formats::write(&model, &file, &job.write)?;
    let read = opened::open(&file)?;
    let ready = opened::optimized(&read, "extended")?;
    // Parameters and MACs are those of the model as it runs, with BatchNormalization folded.
    let figures = opened::figures(&ready, &[])?;
    Ok(Made {
        def,
        file,
        ready,
        figures,
        changes,
    })
}

fn measure_answers(
    made: &Made,
    baseline: &Made,
    test: &Dataset,
    job: &Job,
    progress: &dyn Progress,
) -> Result<Variant> {
    let all_cores = Options {
        threads: 0,
        ..job.runtime.clone()
    };
    let mut session = Session::prepare(&made.ready, &all_cores)?;
    let evaluation = evaluate::evaluate(&mut session, test, BATCH, progress)?;
    let (mut fidelity, mut nodes) = (None, Vec::new());
    if !std::ptr::eq(made, baseline) {
        let mut reference = Session::prepare(&baseline.ready, &all_cores)?;
        let f = evaluate::fidelity(&mut reference, &mut session, test, BATCH, progress)?;
        fidelity = Some(Fidelity {
            sqnr_db: f.sqnr_db,
            agreement: (f.agreement.1 > 0).then(|| f.agreement.0 as f64 / f.agreement.1 as f64),
            max_abs_error: f.max_abs_error,
            cosine: f.cosine,
        });
        nodes =
            evaluate::value_fidelity(&baseline.ready, &made.ready, test, NODE_SAMPLES, progress)?;
    }
    session.run(&measure::borrowed(&test.first(1)?))?;
    let memory = session.memory();
    let peak = memory.map(|m| m.arena_bytes as u64);
    let placements = session.placements();
    let needs = Needs {
        precision: made.def.name,
        reduced: false,
        weight_bytes: made.figures.weight_bytes,
        activation_bytes: peak.unwrap_or(0),
    };
    Ok(Variant {
        name: made.def.name.into(),
        about: made.def.about.into(),
        file: opened::name_of(&made.file),
        bytes: opened::size_on_disk(&made.file)?,
        parameters: made.figures.parameters,
        weight_bytes: made.figures.weight_bytes,
        macs: made.figures.macs,
        peak_activation_bytes: peak,
        activation_lower_bound_bytes: memory.map(|m| m.lower_bound as u64),
        accuracy: evaluation
            .accuracy
            .map(|(correct, total)| Accuracy::of(correct, total)),
        fidelity,
        execution: execution(placements),
        nodes: node_rows(made, placements, &nodes),
        notes: made.changes.warnings.clone(),
        target_notes: job
            .target
            .as_ref()
            .map_or_else(Vec::new, |t| t.notes(needs)),
        ..Variant::default()
    })
}

/// Operators that only move elements or change their type, whatever the arithmetic around them.
static MOVES: &[&str] = &[
    "Cast",
    "Constant",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Gather",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Shape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

fn execution(placements: &[Placement]) -> Execution {
    let mut e = Execution {
        nodes_total: placements.len() as u64,
        ..Execution::default()
    };
    for p in placements {
        if p.provider == "reference" {
            e.fallback.push(p.node.clone());
        }
        if MOVES.contains(&p.op.as_str()) {
            e.nodes_other += 1;
            continue;
        }
        let row = match e.by_op.iter().position(|o| o.op == p.op) {
            Some(i) => &mut e.by_op[i],
            None => {
                e.by_op.push(OpCount {
                    op: p.op.clone(),
                    ..OpCount::default()
                });
                e.by_op.last_mut().expect("a row was pushed")
            }
        };
        if p.integer {
            row.integer += 1;
            e.nodes_integer += 1;
        } else {
            row.float += 1;
            e.nodes_float += 1;
        }
    }
    e.by_op.sort_by(|a, b| a.op.cmp(&b.op));
    e
}

fn node_rows(made: &Made, placements: &[Placement], distances: &[ValueFidelity]) -> Vec<NodeRow> {
    let graph = &made.ready.graph;
    let rows = graph
        .nodes()
        .zip(placements)
        .filter(|(_, p)| !MOVES.contains(&p.op.as_str()));
    let row = |((id, node), p): ((edgesmith_ir::NodeId, &edgesmith_ir::Node), &Placement)| {
        let cost = made.figures.costs.iter().find(|c| c.node == id);
        NodeRow {
            name: node.name.clone(),
            op: node.op.clone(),
            provider: p.provider.clone(),
            kernel: p.kernel.clone(),
            integer: p.integer,
            macs: cost.map_or(0, |c| c.cost.macs),
            weight_bytes: cost.map_or(0, |c| c.cost.weight_bytes),
            output_bytes: cost.map_or(0, |c| c.output_bytes),
            sqnr_db: distances
                .iter()
                .find(|d| d.node == node.name)
                .map(|d| d.sqnr_db),
            ..NodeRow::default()
        }
    };
    rows.map(row).collect()
}

fn measure_latency(
    made: &[Made],
    variants: &mut [Variant],
    test: &Dataset,
    job: &Job,
    progress: &dyn Progress,
) -> Result<()> {
    let inputs: Inputs = test.first(1)?;
    let mut runs = Vec::new();
    for m in made {
        let session = Session::prepare(&m.ready, &job.runtime)?;
        runs.push(measure::peers::ours(session, inputs.clone()));
    }
    let threads = measure::threads(job.runtime.threads);
    let times = measure::interleaved(&mut runs, job.effort, progress)?;
    for ((variant, times), m) in variants.iter_mut().zip(times).zip(made) {
        variant.latency = Some(times.latency(threads));
        add_times(variant, m, &inputs, &job.runtime)?;
    }
    Ok(())
}

/// The time of each node, from a session of its own.
fn add_times(variant: &mut Variant, made: &Made, inputs: &Inputs, options: &Options) -> Result<()> {
    let mut session = Session::prepare(
        &made.ready,
        &Options {
            profile: true,
            ..options.clone()
        },
    )?;
    for round in 0..12 {
        if round == 2 {
            session.reset_profile();
        }
        session.run(&measure::borrowed(inputs))?;
    }
    let profile = session.profile();
    for node in &mut variant.nodes {
        let times = profile
            .nodes
            .iter()
            .filter(|p| p.name == node.name && p.op == node.op);
        let (ns, calls) = times.fold((0, 0), |(ns, calls), p| (ns + p.ns, calls.max(p.calls)));
        if calls > 0 {
            node.ms = Some(ns as f64 / 1e6 / calls as f64);
            node.share = Some(ns as f64 / profile.total_ns.max(1) as f64);
        }
    }
    Ok(())
}

/// Fills what is said relative to the baseline.
fn relate(variants: &mut [Variant]) {
    let Some(first) = variants.first() else {
        return;
    };
    let (bytes, accuracy) = (first.bytes as f64, first.accuracy.as_ref().map(|a| a.value));
    let p50 = first.latency.as_ref().map(|l| l.p50_ms);
    for v in variants {
        v.ratio = v.bytes as f64 / bytes;
        if let (Some(own), Some(base)) = (&v.accuracy, accuracy) {
            v.accuracy_change_points = Some((own.value - base) * 100.0);
        }
        if let (Some(l), Some(base)) = (&mut v.latency, p50) {
            l.speedup = Some(base / l.p50_ms);
        }
    }
}

fn warnings(variants: &[Variant]) -> Vec<String> {
    let slower = |v: &&Variant| {
        v.latency
            .as_ref()
            .and_then(|l| l.speedup)
            .is_some_and(|s| s < 1.0)
    };
    let mut warnings: Vec<String> = variants
        .iter()
        .skip(1)
        .filter(slower)
        .map(|v| {
            format!(
                "{} is slower than fp32 here: its file is smaller, its run is not",
                v.name
            )
        })
        .collect();
    for v in variants.iter().filter(|v| !v.execution.fallback.is_empty()) {
        warnings.push(format!(
            "{}: {} nodes ran by reference evaluation, which is slow",
            v.name,
            v.execution.fallback.len()
        ));
    }
    warnings
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

fn machine(job: &Job) -> Machine {
    let meminfo = std::fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.trim().split(' ').next()?.parse::<u64>().ok());
    Machine {
        cpu: CpuInfo::read().brand,
        isa: job
            .runtime
            .isa
            .map_or_else(String::new, |i| i.name().into()),
        cores: measure::threads(0) as u32,
        threads: measure::threads(job.runtime.threads) as u32,
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        memory_bytes: kib.unwrap_or(0) * 1024,
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
