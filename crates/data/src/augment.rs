//! Augmentation: other samples of the same meaning, by chance that a seed rules.
//!
//! To add one: write its file from its nearest neighbour, add the `mod` line and the row.

use std::fmt;

use edgesmith_ir::{Error, Result};

use edgesmith_ir::random::Random;

mod crop;
mod cutout;
mod drop;
mod flip;
mod mixup;
mod noise;
mod shift;
mod span;

pub use crop::moved;
pub use cutout::cut;
pub use flip::flipped;
pub use mixup::Mix;
pub use noise::add_noise;
pub use shift::shifted;

/// A row of the list.
pub struct AugmentDef {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence, which tells what the amount is.
    pub about: &'static str,
    /// The amount where none is given.
    pub amount: f32,
    /// What it does.
    pub apply: Apply,
}

/// By its name alone: functions lie elsewhere in every run.
impl fmt::Debug for AugmentDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What is done, with numbers by chance and an amount.
pub enum Apply {
    /// To one image.
    Image(fn(&mut Random, f32, &mut Planes)),
    /// To one sound.
    Audio(fn(&mut Random, f32, &mut [f32])),
    /// To a text of so many words: the places of those that stay, in order.
    Words(fn(&mut Random, f32, usize) -> Vec<usize>),
    /// To a batch of so many samples.
    Batch(fn(&mut Random, f32, usize) -> Mix),
}

impl fmt::Debug for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image(_) => "image",
            Self::Audio(_) => "audio",
            Self::Words(_) => "words",
            Self::Batch(_) => "batch",
        })
    }
}

/// An image as planes `[channels, height, width]`.
#[derive(Debug)]
pub struct Planes<'a> {
    /// Its numbers.
    pub data: &'a mut [f32],
    /// Channels, height and width.
    pub dims: [usize; 3],
}

/// Every augmentation: those of images, of sounds, of texts, of batches.
pub static AUGMENTS: &[&AugmentDef] = &[
    &flip::FLIP,
    &crop::CROP,
    &cutout::CUTOUT,
    &noise::NOISE,
    &shift::SHIFT,
    &drop::DROP,
    &span::SPAN,
    &mixup::MIXUP,
];

/// An augmentation with its amount.
#[derive(Debug, Clone, Copy)]
pub struct Augment {
    /// What is done.
    pub def: &'static AugmentDef,
    /// How much.
    pub amount: f32,
}

impl Augment {
    /// True where it mixes the samples of a batch.
    pub fn mixes(&self) -> bool {
        matches!(self.def.apply, Apply::Batch(_))
    }

    /// Reads `NAME` or `NAME=AMOUNT`.
    ///
    /// # Errors
    /// When there is none of that name, or the amount is no number from 0 on.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, amount) = match text.split_once('=') {
            Some((name, amount)) => (name.trim(), Some(amount.trim())),
            None => (text.trim(), None),
        };
        let names = AUGMENTS.iter().map(|a| a.name);
        let def = AUGMENTS.iter().find(|a| a.name == name);
        let def = def.ok_or_else(|| Error::unknown("augmentation", name, names))?;
        let amount = match amount {
            None => def.amount,
            Some(text) => text
                .parse()
                .ok()
                .filter(|a: &f32| a.is_finite() && *a >= 0.0)
                .ok_or_else(|| {
                    Error::usage(format!("{name} takes a number from 0 on, not \"{text}\""))
                        .hint(def.about)
                })?,
        };
        Ok(Self { def, amount })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_amounts_or_the_usual_one() {
        assert_eq!(Augment::parse("crop = 2").unwrap().amount, 2.0);
        let usual = Augment::parse("mixup").unwrap();
        assert_eq!((usual.def.name, usual.amount), ("mixup", usual.def.amount));
        for (text, what) in [
            ("crip", "did you mean \"crop\""),
            ("zzzzzz", "there is flip, crop"),
            ("crop=x", "a number"),
            ("crop=-1", "from 0"),
        ] {
            let e = Augment::parse(text).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }

    #[test]
    fn what_is_printed_is_the_same_in_every_run() {
        for def in AUGMENTS {
            let augment = Augment::parse(def.name).unwrap();
            let told = format!("{augment:?} {:?}", def.apply);
            assert!(told.contains(def.name) && !told.contains("0x"), "{told}");
        }
    }

    #[test]
    fn any_size_and_amount_keeps_what_is_finite() {
        for def in AUGMENTS {
            for amount in [0.0, 0.3, 1.0, 7.0, 1e30] {
                for n in [0, 1, 5] {
                    let mut random = Random::of_sample(&[n as u64]);
                    let mut data = vec![0.5f32; 3 * n * n];
                    match def.apply {
                        Apply::Image(f) => f(
                            &mut random,
                            amount,
                            &mut Planes {
                                data: &mut data,
                                dims: [3, n, n],
                            },
                        ),
                        Apply::Audio(f) => f(&mut random, amount.min(1e3), &mut data),
                        Apply::Words(f) => {
                            let kept = f(&mut random, amount, n);
                            assert!(kept.is_sorted_by(|a, b| a < b) && kept.iter().all(|k| *k < n));
                            assert!(n == 0 || kept.contains(&0) && kept.contains(&(n - 1)));
                        }
                        Apply::Batch(f) => f(&mut random, amount, n).blend(&mut data, n),
                    }
                    assert!(
                        data.iter().all(|x| x.is_finite()),
                        "{} {amount} {n}",
                        def.name
                    );
                }
            }
        }
    }
}
