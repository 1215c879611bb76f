//! Refuses plans that take more memory or arithmetic than a run may.

use edgesmith_ir::{Error, Limits, Result};

use super::{Plan, Step, Work};

impl Plan {
    /// Checks the memory of all values that the plan lays out, and the arithmetic of its kernels.
    ///
    /// # Errors
    /// When a limit is passed; the error names the node with the largest part.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let place = |step: Option<&Step>| match step {
            Some(step) => format!("{} \"{}\"", step.row.op, step.row.name),
            None => "the inputs".to_owned(),
        };
        let (needed, limit) = (self.arena_bytes, limits.bytes);
        if needed as u64 > limit {
            let written = |s: &&Step| {
                let sizes = s.writes.iter().map(|&w| self.slots[w].len());
                sizes.max().unwrap_or(0)
            };
            return Err(Error::invalid(format!(
                "the values of a run need {needed} bytes, the limit is {limit}"
            ))
            .at(place(self.steps.iter().max_by_key(written)))
            .hint("shorter inputs need less; `Limits::bytes` allows more"));
        }
        let macs = self.macs();
        if macs > limits.work {
            let limit = limits.work;
            return Err(Error::invalid(format!(
                "a run needs {macs} multiply-accumulates, the limit is {limit}"
            ))
            .at(place(self.kernels().max_by_key(|s| s.row.macs)))
            .hint("shorter inputs need fewer; `Limits::work` allows more"));
        }
        Ok(())
    }

    /// True where nothing is left to be planned in the run.
    pub fn is_whole(&self) -> bool {
        !self.steps.iter().any(|s| matches!(s.work, Work::Rest(_)))
    }

    fn kernels(&self) -> impl Iterator<Item = &Step> {
        let of_kernel = |s: &&Step| matches!(s.work, Work::Kernel(_) | Work::Checked(_));
        self.steps.iter().filter(of_kernel)
    }

    /// Bytes that all steps write.
    pub fn written(&self) -> usize {
        let writes = self.steps.iter().flat_map(|s| &s.writes);
        writes.map(|&w| self.slots[w].len()).sum()
    }

    /// The multiply-accumulates of its kernels.
    pub fn macs(&self) -> u64 {
        let each = self.kernels().map(|s| s.row.macs);
        each.fold(0, u64::saturating_add)
    }
}
