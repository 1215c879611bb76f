//! Sums of products of bytes, two at a time in 16 bits or all without loss.

use crate::target::PairSums;

/// Products of one sum that are added in 32 bits before they go to 64: 2¹⁵ · 255 · 128 < 2³¹.
const EXACT: usize = 1 << 15;

/// Weights of one output: signed bytes along the sum, and the pairs that may saturate.
pub(super) struct Row {
    weights: Vec<i16>,
    /// Σw.
    total: i64,
    /// Pairs of which some activations overflow 16 bits, by the index of their first weight.
    risky: Vec<u32>,
}

impl Row {
    pub fn new(weights: &[i8]) -> Self {
        let part = |a: i8, b: i8| {
            let positive = i32::from(a.max(0)) + i32::from(b.max(0));
            let negative = i32::from(a.min(0)) + i32::from(b.min(0));
            255 * positive > i32::from(i16::MAX) || 255 * negative < i32::from(i16::MIN)
        };
        let pairs = weights.chunks_exact(2).enumerate();
        Self {
            weights: weights.iter().map(|&w| i16::from(w)).collect(),
            total: weights.iter().map(|&w| i64::from(w)).sum(),
            risky: pairs
                .filter(|(_, p)| part(p[0], p[1]))
                .map(|(i, _)| 2 * i as u32)
                .collect(),
        }
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// `Σ (x − zero)·w` as the device adds it, for activations 0 to 255 with that zero point;
    /// what saturates is added to `saturated`.
    pub fn sum(&self, x: &[i16], zero: i64, pairs: PairSums, saturated: &mut u64) -> i64 {
        let chunks = x.chunks(EXACT).zip(self.weights.chunks(EXACT));
        let mut sum: i64 = chunks.map(|(x, w)| i64::from(dot(x, w))).sum();
        if pairs == PairSums::Saturate {
            for &i in &self.risky {
                let i = i as usize;
                let product = |i: usize| i32::from(x[i]) * i32::from(self.weights[i]);
                let pair = product(i) + product(i + 1);
                let kept = pair.clamp(i32::from(i16::MIN), i32::from(i16::MAX));
                if kept != pair {
                    sum += i64::from(kept - pair);
                    *saturated += 1;
                }
            }
        }
        sum - zero * self.total
    }
}

fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter()
        .zip(w)
        .map(|(&x, &w)| i32::from(x) * i32::from(w))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `vpmaddubsw` and adds, as its manual writes them.
    fn by_definition(x: &[i16], w: &[i8], zero: i64) -> (i64, u64) {
        let (mut sum, mut saturated) = (0, 0);
        for i in (0..x.len()).step_by(2) {
            let product = |i: usize| {
                let (x, w) = (
                    x.get(i).copied().unwrap_or(0),
                    w.get(i).copied().unwrap_or(0),
                );
                i64::from(x) * i64::from(w)
            };
            let pair = product(i) + product(i + 1);
            let kept = i64::from(i16::try_from(pair).unwrap_or(if pair > 0 {
                i16::MAX
            } else {
                i16::MIN
            }));
            saturated += u64::from(kept != pair);
            sum += kept;
        }
        (
            sum - zero * w.iter().map(|&w| i64::from(w)).sum::<i64>(),
            saturated,
        )
    }

    #[test]
    fn pairs_saturate_as_the_instruction_does() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        for len in [0, 1, 2, 3, 7, 8, 64, 129] {
            for _ in 0..50 {
                let x: Vec<i16> = (0..len).map(|_| next().max(180) as i16).collect();
                let w: Vec<i8> = (0..len).map(|_| next() as u8 as i8).collect();
                let mut saturated = 0;
                let sum = Row::new(&w).sum(&x, 13, PairSums::Saturate, &mut saturated);
                assert_eq!((sum, saturated), by_definition(&x, &w, 13), "{len}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_exact() {
        let sum = |x: [i16; 2], w: [i8; 2]| {
            let mut saturated = 0;
            (
                Row::new(&w).sum(&x, 0, PairSums::Saturate, &mut saturated),
                saturated,
            )
        };
        assert_eq!(sum([255, 255], [127, 1]), (32640, 0));
        assert_eq!(sum([255, 255], [127, 2]), (32767, 1));
        assert_eq!(sum([255, 255], [-128, 0]), (-32640, 0));
        assert_eq!(sum([255, 255], [-128, -1]), (-32768, 1));
        assert_eq!(sum([255, 255], [-128, 127]), (-255, 0));
        assert_eq!(sum([0, 255], [127, 127]), (32385, 0));
    }

    #[test]
    fn seven_bits_never_saturate() {
        let row = Row::new(&[63, 63, -63, -63, -64, -64]);
        assert!(row.risky.is_empty());
    }
}
