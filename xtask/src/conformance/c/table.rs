//! What was found of generated C, as text and as a page of the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use edgesmith_codegen::emit::EMITTERS;

use super::{Finding, Verdict};

/// Cases that passed, were refused, and failed.
pub type Counts = [usize; 3];

fn place(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Passed => 0,
        Verdict::Refused(_) => 1,
        Verdict::Failed(_) => 2,
    }
}

/// Of all cases.
pub fn counts(findings: &[Finding]) -> Counts {
    let mut all = [0; 3];
    for finding in findings {
        all[place(&finding.verdict)] += 1;
    }
    all
}

fn by_op(findings: &[Finding]) -> BTreeMap<&str, Counts> {
    let mut by_op = BTreeMap::<&str, Counts>::new();
    for finding in findings {
        for op in &finding.ops {
            by_op.entry(op).or_default()[place(&finding.verdict)] += 1;
        }
    }
    by_op
}

/// Operators with an emitter of which no case passed.
fn untried(runs: &[&[Finding]]) -> Vec<&'static str> {
    let all = runs.iter().copied().flatten();
    let passed = all.filter(|f| f.verdict == Verdict::Passed);
    let tried: BTreeSet<&str> = passed
        .flat_map(|f| f.ops.iter().map(String::as_str))
        .collect();
    let names = EMITTERS.iter().map(|e| e.op);
    names.filter(|op| !tried.contains(op)).collect()
}

/// Counts by operator, then what did not pass.
pub fn text(findings: &[Finding], board: &str) -> String {
    let mut text = format!(
        "{board:<24} {:>7} {:>8} {:>7}\n",
        "passed", "refused", "failed"
    );
    let mut row = |name: &str, [passed, refused, failed]: Counts| {
        let _ = writeln!(text, "{name:<24} {passed:>7} {refused:>8} {failed:>7}");
    };
    for (op, counts) in by_op(findings) {
        row(op, counts);
    }
    row("all", counts(findings));
    let untried = untried(&[findings]);
    if !untried.is_empty() {
        let _ = writeln!(text, "no case passed of {}", untried.join(", "));
    }
    for finding in findings {
        let (word, why) = match &finding.verdict {
            Verdict::Passed => continue,
            Verdict::Refused(why) => ("refused", why),
            Verdict::Failed(why) => ("FAILED", why),
        };
        let _ = writeln!(text, "{word:<8} {}  {why}", finding.name);
    }
    text
}

/// The page of the reference, with a column for each way.
pub fn page(ways: &[(String, Vec<Finding>)]) -> String {
    let mut page = String::from(
        "# Conformance of generated C\n\nONNX's backend tests whose operators all have an emitter, as C, run by \
         `cargo xtask conformance --c --int8\nPROGRAM --write`, which writes this page. *As given* they are \
         compared with ONNX's outputs and tolerances. In\n*INT8* each case is quantised by its own data (by \
         `edgesmith quantize` where it has weights, else by pairs of\nQuantizeLinear and DequantizeLinear \
         around it); bits have to be those of Rust, and within a step of the\nreference provider on the same \
         file. Inputs that code wants as constants are made constants. On the host the\ncode runs under the \
         sanitizers of addresses and undefined behaviour, everywhere without a warning of the\ncompiler. A cell \
         has the cases that passed, then those refused before any code was made, then failures.\n\n| operator |",
    );
    for (name, _) in ways {
        let _ = write!(page, " {name} |");
    }
    let _ = write!(page, "\n|---|{}\n", "---|".repeat(ways.len()));
    let tables: Vec<_> = ways.iter().map(|(_, f)| by_op(f)).collect();
    let ops: BTreeSet<&str> = tables.iter().flat_map(|t| t.keys().copied()).collect();
    let cell = |counts: Counts| match counts {
        [passed, refused, 0] => format!(" {passed}, {refused} refused |"),
        [passed, refused, failed] => format!(" {passed}, {refused} refused, **{failed} failed** |"),
    };
    for op in ops {
        let _ = write!(page, "| {op} |");
        for table in &tables {
            page += &table.get(op).map_or_else(|| "  |".into(), |&c| cell(c));
        }
        page.push('\n');
    }
    page += "| all |";
    for (_, findings) in ways {
        page += &cell(counts(findings));
    }
    let runs: Vec<&[Finding]> = ways.iter().map(|(_, f)| &f[..]).collect();
    let untried = untried(&runs);
    if !untried.is_empty() {
        let _ = write!(page, "\n\nNo case passed of {}.", untried.join(", "));
    }
    page += "\n\n## Why cases are refused\n\n| reason | cases |\n|---|--:|\n";
    let mut reasons = BTreeMap::<&str, BTreeSet<&str>>::new();
    for finding in runs.iter().copied().flatten() {
        if let Verdict::Refused(why) = &finding.verdict {
            reasons.entry(why).or_default().insert(&finding.name);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(why, cases)| (std::cmp::Reverse(cases.len()), *why));
    for (why, cases) in reasons {
        let _ = writeln!(page, "| {} | {} |", why.replace('|', "\\|"), cases.len());
    }
    page
}
