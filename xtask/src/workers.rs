//! Processes that do dangerous work: one that is aborted or hangs takes nothing else with it.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

/// A process of this program that answers each line with a line.
pub struct Worker {
    process: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    /// Starts this program, or the one whose name and first words are `program`, with other
    /// words.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start<S: AsRef<OsStr>>(program: &[OsString], words: &[S]) -> Result<Self> {
        let mut command = match program {
            [] => Command::new(std::env::current_exe()?),
            [name, first @ ..] => {
                let mut command = Command::new(name);
                command.args(first);
                command
            }
        };
        let mut process = command
            .args(words)
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
    pub fn ask(&mut self, question: &str, limit: Duration) -> Result<String, String> {
        use std::sync::mpsc::RecvTimeoutError as E;
        let sent = self.questions.write_all(format!("{question}\n").as_bytes());
        sent.map_err(|e| format!("the worker does not listen: {e}"))?;
        match self.answers.recv_timeout(limit) {
            Ok(line) => Ok(line),
            Err(E::Timeout) => Err(format!("it took more than {} s", limit.as_secs())),
            Err(E::Disconnected) => {
                let status = self.process.wait();
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
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

/// Does `work` on every item in `jobs` threads, each with a worker to start and keep.
///
/// # Errors
/// The first error of `work`.
pub fn each<T: Send>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    work: &(dyn Fn(&mut Option<Worker>, T) -> Result<()> + Sync),
) -> Result<()> {
    let queue = Mutex::new(items);
    let thread = || -> Result<()> {
        let mut worker = None;
        loop {
            let next = queue.lock().ok().and_then(|mut q| q.next());
            let Some(item) = next else { return Ok(()) };
            work(&mut worker, item)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })
}

/// As many threads as there are cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

static PANIC: Mutex<String> = Mutex::new(String::new());

/// Answers the lines of standard input by `answer`, until there are no more. Panics are kept for
/// [`caught`].
///
/// # Errors
/// When the other side is gone or `answer` fails.
pub fn serve(answer: &dyn Fn(&str) -> Result<String>) -> Result<()> {
    keep_panics();
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        writeln!(out, "{}", answer(&line?)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Panics are said to [`caught`] alone.
pub fn keep_panics() {
    panic::set_hook(Box::new(|info| {
        if let Ok(mut said) = PANIC.lock() {
            *said = info.to_string().replace('\n', " ");
        }
    }));
}

/// What `work` gives, or what it said when it panicked.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        PANIC
            .lock()
            .map_or_else(|_| "a panic".into(), |said| said.clone())
    })
}
