//! The left side of a product: where its rows stand, and how they are cut along K.

/// Where the elements of a row of A stand, from its address on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    /// Runs of neighbours.
    pub lines: usize,
    /// Elements of a run.
    pub run: usize,
    /// From one run to the next.
    pub stride: usize,
}

/// The rows of A of a part of a product.
pub(super) trait Left<T>: Copy {
    /// The addresses of a few rows.
    type Rows<const M: usize>: Rows<T>;

    /// `M` rows from `row` on, `offset` elements after their first.
    ///
    /// # Safety
    /// The rows are there.
    unsafe fn rows<const M: usize>(self, row: usize, offset: usize) -> Self::Rows<M>;
}

/// Addresses of a few rows.
pub(super) trait Rows<T>: Copy {
    /// Element `k` of row `i`.
    ///
    /// # Safety
    /// It is there.
    unsafe fn at(&self, i: usize, k: usize) -> *const T;
}

/// Rows at even distances.
#[derive(Clone, Copy)]
pub(super) struct Even<T> {
    pub a: *const T,
    pub a_stride: usize,
}

impl<T: Copy> Left<T> for Even<T> {
    type Rows<const M: usize> = Even<T>;
    #[inline(always)]
    unsafe fn rows<const M: usize>(self, row: usize, offset: usize) -> Even<T> {
        Even {
            // SAFETY: the caller's promise.
            a: unsafe { self.a.add(row * self.a_stride + offset) },
            ..self
        }
    }
}

impl<T: Copy> Rows<T> for Even<T> {
    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { self.a.add(i * self.a_stride + k) }
    }
}

/// Rows that are the columns of a matrix whose lines are `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Columns<T> {
    pub a: *const T,
    pub stride: usize,
}

impl<T: Copy> Left<T> for Columns<T> {
    type Rows<const M: usize> = Columns<T>;
    #[inline(always)]
    unsafe fn rows<const M: usize>(self, row: usize, offset: usize) -> Columns<T> {
        Columns {
            // SAFETY: the caller's promise.
            a: unsafe { self.a.add(row + offset * self.stride) },
            ..self
        }
    }
}

impl<T: Copy> Rows<T> for Columns<T> {
    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { self.a.add(i + k * self.stride) }
    }
}

/// Rows that are anywhere.
#[derive(Clone, Copy)]
pub(super) struct Windows<'a, T> {
    pub rows: &'a [*const T],
}

impl<T: Copy> Left<T> for Windows<'_, T> {
    type Rows<const M: usize> = [*const T; M];
    #[inline(always)]
    unsafe fn rows<const M: usize>(self, row: usize, offset: usize) -> [*const T; M] {
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| unsafe { self.rows.get_unchecked(row + i).add(offset) })
    }
}

impl<T: Copy, const M: usize> Rows<T> for [*const T; M] {
    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { self[i].add(k) }
    }
}

impl Steps {
    /// The part of K from `start` on whose sums stay in registers, where it begins in a row: all
    /// that is left, whole runs or a part of one, equal parts of at most `most`.
    #[inline(always)]
    pub(super) fn part(self, start: usize, most: usize) -> (usize, Steps) {
        let (line, at) = (start / self.run.max(1), start % self.run.max(1));
        let offset = line * self.stride + at;
        let (lines, run) = if at > 0 || self.run > most {
            (1, even_part(self.run - at, most))
        } else {
            (
                even_part(self.lines - line, most / self.run.max(1)),
                self.run,
            )
        };
        let stride = self.stride;
        (offset, Steps { lines, run, stride })
    }
}

/// The next of equal parts of `left` that are at most `most`.
#[inline(always)]
fn even_part(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most).max(1))
}
