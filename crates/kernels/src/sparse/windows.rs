//! Weights of bytes of which most are zero, as steps that pick inputs from a window of 64 of them.
//!
//! A tile is sixteen lists, each of a lane of a vector: of four outputs (4x1 blocks), or of one (CSR). A
//! step names, for each lane, up to four inputs that follow its first one by less than [`WINDOW`], and
//! has their weights, a vector for each output of a list. A step begins at the first input that one of
//! the lists has yet to take, so that all keep pace. Where the last outputs leave lanes free, each list
//! of those has two or four lanes.

use std::ops::Range;

use super::frame::{FOUR, Frame, Kind, Size};
use crate::Ctx;
use crate::arena::Buffer;

/// Inputs of a window.
pub(super) const WINDOW: usize = 64;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Lists in tiles: a step has the first input of its window, and then, in bytes, the inputs of all lanes in
/// it and their weights.
#[derive(Debug)]
pub(super) enum Picks {}

impl Kind for Picks {
    const MAGIC: [u32; 2] = [0x6572_6170, 0x3278_3477];

    fn takes(size: &Size) -> bool {
        (size.taps, size.width) == (FOUR, 1)
    }

    fn groups(size: &Size) -> usize {
        size.tiles()
    }

    fn step(size: &Size) -> [usize; 2] {
        [1, size.step()]
    }

    /// Windows lie in the inputs; what is picked from one cannot lie beside it.
    fn bound(size: &Size) -> usize {
        size.k.saturating_sub(WINDOW) + 1
    }
}

/// What there is of tiles.
impl Size {
    /// Outputs of a whole tile.
    pub(super) fn tile(&self) -> usize {
        LANES * self.rows
    }

    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(self.tile())
    }

    /// Outputs of tile `tile`.
    pub(super) fn outputs(&self, tile: usize) -> Range<usize> {
        let first = tile * self.tile();
        first..self.n.min(first + self.tile())
    }

    /// Bytes of a step: the inputs of all lanes, and their weights.
    pub(super) fn step(&self) -> usize {
        WINDOW * (1 + self.rows)
    }
}

/// Lanes of each list of a tile of so many outputs, where a list has `rows`.
pub(super) fn parts(rows: usize, outputs: usize) -> usize {
    match (LANES * rows / outputs.max(1)).min(FOUR) {
        _ if rows == 1 => 1,
        3 => 2,
        parts => parts.max(1),
    }
}

/// The first output in its tile of a lane's list, and which part of the list the lane has: lanes are in
/// the order in which vectors of the first to the fourth outputs of lists, turned four by four, are
/// outputs that follow each other.
pub(super) fn lane(rows: usize, parts: usize, lane: usize) -> (usize, usize) {
    if rows == 1 {
        return (lane, 0);
    }
    let fours = FOUR / parts;
    let (a, b) = (lane / FOUR, lane % FOUR);
    (FOUR * (FOUR * (b % fours) + a), b / fours)
}

/// The most rows whose sums stay in registers, with lists of so many outputs.
pub(super) const fn rows_of_tile(rows: usize) -> usize {
    if rows == FOUR { 6 } else { 8 }
}

/// Lists of weights in windows.
#[derive(Clone, Debug)]
pub(super) struct Windows(pub(super) Frame<Picks>);

/// Steps as they are found.
#[derive(Default)]
struct Steps {
    windows: Vec<u16>,
    bytes: Vec<u8>,
    kept: usize,
}

impl Windows {
    /// The lists of `rows` outputs of the weights `at(output, input)`, of `n` outputs and `k` inputs.
    pub(super) fn new([k, n]: [usize; 2], rows: usize, at: impl Fn(usize, usize) -> i8) -> Self {
        let mut size = Size::new([k, n], rows, FOUR, 1);
        let (mut steps, mut starts) = (Steps::default(), vec![0u32]);
        for tile in 0..size.tiles() {
            steps.add(&size, tile, &at);
            starts.push(steps.windows.len() as u32);
        }
        size.kept = steps.kept;
        Self(Frame::new(size, &starts, &steps.windows, &steps.bytes))
    }

    /// The next stored part, where it holds such lists of these inputs and outputs.
    pub(super) fn stored(ctx: &Ctx, [k, n]: [usize; 2]) -> Option<Self> {
        Frame::stored(ctx, |size| (size.k, size.n) == (k, n)).map(Self)
    }

    pub(super) fn size(&self) -> &Size {
        self.0.size()
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub(super) fn part(&self) -> &Buffer {
        self.0.part()
    }

    /// The sum of the weights of each output, and how far from 0 unsigned bytes take one at most.
    pub(super) fn sums(&self) -> (Vec<i32>, u32) {
        let size = self.size();
        let (mut sums, mut reach) = (vec![0i32; size.n], vec![0u32; size.n]);
        let steps = self.0.bytes();
        for (tile, ends) in self.0.starts().windows(2).enumerate() {
            let outputs = size.outputs(tile);
            let parts = parts(size.rows, outputs.len());
            let range = ends[0] as usize * size.step()..ends[1] as usize * size.step();
            for step in steps[range].chunks_exact(size.step()) {
                for (i, weights) in step[WINDOW..].chunks_exact(FOUR).enumerate() {
                    let first = lane(size.rows, parts, i % LANES).0;
                    let output = outputs.start + first + i / LANES;
                    if output < size.n {
                        let four: i32 = weights.iter().map(|w| i32::from(*w as i8)).sum();
                        sums[output] = sums[output].wrapping_add(four);
                        let four = weights.iter().map(|w| u32::from((*w as i8).unsigned_abs()));
                        reach[output] = reach[output].saturating_add(255 * four.sum::<u32>());
                    }
                }
            }
        }
        (sums, reach.into_iter().max().unwrap_or(0))
    }
}

impl Steps {
    /// The steps of tile `tile`.
    fn add(&mut self, size: &Size, tile: usize, at: &impl Fn(usize, usize) -> i8) {
        let outputs = size.outputs(tile);
        let parts = parts(size.rows, outputs.len());
        let of_list = |first: usize| {
            let first = outputs.end.min(outputs.start + first);
            first..outputs.end.min(first + size.rows)
        };
        // Of each first output the inputs that are left, and of each lane its list's.
        let lanes: [(usize, usize); LANES] = std::array::from_fn(|i| lane(size.rows, parts, i));
        let mut lists = vec![Vec::new(); LANES];
        for list in lanes
            .iter()
            .filter(|lane| lane.1 == 0)
            .map(|lane| lane.0 / size.rows)
        {
            let kept = |k: &usize| of_list(list * size.rows).any(|n| at(n, *k) != 0);
            lists[list] = (0..size.k).filter(kept).collect();
            self.kept += lists[list].len();
        }
        let mut taken = [0; LANES];
        let left = |taken: &[usize; LANES]| {
            let firsts = lists.iter().zip(taken).filter_map(|(l, t)| l.get(*t));
            firsts.min().copied()
        };
        while let Some(first) = left(&taken) {
            let first = first.min(size.k.saturating_sub(WINDOW));
            self.windows.push(first as u16);
            let step = self.bytes.len();
            self.bytes.resize(step + size.step(), 0);
            let before = taken;
            for (i, (output, part)) in lanes.into_iter().enumerate() {
                let list = output / size.rows;
                let rest = lists[list]
                    .iter()
                    .skip(before[list] + part * FOUR)
                    .take(FOUR);
                for (tap, k) in rest.enumerate().filter(|(_, k)| **k < first + WINDOW) {
                    taken[list] += 1;
                    self.bytes[step + i * FOUR + tap] = (*k - first) as u8;
                    for (r, n) in of_list(output).enumerate() {
                        let place = step + WINDOW * (1 + r) + i * FOUR + tap;
                        self.bytes[place] = at(n, *k) as u8;
                    }
                }
            }
        }
    }
}
