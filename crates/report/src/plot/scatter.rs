//! A scatter plot of a few named points with intervals, whose labels keep out of each other's way.

use unicode_width::UnicodeWidthStr;

use super::axis::Axis;
use super::svg::{Anchor, Svg};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 424.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 250.0;
const RADIUS: f64 = 5.0;

/// One point.
pub(super) struct Point {
    pub series: usize,
    pub name: String,
    pub title: String,
    pub x: f64,
    /// Where a bar to the right ends.
    pub x_end: Option<f64>,
    pub y: f64,
    /// Where the bars down and up end.
    pub interval: Option<(f64, f64)>,
}

/// The plot; the first point is the baseline.
pub(super) struct Scatter {
    pub label: &'static str,
    pub x_label: String,
    pub y_label: &'static str,
    pub points: Vec<Point>,
}

/// A rectangle that labels keep away from.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn overlap(&self, other: &Self) -> f64 {
        let wide = self.right.min(other.right) - self.left.max(other.left);
        let high = self.bottom.min(other.bottom) - self.top.max(other.top);
        wide.max(0.0) * high.max(0.0)
    }
}

impl Scatter {
    /// The plot as SVG.
    pub(super) fn draw(&self) -> String {
        let far = self
            .points
            .iter()
            .map(|p| p.x.max(p.x_end.unwrap_or(p.x)))
            .fold(0.0, f64::max);
        let ends = self.points.iter().flat_map(|p| {
            let (low, high) = p.interval.unwrap_or((p.y, p.y));
            [p.y, low, high]
        });
        let (low, high) = ends
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (a.min(v), b.max(v))
            });
        let percent = self.y_label.ends_with('%');
        let room = if high - low < 1.0 { 0.5 } else { 0.0 };
        let roof = if percent {
            (high + room).min(100.0).max(high)
        } else {
            high + room
        };
        let x = Axis::new(0.0, far, 5, LEFT, RIGHT);
        let y = Axis::new(low - room, roof, 5, BOTTOM, TOP);
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.spoken());
        self.draw_frame(&mut svg, &x, &y);
        let base = y.at(self.points.first().map_or(low, |p| p.y));
        let mut taken = vec![Area {
            left: LEFT,
            top: base - 1.0,
            right: RIGHT,
            bottom: base + 1.0,
        }];
        for point in &self.points {
            draw_point(&mut svg, point, &x, &y, &mut taken);
        }
        for point in &self.points {
            let (at, anchor) = place(point, (x.at(point.x), y.at(point.y)), &mut taken);
            svg.open(Some(point.series), &point.title);
            svg.text("name", at, anchor, &point.name);
            svg.close();
        }
        svg.finish()
    }

    fn spoken(&self) -> String {
        let points: Vec<_> = self.points.iter().map(|p| p.title.as_str()).collect();
        format!("{}. {}", self.label, points.join("; "))
    }

    fn draw_frame(&self, svg: &mut Svg, x: &Axis, y: &Axis) {
        for (at, label) in y.ticks() {
            svg.line("grid", (LEFT, at), (RIGHT, at));
            svg.text("tick", (LEFT - 7.0, at + 4.0), Anchor::End, &label);
        }
        for (at, label) in x.ticks() {
            svg.line("axis", (at, BOTTOM), (at, BOTTOM + 4.0));
            svg.text("tick", (at, BOTTOM + 17.0), Anchor::Middle, &label);
        }
        svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
        svg.text("what", (LEFT - 40.0, 14.0), Anchor::Start, self.y_label);
        svg.text("what", (RIGHT, BOTTOM + 38.0), Anchor::End, &self.x_label);
        if let Some(baseline) = self.points.first() {
            let at = y.at(baseline.y);
            svg.line("base", (LEFT, at), (RIGHT, at));
        }
    }
}

fn draw_point(svg: &mut Svg, point: &Point, x: &Axis, y: &Axis, taken: &mut Vec<Area>) {
    let (px, py) = (x.at(point.x), y.at(point.y));
    let square = |x: f64, y: f64, r: f64| Area {
        left: x - r,
        top: y - r,
        right: x + r,
        bottom: y + r,
    };
    svg.open(Some(point.series), &point.title);
    taken.push(square(px, py, RADIUS + 1.0));
    if let Some((low, high)) = point
        .interval
        .filter(|(a, b)| a.is_finite() && b.is_finite())
    {
        let (top, bottom) = (y.at(high), y.at(low));
        svg.line("whisker", (px, top), (px, bottom));
        svg.line("whisker", (px - 4.0, top), (px + 4.0, top));
        svg.line("whisker", (px - 4.0, bottom), (px + 4.0, bottom));
        taken.push(Area {
            left: px - 4.0,
            top,
            right: px + 4.0,
            bottom,
        });
    }
    if let Some(end) = point.x_end {
        let end = x.at(end);
        svg.line("whisker", (px, py), (end, py));
        svg.line("whisker", (end, py - 4.0), (end, py + 4.0));
        taken.push(Area {
            left: px,
            top: py - 4.0,
            right: end,
            bottom: py + 4.0,
        });
    }
    svg.marker(point.series, (px, py), RADIUS);
    svg.close();
}

/// The place for a point's label that covers the least of what is drawn, nearest first.
fn place(point: &Point, at: (f64, f64), taken: &mut Vec<Area>) -> ((f64, f64), Anchor) {
    let (x, y) = at;
    let wide = point.name.width() as f64 * 7.4;
    let near = RADIUS + 5.0;
    let mut candidates = Vec::new();
    for away in [0.0, 14.0, 28.0, 42.0] {
        for (dy, side) in [
            (-7.0 - away, Anchor::Start),
            (-7.0 - away, Anchor::End),
            (17.0 + away, Anchor::Start),
            (17.0 + away, Anchor::End),
        ] {
            let dx = if matches!(side, Anchor::End) {
                -near
            } else {
                near
            };
            candidates.push(((x + dx, y + dy), side));
        }
    }
    let area = |&((x, y), anchor): &((f64, f64), Anchor)| {
        let left = if matches!(anchor, Anchor::End) {
            x - wide
        } else {
            x
        };
        Area {
            left,
            top: y - 12.0,
            right: left + wide,
            bottom: y + 3.0,
        }
    };
    let outside = |a: &Area| {
        let over = (LEFT - a.left).max(0.0) + (a.right - WIDTH + 2.0).max(0.0);
        (over + (TOP - 8.0 - a.top).max(0.0) + (a.bottom - BOTTOM + 2.0).max(0.0)) * 100.0
    };
    let cost = |candidate: &((f64, f64), Anchor)| {
        let area = area(candidate);
        taken.iter().map(|other| area.overlap(other)).sum::<f64>() + outside(&area)
    };
    let mut best = (candidates[0], f64::INFINITY);
    for candidate in candidates {
        let cost = cost(&candidate);
        if cost + 1e-9 < best.1 {
            best = (candidate, cost);
        }
    }
    taken.push(area(&best.0));
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        let (name, title) = ("variant".into(), "variant".into());
        Point {
            series: 0,
            name,
            title,
            x,
            x_end: None,
            y,
            interval: Some((y - 1.0, y + 1.0)),
        }
    }

    #[test]
    fn labels_of_near_points_do_not_overlap() {
        let mut taken = Vec::new();
        for i in 0..4 {
            let p = point(0.0, 0.0);
            place(&p, (200.0 + 2.0 * f64::from(i), 150.0), &mut taken);
        }
        for (i, a) in taken.iter().enumerate() {
            assert!(taken[..i].iter().all(|b| a.overlap(b) == 0.0));
        }
    }

    #[test]
    fn labels_at_the_edge_stay_inside() {
        let mut taken = Vec::new();
        for at in [(RIGHT, TOP), (LEFT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM)] {
            place(&point(0.0, 0.0), at, &mut taken);
        }
        assert!(
            taken
                .iter()
                .all(|a| a.left >= LEFT - 1e-9 && a.right <= WIDTH && a.bottom <= BOTTOM)
        );
    }
}
