//! A set of samples for a model, read batch by batch.

use std::ops::Range;
use std::path::{Path, PathBuf};

use edgesmith_formats::npz::{Reader, Rows};
use edgesmith_ir::error::At;
use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{Error, Model, Result, Tensor};

use crate::cast::cast;

/// The name of the array with the classes.
const LABELS: &str = "labels";

/// Samples that were checked against a model's inputs. Only labels are held in memory.
pub struct Dataset {
    path: PathBuf,
    reader: Reader,
    inputs: Vec<Input>,
    labels: Option<Vec<i64>>,
    len: usize,
    fixed_batch: Option<usize>,
}

struct Input {
    name: String,
    ty: TensorType,
    /// Which axis of the array counts samples; `None`: the array is passed whole.
    axis: Option<usize>,
}

/// The named inputs of one run.
pub type Batch = Vec<(String, Tensor)>;

impl Dataset {
    /// Opens an npz file with an array for each input of `model`.
    ///
    /// # Errors
    /// When an array is missing, of a wrong shape or type, or the numbers of samples differ.
    pub fn open(path: &Path, model: &Model) -> Result<Self> {
        let place = || path.display().to_string();
        let reader = Reader::open(path)?;
        let mut set = Self {
            path: path.to_path_buf(),
            inputs: Vec::new(),
            labels: None,
            len: 0,
            fixed_batch: None,
            reader,
        };
        set.match_inputs(model).at(place)?;
        set.count_samples().at(place)?;
        set.read_labels().at(place)?;
        Ok(set)
    }

    fn match_inputs(&mut self, model: &Model) -> Result<()> {
        let graph = &model.graph;
        let fed: Vec<_> = graph
            .inputs
            .iter()
            .map(|&v| graph.value(v))
            .filter(|v| v.constant.is_none())
            .collect();
        let batch = fed
            .iter()
            .find_map(|v| v.tensor_type()?.shape.as_ref()?.first().cloned());
        for value in fed {
            let ty = value.tensor_type().ok_or_else(|| {
                Error::unsupported("its type is no tensor").at(format!("input \"{}\"", value.name))
            })?;
            let header = self.reader.header(&value.name).ok_or_else(|| {
                let names: Vec<&str> = self
                    .reader
                    .arrays()
                    .iter()
                    .map(|(n, _)| n.as_str())
                    .collect();
                Error::invalid(format!(
                    "there is no array for the input \"{}\"",
                    value.name
                ))
                .hint(format!("its arrays are {}", names.join(", ")))
            })?;
            let axis = sample_axis(ty.shape.as_ref(), batch.as_ref(), header.dims.len());
            check(&value.name, ty, &header.dims, axis)?;
            let declared = axis.and_then(|a| ty.shape.as_ref()?.get(a)?.known());
            self.fixed_batch = self.fixed_batch.or(declared);
            self.inputs.push(Input {
                name: value.name.clone(),
                ty: ty.clone(),
                axis,
            });
        }
        let known = |n: &str| n == LABELS || self.inputs.iter().any(|i| i.name == n);
        match self.reader.arrays().iter().find(|(n, _)| !known(n)) {
            Some((name, _)) => Err(Error::invalid(format!(
                "the array \"{name}\" is no input of the model"
            ))
            .hint("an npz has an array for each model input, by name, and `labels`")),
            None => Ok(()),
        }
    }

    fn count_samples(&mut self) -> Result<()> {
        let mut counted: Option<(String, usize)> = None;
        for input in &self.inputs {
            let Some(axis) = input.axis else { continue };
            let n = self.reader.header(&input.name).map_or(0, |h| h.dims[axis]);
            match &counted {
                Some((first, m)) if *m != n => {
                    return Err(Error::invalid(format!(
                        "\"{first}\" has {m} samples, \"{}\" has {n}",
                        input.name
                    )));
                }
                _ => counted = Some((input.name.clone(), n)),
            }
        }
        self.len = counted.map_or(1, |(_, n)| n);
        if self.len == 0 {
            return Err(Error::invalid("there are no samples"));
        }
        Ok(())
    }

    fn read_labels(&mut self) -> Result<()> {
        if self.reader.header(LABELS).is_none() {
            return Ok(());
        }
        let labels = self.reader.read(LABELS)?;
        if labels.count() != self.len {
            return Err(Error::invalid(format!(
                "there are {} labels for {} samples",
                labels.count(),
                self.len
            ))
            .hint(format!(
                "`{LABELS}` has one class for each sample, as an integer"
            )));
        }
        self.labels = Some(
            labels
                .to_i64()
                .map_err(|e| e.at(format!("array \"{LABELS}\"")))?,
        );
        Ok(())
    }

    /// Refuses labels that are no class of a model with `classes` classes.
    ///
    /// # Errors
    /// Names the first sample whose label is out of range.
    pub fn check_labels(&self, classes: usize) -> Result<()> {
        let fits = |&label: &i64| usize::try_from(label).is_ok_and(|l| l < classes);
        let Some(labels) = &self.labels else {
            return Ok(());
        };
        match labels.iter().position(|l| !fits(l)) {
            None => Ok(()),
            Some(i) => Err(Error::invalid(format!(
                "sample {i} has the label {}, the model has {classes} classes",
                labels[i]
            ))
            .at(self.path.display().to_string())
            .hint(format!(
                "labels run from 0 to {}",
                classes.saturating_sub(1)
            ))),
        }
    }

    /// The number of samples, at least one.
    #[allow(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The class of each sample, where the file has them.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// Samples of one run at the most, where the model fixes that number.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// All samples in order, `size` at a time or as many as the model fixes; a last batch that a
    /// fixed number would not fill is left out.
    pub fn batches(&self, size: usize) -> Batches<'_> {
        Batches {
            set: self,
            size: self.fixed_batch.unwrap_or(size.max(1)),
            at: 0,
            sources: None,
        }
    }

    /// The first `count` samples as one batch.
    ///
    /// # Errors
    /// When the data is cut off.
    pub fn first(&self, count: usize) -> Result<Batch> {
        let mut batches = self.batches(count.min(self.len));
        match batches.next() {
            Some(batch) => batch.map(|(_, b)| b),
            None => Err(Error::invalid(format!(
                "the model runs on {} samples at once, there are {}",
                batches.size, self.len
            ))),
        }
    }
}

/// The axis of an array that counts samples: the one whose length has the same name as the first
/// axis of the first input, or no name where that has none; else the first.
pub(crate) fn sample_axis(
    shape: Option<&Shape>,
    batch: Option<&Dim>,
    rank: usize,
) -> Option<usize> {
    let named = || {
        let batch = batch?;
        shape?
            .iter()
            .position(|d| d == batch && !matches!(d, Dim::Known(_)))
    };
    (rank > 0).then(|| named().unwrap_or(0))
}

fn check(name: &str, ty: &TensorType, dims: &[usize], axis: Option<usize>) -> Result<()> {
    let Some(shape) = &ty.shape else {
        return Ok(());
    };
    let same =
        |(i, (d, &n)): (usize, (&Dim, &usize))| Some(i) == axis || d.known().is_none_or(|k| k == n);
    if shape.rank() == dims.len() && shape.iter().zip(dims).enumerate().all(same) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the model expects {ty}, the array is {}",
        Shape::fixed(dims)
    ))
    .at(format!("array \"{name}\""))
    .hint("the array has the model's shape, with the samples on the batch axis"))
}

/// The samples of a set, batch by batch.
pub struct Batches<'a> {
    set: &'a Dataset,
    size: usize,
    at: usize,
    sources: Option<Vec<Source>>,
}

/// Where a batch takes an input from.
enum Source {
    /// Rows of axis 0, read one after the other.
    Rows(Rows),
    /// An array that is held whole, because its samples are not rows of the file.
    Whole(Tensor, Option<usize>),
}

impl Batches<'_> {
    fn open(&self) -> Result<Vec<Source>> {
        let open = |input: &Input| {
            let rows = self.set.reader.rows(&input.name)?;
            if input.axis == Some(0) && !rows.is_fortran() {
                return Ok(Source::Rows(rows));
            }
            Ok(Source::Whole(
                self.set.reader.read(&input.name)?,
                input.axis,
            ))
        };
        self.set.inputs.iter().map(open).collect()
    }

    fn batch(&mut self, range: Range<usize>) -> Result<Batch> {
        if self.sources.is_none() {
            self.sources = Some(self.open()?);
        }
        let mut batch = Batch::new();
        for (input, source) in self
            .set
            .inputs
            .iter()
            .zip(self.sources.iter_mut().flatten())
        {
            let tensor = match source {
                Source::Rows(rows) => rows.next(range.len())?,
                Source::Whole(t, None) => t.clone(),
                Source::Whole(t, Some(axis)) => part(t, *axis, &range)?,
            };
            let tensor =
                cast(&tensor, input.ty.dtype).at(|| format!("array \"{}\"", input.name))?;
            batch.push((input.name.clone(), tensor));
        }
        Ok(batch)
    }
}

/// A range of an axis.
fn part(t: &Tensor, axis: usize, range: &Range<usize>) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let outer: usize = dims[..axis].iter().product();
    let inner: usize = dims[axis + 1..].iter().product::<usize>() * t.dtype().bits() / 8;
    let row = dims[axis] * inner;
    dims[axis] = range.len();
    let mut data = Vec::with_capacity(outer * range.len() * inner);
    for o in 0..outer {
        data.extend(&t.bytes()[o * row + range.start * inner..][..range.len() * inner]);
    }
    Tensor::from_bytes(t.dtype(), &dims, data.into())
}

impl Iterator for Batches<'_> {
    type Item = Result<(Range<usize>, Batch)>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let mut end = (start + self.size).min(self.set.len);
        if start >= end || (self.set.fixed_batch.is_some() && end - start < self.size) {
            return None;
        }
        end = end.max(start + 1);
        self.at = end;
        let range = start..end;
        let place = || self.set.path.display().to_string();
        Some(self.batch(range.clone()).map(|b| (range, b)).at(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_formats::npz;
    use edgesmith_ir::{DType, Graph, Node};

    fn model() -> Model {
        let mut g = Graph::new("g");
        let shape = |dims: &[Dim]| dims.iter().cloned().collect::<Shape>();
        let (n, k) = (Dim::symbol("n"), |k| Dim::Known(k));
        let x = g.add_input("x", TensorType::new(DType::F32, shape(&[n.clone(), k(2)])));
        g.add_input("state", TensorType::new(DType::F32, shape(&[k(3), n])));
        let y = g.add_op(Node::new("Relu", "r"), &[x], "y");
        g.outputs.push(y);
        Model::new(g, 17)
    }

    fn with<R>(
        test: &str,
        arrays: &[(&str, Tensor)],
        check: impl FnOnce(Result<Dataset>) -> R,
    ) -> R {
        let path =
            std::env::temp_dir().join(format!("edgesmith-data-{}-{test}", std::process::id()));
        let arrays: Vec<_> = arrays
            .iter()
            .map(|(n, t)| ((*n).to_owned(), t.clone()))
            .collect();
        npz::write(&path, &arrays, true).unwrap();
        let result = check(Dataset::open(&path, &model()));
        std::fs::remove_file(path).unwrap();
        result
    }

    fn u8s(dims: &[usize]) -> Tensor {
        Tensor::from_vec(
            dims,
            (0..dims.iter().product()).map(|i: usize| i as u8).collect(),
        )
        .unwrap()
    }

    #[test]
    fn the_sample_axis_is_found_by_its_name() {
        let arrays = [
            ("x", u8s(&[5, 2])),
            ("state", u8s(&[3, 5])),
            ("labels", u8s(&[5])),
        ];
        with("axis", &arrays, |set| {
            let set = set.unwrap();
            assert_eq!((set.len(), set.labels()), (5, Some(&[0, 1, 2, 3, 4][..])));
            let batches: Vec<_> = set.batches(2).map(Result::unwrap).collect();
            assert_eq!(
                batches.iter().map(|(r, _)| r.len()).collect::<Vec<_>>(),
                [2, 2, 1]
            );
            let (_, last) = &batches[2];
            assert_eq!(&*last[0].1.data::<f32>().unwrap(), &[8.0, 9.0]);
            assert_eq!(&*last[1].1.data::<f32>().unwrap(), &[4.0, 9.0, 14.0]);
            assert!(set.check_labels(5).is_ok());
            let error = set.check_labels(4).unwrap_err().to_string();
            assert!(
                error.contains("sample 4 has the label 4, the model has 4 classes"),
                "{error}"
            );
        });
    }

    #[test]
    fn the_sample_axis_is_the_one_without_a_length_where_nothing_has_a_name() {
        let open = Dim::Unknown;
        let state: Shape = [Dim::Known(2), open.clone(), Dim::Known(128)]
            .into_iter()
            .collect();
        assert_eq!(sample_axis(Some(&state), Some(&open), 3), Some(1));
        assert_eq!(sample_axis(Some(&state), Some(&Dim::Known(1)), 3), Some(0));
        assert_eq!(sample_axis(Some(&Shape::default()), Some(&open), 0), None);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let fails = |test: &str, arrays: &[(&str, Tensor)]| {
            with(test, arrays, |set| {
                set.err().map(|e| e.message).unwrap_or_default()
            })
        };
        let x = || u8s(&[5, 2]);
        let missing = fails("missing", &[("x", x())]);
        assert_eq!(missing, "there is no array for the input \"state\"");
        let shape = fails("shape", &[("x", u8s(&[5, 3])), ("state", u8s(&[3, 5]))]);
        assert_eq!(shape, "the model expects f32[n,2], the array is [5,3]");
        let count = fails("count", &[("x", x()), ("state", u8s(&[3, 4]))]);
        assert_eq!(count, "\"x\" has 5 samples, \"state\" has 4");
        let extra = fails("extra", &[("x", x()), ("state", u8s(&[3, 5])), ("y", x())]);
        assert_eq!(extra, "the array \"y\" is no input of the model");
        let empty = fails("empty", &[("x", u8s(&[0, 2])), ("state", u8s(&[3, 0]))]);
        assert_eq!(empty, "there are no samples");
    }
}
