//! Which keys a query may look at, in the forms that ONNX Runtime takes.

use crate::ops::arith::integers;
use crate::{Error, Result, Tensor};

/// What is added to the score of a query and a key.
pub struct Mask {
    filter: f64,
    kind: Kind,
    lengths: [usize; 2],
}

enum Kind {
    All,
    /// For each sentence the first key and the one after the last.
    Bounds(Vec<(usize, usize)>),
    /// By sentence and key.
    Keys(Vec<bool>),
    /// By sentence, query and key.
    Pairs(Vec<bool>),
}

impl Mask {
    /// From a tensor of shape (batch): the number of keys of each sentence; (2 · batch): after
    /// those numbers, the first key of each; (batch, keys) and (batch, queries, keys): 0 where a
    /// key is hidden. What is hidden gets `filter`. The lengths are batch, queries and keys.
    ///
    /// # Errors
    /// When the tensor is of another shape.
    pub fn of(t: Option<&Tensor>, filter: f64, [batch, s, k]: [usize; 3]) -> Result<Self> {
        let kind = match t {
            None => Kind::All,
            Some(t) => {
                let data = integers(t)?;
                let place = |i: i128| usize::try_from(i).unwrap_or(0);
                match *t.dims() {
                    [n] if n == batch => {
                        Kind::Bounds(data.iter().map(|&end| (0, place(end))).collect())
                    }
                    [n] if n == 2 * batch => {
                        let (ends, starts) = data.split_at(batch);
                        let both = starts.iter().zip(ends);
                        Kind::Bounds(both.map(|(&s, &e)| (place(s), place(e))).collect())
                    }
                    [a, b] if [a, b] == [batch, k] => {
                        Kind::Keys(data.iter().map(|&m| m > 0).collect())
                    }
                    [a, b, c] if [a, b, c] == [batch, s, k] => {
                        Kind::Pairs(data.iter().map(|&m| m > 0).collect())
                    }
                    _ => {
                        return Err(Error::unsupported(format!(
                            "a mask {} of {batch} sentences, {s} queries and {k} keys is not done",
                            t.ty()
                        )));
                    }
                }
            }
        };
        Ok(Self {
            filter,
            kind,
            lengths: [s, k],
        })
    }

    /// What is added for query `i` and key `j` of sentence `b`.
    pub fn at(&self, b: usize, i: usize, j: usize) -> f64 {
        let [s, k] = self.lengths;
        let seen = match &self.kind {
            Kind::All => true,
            Kind::Bounds(bounds) => (bounds[b].0..bounds[b].1).contains(&j),
            Kind::Keys(keys) => keys[b * k + j],
            Kind::Pairs(pairs) => pairs[(b * s + i) * k + j],
        };
        if seen { 0.0 } else { self.filter }
    }
}
