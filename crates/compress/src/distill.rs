//! Training as a step: a model, examples, losses of labels and of a teacher.

use edgesmith_data::cast;
use edgesmith_ir::{DType, Error, Model, Result, Tensor};
use edgesmith_train::Data;
use edgesmith_train::training::Wanted;

mod judge;
mod taught;
mod terms;

pub use judge::judge;
pub use taught::Taught;
pub use terms::TermGiven;

/// Examples to train on, in any order.
pub trait Examples {
    /// How many there are.
    fn count(&self) -> usize;

    /// What tells them apart from others: of the same digest, the same examples.
    fn digest(&self) -> String;

    /// The class of each; -1 where it is not known.
    fn labels(&self) -> Option<&[i64]>;

    /// The examples as a training graph of `model` is fed.
    ///
    /// # Errors
    /// When they do not fit the model, or something is wanted that they do not have.
    fn data<'a>(&'a self, model: &Model, wanted: &[Wanted]) -> Result<Box<dyn Data + 'a>>;
}

/// Examples in memory: rows of each input, by name.
pub struct Held {
    count: usize,
    digest: String,
    arrays: Vec<(String, Tensor)>,
    labels: Option<Vec<i64>>,
    targets: Option<Tensor>,
}

impl Held {
    /// Arrays whose first axis counts samples, with a class or numbers of each.
    ///
    /// # Errors
    /// When their lengths differ.
    pub fn new(
        arrays: Vec<(String, Tensor)>,
        labels: Option<Vec<i64>>,
        targets: Option<Tensor>,
        digest: &str,
    ) -> Result<Self> {
        let lengths = arrays.iter().map(|(_, t)| t.dims().first().copied());
        let targets_len = targets.iter().map(|t| t.dims().first().copied());
        let labels_len = labels.iter().map(|l| Some(l.len()));
        let mut all = lengths.chain(targets_len).chain(labels_len);
        let count = all.next().flatten().unwrap_or(0);
        if all.any(|n| n != Some(count)) {
            return Err(Error::invalid(
                "the arrays have different numbers of samples",
            ));
        }
        Ok(Self {
            count,
            digest: digest.into(),
            arrays,
            labels,
            targets,
        })
    }

    /// The one input of the examples: its name, and the lengths of an example.
    ///
    /// # Errors
    /// When there are several.
    pub fn only_input(&self) -> Result<(String, Vec<usize>)> {
        match &self.arrays[..] {
            [(name, t)] => Ok((name.clone(), t.dims()[1..].to_vec())),
            all => Err(Error::unsupported(format!(
                "the examples have {} inputs, a new network has one",
                all.len()
            ))),
        }
    }

    /// The one input of the examples that has numbers of words: its name, the words of an example,
    /// and one more than the largest number.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub fn texts(&self) -> Result<(String, usize, usize)> {
        let is_text = |t: &Tensor| t.rank() == 2 && t.dtype().is_integer();
        let beside = ["attention_mask", "token_type_ids"];
        let texts = self
            .arrays
            .iter()
            .filter(|(n, t)| is_text(t) && !beside.contains(&n.as_str()));
        let texts: Vec<&(String, Tensor)> = texts.collect();
        let [(name, ids)] = texts[..] else {
            let what = format!(
                "the examples have {} arrays of words, a new network has one",
                texts.len()
            );
            return Err(Error::unsupported(what)
                .hint("numbers of words are an array of integers, [examples, words]"));
        };
        let largest = ids.to_i64()?.iter().max().copied().unwrap_or(-1);
        let vocabulary = usize::try_from(largest).map_or(0, |l| l.saturating_add(1));
        Ok((name.clone(), ids.dims()[1], vocabulary))
    }

    /// The number of classes: one more than the largest label.
    ///
    /// # Errors
    /// When there are no labels.
    pub fn classes(&self) -> Result<usize> {
        let largest = self.labels.iter().flatten().max().copied();
        let largest = largest.and_then(|l| usize::try_from(l).ok());
        largest.map(|l| l + 1).ok_or_else(|| {
            Error::invalid("the number of classes is not known: no example has a label")
        })
    }
}

impl Examples for Held {
    fn count(&self) -> usize {
        self.count
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }

    fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    fn data<'a>(&'a self, model: &Model, wanted: &[Wanted]) -> Result<Box<dyn Data + 'a>> {
        let mut arrays = Vec::new();
        for &v in &model.graph.inputs {
            let value = model.graph.value(v);
            if value.constant.is_some() {
                continue;
            }
            let array = self.arrays.iter().find(|(n, _)| *n == value.name);
            let (name, tensor) = array.ok_or_else(|| {
                Error::invalid(format!(
                    "there is no array for the input \"{}\"",
                    value.name
                ))
            })?;
            let dtype = value.tensor_type().map_or(DType::F32, |t| t.dtype);
            arrays.push((name.clone(), tensor.clone(), dtype));
        }
        if wanted.contains(&Wanted::Labels) {
            let labels = self.labels.as_ref().ok_or_else(|| {
                Error::invalid("the examples have no labels, which the loss needs")
            })?;
            arrays.push(("labels".into(), Tensor::vector(labels.clone()), DType::I64));
        }
        if wanted.contains(&Wanted::Targets) {
            let targets = self.targets.as_ref().ok_or_else(|| {
                Error::invalid("the examples have no targets, which the loss needs")
                    .hint("an array `targets`, or `like-input` for an autoencoder")
            })?;
            arrays.push(("targets".into(), targets.clone(), DType::F32));
        }
        Ok(Box::new(Rows {
            count: self.count,
            arrays,
        }))
    }
}

struct Rows {
    count: usize,
    /// Name, rows, and the element type that is fed.
    arrays: Vec<(String, Tensor, DType)>,
}

impl Data for Rows {
    fn count(&self) -> usize {
        self.count
    }

    fn batch(&mut self, samples: &[usize], _: usize) -> Result<Vec<(String, Tensor)>> {
        let one = |(name, t, dtype): &(String, Tensor, DType)| {
            Ok((name.clone(), cast(&rows(t, samples)?, *dtype)?))
        };
        self.arrays.iter().map(one).collect()
    }
}

/// Some rows of a tensor, in their order.
pub(crate) fn rows(t: &Tensor, chosen: &[usize]) -> Result<Tensor> {
    let count = t.dims().first().copied().unwrap_or(0);
    let size = match t.dtype() {
        DType::String => None,
        d => d.bytes_of(t.dims().iter().skip(1).product()),
    };
    let size =
        size.ok_or_else(|| Error::unsupported(format!("rows of {} are not done", t.ty())))?;
    let mut bytes = Vec::with_capacity(size * chosen.len());
    for &i in chosen {
        if i >= count {
            return Err(Error::internal(format!("there is no row {i} of {count}")));
        }
        bytes.extend_from_slice(&t.bytes()[i * size..][..size]);
    }
    let mut dims = t.dims().to_vec();
    dims[0] = chosen.len();
    Tensor::from_bytes(t.dtype(), &dims, bytes.into())
}
