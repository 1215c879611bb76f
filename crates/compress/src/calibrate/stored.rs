//! Statistics as bytes, whole or on the way: what keeps a second calibration from being run.

use edgesmith_ir::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::statistics::Statistics;

/// The first bytes, with the version of what follows.
const MAGIC: &[u8] = b"edgesmith statistics 3\n";

/// Statistics after some samples, to go on from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Checkpoint {
    /// Samples that are in the statistics.
    pub seen: usize,
    /// All samples are.
    pub whole: bool,
    /// What was seen; sums that wait for more rows are in it.
    pub statistics: Statistics,
}

/// The bytes of a [`Checkpoint`], with a digest before them.
///
/// # Errors
/// When they cannot be written.
pub fn checkpoint(seen: usize, whole: bool, statistics: &Statistics) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        seen: usize,
        whole: bool,
        statistics: &'a Statistics,
    }
    let all = Borrowed {
        seen,
        whole,
        statistics,
    };
    Ok(sealed(&written(&all)?))
}

/// Anything as bytes.
///
/// # Errors
/// When it cannot be written.
pub fn written(what: &impl Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(what)
        .map_err(|e| Error::internal(format!("statistics cannot be written: {e}")))
}

/// `body` with the version of its form and a digest before it.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + Sha256::output_size() + body.len());
    bytes.extend(MAGIC);
    bytes.extend(Sha256::digest(body));
    bytes.extend(body);
    bytes
}

/// The body that [`sealed`] was given; `None` for anything else, a file that was cut off too.
pub fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (digest, body) = rest.split_at_checked(Sha256::output_size())?;
    (Sha256::digest(body)[..] == *digest).then_some(body)
}

impl Checkpoint {
    /// What [`checkpoint`] wrote; `None` for anything else, a file that was cut off too.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(unsealed(bytes)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_changed_or_cut_are_not_taken() {
        let whole = Checkpoint {
            seen: 3,
            whole: false,
            statistics: Statistics::default(),
        };
        let bytes = checkpoint(3, false, &whole.statistics).unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes), Some(whole));
        assert_eq!(Checkpoint::from_bytes(&bytes[..bytes.len() - 1]), None);
        let mut other = bytes;
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(Checkpoint::from_bytes(&other), None);
        assert_eq!(Checkpoint::from_bytes(b""), None);
    }
}
