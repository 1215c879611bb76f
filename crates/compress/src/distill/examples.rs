//! Examples to train on and to judge by, out of files that a step names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgesmith_data::augment::Augment;
use edgesmith_data::normalize::{NORMALIZATIONS, Normalize};
use edgesmith_data::source::{self, Holds, Settings};
use edgesmith_data::{Feed, Loader, Preparation, Source, Target, Targets};
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Result, Tensor};
use edgesmith_train::Data;
use edgesmith_train::architectures::Spec;
use edgesmith_train::training::Wanted;

use crate::samples::{Batch, Samples};
use crate::steps::{Given, Key, Kind};

/// The settings of a step that say where examples are and how they are read.
pub const DATA_KEYS: &[Key] = &[
    Key {
        name: "data",
        value: "DATA",
        about: "Examples to train on: npz, idx, csv, tsv, jsonl, CIFAR, a folder of images or sounds",
        kind: Kind::Text,
    },
    Key {
        name: "validate",
        value: "DATA",
        about: "Examples that say which epoch is the best",
        kind: Kind::Text,
    },
    Key {
        name: "split",
        value: "SHARE",
        about: "Take this share of the examples to validate, and not to train",
        kind: Kind::Number,
    },
    Key {
        name: "part",
        value: "NAME",
        about: "The part of DATA to train on: train, test, val",
        kind: Kind::Text,
    },
    Key {
        name: "validate-part",
        value: "NAME",
        about: "The part of DATA to validate by",
        kind: Kind::Text,
    },
    Key {
        name: "label",
        value: "NAME",
        about: "The array, column or key with the classes",
        kind: Kind::Text,
    },
    Key {
        name: "values",
        value: "",
        about: "Labels are numbers that the output should be, and not classes",
        kind: Kind::Flag,
    },
    Key {
        name: "text",
        value: "NAME",
        about: "A column or key with a text, one or two",
        kind: Kind::Texts,
    },
    Key {
        name: "tokenizer",
        value: "FILE",
        about: "A tokenizer.json, or a vocab.txt of WordPiece",
        kind: Kind::Text,
    },
    Key {
        name: "tokens",
        value: "N",
        about: "Tokens of a text; 128 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "image-size",
        value: "N",
        about: "Height and width to which images are brought",
        kind: Kind::Count,
    },
    Key {
        name: "channels",
        value: "N",
        about: "Channels of images, 1 or 3",
        kind: Kind::Count,
    },
    Key {
        name: "sound-length",
        value: "N",
        about: "Numbers of a sound",
        kind: Kind::Count,
    },
    Key {
        name: "class-in-name",
        value: "",
        about: "The class of a file is its name up to the first _",
        kind: Kind::Flag,
    },
    Key {
        name: "normalize",
        value: "WAY",
        about: "What is done to pixels that are bytes",
        kind: Kind::OneOf(|| NORMALIZATIONS.iter().map(|n| n.name).collect()),
    },
    Key {
        name: "augment",
        value: "NAME[=AMOUNT]",
        about: "Other examples of the same meaning: flip, crop, cutout, noise, shift, drop, span, mixup",
        kind: Kind::Texts,
    },
];

/// Examples of a step.
pub struct Examples {
    train: Arc<dyn Source>,
    validate: Option<Arc<dyn Source>>,
    path: PathBuf,
    split: Option<f64>,
    preparation: Preparation,
    /// The settings by which they are read.
    told: String,
    tokenizer: Option<PathBuf>,
}

/// Settings that name files: what is in these counts, not where they are.
pub(crate) const FILES: &[&str] = &["data", "validate", "tokenizer", "masks", "teacher"];

/// The settings of a step in order, without those that name files or change nothing that comes of it.
pub(crate) fn told(given: &Given, is_of: impl Fn(&str) -> bool) -> String {
    let counts = |name: &str| !FILES.contains(&name) && name != "recompute";
    let told = given.entries().filter(|(n, _)| counts(n) && is_of(n));
    let told: Vec<String> = told.map(|(name, s)| format!("{name}={s:?}")).collect();
    told.join(" ")
}

impl Examples {
    /// Opens what a step names; paths start at `base`.
    ///
    /// # Errors
    /// When it names none, or several to validate by, or a source cannot be opened.
    pub fn open(given: &Given, base: &Path, seed: u64) -> Result<Self> {
        let missing = || {
            given
                .fault("data", "training needs examples")
                .hint("data = \"DATA\", or --data DATA")
        };
        let path = base.join(given.text("data").ok_or_else(missing)?);
        let others = ["validate", "validate-part"];
        if let Some(other) = others.iter().find(|n| given.has(n) && given.has("split")) {
            let what = format!("\"{other}\" and \"split\" both say what to validate by");
            return Err(given.fault("split", what).hint("leave one of them out"));
        }
        let settings = settings(given, base)?;
        let part = |name: &str| given.text(name).map(str::to_owned);
        let validate = match (given.text("validate"), part("validate-part")) {
            (None, None) => None,
            (other, part) => {
                let path = other.map_or_else(|| path.clone(), |p| base.join(p));
                let settings = Settings {
                    part,
                    ..settings.clone()
                };
                Some(Arc::from(source::open(&path, &settings)?))
            }
        };
        let settings = Settings {
            part: part("part"),
            ..settings
        };
        let normalize = given.text("normalize").map(Normalize::find).transpose()?;
        let augment = given.texts("augment");
        let augment: Result<Vec<Augment>> = augment.iter().map(|a| Augment::parse(a)).collect();
        let is_of_data = |n: &str| n != "validate-part" && DATA_KEYS.iter().any(|k| k.name == n);
        Ok(Self {
            told: told(given, is_of_data),
            tokenizer: given.text("tokenizer").map(|t| base.join(t)),
            train: Arc::from(source::open(&path, &settings)?),
            validate,
            path,
            split: given.number("split"),
            preparation: Preparation {
                seed,
                normalize,
                augment: augment.at(|| given.place_of("augment"))?,
            },
        })
    }

    /// What tells those to train on apart from others: of the same digest, the same examples.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn digest(&self) -> Result<String> {
        let of = |file: &PathBuf| edgesmith_data::digest(file);
        let words = self.tokenizer.as_ref().map(of).transpose()?;
        Ok(format!(
            "{} {words:?} {} {:?}",
            content(&*self.train, &self.path)?,
            self.told,
            self.preparation
        ))
    }

    /// What tells those that were named to validate by apart from others.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn validation_digest(&self) -> Result<String> {
        let source = self.validate.as_deref();
        source.map_or(Ok(String::new()), |s| content(s, s.path()))
    }

    /// True where an example looks the same in every epoch.
    pub fn is_steady(&self) -> bool {
        self.preparation.augment.is_empty()
    }

    /// True where examples are mixed, so that each has a share of several classes.
    pub fn are_mixed(&self) -> bool {
        self.preparation.augment.iter().any(Augment::mixes)
    }

    /// What the user should know of how they are read, as sentences.
    pub fn notes(&self) -> &[String] {
        self.train.notes()
    }

    /// How many tokens there are, where examples are texts.
    pub fn vocabulary(&self) -> Option<usize> {
        self.train.vocabulary()
    }

    /// What a new network is made for that learns these examples, with random weights of a seed.
    ///
    /// # Errors
    /// When there are several inputs, or no classes.
    pub fn spec(&self, seed: u64) -> Result<Spec> {
        let place = || self.path.display().to_string();
        let labels = self.labels()?;
        let most = labels.iter().copied().max().unwrap_or(-1);
        let classes = match self.train.classes().len() {
            0 => (most + 1).max(0) as usize,
            n => n,
        };
        if classes == 0 {
            return Err(unlabelled().at(place()));
        }
        let mut known = labels.iter().filter(|&&l| l >= 0);
        let first = known.next();
        if known.all(|l| Some(l) == first) {
            let what = "all examples are of one class: a new network has nothing to tell apart";
            return Err(Error::invalid(what).at(place()));
        }
        let beside = ["attention_mask", "token_type_ids"];
        let fields = self.train.fields().iter();
        let fields: Vec<_> = fields
            .filter(|f| f.holds != Holds::Extra && !beside.contains(&f.name.as_str()))
            .collect();
        let [field] = fields[..] else {
            let what = format!(
                "a new network has one input, the examples have {}",
                fields.len()
            );
            return Err(Error::unsupported(what).at(place()));
        };
        let dims = match field.dims[..] {
            // A picture without channels has one.
            [h, w] => vec![1, h, w],
            _ => field.dims.clone(),
        };
        Ok(Spec {
            input: field.name.clone(),
            dims,
            vocabulary: self.train.vocabulary(),
            classes,
            seed,
        })
    }

    /// The class of each example to train on; -1 where it is not known.
    ///
    /// # Errors
    /// When an example cannot be read.
    pub fn labels(&self) -> Result<Vec<i64>> {
        labels(&*self.train, 0..self.train.len())
    }

    /// The examples as a training graph of `model` is fed, and those that judge it.
    ///
    /// # Errors
    /// When they do not fit the model, or something is wanted that they do not have.
    pub fn data(&self, model: &Model, wanted: &[Wanted]) -> Result<(Fed, Option<Judged>)> {
        let mut loader = Loader::new(Arc::clone(&self.train), model, self.preparation.clone())?;
        let mut judge = match &self.validate {
            None => None,
            Some(source) => {
                let plain = Preparation {
                    augment: Vec::new(),
                    ..self.preparation.clone()
                };
                Some(Loader::new(Arc::clone(source), model, plain)?)
            }
        };
        if let Some(share) = self.split {
            let (train, rest) = loader.split(share)?;
            (loader, judge) = (train, Some(rest));
        }
        let judge = judge.map(Judged::new).transpose()?;
        let fed = Fed {
            loader,
            wanted: wanted.to_vec(),
            is_augmented: true,
        };
        Ok((fed, judge))
    }
}

/// What tells the files of a source apart from others.
fn content(source: &dyn Source, path: &Path) -> Result<String> {
    let beside = source.beside().filter(|b| !b.starts_with(path));
    let beside = beside.map(edgesmith_data::digest).transpose()?;
    let own = edgesmith_data::digest(path)?;
    // The ending of a name says how a file is read.
    Ok(format!(
        "{own} {beside:?} {:?} {}",
        path.extension(),
        source.len()
    ))
}

/// No example has a class, and something needs one.
pub(crate) fn unlabelled() -> Error {
    Error::invalid("no example has a class").hint(
        "classes are whole numbers in an array, column or key `labels`, or --label NAME; numbers to meet are \
         learned by --values --loss mse, a teacher's answers by `edgesmith distill`",
    )
}

fn settings(given: &Given, base: &Path) -> Result<Settings> {
    let text = |name: &str| given.text(name).map(str::to_owned);
    let d = Settings::default();
    Ok(Settings {
        label: text("label"),
        values: given.flag("values"),
        text: given.texts("text"),
        tokenizer: given.text("tokenizer").map(|t| base.join(t)),
        tokens: given.count("tokens").unwrap_or(d.tokens),
        size: given.count("image-size").map(|n| [n, n]),
        channels: given.count("channels"),
        samples: given.count("sound-length"),
        class_in_name: given.flag("class-in-name"),
        ..d
    })
}

fn labels(source: &dyn Source, of: impl Iterator<Item = usize>) -> Result<Vec<i64>> {
    let place = || source.path().display().to_string();
    of.map(|i| match source.target(i).at(|| source.id(i)).at(place)? {
        Target::Class(c) => Ok(c),
        _ => Ok(-1),
    })
    .collect()
}

/// Examples as a training graph takes them.
pub struct Fed {
    loader: Loader,
    wanted: Vec<Wanted>,
    is_augmented: bool,
}

impl Fed {
    /// The tensors of a batch with the answers that are wanted.
    fn tensors(&self, feed: Feed) -> Result<Vec<(String, Tensor)>> {
        let Feed {
            indices,
            mut inputs,
            targets,
            mix,
        } = feed;
        for wanted in &self.wanted {
            match (wanted, &targets) {
                (Wanted::Labels, Targets::Classes(c)) => {
                    inputs.push(("labels".into(), Tensor::vector(c.clone())));
                }
                (Wanted::Labels, Targets::Unknown) => {
                    inputs.push(("labels".into(), Tensor::vector(vec![-1i64; indices.len()])));
                }
                (Wanted::Targets, Targets::Values(t)) => {
                    inputs.push(("targets".into(), t.clone()));
                }
                (Wanted::Teacher, _) => {}
                (Wanted::Shares(classes), Targets::Classes(c)) => {
                    let mix = mix.as_ref();
                    let mix = mix.ok_or_else(|| Error::internal("examples are not mixed"))?;
                    let shares = mix.shares(c, *classes)?;
                    let shares = Tensor::from_vec(&[c.len(), *classes], shares)?;
                    inputs.push(("shares".into(), shares));
                }
                (Wanted::Labels | Wanted::Shares(_), _) => {
                    return Err(Error::invalid(
                        "the labels are numbers, the loss needs classes",
                    ));
                }
                (Wanted::Targets, _) => {
                    return Err(Error::invalid("the loss needs numbers for each example")
                        .hint("--values, or --like-input for an autoencoder"));
                }
            }
        }
        Ok(inputs)
    }
}

impl Data for Fed {
    fn count(&self) -> usize {
        self.loader.len()
    }

    fn lengths(&self) -> Result<Option<Vec<usize>>> {
        self.loader.lengths()
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
        let own = self.loader.indices();
        let chosen: Vec<usize> = samples.iter().map(|&s| own[s]).collect();
        let epoch = self.is_augmented.then_some(epoch as u64);
        self.tensors(self.loader.feed(&chosen, epoch)?)
    }

    fn name(&self, sample: usize) -> String {
        let source = self.loader.source();
        let id = source.id(self.loader.indices()[sample]);
        format!("{}: {id}", source.path().display())
    }
}

/// Examples that judge a model.
pub struct Judged {
    loader: Loader,
    labels: Vec<i64>,
}

impl Judged {
    fn new(loader: Loader) -> Result<Self> {
        let labels = labels(loader.source(), loader.indices().iter().copied())?;
        Ok(Self { loader, labels })
    }

    /// The same examples as a training graph takes them, not augmented, for their loss.
    pub fn fed(&self, wanted: &[Wanted]) -> Fed {
        Fed {
            loader: self.loader.clone(),
            wanted: wanted.to_vec(),
            is_augmented: false,
        }
    }
}

impl Samples for Judged {
    fn count(&self) -> usize {
        self.loader.len()
    }

    fn labels(&self) -> Option<&[i64]> {
        self.labels.iter().any(|&l| l >= 0).then_some(&self.labels)
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let mut at = 0;
        Box::new(self.loader.in_order(size).map(move |feed| {
            let feed = feed?;
            let range = at..at + feed.indices.len();
            at = range.end;
            Ok((range, feed.inputs))
        }))
    }
}
