//! ONNX's tests of the operators that have an emitter, in generated C: on this machine under the sanitizers,
//! or on an emulated board.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use edgesmith_codegen::boards::{self, Board};
use edgesmith_codegen::emit::EMITTERS;
use edgesmith_codegen::program::{Data, Element, Program};
use edgesmith_codegen::{Firmware, Flavour, lower};
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::error::Kind;
use edgesmith_ir::types::Type;
use edgesmith_ir::{DType, Error, Item, Model, Tensor};
use edgesmith_passes::{Level, RunOptions, optimize};

use super::cases::{self, Case, DataSet};
use super::{compare, fetch};
use crate::workers::{caught, keep_panics};

mod batch;
mod int8;

/// Cases that are compiled together.
const TOGETHER: usize = 32;

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Every output is right.
    Passed,
    /// An output is wrong, the code does not compile, or it is not sound.
    Failed(String),
    /// This program says that it makes no code for it.
    Refused(String),
}

/// How near outputs have to be.
#[derive(Clone, Copy)]
enum Near {
    /// As ONNX's runner wants them.
    Tolerance(cases::Tolerance),
    /// A step of the integers at most, where the reference rounds in floats.
    Step,
}

/// A case of which code was made.
struct Made {
    name: String,
    near: Near,
    /// The operators of the model.
    ops: Vec<String>,
    firmware: Firmware,
    /// What goes in.
    inputs: Vec<Data>,
    /// What the program gives in Rust.
    rust: Vec<Data>,
    /// What ONNX expects.
    expected: Vec<Item>,
}

struct Finding {
    name: String,
    ops: Vec<String>,
    verdict: Verdict,
}

/// Runs every case of a node on the board and prints the table.
///
/// # Errors
/// When a case fails that is not listed, or a tool is missing.
pub fn run(
    folder: Option<&Path>,
    filter: Option<&str>,
    board: &str,
    quantizer: Option<&Path>,
) -> Result<()> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => fetch::cases()?,
    };
    let board = boards::find(board).with_context(|| format!("there is no board {board}"))?;
    let mut cases = cases::all(&folder)?;
    cases.retain(|c| c.folder == "node" || c.folder == "simple" || c.folder.starts_with("pytorch"));
    if let Some(part) = filter {
        cases.retain(|c| format!("{}/{}", c.folder, c.name).contains(part));
    }
    keep_panics();
    let mut findings = Vec::new();
    let mut made = Vec::new();
    for case in cases {
        let name = format!("{}/{}", case.folder, case.name);
        let prefix = format!("c{}", made.len());
        match caught(|| prepare(case, &prefix, flavour(board), quantizer)) {
            Ok(Ok(Some(one))) => made.push(one),
            Ok(Ok(None)) => {}
            Ok(Err((ops, verdict))) => findings.push(Finding { name, ops, verdict }),
            Err(panic) => findings.push(Finding {
                name,
                ops: Vec::new(),
                verdict: Verdict::Failed(panic),
            }),
        }
    }
    let mut batches: Vec<&[Made]> = made.chunks(TOGETHER).collect();
    while let Some(part) = batches.pop() {
        match batch::run(part, board) {
            Ok(outputs) => {
                for (one, outputs) in part.iter().zip(outputs) {
                    findings.push(judged(one, &outputs));
                }
            }
            // The one that is at fault is found by halves.
            Err(_) if part.len() > 1 => {
                let (a, b) = part.split_at(part.len() / 2);
                batches.extend([a, b]);
            }
            Err(e) => findings.push(finding(&part[0], Verdict::Failed(format!("{e:#}")))),
        }
    }
    findings.sort_by(|a, b| a.name.cmp(&b.name));
    println!("{}", table(&findings, board));
    let failed = findings
        .iter()
        .filter(|f| matches!(f.verdict, Verdict::Failed(_)))
        .count();
    ensure!(failed == 0, "{failed} cases fail");
    Ok(())
}

fn flavour(board: &Board) -> Flavour {
    board.flavours.last().copied().unwrap_or(Flavour::C)
}

fn finding(one: &Made, verdict: Verdict) -> Finding {
    Finding {
        name: one.name.clone(),
        ops: one.ops.clone(),
        verdict,
    }
}

/// A case as C; `None` where an operator of it has no emitter.
fn prepare(
    case: Case,
    prefix: &str,
    flavour: Flavour,
    quantizer: Option<&Path>,
) -> Result<Option<Made>, (Vec<String>, Verdict)> {
    let failed = |ops: &[String], e: anyhow::Error| (ops.to_vec(), verdict_of(&e));
    let read = || -> Result<(Model, Vec<String>, DataSet)> {
        let model = edgesmith_formats::read(&case.model)?;
        let nodes = model
            .graph
            .nodes()
            .map(|(_, n)| (n.op.clone(), n.domain.clone()));
        let listed = |(op, domain): &(String, String)| {
            EMITTERS.iter().any(|e| e.op == op && e.domain == domain)
        };
        let (known, unknown): (Vec<_>, Vec<_>) = nodes.partition(listed);
        if !unknown.is_empty() || known.is_empty() {
            return Ok((
                model,
                Vec::new(),
                DataSet {
                    inputs: Vec::new(),
                    outputs: Vec::new(),
                },
            ));
        }
        let mut sets = case.data(&model)?;
        let mut ops: Vec<String> = known.into_iter().map(|k| k.0).collect();
        ops.sort();
        ops.dedup();
        Ok((model, ops, sets.swap_remove(0)))
    };
    let (model, ops, set) = read().map_err(|e| failed(&[], e))?;
    if ops.is_empty() {
        return Ok(None);
    }
    let name = format!("{}/{}", case.folder, case.name);
    if let Some(quantizer) = quantizer {
        let made = int8::prepare(&model, &set, quantizer, prefix, flavour);
        let made = made.map_err(|e| failed(&ops, e))?;
        return Ok(made.map(|made| Made { name, ops, ..made }));
    }
    let (program, inputs) = match lowered(&model, &set, false) {
        Ok(done) => done,
        // Weights and parameters are inputs of these cases; code needs them as constants.
        Err(_) => lowered(&model, &set, true).map_err(|e| failed(&ops, e))?,
    };
    let rest = || -> Result<(Firmware, Vec<Data>, Vec<Data>)> {
        let given = inputs.iter().enumerate();
        let inputs: Vec<Data> = given
            .map(|(i, t)| program.input(i, t))
            .collect::<Result<_, _>>()?;
        let rust = program.run(&inputs)?;
        Ok((
            Firmware::new(program, prefix, flavour, &case.name)?,
            inputs,
            rust,
        ))
    };
    let (firmware, inputs, rust) = rest().map_err(|e| failed(&ops, e))?;
    Ok(Some(Made {
        name,
        near: Near::Tolerance(case.tolerance()),
        ops,
        firmware,
        inputs,
        rust,
        expected: set.outputs,
    }))
}

fn verdict_of(error: &anyhow::Error) -> Verdict {
    let text = error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    match error.downcast_ref::<Error>().map(|e| e.kind) {
        Some(Kind::Unsupported) => Verdict::Refused(text),
        _ => Verdict::Failed(text),
    }
}

/// The program of a model and what goes into it: all inputs, or the first alone where the others `are`
/// constants.
fn lowered(model: &Model, set: &DataSet, are: bool) -> Result<(Program, Vec<Tensor>)> {
    let (mut model, inputs) = bound(model, set, are)?;
    let program = lowered_whole(&mut model)?;
    ensure!(program.inputs.len() == inputs.len(), "inputs are lost");
    Ok((program, inputs))
}

/// The program of a model whose inputs have their lengths.
fn lowered_whole(model: &mut Model) -> Result<Program> {
    for (v, ty) in lengths::workable_inputs(model, &[])? {
        model.graph.value_mut(v).ty = Some(ty);
    }
    optimize(model, Level::Basic, &RunOptions::default())?;
    Ok(lower(model)?)
}

/// A model with the lengths of its data, and the tensors of its inputs; of the first alone where the others
/// `are` constants.
fn bound(model: &Model, set: &DataSet, are: bool) -> Result<(Model, Vec<Tensor>)> {
    let mut model = model.clone();
    let free = cases::inputs(&model);
    let mut inputs = Vec::new();
    for (i, (&v, item)) in free.iter().zip(&set.inputs).enumerate() {
        let Item::Tensor(t) = item else {
            return Err(Error::unsupported(format!("{item} is no tensor")).into());
        };
        model.graph.value_mut(v).ty = Some(Type::from(t.ty()));
        match are && i > 0 {
            true => {
                model.graph.inputs.retain(|&other| other != v);
                model.graph.value_mut(v).constant = Some(t.clone());
            }
            false => inputs.push(t.clone()),
        }
    }
    Ok((model, inputs))
}

/// Compares what a board gave with what ONNX expects, and with what Rust gives.
fn judged(one: &Made, bytes: &[Vec<u8>]) -> Finding {
    let program = &one.firmware.program;
    let judge = || -> Result<Option<String>> {
        let floats = program.buffers.iter().any(|b| b.element == Element::F32);
        for (i, (bytes, expected)) in bytes.iter().zip(&one.expected).enumerate() {
            let data = program.output_of_bytes(i, bytes)?;
            if !floats && data != one.rust[i] {
                return Ok(Some(format!("output {i} is not that of Rust")));
            }
            let Item::Tensor(expected) = expected else {
                continue;
            };
            let found = program.output(i, &data, expected.dtype())?;
            let grid = program.buffers[program.outputs[i].buffer].grid;
            let near = match (one.near, expected.dtype()) {
                (Near::Tolerance(near), _) => near,
                (Near::Step, DType::F32) => cases::Tolerance {
                    relative: 1e-3,
                    absolute: grid.map_or(1e-4, |g| 1.01 * f64::from(g.scale)),
                },
                (Near::Step, _) => cases::Tolerance {
                    relative: 0.0,
                    absolute: 1.0,
                },
            };
            let what = compare::difference(&found.into(), &expected.clone().into(), near)?;
            if let Some(what) = what {
                return Ok(Some(format!("output {i}: {what}")));
            }
        }
        Ok(None)
    };
    let verdict = match judge() {
        Ok(None) => Verdict::Passed,
        Ok(Some(what)) => Verdict::Failed(what),
        Err(e) => Verdict::Failed(e.to_string()),
    };
    finding(one, verdict)
}

/// Counts by operator, then what did not pass.
fn table(findings: &[Finding], board: &Board) -> String {
    let mut by_op = BTreeMap::<&str, [usize; 3]>::new();
    let mut all = [0; 3];
    for finding in findings {
        let at = match finding.verdict {
            Verdict::Passed => 0,
            Verdict::Refused(_) => 1,
            Verdict::Failed(_) => 2,
        };
        all[at] += 1;
        for op in &finding.ops {
            by_op.entry(op).or_default()[at] += 1;
        }
    }
    let mut text = format!(
        "{:<24} {:>7} {:>8} {:>7}\n",
        board.name, "passed", "refused", "failed"
    );
    for (op, [passed, refused, failed]) in &by_op {
        let _ = writeln!(text, "{op:<24} {passed:>7} {refused:>8} {failed:>7}");
    }
    let without = EMITTERS
        .iter()
        .filter(|e| by_op.get(e.op).is_none_or(|c| c[0] == 0));
    let without: Vec<&str> = without.map(|e| e.op).collect();
    let _ = writeln!(
        text,
        "{:<24} {:>7} {:>8} {:>7}",
        "all", all[0], all[1], all[2]
    );
    if !without.is_empty() {
        let _ = writeln!(text, "no case ran of {}", without.join(", "));
    }
    for finding in findings {
        match &finding.verdict {
            Verdict::Passed => {}
            Verdict::Refused(why) => {
                let _ = writeln!(text, "refused  {}  {why}", finding.name);
            }
            Verdict::Failed(why) => {
                let _ = writeln!(text, "FAILED   {}  {why}", finding.name);
            }
        }
    }
    text
}
