//! Threads: the same tasks on one thread without any machinery, or on a pool.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

mod pool;

use pool::Pool;

/// A grain that is so long is of elements and not of rows.
const LONG: usize = 1024;

/// Elements of which borders between long ranges are multiples, so that vectors and lines of the cache stay whole.
const LINE: usize = 64;

/// How many threads work on a kernel. Cloning shares the pool.
#[derive(Clone)]
pub struct Threads {
    pool: Option<Arc<Pool>>,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

impl Threads {
    /// `count` threads; 0 and 1 both mean the calling thread. If the system gives no more
    /// threads, the calling thread does the work.
    pub fn new(count: usize) -> Self {
        let pool = (count > 1)
            .then(|| Pool::new(count).map(Arc::new))
            .flatten();
        Self { pool }
    }

    /// `wanted` threads; 0 is one for each core.
    pub fn of(wanted: usize) -> Self {
        Self::new(match wanted {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        })
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.count())
    }

    /// Calls `task` once with each of `0..tasks`, in any order.
    pub fn parallel_for(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.run(tasks, &task),
            _ => (0..tasks).for_each(task),
        }
    }

    /// Cuts `0..len` into ranges of at least `grain`, or one that is shorter, and calls `task` once with each:
    /// a few for each thread, as many and about as long for one as for the other.
    pub fn parallel_ranges(&self, len: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
        let threads = self.count();
        let parts = match threads {
            1 => 1,
            _ => (len / grain.max(1)).clamp(1, threads * 3),
        };
        let parts = parts - if parts > threads { parts % threads } else { 0 };
        let unit = if grain < LONG { 1 } else { LINE };
        let border = |i: usize| match i == parts {
            true => len,
            false => len / unit * i / parts * unit,
        };
        self.parallel_for(parts.min(len), |i| task(border(i)..border(i + 1)));
    }

    /// Calls `task(i, chunk)` for each chunk of `size` elements of `data` (the last may be
    /// shorter).
    pub fn parallel_chunks<T: Send>(
        &self,
        data: &mut [T],
        size: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (size, shared) = (size.max(1), Shared::new(data));
        self.parallel_for(shared.len.div_ceil(size), |i| {
            let range = i * size..shared.len.min((i + 1) * size);
            // SAFETY: chunks of different index do not overlap, and each index comes once.
            task(i, unsafe { shared.slice(range) });
        });
    }
}

/// A mutable slice that tasks write in parts that do not overlap.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `slice` and `pointer`, whose callers promise disjoint parts.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            owner: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No other part that is alive at the same time overlaps `range`.
    #[allow(
        clippy::mut_from_ref,
        reason = "the caller promises that parts are disjoint"
    )]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "part lies in the slice"
        );
        // SAFETY: the range lies in the slice, and the caller promises that no part overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }

    /// The address of element `at`, which tasks may write as long as no other task does.
    pub(crate) fn pointer(&self, at: usize) -> *mut T {
        assert!(at <= self.len, "element lies in the slice");
        self.data.wrapping_add(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 3] {
            let threads = Threads::new(threads);
            let hits: Vec<AtomicUsize> = (0..37).map(|_| AtomicUsize::new(0)).collect();
            threads.parallel_for(37, |i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            threads.parallel_ranges(37, 5, |range| {
                range.for_each(|i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 2));
        }
    }

    #[test]
    fn threads_get_equal_shares_of_ranges() {
        let ranges = Mutex::new(Vec::new());
        for (len, grain, lengths) in [
            (14, 1, &[2, 2, 3, 2, 2, 3][..]),
            (11, 3, &[5, 6]),
            (5, 3, &[5]),
            (0, 3, &[]),
            (4100, 2048, &[2048, 2052]),
        ] {
            Threads::new(2).parallel_ranges(len, grain, |range| ranges.lock().unwrap().push(range));
            let mut ranges = std::mem::take(&mut *ranges.lock().unwrap());
            ranges.sort_by_key(|r| r.start);
            let found: Vec<usize> = ranges.iter().map(Range::len).collect();
            assert_eq!(found, lengths);
        }
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut data = vec![0usize; 23];
        Threads::new(2).parallel_chunks(&mut data, 4, |i, chunk| chunk.fill(i + 1));
        assert!(data.iter().enumerate().all(|(at, v)| *v == at / 4 + 1));
    }
}
