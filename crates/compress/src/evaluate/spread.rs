//! How sure a ratio of signal to noise is, by how samples differ.

use edgesmith_ir::{Result, Tensor};

/// Signal and noise of each sample.
#[derive(Default)]
pub(super) struct Spread {
    /// `[Σr², Σ(r − x)²]` of each.
    samples: Vec<[f64; 2]>,
    /// An output was not one part for each sample.
    mixed: bool,
}

impl Spread {
    pub fn add(&mut self, pairs: &[(&Tensor, &Tensor)], samples: usize) -> Result<()> {
        let first = self.samples.len();
        self.samples.resize(first + samples, [0.0; 2]);
        for (r, x) in pairs {
            if r.dims().first() != Some(&samples) || r.count() == 0 {
                self.mixed = true;
                return Ok(());
            }
            let part = r.count() / samples;
            let (r, x) = (r.to_f32()?, x.to_f32()?);
            let parts = r.chunks_exact(part).zip(x.chunks_exact(part));
            for (sum, (r, x)) in self.samples[first..].iter_mut().zip(parts) {
                for (&r, &x) in r.iter().zip(x) {
                    let (r, x) = (f64::from(r), f64::from(x));
                    sum[0] += r * r;
                    sum[1] += (r - x) * (r - x);
                }
            }
        }
        Ok(())
    }

    /// Where the ratio of all such samples lies with 95 % confidence, in dB.
    pub fn interval_db(&self) -> Option<(f64, f64)> {
        let total = self.samples.iter();
        let [signal, noise] = total.fold([0.0; 2], |[a, b], [s, n]| [a + s, b + n]);
        let usable = signal > 0.0 && noise > 0.0 && (signal / noise).is_finite();
        if self.mixed || self.samples.len() < 2 || !usable {
            return None;
        }
        let n = self.samples.len() as f64;
        let apart = self.samples.iter();
        let variance: f64 = apart.map(|[s, n]| (s / signal - n / noise).powi(2)).sum();
        let half = 10.0 / std::f64::consts::LN_10 * 1.96 * (variance * n / (n - 1.0)).sqrt();
        let middle = 10.0 * (signal / noise).log10();
        Some((middle - half, middle + half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(noise: &[f32]) -> Spread {
        let n = noise.len();
        let r = Tensor::from_vec(&[n, 1], vec![1.0f32; n]).unwrap();
        let x = noise.iter().map(|e| 1.0 + e).collect();
        let x = Tensor::from_vec(&[n, 1], x).unwrap();
        let mut s = Spread::default();
        s.add(&[(&r, &x)], n).unwrap();
        s
    }

    #[test]
    fn equal_samples_leave_no_doubt_and_more_samples_less() {
        let (low, high) = spread(&[0.5; 4]).interval_db().unwrap();
        assert!((high - low).abs() < 1e-9 && (low - 10.0 * 4f64.log10()).abs() < 1e-6);
        let width = |n: usize| {
            let noise: Vec<f32> = (0..n).map(|i| [0.1, 0.3][i % 2]).collect();
            let (low, high) = spread(&noise).interval_db().unwrap();
            high - low
        };
        assert!((width(10) / width(40) - 2.0).abs() < 0.15);
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let truth = 10.0 * 3f64.log10();
        let mut held = 0;
        for _ in 0..400 {
            let noise: Vec<f32> = (0..100).map(|_| uniform()).collect();
            let (low, high) = spread(&noise).interval_db().unwrap();
            held += usize::from(low < truth && truth < high);
        }
        assert!((364..=396).contains(&held), "{held} of 400");
    }

    #[test]
    fn outputs_that_are_not_apart_by_sample_have_no_interval() {
        let t = Tensor::from_vec(&[1, 2], vec![1.0f32, 2.0]).unwrap();
        let u = Tensor::from_vec(&[1, 2], vec![1.0f32, 2.5]).unwrap();
        let mut s = Spread::default();
        s.add(&[(&t, &u)], 2).unwrap();
        assert_eq!(s.interval_db(), None);
        assert_eq!(spread(&[0.1]).interval_db(), None);
    }
}
