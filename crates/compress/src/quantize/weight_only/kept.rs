//! A rounded weight as it is kept until the model is written: codes take their bits.

use edgesmith_ir::{Error, Result};
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Scheme, Zeros};
use super::method::Rounded;
use crate::quantize::changes::WeightChange;

/// A rounded weight, and what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    n: usize,
    k: usize,
    scheme: Scheme,
    /// Two or four in a byte, the first in the low bits.
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Zeros,
    change: WeightChange,
}

/// Bits that a code takes: 2, 4 or 8.
fn stored_bits(scheme: Scheme) -> usize {
    scheme.bits.next_power_of_two()
}

impl Kept {
    /// Packs the codes.
    ///
    /// # Errors
    /// For codes of a table.
    pub fn of((rounded, change): (Rounded, WeightChange)) -> Result<Self> {
        let Rounded::Blocks(blocks) = rounded else {
            return Err(Error::internal("methods with data make codes in blocks"));
        };
        let bits = stored_bits(blocks.scheme);
        let byte = |codes: &[u8]| {
            let placed = codes.iter().enumerate().map(|(i, c)| c << (i * bits));
            placed.fold(0, |byte, c| byte | c)
        };
        Ok(Self {
            n: blocks.n,
            k: blocks.k,
            scheme: blocks.scheme,
            codes: blocks.codes.chunks(8 / bits).map(byte).collect(),
            scales: blocks.scales,
            zeros: blocks.zeros,
            change,
        })
    }

    /// What [`Kept::of`] was given.
    pub fn rounded(self) -> (Rounded, WeightChange) {
        let bits = stored_bits(self.scheme);
        let mask = u8::MAX >> (8 - bits);
        let of_byte = |&byte: &u8| (0..8 / bits).map(move |i| byte >> (i * bits) & mask);
        let mut codes = Vec::with_capacity(self.codes.len() * (8 / bits));
        codes.extend(self.codes.iter().flat_map(of_byte));
        codes.truncate(self.n * self.k);
        let blocks = Blocks {
            n: self.n,
            k: self.k,
            scheme: self.scheme,
            codes,
            scales: self.scales,
            zeros: self.zeros,
        };
        (Rounded::Blocks(blocks), self.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_width_come_back() {
        for bits in [2, 3, 4, 8] {
            let scheme = Scheme {
                bits,
                group: 16,
                symmetric: false,
            };
            let most = scheme.most() as usize;
            let blocks = Blocks {
                n: 3,
                k: 7,
                scheme,
                codes: (0..21).map(|i| (i * 37 % (most + 1)) as u8).collect(),
                scales: vec![0.5; 3],
                zeros: Zeros::Codes(vec![1, 2, 3]),
            };
            let one = (Rounded::Blocks(blocks), WeightChange::default());
            let kept = Kept::of(one.clone()).unwrap();
            assert!(kept.codes.len() <= (21 * bits.next_power_of_two()).div_ceil(8));
            assert_eq!(kept.rounded(), one);
        }
    }
}
