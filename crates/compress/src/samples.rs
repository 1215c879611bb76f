//! Where samples come from: the little that calibration and evaluation ask of data.

use std::ops::Range;

use edgesmith_ir::{Result, Tensor};

/// Samples in an order, made in batches when they are asked for.
pub trait Samples {
    /// How many there are.
    fn len(&self) -> usize;

    /// True where there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of each sample, where it is known.
    fn labels(&self) -> Option<&[i64]> {
        None
    }

    /// The tensors of some samples, by the name of the input.
    ///
    /// # Errors
    /// When they cannot be read.
    fn batch(&self, range: Range<usize>) -> Result<Vec<(String, Tensor)>>;
}

/// Ranges of `size` samples that cover the first `count`, the last one perhaps shorter.
pub(crate) fn batches(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (0..count)
        .step_by(size)
        .map(move |i| i..(i + size).min(count))
}

/// The same with borrowed names, as a session takes them.
pub(crate) fn named(batch: &[(String, Tensor)]) -> Vec<(&str, Tensor)> {
    batch.iter().map(|(n, t)| (n.as_str(), t.clone())).collect()
}

/// Samples that stand in memory, for tests.
#[cfg(test)]
pub(crate) struct InMemory {
    pub name: String,
    pub rows: Tensor,
    pub labels: Option<Vec<i64>>,
}

#[cfg(test)]
impl Samples for InMemory {
    fn len(&self) -> usize {
        self.rows.dims()[0]
    }

    fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    fn batch(&self, range: Range<usize>) -> Result<Vec<(String, Tensor)>> {
        let row: usize = self.rows.dims()[1..].iter().product();
        let data = self.rows.data::<f32>()?[range.start * row..range.end * row].to_vec();
        let mut dims = self.rows.dims().to_vec();
        dims[0] = range.len();
        Ok(vec![(self.name.clone(), Tensor::from_vec(&dims, data)?)])
    }
}
