//! Matrix products with a packed right side: which kernels there are, and how work is cut up.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod bits;
pub mod f32;
pub mod int8;
mod left;

pub use self::bits::{Blocked, Codes, PackedBits, gemm_bits, take_rows};
pub use self::f32::{Epilogue, PackedF32, Side, gemm, gemm_mixed, matmul, products};
pub use self::int8::{Bytes, Input8, Output8, PackedI8, Requant, gemm8};
pub(crate) use self::left::{Pixels, Steps};

use std::ops::Range;

use crate::Isa;

/// A micro-kernel family: for reports, and to see what an instruction set gets.
#[derive(Debug)]
pub struct Kernel {
    /// `<arch>-<isa>-<types>-<tile>`.
    pub name: &'static str,
    /// What it needs.
    pub isa: Isa,
    /// Bytes in a weight.
    pub weight_bytes: usize,
}

/// The micro-kernels, best first.
pub static KERNELS: &[Kernel] = &[
    Kernel {
        name: "x86_64-amx-u8i8-32x32",
        isa: Isa::Amx,
        weight_bytes: 1,
    },
    Kernel {
        name: "x86_64-avx512-vnni-u8i8-12x32",
        isa: Isa::Avx512Vnni,
        weight_bytes: 1,
    },
    Kernel {
        name: "x86_64-avx512-u8i8-12x32",
        isa: Isa::Avx512,
        weight_bytes: 1,
    },
    Kernel {
        name: "x86_64-avx-vnni-u8i8-6x16",
        isa: Isa::AvxVnni,
        weight_bytes: 1,
    },
    Kernel {
        name: "x86_64-avx2-u8i8-5x16",
        isa: Isa::Avx2,
        weight_bytes: 1,
    },
    Kernel {
        name: "aarch64-neon-i8mm-u8i8-8x8",
        isa: Isa::NeonI8mm,
        weight_bytes: 1,
    },
    Kernel {
        name: "aarch64-neon-dotprod-i8i8-8x8",
        isa: Isa::NeonDot,
        weight_bytes: 1,
    },
    Kernel {
        name: "aarch64-neon-u8i8-8x8",
        isa: Isa::Neon,
        weight_bytes: 1,
    },
    Kernel {
        name: "generic-u8i8-4x8",
        isa: Isa::Generic,
        weight_bytes: 1,
    },
    Kernel {
        name: "x86_64-amx-bf16-32x32",
        isa: Isa::Amx,
        weight_bytes: 2,
    },
    Kernel {
        name: "x86_64-avx512-f32-12x32",
        isa: Isa::Avx512,
        weight_bytes: 4,
    },
    Kernel {
        name: "x86_64-avx2-f32-6x16",
        isa: Isa::Avx2,
        weight_bytes: 4,
    },
    Kernel {
        name: "aarch64-neon-f32-8x8",
        isa: Isa::Neon,
        weight_bytes: 4,
    },
    Kernel {
        name: "generic-f32-4x8",
        isa: Isa::Generic,
        weight_bytes: 4,
    },
];

/// The kernel that `isa` uses for weights of `weight_bytes`.
pub(crate) fn kernel(isa: Isa, weight_bytes: usize) -> &'static Kernel {
    KERNELS
        .iter()
        .find(|k| k.weight_bytes == weight_bytes && isa.includes(k.isa))
        .expect("the list ends with a generic kernel for each weight size")
}

/// How a matrix lies in memory, rows of `[rows, columns]` one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[K, N]`
    KN,
    /// `[N, K]`: the transposed matrix.
    NK,
}

/// Rows of which tasks of `isa` have multiples.
pub(crate) fn tasks_of(isa: Isa) -> usize {
    match isa {
        Isa::Amx => 32,
        _ => shape(isa).1,
    }
}

/// Bytes along K of packed weights and rows of bytes that `isa` reads together.
pub(crate) fn step_bytes(isa: Isa) -> usize {
    match isa {
        Isa::Amx => 64,
        _ => 4,
    }
}

/// The lanes of a vector and rows of a tile of `isa`.
pub(crate) fn shape(isa: Isa) -> (usize, usize) {
    struct Shape;
    impl crate::simd::Body for Shape {
        type Out = (usize, usize);
        #[inline(always)]
        fn run<S: crate::simd::Simd>(self, _: S) -> Self::Out {
            (S::LANES, S::ROWS)
        }
    }
    crate::simd::dispatch(isa, Shape)
}

/// The columns of a packed matrix, cut into panels of two vectors; the last panel has one if
/// that is enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    pub n: usize,
    pub lanes: usize,
}

impl Panels {
    pub(crate) fn count(self) -> usize {
        self.n.div_ceil(2 * self.lanes)
    }

    /// Columns of all panels, with what pads the last.
    pub(crate) fn padded(self) -> usize {
        self.n.div_ceil(self.lanes) * self.lanes
    }

    /// First column of panel `p`, its columns, and its vectors.
    pub(crate) fn panel(self, p: usize) -> (usize, usize, usize) {
        let first = p * 2 * self.lanes;
        let columns = (self.n - first).min(2 * self.lanes);
        (first, columns, columns.div_ceil(self.lanes))
    }

    /// Where the rows `rows` of panel `p` of a matrix of `k` rows stand.
    pub(crate) fn part(self, p: usize, k: usize, rows: Range<usize>) -> Range<usize> {
        let (first, _, vectors) = self.panel(p);
        let width = vectors * self.lanes;
        first * k + rows.start * width..first * k + rows.end * width
    }
}

/// Rows that are not worth cutting: each part would read the whole of B.
pub(crate) const FEW_ROWS: usize = 64;

/// Bytes of B that stay in a cache beside rows of A and C.
const STAYS: usize = 512 * 1024;

/// The most tiles that a thread gets where each begins with an equal number of tasks of `step` tiles.
fn longest_share(threads: usize, tiles: usize, step: usize) -> usize {
    let tasks = tiles.div_ceil(step);
    let end = |part: usize| tiles.min(part * tasks / threads * step);
    let shares = (0..threads).map(|part| end(part + 1) - end(part));
    shares.max().unwrap_or(0)
}

/// A cut of `rows` x `panels` into tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    rows: usize,
    panels: usize,
    row_step: usize,
    panel_step: usize,
    /// Whether all rows of some panels follow each other, and not all panels of some rows.
    down: bool,
}

impl Cut {
    /// Blocks of at most `most_rows` rows, smaller where threads would have nothing to do.
    pub(crate) fn new(
        threads: usize,
        rows: usize,
        panels: usize,
        tile_rows: usize,
        most_rows: usize,
    ) -> Self {
        let most = (most_rows / tile_rows).max(1) * tile_rows;
        if threads == 1 {
            // Of about equal size: a last block of few rows would read all of B for them.
            let row_step = rows.div_ceil(rows.div_ceil(most).max(1));
            return Self {
                rows,
                panels,
                row_step: row_step.max(1).next_multiple_of(tile_rows),
                panel_step: panels.max(1),
                down: false,
            };
        }
        if rows <= FEW_ROWS.max(2 * tile_rows).min(most) {
            let tiles = rows.div_ceil(tile_rows);
            // Few panels that threads cannot share equally are cut: one lies at a border of shares.
            let (row_step, panel_step) = match panels % threads {
                0 => (rows, panels / threads),
                _ if panels < 8 * threads => (tiles.div_ceil(threads) * tile_rows, 1),
                _ => (rows, panels.div_ceil(threads)),
            };
            return Self {
                rows,
                panels,
                row_step: row_step.max(1),
                panel_step: panel_step.max(1),
                down: true,
            };
        }
        let wanted = threads * 3;
        let fair = rows.div_ceil(wanted).div_ceil(tile_rows).max(1) * tile_rows;
        let row_step = most.min(fair.max(tile_rows * 4));
        let parts = wanted
            .div_ceil(rows.div_ceil(row_step).max(1))
            .min(panels.max(1));
        Self {
            rows,
            panels,
            row_step,
            panel_step: panels.div_ceil(parts).max(1),
            down: false,
        }
    }

    /// As [`Cut::new`], by rows alone where all of B, of `bytes`, stays in the cache of each thread: the layer
    /// behind finds rows where they were made.
    pub(crate) fn of_rows(
        threads: usize,
        rows: usize,
        panels: usize,
        tile_rows: usize,
        (most_rows, bytes): (usize, usize),
    ) -> Self {
        let whole = Self::new(threads, rows, panels, tile_rows, most_rows);
        let tiles = rows.div_ceil(tile_rows);
        if threads == 1 || bytes > STAYS || rows <= FEW_ROWS || tiles < 4 * threads {
            return whole;
        }
        let most = (most_rows / tile_rows).max(1);
        let fair = tiles.div_ceil(threads * 3).min(most);
        let step = (fair.min(2)..=fair.max(4).min(most))
            .rev()
            .min_by_key(|&step| longest_share(threads, tiles, step));
        Self {
            row_step: step.unwrap_or(fair) * tile_rows,
            panel_step: panels.max(1),
            ..whole
        }
    }

    /// All rows with a few panels at a time, of which each takes `bytes`: they stay in a cache from the first
    /// rows to the last.
    pub(crate) fn of_panels(threads: usize, rows: usize, panels: usize, bytes: usize) -> Self {
        let few = (2 * STAYS / bytes.max(1)).clamp(1, panels.div_ceil(threads).max(1));
        Self {
            rows,
            panels,
            row_step: rows.max(1),
            panel_step: few,
            down: false,
        }
    }

    /// Whether `bytes` of B, read for each of several images, are better read once ([`Cut::of_panels`]).
    pub(crate) fn reads_again(bytes: usize) -> bool {
        bytes > 2 * STAYS
    }

    pub(crate) fn tasks(self) -> usize {
        self.rows.div_ceil(self.row_step) * self.panels.div_ceil(self.panel_step)
    }

    /// The rows and panels of task `i`.
    pub(crate) fn task(self, i: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let across = self.panels.div_ceil(self.panel_step);
        let down = self.rows.div_ceil(self.row_step);
        let (r, p) = match self.down {
            true => (i % down, i / down),
            false => (i / across, i % across),
        };
        let (r, p) = (r * self.row_step, p * self.panel_step);
        (
            r..self.rows.min(r + self.row_step),
            p..self.panels.min(p + self.panel_step),
        )
    }
}

/// Rows of a tile of `vectors`: of a tile one vector wide as many as hide the latency of its sums,
/// and their addresses stay in registers.
#[inline(always)]
pub(crate) fn tile_rows<S: crate::simd::Simd>(vectors: usize) -> usize {
    if vectors == 1 { NARROW_ROWS } else { S::ROWS }
}

/// Rows of a tile that is one vector wide.
pub(crate) const NARROW_ROWS: usize = 8;

/// Calls the method `$f` for a number of rows and vectors that is known when compiling.
macro_rules! by_rows {
    ($S:ty, $rows:expr, $vectors:expr, $f:ident($this:expr, $($arg:expr),*)) => {
        crate::gemm::by_rows!(@ $S, $rows, $vectors, $f, $this, ($($arg),*);
            12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    };
    (@ $S:ty, $rows:expr, $vectors:expr, $f:ident, $this:expr, $args:tt; $($m:literal),*) => {
        match $rows {
            $($m if $vectors == 2 && $m <= <$S>::ROWS => {
                crate::gemm::by_rows!(@call $S, $m, 2, $f, $this, $args)
            }
            $m if $m <= crate::gemm::NARROW_ROWS => {
                crate::gemm::by_rows!(@call $S, $m, 1, $f, $this, $args)
            })*
            _ => {}
        }
    };
    (@call $S:ty, $m:literal, $v:literal, $f:ident, $this:expr, ($($arg:expr),*)) => {
        $this.$f::<$S, $m, $v>($($arg),*)
    };
}
pub(crate) use by_rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_covers_rows_and_panels_once() {
        let sizes = [
            (196, 12, 400),
            (65, 1, 24),
            (3136, 5, 240),
            (1000, 3, 7),
            (49, 5, 400),
            (49, 12, 400),
            (1, 9, 400),
            (60, 40, 36),
        ];
        for (rows, panels, most) in sizes {
            for threads in 1..5 {
                let cuts = [
                    Cut::of_rows(threads, rows, panels, 12, (most, 1 << 16)),
                    Cut::of_panels(threads, rows, panels, 1 << 19),
                ];
                for cut in cuts {
                    let mut seen = vec![0; rows * panels];
                    for (rows, across) in (0..cut.tasks()).map(|i| cut.task(i)) {
                        for row in rows {
                            across.clone().for_each(|p| seen[row * panels + p] += 1);
                        }
                    }
                    assert!(seen.iter().all(|&n| n == 1), "{rows} {panels} {threads}");
                }
            }
        }
    }

    #[test]
    fn rows_are_shared_about_equally() {
        let cut = Cut::of_rows(2, 196, 12, 12, (400, 1 << 16));
        assert_eq!((cut.row_step, cut.panel_step), (48, 12));
        assert_eq!(longest_share(2, 17, 4), 9);
    }

    /// Tiles of 12 rows in the share of each of two threads.
    fn shares(cut: Cut) -> [usize; 2] {
        let tiles = |i| {
            let (rows, panels) = cut.task(i);
            rows.len().div_ceil(12) * panels.len()
        };
        let half = cut.tasks() / 2;
        [
            (0..half).map(tiles).sum(),
            (half..cut.tasks()).map(tiles).sum(),
        ]
    }

    #[test]
    fn few_rows_are_shared_by_panels_and_a_panel_too_many_is_cut() {
        let cut = |panels| Cut::new(2, 49, panels, 12, 400);
        assert_eq!(shares(cut(30)), [75, 75]);
        assert_eq!(shares(cut(5)), [13, 12]);
        assert_eq!(shares(cut(1)), [3, 2]);
    }
}
