//! How the learning rate goes over the steps of a run.

use edgesmith_ir::{Error, Result};

/// A row of the list of schedules.
pub struct Schedule {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The part of the full rate at a part of the run, both from 0 to 1.
    pub factor: fn(f64) -> f64,
}

/// Every schedule.
pub static SCHEDULES: &[&Schedule] = &[&COSINE, &LINEAR, &STEP, &ONE_CYCLE, &CONSTANT];

/// Half a cosine (I. Loshchilov and F. Hutter, 2017).
pub static COSINE: Schedule = Schedule {
    name: "cosine",
    about: "Half a cosine from the full rate to 0",
    factor: |t| 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
};

/// A straight line to 0.
pub static LINEAR: Schedule = Schedule {
    name: "linear",
    about: "A straight line from the full rate to 0",
    factor: |t| 1.0 - t,
};

/// A tenth after half of the run, a hundredth after three quarters.
pub static STEP: Schedule = Schedule {
    name: "step",
    about: "A tenth of the rate after half of the run, a hundredth after three quarters",
    factor: |t| match t {
        t if t < 0.5 => 1.0,
        t if t < 0.75 => 0.1,
        _ => 0.01,
    },
};

/// Up for three tenths of the run and down to 0 (L. Smith and N. Topin, 2019).
pub static ONE_CYCLE: Schedule = Schedule {
    name: "one-cycle",
    about: "From a 25th of the rate up for three tenths of the run, and down to 0, by cosines",
    factor: |t| {
        let between =
            |a: f64, b: f64, t: f64| b + (a - b) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
        if t < 0.3 {
            between(0.04, 1.0, t / 0.3)
        } else {
            between(1.0, 0.0, (t - 0.3) / 0.7)
        }
    },
};

/// The full rate throughout.
pub static CONSTANT: Schedule = Schedule {
    name: "constant",
    about: "The full rate throughout",
    factor: |_| 1.0,
};

/// The schedule of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Schedule> {
    let found = SCHEDULES.iter().copied().find(|s| s.name == name);
    found.ok_or_else(|| Error::unknown("schedule", name, SCHEDULES.iter().map(|s| s.name)))
}

impl Schedule {
    /// The part of the full rate in step `step` of `total`, the first `warmup` of which rise in a
    /// straight line to where the schedule begins.
    pub fn at(&self, step: usize, total: usize, warmup: usize) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64 * (self.factor)(0.0);
        }
        let left = total.saturating_sub(warmup).max(1);
        (self.factor)((step - warmup) as f64 / left as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_stay_between_nothing_and_the_full_rate() {
        for s in SCHEDULES {
            for step in 0..=100 {
                let f = s.at(step, 100, 10);
                assert!((0.0..=1.0).contains(&f), "{} {step} {f}", s.name);
            }
        }
    }

    #[test]
    fn no_schedule_but_that_by_steps_jumps() {
        for s in SCHEDULES.iter().filter(|s| s.name != "step") {
            let rates: Vec<f64> = (0..1000).map(|i| s.at(i, 1000, 50)).collect();
            assert!(
                rates.windows(2).all(|w| (w[0] - w[1]).abs() < 0.021),
                "{}",
                s.name
            );
        }
    }

    #[test]
    fn the_warm_up_rises_to_the_full_rate() {
        assert_eq!(CONSTANT.at(0, 100, 10), 0.1);
        assert_eq!(CONSTANT.at(9, 100, 10), 1.0);
        assert!((COSINE.at(10, 100, 10) - 1.0).abs() < 1e-12);
        assert!((COSINE.at(55, 100, 10) - 0.5).abs() < 1e-12);
    }
}
