//! Threads: the same tasks on one thread without any machinery, or on a pool.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

mod pool;

use pool::Pool;

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

    /// Cuts `0..len` into ranges of at least `grain` (the last may be shorter), a few for each
    /// thread, and calls `task` once with each.
    pub fn parallel_ranges(&self, len: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
        let parts = if self.pool.is_none() {
            1
        } else {
            self.count() * 3
        };
        let step = len.div_ceil(parts).max(grain).max(1);
        self.parallel_for(len.div_ceil(step), |i| {
            task(i * step..len.min((i + 1) * step))
        });
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
    fn chunks_cover_the_slice() {
        let mut data = vec![0usize; 23];
        Threads::new(2).parallel_chunks(&mut data, 4, |i, chunk| chunk.fill(i + 1));
        assert!(data.iter().enumerate().all(|(at, v)| *v == at / 4 + 1));
    }
}
