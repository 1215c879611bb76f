//! Aligned memory, and handing out parts of it that do not overlap.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

/// Alignment of every buffer, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

// SAFETY: `Line` is bytes without padding, so all zeros and any other pattern are values of it.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above; it is `Copy` and has no references.
unsafe impl bytemuck::Pod for Line {}

/// Bytes aligned to [`ALIGNMENT`], up to a whole line: own ones that were zeros at first, or a
/// part of what others hold, such as a mapped file.
#[derive(Clone)]
pub struct Buffer {
    lines: Lines,
    len: usize,
}

#[derive(Clone)]
enum Lines {
    Own(Vec<Line>),
    Shared(Bytes),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

impl Buffer {
    /// `len` zero bytes. Where there is no memory for them, the process ends as for a `Vec`.
    pub fn zeroed(len: usize) -> Self {
        let count = len.div_ceil(ALIGNMENT);
        let lines = bytemuck::allocation::try_zeroed_vec(count).unwrap_or_else(|()| {
            let layout = Layout::array::<Line>(count);
            handle_alloc_error(layout.unwrap_or(Layout::new::<Line>()))
        });
        Self {
            lines: Lines::Own(lines),
            len,
        }
    }

    /// The first `len` of `bytes`, which are not copied; `None` where they are not aligned, or
    /// do not go on to the end of a line.
    pub fn shared(bytes: &Bytes, len: usize) -> Option<Self> {
        let whole = len.checked_next_multiple_of(ALIGNMENT)?;
        let aligned = bytes.as_ptr().addr().is_multiple_of(ALIGNMENT);
        (aligned && bytes.len() >= whole).then(|| Self {
            lines: Lines::Shared(bytes.slice(..whole)),
            len,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.lines {
            Lines::Own(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Lines::Shared(bytes) => &bytes[..self.len],
        }
    }

    /// The bytes, to write; those of others are copied first.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if let Lines::Shared(bytes) = &self.lines {
            let lines = bytes
                .chunks_exact(ALIGNMENT)
                .map(bytemuck::pod_read_unaligned);
            self.lines = Lines::Own(lines.collect());
        }
        match &mut self.lines {
            Lines::Own(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            Lines::Shared(_) => unreachable!("they were copied"),
        }
    }

    /// The whole elements of type `T` in it.
    pub fn typed<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        let size = size_of::<T>().max(1);
        bytemuck::cast_slice(&self.bytes()[..self.len / size * size])
    }

    /// The whole elements of type `T` in it, to write.
    pub fn typed_mut<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        let whole = self.len / size_of::<T>().max(1) * size_of::<T>();
        bytemuck::cast_slice_mut(&mut self.bytes_mut()[..whole])
    }

    /// Makes it at least `len` bytes long; what was in it is then unspecified.
    pub fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeroed(len);
        }
    }
}

/// The parts that [`Arena::split`] hands out: what may be read, what may be written.
pub type Parts<'a> = (SmallVec<[&'a [u8]; 4]>, SmallVec<[&'a mut [u8]; 2]>);

/// One buffer in which the values of a run live side by side.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    buffer: Buffer,
}

impl Arena {
    /// An arena of `len` zero bytes.
    pub fn new(len: usize) -> Self {
        Self {
            buffer: Buffer::zeroed(len),
        }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Makes it at least `len` bytes long; what was in it is then unspecified.
    pub fn reserve(&mut self, len: usize) {
        self.buffer.reserve(len);
    }

    /// One part, to read.
    pub fn part(&self, range: Range<usize>) -> Option<&[u8]> {
        self.buffer.bytes().get(range)
    }

    /// One part, to write.
    pub fn part_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        self.buffer.bytes_mut().get_mut(range)
    }

    /// Hands out all parts together. `None` if a part leaves the arena, or if a part to write
    /// overlaps another part; empty parts overlap nothing, and parts to read may overlap.
    pub fn split(&mut self, reads: &[Range<usize>], writes: &[Range<usize>]) -> Option<Parts<'_>> {
        let len = self.buffer.len();
        let inside = |r: &Range<usize>| r.start <= r.end && r.end <= len;
        if !reads.iter().chain(writes).all(inside) {
            return None;
        }
        for (i, write) in writes.iter().enumerate() {
            let others = reads.iter().chain(&writes[i + 1..]);
            if others.into_iter().any(|other| overlap(write, other)) {
                return None;
            }
        }
        let base = self.buffer.bytes_mut().as_mut_ptr();
        // SAFETY: every range lies in the buffer, which stays borrowed for as long as the parts
        // live, and no written range overlaps another range.
        let read = |r: &Range<usize>| unsafe {
            std::slice::from_raw_parts(base.add(r.start).cast_const(), r.len())
        };
        // SAFETY: as above.
        let write = |r: &Range<usize>| unsafe {
            std::slice::from_raw_parts_mut(base.add(r.start), r.len())
        };
        Some((
            reads.iter().map(read).collect(),
            writes.iter().map(write).collect(),
        ))
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

/// Calls `work` with `len` elements of memory that belongs to this thread; what is in them is
/// unspecified. Memory that `work` itself asks for is other memory.
pub(crate) fn with_scratch<T: bytemuck::Pod, R>(len: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.reserve(len * size_of::<T>());
    let result = work(&mut buffer.typed_mut()[..len]);
    SCRATCH.with_borrow_mut(|free| free.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let buffer = Buffer::zeroed(len);
            assert_eq!(buffer.bytes().len(), len);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.bytes().iter().all(|b| *b == 0));
            assert_eq!(buffer.typed::<f32>().len(), len / 4);
        }
    }

    #[test]
    fn parts_that_do_not_overlap_are_handed_out() {
        let mut arena = Arena::new(100);
        let (reads, mut writes) = arena.split(&[0..10, 5..20], &[20..30, 40..100]).unwrap();
        writes[0].fill(7);
        writes[1][59] = 9;
        assert_eq!((reads.len(), reads[1].len()), (2, 15));
        drop((reads, writes));
        assert_eq!(arena.part(29..31).unwrap(), [7, 0]);
        assert_eq!(arena.part(99..100).unwrap(), [9]);
    }

    #[test]
    fn parts_that_overlap_are_refused() {
        let mut arena = Arena::new(100);
        assert!(arena.split(&[0..10, 0..1], &[9..12, 20..30]).is_none());
        assert!(arena.split(&[], &[0..10, 5..6]).is_none());
        assert!(arena.split(&[], &[0..1, 90..101]).is_none());
        assert!(arena.split(&[0..100, 0..9], &[50..50, 3..3]).is_some());
    }
}
