//! Numbers by chance that depend on nothing but where they are asked for: a seed, an epoch, a sample.

/// A stream of numbers by SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of a place, which its numbers tell from all others: a seed, an epoch, a sample, ….
    pub fn of(place: &[u64]) -> Self {
        let fold = |state: u64, part: &u64| mix(state.wrapping_add(GOLDEN) ^ mix(*part));
        Self(place.iter().fold(0, fold))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `end`, which is not 0; each as likely.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// A number from 0 up to 1, which does not come.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let (radius, turn) = (1.0 - self.share(), self.share());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }

    /// A number of the beta distribution with both parameters `alpha`, which is positive.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(alpha));
        if a + b > 0.0 { a / (a + b) } else { 0.5 }
    }

    /// A number of the gamma distribution with scale 1 (Marsaglia and Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.share()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.share();
            if v > 0.0 && u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }
}

/// The numbers below `count` in an order by chance (Fisher and Yates).
pub fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in 0..count {
        order.swap(i, i + random.below(count - i));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_numbers_of_its_own_each_time() {
        let first = |place: &[u64]| Random::of(place).bits();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..10 {
            for epoch in 0..10 {
                for sample in 0..10 {
                    assert!(seen.insert(first(&[seed, epoch, sample])));
                }
            }
        }
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        assert_ne!(first(&[1]), first(&[1, 0]));
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // Steele, Lea and Flood's algorithm from the state 1234567.
        let mut random = Random::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        let known = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(numbers, known);
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
        let (mean, square) = spread(&mut || random.share());
        assert!((mean - 0.5).abs() < 0.01 && (square * 12.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_shuffle_is_an_order_of_all() {
        let order = shuffled(100, &mut Random::of(&[7, 0]));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, shuffled(100, &mut Random::of(&[7, 0])));
        assert_ne!(order, shuffled(100, &mut Random::of(&[7, 1])));
        assert!(shuffled(0, &mut Random::new(0)).is_empty());
    }
}
