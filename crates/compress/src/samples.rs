//! Where samples come from: the little that calibration and evaluation ask of data.

use std::ops::Range;

use edgesmith_data::Dataset;
use edgesmith_ir::{Result, Tensor};

/// The tensors of some samples by the name of the input, and which samples these are.
pub type Batch = (Range<usize>, Vec<(String, Tensor)>);

/// Samples in an order, made in batches when they are asked for.
pub trait Samples {
    /// How many there are.
    fn count(&self) -> usize;

    /// The class of each sample, where it is known.
    fn labels(&self) -> Option<&[i64]> {
        None
    }

    /// All samples in order, `size` at a time or as many as the model fixes.
    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_>;
}

impl Samples for Dataset {
    fn count(&self) -> usize {
        self.len()
    }

    fn labels(&self) -> Option<&[i64]> {
        self.labels()
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        Box::new(self.batches(size))
    }
}

/// A range of other samples, without labels.
pub struct Part<'a> {
    samples: &'a dyn Samples,
    range: Range<usize>,
}

impl<'a> Part<'a> {
    /// Those of `range` that there are.
    pub fn new(samples: &'a dyn Samples, range: Range<usize>) -> Self {
        let end = range.end.min(samples.count());
        let range = range.start.min(end)..end;
        Self { samples, range }
    }

    /// The number of the first among all.
    pub fn start(&self) -> usize {
        self.range.start
    }
}

impl Samples for Part<'_> {
    fn count(&self) -> usize {
        self.range.len()
    }

    /// A batch that begins before the first sample is left out, one that reaches beyond the last is
    /// handed out whole. Batches tell the numbers of their samples among all.
    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let Range { start, end } = self.range;
        let before = move |b: &Result<Batch>| b.as_ref().is_ok_and(|(r, _)| r.start < start);
        let within = move |b: &Result<Batch>| b.as_ref().map_or(true, |(r, _)| r.start < end);
        let all = self.samples.batches(size);
        Box::new(all.skip_while(before).take_while(within))
    }
}

/// The inputs with borrowed names, as a session takes them.
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
    fn count(&self) -> usize {
        self.rows.dims()[0]
    }

    fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let row: usize = self.rows.dims()[1..].iter().product();
        Box::new((0..self.count()).step_by(size).map(move |start| {
            let range = start..(start + size).min(self.count());
            let data = self.rows.data::<f32>()?[range.start * row..range.end * row].to_vec();
            let mut dims = self.rows.dims().to_vec();
            dims[0] = range.len();
            Ok((
                range,
                vec![(self.name.clone(), Tensor::from_vec(&dims, data)?)],
            ))
        }))
    }
}
