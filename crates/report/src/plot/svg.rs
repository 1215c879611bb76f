//! Writes SVG elements with escaped text; colours are classes that the page defines.

use std::fmt::Write as _;

use crate::table::clean;

/// A drawing in progress. Coordinates are pixels of its view box.
pub(super) struct Svg {
    out: String,
}

/// Which end of a text stands at its coordinate.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text with the characters escaped that mean something in HTML and XML, and `·` for controls.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Svg {
    /// An empty drawing that screen readers call `label`.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let mut svg = Self { out: String::new() };
        let label = escape(label);
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             role=\"img\" aria-label=\"{label}\">\n"
        ));
        svg
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("writing to a string cannot fail");
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
        ));
    }

    /// A filled rectangle; a negative extent counts as none.
    pub(super) fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        let ((x, y), (width, height)) = (at, (size.0.max(0.0), size.1.max(0.0)));
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"/>\n"
        ));
    }

    /// The marker of a series: circle, square, diamond or triangle, so that shape tells it apart too.
    pub(super) fn marker(&mut self, series: usize, at: (f64, f64), radius: f64) {
        let ((x, y), r) = (at, radius);
        match series % 4 {
            0 => self.put(format_args!(
                "<circle class=\"fill\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>\n"
            )),
            1 => self.rect("fill", (x - r * 0.9, y - r * 0.9), (r * 1.8, r * 1.8)),
            2 => self.path(&[
                (x, y - r * 1.25),
                (x + r * 1.25, y),
                (x, y + r * 1.25),
                (x - r * 1.25, y),
            ]),
            _ => self.path(&[(x, y - r * 1.2), (x + r * 1.2, y + r), (x - r * 1.2, y + r)]),
        }
    }

    /// A hollow circle.
    pub(super) fn ring(&mut self, at: (f64, f64), radius: f64) {
        let ((x, y), r) = (at, radius);
        self.put(format_args!(
            "<circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>\n"
        ));
    }

    fn path(&mut self, points: &[(f64, f64)]) {
        self.out.push_str("<path class=\"fill\" d=\"");
        for (i, (x, y)) in points.iter().enumerate() {
            let step = if i == 0 { 'M' } else { 'L' };
            self.put(format_args!("{step}{x:.1} {y:.1}"));
        }
        self.out.push_str("Z\"/>\n");
    }

    /// A line of text with its baseline at `at`.
    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let (x, y) = at;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    /// Opens a group in the colour of a series, or in none, with a tooltip.
    pub(super) fn open(&mut self, series: Option<usize>, title: &str) {
        let class = series.map_or(String::new(), |s| format!(" class=\"{}\"", series_class(s)));
        let title = escape(title);
        self.put(format_args!("<g{class}><title>{title}</title>\n"));
    }

    /// Closes the group.
    pub(super) fn close(&mut self) {
        self.out.push_str("</g>\n");
    }

    /// The drawing.
    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

/// The class that sets the colour of a series.
pub(crate) fn series_class(series: usize) -> String {
    format!("s{}", series % 6)
}
