//! Lays a table out in character cells and wraps lines, by display width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Align, Cell, Column, Tone};

/// Blanks between two columns.
const GAP: usize = 2;
/// The least width that shortening leaves of a column.
const LEAST: usize = 6;

/// How text for a terminal looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colours are written.
    pub colour: bool,
    /// Columns of the terminal to stay within.
    pub width: usize,
}

impl Default for Style {
    /// No colour, 120 columns.
    fn default() -> Self {
        Self {
            colour: false,
            width: 120,
        }
    }
}

impl Style {
    /// `text` in the colour of `tone`, if colour is on.
    #[must_use]
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Plain => "",
        };
        if !self.colour || code.is_empty() || text.is_empty() {
            return text.into();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The table as lines.
pub(super) fn layout(columns: &[Column], rows: &[Vec<Cell>], style: &Style) -> String {
    let heads: Vec<Vec<String>> = columns
        .iter()
        .map(|column| column.head.split('\n').map(clean).collect())
        .collect();
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| Cell::new(clean(&cell.text), cell.tone))
                .collect()
        })
        .collect();
    let widths = widths(columns, &heads, &rows, style.width);
    let mut out = String::new();
    for i in 0..heads.iter().map(Vec::len).max().unwrap_or(0) {
        let line = heads
            .iter()
            .map(|head| Cell::new(head.get(i).map_or("", String::as_str), Tone::Strong));
        push_line(&mut out, columns, &widths, line, style);
    }
    let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    out += &style.paint(&"─".repeat(total), Tone::Dim);
    out.push('\n');
    for row in rows {
        push_line(&mut out, columns, &widths, row.into_iter(), style);
    }
    out
}

/// Column widths, shortened on the left-aligned columns until the line fits into `limit`.
fn widths(
    columns: &[Column],
    heads: &[Vec<String>],
    rows: &[Vec<Cell>],
    limit: usize,
) -> Vec<usize> {
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            let head = heads[i].iter().map(|line| line.width());
            head.chain(rows.iter().map(|row| row[i].text.width()))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while total > limit {
        let widest = (0..columns.len())
            .filter(|&i| columns[i].align == Align::Left && widths[i] > LEAST)
            .max_by_key(|&i| widths[i]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
        total -= 1;
    }
    widths
}

fn push_line(
    out: &mut String,
    columns: &[Column],
    widths: &[usize],
    cells: impl Iterator<Item = Cell>,
    style: &Style,
) {
    let mut blanks = 0;
    for ((cell, column), &width) in cells.zip(columns).zip(widths) {
        let text = shorten(&cell.text, width);
        let spare = width - text.width().min(width);
        let (before, after) = match column.align {
            Align::Left => (0, spare),
            Align::Right => (spare, 0),
        };
        if text.is_empty() {
            blanks += width + GAP;
            continue;
        }
        out.extend(std::iter::repeat_n(' ', blanks + before));
        *out += &style.paint(&text, cell.tone);
        blanks = after + GAP;
    }
    out.push('\n');
}

/// `text` if it fits into `width`, else its beginning and `…`.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// `text` with `·` for every control character, so that it stays on its line and cannot steer a
/// terminal.
pub(crate) fn clean(text: &str) -> String {
    let steers =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if steers(c) { '·' } else { c })
        .collect()
}

/// `first` and the words of `text` on lines of at most `width` columns, the later lines indented
/// under the text. A word longer than a line stands alone on its line.
pub(crate) fn wrap(first: &str, text: &str, width: usize) -> String {
    let indent = first.width();
    let mut out = first.to_string();
    let mut column = indent;
    for word in clean(text).split_whitespace() {
        let wide = word.width();
        if column > indent && column + 1 + wide > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        if column > indent {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += wide;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_stand_under_the_text() {
        assert_eq!(
            wrap("note: ", "one two three four", 14),
            "note: one two\n      three\n      four\n"
        );
    }

    #[test]
    fn wide_characters_are_not_cut_in_half() {
        assert_eq!(shorten("漢字漢字", 6), "漢字…");
        assert_eq!(shorten("漢字", 4), "漢字");
    }
}
