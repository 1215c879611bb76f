//! Exit codes: 0 done, 1 the model or the data is at fault, 2 wrong use, 3 our bug.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edgesmith_ir::error::{Error, Kind};

use crate::ui;

/// Runs `work` and turns its result, or its panic, into an exit code and a message on stderr.
pub fn catch_bugs(work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        ui::complain(&format!("this is a bug in edgesmith: {info}"));
    }));
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report(&error),
        Err(_) => {
            ui::complain("please report it with the command and, if you may, the model");
            ExitCode::from(3)
        }
    }
}

/// Says that the system gave no memory for `bytes` bytes, and ends the program with 1: the model or the
/// data is too large. It asks for no memory itself.
pub extern "C" fn out_of_memory(bytes: usize) -> ! {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    thread_local! {
        static IS_HERE: Cell<bool> = const { Cell::new(false) };
    }
    if IS_HERE.replace(true) {
        std::process::abort();
    }
    // Of several threads the first has the word.
    while IS_SAID.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
    }
    let _ = writeln!(
        io::stderr().lock(),
        "error: out of memory: the system gave no {bytes} bytes more\n\
         hint: allow more memory, or use smaller batches; `quantize` of weights alone has --segment"
    );
    std::process::exit(1)
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && io.kind() == ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    ui::complain(&format!("{error:#}"));
    ExitCode::from(match error.downcast_ref::<Error>().map(|e| e.kind) {
        Some(Kind::Usage) => 2,
        Some(Kind::Internal) => 3,
        Some(Kind::Cancelled) => 130,
        Some(Kind::Invalid | Kind::Unsupported | Kind::Io) | None => 1,
    })
}
