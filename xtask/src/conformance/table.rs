//! What was found, as text, as JSON and as a page of the reference.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use super::cases::FOLDERS;
use super::worker::Verdict;
use super::{Finding, WAYS};

/// Counts of one folder and one way.
#[derive(Default, Clone, Copy)]
struct Counts {
    passed: usize,
    failed: usize,
    unsupported: usize,
}

/// A row of the table: its name and the cases in it.
fn rows(findings: &[Finding]) -> Vec<(&'static str, Vec<&Finding>)> {
    let of = |name| findings.iter().filter(move |f| f.case.folder == name);
    let mut rows: Vec<(&'static str, Vec<&Finding>)> = Vec::new();
    for folder in FOLDERS {
        rows.push((folder.name, of(folder.name).collect()));
        if folder.name == "node" {
            rows.push(("node, plain", of("node").filter(|f| f.plain).collect()));
        }
    }
    rows.retain(|(_, f)| !f.is_empty());
    rows
}

fn count(findings: &[&Finding], way: usize) -> Counts {
    let mut counts = Counts::default();
    for finding in findings {
        match &finding.verdicts[way] {
            Verdict::Passed => counts.passed += 1,
            Verdict::Failed(_) => counts.failed += 1,
            Verdict::Unsupported(_) => counts.unsupported += 1,
        }
    }
    counts
}

/// What went wrong, with the ways in which it did.
fn troubles(finding: &Finding) -> Vec<(&Verdict, String)> {
    let mut kinds: Vec<&Verdict> = finding.verdicts.iter().collect();
    kinds.sort();
    kinds.dedup();
    kinds.retain(|v| **v != Verdict::Passed);
    let told = |v| {
        let ways = WAYS.iter().zip(&finding.verdicts);
        let names: Vec<&str> = ways.filter(|(_, w)| *w == v).map(|(w, _)| w.name).collect();
        let all = names.len() == WAYS.len();
        (v, if all { "all".into() } else { names.join(", ") })
    };
    kinds.into_iter().map(told).collect()
}

/// The table, then every case that did not pass.
pub fn text(findings: &[Finding]) -> String {
    let mut text = format!("{:<20} {:<16} ", "cases", "");
    text.push_str("  total  passed  failed  unsupported\n");
    for (name, findings) in rows(findings) {
        for (w, way) in WAYS.iter().enumerate() {
            let c = count(&findings, w);
            let total = findings.len();
            let way = way.name;
            let _ = writeln!(
                text,
                "{name:<20} {way:<16} {total:>7} {:>7} {:>7} {:>12}",
                c.passed, c.failed, c.unsupported
            );
        }
    }
    for finding in findings {
        let name = format!("{}/{}", finding.case.folder, finding.case.name);
        if finding.passed() && finding.exception.is_some() {
            let _ = writeln!(text, "LISTED but passes  {name}");
        }
        for (verdict, ways) in troubles(finding) {
            let (word, why) = match verdict {
                Verdict::Passed => continue,
                Verdict::Failed(why) => ("failed", why),
                Verdict::Unsupported(why) => ("unsupported", why),
            };
            let mark = if finding.exception.is_some() {
                "listed "
            } else {
                ""
            };
            let _ = writeln!(text, "{mark}{word}  {name}  [{ways}]  {why}");
        }
    }
    text
}

/// Counts and every case, for programs.
///
/// # Errors
/// Never, but for broken invariants of the encoder.
pub fn json(findings: &[Finding]) -> Result<String> {
    let summary = rows(findings).into_iter().flat_map(|(name, findings)| {
        WAYS.iter().enumerate().map(move |(w, way)| {
            let c = count(&findings, w);
            json!({
                "cases": name, "provider": way.provider, "level": way.level.name(),
                "total": findings.len(), "passed": c.passed, "failed": c.failed,
                "unsupported": c.unsupported,
            })
        })
    });
    let case = |f: &Finding| {
        let verdicts = WAYS.iter().zip(&f.verdicts).map(|(way, v)| {
            let (verdict, why) = match v {
                Verdict::Passed => ("passed", None),
                Verdict::Failed(why) => ("failed", Some(why)),
                Verdict::Unsupported(why) => ("unsupported", Some(why)),
            };
            json!({
                "provider": way.provider, "level": way.level.name(), "verdict": verdict,
                "why": why,
            })
        });
        json!({
            "folder": f.case.folder, "name": f.case.name, "plain": f.plain,
            "exception": f.exception, "runs": verdicts.collect::<Vec<_>>(),
        })
    };
    Ok(serde_json::to_string_pretty(&json!({
        "summary": summary.collect::<Vec<_>>(),
        "cases": findings.iter().map(case).collect::<Vec<_>>(),
    }))?)
}

/// The page of the reference.
pub fn page(findings: &[Finding]) -> String {
    let mut page = String::from(
        "# Conformance\n\n\
         ONNX's own backend tests, from the last package that has them (`onnx` 1.22.0 on PyPI, \
         opset 27),\nrun by `cargo xtask conformance --write`, which writes this page. Types, \
         shapes and elements are\nchecked with ONNX's tolerances (relative 1e-3, absolute 1e-7, \
         unless a case says otherwise).\n\n\
         *reference* and *cpu* are providers (cpu leaves to the reference what it has no kernel \
         for); *none*\nand *full* are the lowest and the highest level of the optimiser. *Plain* \
         cases have only numbers of\nthe types that every CPU has, and booleans.\n\n\
         | cases | run by | total | passed | failed | not supported |\n|---|---|--:|--:|--:|--:|\n",
    );
    for (name, findings) in rows(findings) {
        for (w, way) in WAYS.iter().enumerate() {
            let c = count(&findings, w);
            let _ = writeln!(
                page,
                "| {name} | {} | {} | {} | {} | {} |",
                way.name,
                findings.len(),
                c.passed,
                c.failed,
                c.unsupported
            );
        }
    }
    page.push_str("\n## What does not pass\n\n");
    let mut listed = 0;
    for finding in findings.iter().filter(|f| !f.passed()) {
        let why = finding
            .exception
            .as_deref()
            .unwrap_or("not yet looked into");
        if listed == 0 {
            page.push_str("| case | why |\n|---|---|\n");
        }
        listed += 1;
        let (folder, name) = (finding.case.folder, &finding.case.name);
        let _ = writeln!(page, "| `{folder}/{name}` | {} |", why.replace('|', "\\|"));
    }
    if listed == 0 {
        page.push_str("Nothing.\n");
    }
    page
}
