//! ONNX's tests of the operators that have an emitter, in generated C: on this machine under the sanitizers,
//! or on an emulated board.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use edgesmith_codegen::boards::{self, Board};
use edgesmith_codegen::emit::EMITTERS;
use edgesmith_codegen::program::{Data, Element, Program};
use edgesmith_codegen::{Firmware, Flavour, lower};
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::error::Kind;
use edgesmith_ir::types::Type;
use edgesmith_ir::{DType, Error, Item, Model, Node, NodeId, Tensor, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};

use super::cases::{self, Case, DataSet};
use super::{compare, fetch};
use crate::workers::{caught, keep_panics};

mod batch;
mod int8;
mod sample;
mod table;

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

/// Where and how cases run.
struct Way {
    board: &'static str,
    int8: bool,
}

/// The ways of the page.
static WAYS: &[Way] = &[
    Way {
        board: "host",
        int8: false,
    },
    Way {
        board: "host",
        int8: true,
    },
    Way {
        board: "cortex-m4",
        int8: true,
    },
    Way {
        board: "cortex-m55",
        int8: true,
    },
    Way {
        board: "rv32",
        int8: true,
    },
];

impl Way {
    fn name(&self) -> String {
        let sanitized = if self.board == "host" {
            ", sanitizers"
        } else {
            ""
        };
        format!(
            "{} on {}{sanitized}",
            if self.int8 { "INT8" } else { "as given" },
            self.board
        )
    }
}

/// What is asked for.
pub struct Asked<'a> {
    /// The folder of the cases.
    pub folder: Option<&'a Path>,
    /// Only cases with this in their names.
    pub filter: Option<&'a str>,
    /// Where they run.
    pub board: &'a str,
    /// The program that quantises, where they run in INT8.
    pub quantizer: Option<&'a Path>,
    /// Every way runs, and the page is written.
    pub write: bool,
}

/// Runs every case of a node on the board and prints the table.
///
/// # Errors
/// When a case fails, or a tool is missing.
pub fn run(asked: &Asked) -> Result<()> {
    let folder = match asked.folder {
        Some(folder) => folder.to_owned(),
        None => fetch::cases()?,
    };
    let mut cases = cases::all(&folder)?;
    cases.retain(|c| c.folder == "node" || c.folder == "simple" || c.folder.starts_with("pytorch"));
    if let Some(part) = asked.filter {
        cases.retain(|c| format!("{}/{}", c.folder, c.name).contains(part));
    }
    keep_panics();
    let mut failed = 0;
    let mut all = Vec::new();
    if asked.write {
        let quantizer = asked
            .quantizer
            .context("--int8 names the program that quantises")?;
        for way in WAYS {
            let findings = on(&cases, way.board, way.int8.then_some(quantizer))?;
            println!("{}: {:?}", way.name(), table::counts(&findings));
            all.push((way.name(), findings));
        }
        let path = crate::tidy::root().join("docs/reference/conformance-c.md");
        std::fs::write(path, table::page(&all))?;
    } else {
        let findings = on(&cases, asked.board, asked.quantizer)?;
        println!("{}", table::text(&findings, asked.board));
        all.push((String::new(), findings));
    }
    for (_, findings) in &all {
        failed += table::counts(findings)[2];
    }
    ensure!(failed == 0, "{failed} cases fail");
    Ok(())
}

/// What became of each case, by name.
fn on(cases: &[Case], board: &str, quantizer: Option<&Path>) -> Result<Vec<Finding>> {
    let board = boards::find(board).with_context(|| format!("there is no board {board}"))?;
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
    Ok(findings)
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
    case: &Case,
    prefix: &str,
    flavour: Flavour,
    quantizer: Option<&Path>,
) -> Result<Option<Made>, (Vec<String>, Verdict)> {
    let failed = |ops: &[String], e: anyhow::Error| (ops.to_vec(), verdict_of(&e));
    let Some((model, ops, set)) = read(case).map_err(|e| failed(&[], e))? else {
        return Ok(None);
    };
    let name = format!("{}/{}", case.folder, case.name);
    if let Some(quantizer) = quantizer {
        let made = int8::prepare(&model, &set, quantizer, prefix, flavour);
        let made = made.or_else(|e| match sample::first(&model, &ops, &set) {
            Ok(Some(cut)) => {
                int8::prepare(&without_lengths(&model), &cut, quantizer, prefix, flavour)
            }
            _ => Err(e),
        });
        let made = made.map_err(|e| failed(&ops, e))?;
        return Ok(made.map(|made| Made { name, ops, ..made }));
    }
    let made = in_floats(case, &model, &ops, set, prefix, flavour);
    let made = made.map_err(|e| failed(&ops, e))?;
    Ok(Some(Made { name, ops, ..made }))
}

/// The model of a case, its operators and its data; `None` where one has no emitter.
fn read(case: &Case) -> Result<Option<(Model, Vec<String>, DataSet)>> {
    let model = edgesmith_formats::read(&case.model)?;
    let nodes = || model.graph.nodes().map(|(_, n)| n);
    let listed = |n: &Node| {
        EMITTERS
            .iter()
            .any(|e| n.op == e.op && n.domain == e.domain)
    };
    if nodes().next().is_none() || !nodes().all(listed) {
        return Ok(None);
    }
    let mut ops: Vec<String> = nodes().map(|n| n.op.clone()).collect();
    ops.sort();
    ops.dedup();
    let set = case.data(&model)?.swap_remove(0);
    Ok(Some((model, ops, set)))
}

/// A case as it is given, as C. Weights and parameters are inputs of these cases; code needs them as
/// constants.
fn in_floats(
    case: &Case,
    model: &Model,
    ops: &[String],
    mut set: DataSet,
    prefix: &str,
    flavour: Flavour,
) -> Result<Made> {
    let tried = lowered(model, &set, false).or_else(|_| lowered(model, &set, true));
    let (program, inputs) = match tried {
        Ok(done) => done,
        // Means that norms give besides are left out, and samples behind the first.
        Err(e) => {
            let alone = lowered(&first_output(model), &set, true);
            let mut one = || {
                let cut = sample::first(model, ops, &set)?.context("it has no samples")?;
                let model = without_lengths(model);
                let done = lowered(&model, &cut, true)
                    .or_else(|_| lowered(&first_output(&model), &cut, true));
                set = cut;
                done
            };
            alone.or_else(|_| one()).map_err(|_| e)?
        }
    };
    let given = inputs.iter().enumerate();
    let inputs: Vec<Data> = given
        .map(|(i, t)| program.input(i, t))
        .collect::<Result<_, _>>()?;
    let rust = program.run(&inputs)?;
    Ok(Made {
        name: String::new(),
        near: Near::Tolerance(case.tolerance()),
        ops: Vec::new(),
        firmware: Firmware::new(program, prefix, flavour, &case.name)?,
        inputs,
        rust,
        expected: set.outputs,
    })
}

/// What an error says of a case.
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

/// The model without the lengths of what it computes, which were those of all samples.
fn without_lengths(model: &Model) -> Model {
    let mut model = model.clone();
    let values: Vec<ValueId> = model.graph.values().map(|(v, _)| v).collect();
    for v in values {
        if model.graph.value(v).constant.is_none() && !model.graph.is_input(v) {
            model.graph.value_mut(v).ty = None;
        }
    }
    model
}

/// The model with its first output alone.
fn first_output(model: &Model) -> Model {
    let mut model = model.clone();
    model.graph.outputs.truncate(1);
    let others: Vec<(NodeId, usize)> = {
        let after = |(id, n): (NodeId, &Node)| (1..n.outputs().len()).map(move |i| (id, i));
        model.graph.nodes().flat_map(after).collect()
    };
    for (id, i) in others {
        let v = model.graph.node(id).output(i);
        if v.is_some_and(|v| model.graph.value(v).consumers().is_empty()) {
            model.graph.set_output(id, i, None);
        }
    }
    model
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
