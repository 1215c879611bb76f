//! Ctrl-C: the first asks the running work to stop and to keep its state, the second ends the program.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// The exit code of a program that a user breaks off.
const BROKEN_OFF: i32 = 130;

/// True where the next Ctrl-C ends the program: nobody listens, or it was pressed before.
static ENDS: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static LISTENS: AtomicBool = AtomicBool::new(false);

/// While it lives, Ctrl-C asks once before it ends the program.
pub struct Listening(());

impl Listening {
    /// Begins to listen. Where the system does not let us, Ctrl-C ends the program as ever.
    pub fn begin() -> Self {
        let ends = ENDS.get_or_init(|| {
            let ends = Arc::new(AtomicBool::new(true));
            // In this order: what the first press sets, the second finds.
            let first = flag::register_conditional_shutdown(SIGINT, BROKEN_OFF, Arc::clone(&ends));
            let _ = first.and_then(|_| flag::register(SIGINT, Arc::clone(&ends)));
            ends
        });
        ends.store(false, Ordering::Relaxed);
        LISTENS.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.store(false, Ordering::Relaxed);
        if let Some(ends) = ENDS.get() {
            ends.store(true, Ordering::Relaxed);
        }
    }
}

/// True where work should stop.
pub fn is_asked() -> bool {
    let is_pressed = || ENDS.get().is_some_and(|e| e.load(Ordering::Relaxed));
    LISTENS.load(Ordering::Relaxed) && is_pressed()
}
