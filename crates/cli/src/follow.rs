//! Training as it goes: a bar, a line for each epoch, the curve of the loss.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use edgesmith_ir::Progress;
use edgesmith_train::Watch;
use edgesmith_train::trainer::Epoch;

use crate::ui::{Bar, say};

/// Tells of training on stderr.
#[derive(Default)]
pub struct Follow {
    bar: Bar,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    losses: Vec<f32>,
    since: Option<Instant>,
    told: Option<Instant>,
}

/// The width of the curve behind an epoch, and of that behind the bar.
const WIDTH: usize = 40;
const NARROW: usize = 16;

/// The curve behind the bar is drawn anew after so long.
const BETWEEN: Duration = Duration::from_millis(250);

impl Progress for Follow {
    fn start(&self, phase: &str, total: u64) {
        self.bar.start(phase, total);
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Seen {
                since: Some(Instant::now()),
                ..Seen::default()
            };
        }
    }

    fn advance(&self, units: u64) {
        self.bar.advance(units);
    }

    fn finish(&self) {
        self.bar.finish();
    }

    fn cancelled(&self) -> bool {
        self.bar.cancelled()
    }
}

impl Watch for Follow {
    fn step(&self, _: usize, loss: f32, _: &[f32]) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.losses.push(loss);
            if seen.told.is_none_or(|told| told.elapsed() > BETWEEN) {
                seen.told = Some(Instant::now());
                self.bar
                    .tell(&|| format!("loss {loss:.4} {}", curve(&seen.losses, NARROW)));
            }
        }
    }

    fn epoch(&self, epoch: &Epoch) {
        let Ok(mut seen) = self.seen.lock() else {
            return;
        };
        let judged = match (epoch.judged, epoch.validation) {
            (Some(j), _) if j >= 0.0 => format!(", {:.2} % right", j * 100.0),
            (Some(j), _) => format!(", mean square {:.5}", -j),
            (None, Some(loss)) => format!(", {loss:.4} on validation"),
            (None, None) => String::new(),
        };
        let took = seen
            .since
            .replace(Instant::now())
            .map_or(0.0, |s| s.elapsed().as_secs_f64());
        let curve = curve(&seen.losses, WIDTH);
        self.bar.aside(|| {
            say(&format!(
                "epoch {:3}: loss {:.4}{judged}, {took:.1} s {curve}",
                epoch.epoch + 1,
                epoch.loss
            ));
        });
    }

    fn note(&self, note: &str) {
        self.bar.aside(|| say(&format!("note: {note}")));
    }
}

/// The means of equal parts of a run, at most so many, drawn as columns of eight heights.
fn curve(losses: &[f32], width: usize) -> String {
    let part = losses.len().div_ceil(width).max(1);
    let mean = |p: &[f32]| p.iter().sum::<f32>() / p.len() as f32;
    let means: Vec<f32> = losses.chunks(part).map(mean).collect();
    let high = means.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let column = |m: &f32| {
        let height = (m / high * 7.0).round().clamp(0.0, 7.0) as u32;
        char::from_u32(0x2581 + height).unwrap_or(' ')
    };
    means.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_does_not_show_the_losses_of_the_one_before() {
        let follow = Follow::default();
        for loss in [8.0, 1.0] {
            follow.start("training", 1);
            follow.step(0, loss, &[]);
            follow.finish();
        }
        assert_eq!(follow.seen.lock().unwrap().losses, [1.0]);
    }

    #[test]
    fn a_curve_falls_with_its_losses() {
        assert_eq!(curve(&[8.0, 4.0, 0.0], 40), "█▅▁");
        assert_eq!(curve(&vec![1.0; 1000], 40).chars().count(), 40);
        assert_eq!(curve(&[], 40), "");
    }
}
