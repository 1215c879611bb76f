//! Where long work keeps its state, so that it goes on after it was broken off.

use crate::Result;

/// A place for the bytes of one work. Libraries touch no files; they call this.
pub trait Store {
    /// The bytes that were kept last.
    fn load(&self) -> Option<Vec<u8>>;

    /// Keeps these bytes in place of all before.
    ///
    /// # Errors
    /// When they cannot be written.
    fn save(&self, bytes: &[u8]) -> Result<()>;

    /// Drops what was kept.
    fn forget(&self);
}

/// Keeps nothing.
pub struct NoStore;

impl Store for NoStore {
    fn load(&self) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn forget(&self) {}
}
