//! Batches for training: samples of a source in an order that a seed rules, as a model takes them.

use std::sync::Arc;

use edgesmith_ir::error::At;
use edgesmith_ir::random::Random;
use edgesmith_ir::types::Dim;
use edgesmith_ir::{Error, Model, Result, Tensor};

use crate::augment::{Apply, Augment, Mix};
use crate::cast::cast;
use crate::fit::{Fit, fits};
use crate::normalize::Normalize;
use crate::source::{Source, Target};
use crate::words::Words;

/// Tells the chance of words from that of images.
const WORDS: u64 = 0x0003_04D5;

/// What is done to samples.
#[derive(Debug, Clone, Default)]
pub struct Preparation {
    /// Rules the order, the split and the augmentation.
    pub seed: u64,
    /// What is done to images first.
    pub normalize: Option<Normalize>,
    /// What is done then, in this order, in training.
    pub augment: Vec<Augment>,
}

/// Some of the samples of a source, for the inputs of a model. Copies share the source.
#[derive(Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    fits: Arc<[Fit]>,
    /// Which samples, sorted.
    indices: Arc<[usize]>,
    preparation: Preparation,
    words: Option<Words>,
    fixed_batch: Option<usize>,
}

/// The answers to a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// None is known.
    Unknown,
    /// The class of each sample.
    Classes(Vec<i64>),
    /// Numbers, `[samples, numbers]`.
    Values(Tensor),
}

/// A batch for training.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The number of each sample in the source, which is the same in every run.
    pub indices: Vec<usize>,
    /// A tensor for each input, by name.
    pub inputs: Vec<(String, Tensor)>,
    /// The answers. Classes are those before mixing, values are mixed.
    pub targets: Targets,
    /// How samples are mixed, where they are.
    pub mix: Option<Mix>,
}

/// The numbers of an input in some samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The name of the input.
    pub input: String,
    /// Its lengths.
    pub dims: Vec<usize>,
    /// The smallest number.
    pub least: f32,
    /// The largest number.
    pub most: f32,
    /// The mean of all.
    pub mean: f64,
}

impl Loader {
    /// All samples of a source, for the inputs of a model.
    ///
    /// # Errors
    /// When the samples do not fit the inputs, or nothing fits what is to be done to them.
    pub fn new(source: Arc<dyn Source>, model: &Model, preparation: Preparation) -> Result<Self> {
        let place = || source.path().display().to_string();
        let fits = fits(&model.graph, source.fields()).at(place)?;
        if let Some(way) = &preparation.normalize
            && !fits.iter().any(|f| f.normalizes(way))
        {
            let what = format!("no input has images of the channels of {}", way.name);
            return Err(Error::usage(what).at(place()));
        }
        let words = Words::of(model, &fits);
        for augment in &preparation.augment {
            let all = augment.mixes();
            let takes = |f: &Fit| f.takes(augment);
            if matches!(augment.def.apply, Apply::Words(_)) && words.is_some() {
                continue;
            }
            if !fits.iter().any(takes) || all && !fits.iter().all(takes) {
                let what = format!("no input has what {} is for", augment.def.name);
                return Err(Error::usage(what).hint(augment.def.about).at(place()));
            }
        }
        let graph = &model.graph;
        let length = |f: &Fit| {
            let value = graph.value(graph.find_value(&f.name)?);
            value
                .tensor_type()?
                .shape
                .as_ref()?
                .get(f.axis?)
                .and_then(Dim::known)
        };
        Ok(Self {
            fixed_batch: fits.iter().find_map(length),
            words,
            indices: (0..source.len()).collect(),
            fits: fits.into(),
            source,
            preparation,
        })
    }

    /// The source.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The numbers of the samples in the source, sorted.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Samples of one run, where the model fixes that number.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// The words of each sample, in order, where batches end with their longest text.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn lengths(&self) -> Result<Option<Vec<usize>>> {
        let length = |words: &Words, i: usize| words.length(&self.fits, &self.source.get(i)?);
        let of_all = |words| self.indices.iter().map(|&i| length(words, i)).collect();
        let cut = self.words.as_ref().filter(|w| w.are_cut());
        cut.map(of_all).transpose()
    }

    /// Two parts without a common sample, the second with this share of the samples, by chance that
    /// the seed rules: for training and for validation.
    ///
    /// # Errors
    /// When the share is not between 0 and 1, or a part would be empty.
    pub fn split(&self, share: f64) -> Result<(Self, Self)> {
        const SPLIT: u64 = u64::MAX;
        let count = (self.len() as f64 * share).round();
        if !(share > 0.0 && share < 1.0 && count >= 1.0 && count < self.len() as f64) {
            let what = format!(
                "a share of {share} of {} samples leaves a part empty",
                self.len()
            );
            return Err(Error::usage(what).hint("a share is between 0 and 1"));
        }
        let order = Random::of_sample(&[self.preparation.seed, SPLIT]).some(self.len(), self.len());
        let part = |places: &[usize]| {
            let mut indices: Vec<usize> = places.iter().map(|&p| self.indices[p]).collect();
            indices.sort_unstable();
            Self {
                indices: indices.into(),
                ..self.clone()
            }
        };
        let (second, first) = order.split_at(count as usize);
        Ok((part(first), part(second)))
    }

    /// The samples in the order of an epoch, augmented, `size` at a time or as many as the model
    /// fixes; what would not fill a fixed number at the end is left out. Neither the order nor the
    /// augmentation depends on threads or on `size`.
    pub fn epoch(&self, epoch: u64, size: usize) -> impl Iterator<Item = Result<Feed>> + '_ {
        let order = Random::of_sample(&[self.preparation.seed, epoch]).some(self.len(), self.len());
        let order: Vec<usize> = order.into_iter().map(|p| self.indices[p]).collect();
        self.feeds(order, size, Some(epoch))
    }

    /// The samples in order, not augmented.
    pub fn in_order(&self, size: usize) -> impl Iterator<Item = Result<Feed>> + '_ {
        self.feeds(self.indices.to_vec(), size, None)
    }

    fn feeds(
        &self,
        order: Vec<usize>,
        size: usize,
        epoch: Option<u64>,
    ) -> impl Iterator<Item = Result<Feed>> + '_ {
        let step = self.fixed_batch.unwrap_or(size).max(1);
        let is_whole = self.fixed_batch.is_some();
        let starts = (0..order.len()).step_by(step);
        let ranges = starts.map(move |start| start..start + step);
        ranges.filter_map(move |mut range| {
            if range.end > order.len() {
                if is_whole {
                    return None;
                }
                range.end = order.len();
            }
            Some(self.feed(&order[range], epoch))
        })
    }

    /// Some samples of the source as one batch; augmented as in an epoch where one is named.
    ///
    /// # Errors
    /// When a sample cannot be read, with its file and row, or does not fit the model.
    pub fn feed(&self, indices: &[usize], epoch: Option<u64>) -> Result<Feed> {
        let mut parts: Vec<Vec<Tensor>> = self.fits.iter().map(|_| Vec::new()).collect();
        let mut answers = Vec::new();
        for &index in indices {
            let sample = self.source.get(index)?;
            let place = || {
                format!(
                    "{}: {}",
                    self.source.path().display(),
                    self.source.id(index)
                )
            };
            for (fit, parts) in self.fits.iter().zip(&mut parts) {
                let t = sample.tensors.get(fit.field).ok_or_else(|| {
                    Error::internal("a sample has fewer tensors than its source says")
                })?;
                if fit.axis.is_none() && !parts.is_empty() {
                    continue;
                }
                let way = self.preparation.normalize.as_ref();
                let augments = epoch.map_or(&[][..], |_| &self.preparation.augment);
                let place_of = [
                    self.preparation.seed,
                    epoch.unwrap_or_default(),
                    index as u64,
                ];
                let made = fit.apply(t, way, augments, &mut Random::of_sample(&place_of));
                parts.push(made.at(|| format!("input \"{}\"", fit.name)).at(place)?);
            }
            if let (Some(words), Some(epoch)) = (&self.words, epoch) {
                let place_of = [self.preparation.seed, epoch, index as u64, WORDS];
                let mut own: Vec<&mut Tensor> =
                    parts.iter_mut().filter_map(|p| p.last_mut()).collect();
                words.augment(
                    &self.preparation.augment,
                    &mut Random::of_sample(&place_of),
                    &mut own,
                )?;
            }
            answers.push(sample.target);
        }
        let mut inputs = Vec::new();
        for (fit, parts) in self.fits.iter().zip(parts) {
            let joined = match fit.axis {
                Some(axis) => stacked(&parts, axis)?,
                None => parts
                    .into_iter()
                    .next()
                    .ok_or_else(|| Error::usage("a batch has a sample"))?,
            };
            inputs.push((fit.name.clone(), joined));
        }
        if let Some(words) = &self.words {
            words.cut(&mut inputs)?;
        }
        let targets = self.targets(indices, answers)?;
        let feed = Feed {
            indices: indices.to_vec(),
            inputs,
            targets,
            mix: None,
        };
        match epoch {
            Some(epoch) => self.mixed(feed, epoch),
            None => Ok(feed),
        }
    }

    fn targets(&self, indices: &[usize], answers: Vec<Target>) -> Result<Targets> {
        let fault = |i: usize| {
            Error::invalid(
                "its answer is of another kind than that of the first sample of the batch",
            )
            .at(self.source.id(indices[i]))
            .at(self.source.path().display().to_string())
        };
        match answers.first() {
            None | Some(Target::Unknown) => {
                let other = answers.iter().position(|a| *a != Target::Unknown);
                other.map_or(Ok(Targets::Unknown), |i| Err(fault(i)))
            }
            Some(Target::Class(_)) => {
                let class = |(i, a): (usize, &Target)| match a {
                    Target::Class(class) => Ok(*class),
                    _ => Err(fault(i)),
                };
                let classes = answers.iter().enumerate().map(class);
                classes.collect::<Result<_>>().map(Targets::Classes)
            }
            Some(Target::Values(first)) => {
                let mut all: Vec<f32> = Vec::new();
                for (i, answer) in answers.iter().enumerate() {
                    match answer {
                        Target::Values(values) if values.len() == first.len() => all.extend(values),
                        _ => return Err(fault(i)),
                    }
                }
                let dims = [answers.len(), first.len()];
                Tensor::from_vec(&dims, all).map(Targets::Values)
            }
        }
    }

    /// Mixes the samples of a batch, where the preparation says so.
    fn mixed(&self, mut feed: Feed, epoch: u64) -> Result<Feed> {
        const MIX: u64 = u64::MAX;
        for augment in &self.preparation.augment {
            let Apply::Batch(draw) = augment.def.apply else {
                continue;
            };
            let count = feed.indices.len();
            let own = feed.indices.iter().map(|&i| i as u64);
            let place: Vec<u64> = [self.preparation.seed, epoch, MIX]
                .into_iter()
                .chain(own)
                .collect();
            let mix = draw(&mut Random::of_sample(&place), augment.amount, count);
            for (_, t) in &mut feed.inputs {
                *t = cast(&blended(&mix, t, count)?, t.dtype())?;
            }
            if let Targets::Values(t) = &mut feed.targets {
                *t = blended(&mix, t, count)?;
            }
            feed.mix = Some(mix);
        }
        Ok(feed)
    }

    /// The numbers of each input in the first `count` samples, as the model sees them without
    /// augmentation.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn look(&self, count: usize) -> Result<Vec<Seen>> {
        let count = count.max(self.fixed_batch.unwrap_or(1)).min(self.len());
        let feed = self.feed(&self.indices[..count], None)?;
        let seen = |(input, t): &(String, Tensor)| {
            let numbers = t.to_f32()?;
            let sum: f64 = numbers.iter().map(|x| f64::from(*x)).sum();
            Ok(Seen {
                input: input.clone(),
                dims: t.dims().to_vec(),
                least: numbers.iter().copied().fold(f32::INFINITY, f32::min),
                most: numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                mean: sum / numbers.len().max(1) as f64,
            })
        };
        feed.inputs.iter().map(seen).collect()
    }
}

fn blended(mix: &Mix, t: &Tensor, count: usize) -> Result<Tensor> {
    let mut data = t.to_f32()?.into_owned();
    mix.blend(&mut data, count);
    Tensor::from_vec(t.dims(), data)
}

/// Tensors of the same lengths side by side along a new axis.
fn stacked(parts: &[Tensor], axis: usize) -> Result<Tensor> {
    let first = parts
        .first()
        .ok_or_else(|| Error::usage("a batch has a sample"))?;
    let mut dims = first.dims().to_vec();
    let axis = axis.min(dims.len());
    let outer: usize = dims[..axis].iter().product();
    let inner = first.byte_len().checked_div(outer).unwrap_or(0);
    let mut data = Vec::with_capacity(first.byte_len().saturating_mul(parts.len()));
    for o in 0..outer {
        for part in parts {
            let bytes = part.bytes().get(o * inner..(o + 1) * inner);
            let apart = || Error::internal("samples of one source have different lengths");
            data.extend_from_slice(bytes.ok_or_else(apart)?);
        }
    }
    dims.insert(axis, parts.len());
    Tensor::from_bytes(first.dtype(), &dims, data.into()).map(|t| t.detached())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::{Field, Holds, Sample};
    use edgesmith_ir::types::{Shape, TensorType};
    use edgesmith_ir::{DType, Graph};

    /// Images `[1, 2, 3]` whose pixels are all the number of the sample, which is its class too.
    struct Numbered {
        len: usize,
        fields: [Field; 1],
    }

    impl Source for Numbered {
        fn path(&self) -> &Path {
            Path::new("numbered")
        }

        fn len(&self) -> usize {
            self.len
        }

        fn fields(&self) -> &[Field] {
            &self.fields
        }

        fn read(&self, index: usize) -> Result<Sample> {
            if index == 13 {
                return Err(Error::invalid("the sample is unlucky"));
            }
            Ok(Sample {
                tensors: vec![Tensor::from_vec(&[1, 2, 3], vec![index as f32; 6])?],
                target: match index {
                    12 => Target::Unknown,
                    _ => Target::Class(index as i64),
                },
            })
        }
    }

    fn loader(len: usize, batch: Dim, augment: &[&str]) -> Result<Loader> {
        let field = Field {
            name: "image".into(),
            dtype: DType::F32,
            dims: vec![1, 2, 3],
            holds: Holds::Own,
        };
        let mut g = Graph::new("g");
        let dims = [1, 2, 3].map(Dim::Known);
        let shape: Shape = std::iter::once(batch).chain(dims).collect();
        g.add_input("x", TensorType::new(DType::F32, shape));
        let preparation = Preparation {
            seed: 5,
            augment: augment.iter().map(|a| Augment::parse(a).unwrap()).collect(),
            ..Preparation::default()
        };
        let source = Numbered {
            len,
            fields: [field],
        };
        Loader::new(Arc::new(source), &Model::new(g, 17), preparation)
    }

    fn plain(len: usize) -> Loader {
        loader(len, Dim::symbol("n"), &[]).unwrap()
    }

    fn order(loader: &Loader, epoch: u64, size: usize) -> Vec<usize> {
        let feeds = loader.epoch(epoch, size).map(Result::unwrap);
        feeds.flat_map(|f| f.indices).collect()
    }

    #[test]
    fn an_epoch_has_every_sample_once_in_an_order_of_its_own() {
        let loader = plain(10);
        let first = order(&loader, 0, 3);
        assert_eq!(first, order(&loader, 0, 4));
        assert_ne!(first, order(&loader, 1, 3));
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        let sizes: Vec<usize> = loader
            .epoch(0, 4)
            .map(|f| f.unwrap().indices.len())
            .collect();
        assert_eq!(sizes, [4, 4, 2]);
    }

    #[test]
    fn a_batch_holds_the_samples_that_it_names() {
        let feed = plain(10).feed(&[7, 2], None).unwrap();
        let (name, t) = &feed.inputs[0];
        assert_eq!((name.as_str(), t.dims()), ("x", &[2, 1, 2, 3][..]));
        let expected = [[7.0; 6], [2.0; 6]].concat();
        assert_eq!(*t.to_f32().unwrap(), expected);
        assert_eq!(feed.targets, Targets::Classes(vec![7, 2]));
    }

    #[test]
    fn a_model_of_fixed_batch_gets_full_batches() {
        let loader = loader(10, Dim::Known(4), &[]).unwrap();
        assert_eq!(loader.fixed_batch(), Some(4));
        assert_eq!(order(&loader, 0, 1).len(), 8);
        assert_eq!(loader.in_order(1).count(), 2);
    }

    #[test]
    fn parts_of_a_split_have_no_sample_in_common() {
        let (first, second) = plain(10).split(0.3).unwrap();
        assert_eq!((first.len(), second.len()), (7, 3));
        let mut all = [first.indices(), second.indices()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(plain(10).split(0.3).unwrap().1.indices(), second.indices());
        let mut seen = order(&second, 4, 2);
        seen.sort_unstable();
        assert_eq!(seen, second.indices());
        for share in [0.0, 1.0, 0.04, 0.96, f64::NAN, -1.0] {
            assert!(plain(10).split(share).is_err(), "{share}");
        }
    }

    #[test]
    fn augmentation_depends_on_seed_epoch_and_sample_alone() {
        let loader = loader(10, Dim::symbol("n"), &["crop=1", "cutout=1"]).unwrap();
        let of = |indices: &[usize], epoch| {
            let feed = loader.feed(indices, Some(epoch)).unwrap();
            feed.inputs[0].1.to_f32().unwrap().into_owned()
        };
        let alone: Vec<f32> = [3, 8, 5].iter().flat_map(|&i| of(&[i], 2)).collect();
        assert_eq!(of(&[3, 8, 5], 2), alone);
        let other = std::thread::scope(|s| s.spawn(|| of(&[3, 8, 5], 2)).join().unwrap());
        assert_eq!(other, alone);
        assert!((0..9).any(|epoch| of(&[3], epoch) != of(&[3], epoch + 1)));
        let untouched = loader.feed(&[3], None).unwrap();
        assert_eq!(*untouched.inputs[0].1.to_f32().unwrap(), [3.0; 6]);
    }

    #[test]
    fn mixing_tells_how() {
        let loader = loader(4, Dim::symbol("n"), &["mixup=1"]).unwrap();
        let feed = loader.feed(&[0, 1, 2, 3], Some(0)).unwrap();
        let mix = feed.mix.unwrap();
        let data = feed.inputs[0].1.to_f32().unwrap();
        for (i, &partner) in mix.partners.iter().enumerate() {
            let expected = mix.weight * i as f32 + (1.0 - mix.weight) * partner as f32;
            assert!((data[i * 6] - expected).abs() < 1e-5);
        }
        assert!(loader.feed(&[0, 1], None).unwrap().mix.is_none());
    }

    #[test]
    fn faults_are_told_with_file_and_row() {
        let loader = plain(14);
        let told = |indices: &[usize]| loader.feed(indices, None).unwrap_err().to_string();
        let e = told(&[1, 13]);
        assert!(e.contains("numbered: row 13: the sample is unlucky"), "{e}");
        let e = told(&[1, 12]);
        assert!(
            e.contains("numbered: row 12: its answer is of another kind"),
            "{e}"
        );
        assert!(told(&[12, 1]).contains("row 1: its answer"));
        assert!(told(&[99]).contains("no sample 99 of 14"));
        assert!(loader.feed(&[], None).is_err());
        let e = super::tests::loader(3, Dim::symbol("n"), &["noise"])
            .err()
            .unwrap();
        assert!(e.to_string().contains("what noise is for"), "{e}");
    }

    #[test]
    fn samples_stand_along_any_axis() {
        let part = |i: u8| Tensor::from_vec(&[2, 1], vec![i, 10 + i]).unwrap();
        let joined = stacked(&[part(0), part(1), part(2)], 1).unwrap();
        let expected = Tensor::from_vec(&[2, 3, 1], vec![0u8, 1, 2, 10, 11, 12]).unwrap();
        assert_eq!(joined, expected);
    }

    #[test]
    fn a_look_tells_what_the_model_sees() {
        let seen = plain(10).look(3).unwrap().remove(0);
        assert_eq!(
            (seen.dims, seen.least, seen.most, seen.mean),
            (vec![3, 1, 2, 3], 0.0, 2.0, 1.0)
        );
    }
}
