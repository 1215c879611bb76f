//! Other programs: started, waited for with a limit, and ended when the work is cancelled.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgesmith_ir::{Error, Progress, Result};

/// A folder of files that are wanted only for a while; it goes when this does.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder among the temporary files of the system.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgesmith-boards-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|e| refused(&e, &path))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An error of the system, at a file.
pub fn refused(error: &io::Error, path: &Path) -> Error {
    Error::io(error.to_string()).at(path.display().to_string())
}

/// How a program ended and what it said.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Both of its outputs.
    pub said: String,
}

/// A process that is ended with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` in `folder`, where its output is kept as `NAME.log`.
///
/// # Errors
/// When it cannot be started, takes longer than `limit`, or the work is cancelled; it is ended then.
pub fn run(
    command: &mut Command,
    folder: &Path,
    name: &str,
    limit: Duration,
    progress: &dyn Progress,
) -> Result<Ended> {
    let path = folder.join(format!("{name}.log"));
    let log = File::create(&path).map_err(|e| refused(&e, &path))?;
    let also = log.try_clone().map_err(|e| refused(&e, &path))?;
    let program = PathBuf::from(command.get_program());
    command.current_dir(folder);
    command.stdin(Stdio::null()).stdout(log).stderr(also);
    let child = command.spawn().map_err(|e| refused(&e, &program))?;
    let mut child = Owned(child);
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(|e| refused(&e, &program))? {
            break status;
        }
        progress.check()?;
        if start.elapsed() > limit {
            return Err(
                Error::io(format!("it took more than {} s", limit.as_secs()))
                    .at(program.display().to_string()),
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let said = fs::read(&path).map_err(|e| refused(&e, &path))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(Ended { status, said })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use edgesmith_ir::progress::NoProgress;

    #[test]
    fn a_program_that_hangs_is_ended_and_one_that_speaks_is_heard() {
        let folder = Folder::new().unwrap();
        let mut sleeper = Command::new("sleep");
        let limit = Duration::from_millis(50);
        let result = run(
            sleeper.arg("600"),
            folder.path(),
            "sleep",
            limit,
            &NoProgress,
        );
        let said = result.err().unwrap().to_string();
        assert!(said.contains("it took more than"), "{said}");
        let mut speaker = Command::new("echo");
        let limit = Duration::from_secs(60);
        let ended = run(
            speaker.arg("yes"),
            folder.path(),
            "echo",
            limit,
            &NoProgress,
        )
        .unwrap();
        assert!(ended.status.success() && ended.said == "yes\n");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn cancelled_work_ends_the_program() {
        struct Cancelled;
        impl Progress for Cancelled {
            fn start(&self, _: &str, _: u64) {}
            fn advance(&self, _: u64) {}
            fn finish(&self) {}
            fn cancelled(&self) -> bool {
                true
            }
        }
        let folder = Folder::new().unwrap();
        let mut sleeper = Command::new("sleep");
        let limit = Duration::from_secs(600);
        let result = run(
            sleeper.arg("600"),
            folder.path(),
            "sleep",
            limit,
            &Cancelled,
        );
        assert_eq!(result.err().unwrap().to_string(), "cancelled");
    }
}
