//! What long work reports to, and how it learns that the user wants it to stop.

use crate::{Error, Result};

/// A listener of long work. Libraries never print; they call this.
pub trait Progress: Sync {
    /// A phase of `total` units begins; 0 when the number is unknown.
    fn start(&self, phase: &str, total: u64);
    /// `units` more are done.
    fn advance(&self, units: u64);
    /// The phase is over.
    fn finish(&self);
    /// True when the work should stop with [`Error::cancelled`].
    fn cancelled(&self) -> bool {
        false
    }
    /// `Err` when cancelled: for `?` inside loops.
    fn check(&self) -> Result<()> {
        if self.cancelled() {
            Err(Error::cancelled())
        } else {
            Ok(())
        }
    }
}

/// Reports to nobody.
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _phase: &str, _total: u64) {}
    fn advance(&self, _units: u64) {}
    fn finish(&self) {}
}
