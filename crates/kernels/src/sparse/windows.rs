//! Weights of bytes of which most are zero, as steps that pick inputs from a window of 64 of them.
//!
//! A tile is sixteen lists, each of a lane of a vector: of four outputs (4x1 blocks), or of one (CSR). A
//! step names, for each lane, up to four inputs that follow its first one by less than [`WINDOW`], and
//! has their weights, a vector for each output of a list. A step begins at the first input that one of
//! the lists has yet to take, so that all keep pace. Where the last outputs leave lanes free, each list
//! of those has two or four lanes.
//!
//! In one buffer stand, each from a multiple of [`ALIGNMENT`] bytes on: a header, where tiles begin,
//! where windows of steps begin as 16-bit numbers, and for each step the inputs in its window and the
//! weights.

use std::ops::Range;

use super::lists::{FOUR, MOST_INPUTS};
use crate::Ctx;
use crate::arena::{ALIGNMENT, Buffer};

/// Inputs of a window.
pub(super) const WINDOW: usize = 64;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

const MAGIC: [u32; 2] = [0x6572_6170, 0x3178_3477];

/// Words of a header.
const HEADER: usize = 16;

/// How many there are of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// Outputs of a list: 4 or 1.
    pub rows: usize,
    /// Steps of all tiles.
    pub steps: usize,
    /// Blocks, or weights, that are not zero.
    pub kept: usize,
}

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

    /// Where starts of tiles, windows and steps stand.
    fn places(&self) -> Option<[Range<usize>; 3]> {
        let mut at = HEADER * 4;
        let lengths = [
            self.tiles().checked_add(1)?.checked_mul(4)?,
            self.steps.checked_mul(2)?,
            self.steps.checked_mul(self.step())?,
        ];
        let mut places = [const { 0..0 }; 3];
        for (place, length) in places.iter_mut().zip(lengths) {
            at = at.checked_next_multiple_of(ALIGNMENT)?;
            *place = at..at.checked_add(length)?;
            at = place.end;
        }
        Some(places)
    }

    fn header(&self) -> [u32; HEADER] {
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&MAGIC);
        let numbers = [self.k, self.n, self.rows, self.steps, self.kept];
        for (to, number) in header[2..].iter_mut().zip(numbers) {
            *to = number as u32;
        }
        header
    }

    fn of_header(header: &[u32]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk::<2>()?;
        let &[k, n, rows, steps, kept, ..] = rest else {
            return None;
        };
        let [k, n, rows, steps, kept] = [k, n, rows, steps, kept].map(|x| x as usize);
        (*magic == MAGIC).then_some(Self {
            k,
            n,
            rows,
            steps,
            kept,
        })
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
pub(super) struct Windows {
    size: Size,
    places: [Range<usize>; 3],
    data: Buffer,
}

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
        assert!(k <= MOST_INPUTS, "inputs have numbers of 16 bits");
        let mut size = Size {
            k,
            n,
            rows,
            steps: 0,
            kept: 0,
        };
        let (mut steps, mut starts) = (Steps::default(), vec![0u32]);
        for tile in 0..size.tiles() {
            steps.add(&size, tile, &at);
            starts.push(steps.windows.len() as u32);
        }
        (size.steps, size.kept) = (steps.windows.len(), steps.kept);
        let places = size.places().expect("what is in memory has a size");
        let mut data = Buffer::zeroed(places[2].end);
        let bytes = data.bytes_mut();
        bytes[..HEADER * 4].copy_from_slice(bytemuck::cast_slice(&size.header()));
        bytes[places[0].clone()].copy_from_slice(bytemuck::cast_slice(&starts));
        bytes[places[1].clone()].copy_from_slice(bytemuck::cast_slice(&steps.windows));
        bytes[places[2].clone()].copy_from_slice(&steps.bytes);
        Self { size, places, data }
    }

    /// The next stored part, where it holds such lists of these inputs and outputs.
    pub(super) fn stored(ctx: &Ctx, [k, n]: [usize; 2]) -> Option<Self> {
        let mut found = None;
        let data = ctx.stored_if(|part| {
            found = Self::check(part).filter(|(size, _)| (size.k, size.n) == (k, n));
            found.is_some()
        })?;
        let (size, places) = found?;
        Some(Self { size, places, data })
    }

    /// What a buffer holds, if each tile lies in it and windows lie in the inputs. What is picked from
    /// a window cannot lie beside it.
    fn check(data: &Buffer) -> Option<(Size, [Range<usize>; 3])> {
        let bytes = data.bytes();
        let size = Size::of_header(bytemuck::cast_slice(bytes.get(..HEADER * 4)?))?;
        if ![1, FOUR].contains(&size.rows) || size.k > MOST_INPUTS {
            return None;
        }
        let places = size.places()?;
        if places[2].end != bytes.len() {
            return None;
        }
        let windows = Self {
            size,
            places: places.clone(),
            data: data.clone(),
        };
        let starts = windows.starts();
        let in_order = starts.first() == Some(&0)
            && starts.windows(2).all(|w| w[0] <= w[1])
            && starts.last() == Some(&(size.steps as u32));
        let last = size.k.saturating_sub(WINDOW);
        let there = windows.firsts().iter().all(|k| usize::from(*k) <= last);
        (in_order && there).then_some((size, places))
    }

    pub(super) fn size(&self) -> &Size {
        &self.size
    }

    /// Steps before each tile, and all.
    pub(super) fn starts(&self) -> &[u32] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[0].clone()])
    }

    /// The first input of the window of each step.
    pub(super) fn firsts(&self) -> &[u16] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[1].clone()])
    }

    /// The inputs and the weights of each step.
    pub(super) fn steps(&self) -> &[u8] {
        &self.data.bytes()[self.places[2].clone()]
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub(super) fn part(&self) -> &Buffer {
        &self.data
    }

    /// The part of all blocks, or weights, that are not zero.
    pub(super) fn share(&self) -> f64 {
        let size = &self.size;
        let lists = size.n.div_ceil(size.rows);
        size.kept as f64 / (lists * size.k).max(1) as f64
    }

    /// The sum of the weights of each output.
    pub(super) fn sums(&self) -> Vec<i32> {
        let size = &self.size;
        let mut sums = vec![0i32; size.n];
        let steps = self.steps();
        for (tile, ends) in self.starts().windows(2).enumerate() {
            let outputs = size.outputs(tile);
            let parts = parts(size.rows, outputs.len());
            let range = ends[0] as usize * size.step()..ends[1] as usize * size.step();
            for step in steps[range].chunks_exact(size.step()) {
                for (i, weights) in step[WINDOW..].chunks_exact(FOUR).enumerate() {
                    let first = lane(size.rows, parts, i % LANES).0;
                    if let Some(sum) = sums.get_mut(outputs.start + first + i / LANES) {
                        let four: i32 = weights.iter().map(|w| i32::from(*w as i8)).sum();
                        *sum = sum.wrapping_add(four);
                    }
                }
            }
        }
        sums
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
