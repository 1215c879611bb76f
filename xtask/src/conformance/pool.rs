//! The cases, asked of worker processes.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;

use super::cases::Case;
use super::worker::{Answer, Job, Verdict};
use super::{Finding, WAYS};
use crate::workers::{self, Worker};

/// How much longer a case may take where another program runs the workers: it may emulate a CPU.
const PATIENCE: u32 = 20;

/// Runs every case every way, in as many processes as there are cores. `program` starts them
/// where it is not empty.
///
/// # Errors
/// When no process can be started.
pub fn run(root: &Path, cases: Vec<Case>, program: &[OsString]) -> Result<Vec<Finding>> {
    let findings = Mutex::new(Vec::with_capacity(cases.len()));
    let cases = cases.into_iter().enumerate();
    workers::each(workers::cores(), cases, &|worker, (at, case)| {
        let finding = ask((root, program), worker, case)?;
        if let Ok(mut all) = findings.lock() {
            all.push((at, finding));
        }
        Ok(())
    })?;
    let mut all = findings.into_inner().unwrap_or_default();
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, f)| f).collect())
}

fn ask(
    (root, program): (&Path, &[OsString]),
    worker: &mut Option<Worker>,
    case: Case,
) -> Result<Finding> {
    let patience = if program.is_empty() { 1 } else { PATIENCE };
    let mut finding = Finding {
        case,
        plain: false,
        verdicts: Vec::new(),
        exception: None,
    };
    for way in 0..WAYS.len() {
        let mut alive = match worker.take() {
            Some(worker) => worker,
            None => Worker::start(
                program,
                &[
                    "conformance".as_ref(),
                    "--worker".as_ref(),
                    "--cases".as_ref(),
                    root.as_os_str(),
                ],
            )?,
        };
        let job = serde_json::to_string(&Job {
            folder: finding.case.folder.into(),
            name: finding.case.name.clone(),
            way,
        })?;
        let limit = Duration::from_secs(finding.case.seconds) * patience;
        let answer = alive
            .ask(&job, limit)
            .and_then(|line| serde_json::from_str::<Answer>(&line).map_err(|e| e.to_string()));
        match answer {
            Ok(answer) => {
                finding.plain |= answer.plain;
                finding.verdicts.push(answer.verdict);
                *worker = Some(alive);
            }
            Err(why) => finding.verdicts.push(Verdict::Failed(why)),
        }
    }
    Ok(finding)
}
