//! Numbers by chance that a seed gives: the same on every machine, whatever the order in which they are asked for.

/// A stream of numbers by SplitMix64 (G. Steele, D. Lea and C. Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

/// How far the state goes at each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of these numbers together: a seed, an epoch, a step, ….
    pub fn of(numbers: &[u64]) -> Self {
        let fold = |state: Self, n: &u64| Self(Self(state.0 ^ n).bits());
        numbers.iter().fold(Self(0x5eed), fold)
    }

    /// The stream of a sample, which is none of [`Random::of`] the same numbers: what is done to
    /// samples and what is drawn for a network have nothing to do with each other.
    pub fn of_sample(place: &[u64]) -> Self {
        let fold = |state: u64, n: &u64| mix(state.wrapping_add(STEP) ^ mix(*n));
        Self(place.iter().fold(0, fold))
    }

    /// The same stream, `count` numbers later.
    #[must_use]
    pub fn after(&self, count: u64) -> Self {
        Self(self.0.wrapping_add(count.wrapping_mul(STEP)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `end`, which is not 0; each as likely.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// A number from 0 up to 1, which does not come.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (G. Box and M. Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (radius, turn) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }

    /// A number of the beta distribution with both parameters `alpha`, which is positive.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(alpha));
        if a + b > 0.0 { a / (a + b) } else { 0.5 }
    }

    /// A number of the gamma distribution with scale 1 (G. Marsaglia and W. Tsang, 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.unit();
            if v > 0.0 && u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    /// The numbers below `count`, in an order by chance (R. Fisher and F. Yates, 1938).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// `count` of the numbers below `all`, or all, in an order by chance: a shuffle that stops early.
    pub fn some(&mut self, count: usize, all: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..all).collect();
        let count = count.min(all);
        for i in 0..count {
            order.swap(i, i + self.below(all - i));
        }
        order.truncate(count);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for the seed 1234567, of the public reference program.
        let mut random = Random::new(1_234_567);
        let known = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(known.map(|_| random.bits()), known);
        assert_eq!(Random::new(1_234_567).after(2).bits(), known[2]);
    }

    #[test]
    fn places_have_numbers_of_their_own_and_each_time_the_same() {
        for stream in [Random::of, Random::of_sample] {
            let first = |place: &[u64]| stream(place).bits();
            let mut seen = std::collections::BTreeSet::new();
            for i in 0..1000 {
                assert!(seen.insert(first(&[i / 100, i / 10 % 10, i % 10])));
            }
            assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
            assert_ne!(first(&[1]), first(&[1, 0]));
        }
        assert_ne!(Random::of(&[1]).bits(), Random::of_sample(&[1]).bits());
    }

    #[test]
    fn distributions_have_their_means_and_deviations() {
        let spread = |draw: &mut dyn FnMut() -> f64| {
            let x: Vec<f64> = (0..20_000).map(|_| draw()).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            (mean, square)
        };
        let mut random = Random::new(3);
        let (mean, square) = spread(&mut || random.normal());
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.05,
            "{mean} {square}"
        );
        for alpha in [0.2, 1.0, 4.0] {
            let (mean, square) = spread(&mut || random.beta(alpha));
            let known = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            let close = (mean - 0.5).abs() < 0.02 && (square / known - 1.0).abs() < 0.05;
            assert!(close, "{alpha}: {mean} {square}");
        }
        let (mean, square) = spread(&mut || random.unit());
        assert!((mean - 0.5).abs() < 0.01 && (square * 12.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn an_order_has_every_number_once_and_follows_the_seed() {
        let ways: [fn(&mut Random, usize) -> Vec<usize>; 2] = [Random::order, |r, n| r.some(n, n)];
        for way in ways {
            let of = |seed| way(&mut Random::of(&[seed, 1]), 100);
            let mut sorted = of(3);
            assert_eq!(sorted, of(3));
            assert_ne!(sorted, of(4));
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
            assert!(way(&mut Random::new(0), 0).is_empty());
        }
    }

    #[test]
    fn some_are_the_first_of_the_same_shuffle() {
        let of = |count| Random::new(7).some(count, 50);
        assert_eq!(of(9), of(50)[..9]);
        assert_eq!(of(60), of(50));
    }
}
