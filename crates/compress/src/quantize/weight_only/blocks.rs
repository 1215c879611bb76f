//! Weights in blocks along a row, each with a scale and a zero point: `w ≈ (code − zero) · scale`.

use serde::{Deserialize, Serialize};

/// How a row is cut and rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheme {
    /// Bits of a code: 2, 3, 4 or 8.
    pub bits: usize,
    /// Numbers of a row that share a scale; 0 is the whole row.
    pub group: usize,
    /// The zero point is the middle code.
    pub symmetric: bool,
}

impl Scheme {
    /// The largest code.
    pub fn most(self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// The code in the middle: 2^(bits − 1).
    pub fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Numbers that share a scale, in rows of `k`.
    pub fn length(self, k: usize) -> usize {
        match self.group {
            0 => k.max(1),
            g => g.min(k.max(1)),
        }
    }
}

/// Scale and zero point of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The step between neighbours; negative where the number of largest magnitude is positive
    /// and the zero point is the middle.
    pub scale: f32,
    /// The code, or the number between codes, that stands for 0.
    pub zero: f32,
}

impl Grid {
    /// The grid that covers `lo..=hi`, which is widened to hold 0.
    pub fn cover(lo: f32, hi: f32, scheme: Scheme) -> Self {
        let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
        if scheme.symmetric {
            let far = if -lo > hi { lo } else { hi };
            let middle = f64::from(scheme.middle());
            return Self::usable(-far / middle, middle as f32);
        }
        let most = f64::from(scheme.most());
        let scale = (hi - lo) / most;
        let zero = (-lo / scale).round_ties_even().clamp(0.0, most);
        Self::usable(scale, if zero.is_nan() { 0.0 } else { zero as f32 })
    }

    fn usable(scale: f64, zero: f32) -> Self {
        let scale = scale as f32;
        if scale.is_normal() {
            Self { scale, zero }
        } else {
            Self { scale: 1.0, zero }
        }
    }

    /// The code next to `w`.
    pub fn code(self, w: f32, most: f32) -> u8 {
        (w / self.scale + self.zero)
            .round_ties_even()
            .clamp(0.0, most) as u8
    }

    /// The number of a code.
    pub fn number(self, code: u8) -> f32 {
        (f32::from(code) - self.zero) * self.scale
    }
}

/// What the codes of a block are measured from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Zeros {
    /// The middle code, everywhere.
    Middle,
    /// A code for each block.
    Codes(Vec<u8>),
    /// A number for each block, between codes.
    Floats(Vec<f32>),
}

impl Zeros {
    /// As numbers; none where all are the middle.
    fn floats(self) -> Vec<f32> {
        match self {
            Self::Middle => Vec::new(),
            Self::Codes(z) => z.into_iter().map(f32::from).collect(),
            Self::Floats(z) => z,
        }
    }
}

/// `n` rows of `k` codes, cut into blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// How they were rounded.
    pub scheme: Scheme,
    /// `[n, k]`, one in a byte.
    pub codes: Vec<u8>,
    /// `[n, blocks]`.
    pub scales: Vec<f32>,
    /// `[n, blocks]`.
    pub zeros: Zeros,
}

impl Blocks {
    /// Blocks of a row.
    pub fn per_row(&self) -> usize {
        self.k.div_ceil(self.scheme.length(self.k))
    }

    /// Puts rows together that were rounded apart.
    pub fn of_rows(n: usize, k: usize, scheme: Scheme, rows: Vec<Row>) -> Self {
        let mut blocks = Self {
            n,
            k,
            scheme,
            codes: Vec::with_capacity(n * k),
            scales: Vec::new(),
            zeros: Zeros::Middle,
        };
        let mut zeros = Vec::new();
        for row in rows {
            blocks.codes.extend(row.codes);
            blocks.scales.extend(row.grids.iter().map(|g| g.scale));
            zeros.extend(row.grids.iter().map(|g| g.zero));
        }
        let whole = |z: &f32| z.fract() == 0.0 && (0.0..=scheme.most()).contains(z);
        if !scheme.symmetric {
            blocks.zeros = if zeros.iter().all(whole) {
                Zeros::Codes(zeros.into_iter().map(|z| z as u8).collect())
            } else {
                Zeros::Floats(zeros)
            };
        }
        blocks
    }

    /// Adds the rows of `more`, which were rounded alike.
    pub fn append(&mut self, more: Self) {
        self.n += more.n;
        self.codes.extend(more.codes);
        self.scales.extend(more.scales);
        let zeros = std::mem::replace(&mut self.zeros, Zeros::Middle);
        self.zeros = match (zeros, more.zeros) {
            (Zeros::Middle, Zeros::Middle) => Zeros::Middle,
            (Zeros::Codes(mut zeros), Zeros::Codes(more)) => {
                zeros.extend(more);
                Zeros::Codes(zeros)
            }
            (zeros, more) => {
                let mut zeros = zeros.floats();
                zeros.extend(more.floats());
                Zeros::Floats(zeros)
            }
        };
    }

    /// Scale and zero point of a block of row `row`.
    pub fn grid(&self, row: usize, block: usize) -> Grid {
        let at = row * self.per_row() + block;
        Grid {
            scale: self.scales[at],
            zero: match &self.zeros {
                Zeros::Middle => f32::from(self.scheme.middle()),
                Zeros::Codes(z) => f32::from(z[at]),
                Zeros::Floats(z) => z[at],
            },
        }
    }

    /// The numbers that the codes stand for, row by row.
    pub fn numbers(&self) -> Vec<f32> {
        let length = self.scheme.length(self.k);
        let of_row = |(row, codes): (usize, &[u8])| {
            let block = |(b, codes): (usize, &[u8])| {
                let grid = self.grid(row, b);
                codes.iter().map(|&c| grid.number(c)).collect::<Vec<_>>()
            };
            codes
                .chunks(length)
                .enumerate()
                .flat_map(block)
                .collect::<Vec<_>>()
        };
        if self.k == 0 {
            return Vec::new();
        }
        self.codes
            .chunks(self.k)
            .enumerate()
            .flat_map(of_row)
            .collect()
    }
}

/// A row that was rounded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// One for each number.
    pub codes: Vec<u8>,
    /// One for each block.
    pub grids: Vec<Grid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: Scheme = Scheme {
        bits: 4,
        group: 32,
        symmetric: false,
    };

    #[test]
    fn a_range_of_one_side_holds_zero() {
        let g = Grid::cover(0.5, 1.0, FOUR);
        assert_eq!((g.zero, g.scale), (0.0, 1.0 / 15.0));
        let g = Grid::cover(-1.0, -0.5, FOUR);
        assert_eq!((g.zero, g.number(0)), (15.0, -1.0));
    }

    #[test]
    fn a_symmetric_grid_reaches_the_number_of_largest_magnitude() {
        let symmetric = Scheme {
            symmetric: true,
            ..FOUR
        };
        for far in [1.0f32, -1.0] {
            let g = Grid::cover(far.min(0.3), far.max(-0.3), symmetric);
            assert_eq!((g.zero, g.number(g.code(far, 15.0))), (8.0, far));
            assert_eq!(g.number(g.code(0.0, 15.0)), 0.0);
        }
    }

    #[test]
    fn a_block_of_zeros_has_scale_one() {
        for symmetric in [false, true] {
            let g = Grid::cover(0.0, 0.0, Scheme { symmetric, ..FOUR });
            assert_eq!(g.scale, 1.0);
            assert_eq!(g.number(g.code(0.0, 15.0)), 0.0);
        }
    }
}
