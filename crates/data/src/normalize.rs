//! What is done to pixels before a model sees them: a factor, and a mean and a deviation by channel.

use edgesmith_ir::{Error, Result};

/// `(x · scale − mean) / deviation`, by channel or the same for all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The factor.
    pub scale: f32,
    /// What is taken away then, of each channel.
    pub mean: &'static [f32],
    /// By what it is divided then, of each channel.
    pub deviation: &'static [f32],
}

const BYTE: f32 = 1.0 / 255.0;

/// Every way, for pixels that are bytes.
pub static NORMALIZATIONS: &[Normalize] = &[
    Normalize {
        name: "unit",
        about: "From 0 to 1",
        scale: BYTE,
        mean: &[0.0],
        deviation: &[1.0],
    },
    Normalize {
        name: "signed",
        about: "From -1 to 1",
        scale: BYTE,
        mean: &[0.5],
        deviation: &[0.5],
    },
    Normalize {
        name: "mnist",
        about: "By mean and deviation of MNIST",
        scale: BYTE,
        mean: &[0.1307],
        deviation: &[0.3081],
    },
    Normalize {
        name: "cifar10",
        about: "By means and deviations of CIFAR-10",
        scale: BYTE,
        mean: &[0.4914, 0.4822, 0.4465],
        deviation: &[0.2470, 0.2435, 0.2616],
    },
    Normalize {
        name: "imagenet",
        about: "By means and deviations of ImageNet, as torchvision has them",
        scale: BYTE,
        mean: &[0.485, 0.456, 0.406],
        deviation: &[0.229, 0.224, 0.225],
    },
];

impl Normalize {
    /// Finds a way by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Self> {
        let names = NORMALIZATIONS.iter().map(|n| n.name);
        let found = NORMALIZATIONS.iter().copied().find(|n| n.name == name);
        found.ok_or_else(|| Error::unknown("normalization", name, names))
    }

    /// True where it has numbers for so many channels.
    pub fn fits(&self, channels: usize) -> bool {
        [self.mean.len(), self.deviation.len()]
            .iter()
            .all(|&n| n == 1 || n == channels)
    }

    /// Normalizes planes of so many channels that it fits.
    pub fn apply(&self, planes: &mut [f32], channels: usize) {
        let length = planes.len() / channels.max(1);
        let of = |list: &[f32], c: usize| list[c.min(list.len() - 1)];
        for (c, plane) in planes.chunks_exact_mut(length.max(1)).enumerate() {
            let (mean, deviation) = (of(self.mean, c), of(self.deviation, c));
            plane
                .iter_mut()
                .for_each(|x| *x = (*x * self.scale - mean) / deviation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_their_own_means() {
        let way = Normalize::find("imagenet").unwrap();
        let mut planes = [255.0, 0.0, 255.0];
        way.apply(&mut planes, 3);
        let expected = [(1.0 - 0.485) / 0.229, -0.456 / 0.224, (1.0 - 0.406) / 0.225];
        let close = planes
            .iter()
            .zip(expected)
            .all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5);
        assert!(close, "{planes:?}");
        assert!(way.fits(3) && !way.fits(1) && Normalize::find("unit").unwrap().fits(7));
    }

    #[test]
    fn names_are_told_where_one_is_unknown() {
        for (name, what) in [("imagnet", "\"imagenet\""), ("none", "unit, signed, mnist")] {
            let e = Normalize::find(name).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }
}
