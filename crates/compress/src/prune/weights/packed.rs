//! Packed forms of pruned weights: the numbers that stay, and where they are.
//!
//! - 2:4: of each group two numbers and their places in it, two bits each, the smaller one in the low
//!   bits: half of the numbers and a bit for each weight.
//! - Blocks: a bit for each block, the first in the lowest, and the numbers of blocks that stay.
//! - Everything else: a bit for each number, and the numbers that stay.
//!
//! Numbers come row by row; of a convolution a group has channels at one place of the window.

use edgesmith_ir::{Error, Result};

use super::pattern::{Pattern, groups};
use super::select::Lengths;

/// How a weight is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Two of four.
    TwoOfFour,
    /// A bit for each block of rows and columns.
    Blocks {
        /// Outputs of a block.
        rows: usize,
        /// Inputs of a block.
        columns: usize,
    },
    /// A bit for each number.
    Bits,
}

impl Form {
    /// The form of a weight of these lengths.
    pub fn of(pattern: Pattern, of: Lengths) -> Self {
        match pattern {
            Pattern::Of { n: 2, m: 4 } if (of.columns / of.taps).is_multiple_of(4) => {
                Self::TwoOfFour
            }
            Pattern::Blocks { rows, columns } => Self::Blocks { rows, columns },
            _ => Self::Bits,
        }
    }

    /// Its name in files.
    pub fn name(self) -> String {
        match self {
            Self::TwoOfFour => "2:4".into(),
            Self::Blocks { rows, columns } => format!("{rows}x{columns}"),
            Self::Bits => "bits".into(),
        }
    }
}

/// A packed weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// How.
    pub form: Form,
    /// The numbers that stay.
    pub values: Vec<f32>,
    /// Where they are.
    pub places: Vec<u8>,
}

/// Numbers of a block that lie in the matrix.
fn block(of: Lengths, rows: usize, columns: usize, at: usize) -> impl Iterator<Item = usize> {
    let of_row = of.columns.div_ceil(columns);
    let (r, c) = (at / of_row * rows, at % of_row * columns);
    let rows = r..of.rows.min(r + rows);
    rows.flat_map(move |r| (c..of.columns.min(c + columns)).map(move |c| r * of.columns + c))
}

fn blocks(of: Lengths, rows: usize, columns: usize) -> usize {
    of.rows.div_ceil(rows) * of.columns.div_ceil(columns)
}

/// Packs a weight by rows; `kept` says what stays.
///
/// # Errors
/// When a number that does not stay is not zero, or a group has not two numbers that stay.
pub fn pack(numbers: &[f32], kept: &[bool], of: Lengths, pattern: Pattern) -> Result<Packed> {
    let broken = |what: &str| {
        Err(Error::internal(format!(
            "a weight cannot be packed: {what}"
        )))
    };
    if numbers
        .iter()
        .zip(kept)
        .any(|(x, stays)| !stays && *x != 0.0)
    {
        return broken("a number that goes is not zero");
    }
    let form = Form::of(pattern, of);
    let (mut values, mut places) = (Vec::new(), Vec::new());
    match form {
        Form::Bits => {
            values.extend(
                numbers
                    .iter()
                    .zip(kept)
                    .filter(|(_, k)| **k)
                    .map(|(x, _)| *x),
            );
            places = super::masks::Mask::of(&[kept.len()], kept).bits;
        }
        Form::Blocks { rows, columns } => {
            let count = blocks(of, rows, columns);
            let stays: Vec<bool> = (0..count)
                .map(|b| block(of, rows, columns, b).any(|at| kept[at]))
                .collect();
            for b in (0..count).filter(|&b| stays[b]) {
                values.extend(block(of, rows, columns, b).map(|at| numbers[at]));
            }
            places = super::masks::Mask::of(&[count], &stays).bits;
        }
        Form::TwoOfFour => {
            let groups = groups(of.columns, of.taps, 4);
            let mut nibbles = Vec::with_capacity(of.rows * groups.len());
            for row in 0..of.rows {
                for group in &groups {
                    let place = |i: usize| row * of.columns + group[i];
                    let two: Vec<usize> = (0..4).filter(|&i| kept[place(i)]).collect();
                    let &[first, second] = &two[..] else {
                        return broken("a group has not two numbers that stay");
                    };
                    values.extend([numbers[place(first)], numbers[place(second)]]);
                    nibbles.push((second * 4 + first) as u8);
                }
            }
            for pair in nibbles.chunks(2) {
                places.push(pair[0] | pair.get(1).map_or(0, |n| n << 4));
            }
        }
    }
    Ok(Packed {
        form,
        values,
        places,
    })
}

/// The weight by rows.
///
/// # Errors
/// When there are not as many numbers or places as the lengths ask for, or a place is none.
pub fn unpack(packed: &Packed, of: Lengths) -> Result<Vec<f32>> {
    let damaged = || Error::invalid("a packed weight is damaged");
    let mut out = vec![0.0f32; of.rows * of.columns];
    let mut values = packed.values.iter().copied();
    let bit = |i: usize| packed.places.get(i / 8).map(|b| b >> (i % 8) & 1 == 1);
    match packed.form {
        Form::Bits => {
            for (i, x) in out.iter_mut().enumerate() {
                if bit(i).ok_or_else(damaged)? {
                    *x = values.next().ok_or_else(damaged)?;
                }
            }
        }
        Form::Blocks { rows, columns } => {
            for b in 0..blocks(of, rows, columns) {
                if bit(b).ok_or_else(damaged)? {
                    for at in block(of, rows, columns, b) {
                        out[at] = values.next().ok_or_else(damaged)?;
                    }
                }
            }
        }
        Form::TwoOfFour => {
            let groups = groups(of.columns, of.taps, 4);
            let mut nibbles = packed.places.iter().flat_map(|b| [b & 15, b >> 4]);
            for row in 0..of.rows {
                for group in &groups {
                    let nibble = nibbles.next().ok_or_else(damaged)?;
                    let (first, second) = (usize::from(nibble & 3), usize::from(nibble >> 2));
                    if first >= second || group.len() != 4 {
                        return Err(damaged());
                    }
                    for i in [first, second] {
                        out[row * of.columns + group[i]] = values.next().ok_or_else(damaged)?;
                    }
                }
            }
        }
    }
    match values.next() {
        None => Ok(out),
        Some(_) => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::weights::select::kept;
    use crate::quantize::testing::numbers;

    #[test]
    fn unpacked_is_what_was_packed() {
        for (rows, columns, taps) in [(8, 16, 1), (5, 36, 9), (3, 7, 1), (10, 24, 3), (1, 4, 1)] {
            let of = Lengths {
                rows,
                columns,
                taps,
            };
            for (pattern, amount) in [
                ("2:4", 0.5),
                ("1:4", 0.75),
                ("unstructured", 0.7),
                ("4x1", 0.6),
                ("2x2", 0.5),
                ("unstructured", 0.0),
            ] {
                let pattern: Pattern = pattern.parse().unwrap();
                let mut w = numbers(rows * columns, 3);
                let scores: Vec<f64> = w.iter().map(|x| f64::from(x.abs())).collect();
                let kept = kept(&scores, of, pattern, amount, false);
                let cut = |(x, k): (&mut f32, &bool)| *x = if *k { *x } else { 0.0 };
                w.iter_mut().zip(&kept).for_each(cut);
                let packed = pack(&w, &kept, of, pattern).unwrap();
                assert_eq!(
                    unpack(&packed, of).unwrap(),
                    w,
                    "{pattern} {rows} {columns}"
                );
                if packed.form == Form::TwoOfFour {
                    let n = rows * columns;
                    assert_eq!(
                        (packed.values.len(), packed.places.len()),
                        (n / 2, n.div_ceil(8))
                    );
                }
                let mut short = packed.clone();
                short.values.pop();
                assert!(short.values.len() == packed.values.len() || unpack(&short, of).is_err());
            }
        }
    }

    #[test]
    fn a_nibble_that_is_no_pair_is_refused() {
        let of = Lengths {
            rows: 1,
            columns: 4,
            taps: 1,
        };
        let with = |nibble| Packed {
            form: Form::TwoOfFour,
            values: vec![1.0, 2.0],
            places: vec![nibble],
        };
        let legal: Vec<u8> = (0..16).filter(|&n| unpack(&with(n), of).is_ok()).collect();
        assert_eq!(legal, [4, 8, 9, 12, 13, 14]);
    }

    #[test]
    fn what_breaks_the_pattern_is_not_packed() {
        let of = Lengths {
            rows: 1,
            columns: 4,
            taps: 1,
        };
        let two: Pattern = "2:4".parse().unwrap();
        let one = [true, false, false, false];
        assert!(pack(&[1.0, 0.0, 0.0, 0.0], &one, of, two).is_err());
        assert!(pack(&[1.0, 2.0, 0.0, 0.0], &one, of, Pattern::Unstructured).is_err());
    }
}
