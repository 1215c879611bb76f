//! The evidence as one table of its variants for a terminal, with what must be known below it.

use crate::evidence::{Accuracy, Evidence, Execution, Fidelity, Variant};
use crate::format::{self, MISSING};
use crate::table::{Cell, Column, Style, Table, Tone, wrap};

/// A column of the summary and how a variant fills it.
type Entry = (Column, fn(&Variant) -> Cell);

impl Evidence {
    /// The summary for a terminal: a heading, the variants, then machine, notes and warnings.
    /// Columns for which no variant has a figure are left out.
    #[must_use]
    pub fn to_table(&self, style: &Style) -> String {
        let model = &self.model;
        let heading = format!(
            "opset {}, {} parameters, {} MACs",
            model.opset,
            format::count(model.parameters),
            format::count(model.macs)
        );
        let mut out = wrap(
            &format!("{}  ", crate::table::clean(&model.name)),
            &heading,
            style.width,
        );
        out.push('\n');
        out += &self.summary().to_text(style);
        out.push('\n');
        for (label, text, tone) in self.remarks() {
            let line = wrap(&format!("{label}: "), &text, style.width);
            out += &match line.strip_prefix(&label) {
                Some(rest) => style.paint(&label, tone) + rest,
                None => line,
            };
        }
        out
    }

    /// The variants as a table, as [`to_table`](Self::to_table) shows it.
    #[must_use]
    pub fn summary(&self) -> Table {
        let entries = self.entries();
        let mut table = Table::new(entries.iter().map(|(column, _)| column.clone()));
        for variant in &self.variants {
            table.row(entries.iter().map(|(_, cell)| cell(variant)));
        }
        table
    }

    fn entries(&self) -> Vec<Entry> {
        let any = |test: fn(&Variant) -> bool| self.variants.iter().any(test);
        let mut entries: Vec<Entry> = vec![
            (Column::left("variant"), |v| {
                Cell::new(v.name.as_str(), Tone::Strong)
            }),
            (Column::right("file"), |v| format::bytes(v.bytes).into()),
            (Column::right("ratio"), |v| format::times(v.ratio).into()),
            (Column::right("params"), |v| {
                format::count(v.parameters).into()
            }),
            (Column::right("MACs"), |v| format::count(v.macs).into()),
        ];
        if any(|v| v.peak_activation_bytes.is_some()) {
            entries.push((Column::right("peak\nmemory"), |v| {
                v.peak_activation_bytes
                    .map_or(MISSING.into(), format::bytes)
                    .into()
            }));
        }
        if any(|v| v.latency.is_some()) {
            let threads = self.threads_phrase();
            entries.push((Column::right(format!("p50 ms\n{threads}")), |v| {
                v.latency
                    .as_ref()
                    .map_or(MISSING.into(), |l| format::ms(l.p50_ms))
                    .into()
            }));
            entries.push((Column::right(format!("p95 ms\n{threads}")), |v| {
                v.latency
                    .as_ref()
                    .map_or(MISSING.into(), |l| format::ms(l.p95_ms))
                    .into()
            }));
            entries.push((Column::right("speed"), speedup));
        }
        if any(|v| v.accuracy.is_some()) {
            entries.push((Column::right("accuracy %\n(95 % interval)"), accuracy));
            entries.push((Column::right("change\npoints"), change));
        } else if any(|v| v.fidelity.is_some()) {
            entries.push((Column::right("same answer\n% of samples"), agreement));
            entries.push((Column::right("SQNR\ndB"), |v| {
                v.fidelity
                    .as_ref()
                    .map_or(MISSING.into(), Fidelity::sqnr_text)
                    .into()
            }));
        }
        entries.push((Column::right("nodes\nin integer"), |v| {
            v.execution.integer_of().into()
        }));
        entries
    }

    /// The threads of the latencies, such as `1 thread`; `see notes` where they differ.
    pub(crate) fn threads_phrase(&self) -> String {
        let mut threads = self
            .variants
            .iter()
            .filter_map(|v| Some(v.latency.as_ref()?.threads));
        let first = threads.next().unwrap_or(self.machine.threads);
        if threads.all(|t| t == first) {
            format::plural(first.into(), "thread")
        } else {
            "mixed threads".into()
        }
    }

    /// The lines below the table: label, text, tone.
    fn remarks(&self) -> Vec<(String, String, Tone)> {
        let mut lines = Vec::new();
        if self.variants.iter().any(|v| v.latency.is_some()) {
            lines.push(("latency".into(), self.latency_sentence(), Tone::Dim));
        }
        let data = &self.data;
        if data.test_samples > 0 {
            let samples = format::plural(data.test_samples, "sample");
            let kind = if data.labelled {
                "with labels"
            } else {
                "without labels"
            };
            let text = format!("{samples} {kind} from {}", data.test_file);
            lines.push(("data".into(), text, Tone::Dim));
        }
        let target = &self.target;
        if !target.name.is_empty() {
            let label = format!("target {}", target.name);
            lines.push((label.clone(), target.about.clone(), Tone::Dim));
            lines.extend(
                target
                    .notes
                    .iter()
                    .map(|n| (label.clone(), n.clone(), Tone::Dim)),
            );
        }
        for variant in &self.variants {
            let texts = variant.notes.iter().chain(&variant.target_notes);
            lines.extend(texts.map(|text| (variant.name.clone(), text.clone(), Tone::Strong)));
        }
        let warnings = data.warnings.iter().chain(&self.warnings);
        lines.extend(warnings.map(|text| ("warning".into(), text.clone(), Tone::Bad)));
        lines.retain(|(_, text, _)| !text.is_empty());
        lines
    }

    /// How the latencies were taken, in one sentence.
    pub(crate) fn latency_sentence(&self) -> String {
        let threads = self.threads_phrase();
        let runs = self
            .variants
            .iter()
            .filter_map(|v| Some(v.latency.as_ref()?.iterations));
        let (low, high) = runs.fold((u64::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
        let runs = if low < high {
            format!("{} to {} runs", format::grouped(low), format::grouped(high))
        } else {
            format::plural(high, "run")
        };
        let isa = if self.machine.isa.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.machine.isa)
        };
        format!(
            "wall clock of one run, {threads}, {runs} each, on {}{isa}",
            self.machine.cpu
        )
    }
}

impl Accuracy {
    /// Percentage and interval, such as `90.25 (88.88–91.47)`.
    pub(crate) fn text(&self) -> String {
        let [value, low, high] = [self.value, self.low, self.high].map(format::percent);
        format!("{value} ({low}–{high})")
    }
}

impl Fidelity {
    /// The ratio in dB without its unit; `exact` where the outputs are equal.
    pub(crate) fn sqnr_text(&self) -> String {
        if !self.sqnr_db.is_finite() && self.max_abs_error == 0.0 {
            return "exact".into();
        }
        if self.sqnr_db.is_finite() {
            format!("{:.1}", self.sqnr_db)
        } else {
            MISSING.into()
        }
    }
}

impl Execution {
    /// Nodes that do arithmetic: all but those that only move or convert.
    pub(crate) fn nodes_arithmetic(&self) -> u64 {
        self.nodes_integer + self.nodes_float
    }

    /// Integer nodes of all that do arithmetic, such as `14 of 17`.
    pub(crate) fn integer_of(&self) -> String {
        format!("{} of {}", self.nodes_integer, self.nodes_arithmetic())
    }
}

fn speedup(variant: &Variant) -> Cell {
    let Some(speedup) = variant.latency.as_ref().and_then(|l| l.speedup) else {
        return Cell::new(MISSING, Tone::Dim);
    };
    let tone = match format::times(speedup).as_str() {
        "1.00×" => Tone::Plain,
        _ if speedup > 1.0 => Tone::Good,
        _ => Tone::Bad,
    };
    Cell::new(format::times(speedup), tone)
}

fn accuracy(variant: &Variant) -> Cell {
    variant
        .accuracy
        .as_ref()
        .map_or(Cell::new(MISSING, Tone::Dim), |a| a.text().into())
}

fn change(variant: &Variant) -> Cell {
    match variant.accuracy_change_points {
        Some(points) if points <= -0.005 => Cell::new(format::signed(points), Tone::Bad),
        Some(points) if points >= 0.005 => Cell::new(format::signed(points), Tone::Good),
        Some(points) => format::signed(points).into(),
        None => Cell::new(MISSING, Tone::Dim),
    }
}

fn agreement(variant: &Variant) -> Cell {
    let share = variant.fidelity.as_ref().and_then(|f| f.agreement);
    share.map_or(Cell::new(MISSING, Tone::Dim), |share| {
        format::percent(share).into()
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use unicode_width::UnicodeWidthStr;

    use crate::evidence::{Evidence, Variant};
    use crate::table::Style;

    fn sample() -> Evidence {
        Evidence::from_json(include_str!("../examples/sample.json")).unwrap()
    }

    #[test]
    fn labelled_evidence_shows_accuracy_and_its_interval() {
        expect![[r#"
            fashion_dscnn  opset 18, 95.6 k parameters, 5.54 M MACs

            variant     file  ratio  params    MACs      peak    p50 ms    p95 ms  speed           accuracy %  change       nodes
                                                       memory  1 thread  1 thread             (95 % interval)  points  in integer
            ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
            fp32     382 KiB  1.00×  95.6 k  5.54 M   147 KiB     0.418     0.455  1.00×  91.15 (89.83–92.32)    0.00     0 of 18
            fp16     196 KiB  0.51×  95.6 k  5.54 M   147 KiB     0.426     0.464  0.98×  91.15 (89.83–92.32)    0.00     0 of 18
            int8     115 KiB  0.30×  95.6 k  5.54 M  36.8 KiB     0.159     0.173  2.63×  90.95 (89.61–92.13)   −0.20    17 of 18

            latency: wall clock of one run, 1 thread, 200 runs each, on Intel Xeon Platinum 8481C (AVX-512 VNNI)
            data: 2,000 samples with labels from fashion_test.npz
            target cortex-a76: 64-bit Arm core of current single-board computers.
            target cortex-a76: NEON with dot product (SDOT, UDOT), half-float arithmetic, no bfloat16.
            target cortex-a76: 512 KiB of L2 cache: the int8 weights fit, the fp32 weights do not.
            fp16: this processor has no half-precision arithmetic for these kernels: the weights are widened when the session is
                  prepared, so the file shrinks and the time does not
            fp16: the device computes half floats natively: expect up to twice the speed of fp32 there
            int8: Softmax stays in float: its output range is fixed and it takes 0.4 % of the time
            int8: SDOT runs 16 products an instruction: all 12 convolutions can use it
            warning: 2 of the 500 calibration samples are also in the test data
        "#]].assert_eq(&sample().to_table(&Style::default()));
    }

    #[test]
    fn evidence_without_labels_shows_agreement_and_sqnr() {
        let mut evidence = sample();
        evidence.data.labelled = false;
        for variant in &mut evidence.variants {
            variant.accuracy = None;
            variant.accuracy_change_points = None;
        }
        expect![[r#"
            variant     file  ratio  params    MACs      peak    p50 ms    p95 ms  speed   same answer  SQNR       nodes
                                                       memory  1 thread  1 thread         % of samples    dB  in integer
            ────────────────────────────────────────────────────────────────────────────────────────────────────────────
            fp32     382 KiB  1.00×  95.6 k  5.54 M   147 KiB     0.418     0.455  1.00×             –     –     0 of 18
            fp16     196 KiB  0.51×  95.6 k  5.54 M   147 KiB     0.426     0.464  0.98×        100.00  71.3     0 of 18
            int8     115 KiB  0.30×  95.6 k  5.54 M  36.8 KiB     0.159     0.173  2.63×         98.75  27.9    17 of 18
        "#]].assert_eq(&evidence.summary().to_text(&Style::default()));
    }

    #[test]
    fn columns_without_figures_are_left_out() {
        let variants = vec![Variant {
            name: "fp32".into(),
            ratio: 1.0,
            ..Variant::default()
        }];
        let evidence = Evidence {
            variants,
            ..Evidence::default()
        };
        expect![[r#"
            variant  file  ratio  params  MACs       nodes
                                                in integer
            ──────────────────────────────────────────────
            fp32      0 B  1.00×       0     0      0 of 0
        "#]]
        .assert_eq(&evidence.summary().to_text(&Style::default()));
    }

    #[test]
    fn lines_stay_within_the_width() {
        let mut evidence = sample();
        evidence.variants[2].name = "a very long name of a variant that somebody made up".into();
        for line in evidence.to_table(&Style::default()).lines() {
            assert!(line.width() <= 120, "{line}");
        }
    }

    #[test]
    fn the_sample_is_written_as_it_was_read() {
        assert_eq!(sample().to_json(), include_str!("../examples/sample.json"));
    }
}
