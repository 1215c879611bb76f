//! What the kernels on int8 compute, in Rust, and the numbers that they take.

/// `clamp(zero + round((acc << shift) * mult / 2^32), lo, hi)`, halves up.
pub fn requantise(acc: i32, mult: i32, shift: u32, zero: i32, bounds: [i32; 2]) -> i8 {
    let scaled = i64::from(acc) << shift;
    let y = (scaled * i64::from(mult) + 0x8000_0000) >> 32;
    let [lo, hi] = bounds.map(i64::from);
    (y + i64::from(zero)).clamp(lo, hi) as i8
}

/// The multiplier of [`requantise`] for a factor that is not negative: `factor * 2^(32 - shift)`, rounded;
/// nothing where that is 2^31 or more.
pub fn multiplier(factor: f64, shift: u32) -> Option<i32> {
    let mult = (factor * 2f64.powi(32 - shift as i32)).round();
    (0.0..2_147_483_648.0)
        .contains(&mult)
        .then_some(mult as i32)
}

/// The numbers of `add8`: `y = clamp(zero + ((a * mult_a + b * mult_b + bias) >> shift), lo, hi)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Add8 {
    /// The factor of a times 2^shift.
    pub mult_a: i32,
    /// The factor of b times 2^shift.
    pub mult_b: i32,
    /// What the zero points and the rounding add.
    pub bias: i32,
    /// Bits of the fraction.
    pub shift: u32,
}

impl Add8 {
    /// For `y = (factor_a * (a - zero_a) + factor_b * (b - zero_b))`, where the factors are scales over
    /// the scale of y, or less than 0 for a difference: the most bits for which no sum leaves 32 bits.
    /// Nothing where a factor is so great that none are left.
    pub fn of(factors: [f64; 2], zeros: [i8; 2]) -> Option<Self> {
        (1..=30).rev().find_map(|shift| {
            let [a, b] = factors.map(|f| (f * f64::from(1u32 << shift)).round());
            let most = (a.abs() + b.abs()) * 255.0 + f64::from(1u32 << (shift - 1));
            (most < 2_147_483_648.0).then(|| {
                let (mult_a, mult_b) = (a as i32, b as i32);
                let zero = |i: usize, m: i32| i32::from(zeros[i]).wrapping_mul(m);
                let zeros = zero(0, mult_a).wrapping_add(zero(1, mult_b));
                Self {
                    mult_a,
                    mult_b,
                    bias: (1i32 << (shift - 1)).wrapping_sub(zeros),
                    shift,
                }
            })
        })
    }

    /// One sum.
    pub fn apply(&self, a: i8, b: i8, zero: i32, bounds: [i32; 2]) -> i8 {
        let sum = i32::from(a).wrapping_mul(self.mult_a);
        let sum = sum.wrapping_add(i32::from(b).wrapping_mul(self.mult_b));
        let v = sum.wrapping_add(self.bias) >> self.shift;
        v.saturating_add(zero).clamp(bounds[0], bounds[1]) as i8
    }
}

/// The table of `softmax8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Softmax8 {
    /// Bits of the fraction of the table.
    pub bits: u32,
    /// `round(2^bits * exp(-d * scale))` for each distance from the greatest.
    pub table: Vec<u32>,
}

impl Softmax8 {
    /// For rows of `n` numbers of this scale.
    pub fn of(scale: f64, n: usize) -> Self {
        let bits = 30 - (n.max(1) as u64).next_power_of_two().ilog2().min(29);
        let one = f64::from(1u32 << bits);
        let value = |d: u32| (one * (-f64::from(d) * scale).exp()).round() as u32;
        Self {
            bits,
            table: (0..256).map(value).collect(),
        }
    }

    /// A row, by the multiplier of [`requantise`] for `2^-30 / scale of y`.
    pub fn apply(&self, row: &[i8], mult: i32, zero: i32, bounds: [i32; 2]) -> Vec<i8> {
        let most = i32::from(row.iter().copied().max().unwrap_or(0));
        let of = |q: i8| self.table[(most - i32::from(q)) as usize];
        let sum: u32 = row.iter().map(|q| of(*q)).sum();
        let inverse = (1u64 << (self.bits + 31)) / u64::from(sum.max(1));
        let part = |q: i8| ((u64::from(of(q)) * inverse) >> (self.bits + 1)) as i32;
        let y = |q: &i8| requantise(part(*q), mult, 0, zero, bounds);
        row.iter().map(y).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::random::Random;

    #[test]
    fn sums_are_within_a_half_of_the_real_ones() {
        let mut r = Random::new(3);
        for _ in 0..2000 {
            let factors = [r.unit() * 3.0 - 1.0, r.unit() * 2.0];
            let zeros = [r.bits() as i8, r.bits() as i8];
            let (a, b) = (r.bits() as i8, r.bits() as i8);
            let add = Add8::of(factors, zeros).unwrap();
            let part = |f: f64, v: i8, z: i8| f * (f64::from(v) - f64::from(z));
            let real = part(factors[0], a, zeros[0]) + part(factors[1], b, zeros[1]);
            let real = (real + 3.0).clamp(-128.0, 127.0);
            let got = f64::from(add.apply(a, b, 3, [-128, 127]));
            assert!(
                (got - real).abs() < 0.501,
                "{factors:?} {a} {b}: {got}, not {real}"
            );
        }
        assert_eq!(Add8::of([1e9, 1.0], [0, 0]), None);
    }

    #[test]
    fn softmax_is_within_a_half_of_the_real_one() {
        let mut r = Random::new(4);
        for n in [1, 2, 10, 100, 1000] {
            let row: Vec<i8> = (0..n).map(|_| r.bits() as i8).collect();
            let scale = 0.05;
            let softmax = Softmax8::of(scale, n);
            let mult = multiplier(256.0 / f64::from(1 << 30), 0).unwrap();
            let got = softmax.apply(&row, mult, -128, [-128, 127]);
            let exps: Vec<f64> = row.iter().map(|q| (f64::from(*q) * scale).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (g, e) in got.iter().zip(&exps) {
                let real = (e / sum * 256.0 - 128.0).clamp(-128.0, 127.0);
                assert!((f64::from(*g) - real).abs() < 0.51, "{n}: {g}, not {real}");
            }
        }
    }

    #[test]
    fn multipliers_are_below_half() {
        assert_eq!(multiplier(0.25, 0), Some(1 << 30));
        assert_eq!(multiplier(0.25, 1), Some(1 << 29));
        assert_eq!(multiplier(0.5, 0), None);
        assert_eq!(requantise(3, i32::MAX, 1, -1, [-128, 127]), 2);
    }
}
