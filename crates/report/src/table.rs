//! Aligned tables for a terminal or for Markdown, from columns and rows of short texts.

mod text;

use std::iter;

pub use text::Style;
pub(crate) use text::{clean, wrap};

/// On which side the texts of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For names.
    Left,
    /// For numbers.
    Right,
}

/// The head of a column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading; a line break makes it stand on several lines.
    pub head: String,
    /// Side of its texts.
    pub align: Align,
}

impl Column {
    /// A column of names.
    pub fn left(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            align: Align::Left,
        }
    }

    /// A column of numbers.
    pub fn right(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            align: Align::Right,
        }
    }
}

/// What a cell says by colour, where colour is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// Worth finding first.
    Strong,
    /// Better than the baseline.
    Good,
    /// Worse than the baseline.
    Bad,
    /// Of little weight.
    Dim,
}

/// One text of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The text, on one line.
    pub text: String,
    /// Its colour, where colour is on.
    pub tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Columns and rows.
///
/// ```text
/// let mut table = Table::new([Column::left("op"), Column::right("nodes")]);
/// table.row(["Conv", "12"]);
/// table.to_text(&Style::default());
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty, cells beyond the last column are left out.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(Into::into);
        let padded = cells.chain(iter::repeat_with(Cell::default));
        self.rows.push(padded.take(self.columns.len()).collect());
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The headings and the texts of the rows.
    pub(crate) fn into_texts(self) -> (Vec<String>, Vec<Vec<String>>) {
        let texts = |row: Vec<Cell>| row.into_iter().map(|cell| cell.text).collect();
        let heads = self.columns.into_iter().map(|column| column.head).collect();
        (heads, self.rows.into_iter().map(texts).collect())
    }

    /// The table for a terminal, every line ended by a line break and none by a blank.
    ///
    /// A table wider than `style.width` shortens the texts of its widest left-aligned columns, and
    /// marks that by `…`; control characters are shown as `·`.
    #[must_use]
    pub fn to_text(&self, style: &Style) -> String {
        text::layout(&self.columns, &self.rows, style)
    }

    /// The table in Markdown with pipes, as GitHub reads it; cells cannot break out of it.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| {
            cells.fold(String::from("|"), |line, cell| format!("{line} {cell} |")) + "\n"
        };
        let rule = self.columns.iter().map(|column| match column.align {
            Align::Left => "---".into(),
            Align::Right => "---:".into(),
        });
        let mut out = line(&mut self.columns.iter().map(|column| markdown(&column.head)));
        out += &line(&mut { rule });
        for row in &self.rows {
            out += &line(&mut row.iter().map(|cell| markdown(&cell.text)));
        }
        out
    }
}

/// Text that is only text in a Markdown cell.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(&text.replace('\n', " ")).chars() {
        if matches!(
            c,
            '|' | '\\' | '<' | '>' | '*' | '_' | '`' | '[' | ']' | '&'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn ops() -> Table {
        let mut table = Table::new([
            Column::left("op"),
            Column::left("about"),
            Column::right("nodes\nin file"),
        ]);
        table.row(["Conv", "slides a window", "12"]);
        table.row([
            Cell::from("漢字"),
            Cell::new("two columns each", Tone::Dim),
            Cell::new("3", Tone::Good),
        ]);
        table.row(["Relu"]);
        table
    }

    #[test]
    fn columns_align_by_display_width() {
        expect![[r#"
            op    about               nodes
                                    in file
            ───────────────────────────────
            Conv  slides a window        12
            漢字  two columns each        3
            Relu
        "#]]
        .assert_eq(&ops().to_text(&Style::default()));
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let plain = ops().to_text(&Style::default());
        let mut coloured = ops().to_text(&Style {
            colour: true,
            ..Style::default()
        });
        assert!(coloured.contains("\u{1b}[32m"), "{coloured}");
        while let Some(start) = coloured.find('\u{1b}') {
            let end = start + coloured[start..].find('m').unwrap();
            coloured.replace_range(start..=end, "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn narrow_tables_shorten_names_and_keep_numbers() {
        let text = ops().to_text(&Style {
            width: 24,
            ..Style::default()
        });
        expect![[r#"
            op    about        nodes
                             in file
            ────────────────────────
            Conv  slides a…       12
            漢字  two colu…        3
            Relu
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn markdown_cells_cannot_break_out() {
        let mut table = Table::new([Column::left("name"), Column::right("nodes\nin file")]);
        table.row(["a|b\n<script>", "1"]);
        expect![[r#"
            | name | nodes in file |
            | --- | ---: |
            | a\|b \<script\> | 1 |
        "#]]
        .assert_eq(&table.to_markdown());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new([Column::left("name")]);
        table.row(["\u{1b}[2Jx\ty\nz"]);
        assert!(table.to_text(&Style::default()).ends_with("\n·[2Jx·y·z\n"));
    }
}
