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

/// The windows of the pixels of an image, line by line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels {
    /// The window of the first pixel of the first line.
    pub first: *const u8,
    /// Pixels of the first line that are passed over.
    pub before: usize,
    /// Pixels of a line.
    pub width: usize,
    /// Bytes from one window to the next.
    pub step: usize,
    /// Bytes from one line to the next.
    pub line: usize,
}

impl Pixels {
    /// The window of pixel `i`, which need not be there.
    #[inline(always)]
    pub(crate) fn window(self, i: usize) -> *const u8 {
        let i = self.before + i;
        let (line, at) = (i / self.width, i % self.width);
        self.first.wrapping_add(line * self.line + at * self.step)
    }

    /// The windows of `count` pixels.
    pub(crate) fn windows<T>(self, count: usize) -> Vec<*const T> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let first = self.window(all.len());
            let left = self.width - (self.before + all.len()) % self.width;
            let there = left.min(count - all.len());
            all.extend((0..there).map(|i| first.wrapping_add(i * self.step).cast()));
        }
        all
    }
}

impl Left<u8> for Pixels {
    type Rows<const M: usize> = [*const u8; M];
    #[inline(always)]
    unsafe fn rows<const M: usize>(self, row: usize, offset: usize) -> [*const u8; M] {
        std::array::from_fn(|i| self.window(row + i).wrapping_add(offset))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_pixels_stand_line_by_line() {
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
            let windows = pixels.windows::<u8>(count);
            let place = |i: usize| (before + i) / width * line + (before + i) % width * 3;
            let at: Vec<usize> = windows.iter().map(|w| *w as usize).collect();
            assert_eq!(at, (0..count).map(place).collect::<Vec<_>>());
        }
    }
}
