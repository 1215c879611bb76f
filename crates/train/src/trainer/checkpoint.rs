//! The state of a run as bytes.

use edgesmith_ir::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Which one, from 0 on.
    pub epoch: usize,
    /// The mean loss of its steps.
    pub loss: f64,
    /// The mean of each term of the loss, without its weight.
    pub terms: Vec<f64>,
    /// The learning rate of its last step.
    pub rate: f64,
    /// How good the model is after it, where somebody judged.
    pub judged: Option<f64>,
    /// The loss on samples that nothing is learned from, where that judges.
    pub validation: Option<f64>,
}

impl Epoch {
    /// How good the model is after it, where anything tells: larger is better.
    pub fn worth(&self) -> Option<f64> {
        let worth = self.judged.or(self.validation.map(|loss| -loss))?;
        Some(if worth.is_nan() {
            f64::NEG_INFINITY
        } else {
            worth
        })
    }
}

/// Everything that the next step depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What tells runs apart: model, data, settings.
    pub key: String,
    /// Steps that are done.
    pub step: usize,
    /// The loss of each.
    pub losses: Vec<f32>,
    /// The sum of each term over the steps of an epoch that is not over.
    pub sums: Vec<f64>,
    /// Seconds of the run so far.
    pub seconds: f64,
    /// The epochs that are over.
    pub history: Vec<Epoch>,
    /// The best of them.
    pub best: Option<usize>,
    /// The run was stopped early.
    pub stopped: bool,
    /// Why, where its numbers were none any more.
    pub broken: Option<String>,
    /// Parameters, states of the optimizer, means, the best, in order.
    pub tensors: Vec<Vec<f32>>,
}

/// The first bytes of a checkpoint: a name, and the version of what follows.
const MAGIC: &[u8] = b"edgesmith training 3\n";

impl Checkpoint {
    /// The beginning of a run whose loss has so many terms.
    pub fn new(key: &str, terms: usize) -> Self {
        Self {
            key: key.into(),
            step: 0,
            losses: Vec::new(),
            sums: vec![0.0; terms],
            seconds: 0.0,
            history: Vec::new(),
            best: None,
            stopped: false,
            broken: None,
            tensors: Vec::new(),
        }
    }

    /// As bytes with a digest.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let body = postcard::to_stdvec(self)
            .map_err(|e| Error::internal(format!("the state cannot be written: {e}")))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(Sha256::digest(&body));
        bytes.extend(body);
        Ok(bytes)
    }

    /// What [`Checkpoint::to_bytes`] wrote; `None` for anything else, a file that was cut off too.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (digest, body) = rest.split_at_checked(Sha256::output_size())?;
        if Sha256::digest(body)[..] != *digest {
            return None;
        }
        postcard::from_bytes(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_changed_or_cut_are_not_taken() {
        let mut state = Checkpoint::new("k", 1);
        state.tensors = vec![vec![1.0, -2.0]];
        let bytes = state.to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes), Some(state));
        assert_eq!(Checkpoint::from_bytes(&bytes[..bytes.len() - 1]), None);
        let mut other = bytes;
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(Checkpoint::from_bytes(&other), None);
    }
}
