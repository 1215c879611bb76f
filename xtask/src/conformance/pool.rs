//! The worker processes, from the side that asks.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cases::Case;
use super::worker::{Answer, Job, Verdict};
use super::{Finding, WAYS};

/// Runs every case every way, in as many processes as there are cores.
///
/// # Errors
/// When no process can be started.
pub fn run(root: &Path, cases: Vec<Case>) -> Result<Vec<Finding>> {
    let count = cases.len();
    let queue = Mutex::new(cases.into_iter().enumerate());
    let findings = Mutex::new(Vec::with_capacity(count));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut worker = None;
            loop {
                let next = queue.lock().ok().and_then(|mut q| q.next());
                let Some((at, case)) = next else {
                    return Ok(());
                };
                let finding = ask(root, &mut worker, case)?;
                if let Ok(mut all) = findings.lock() {
                    all.push((at, finding));
                }
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })?;
    let mut all = findings.into_inner().unwrap_or_default();
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, f)| f).collect())
}

fn ask(root: &Path, worker: &mut Option<Worker>, case: Case) -> Result<Finding> {
    let mut finding = Finding {
        case,
        plain: false,
        verdicts: Vec::new(),
        exception: None,
    };
    for way in 0..WAYS.len() {
        let mut alive = match worker.take() {
            Some(worker) => worker,
            None => Worker::start(root)?,
        };
        let job = Job {
            folder: finding.case.folder.into(),
            name: finding.case.name.clone(),
            way,
        };
        let limit = Duration::from_secs(finding.case.seconds);
        match alive.ask(&job, limit) {
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

struct Worker {
    process: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    fn start(root: &Path) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["conformance", "--worker", "--cases"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("no worker can be started")?;
        let questions = process.stdin.take().context("its input is a pipe")?;
        let output = process.stdout.take().context("its output is a pipe")?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            process,
            questions,
            answers,
        })
    }

    /// The answer, or why there is none; the worker is of no more use then.
    fn ask(&mut self, job: &Job, limit: Duration) -> Result<Answer, String> {
        use std::sync::mpsc::RecvTimeoutError as E;
        let mut line = serde_json::to_string(job).map_err(|e| e.to_string())?;
        line.push('\n');
        let sent = self.questions.write_all(line.as_bytes());
        sent.map_err(|e| format!("the worker does not listen: {e}"))?;
        match self.answers.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).map_err(|e| e.to_string()),
            Err(E::Timeout) => Err(format!("it took more than {} s", limit.as_secs())),
            Err(E::Disconnected) => {
                let status = self
                    .process
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                Err(format!("the process ended: {status}"))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
