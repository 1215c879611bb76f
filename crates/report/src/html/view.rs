//! What the page's template shows: the evidence as finished texts.

mod conversion;
mod pruning;
mod training;

use serde::Serialize;

use self::conversion::{ConversionView, conversions};
use self::pruning::{RemovalView, TicketsView, removals, tickets};
use self::training::{ChoiceView, TrainingView, choices, trainings};
use crate::evidence::{DataFacts, Evidence, Execution, NodeRow, Port, Variant};
use crate::format::{self, MISSING};
use crate::plot::{self, series_class};

/// Everything on the page.
#[derive(Serialize)]
pub(super) struct View<'a> {
    style: &'static str,
    evidence: &'a Evidence,
    findings: Vec<String>,
    model: Vec<Fact>,
    heads: Vec<String>,
    variants: Vec<VariantView<'a>>,
    figures: Vec<FigureView>,
    conversions: Vec<ConversionView<'a>>,
    removals: Vec<RemovalView<'a>>,
    tickets: Vec<TicketsView<'a>>,
    trainings: Vec<TrainingView<'a>>,
    choices: Vec<ChoiceView<'a>>,
    machine: Vec<Fact>,
    latency: Option<String>,
    has_accuracy: bool,
    has_fidelity: bool,
    has_memory: bool,
    has_sqnr: bool,
}

/// A name and a text.
#[derive(Serialize)]
struct Fact {
    name: &'static str,
    text: String,
}

#[derive(Serialize)]
struct VariantView<'a> {
    class: String,
    variant: &'a Variant,
    cells: Vec<String>,
    size: String,
    gzip: Option<String>,
    sqnr: Option<String>,
    integer_of: String,
    shares: [Share; 3],
    nodes: Vec<NodeView<'a>>,
}

/// A part of the bar that shows in which arithmetic the nodes ran.
#[derive(Serialize)]
struct Share {
    kind: &'static str,
    count: u64,
    percent: String,
}

#[derive(Serialize)]
struct NodeView<'a> {
    node: &'a NodeRow,
    ms: String,
    share: String,
    macs: String,
    weights: String,
    output: String,
    sqnr: String,
}

#[derive(Serialize)]
struct FigureView {
    title: &'static str,
    caption: String,
    svg: String,
    wide: bool,
    series: Vec<(String, String)>,
}

impl<'a> View<'a> {
    /// The view of the evidence.
    pub(super) fn of(evidence: &'a Evidence) -> Self {
        let variants = &evidence.variants;
        let any = |test: fn(&Variant) -> bool| variants.iter().any(test);
        let figures = plot::figures(evidence)
            .into_iter()
            .map(|figure| FigureView {
                title: figure.title,
                caption: figure.caption,
                svg: figure.svg,
                wide: figure.wide,
                series: figure
                    .series
                    .into_iter()
                    .map(|(i, name)| (series_class(i), name))
                    .collect(),
            });
        let (heads, rows) = evidence.summary().into_texts();
        let timed = any(|v| v.latency.is_some());
        Self {
            style: include_str!("report.css"),
            evidence,
            findings: findings(evidence),
            model: model(evidence),
            heads,
            variants: variants.iter().zip(rows).enumerate().map(variant).collect(),
            figures: figures.collect(),
            conversions: conversions(evidence),
            removals: removals(evidence),
            tickets: tickets(evidence),
            trainings: trainings(evidence),
            choices: choices(evidence),
            machine: machine(evidence),
            latency: timed.then(|| evidence.latency_sentence()),
            has_accuracy: any(|v| v.accuracy.is_some()),
            has_fidelity: any(|v| v.fidelity.is_some()),
            has_memory: any(|v| v.peak_activation_bytes.is_some()),
            has_sqnr: any(|v| v.nodes.iter().any(|n| n.sqnr_db.is_some())),
        }
    }
}

fn variant<'a>((i, (variant, cells)): (usize, (&'a Variant, Vec<String>))) -> VariantView<'a> {
    VariantView {
        class: series_class(i),
        variant,
        cells,
        size: format::grouped(variant.bytes),
        gzip: variant.gzip_bytes.map(format::bytes),
        sqnr: variant.fidelity.as_ref().map(|f| match f.sqnr_text() {
            text if f.sqnr_db.is_finite() => text + " dB",
            text => text,
        }),
        integer_of: variant.execution.integer_of(),
        shares: shares(&variant.execution),
        nodes: variant.nodes.iter().map(node).collect(),
    }
}

fn shares(execution: &Execution) -> [Share; 3] {
    let parts = [
        ("integer", execution.nodes_integer),
        ("float", execution.nodes_float),
        ("other", execution.nodes_other),
    ];
    let total = parts.iter().map(|(_, count)| count).sum::<u64>().max(1) as f64;
    parts.map(|(kind, count)| Share {
        kind,
        count,
        percent: format!("{:.2}", count as f64 / total * 100.0),
    })
}

fn node(node: &NodeRow) -> NodeView<'_> {
    let positive = |n: u64, text: fn(u64) -> String| if n > 0 { text(n) } else { MISSING.into() };
    let decimal = |v: Option<f64>, scale: f64| {
        v.filter(|v| v.is_finite())
            .map_or(MISSING.into(), |v| format!("{:.1}", v * scale))
    };
    NodeView {
        node,
        ms: node.ms.map_or(MISSING.into(), format::ms),
        share: decimal(node.share, 100.0),
        macs: positive(node.macs, format::count),
        weights: positive(node.weight_bytes, format::bytes),
        output: positive(node.output_bytes, format::bytes),
        sqnr: decimal(node.sqnr_db, 1.0),
    }
}

/// One sentence for each variant after the baseline: bytes, time, answers, and what ran in integers.
fn findings(evidence: &Evidence) -> Vec<String> {
    let Some((baseline, others)) = evidence.variants.split_first() else {
        return Vec::new();
    };
    others
        .iter()
        .map(|variant| finding(baseline, variant))
        .collect()
}

fn finding(baseline: &Variant, variant: &Variant) -> String {
    let mut parts = vec![format!(
        "is {} the file ({} against {})",
        format::times(variant.ratio),
        format::bytes(variant.bytes),
        format::bytes(baseline.bytes)
    )];
    if let (Some(before), Some(after)) = (&baseline.latency, &variant.latency) {
        let speed = after.speedup.map_or(MISSING.into(), format::times);
        let (before, after) = (format::ms(before.p50_ms), format::ms(after.p50_ms));
        parts.push(format!(
            "runs at {speed} the speed here ({after} ms against {before} ms)"
        ));
    }
    if let (Some(before), Some(after)) = (&baseline.accuracy, &variant.accuracy) {
        let (before, after) = (format::percent(before.value), after.text());
        parts.push(format!("answers {after} % right against {before} %"));
    } else if let Some(share) = variant.fidelity.as_ref().and_then(|f| f.agreement) {
        let share = format::percent(share);
        parts.push(format!("gives the same answer on {share} % of the samples"));
    }
    parts.push(format!(
        "runs {} nodes in integer arithmetic",
        variant.execution.integer_of()
    ));
    format!(" {}.", parts.join(", "))
}

fn model(evidence: &Evidence) -> Vec<Fact> {
    let model = &evidence.model;
    let mut facts = vec![
        Fact {
            name: "File",
            text: format!("{}, {} bytes", model.file, format::grouped(model.bytes)),
        },
        Fact {
            name: "SHA-256",
            text: model.sha256.clone(),
        },
        Fact {
            name: "Format",
            text: format!(
                "ONNX opset {}, IR version {}",
                model.opset, model.ir_version
            ),
        },
        Fact {
            name: "Written by",
            text: model.producer.clone(),
        },
        Fact {
            name: "Inputs",
            text: ports(&model.inputs),
        },
        Fact {
            name: "Outputs",
            text: ports(&model.outputs),
        },
        Fact {
            name: "Open dimensions",
            text: model.dynamic_dims.join(", "),
        },
        Fact {
            name: "Parameters",
            text: format::grouped(model.parameters),
        },
        Fact {
            name: "MACs for one run",
            text: format::grouped(model.macs),
        },
    ];
    let DataFacts {
        test_file,
        test_samples,
        calibration_file,
        calibration_samples,
        ..
    } = &evidence.data;
    if *test_samples > 0 {
        let labels = if evidence.data.labelled {
            "with labels"
        } else {
            "without labels"
        };
        let samples = format::plural(*test_samples, "sample");
        facts.push(Fact {
            name: "Test data",
            text: format!("{test_file}, {samples} {labels}"),
        });
    }
    if *calibration_samples > 0 {
        let samples = format::plural(*calibration_samples, "sample");
        facts.push(Fact {
            name: "Calibration",
            text: format!("{calibration_file}, {samples}"),
        });
    }
    facts.retain(|fact| !fact.text.is_empty());
    facts
}

fn ports(ports: &[Port]) -> String {
    let texts: Vec<_> = ports
        .iter()
        .map(|p| format!("{} {} {}", p.name, p.dtype, p.shape))
        .collect();
    texts.join("; ")
}

fn machine(evidence: &Evidence) -> Vec<Fact> {
    let machine = &evidence.machine;
    let known = |n: u32| if n > 0 { n.to_string() } else { String::new() };
    let memory = if machine.memory_bytes > 0 {
        format::bytes(machine.memory_bytes)
    } else {
        String::new()
    };
    let mut facts = vec![
        Fact {
            name: "Processor",
            text: machine.cpu.clone(),
        },
        Fact {
            name: "Instruction sets",
            text: machine.isa.clone(),
        },
        Fact {
            name: "Cores",
            text: known(machine.cores),
        },
        Fact {
            name: "Threads used",
            text: known(machine.threads),
        },
        Fact {
            name: "Memory",
            text: memory,
        },
        Fact {
            name: "System",
            text: machine.os.clone(),
        },
    ];
    facts.retain(|fact| !fact.text.is_empty());
    facts
}
