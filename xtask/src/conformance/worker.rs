//! The process that runs cases: a case that aborts it or hangs takes nothing else with it.

use std::path::Path;

use anyhow::{Context, Result};
use edgesmith_ir::error::Kind;
use edgesmith_ir::verify::verify;
use edgesmith_ir::{DType, Error, Item, Model, Type, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};
use serde::{Deserialize, Serialize};

use super::cases::{self, Case};
use super::{WAYS, Way, compare};
use crate::workers::{self, caught};

/// What a worker is asked: a case, one way to run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The folder's name.
    pub folder: String,
    /// The case's name.
    pub name: String,
    /// The place in [`WAYS`].
    pub way: usize,
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// What became of the case.
    pub verdict: Verdict,
    /// Numbers and booleans only, in types that every CPU has.
    pub plain: bool,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Every output is right.
    Passed,
    /// An output is wrong, or an error that is none of the next.
    Failed(String),
    /// This program says that it does not do it.
    Unsupported(String),
}

/// Answers the jobs on standard input, one a line, until there are no more.
///
/// # Errors
/// When the other side is gone.
pub fn serve(root: &Path) -> Result<()> {
    workers::serve(&|line| {
        Ok(serde_json::to_string(&answer(
            root,
            &serde_json::from_str(line)?,
        )?)?)
    })
}

fn answer(root: &Path, job: &Job) -> Result<Answer> {
    let folder = cases::FOLDERS.iter().find(|f| f.name == job.folder);
    let folder = folder.context("the folder is known")?;
    let case = cases::case(root, folder, job.name.clone())?;
    let way = WAYS.get(job.way).context("the way is known")?;
    let mut plain = false;
    let verdict = caught(|| attempt(&case, way, &mut plain)).unwrap_or_else(Verdict::Failed);
    Ok(Answer { verdict, plain })
}

fn attempt(case: &Case, way: &Way, plain: &mut bool) -> Verdict {
    match judge(case, way, plain) {
        Ok(None) => Verdict::Passed,
        Ok(Some(difference)) => Verdict::Failed(difference),
        Err(e) => match e.downcast_ref::<Error>() {
            Some(e) if e.kind == Kind::Unsupported => Verdict::Unsupported(one_line(e)),
            Some(e) => Verdict::Failed(one_line(e)),
            None => Verdict::Failed(e.to_string()),
        },
    }
}

fn one_line(error: &Error) -> String {
    let mut error = error.clone();
    error.hint = None;
    error.to_string().replace('\n', " ")
}

fn judge(case: &Case, way: &Way, plain: &mut bool) -> Result<Option<String>> {
    let mut model = edgesmith_formats::read(&case.model)?;
    *plain = is_plain(&model);
    verify(&model).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(one_line).collect();
        Error::invalid(lines.join("; "))
    })?;
    let names: Vec<String> = {
        let name = |v: &ValueId| model.graph.value(*v).name.clone();
        cases::inputs(&model).iter().map(name).collect()
    };
    let sets = case.data(&model)?;
    if way.level != Level::None {
        let options = RunOptions {
            verify: true,
            ..RunOptions::default()
        };
        optimize(&mut model, way.level, &options)?;
    }
    let options = Options {
        threads: 1,
        providers: vec![way.provider.into()],
        ..Options::default()
    };
    let mut session = Session::prepare(&model, &options)?;
    for set in sets {
        let inputs: Vec<(&str, Item)> = names.iter().map(String::as_str).zip(set.inputs).collect();
        let found = session.run_items(&inputs)?;
        if found.len() != set.outputs.len() {
            let (n, expected) = (found.len(), set.outputs.len());
            return Ok(Some(format!("{n} outputs, expected {expected}")));
        }
        for (i, (found, expected)) in found.iter().zip(&set.outputs).enumerate() {
            if let Some(text) = compare::difference(found, expected, case.tolerance())? {
                return Ok(Some(format!("output {i}: {text}")));
            }
        }
    }
    Ok(None)
}

/// True where all inputs and outputs are tensors of numbers that every CPU has, or of booleans.
fn is_plain(model: &Model) -> bool {
    let graph = &model.graph;
    graph.inputs.iter().chain(&graph.outputs).all(|&v| {
        let ty = graph.value(v).ty.as_ref().and_then(Type::tensor);
        ty.is_some_and(|t| {
            let d = t.dtype;
            let number = d.is_float() || d.is_integer() || matches!(d, DType::C64 | DType::C128);
            d == DType::Bool || number && d != DType::BF16 && !edgesmith_ir::packed::is_packed(d)
        })
    })
}
