//! Products of tiles: sixteen rows of A with sixteen columns of B, 64 bytes along K in a step.
//!
//! A part of a product is cut to tiles of rows at even distances, which are read where they lie,
//! sometimes with rows between lines of an image that nobody asked for; other rows are copied
//! together first. Both sides are read in whole steps of K, behind whose end B is 0.

use std::ops::Range;

use smallvec::SmallVec;

use super::Panels;
use super::left::{Even, Left, Pixels, Rows, Steps};
use crate::arena::with_scratch;
use crate::simd::amx::{self, BYTES, Product, ROWS};
use crate::simd::ask;
use crate::simd::avx512::Avx512;

/// What copying a line costs beside reading it.
const COPY: usize = 4;

/// How many bytes of B before its use a line is asked for, where a panel is read for the first time.
const AHEAD: usize = 4096;

/// Bytes of B that may not be in the near caches when they are asked for.
const FAR: usize = 64 * 1024;

/// What becomes of sums.
pub(super) trait Sums {
    /// Sees `height` rows of `V` vectors of sums before they are taken, as [`Sums::put`] will.
    ///
    /// # Safety
    /// As there; `sums` may be written.
    #[inline(always)]
    unsafe fn prepare<const V: usize>(
        &self,
        _s: Avx512,
        _sums: *mut i32,
        _place: (usize, usize, usize, usize),
    ) {
    }

    /// Takes `M` rows of `V` vectors of sums, from `row` of the part and column `first` of the
    /// matrix on, of which `columns` are real.
    ///
    /// # Safety
    /// The rows and columns lie in the part.
    unsafe fn put<const M: usize, const V: usize>(
        &self,
        s: Avx512,
        sums: *const i32,
        row: usize,
        first: usize,
        columns: usize,
    );

    /// What is left to do with all that was stored.
    fn finish(&self, s: Avx512);
}

/// The right side of a product: groups of 4 bytes along K, in whole steps.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub panels: Panels,
    pub data: &'a [u8],
    /// Bytes along K of a column.
    pub bytes: usize,
}

/// Which of the rows that tiles have are rows of the part: the first `width` of every `pitch`, from
/// `before` on.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    before: usize,
    width: usize,
    pitch: usize,
    /// Bytes from one row of a tile to the next, where rows between those of the part are read too.
    stride: Option<usize>,
}

impl Asked {
    /// All of them.
    const ALL: Self = Self {
        before: 0,
        width: usize::MAX,
        pitch: usize::MAX,
        stride: None,
    };

    /// How many rows tiles have up to the last of `count` rows of the part.
    fn reach(self, count: usize) -> usize {
        let last = self.before + count - 1;
        last / self.width * self.pitch + last % self.width + 1 - self.before
    }

    /// The next rows of the part among `height` of a tile from `row` on: how many rows of the tile
    /// come before them, the first, and how many there are.
    #[inline(always)]
    fn next(self, row: usize, height: usize) -> (usize, usize, usize) {
        let place = self.before + row;
        let (mut line, mut at, mut skip) = (place / self.pitch, place % self.pitch, 0);
        if at >= self.width {
            (line, at, skip) = (line + 1, 0, self.pitch - at);
        }
        let count = (self.width - at).min(height.saturating_sub(skip));
        (
            skip,
            (line * self.width + at).wrapping_sub(self.before),
            count,
        )
    }
}

/// A few rows of A: where they stand, and the distances in bytes of rows, lines and steps.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    a: *const u8,
    stride: usize,
    line: usize,
    step: usize,
}

/// The first row of tiles, and whether their rows lie evenly.
type Tiles = SmallVec<[(usize, bool); 32]>;

/// How many rows a tile has, the first row of each and whether its rows lie evenly, and which rows
/// are asked for.
struct Cut {
    height: usize,
    tiles: Tiles,
    asked: Asked,
}

impl Cut {
    /// About how many lines of the cache a step reads: of two tiles of rows and of columns for
    /// each panel; tiles that do not lie evenly are read and written once.
    fn cost(&self, panels: usize) -> usize {
        let pairs = self.tiles.len().div_ceil(2);
        let copied = self.tiles.iter().filter(|t| !t.1).count();
        pairs * (2 * self.height + 2 * ROWS) * panels + copied * self.height * COPY
    }
}

/// Where the row at `row` starts.
#[inline(always)]
fn start<L: Left<u8>>(left: L, row: usize) -> usize {
    // SAFETY: callers ask for rows of the part, and the address is not read.
    unsafe { left.rows::<1>(row, 0).at(0, 0) as usize }
}

/// Rows of bytes of which it is known where they lie evenly.
pub(super) trait Runs: Left<u8> {
    /// The ends of runs of rows at even distances, of `rows` rows.
    fn ends(self, rows: usize) -> SmallVec<[usize; 32]>;

    /// The rows among more that are all at even distances, where there are such.
    fn among(self) -> Option<Asked> {
        None
    }
}

impl Runs for Even<u8> {
    fn ends(self, rows: usize) -> SmallVec<[usize; 32]> {
        (rows > 0).then_some(rows).into_iter().collect()
    }
}

impl Runs for Pixels {
    fn ends(self, rows: usize) -> SmallVec<[usize; 32]> {
        if self.width == 1 || self.line == self.width * self.step {
            return (rows > 0).then_some(rows).into_iter().collect();
        }
        let first = self.width - self.before % self.width;
        let lines = (first..rows).step_by(self.width);
        lines.chain((rows > 0).then_some(rows)).collect()
    }

    fn among(self) -> Option<Asked> {
        let is_whole = self.step > 0 && self.line.is_multiple_of(self.step);
        is_whole.then(|| Asked {
            before: self.before % self.width,
            width: self.width,
            pitch: self.line / self.step,
            stride: Some(self.step),
        })
    }
}

/// Cuts `rows` rows for a product with so many panels. Tiles may overlap: what is computed twice
/// comes out the same.
fn cut<L: Runs>(left: L, rows: usize, panels: usize) -> Cut {
    let ends = left.ends(rows);
    let whole = whole_tiles(&ends, rows);
    if ends.len() < 2 {
        return whole;
    }
    let by_runs = tiles_of_runs(&ends, rows);
    let cut = match by_runs.cost(panels) <= whole.cost(panels) {
        true => by_runs,
        false => whole,
    };
    let through = left.among().map(|asked| {
        let all = asked.reach(rows);
        Cut {
            asked,
            ..whole_tiles(&[all], all)
        }
    });
    let through = through.filter(|t| t.cost(panels) < cut.cost(panels));
    through.unwrap_or(cut)
}

/// Tiles as high as the longest run or as they can be, that lie evenly where a run is as long.
fn tiles_of_runs(ends: &[usize], rows: usize) -> Cut {
    let (mut longest, mut begin) = (0, 0);
    for &end in ends {
        longest = longest.max(end - begin);
        begin = end;
    }
    let height = longest.min(rows.min(ROWS));
    let mut tiles = Tiles::new();
    let (mut begin, mut row) = (0, 0);
    for &end in ends {
        while row < end {
            let even = end - begin >= height;
            let first = row.min(if even { end } else { rows } - height);
            tiles.push((first, even));
            row = first + height;
        }
        begin = end;
    }
    Cut {
        height,
        tiles,
        asked: Asked::ALL,
    }
}

/// As few tiles of equal height as there can be, wherever runs end.
fn whole_tiles(ends: &[usize], rows: usize) -> Cut {
    let height = rows.div_ceil(rows.div_ceil(ROWS).max(1)).max(1);
    let tiles = (0..rows).step_by(height).map(|row| {
        let first = row.min(rows - height);
        let run = ends.partition_point(|&end| end <= first);
        (first, ends[run] >= first + height)
    });
    Cut {
        height,
        tiles: tiles.collect(),
        asked: Asked::ALL,
    }
}

/// Multiplies `rows` rows of A (`steps` in bytes) with `panels` of B.
///
/// # Safety
/// The CPU has AMX, AVX-512, VNNI and BF16; every row is readable to the end of the last step of each of its
/// lines; `steps.lines` lines in whole steps are `b.bytes`; what `sums` asks.
pub(super) unsafe fn multiply<P: Product, L: Runs>(
    (rows, left, steps): (usize, L, Steps),
    b: Right,
    panels: Range<usize>,
    sums: &impl Sums,
) {
    let cut = cut(left, rows, panels.len());
    let run = steps.run.next_multiple_of(BYTES);
    debug_assert_eq!(run * steps.lines, b.bytes);
    let copied = cut.tiles.iter().filter(|t| !t.1).count();
    let size = b.bytes * cut.height;
    with_scratch(copied * size, |scratch: &mut [u8]| {
        let mut scratch = scratch.as_mut_ptr();
        let mut tiles = SmallVec::<[Tile; 32]>::with_capacity(cut.tiles.len());
        for (row, even) in cut.tiles {
            let (at, stride) = match cut.asked.stride {
                Some(stride) => (start(left, 0).wrapping_add(row * stride), stride),
                None => {
                    let (at, next) = (start(left, row), row + usize::from(cut.height > 1));
                    (at, start(left, next).wrapping_sub(at))
                }
            };
            let mut tile = Tile {
                row,
                a: at as *const u8,
                stride,
                line: steps.stride,
                step: BYTES,
            };
            if !even {
                (tile.a, tile.stride, tile.step) = (scratch, BYTES, cut.height * BYTES);
                tile.line = run / BYTES * tile.step;
                // SAFETY: the caller's promise; the scratch holds every copied tile.
                unsafe {
                    copy(left, row, cut.height, (steps, run), scratch);
                    scratch = scratch.add(size);
                }
            }
            tiles.push(tile);
        }
        let steps = (steps.lines, run / BYTES);
        // SAFETY: the caller's promise; the height is 1 to 16.
        unsafe { products::<P, _>(&tiles, (cut.height, cut.asked), steps, b, panels, sums) };
    });
}

/// [`multiply`] for `rows` rows that lie in tiles of `height` rows, `size` bytes from one to the
/// next, each step of a tile behind the one before; the last tile ends with the last row.
///
/// # Safety
/// As for [`multiply`].
pub(super) unsafe fn multiply_tiles<P: Product>(
    (rows, height): (usize, usize),
    (a, size): (*const u8, usize),
    b: Right,
    panels: Range<usize>,
    sums: &impl Sums,
) {
    let tile = |i: usize| Tile {
        row: (i * height).min(rows - height),
        a: a.wrapping_add(i * size),
        stride: BYTES,
        line: 0,
        step: height * BYTES,
    };
    let tiles: SmallVec<[Tile; 16]> = (0..rows.div_ceil(height)).map(tile).collect();
    // SAFETY: the caller's promise.
    unsafe {
        let steps = (1, b.bytes / BYTES);
        products::<P, _>(&tiles, (height, Asked::ALL), steps, b, panels, sums);
    };
}

/// Multiplies `tiles` with `panels` of B.
///
/// # Safety
/// As for [`multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn products<P: Product, O: Sums>(
    tiles: &[Tile],
    (height, asked): (usize, Asked),
    steps: (usize, usize),
    b: Right,
    panels: Range<usize>,
    sums: &O,
) {
    let mut block = Block([0; 4 * ROWS * 16]);
    // SAFETY: the caller's promise.
    unsafe {
        let s = Avx512::prove();
        amx::configure(height);
        for p in panels {
            let (first, columns, vectors) = b.panels.panel(p);
            let data = b.data[first * b.bytes..].as_ptr();
            for (at, two) in tiles.chunks(2).enumerate() {
                let steps = (steps, at == 0 && b.data.len() >= FAR);
                let both = [&two[0], &two[two.len() - 1]];
                let to = &mut block.0;
                match (two.len(), vectors) {
                    (2, 2) => multiply_pair::<P, 2, 2>(both, data, steps, height, to),
                    (2, _) => multiply_pair::<P, 2, 1>(both, data, steps, height, to),
                    (_, 2) => multiply_pair::<P, 1, 2>(both, data, steps, height, to),
                    _ => multiply_pair::<P, 1, 1>(both, data, steps, height, to),
                }
                for (i, tile) in two.iter().enumerate() {
                    let block = block.0[i * height * vectors * 16..].as_mut_ptr();
                    let (mut at, columns) = (0, (first, columns));
                    while at < height {
                        let (skip, row, count) = match asked.stride {
                            Some(_) => asked.next(tile.row + at, height - at),
                            None => (0, tile.row, height),
                        };
                        let block = block.add((at + skip).min(height) * vectors * 16);
                        if vectors == 2 {
                            deal::<O, 2>(s, (row, count), columns, block, sums);
                        } else {
                            deal::<O, 1>(s, (row, count), columns, block, sums);
                        }
                        at += skip + count;
                    }
                }
            }
        }
        amx::release();
        sums.finish(s);
    }
}

/// Sums of two tiles of rows and of columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([i32; 4 * ROWS * 16]);

/// Hands out the sums of `height` rows from `row` on, of `columns` columns from `first` on.
///
/// # Safety
/// As for [`Sums::put`]; `block` has `height` rows of `V` vectors.
#[inline(always)]
unsafe fn deal<O: Sums, const V: usize>(
    s: Avx512,
    (row, height): (usize, usize),
    (first, columns): (usize, usize),
    block: *mut i32,
    sums: &O,
) {
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        sums.prepare::<V>(s, block, (row, height, first, columns));
        while at + 4 <= height {
            sums.put::<4, V>(s, block.add(at * V * 16), row + at, first, columns);
            at += 4;
        }
        if at + 2 <= height {
            sums.put::<2, V>(s, block.add(at * V * 16), row + at, first, columns);
            at += 2;
        }
        if at < height {
            sums.put::<1, V>(s, block.add(at * V * 16), row + at, first, columns);
        }
    }
}

/// Copies `height` rows from `row` on to tiles of 64 bytes along K, one after another.
///
/// # Safety
/// The rows are readable, and `to` is writable.
#[inline(always)]
unsafe fn copy<L: Left<u8>>(
    left: L,
    row: usize,
    height: usize,
    (steps, run): (Steps, usize),
    to: *mut u8,
) {
    for line in 0..steps.lines {
        for i in 0..height {
            // SAFETY: the caller's promise.
            unsafe {
                let from = left.rows::<1>(row + i, line * steps.stride).at(0, 0);
                for at in 0..run / BYTES {
                    let to = to.add(((line * run / BYTES + at) * height + i) * BYTES);
                    to.copy_from_nonoverlapping(from.add(at * BYTES), BYTES);
                }
            }
        }
    }
}

/// Multiplies `M` tiles of rows with `V` tiles of columns over all of K. Sums go to `block`, rows
/// of `V` vectors one after another.
///
/// # Safety
/// As for [`multiply`]; the block holds the sums.
#[inline(always)]
unsafe fn multiply_pair<P: Product, const M: usize, const V: usize>(
    tiles: [&Tile; 2],
    mut b: *const u8,
    ((lines, steps), is_first): ((usize, usize), bool),
    height: usize,
    block: &mut [i32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        amx::zero::<3>();
        for line in 0..lines {
            let mut x = tiles[0].a.add(line * tiles[0].line);
            let mut y = tiles[1].a.add(line * tiles[1].line);
            for _ in 0..steps {
                if is_first {
                    (0..V * ROWS).for_each(|i| ask(b.wrapping_add(AHEAD + i * BYTES)));
                }
                amx::load::<6>(b, V * BYTES);
                amx::load::<4>(x, tiles[0].stride);
                P::add::<0, 4, 6>();
                if V == 2 {
                    amx::load::<7>(b.add(BYTES), V * BYTES);
                    P::add::<1, 4, 7>();
                }
                if M == 2 {
                    amx::load::<5>(y, tiles[1].stride);
                    P::add::<2, 5, 6>();
                    if V == 2 {
                        P::add::<3, 5, 7>();
                    }
                }
                b = b.add(V * ROWS * BYTES);
                x = x.wrapping_add(tiles[0].step);
                y = y.wrapping_add(tiles[1].step);
            }
        }
        let (to, width) = (block.as_mut_ptr().cast::<u8>(), V * BYTES);
        let below = height * width;
        amx::store::<0>(to, width);
        if V == 2 {
            amx::store::<1>(to.add(BYTES), width);
        }
        if M == 2 {
            amx::store::<2>(to.add(below), width);
            if V == 2 {
                amx::store::<3>(to.add(below + BYTES), width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_between_the_ends_of_runs_stand_at_even_distances() {
        for (width, before, line, count) in [
            (7, 0, 100, 40),
            (7, 3, 100, 30),
            (7, 6, 100, 1),
            (1, 0, 9, 5),
            (5, 2, 15, 21),
            (32, 16, 544, 240),
        ] {
            let pixels = Pixels {
                first: std::ptr::null(),
                before,
                width,
                step: 3,
                line,
            };
            let at: Vec<usize> = (0..count).map(|i| start(pixels, i)).collect();
            let mut begin = 0;
            for end in pixels.ends(count) {
                let run = &at[begin..end];
                assert!(run.windows(3).all(|w| w[1] - w[0] == w[2] - w[1]));
                begin = end;
            }
            assert_eq!(begin, count);
            assert!(pixels.ends(0).is_empty());
        }
    }

    #[test]
    fn rows_of_tiles_that_go_through_lines_are_those_of_the_part_once_each() {
        let mut seen = 0;
        for (width, pitch, before, count) in [
            (7, 9, 0, 49),
            (7, 9, 3, 30),
            (5, 8, 4, 1),
            (1, 3, 0, 20),
            (14, 14, 2, 40),
            (28, 30, 27, 113),
        ] {
            let pixels = Pixels {
                first: std::ptr::null(),
                before,
                width,
                step: 64,
                line: pitch * 64,
            };
            let asked = pixels.among().unwrap();
            let all = asked.reach(count);
            let cut = whole_tiles(&[all], all);
            let mut found = vec![false; count];
            for (first, even) in cut.tiles {
                assert!(even && first + cut.height <= all);
                let mut at = 0;
                while at < cut.height {
                    let (skip, row, n) = asked.next(first + at, cut.height - at);
                    at += skip;
                    for i in 0..n {
                        let place = (first + at + i) * asked.stride.unwrap();
                        let own = start(pixels, 0).wrapping_add(place);
                        assert_eq!(start(pixels, row + i), own);
                        found[row + i] = true;
                    }
                    at += n;
                }
            }
            assert!(found.iter().all(|&f| f), "{width} {pitch} {before} {count}");
            seen += usize::from(cut.height > width);
        }
        assert!(seen > 2);
    }

    #[test]
    fn narrow_images_are_multiplied_through_their_lines() {
        let pixels = |width: usize| Pixels {
            first: std::ptr::null(),
            before: 0,
            width,
            step: 64,
            line: (width + 2) * 64,
        };
        let goes_through = |width: usize| cut(pixels(width), width * width, 8).asked.width == width;
        assert!(goes_through(7));
        assert!(!goes_through(16) && !goes_through(32));
    }
}
