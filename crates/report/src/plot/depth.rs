//! Two curves over the layers of a network, first layer on the left, with the worst of each named.

use super::axis::{Axis, counted};
use super::svg::{Anchor, Svg};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 270.0;
/// Points are drawn smaller where they stand nearer than this.
const DENSE: f64 = 9.0;

/// What one curve is called, and the series that gives its colour.
pub(super) struct Curve {
    pub name: &'static str,
    pub series: usize,
}

/// A layer with its value on each curve.
pub(super) struct Layer {
    pub name: String,
    pub values: [Option<f64>; 2],
    /// Drawn filled; hollow where not.
    pub integer: bool,
}

/// The chart.
pub(super) struct Depth {
    pub label: &'static str,
    pub curves: [Curve; 2],
    /// A dotted line for the whole.
    pub whole: Option<f64>,
    pub layers: Vec<Layer>,
}

impl Depth {
    /// The chart as SVG.
    pub(super) fn draw(&self) -> String {
        let values = self.layers.iter().flat_map(|l| l.values).flatten();
        let (low, high) = values
            .chain(self.whole)
            .fold((0.0, 0.0), |(a, b): (f64, f64), v| (a.min(v), b.max(v)));
        let y = Axis::new(low, high, 5, BOTTOM, TOP);
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.spoken());
        for (at, label) in y.ticks() {
            svg.line("grid", (LEFT, at), (RIGHT, at));
            svg.text("tick", (LEFT - 7.0, at + 4.0), Anchor::End, &label);
        }
        svg.text("what", (6.0, 14.0), Anchor::Start, "SQNR in dB");
        self.draw_places(&mut svg);
        if let Some(whole) = self.whole {
            svg.line("base", (LEFT, y.at(whole)), (RIGHT, y.at(whole)));
        }
        for i in 0..self.curves.len() {
            self.draw_curve(&mut svg, i, &y);
        }
        svg.finish()
    }

    fn spoken(&self) -> String {
        let layers = self.layers.len();
        format!(
            "{}, SQNR in dB for {layers} layers; the tables have the figures",
            self.label
        )
    }

    fn x(&self, i: usize) -> f64 {
        let steps = self.layers.len().saturating_sub(1).max(1) as f64;
        LEFT + 10.0 + (RIGHT - LEFT - 20.0) * i as f64 / steps
    }

    /// The axis of layers: their numbers, and the legend.
    fn draw_places(&self, svg: &mut Svg) {
        svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
        for i in counted(self.layers.len()) {
            let at = self.x(i - 1);
            svg.line("axis", (at, BOTTOM), (at, BOTTOM + 4.0));
            svg.text("tick", (at, BOTTOM + 17.0), Anchor::Middle, &i.to_string());
        }
        svg.text(
            "what",
            (RIGHT, BOTTOM + 38.0),
            Anchor::End,
            "layer, in the order in which they run",
        );
        let mut at = RIGHT;
        for (i, curve) in self.curves.iter().enumerate().rev() {
            if self.layers.iter().all(|l| l.values[i].is_none()) {
                continue;
            }
            svg.open(Some(curve.series), curve.name);
            svg.text("name", (at, 15.0), Anchor::End, curve.name);
            at -= curve.name.len() as f64 * 8.4 + 12.0;
            svg.marker(curve.series, (at, 11.0), 4.5);
            svg.close();
            at -= 22.0;
        }
    }

    fn draw_curve(&self, svg: &mut Svg, which: usize, y: &Axis) {
        let curve = &self.curves[which];
        let value = |(i, l): (usize, &Layer)| Some((i, l.values[which]?));
        let points: Vec<(usize, f64)> = self.layers.iter().enumerate().filter_map(value).collect();
        let at = |&(i, v): &(usize, f64)| (self.x(i), y.at(v));
        svg.open(Some(curve.series), curve.name);
        for pair in points.windows(2) {
            svg.line("curve", at(&pair[0]), at(&pair[1]));
        }
        svg.close();
        let radius = if self.x(1) - self.x(0) < DENSE {
            2.5
        } else {
            4.0
        };
        for point in &points {
            let layer = &self.layers[point.0];
            let ran = if layer.integer {
                ""
            } else {
                ", ran in floating point"
            };
            let title = format!("{}, {}: {:.1} dB{ran}", layer.name, curve.name, point.1);
            svg.open(Some(curve.series), &title);
            if layer.integer {
                svg.marker(curve.series, at(point), radius);
            } else {
                svg.ring(at(point), radius);
            }
            svg.close();
        }
        if let Some(worst) = points.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
            self.name_worst(svg, curve, worst, at(worst));
        }
    }

    /// Writes the name of the worst layer of a curve below its point.
    fn name_worst(&self, svg: &mut Svg, curve: &Curve, worst: &(usize, f64), at: (f64, f64)) {
        let text = format!("{} {:.1}", self.layers[worst.0].name, worst.1);
        let half = text.chars().count() as f64 * 2.9;
        let anchor = match at.0 {
            x if x - half < LEFT => Anchor::Start,
            x if x + half > RIGHT => Anchor::End,
            _ => Anchor::Middle,
        };
        let below = (at.1 + 16.0).min(BOTTOM - 3.0);
        svg.open(Some(curve.series), &text);
        svg.text("worst", (at.0, below), anchor, &text);
        svg.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(layers: Vec<Layer>) -> String {
        let curve = |name, series| Curve { name, series };
        Depth {
            label: "errors",
            curves: [curve("weights", 2), curve("outputs", 1)],
            whole: Some(12.0),
            layers,
        }
        .draw()
    }

    fn layer(name: &str, values: [Option<f64>; 2], integer: bool) -> Layer {
        Layer {
            name: name.into(),
            values,
            integer,
        }
    }

    #[test]
    fn the_worst_layer_of_each_curve_is_named() {
        let svg = chart(vec![
            layer("a", [Some(40.0), Some(50.0)], true),
            layer("b", [Some(30.0), Some(20.0)], true),
            layer("c", [None, Some(25.0)], false),
        ]);
        let worst = svg.matches("class=\"worst\"").count();
        assert_eq!(worst, 2);
        assert!(
            svg.contains(">b 30.0</text>") && svg.contains(">b 20.0</text>"),
            "{svg}"
        );
        assert_eq!(
            svg.matches("class=\"ring\"").count(),
            1,
            "c ran in floating point"
        );
    }

    #[test]
    fn a_curve_without_values_has_no_legend() {
        let svg = chart(vec![
            layer("a", [Some(40.0), None], true),
            layer("b", [Some(30.0), None], true),
        ]);
        assert!(svg.contains(">weights</text>") && !svg.contains(">outputs</text>"));
    }
}
