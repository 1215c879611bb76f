//! `edgesmith compare --targets`: the INT8 that each device wants of one model, as that device
//! computes it, from one calibration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use edgesmith_compress::calibrate::{self, Statistics};
use edgesmith_compress::evaluate::{self, Judgement};
use edgesmith_compress::quantize::changes::Changes;
use edgesmith_compress::quantize::int8;
use edgesmith_compress::simulate::{Runs, Saturation, Simulator};
use edgesmith_compress::steps::quantize::{QUANTIZE, int8_settings};
use edgesmith_compress::steps::{Given, Setting};
use edgesmith_compress::target::{Floats, Needs, PairSums, Target};
use edgesmith_data::Dataset;
use edgesmith_formats::WriteOptions;
use edgesmith_ir::{Model, Result as IrResult};
use edgesmith_report::evidence::Accuracy;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::{Options, Session};
use serde_json::{Value, json};

use crate::evidence::comparison;
use crate::{opened, read_back, ui};

/// What is compared.
pub struct Job {
    pub model: PathBuf,
    pub data: PathBuf,
    pub calibrate: PathBuf,
    pub targets: Vec<Target>,
    /// Where the files go, where they are wanted.
    pub out: Option<PathBuf>,
    pub runtime: Options,
    pub write: WriteOptions,
    pub json: bool,
}

/// Samples of one run.
const BATCH: usize = 16;

/// An INT8 model by its settings.
struct Variant {
    words: String,
    model: Model,
    weight_bytes: u64,
    activation_bytes: u64,
    reduced: bool,
    file: Option<PathBuf>,
}

/// A variant as a kind of device computes it.
struct Judged {
    variant: usize,
    pairs: PairSums,
    judgement: Judgement,
    saturation: Vec<Saturation>,
}

/// A target, and which of the judged it gets.
struct Row<'a> {
    target: &'a Target,
    judged: usize,
    /// What its runtimes give where nobody asks for weights of 7 bits.
    careless: bool,
}

/// Does the job and prints the table.
pub fn run(job: &Job) -> Result<()> {
    let bar = ui::Bar::default();
    let original = opened::open(&job.model)?;
    let test = Dataset::open(&job.data, &original)?;
    let calibration = Dataset::open(&job.calibrate, &original)?;
    let basic = opened::optimized(&original, "basic")?;
    comparison::check_labels(&basic, &test, &job.runtime)?;

    let wanted: Vec<_> = job
        .targets
        .iter()
        .flat_map(|t| schemes(t).map(move |s| (t, s)))
        .collect();
    let mut settings: Vec<(String, int8::Settings)> = Vec::new();
    for (_, s) in &wanted {
        if settings.iter().all(|(words, _)| *words != s.words) {
            settings.push((s.words.clone(), s.settings()?));
        }
    }
    let mut seen = Seen::new(&basic, &calibration, &settings, &bar)?;
    let mut variants = Vec::new();
    for (words, settings) in &settings {
        variants.push(variant(&basic, &mut seen, words, settings, job)?);
    }

    let mut reference = Session::prepare(&opened::optimized(&original, "extended")?, &job.runtime)?;
    let mut same = Session::prepare(&basic, &job.runtime)?;
    let baseline = evaluate::judge(&mut reference, &mut same, &test, BATCH, &bar)?;
    let mut judged: Vec<Judged> = Vec::new();
    let mut rows = Vec::new();
    for (target, scheme) in &wanted {
        let v = settings
            .iter()
            .position(|(words, _)| *words == scheme.words);
        let v = v.expect("every scheme has its settings");
        let pairs = target.int8.pair_sums;
        let known = judged
            .iter()
            .position(|j| j.variant == v && j.pairs == pairs);
        let at = match known {
            Some(i) => i,
            None => {
                judged.push(judge(
                    v,
                    &variants[v],
                    pairs,
                    &mut reference,
                    &test,
                    job,
                    &bar,
                )?);
                judged.len() - 1
            }
        };
        rows.push(Row {
            target,
            judged: at,
            careless: scheme.careless,
        });
    }
    if job.json {
        let rows = rows.iter().map(|r| r.as_json(&judged, &variants));
        return ui::print_json(&json!({
            "model": opened::name_of(&job.model),
            "samples": test.len(),
            "calibration_samples": seen.as_it_is.samples,
            "calibration_passes": seen.passes,
            "fp32_accuracy": baseline.accuracy.map(accuracy),
            "targets": rows.collect::<Vec<_>>(),
        }));
    }
    ui::print(&table(&rows, &judged, &variants, &baseline))?;
    for line in remarks(&rows, &judged) {
        ui::print(&line)?;
    }
    Ok(())
}

/// The settings that a target wants, or that its runtimes get where nobody takes care.
struct Scheme {
    words: String,
    keys: Vec<(&'static str, Setting)>,
    careless: bool,
}

impl Scheme {
    fn of(keys: Vec<(&'static str, Setting)>, careless: bool) -> Self {
        let word = |(key, setting): &(&str, Setting)| match setting {
            Setting::Text(t) => t.clone(),
            _ => (*key).to_owned(),
        };
        let words: Vec<String> = keys.iter().map(word).collect();
        Self {
            words: words.join(" "),
            keys,
            careless,
        }
    }

    fn settings(&self) -> IrResult<int8::Settings> {
        let mut given = Given::new(&QUANTIZE, "--targets");
        given.set("to", Setting::Text("int8".into()), "--targets")?;
        for (key, setting) in &self.keys {
            given.set(key, setting.clone(), "--targets")?;
        }
        int8_settings(&given)
    }
}

fn schemes(target: &Target) -> impl Iterator<Item = Scheme> + use<> {
    let wanted = target.int8_settings();
    let mut careless = wanted.clone();
    careless.retain(|(key, _)| *key != "reduce-range");
    let differs = careless.len() < wanted.len();
    let careless = differs.then(|| Scheme::of(careless, true));
    careless.into_iter().chain([Scheme::of(wanted, false)])
}

/// What calibration saw: in one pass of the model as it is, and in one more where smoothing changed
/// it.
struct Seen<'a> {
    data: &'a Dataset,
    bar: &'a ui::Bar,
    as_it_is: Statistics,
    smoothed: Option<Statistics>,
    passes: u64,
}

impl<'a> Seen<'a> {
    /// One pass over the data that sees what all settings need.
    fn new(
        model: &Model,
        data: &'a Dataset,
        settings: &[(String, int8::Settings)],
        bar: &'a ui::Bar,
    ) -> Result<Self> {
        let mut only = BTreeSet::new();
        for (_, s) in settings {
            only.extend(int8::needs(model, s)?);
        }
        let as_it_is = look(model, data, only, bar)?;
        for warning in &as_it_is.warnings {
            ui::say(&format!("warning: {warning}"));
        }
        Ok(Self {
            data,
            bar,
            as_it_is,
            smoothed: None,
            passes: 1,
        })
    }

    /// A model in INT8: the first question is of the model as it is, others of the smoothed one.
    fn quantize(&mut self, model: &Model, settings: &int8::Settings) -> IrResult<(Model, Changes)> {
        let (data, bar) = (self.data, self.bar);
        let mut is_first = true;
        let mut answer = |model: &Model, only: BTreeSet<String>| {
            if std::mem::take(&mut is_first) {
                return Ok(self.as_it_is.clone());
            }
            let has_all = |s: &&Statistics| only.iter().all(|v| s.values.contains_key(v));
            if let Some(known) = self.smoothed.as_ref().filter(has_all) {
                return Ok(known.clone());
            }
            self.passes += 1;
            let seen = look(model, data, only, bar)?;
            self.smoothed = Some(seen.clone());
            Ok(seen)
        };
        int8::post_training(model, &mut answer, data, settings, bar)
    }
}

fn look(
    model: &Model,
    data: &Dataset,
    only: BTreeSet<String>,
    bar: &ui::Bar,
) -> IrResult<Statistics> {
    let settings = calibrate::Settings {
        only: Some(only),
        ..calibrate::Settings::default()
    };
    calibrate::calibrate(model, data, &settings, bar)
}

fn variant(
    basic: &Model,
    seen: &mut Seen,
    words: &str,
    settings: &int8::Settings,
    job: &Job,
) -> Result<Variant> {
    let (model, changes) = seen.quantize(basic, settings)?;
    let file = match &job.out {
        Some(out) => {
            let file = out.join(format!("int8-{}.onnx", words.replace(' ', "-")));
            edgesmith_formats::write(&model, &file, &job.write)?;
            read_back::check(&model, &[&changes], &file)?;
            Some(file)
        }
        None => None,
    };
    let figures = opened::figures(&opened::optimized(&model, "extended")?, &[])?;
    Ok(Variant {
        words: words.into(),
        model,
        weight_bytes: figures.weight_bytes,
        activation_bytes: figures.activations.map_or(0, |a| a.peak_planned as u64),
        reduced: settings.reduce_range,
        file,
    })
}

fn judge(
    at: usize,
    variant: &Variant,
    pairs: PairSums,
    reference: &mut Session,
    test: &Dataset,
    job: &Job,
    bar: &ui::Bar,
) -> Result<Judged> {
    let mut of = |model: &mut dyn Runs| evaluate::judge(reference, model, test, BATCH, bar);
    let (judgement, saturation) = match pairs {
        PairSums::Exact => {
            let ready = opened::optimized(&variant.model, "extended")?;
            (
                of(&mut Session::prepare(&ready, &job.runtime)?)?,
                Vec::new(),
            )
        }
        PairSums::Saturate => {
            let mut simulator = Simulator::new(&variant.model, pairs, job.runtime.threads)?;
            (of(&mut simulator)?, simulator.saturation())
        }
    };
    Ok(Judged {
        variant: at,
        pairs,
        judgement,
        saturation,
    })
}

impl Judged {
    /// Sums of pairs, and those that saturated.
    fn sums(&self) -> (u64, u64) {
        let all = self.saturation.iter();
        all.fold((0, 0), |(a, b), s| (a + s.sums, b + s.saturated))
    }
}

impl Row<'_> {
    fn needs(&self, v: &Variant) -> Needs {
        Needs {
            precision: "int8",
            reduced: v.reduced,
            weight_bytes: v.weight_bytes,
            activation_bytes: v.activation_bytes,
        }
    }

    fn as_json(&self, judged: &[Judged], variants: &[Variant]) -> Value {
        let j = &judged[self.judged];
        let v = &variants[j.variant];
        let (sums, saturated) = j.sums();
        let by_node = j.saturation.iter().filter(|s| s.saturated > 0);
        let node = |s: &Saturation| json!({"node": s.node, "op": s.op, "sums": s.sums, "saturated": s.saturated});
        json!({
            "target": self.target.name,
            "scheme": v.words,
            "remedy": v.reduced,
            "careless": self.careless,
            "accuracy": j.judgement.accuracy.map(accuracy),
            "sqnr_db": finite(j.judgement.fidelity.sqnr_db),
            "sqnr_interval_db": j.judgement.sqnr_interval_db,
            "agreement": j.judgement.fidelity.agreement,
            "pair_sums": sums,
            "saturated_sums": saturated,
            "saturated_nodes": by_node.map(node).collect::<Vec<_>>(),
            "weight_bytes": v.weight_bytes,
            "activation_bytes": v.activation_bytes,
            "fits": self.target.holds(self.needs(v)),
            "file": v.file.as_ref().map(|f| f.display().to_string()),
            "notes": self.target.notes(self.needs(v)),
        })
    }

    /// Whether FP16 would be worth a try.
    fn fp16(&self) -> &'static str {
        match (self.target.fp32, self.target.fp16) {
            (Floats::None, _) => "no FPU",
            (_, Floats::Compute) => "yes",
            _ => "emulated",
        }
    }

    /// What the table says beside the figures.
    fn note(&self, v: &Variant) -> String {
        let t = self.target;
        let mut words = Vec::new();
        words.extend(self.careless.then_some("saturates"));
        words.extend(v.reduced.then_some("cured"));
        let slow = !t.int8.dot_product && t.int8.pair_sums == PairSums::Exact;
        words.extend(slow.then_some("no dot"));
        words.join(", ")
    }
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

fn accuracy((right, all): (u64, u64)) -> Value {
    let a = Accuracy::of(right, all);
    json!({"correct": right, "total": all, "value": a.value, "low": a.low, "high": a.high})
}

fn percent((right, all): (u64, u64)) -> String {
    let a = Accuracy::of(right, all);
    let [value, low, high] = [a.value, a.low, a.high].map(|x| 100.0 * x);
    format!("{value:.1} % ({low:.1}–{high:.1})")
}

fn table(rows: &[Row], judged: &[Judged], variants: &[Variant], baseline: &Judgement) -> String {
    let mut table = Table::new([
        Column::left("target"),
        Column::left("int8"),
        Column::right("accuracy"),
        Column::right("SQNR dB"),
        Column::right("saturated"),
        Column::right("weights"),
        Column::right("RAM"),
        Column::left("fits"),
        Column::left("FP16"),
        Column::left("note"),
    ]);
    let missing = || format::MISSING.to_owned();
    let fp32 = baseline.accuracy.map_or_else(missing, percent);
    let none = format::MISSING;
    table.row([
        none, "fp32", &fp32, none, none, none, none, none, none, none,
    ]);
    for row in rows {
        let j = &judged[row.judged];
        let v = &variants[j.variant];
        let sqnr = j.judgement.fidelity.sqnr_db;
        let sqnr = match j.judgement.sqnr_interval_db {
            Some((low, high)) => format!("{sqnr:.1} ({low:.1}–{high:.1})"),
            None if sqnr.is_finite() => format!("{sqnr:.1}"),
            None => missing(),
        };
        let saturated = match j.pairs {
            PairSums::Exact => missing(),
            PairSums::Saturate => format::grouped(j.sums().1),
        };
        let fits = match row.target.holds(row.needs(v)) {
            true => "yes",
            false => "no",
        };
        table.row([
            row.target.name.as_str(),
            &short(&v.words),
            &j.judgement.accuracy.map_or_else(missing, percent),
            &sqnr,
            &saturated,
            &format::bytes(v.weight_bytes),
            &format::bytes(v.activation_bytes),
            fits,
            row.fp16(),
            &row.note(v),
        ]);
    }
    table.to_text(&ui::style())
}

/// A scheme in words as short as a column.
fn short(words: &str) -> String {
    [
        ("symmetric", "sym"),
        ("per-tensor", "tensor"),
        ("reduce-range", "7-bit"),
        ("power-of-two", "2^n"),
    ]
    .iter()
    .fold(words.to_owned(), |w, (long, short)| w.replace(long, short))
}

/// Where sums saturate, and what does not fit.
fn remarks(rows: &[Row], judged: &[Judged]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|r| r.careless) {
        let j = &judged[row.judged];
        let (sums, saturated) = j.sums();
        let mut nodes: Vec<&Saturation> = j.saturation.iter().collect();
        nodes.sort_by_key(|s| std::cmp::Reverse(s.saturated));
        let most = nodes.iter().filter(|s| s.saturated > 0).take(3);
        let most =
            most.map(|s| format!("{} \"{}\" {}", s.op, s.node, format::grouped(s.saturated)));
        let most: Vec<String> = most.collect();
        let share = 100.0 * saturated as f64 / sums.max(1) as f64;
        let mut line = format!(
            "{}: {} of {} sums of two u8×s8 products saturate at 16 bits ({share:.4} %)",
            row.target.name,
            format::grouped(saturated),
            format::grouped(sums)
        );
        if !most.is_empty() {
            line += &format!(", most in {}", most.join(", "));
        }
        lines.push(line);
    }
    lines
}
