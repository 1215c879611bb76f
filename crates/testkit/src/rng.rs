//! Random numbers that are the same on every machine: xoshiro256++, seeded by splitmix64.

use edgesmith_ir::random::Random;
use edgesmith_ir::{DType, Tensor, checked_count};

/// A generator (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021).
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of a seed; nearby seeds give unrelated numbers.
    pub fn new(seed: u64) -> Self {
        let mut split = Random::new(seed);
        Self {
            state: std::array::from_fn(|_| split.bits()),
        }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number under `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.next_u64()) * n as u128;
        usize::try_from(wide >> 64).expect("the product's upper half is under n")
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Evenly spread over `low..high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next_u64() >> 40) as f32 / (1u64 << 24) as f32;
        low + (high - low) * unit
    }

    /// A tensor of f32 spread over `low..high`.
    pub fn floats(&mut self, dims: &[usize], low: f32, high: f32) -> Tensor {
        let n = checked_count(dims).expect("a test's tensor is small");
        let data = (0..n).map(|_| self.uniform(low, high)).collect();
        Tensor::from_vec(dims, data).expect("the data has the count of its dims")
    }

    /// A tensor of any type with whole bytes: floats of −2 to 2, integers of any value (those of
    /// over 8 bits small), booleans. `None` for other types.
    pub fn tensor(&mut self, dtype: DType, dims: &[usize]) -> Option<Tensor> {
        let n = checked_count(dims).ok()?;
        macro_rules! each {
            ($value:expr) => {
                Tensor::from_vec(dims, (0..n).map(|_| $value).collect()).ok()
            };
        }
        match dtype {
            DType::F32 => Some(self.floats(dims, -2.0, 2.0)),
            DType::F64 => each!(f64::from(self.uniform(-2.0, 2.0))),
            DType::I64 => each!(self.below(16) as i64),
            DType::I32 => each!(self.below(16) as i32),
            DType::U8 => each!(self.next_u64() as u8),
            DType::I8 => each!(self.next_u64() as i8),
            DType::Bool => {
                let bits: Vec<bool> = (0..n).map(|_| self.one_in(2)).collect();
                Tensor::from_bools(dims, &bits).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_of_a_seed_stay() {
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        assert_eq!(rng.next_u64(), 41_943_041);
        assert_eq!(rng.next_u64(), 58_720_359);
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut rng = Rng::new(7);
        let drawn: Vec<usize> = (0..200).map(|_| rng.between(2, 5)).collect();
        assert_eq!(drawn.iter().min(), Some(&2));
        assert_eq!(drawn.iter().max(), Some(&5));
        assert!((0..200).all(|_| (-1.0..1.0).contains(&rng.uniform(-1.0, 1.0))));
    }
}
