//! Interpolation along one axis: which elements are read for a coordinate, and their weights.

/// Elements and their weights.
pub type Taps = Vec<(i64, f64)>;

/// How values between elements are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// A straight line.
    Linear,
    /// Keys' cubic convolution with its free coefficient (R. Keys, 1981).
    Cubic(f64),
}

impl Kernel {
    fn support(self) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Cubic(_) => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Linear => (1.0 - x).max(0.0),
            Self::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Self::Cubic(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Self::Cubic(_) => 0.0,
        }
    }

    /// The derivative of the weight by `x`.
    pub fn slope(self, x: f64) -> f64 {
        let (far, sign) = (x.abs(), if x < 0.0 { -1.0 } else { 1.0 });
        sign * match self {
            Self::Linear if far < 1.0 && far > 0.0 => -1.0,
            Self::Linear => 0.0,
            Self::Cubic(a) if far <= 1.0 => (3.0 * (a + 2.0) * far - 2.0 * (a + 3.0)) * far,
            Self::Cubic(a) if far < 2.0 => (3.0 * a * far - 10.0 * a) * far + 8.0 * a,
            Self::Cubic(_) => 0.0,
        }
    }

    /// The elements around `x` and their weights. With `scale` under 1 the kernel is widened by
    /// it, so that nothing is skipped, and the weights are made to sum to 1.
    pub fn taps(self, x: f64, scale: f64) -> Taps {
        let scale = scale.min(1.0);
        let reach = self.support() / scale;
        let (first, last) = (
            (x - reach).floor() as i64 + 1,
            (x + reach).ceil() as i64 - 1,
        );
        let mut taps: Taps = (first..=last)
            .map(|i| (i, self.weight((i as f64 - x) * scale)))
            .collect();
        if scale < 1.0 {
            normalize(&mut taps);
        }
        taps
    }
}

/// Scales weights so that they sum to 1.
pub fn normalize(taps: &mut Taps) {
    let sum: f64 = taps.iter().map(|t| t.1).sum();
    if sum != 0.0 {
        taps.iter_mut().for_each(|t| t.1 /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_an_element_is_itself() {
        for kernel in [Kernel::Linear, Kernel::Cubic(-0.75)] {
            for (x, scale) in [(2.3, 1.0), (0.5, 0.4), (-0.1, 2.0)] {
                let sum: f64 = kernel.taps(x, scale).iter().map(|t| t.1).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{kernel:?} at {x}: {sum}");
            }
            let taps = kernel.taps(3.0, 1.0);
            assert!(taps.iter().all(|&(i, w)| w == f64::from(u8::from(i == 3))));
        }
    }

    #[test]
    fn slopes_equal_central_differences() {
        for kernel in [Kernel::Linear, Kernel::Cubic(-0.5)] {
            for x in [-2.5, -1.3, -0.4, 0.2, 0.9, 1.7, 2.1] {
                let expected = (kernel.weight(x + 1e-5) - kernel.weight(x - 1e-5)) / 2e-5;
                let found = kernel.slope(x);
                assert!(
                    (found - expected).abs() < 1e-8,
                    "{kernel:?} at {x}: {found}"
                );
            }
        }
    }
}
