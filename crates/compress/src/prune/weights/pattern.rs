//! Patterns: which numbers of a weight become zero together.

use std::fmt;
use std::str::FromStr;

use edgesmith_ir::{Error, Result};

/// How zeros lie in a weight, seen as a matrix of a row for each output and a column for each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Anywhere.
    Unstructured,
    /// Of each M inputs that follow each other N stay, in every row. Of a convolution these are
    /// channels at one place of the window.
    Of {
        /// N.
        n: usize,
        /// M.
        m: usize,
    },
    /// Blocks of neighbouring outputs and inputs.
    Blocks {
        /// Outputs of a block.
        rows: usize,
        /// Inputs of a block.
        columns: usize,
    },
}

/// The longest group or side of a block.
const MOST: usize = 64;

impl Pattern {
    /// The share of zeros that the pattern fixes.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Of { n, m } => Some((m - n) as f64 / m as f64),
            _ => None,
        }
    }

    /// The kind of pattern, as settings have it.
    pub fn kind(text: &str) -> &'static str {
        match text.parse() {
            Ok(Self::Unstructured) => "unstructured",
            Ok(Self::Of { .. }) => "N:M",
            Ok(Self::Blocks { .. }) => "RxC",
            Err(_) => "",
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::Of { n, m } => write!(f, "{n}:{m}"),
            Self::Blocks { rows, columns } => write!(f, "{rows}x{columns}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let pair = |between: char| -> Option<(usize, usize)> {
            let (a, b) = text.split_once(between)?;
            Some((a.parse().ok()?, b.parse().ok()?))
        };
        let is_side = |x: usize| (1..=MOST).contains(&x);
        if text == "unstructured" {
            return Ok(Self::Unstructured);
        }
        if let Some((n, m)) = pair(':') {
            if n == 0 || n >= m || m > MOST {
                let what = format!("of {m} numbers {n} cannot stay");
                let hint = format!("N:M keeps N of M: N from 1 on, less than M, M up to {MOST}");
                return Err(Error::usage(what).hint(hint));
            }
            return Ok(Self::Of { n, m });
        }
        if let Some((rows, columns)) = pair('x') {
            if !is_side(rows) || !is_side(columns) || rows * columns == 1 {
                let what = format!("there are no blocks of {rows}x{columns} numbers");
                let hint = format!("RxC are R outputs and C inputs, from 1 to {MOST} of each");
                return Err(Error::usage(what).hint(hint));
            }
            return Ok(Self::Blocks { rows, columns });
        }
        Err(Error::usage(format!("\"{text}\" is no structure"))
            .hint("channel, head, head-width, width or layer, which are removed; unstructured, N:M such as 2:4, or blocks RxC such as 4x1, which become zero"))
    }
}

/// The groups of columns of a row of which N:M speaks: channels that follow each other at one place
/// of the window. `taps` are the places of the window, 1 without one.
pub fn groups(columns: usize, taps: usize, m: usize) -> Vec<Vec<usize>> {
    let channels: Vec<usize> = (0..columns / taps.max(1)).collect();
    let of_tap = |tap: usize| {
        let group = move |c: &[usize]| c.iter().map(|c| c * taps + tap).collect();
        channels.chunks(m).map(group).collect::<Vec<Vec<usize>>>()
    };
    (0..taps).flat_map(of_tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_as_it_is_written() {
        for text in ["unstructured", "2:4", "1:16", "4x1", "1x4", "8x8"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for text in [
            "4:2",
            "4:4",
            "0:4",
            "2:65",
            "1x1",
            "0x4",
            "4x65",
            "x",
            ":",
            "3:",
            "-1:4",
            "sparse",
            "",
            "18446744073709551616:4",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
            assert_eq!(Pattern::kind(text), "");
        }
    }

    #[test]
    fn groups_of_a_window_are_of_channels() {
        assert_eq!(groups(5, 1, 4), [vec![0, 1, 2, 3], vec![4]]);
        assert_eq!(groups(6, 3, 2), [[0, 3], [1, 4], [2, 5]]);
    }
}
