//! Latency: interleaved rounds over several contenders, wall and CPU time of each run.

use std::time::{Duration, Instant};

use edgesmith_ir::{Progress, Result};
use edgesmith_report::evidence::Latency;

pub mod cold;
pub mod inputs;
pub mod peers;
pub mod sustained;

pub use inputs::{Inputs, borrowed, first_samples, random_inputs, with_lengths_hint};

/// One inference.
pub type Run<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Turns of each contender: one run, or as many as 5 ms have room for.
    pub iterations: usize,
    /// The runs of one contender stop counting after so long, three at the least.
    pub budget: Duration,
}

/// How long a contender's turn lasts at least: what it does with the caches and threads that another left
/// is a small part of it.
const TURN: Duration = Duration::from_millis(5);

/// How long threads of a contender may look for further work after its turn.
const PATIENCE: Duration = Duration::from_millis(20);

/// Milliseconds of one contender.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// Of each run.
    wall: Vec<f64>,
    /// Of CPU time of all threads, the mean of each turn.
    cpu: Vec<f64>,
}

/// One contender's time in parts of another's.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// Of the medians of CPU time.
    pub cpu: f64,
    /// Of the medians of wall time.
    pub wall: f64,
    /// Lower and upper quartile of the ratios of CPU time, round by round.
    pub spread: [f64; 2],
}

/// Measures contenders in turn (A B C A B C …), so that a slow moment of the machine hits all
/// alike.
///
/// # Errors
/// When a run fails or is cancelled.
pub fn interleaved(
    runs: &mut [Run],
    effort: Effort,
    progress: &dyn Progress,
) -> Result<Vec<Times>> {
    let mut times = vec![Times::default(); runs.len()];
    for run in runs.iter_mut() {
        warm_up(run)?;
    }
    progress.start("measuring latency", effort.iterations as u64);
    let started = Instant::now();
    let contenders = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let budget = effort.budget.saturating_mul(contenders);
    for round in 0..effort.iterations {
        if round >= 3 && started.elapsed() > budget {
            break;
        }
        for (run, times) in runs.iter_mut().zip(&mut times) {
            progress.check()?;
            times.take_turn(run)?;
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(times)
}

/// Runs until at least three runs and 50 ms are over.
fn warm_up(run: &mut Run) -> Result<()> {
    let started = Instant::now();
    let mut runs = 0;
    while runs < 3 || (started.elapsed() < Duration::from_millis(50) && runs < 50) {
        run()?;
        runs += 1;
    }
    Ok(())
}

/// Waits until no thread of this process works, the calling one aside.
fn settle() {
    let started = Instant::now();
    let pause = Duration::from_micros(100);
    while started.elapsed() < PATIENCE {
        let before = cpu_time();
        std::thread::sleep(pause);
        if cpu_time().saturating_sub(before) < pause / 4 {
            break;
        }
    }
}

/// Threads that a request for `asked` gets: 0 is one for each core.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        t.tv_sec.unsigned_abs(),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

impl Times {
    /// Runs once, or as often as a turn takes.
    fn take_turn(&mut self, run: &mut Run) -> Result<()> {
        settle();
        let (started, cpu) = (Instant::now(), cpu_time());
        let (mut last, mut count) = (started, 0);
        while count == 0 || last - started < TURN {
            run()?;
            let now = Instant::now();
            self.wall.push((now - last).as_secs_f64() * 1e3);
            (last, count) = (now, count + 1);
        }
        let cpu = cpu_time().saturating_sub(cpu);
        self.cpu.push(cpu.as_secs_f64() * 1e3 / f64::from(count));
        Ok(())
    }

    /// The figures of all runs.
    pub fn latency(&self, threads: usize) -> Latency {
        let (wall, cpu) = (sorted(&self.wall), sorted(&self.cpu));
        Latency {
            threads: u32::try_from(threads).unwrap_or(u32::MAX),
            iterations: wall.len() as u64,
            min_ms: quantile(&wall, 0.0),
            p50_ms: quantile(&wall, 0.5),
            p90_ms: quantile(&wall, 0.9),
            p95_ms: quantile(&wall, 0.95),
            p99_ms: quantile(&wall, 0.99),
            mean_ms: wall.iter().sum::<f64>() / wall.len().max(1) as f64,
            cpu_p50_ms: Some(quantile(&cpu, 0.5)),
            speedup: None,
        }
    }

    /// These times in parts of those of `other`, which ran in the same rounds.
    pub fn ratio(&self, other: &Self) -> Ratio {
        let rounds: Vec<f64> = self
            .cpu
            .iter()
            .zip(&other.cpu)
            .map(|(a, b)| a / b)
            .collect();
        let rounds = sorted(&rounds);
        Ratio {
            cpu: median(&self.cpu) / median(&other.cpu),
            wall: median(&self.wall) / median(&other.wall),
            spread: [quantile(&rounds, 0.25), quantile(&rounds, 0.75)],
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The median; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

/// The `q` quantile of sorted values, by linear interpolation; NaN of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q * last as f64;
    let (low, high) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::Error;

    use super::*;

    #[test]
    fn quantiles_interpolate_between_runs() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0], 0.95), 1.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_turn_has_one_long_run_or_as_many_short_ones_as_it_takes() {
        let mut times = Times::default();
        let mut long: Run = Box::new(|| {
            std::thread::sleep(TURN);
            Ok(())
        });
        times.take_turn(&mut long).expect("the run is good");
        assert_eq!((times.wall.len(), times.cpu.len()), (1, 1));
        assert!(times.wall[0] >= 5.0);
        let runs = std::cell::Cell::new(0);
        let mut short: Run = Box::new(|| {
            runs.set(runs.get() + 1);
            Ok(())
        });
        times.take_turn(&mut short).expect("the run is good");
        assert_eq!((times.wall.len(), times.cpu.len()), (1 + runs.get(), 2));
        let mut broken: Run = Box::new(|| Err(Error::invalid("it broke")));
        assert!(times.take_turn(&mut broken).is_err());
    }

    #[test]
    fn a_ratio_is_that_of_medians_with_the_quartiles_of_the_rounds() {
        let times = |cpu: &[f64]| Times {
            wall: cpu.to_vec(),
            cpu: cpu.to_vec(),
        };
        let ratio = times(&[1.0, 2.0, 3.0]).ratio(&times(&[2.0, 2.0, 2.0]));
        assert_eq!((ratio.cpu, ratio.wall), (1.0, 1.0));
        assert_eq!(ratio.spread, [0.75, 1.25]);
    }
}
