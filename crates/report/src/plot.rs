//! The report's plots as SVG that takes its colours from the page.

mod axis;
mod depth;
mod epochs;
mod merge;
mod pruning;
mod rows;
mod scatter;
mod svg;
mod training;

use self::depth::{Curve, Depth, Layer};
use self::merge::merge;
use self::rows::{Form, Mark, Row, Rows};
use self::scatter::{Point, Scatter};
pub(crate) use self::svg::series_class;
use crate::evidence::{Evidence, NodeRow, Variant};
use crate::format;

/// Rows that a plot of nodes shows at most.
const MOST_NODES: usize = 80;

/// A plot and what stands around it.
pub(crate) struct Figure {
    /// Heading.
    pub title: &'static str,
    /// What to see in it.
    pub caption: String,
    /// The drawing.
    pub svg: String,
    /// The series that it shows, with their names.
    pub series: Vec<(usize, String)>,
    /// Drawn over the whole width of the page.
    pub wide: bool,
}

/// All plots that the evidence has figures for, in the order to show them.
pub(crate) fn figures(evidence: &Evidence) -> Vec<Figure> {
    let size = |v: &Variant| Some((v.bytes as f64, None));
    let time = |v: &Variant| v.latency.as_ref().map(|l| (l.p50_ms, Some(l.p95_ms)));
    let errors = (0..evidence.variants.len()).filter_map(|i| errors_by_depth(evidence, i));
    let others = [
        quality_by(evidence, "bytes", size),
        quality_by(evidence, "latency", time),
        Some(bytes_by_variant(evidence)).filter(|_| !evidence.variants.is_empty()),
        sqnr_by_node(evidence),
        time_by_node(evidence),
    ];
    let trainings = &evidence.training;
    let trained = trainings
        .iter()
        .flat_map(|t| training::figures(t, trainings.len() > 1));
    errors
        .chain(others.into_iter().flatten())
        .chain(pruning::figures(evidence))
        .chain(trained)
        .collect()
}

/// Variants as series of their own.
fn named(evidence: &Evidence, series: &[usize]) -> Vec<(usize, String)> {
    let name = |&i: &usize| (i, evidence.variants[i].name.clone());
    series.iter().map(name).collect()
}

/// The measure of quality that the variants have in common: name, unit, value with its interval.
type Quality = (
    &'static str,
    fn(&Variant) -> Option<(f64, Option<(f64, f64)>)>,
);

fn quality(evidence: &Evidence) -> Option<Quality> {
    if evidence.variants.iter().any(|v| v.accuracy.is_some()) {
        return Some(("accuracy in %", |v| {
            let a = v.accuracy.as_ref()?;
            Some((a.value * 100.0, Some((a.low * 100.0, a.high * 100.0))))
        }));
    }
    if evidence
        .variants
        .iter()
        .any(|v| v.fidelity.as_ref().is_some_and(|f| f.agreement.is_some()))
    {
        return Some(("same answer as the baseline in %", |v| {
            Some((v.fidelity.as_ref()?.agreement? * 100.0, None))
        }));
    }
    let sqnr = |v: &Variant| Some((v.fidelity.as_ref()?.sqnr_db, None));
    evidence
        .variants
        .iter()
        .any(|v| sqnr(v).is_some_and(|s| s.0.is_finite()))
        .then_some(("SQNR in dB", sqnr as fn(&Variant) -> _))
}

/// A position on the horizontal axis and where its bar ends.
type Position = fn(&Variant) -> Option<(f64, Option<f64>)>;

fn quality_by(evidence: &Evidence, against: &str, x: Position) -> Option<Figure> {
    let (y_label, y) = quality(evidence)?;
    let bytes = against == "bytes";
    let largest = evidence.variants.iter().map(|v| v.bytes).max().unwrap_or(0);
    let (unit, unit_name) = if bytes {
        byte_unit(largest)
    } else {
        (1.0, "ms")
    };
    let mut points = Vec::new();
    for (series, variant) in evidence.variants.iter().enumerate() {
        let (Some((x, x_end)), Some((y, interval))) = (x(variant), y(variant)) else {
            continue;
        };
        if !x.is_finite() || !y.is_finite() {
            continue;
        }
        let place = if bytes {
            format::bytes(variant.bytes)
        } else {
            format!("{} ms", format::ms(x))
        };
        let range = interval.map_or(String::new(), |(low, high)| {
            format!(" ({low:.2}–{high:.2})")
        });
        points.push(Point {
            series,
            name: variant.name.clone(),
            title: format!("{}: {place}, {y:.2}{range} {y_label}", variant.name),
            x: x / unit,
            x_end: x_end.filter(|end| end.is_finite()).map(|end| end / unit),
            y,
            interval,
        });
    }
    if points.is_empty() {
        return None;
    }
    let kind = if y_label.starts_with("accuracy") {
        "Accuracy"
    } else {
        "Fidelity"
    };
    let (title, mut caption) = match (kind, bytes) {
        ("Accuracy", true) => (
            "Accuracy against bytes",
            "Up and to the left is better.".to_string(),
        ),
        ("Accuracy", false) => (
            "Accuracy against latency",
            "Up and to the left is better.".into(),
        ),
        (_, true) => (
            "Fidelity against bytes",
            "Up and to the left is better.".into(),
        ),
        (_, false) => (
            "Fidelity against latency",
            "Up and to the left is better.".into(),
        ),
    };
    if kind == "Accuracy" {
        caption += " Bars up and down are 95 % intervals, the dotted line is the baseline.";
    }
    if !bytes {
        caption += " Points are medians; the bar to the right ends at the 95th percentile.";
    }
    let x_label = if bytes {
        format!("file size in {unit_name}")
    } else {
        "latency of one run in ms".into()
    };
    let series = points.iter().map(|p| (p.series, p.name.clone())).collect();
    let svg = Scatter {
        label: title,
        x_label,
        y_label,
        points,
    }
    .draw();
    Some(Figure {
        title,
        caption,
        svg,
        series,
        wide: false,
    })
}

/// The unit in which `largest` reads well: its size and name.
fn byte_unit(largest: u64) -> (f64, &'static str) {
    let [.., bytes] = format::BYTE_UNITS;
    let unit = format::BYTE_UNITS
        .into_iter()
        .find(|(unit, _)| largest >= *unit)
        .unwrap_or(bytes);
    (unit.0 as f64, unit.1)
}

fn bytes_by_variant(evidence: &Evidence) -> Figure {
    let largest = evidence.variants.iter().map(|v| v.bytes).max().unwrap_or(0);
    let (unit, unit_name) = byte_unit(largest);
    let rows = evidence.variants.iter().enumerate().map(|(series, v)| {
        let weights = v.weight_bytes.min(v.bytes);
        let mark = Mark {
            series,
            value: v.bytes as f64 / unit,
            solid: weights as f64 / unit,
            text: format!("{} · {}", format::bytes(v.bytes), format::times(v.ratio)),
            title: format!(
                "{}: {} bytes, of them {} bytes of constants",
                v.name,
                format::grouped(v.bytes),
                format::grouped(weights)
            ),
        };
        Row {
            name: v.name.clone(),
            marks: vec![mark],
        }
    });
    let chart = Rows {
        label: "Bytes per variant",
        axis_label: format!("file size in {unit_name}"),
        form: Form::Bars { thick: 16.0 },
        names: 84.0,
        after: 104.0,
        rows: rows.collect(),
    };
    Figure {
        title: "Bytes per variant",
        caption: "The pale end of a bar is what the file holds besides constants: the graph, \
                  names, scales."
            .into(),
        svg: chart.draw(),
        series: Vec::new(),
        wide: false,
    }
}

/// The variants that have a figure for any node.
fn having(evidence: &Evidence, get: fn(&NodeRow) -> Option<f64>) -> Vec<usize> {
    let has = |v: &Variant| v.nodes.iter().any(|n| get(n).is_some_and(f64::is_finite));
    (0..evidence.variants.len())
        .filter(|&i| has(&evidence.variants[i]))
        .collect()
}

/// How a figure of a node reads.
struct Reading {
    get: fn(&NodeRow) -> Option<f64>,
    text: fn(f64) -> String,
    unit: &'static str,
}

/// The rows of a plot of nodes; where there are too many, those stay that `weight` puts first.
fn node_rows(
    evidence: &Evidence,
    series: &[usize],
    reading: &Reading,
    weight: fn(&[Option<f64>]) -> f64,
) -> (Vec<Row>, usize) {
    let mut merged = merge(evidence, series, reading.get);
    let all = merged.len();
    if all > MOST_NODES {
        let mut order: Vec<usize> = (0..all).collect();
        order.sort_by(|&a, &b| weight(&merged[b].1).total_cmp(&weight(&merged[a].1)));
        let mut kept = vec![false; all];
        order[..MOST_NODES].iter().for_each(|&i| kept[i] = true);
        let mut kept = kept.into_iter();
        merged.retain(|_| kept.next().unwrap_or(false));
    }
    let rows = merged.into_iter().map(|(name, values)| {
        let marks = series.iter().zip(values).filter_map(|(&series, value)| {
            let (value, variant) = (value?, &evidence.variants[series].name);
            let text = (reading.text)(value);
            let title = format!("{name}, {variant}: {text} {}", reading.unit);
            Some(Mark {
                series,
                value,
                solid: value,
                text,
                title,
            })
        });
        Row {
            marks: marks.collect(),
            name,
        }
    });
    (rows.collect(), all)
}

/// What a caption says where rows were left out.
fn left_out(shown: usize, all: usize, [which, what]: [&str; 2]) -> String {
    if shown < all {
        format!(" The {shown} {which} of {all} {what} are shown.")
    } else {
        String::new()
    }
}

/// Errors of weights and of outputs along the depth of one variant, where both were compared.
fn errors_by_depth(evidence: &Evidence, series: usize) -> Option<Figure> {
    let variant = &evidence.variants[series];
    let finite = |v: Option<f64>| v.filter(|v| v.is_finite());
    let layer = |n: &NodeRow| Layer {
        name: n.name.clone(),
        values: [finite(n.weight_sqnr_db), finite(n.sqnr_db)],
        integer: n.integer,
    };
    let layers: Vec<Layer> = variant.nodes.iter().map(layer).collect();
    let layers: Vec<Layer> = layers
        .into_iter()
        .filter(|l| l.values.iter().any(Option::is_some))
        .collect();
    let has = |i: usize| layers.iter().any(|l| l.values[i].is_some());
    if !has(0) || layers.len() < 2 {
        return None;
    }
    let whole = variant.fidelity.as_ref().map(|f| f.sqnr_db);
    let title = "Error along the depth of the network";
    let caption = format!(
        "Each point is a layer of the variant {}, the first on the left. Higher is nearer to the float model; 6 dB are \
         one bit.{}{} Hollow points ran in floating point.",
        variant.name,
        if has(1) {
            " Errors of weights stand alone, those of outputs hold all that came before."
        } else {
            " There were no samples to run, so outputs are not compared."
        },
        if whole.is_some() {
            " The dotted line is the output of the whole model."
        } else {
            ""
        }
    );
    let curve = |name, series| Curve { name, series };
    let chart = Depth {
        label: title,
        curves: [curve("weights", 2), curve("outputs", 1)],
        whole: finite(whole),
        layers,
    };
    Some(Figure {
        title,
        caption,
        svg: chart.draw(),
        series: Vec::new(),
        wide: true,
    })
}

/// A plot of nodes, where any variant has figures of them.
fn of_nodes(
    evidence: &Evidence,
    series: &[usize],
    caption: String,
    chart: &Rows,
) -> Option<Figure> {
    (!series.is_empty()).then(|| Figure {
        title: chart.label,
        caption,
        svg: chart.draw(),
        series: named(evidence, series),
        wide: false,
    })
}

fn sqnr_by_node(evidence: &Evidence) -> Option<Figure> {
    let reading = Reading {
        get: |n| n.sqnr_db,
        text: |v| format!("{v:.1}"),
        unit: "dB",
    };
    let series = having(evidence, reading.get);
    let least = |values: &[Option<f64>]| {
        -values
            .iter()
            .flatten()
            .fold(f64::INFINITY, |a, &b| a.min(b))
    };
    let (rows, all) = node_rows(evidence, &series, &reading, least);
    let caption = format!(
        "The output of each node against the same place in the baseline, first layer on top. \
         Further right is nearer to the baseline; 6 dB are one bit.{}",
        left_out(rows.len(), all, ["worst", "nodes"])
    );
    let chart = Rows {
        label: "SQNR per layer",
        axis_label: "signal to quantisation noise in dB".into(),
        form: Form::Dots,
        names: 156.0,
        after: 38.0,
        rows,
    };
    of_nodes(evidence, &series, caption, &chart)
}

fn time_by_node(evidence: &Evidence) -> Option<Figure> {
    let reading = Reading {
        get: |n| n.ms,
        text: |v| format::significant(v, 2),
        unit: "ms",
    };
    let mut series = having(evidence, reading.get);
    if series.len() > 3 {
        series.drain(1..series.len() - 2);
    }
    let sum = |values: &[Option<f64>]| values.iter().flatten().sum();
    let (rows, all) = node_rows(evidence, &series, &reading, sum);
    let caption = format!(
        "Mean time of each node in one run, first layer on top.{}",
        left_out(rows.len(), all, ["slowest", "nodes"])
    );
    let chart = Rows {
        label: "Time per node",
        axis_label: "time in ms".into(),
        form: Form::Bars { thick: 9.0 },
        names: 156.0,
        after: 44.0,
        rows,
    };
    of_nodes(evidence, &series, caption, &chart)
}
