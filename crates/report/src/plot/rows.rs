//! A chart with a named row for each thing and a bar or dot for each series, first row on top.

use super::axis::Axis;
use super::svg::{Anchor, Svg};

const WIDTH: f64 = 440.0;
/// Height of the axis with its labels.
const HEAD: f64 = 44.0;
/// Longest chart without a second axis at its foot, in rows.
const SHORT: usize = 12;

/// How a value is drawn.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// One under the other, this thick.
    Bars { thick: f64 },
    /// On one line.
    Dots,
}

/// One value of a row.
pub(super) struct Mark {
    pub series: usize,
    pub value: f64,
    /// The part of a bar that is drawn in full colour.
    pub solid: f64,
    pub text: String,
    pub title: String,
}

/// One row.
pub(super) struct Row {
    pub name: String,
    pub marks: Vec<Mark>,
}

/// The chart; every axis holds zero.
pub(super) struct Rows {
    pub label: &'static str,
    pub axis_label: String,
    pub form: Form,
    /// Pixels for names on the left.
    pub names: f64,
    /// Pixels for figures on the right.
    pub after: f64,
    pub rows: Vec<Row>,
}

impl Rows {
    /// The chart as SVG.
    pub(super) fn draw(&self) -> String {
        let values = || {
            self.rows
                .iter()
                .flat_map(|row| row.marks.iter().map(|mark| mark.value))
        };
        let (low, high) = values().fold((0.0, 0.0), |(a, b): (f64, f64), v| (a.min(v), b.max(v)));
        let axis = Axis::new(low, high, 4, self.names, WIDTH - self.after);
        let heights: Vec<f64> = self.rows.iter().map(|row| self.height(row)).collect();
        let foot = HEAD + heights.iter().sum::<f64>();
        let long = self.rows.len() > SHORT;
        let height = foot + if long { 24.0 } else { 6.0 };
        let mut svg = Svg::new(WIDTH, height, &self.spoken());
        svg.text("what", (self.names, 14.0), Anchor::Start, &self.axis_label);
        for (at, label) in axis.ticks() {
            svg.line("grid", (at, HEAD - 6.0), (at, foot));
            svg.text("tick", (at, HEAD - 12.0), Anchor::Middle, &label);
            if long {
                svg.text("tick", (at, foot + 16.0), Anchor::Middle, &label);
            }
        }
        let mut top = HEAD;
        for (row, height) in self.rows.iter().zip(heights) {
            self.draw_row(&mut svg, row, &axis, (top, height));
            top += height;
        }
        svg.line("axis", (axis.at(0.0), HEAD - 6.0), (axis.at(0.0), foot));
        svg.finish()
    }

    fn spoken(&self) -> String {
        let rows = self.rows.len();
        format!(
            "{}, {} for {rows} rows; the tables have the figures",
            self.label, self.axis_label
        )
    }

    fn height(&self, row: &Row) -> f64 {
        match self.form {
            Form::Bars { thick } => (row.marks.len() as f64 * (thick + 2.0) + 8.0).max(20.0),
            Form::Dots => 20.0,
        }
    }

    fn draw_row(&self, svg: &mut Svg, row: &Row, axis: &Axis, (top, height): (f64, f64)) {
        let middle = top + height / 2.0;
        let letters = ((self.names - 10.0) / 6.6) as usize;
        svg.open(None, &row.name);
        svg.text(
            "row",
            (self.names - 8.0, middle + 4.0),
            Anchor::End,
            &elide(&row.name, letters),
        );
        svg.close();
        match self.form {
            Form::Bars { thick } => {
                let used = row.marks.len() as f64 * (thick + 2.0) - 2.0;
                for (i, mark) in row.marks.iter().enumerate() {
                    let y = middle - used / 2.0 + i as f64 * (thick + 2.0);
                    draw_bar(svg, mark, axis, (y, thick));
                }
            }
            Form::Dots => draw_dots(svg, &row.marks, axis, middle),
        }
    }
}

fn draw_bar(svg: &mut Svg, mark: &Mark, axis: &Axis, (y, thick): (f64, f64)) {
    let (zero, solid, end) = (axis.at(0.0), axis.at(mark.solid), axis.at(mark.value));
    svg.open(Some(mark.series), &mark.title);
    svg.rect("fill", (zero.min(solid), y), ((solid - zero).abs(), thick));
    svg.rect("pale", (solid.min(end), y), ((end - solid).abs(), thick));
    let class = if thick < 10.0 { "small" } else { "value" };
    let drop = if thick < 10.0 { 3.5 } else { 4.5 };
    svg.text(
        class,
        (end.max(zero) + 5.0, y + thick / 2.0 + drop),
        Anchor::Start,
        &mark.text,
    );
    svg.close();
}

/// Dots on one line, each with its figure where that has room before the next dot.
fn draw_dots(svg: &mut Svg, marks: &[Mark], axis: &Axis, y: f64) {
    let mut order: Vec<&Mark> = marks.iter().collect();
    order.sort_by(|a, b| a.value.total_cmp(&b.value));
    if let (Some(first), Some(last)) = (order.first(), order.last()) {
        let ends = (axis.at(first.value.min(0.0)), axis.at(last.value.max(0.0)));
        svg.line("stem", (ends.0, y), (ends.1, y));
    }
    for (i, mark) in order.iter().enumerate() {
        let x = axis.at(mark.value);
        svg.open(Some(mark.series), &mark.title);
        svg.marker(mark.series, (x, y), 4.0);
        if order
            .get(i + 1)
            .is_none_or(|next| axis.at(next.value) - x > 42.0)
        {
            svg.text("small", (x + 8.0, y + 3.5), Anchor::Start, &mark.text);
        }
        svg.close();
    }
}

/// `name` in at most `letters` letters, its middle left out: both ends of a node's name tell it apart.
fn elide(name: &str, letters: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= letters || letters < 3 {
        return name.into();
    }
    let head = (letters - 1) / 3;
    let tail = letters - 1 - head;
    all[..head]
        .iter()
        .chain(['…'].iter())
        .chain(&all[all.len() - tail..])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::elide;

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(elide("features.12.block.depthwise", 13), "feat…epthwise");
        assert_eq!(elide("short", 13), "short");
    }
}
