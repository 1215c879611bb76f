//! Gathers the evidence of one conversion: the model before and after its steps, as files.

use std::collections::BTreeMap;
use std::path::Path;

use edgesmith_compress::evaluate;
use edgesmith_compress::quantize::changes::{Changes, Fate, NodeChange};
use edgesmith_compress::{Part, Samples};
use edgesmith_ir::{Graph, Model, NodeId, Progress, Result, ValueId};
use edgesmith_report::Evidence;
use edgesmith_report::evidence::{DataFacts, NodeAccount, Variant};
use edgesmith_runtime::{Options, Session};

use super::{
    MOVES, Made, all_cores, fidelity, machine, measure_latency, relate, removed, tensors, training,
    warnings,
};
use crate::measure::{self, Effort, Inputs};
use crate::opened;
use crate::recipes::{Outcome, Work};

/// Samples that the distance of each layer is measured on.
const LAYER_SAMPLES: usize = 16;

/// Samples that the distance of the outputs is measured on.
const OUTPUT_SAMPLES: usize = 128;

/// A conversion that was done, and how its evidence is measured.
pub struct Job<'a> {
    pub work: &'a Work,
    pub outcome: &'a Outcome,
    pub runtime: Options,
    pub effort: Effort,
}

/// Both models, ready to run, and what they run on.
struct Both {
    made: [Made; 2],
    inputs: Inputs,
}

/// Measures latency alone: two variants, the model before and after.
///
/// # Errors
/// When a model does not run.
pub fn latency(job: &Job, progress: &dyn Progress) -> Result<Vec<Variant>> {
    let both = both(job)?;
    let mut variants = Vec::new();
    for made in &both.made {
        let mut session = Session::prepare(&made.ready, &all_cores(&job.runtime))?;
        variants.push(made.variant(&mut session, &both.inputs)?);
    }
    let how = (&job.runtime, job.effort);
    measure_latency(&both.made, &mut variants, &both.inputs, how, progress)?;
    relate(&mut variants);
    Ok(variants)
}

/// Gathers everything.
///
/// # Errors
/// When a model does not run, or not on the samples.
pub fn gather(job: &Job, progress: &dyn Progress) -> Result<Evidence> {
    let (work, read) = (job.work, &job.outcome.read);
    let both = both(job)?;
    let [before, after] = &both.made;
    let mut variants = Vec::new();
    for made in &both.made {
        let mut session = Session::prepare(&made.ready, &all_cores(&job.runtime))?;
        let mut variant = made.variant(&mut session, &both.inputs)?;
        if let (Some(samples), true) = (work.samples(), std::ptr::eq(made, after)) {
            let samples = &Part::new(samples, 0..OUTPUT_SAMPLES);
            let distance = fidelity(&before.ready, &mut session, samples, &job.runtime, progress)?;
            variant.fidelity = Some(distance);
        }
        variants.push(variant);
    }
    let steps = job.outcome.changes();
    let ran = Ran {
        model: &work.model.graph,
        before: &before.ready.graph,
        after: &after.ready.graph,
    };
    variants[1].account = account(&steps, &ran);
    variants[1].tensors = tensors::rows(&work.model.graph, &read.model.graph);
    add_weights(&mut variants[1], job);
    if let Some(samples) = work.samples() {
        add_outputs(&mut variants[1], job, samples, progress)?;
    }
    let how = (&job.runtime, job.effort);
    measure_latency(&both.made, &mut variants, &both.inputs, how, progress)?;
    relate(&mut variants);
    let figures = opened::figures(&work.model, &[])?;
    let mut model = opened::facts(&work.source, &work.model, &figures)?;
    model.bytes = job.outcome.bytes_before;
    if same_file(&work.source, &work.output) {
        model.sha256.clear();
    }
    Ok(Evidence {
        tool_version: env!("CARGO_PKG_VERSION").into(),
        model,
        data: data_facts(work),
        machine: machine(&job.runtime),
        warnings: warnings(&variants),
        training: training::trainings(&job.outcome.done),
        removals: removed::removals(&job.outcome.done),
        tickets: removed::tickets(&job.outcome.done),
        choices: training::choices(&job.outcome.done),
        variants,
        settings: settings(job),
        ..Evidence::default()
    })
}

/// True where the result took the place of the model.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn both(job: &Job) -> Result<Both> {
    let (work, read) = (job.work, &job.outcome.read);
    let steps: Vec<&str> = job.outcome.done.iter().map(|d| d.step.as_str()).collect();
    let about = format!("What the steps made: {}.", steps.join("; "));
    let before = "The model before the steps.".to_owned();
    let mut after = Made::of("after", about, &work.output, &read.model)?;
    // Notes of training stand beside it.
    let others = job
        .outcome
        .done
        .iter()
        .filter(|d| d.changes.training.is_none());
    let notes = others.flat_map(|d| &d.changes.notes);
    let warnings = job.outcome.done.iter().flat_map(|d| &d.changes.warnings);
    after.notes = warnings.chain(notes).cloned().collect();
    let before = Made {
        bytes: job.outcome.bytes_before,
        ..Made::of("before", before, &work.source, &work.model)?
    };
    Ok(Both {
        made: [before, after],
        inputs: match &work.samples {
            Some(samples) => samples.first(1)?,
            None => measure::random_inputs(&work.model, &[])?,
        },
    })
}

/// Which nodes do the work of a node of the model before, as both models run.
struct Ran<'a> {
    model: &'a Graph,
    before: &'a Graph,
    after: &'a Graph,
}

/// Nodes behind one that may have been fused with it, at most.
const FUSED: usize = 4;

impl Ran<'_> {
    /// The node of `graph` with that name, else the one that makes the same value, or that of the
    /// nodes behind it which alone read it.
    fn name(&self, graph: &Graph, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        if graph.nodes().any(|(_, n)| n.name == name) {
            return Some(name.to_owned());
        }
        let (id, _) = self.model.nodes().find(|(_, n)| n.name == name)?;
        let next = |id: &NodeId| {
            let made = self.model.node(*id).output(0)?;
            Some(self.model.sole_consumer(made)?.0)
        };
        let mut behind = std::iter::successors(Some(id), next).take(FUSED);
        behind.find_map(|id| {
            let made = self.model.node(id).output(0)?;
            let value = graph.find_value(&self.model.value(made).name)?;
            maker(graph, value).map(str::to_owned)
        })
    }
}

/// The name of the node that computes a value, behind those that change its type.
fn maker(graph: &Graph, mut v: ValueId) -> Option<&str> {
    loop {
        let (id, _) = graph.value(v).producer()?;
        let node = graph.node(id);
        match node.op.as_str() {
            "DequantizeLinear" | "QuantizeLinear" | "Cast" => v = node.input(0)?,
            _ => return Some(&node.name),
        }
    }
}

/// What became of each node, by all steps together. A node that one step left and another converted
/// is converted; nodes that steps added have no account.
fn account(steps: &[&Changes], ran: &Ran) -> Vec<NodeAccount> {
    let mut all: Vec<NodeAccount> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for changes in steps.iter().filter(|c| !c.nodes.is_empty()) {
        let is_first = all.is_empty();
        for change in &changes.nodes {
            let is_move = MOVES.contains(&change.op.as_str());
            match places
                .get(change.name.as_str())
                .filter(|_| !change.name.is_empty())
            {
                Some(&i) if all[i].fate == "left" => all[i] = of_change(change, ran),
                None if is_first && !(is_move && matches!(change.fate, Fate::Left(_))) => {
                    places.insert(&change.name, all.len());
                    all.push(of_change(change, ran));
                }
                _ => {}
            }
        }
    }
    all
}

fn of_change(change: &NodeChange, ran: &Ran) -> NodeAccount {
    let (fate, detail) = match &change.fate {
        Fate::Converted => ("converted", ""),
        Fate::Absorbed(into) => ("absorbed", into.as_str()),
        Fate::Left(why) => ("left", why.as_str()),
    };
    NodeAccount {
        name: change.name.clone(),
        op: change.op.clone(),
        fate: fate.into(),
        detail: detail.into(),
        ran_before: ran.name(ran.before, &change.name),
        ran_as: match fate {
            "absorbed" => ran.name(ran.after, detail),
            _ => ran.name(ran.after, &change.name),
        },
    }
}

/// Errors of weights: those that were compared on reading back, and those that were rounded alone.
fn add_weights(variant: &mut Variant, job: &Job) {
    let read = job
        .outcome
        .read
        .weights
        .iter()
        .map(|c| (&c.nodes, c.sqnr_db));
    let steps = job.outcome.done.iter().flat_map(|d| &d.changes.weights);
    let alone = steps.map(|w| (&w.nodes, w.sqnr_db));
    for (nodes, db) in read.chain(alone) {
        for name in nodes {
            let told = variant.account.iter().find(|a| a.name == *name);
            let Some(ran) = told.and_then(|a| a.ran_as.clone()) else {
                continue;
            };
            if let Some(row) = variant.nodes.iter_mut().find(|n| n.name == ran) {
                // Of several constants of a node the farthest counts.
                row.weight_sqnr_db = Some(row.weight_sqnr_db.map_or(db, |known| known.min(db)));
            }
        }
    }
}

/// Errors of what layers make, on samples. Values whose channels were rescaled are left out.
fn add_outputs(
    variant: &mut Variant,
    job: &Job,
    samples: &dyn Samples,
    progress: &dyn Progress,
) -> Result<()> {
    let (before, after): (&Model, &Model) = (&job.work.model, &job.outcome.read.model);
    let found = evaluate::value_fidelity(before, after, samples, LAYER_SAMPLES, progress)?;
    let steps = job.outcome.changes();
    let rescaled: Vec<&String> = steps.iter().flat_map(|c| &c.rescaled).collect();
    for value in found.iter().filter(|f| !rescaled.contains(&&f.value)) {
        let made = after.graph.find_value(&value.made);
        let Some(name) = made.and_then(|v| maker(&after.graph, v)) else {
            continue;
        };
        if let Some(row) = variant.nodes.iter_mut().find(|n| n.name == name) {
            row.sqnr_db = Some(value.sqnr_db);
        }
    }
    Ok(())
}

fn data_facts(work: &Work) -> DataFacts {
    DataFacts {
        calibration_file: work.recipe.calibrate.clone().unwrap_or_default(),
        calibration_samples: work.samples().map_or(0, |s| s.count() as u64),
        ..DataFacts::default()
    }
}

fn settings(job: &Job) -> Vec<(String, String)> {
    let samples = job.work.samples().map(Samples::count);
    let on = |most: usize, what: &str| match samples {
        None => "not measured: there are no samples".to_owned(),
        Some(n) => format!("{what} on the first {} calibration samples", n.min(most)),
    };
    let steps = job
        .outcome
        .done
        .iter()
        .map(|d| ("step".to_owned(), d.step.clone()));
    let measured = [
        ("read back", read_back(job)),
        (
            "error of layers",
            on(LAYER_SAMPLES, "each value that both models make,"),
        ),
        ("error of outputs", on(OUTPUT_SAMPLES, "all outputs")),
        (
            "latency",
            format!(
                "batch 1, up to {} interleaved runs on {}",
                job.effort.iterations,
                if samples.is_some() {
                    "the first sample"
                } else {
                    "random numbers"
                }
            ),
        ),
        ("providers", job.runtime.providers.join(", ")),
    ];
    steps
        .chain(measured.map(|(k, v)| (k.to_owned(), v)))
        .collect()
}

/// What was found when the file was read again; what differs is an error before this is told.
fn read_back(job: &Job) -> String {
    let read = &job.outcome.read.weights;
    let steps = job.outcome.done.iter();
    let alone: usize = steps.map(|d| d.changes.weights.len()).sum();
    let mut text = "every node, attribute and constant is as it was made".to_owned();
    if !read.is_empty() {
        let saturated: u64 = read.iter().map(|c| c.saturated).sum();
        text += &format!(
            "; dequantised, {} weights lie within half a step of what they were, but for {saturated} \
             numbers at the ends of their ranges",
            read.len()
        );
    }
    if alone > 0 {
        text += &format!("; the codes of {alone} weights that were rounded alone are in it");
    }
    text
}
