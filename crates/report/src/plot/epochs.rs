//! Curves over the epochs of a training, with the epoch that was taken, or over other places that
//! follow each other.

use super::axis::{Axis, counted};
use super::svg::{Anchor, Svg};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 424.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 230.0;
/// Epochs are marked where they are not more.
const MOST_MARKS: usize = 40;

/// A curve with a value for each epoch or other place.
pub(super) struct Curve {
    pub name: String,
    pub series: usize,
    pub values: Vec<f64>,
    /// How far bars go up and down from each value; none where there are none.
    pub spread: Vec<f64>,
}

/// The chart.
pub(super) struct Epochs {
    pub label: &'static str,
    pub y_label: &'static str,
    /// What the places are.
    pub x_label: &'static str,
    /// Their names; numbers from 1 on where there are none.
    pub places: Vec<String>,
    pub curves: Vec<Curve>,
    /// The epoch that was taken, from 1 on; 0 where none was.
    pub best: usize,
    /// How a value is told.
    pub text: fn(f64) -> String,
    /// The axis begins at 0.
    pub from_zero: bool,
}

impl Epochs {
    /// The chart as SVG.
    pub(super) fn draw(&self) -> String {
        let finite = self.curves.iter().flat_map(Curve::reach);
        let start = if self.from_zero { 0.0 } else { f64::INFINITY };
        let (low, high) = finite.fold((start, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = match low <= high {
            true => (low, high),
            false => (0.0, 1.0),
        };
        let y = Axis::new(low, high, 5, BOTTOM, TOP);
        let count = self.curves.iter().map(|c| c.values.len()).max();
        let count = count.unwrap_or(0);
        let spoken = format!(
            "{} over {count} places of {}; the table has the figures",
            self.label, self.x_label
        );
        let mut svg = Svg::new(WIDTH, HEIGHT, &spoken);
        for (at, label) in y.ticks() {
            svg.line("grid", (LEFT, at), (RIGHT, at));
            svg.text("tick", (LEFT - 7.0, at + 4.0), Anchor::End, &label);
        }
        svg.text("what", (6.0, 14.0), Anchor::Start, self.y_label);
        let x = |i: usize| {
            let steps = count.saturating_sub(1).max(1) as f64;
            LEFT + 8.0 + (RIGHT - LEFT - 16.0) * i as f64 / steps
        };
        svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
        for i in counted(count) {
            let at = x(i - 1);
            svg.line("axis", (at, BOTTOM), (at, BOTTOM + 4.0));
            svg.text("tick", (at, BOTTOM + 17.0), Anchor::Middle, &self.place(i));
        }
        svg.text("what", (RIGHT, BOTTOM + 36.0), Anchor::End, self.x_label);
        if (1..=count).contains(&self.best) {
            let at = x(self.best - 1);
            svg.line("base", (at, TOP), (at, BOTTOM));
        }
        for curve in &self.curves {
            let points = curve
                .values
                .iter()
                .enumerate()
                .filter(|(_, v)| v.is_finite());
            let points: Vec<_> = points.map(|(i, &v)| (i, v, (x(i), y.at(v)))).collect();
            svg.open(Some(curve.series), &curve.name);
            for pair in points.windows(2) {
                svg.line("curve", pair[0].2, pair[1].2);
            }
            svg.close();
            for (i, v, at) in points.iter().filter(|_| count <= MOST_MARKS) {
                let place = match self.places.is_empty() {
                    true => format!("{} {}", self.x_label, i + 1),
                    false => self.place(i + 1),
                };
                let title = format!("{}, {place}: {}", curve.name, (self.text)(*v));
                svg.open(Some(curve.series), &title);
                if let Some(spread) = curve.spread.get(*i).filter(|s| **s > 0.0) {
                    let ends = [v + spread, v - spread].map(|v| (at.0, y.at(v)));
                    svg.line("whisker", ends[0], ends[1]);
                }
                svg.marker(curve.series, *at, 3.0);
                svg.close();
            }
        }
        svg.finish()
    }

    /// The name of a place, from 1 on.
    fn place(&self, i: usize) -> String {
        let name = self.places.get(i - 1).cloned();
        name.unwrap_or_else(|| i.to_string())
    }
}

impl Curve {
    /// What the axis has to hold.
    fn reach(&self) -> impl Iterator<Item = f64> + '_ {
        let finite = self
            .values
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite());
        finite.flat_map(|(i, v)| {
            let spread = self.spread.get(i).copied().unwrap_or(0.0);
            [v - spread, v + spread]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: Vec<f64>, best: usize) -> String {
        Epochs {
            label: "loss",
            y_label: "loss",
            curves: vec![Curve {
                name: "kd".into(),
                series: 1,
                values,
                spread: Vec::new(),
            }],
            x_label: "epoch",
            places: Vec::new(),
            best,
            text: |v| format!("{v:.1}"),
            from_zero: true,
        }
        .draw()
    }

    #[test]
    fn a_value_that_is_no_number_leaves_a_gap_and_the_epoch_taken_is_marked() {
        let svg = chart(vec![2.0, f64::NAN, 1.0], 3);
        assert!(svg.contains("kd, epoch 3: 1.0") && !svg.contains("NaN"));
        assert_eq!(svg.matches("class=\"base\"").count(), 1);
    }

    #[test]
    fn no_epoch_and_one_epoch_are_drawn() {
        for values in [vec![], vec![f64::INFINITY], vec![3.0]] {
            let svg = chart(values, 1);
            assert!(!svg.contains("inf") && !svg.contains("NaN"), "{svg}");
        }
    }
}
