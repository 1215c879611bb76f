//! How sums of integers become bytes of another scale, without floats.
//!
//! `y = clamp(zero + ((acc << shift) * mult + 2^31 >> 32), lo, hi)` with one shift for a layer and one
//! multiplier, `round(factor * 2^(32 - shift))`, for a channel. The product is exact and rounded once,
//! halves up: one instruction each on Cortex-M with DSP (SMMLAR) and on Helium (VRMULH). Results
//! differ from those of floats (ONNX QuantizeLinear, halves to even) by at most one, next to a half.

use edgesmith_ir::{Error, Result};

/// Multipliers of channels with their common shift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requant {
    /// Of each channel, at least 0.
    pub mult: Vec<i32>,
    /// Sums are shifted to the left by so many bits.
    pub shift: u32,
    /// What 0 becomes.
    pub zero: i32,
    /// The least result.
    pub lo: i32,
    /// The greatest result.
    pub hi: i32,
}

impl Requant {
    /// For `factors`, the real numbers that sums are multiplied by, where no sum is farther from 0
    /// than `bound`.
    ///
    /// # Errors
    /// When a factor is negative or not finite, or so large that sums do not fit in 32 bits.
    pub fn new(factors: &[f64], bound: i64, zero: i32, lo: i32, hi: i32) -> Result<Self> {
        let most = factors.iter().copied().fold(0.0, f64::max);
        let sound = factors.iter().all(|f| f.is_finite() && *f >= 0.0);
        let mut shift = 0u32;
        while shift < 31 && (most * exp2(32 - shift)).round() >= 2f64.powi(31) {
            shift += 1;
        }
        if !sound || bound.max(1) > i64::from(i32::MAX) >> shift {
            return Err(Error::unsupported(format!(
                "sums of up to {bound} times {most:e} do not fit the 32 bits of the device"
            ))
            .hint("the scale of the result is far too small for its inputs: calibrate anew"));
        }
        let mult = factors
            .iter()
            .map(|f| (f * exp2(32 - shift)).round() as i32);
        Ok(Self {
            mult: mult.collect(),
            shift,
            zero,
            lo,
            hi,
        })
    }

    /// The result of a sum of channel `c`.
    pub fn apply(&self, acc: i32, c: usize) -> i32 {
        let product = i64::from(acc << self.shift) * i64::from(self.mult[c]);
        let rounded = ((product + (1 << 31)) >> 32) as i32;
        (self.zero + rounded).clamp(self.lo, self.hi)
    }
}

/// Multipliers of channels for sums of 64 bits, with their common shift.
///
/// `y = clamp((acc * mult + 2^(shift - 1)) >> shift, lo, hi)`; zero points are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requant16 {
    /// Of each channel.
    pub mult: Vec<i32>,
    /// Products are shifted to the right by so many bits.
    pub shift: u32,
    /// The least result.
    pub lo: i32,
    /// The greatest result.
    pub hi: i32,
}

impl Requant16 {
    /// For `factors`, the real numbers that sums are multiplied by, where no sum is farther from 0 than
    /// `bound`: with as many bits as 63 hold of a product.
    ///
    /// # Errors
    /// When a factor is negative or not finite, or leaves no bits.
    pub fn new(factors: &[f64], bound: i64, lo: i32, hi: i32) -> Result<Self> {
        let most = factors.iter().copied().fold(0.0, f64::max);
        let sound = factors.iter().all(|f| f.is_finite() && *f >= 0.0);
        let room = bound.max(1).leading_zeros().saturating_sub(2).min(31);
        let shift = (1..=62)
            .rev()
            .find(|&s| (most * exp2(s)).round() < exp2(room))
            .filter(|_| sound)
            .ok_or_else(|| {
                Error::unsupported(format!(
                    "sums of up to {bound} times {most:e} do not fit the 64 bits of the device"
                ))
            })?;
        Ok(Self {
            mult: factors
                .iter()
                .map(|f| (f * exp2(shift)).round() as i32)
                .collect(),
            shift,
            lo,
            hi,
        })
    }

    /// The result of a sum of channel `c`.
    pub fn apply(&self, acc: i64, c: usize) -> i16 {
        let y = (acc * i64::from(self.mult[c]) + (1 << (self.shift - 1))) >> self.shift;
        y.clamp(i64::from(self.lo), i64::from(self.hi)) as i16
    }
}

fn exp2(n: u32) -> f64 {
    2f64.powi(n as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_floats_but_next_to_halves() {
        let factors = [0.0037, 0.9, 1.7, 3e-5];
        let r = Requant::new(&factors, 200_000, -3, -128, 127).unwrap();
        for (c, f) in factors.iter().enumerate() {
            for acc in (-200_000..200_000).step_by(37) {
                let exact = f64::from(acc) * f;
                let float = (exact.round_ties_even() - 3.0).clamp(-128.0, 127.0) as i32;
                let half = (exact - exact.floor() - 0.5).abs();
                let found = r.apply(acc, c);
                assert!((found - float).abs() <= 1, "{acc} {f}");
                assert!(found == float || half < 1e-3, "{acc} {f}: {found} {float}");
            }
        }
    }

    #[test]
    fn sums_of_64_bits_are_within_one_of_floats() {
        for factor in [0.3, 1e-4, 3e-7] {
            let bound = (40_000.0 / factor) as i64;
            let r = Requant16::new(&[factor], bound, -32768, 32767).unwrap();
            for n in -1000..1000 {
                let acc = bound / 1000 * n;
                let exact = (acc as f64 * factor).clamp(-32768.0, 32767.0);
                assert!(
                    (f64::from(r.apply(acc, 0)) - exact).abs() < 0.51,
                    "{acc} {factor}"
                );
            }
        }
    }

    #[test]
    fn factors_that_leave_no_room_are_refused() {
        assert!(Requant::new(&[1e6], 1 << 20, 0, -128, 127).is_err());
        assert!(Requant::new(&[f64::NAN], 1, 0, -128, 127).is_err());
    }
}
