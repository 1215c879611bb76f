//! What is measured of models beside the one that they were made from.

use std::path::{Path, PathBuf};

use edgesmith_compress::Samples;
use edgesmith_compress::evaluate;
use edgesmith_ir::analysis::quantised;
use edgesmith_ir::{Model, Progress, Result};
use edgesmith_kernels::cpu::CpuInfo;
use edgesmith_report::evidence::{Execution, Fidelity, Machine, NodeRow, OpCount, Variant};
use edgesmith_report::format;
use edgesmith_runtime::{Options, Placement, Session};

use crate::measure::{self, Effort, Inputs};
use crate::opened;

pub mod asked;
pub mod comparison;
pub mod conversion;
mod removed;
mod tensors;
pub mod training;

/// A variant as it was read from its file.
pub struct Made {
    pub name: String,
    /// In what most of it computes: `fp32`, `fp16`, `int8`.
    pub precision: &'static str,
    pub about: String,
    pub file: PathBuf,
    /// Of the file and its external data.
    pub bytes: u64,
    /// The model as it runs, optimised.
    pub ready: Model,
    /// Parameters and MACs are those of the model as it runs, with BatchNormalization folded.
    pub figures: opened::Figures,
    pub notes: Vec<String>,
}

/// Samples of one run while answers are compared.
const BATCH: usize = 32;

impl Made {
    /// Makes a model that was read ready to run.
    ///
    /// # Errors
    /// When a pass or a shape rule fails, or the file is gone.
    pub fn of(name: &str, about: String, file: &Path, read: &Model) -> Result<Self> {
        let ready = opened::optimized(read, "extended")?;
        Ok(Self {
            name: name.to_owned(),
            precision: if quantised(read).is_some() {
                "int8"
            } else {
                "fp32"
            },
            about,
            file: file.into(),
            bytes: opened::size_of(file, read)?,
            figures: opened::figures(&ready, &[])?,
            ready,
            notes: Vec::new(),
        })
    }

    /// What is known of the variant after one run of a session of it.
    ///
    /// # Errors
    /// When the run fails.
    fn variant(&self, session: &mut Session, inputs: &Inputs) -> Result<Variant> {
        session.run(&measure::borrowed(inputs))?;
        let memory = session.memory();
        let placements = session.placements();
        Ok(Variant {
            name: self.name.clone(),
            about: self.about.clone(),
            file: opened::name_of(&self.file),
            bytes: self.bytes,
            parameters: self.figures.parameters,
            weight_bytes: self.figures.weight_bytes,
            macs: self.figures.macs,
            peak_activation_bytes: memory.map(|m| m.arena_bytes as u64),
            activation_lower_bound_bytes: memory.map(|m| m.lower_bound as u64),
            execution: execution(placements),
            nodes: node_rows(self, placements),
            notes: self.notes.clone(),
            ..Variant::default()
        })
    }
}

/// The same options with a thread for each core, for what is not timed.
fn all_cores(options: &Options) -> Options {
    Options {
        threads: 0,
        ..options.clone()
    }
}

/// How near the outputs of a session are to those of the model that it was made from.
fn fidelity(
    reference: &Model,
    session: &mut Session,
    samples: &dyn Samples,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Fidelity> {
    let mut reference = Session::prepare(reference, &all_cores(options))?;
    let f = evaluate::fidelity(&mut reference, session, samples, BATCH, progress)?;
    Ok(Fidelity {
        sqnr_db: f.sqnr_db,
        agreement: (f.agreement.1 > 0).then(|| f.agreement.0 as f64 / f.agreement.1 as f64),
        max_abs_error: f.max_abs_error,
        cosine: f.cosine,
    })
}

/// Files that differ by a smaller part are not told apart: names and metadata make them so.
const GROWN: u64 = 200;

/// What must be said aloud of a file that is larger than the one before.
pub fn larger((name, bytes): (&str, u64), (before, bytes_before): (&str, u64)) -> Option<String> {
    (bytes > bytes_before + bytes_before / GROWN).then(|| {
        format!(
            "LARGER: {name} has {} bytes, {} the {} of {before}",
            format::grouped(bytes),
            format::times(bytes as f64 / bytes_before as f64),
            format::grouped(bytes_before)
        )
    })
}

/// Medians that differ by less are not told apart.
const APART: f64 = 1.01;

/// What must be said aloud of a variant that is slower than the baseline.
pub fn slower(variant: &Variant, baseline: &Variant) -> Option<String> {
    let (own, base) = (variant.latency.as_ref()?, baseline.latency.as_ref()?);
    let ratio = own.p50_ms / base.p50_ms;
    (ratio > APART).then(|| {
        format!(
            "SLOWER: {} takes {} ms for a run here, {} the {} ms of {} (p50 of {} in turn, {})",
            variant.name,
            format::ms(own.p50_ms),
            format::times(ratio),
            format::ms(base.p50_ms),
            baseline.name,
            format::plural(own.iterations, "run"),
            format::plural(own.threads.into(), "thread"),
        )
    })
}

/// What a reader must know before trusting the figures; the first variant is the baseline.
fn warnings(variants: &[Variant]) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some((baseline, others)) = variants.split_first() {
        for v in others {
            let base = (baseline.name.as_str(), baseline.bytes);
            warnings.extend(larger((&v.name, v.bytes), base));
            warnings.extend(slower(v, baseline));
        }
    }
    for v in variants.iter().filter(|v| !v.execution.fallback.is_empty()) {
        warnings.push(format!(
            "{}: {} nodes ran by reference evaluation, which is slow",
            v.name,
            v.execution.fallback.len()
        ));
    }
    warnings
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

fn node_rows(made: &Made, placements: &[Placement]) -> Vec<NodeRow> {
    let graph = &made.ready.graph;
    let mut places = vec![0; graph.node_slots()];
    let order = graph.order().into_iter().flatten();
    order.enumerate().for_each(|(i, id)| places[id.index()] = i);
    let mut rows: Vec<_> = graph
        .nodes()
        .zip(placements)
        .filter(|(_, p)| !MOVES.contains(&p.op.as_str()))
        .collect();
    // Slots of nodes that passes added lie behind those of all others.
    rows.sort_by_key(|((id, _), _)| places[id.index()]);
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
            note: p.note.clone(),
            ..NodeRow::default()
        }
    };
    rows.into_iter().map(row).collect()
}

/// Measures all variants in turn, then the nodes of each.
fn measure_latency(
    made: &[Made],
    variants: &mut [Variant],
    inputs: &Inputs,
    (options, effort): (&Options, Effort),
    progress: &dyn Progress,
) -> Result<()> {
    let mut runs = Vec::new();
    for m in made {
        let session = Session::prepare(&m.ready, options)?;
        runs.push(measure::peers::ours(session, inputs.clone()));
    }
    let threads = measure::threads(options.threads);
    let times = measure::interleaved(&mut runs, effort, progress)?;
    for ((variant, times), m) in variants.iter_mut().zip(times).zip(made) {
        variant.latency = Some(times.latency(threads));
        add_times(variant, m, inputs, options)?;
    }
    Ok(())
}

/// The time of each node, from a session of its own in which no two nodes are one step.
fn add_times(variant: &mut Variant, made: &Made, inputs: &Inputs, options: &Options) -> Result<()> {
    let mut session = Session::prepare(
        &made.ready,
        &Options {
            profile: true,
            line_bytes: usize::MAX,
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

fn machine(options: &Options) -> Machine {
    let meminfo = std::fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.trim().split(' ').next()?.parse::<u64>().ok());
    Machine {
        cpu: CpuInfo::read().brand,
        isa: options.isa.map_or_else(String::new, |i| i.name().into()),
        cores: measure::threads(0) as u32,
        threads: measure::threads(options.threads) as u32,
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        memory_bytes: kib.unwrap_or(0) * 1024,
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_report::evidence::Latency;

    use super::*;

    fn variant(name: &str, p50_ms: f64) -> Variant {
        Variant {
            name: name.into(),
            latency: Some(Latency {
                p50_ms,
                iterations: 100,
                threads: 1,
                ..Latency::default()
            }),
            ..Variant::default()
        }
    }

    #[test]
    fn only_what_grew_or_slowed_down_is_told() {
        assert_eq!(larger(("b", 100), ("a", 100)), None);
        assert_eq!(
            larger(("b", 1500), ("a", 1000)).as_deref(),
            Some("LARGER: b has 1,500 bytes, 1.50× the 1,000 of a")
        );
        assert_eq!(slower(&variant("b", 2.01), &variant("a", 2.0)), None);
        assert_eq!(
            slower(&variant("b", 3.0), &variant("a", 2.0)).as_deref(),
            Some(
                "SLOWER: b takes 3.00 ms for a run here, 1.50× the 2.00 ms of a (p50 of 100 runs in \
                 turn, 1 thread)"
            )
        );
    }
}
