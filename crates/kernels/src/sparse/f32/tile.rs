//! Tiles of a product of floats with lists: vectors of rows, four outputs at a time.

use std::ops::Range;

use crate::Isa;
use crate::activation::Activation;
use crate::gemm::f32::{Put, Store};
use crate::simd::{Body, MAX_LANES, Simd, dispatch};
use crate::sparse::lists::{Ends, FOUR, Lists};
use crate::threads::Shared;

/// Rows that are multiplied one by one where a vector of them is not full.
const FEW: usize = 4;

/// Columns of a tile that stay near, as floats. Where outputs are few, turning rows takes longest.
const NEAR: usize = 8 << 10;

/// Vectors of rows in a tile: as many as their sums stay in registers.
pub(super) fn vectors(isa: Isa) -> usize {
    struct Vectors;
    impl Body for Vectors {
        type Out = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            vectors_of::<S>()
        }
    }
    dispatch(isa, Vectors)
}

#[inline(always)]
const fn vectors_of<S: Simd>() -> usize {
    if S::LANES == 8 { 2 } else { 4 }
}

/// Floats of scratch that a block needs.
pub(super) fn scratch(isa: Isa, k: usize, fours: &Range<usize>) -> usize {
    let (lanes, _) = crate::gemm::shape(isa);
    let tile = lanes * vectors(isa);
    // Columns of a tile, or those and rows of a vector that is not full; sums of a vector of outputs,
    // or of all of a row.
    k * tile.max(2 * lanes) + (lanes * tile).max(FOUR * fours.len() + lanes)
}

/// A part of a product that one thread computes. Running it says whether all of A is finite.
pub(super) struct Block<'a> {
    pub lists: &'a Lists,
    pub ends: Ends<f32>,
    pub a: &'a [f32],
    pub a_stride: usize,
    pub rows: usize,
    /// Outputs, in fours.
    pub fours: Range<usize>,
    pub to: Store,
    pub c_stride: usize,
    /// What is left to do with sums that are stored.
    pub then: Option<Activation>,
    /// As long as [`scratch`] says.
    pub scratch: Shared<'a, f32>,
}

/// Rows of A that are turned to columns.
#[derive(Clone, Copy)]
struct Rows {
    a: *const f32,
    stride: usize,
}

impl Body for Block<'_> {
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let size = self.lists.size();
        if self.rows == 0 || self.fours.is_empty() {
            return true;
        }
        let few = if self.rows < S::LANES || self.rows % S::LANES <= 1 {
            self.rows % S::LANES
        } else {
            0
        };
        let whole = self.rows - few;
        let mut finite = s.splat(0.0);
        // SAFETY: A, C and what belongs to them have these rows, as `SparseF32::run` asserts;
        // scratch is as long as `scratch` says.
        unsafe {
            if whole > 0 {
                self.whole(s, whole, &mut finite);
            }
            if few > FEW && size.k >= FOUR {
                self.part(s, whole..self.rows, &mut finite);
            } else {
                for row in whole..self.rows {
                    self.single(s, row, &mut finite);
                }
            }
            self.finish(s);
        }
        !s.sum(finite).is_nan()
    }
}

impl Block<'_> {
    fn first(&self) -> usize {
        self.fours.start * FOUR
    }

    fn columns(&self) -> usize {
        (self.fours.end * FOUR).min(self.lists.size().n) - self.first()
    }

    /// `rows` rows, at least a vector, in tiles of about equal height. The last vector may begin
    /// within the one before.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn whole<S: Simd>(&self, s: S, rows: usize, finite: &mut S::F) {
        let vectors = rows.div_ceil(S::LANES);
        let size = self.lists.size();
        let most = match vectors_of::<S>() {
            all if size.n <= 64 && size.k * all * S::LANES > NEAR => 2,
            all => all,
        };
        let tiles = vectors.div_ceil(most);
        let a = Rows {
            a: self.a.as_ptr(),
            stride: self.a_stride,
        };
        let mut at = 0;
        for tile in 0..tiles {
            let count = vectors / tiles + usize::from(tile < vectors % tiles);
            let mut start = [0; 4];
            for (v, start) in start.iter_mut().enumerate() {
                *start = ((at + v) * S::LANES).min(rows - S::LANES);
            }
            let [p, q, r, t] = start;
            // SAFETY: the rows from each start on are there.
            unsafe {
                match count {
                    1 => self.tile::<S, 1>(s, a, [p], S::LANES, finite),
                    2 => self.tile::<S, 2>(s, a, [p, q], S::LANES, finite),
                    3 => self.tile::<S, 3>(s, a, [p, q, r], S::LANES, finite),
                    _ => self.tile::<S, 4>(s, a, [p, q, r, t], S::LANES, finite),
                }
            }
            at += count;
        }
    }

    /// Rows that do not fill a vector: they are copied, with zeros behind them.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn part<S: Simd>(&self, s: S, rows: Range<usize>, finite: &mut S::F) {
        let k = self.lists.size().k;
        // SAFETY: scratch has room for columns and rows of a vector.
        unsafe {
            let copy = self.scratch.pointer(k * S::LANES);
            for i in 0..S::LANES {
                let to = copy.add(i * k);
                if i < rows.len() {
                    let from = self.a.as_ptr().add((rows.start + i) * self.a_stride);
                    std::ptr::copy_nonoverlapping(from, to, k);
                } else {
                    std::slice::from_raw_parts_mut(to, k).fill(0.0);
                }
            }
            let a = Rows { a: copy, stride: k };
            self.tile::<S, 1>(s, a, [0], rows.len(), finite);
        }
    }

    /// Where sums stand that are not stored yet.
    #[inline(always)]
    fn sums<S: Simd>(&self, _: S) -> *mut f32 {
        let before = self.lists.size().k * S::LANES * vectors_of::<S>().max(2);
        self.scratch.pointer(before)
    }

    /// `V` vectors of rows of A, of which `there` of each are stored as the rows of C from `starts` on.
    ///
    /// # Safety
    /// They are there, and `a` holds as many rows from each start on as a vector.
    #[inline(always)]
    unsafe fn tile<S: Simd, const V: usize>(
        &self,
        s: S,
        a: Rows,
        starts: [usize; V],
        there: usize,
        finite: &mut S::F,
    ) {
        let size = self.lists.size();
        let (columns, sums, pitch) = (self.scratch.pointer(0), self.sums(s), V * S::LANES);
        // SAFETY: the caller's promise; scratch holds the columns, and sums of a vector of outputs.
        unsafe {
            for v in 0..V {
                let (from, to) = (a.a.add(starts[v] * a.stride), columns.add(v * S::LANES));
                turn(s, from, a.stride, size.k, to, pitch, finite);
            }
            let mut first = self.fours.start;
            while first < self.fours.end {
                let last = (first + S::LANES / FOUR).min(self.fours.end);
                for four in first..last {
                    let x: [[S::F; V]; FOUR] = if size.rows == FOUR {
                        self.block(s, columns, four)
                    } else {
                        self.four_rows(s, columns, four)
                    };
                    let to = sums.add((four - first) * FOUR * pitch);
                    for i in 0..FOUR * V {
                        s.store(to.add(i * S::LANES), x[i / V][i % V]);
                    }
                }
                let outputs = size.n.min(last * FOUR) - first * FOUR;
                for v in 0..V {
                    let sums = sums.add(v * S::LANES);
                    self.store(s, (sums, pitch), starts[v], there, first * FOUR, outputs);
                }
                first = last;
            }
        }
    }

    /// Stores sums, of which those of an output follow each other and outputs stand `pitch` apart, as
    /// `there` rows of C from `row` on, from column `first` on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn store<S: Simd>(
        &self,
        s: S,
        (sums, pitch): (*const f32, usize),
        row: usize,
        there: usize,
        first: usize,
        outputs: usize,
    ) {
        let mut at = 0;
        // SAFETY: the caller's promise; where outputs do not fill a vector, the others are read from
        // sums of before, and not stored.
        unsafe {
            while at < there {
                let [a, b, c, d] = s.load_columns(sums.add(at), pitch);
                let to = (row + at) * self.c_stride + first;
                if there - at >= FOUR {
                    let x = [[a], [b], [c], [d]];
                    self.to.put(s, x, to, self.c_stride, first, outputs);
                } else {
                    self.to.put(s, [[a]], to, self.c_stride, first, outputs);
                    if there - at > 1 {
                        let to = to + self.c_stride;
                        self.to.put(s, [[b]], to, self.c_stride, first, outputs);
                    }
                    if there - at > 2 {
                        let to = to + 2 * self.c_stride;
                        self.to.put(s, [[c]], to, self.c_stride, first, outputs);
                    }
                }
                at += FOUR;
            }
        }
    }

    /// The sums of four outputs that have one list.
    ///
    /// # Safety
    /// `columns` holds K rows of `V` vectors.
    #[inline(always)]
    unsafe fn block<S: Simd, const V: usize>(
        &self,
        s: S,
        columns: *const f32,
        four: usize,
    ) -> [[S::F; V]; FOUR] {
        let mut sums = [[s.splat(0.0); V]; FOUR];
        // SAFETY: the lists are there, and name inputs that there are.
        unsafe {
            let steps = self.ends.list(four);
            for step in steps {
                let k = usize::from(*self.ends.inputs.add(step));
                let x: [S::F; V] = s.load_all(columns.add(k * V * S::LANES));
                let w = self.ends.weights.add(step * FOUR);
                for r in 0..FOUR {
                    let w = s.splat(*w.add(r));
                    for v in 0..V {
                        sums[r][v] = s.fma(x[v], w, sums[r][v]);
                    }
                }
            }
        }
        sums
    }

    /// The sums of four outputs that have a list each.
    ///
    /// # Safety
    /// As for `block`.
    #[inline(always)]
    unsafe fn four_rows<S: Simd, const V: usize>(
        &self,
        s: S,
        columns: *const f32,
        four: usize,
    ) -> [[S::F; V]; FOUR] {
        let mut sums = [[s.splat(0.0); V]; FOUR];
        for (r, sums) in sums.iter_mut().enumerate() {
            let mut sum = [s.splat(0.0); V];
            // SAFETY: the lists are there, and name inputs that there are.
            unsafe {
                for step in self.ends.list(four * FOUR + r) {
                    let k = usize::from(*self.ends.inputs.add(step));
                    let x: [S::F; V] = s.load_all(columns.add(k * V * S::LANES));
                    let w = s.splat(*self.ends.weights.add(step));
                    for v in 0..V {
                        sum[v] = s.fma(x[v], w, sum[v]);
                    }
                }
            }
            *sums = sum;
        }
        sums
    }

    /// One row, output by output.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    unsafe fn single<S: Simd>(&self, s: S, row: usize, finite: &mut S::F) {
        let k = self.lists.size().k;
        let a = &self.a[row * self.a_stride..][..k];
        let zero = s.splat(0.0);
        let mut at = 0;
        while at < k {
            // SAFETY: as many are there.
            let x = unsafe { s.load_up_to(a[at..].as_ptr(), (k - at).min(S::LANES)) };
            *finite = s.fma(x, zero, *finite);
            at += S::LANES;
        }
        let (a, sums) = (a.as_ptr(), self.sums(s));
        // SAFETY: scratch has room for the sums, and lists name inputs that there are.
        unsafe {
            if self.lists.size().rows == FOUR {
                let mut four = self.fours.start;
                while four + FOUR <= self.fours.end {
                    self.single_blocks::<S, FOUR>(s, a, four, sums);
                    four += FOUR;
                }
                for four in four..self.fours.end {
                    self.single_blocks::<S, 1>(s, a, four, sums);
                }
            } else {
                for list in self.fours.start * FOUR..self.fours.end * FOUR {
                    *sums.add(list - self.first()) = self.single_list::<S>(a, list);
                }
            }
            self.put(s, sums, row);
        }
    }

    /// The sums of `M` lists of four outputs and a row, together as long as all of them go on.
    ///
    /// # Safety
    /// Lists name elements of `a`, and sums are writable.
    #[inline(always)]
    unsafe fn single_blocks<S: Simd, const M: usize>(
        &self,
        s: S,
        a: *const f32,
        four: usize,
        sums: *mut f32,
    ) {
        let mut starts = [0; M];
        let (mut lengths, mut common) = ([0; M], usize::MAX);
        let mut acc = [s.four_zeros(); M];
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..M {
                let steps = self.ends.list(four + i);
                (starts[i], lengths[i]) = (steps.start, steps.end - steps.start);
                common = common.min(lengths[i]);
            }
            for step in 0..common {
                for i in 0..M {
                    let at = starts[i] + step;
                    let x = *a.add(usize::from(*self.ends.inputs.add(at)));
                    acc[i] = s.four_fma(self.ends.weights.add(at * FOUR), x, acc[i]);
                }
            }
            for i in 0..M {
                for at in starts[i] + common..starts[i] + lengths[i] {
                    let x = *a.add(usize::from(*self.ends.inputs.add(at)));
                    acc[i] = s.four_fma(self.ends.weights.add(at * FOUR), x, acc[i]);
                }
                let column = (four + i - self.fours.start) * FOUR;
                s.four_store(sums.add(column), acc[i]);
            }
        }
    }

    /// The sum of one list of one output and a row.
    ///
    /// # Safety
    /// It names elements of `a`.
    #[inline(always)]
    unsafe fn single_list<S: Simd>(&self, a: *const f32, list: usize) -> f32 {
        let mut sum = 0.0;
        // SAFETY: the caller's promise.
        unsafe {
            for step in self.ends.list(list) {
                let x = *a.add(usize::from(*self.ends.inputs.add(step)));
                let w = *self.ends.weights.add(step);
                sum = if S::FUSES {
                    x.mul_add(w, sum)
                } else {
                    x * w + sum
                };
            }
        }
        sum
    }

    /// Stores the sums of a row.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, s: S, sums: *const f32, row: usize) {
        let (first, columns) = (self.first(), self.columns());
        let mut at = 0;
        while at < columns {
            let last = (columns - at).min(S::LANES);
            // SAFETY: the caller's promise.
            unsafe {
                let x = s.load_up_to(sums.add(at), last);
                let c = row * self.c_stride + first + at;
                self.to.put(s, [[x]], c, self.c_stride, first + at, last);
            }
            at += S::LANES;
        }
    }

    /// What is left to do with sums that are stored.
    ///
    /// # Safety
    /// All are.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S) {
        if let Some(activation) = self.then {
            for row in 0..self.rows {
                let at = row * self.c_stride + self.first();
                // SAFETY: the caller's promise.
                unsafe { self.to.finish(s, activation, at, self.columns()) };
            }
        }
    }
}

/// Writes a vector of rows of `k` elements as columns `pitch` apart, and adds to `finite` what is
/// zero where all are.
///
/// # Safety
/// They are there, and the columns are writable.
#[inline(always)]
unsafe fn turn<S: Simd>(
    s: S,
    a: *const f32,
    stride: usize,
    k: usize,
    to: *mut f32,
    pitch: usize,
    finite: &mut S::F,
) {
    let zero = s.splat(0.0);
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while at < k {
            if k < FOUR {
                let mut lanes = [0f32; MAX_LANES];
                for (i, lane) in lanes.iter_mut().enumerate().take(S::LANES) {
                    *lane = *a.add(i * stride + at);
                }
                let x = s.load(lanes.as_ptr());
                *finite = s.fma(x, zero, *finite);
                s.store(to.add(at * pitch), x);
                at += 1;
                continue;
            }
            // The last four may begin within those before.
            let first = at.min(k - FOUR);
            let x = s.load_columns(a.add(first), stride);
            for c in 0..FOUR {
                *finite = s.fma(x[c], zero, *finite);
                s.store(to.add((first + c) * pitch), x[c]);
            }
            at += FOUR;
        }
    }
}
