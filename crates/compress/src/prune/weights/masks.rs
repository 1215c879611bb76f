//! Masks: which numbers of which constants stay.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Model, Result, Tensor};

use super::pattern::Pattern;

/// The mask of a constant, in the order of its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// The lengths of the constant.
    pub dims: Vec<usize>,
    /// A bit for each element, eight in a byte, the first in the lowest; 1 stays.
    pub bits: Vec<u8>,
}

impl Mask {
    /// The mask of a constant of these lengths.
    pub fn of(dims: &[usize], kept: &[bool]) -> Self {
        let byte = |part: &[bool]| {
            let bits = part.iter().enumerate();
            bits.fold(0u8, |byte, (i, &stays)| byte | u8::from(stays) << i)
        };
        Self {
            dims: dims.to_vec(),
            bits: kept.chunks(8).map(byte).collect(),
        }
    }

    /// True for each element that stays.
    pub fn kept(&self) -> Vec<bool> {
        let count = self.dims.iter().product();
        (0..count)
            .map(|i| self.bits[i / 8] >> (i % 8) & 1 == 1)
            .collect()
    }

    /// Elements that go.
    pub fn gone(&self) -> usize {
        self.kept().iter().filter(|k| !**k).count()
    }

    /// # Errors
    /// When there are not as many bits as elements.
    pub fn check(&self) -> Result<()> {
        let count = self.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        match count.map(|n| n.div_ceil(8)) {
            Some(bytes) if bytes == self.bits.len() => Ok(()),
            _ => Err(Error::invalid(format!(
                "a mask of {:?} elements has {} bytes",
                self.dims,
                self.bits.len()
            ))),
        }
    }
}

/// The masks of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masks {
    /// How zeros lie.
    pub pattern: Pattern,
    /// A digest of the model that they were made of.
    pub model: String,
    /// By the name of the constant.
    pub all: BTreeMap<String, Mask>,
}

impl Masks {
    /// Checks that each mask is of a constant of the model of its lengths.
    ///
    /// # Errors
    /// When one is not.
    pub fn belong(&self, model: &Model) -> Result<()> {
        for (name, mask) in &self.all {
            let found = model.graph.find_value(name);
            let t = found.and_then(|v| model.graph.constant(v));
            let dims = t.map(Tensor::dims);
            if dims != Some(&mask.dims[..]) {
                let what = match dims {
                    None => format!("the model has no constant \"{name}\""),
                    Some(d) => format!("\"{name}\" is {d:?}, its mask {:?}", mask.dims),
                };
                return Err(Error::invalid(what).hint("the masks are of another model"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_what_they_were() {
        for n in [1, 7, 8, 9, 64, 100] {
            let kept: Vec<bool> = (0..n).map(|i| i * i % 3 == 1).collect();
            let mask = Mask::of(&[n], &kept);
            assert_eq!(mask.bits.len(), n.div_ceil(8));
            mask.check().unwrap();
            assert_eq!(mask.kept(), kept);
            assert_eq!(mask.gone(), kept.iter().filter(|k| !**k).count());
        }
        let mut short = Mask::of(&[9], &[true; 9]);
        short.bits.pop();
        assert!(short.check().is_err());
    }
}
