//! A pool for tasks of microseconds: its threads look for the next work for a while before they
//! sleep, so that one kernel after another starts without a call of the system. Each begins with
//! the same part of the tasks, so that what it wrote is in its own caches when the next kernel
//! reads it, and helps others when it is through.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps: the pauses between the kernels of a run are
/// shorter.
const PATIENCE: Duration = Duration::from_micros(200);

/// Looks between two of the clock, or before the processor is offered to others.
const LOOKS: usize = 64;

/// Threads beside the calling one.
pub(super) struct Pool {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
    /// Whether tasks are under way: those that start others do them by themselves.
    busy: AtomicBool,
}

/// What the threads see.
struct Common {
    /// Of the part of each thread, the calling one first, how many tasks are taken.
    taken: Vec<Taken>,
    /// Counts what there was to do.
    count: AtomicUsize,
    slot: Mutex<Slot>,
    wake: Condvar,
    /// Threads that are at the work in the slot.
    at_work: AtomicUsize,
}

/// A counter that shares its line of the cache with nothing.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicUsize);

#[derive(Default)]
struct Slot {
    /// Borrowed for as long as it is here.
    work: Option<&'static Tasks<'static>>,
    sleeping: usize,
    is_closed: bool,
}

/// Tasks, of which each is done once.
struct Tasks<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    count: usize,
    has_panicked: AtomicBool,
}

impl Common {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does tasks until none is left, those of the part of thread `own` first.
    fn work(&self, tasks: &Tasks, own: usize) {
        let parts = self.taken.len();
        let start = |part: usize| part * tasks.count / parts;
        for part in (own..parts).chain(0..own) {
            let (first, end) = (start(part), start(part + 1));
            loop {
                let i = first + self.taken[part].0.fetch_add(1, Ordering::Relaxed);
                if i >= end {
                    break;
                }
                (tasks.task)(i);
            }
        }
    }

    /// What thread `own` of the pool does until the pool is dropped.
    fn serve(&self, own: usize) {
        let mut seen = 0;
        loop {
            self.look(seen);
            let mut slot = self.slot();
            while self.count.load(Ordering::Relaxed) == seen && !slot.is_closed {
                slot.sleeping += 1;
                slot = self.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
                slot.sleeping -= 1;
            }
            if slot.is_closed {
                return;
            }
            seen = self.count.load(Ordering::Relaxed);
            let Some(tasks) = slot.work else {
                continue;
            };
            self.at_work.fetch_add(1, Ordering::Relaxed);
            drop(slot);
            if catch_unwind(AssertUnwindSafe(|| self.work(tasks, own))).is_err() {
                tasks.has_panicked.store(true, Ordering::Relaxed);
            }
            self.at_work.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for other work than what was `seen`, but not for long.
    fn look(&self, seen: usize) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for _ in 0..LOOKS {
                if self.count.load(Ordering::Acquire) != seen {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Takes work back, also where a task of the calling thread panics.
struct UnderWay<'a>(&'a Pool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.common.slot().work = None;
        let mut looks = 0;
        while self.0.common.at_work.load(Ordering::Acquire) != 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Pool {
    /// A pool of `count` threads with the calling one; `None` where the system gives none.
    pub fn new(count: usize) -> Option<Self> {
        let common = Arc::new(Common {
            taken: (0..count).map(|_| Taken::default()).collect(),
            count: AtomicUsize::new(0),
            slot: Mutex::default(),
            wake: Condvar::new(),
            at_work: AtomicUsize::new(0),
        });
        let thread = |own| {
            let common = common.clone();
            let builder = std::thread::Builder::new().name("edgesmith".into());
            builder.spawn(move || common.serve(own)).ok()
        };
        let threads: Vec<_> = (1..count).map_while(thread).collect();
        (!threads.is_empty()).then(|| Self {
            common,
            threads,
            busy: AtomicBool::new(false),
        })
    }

    /// Threads, with the calling one.
    pub fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Does `task` with each of `0..count`, on the calling thread and on those of the pool that
    /// are there in time; on the calling thread alone where others are under way.
    pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.busy.swap(true, Ordering::Acquire) {
            return (0..count).for_each(task);
        }
        let tasks = Tasks {
            task,
            count,
            has_panicked: AtomicBool::new(false),
        };
        // SAFETY: threads take the reference from the slot under its lock and count themselves
        // as at work before they give the lock back. `UnderWay` empties the slot and waits until
        // none is at work, before `tasks` goes, whatever the tasks do.
        let shared = unsafe { std::mem::transmute::<&Tasks<'_>, &'static Tasks<'static>>(&tasks) };
        let under_way = UnderWay(self);
        {
            let mut slot = self.common.slot();
            for taken in &self.common.taken {
                taken.0.store(0, Ordering::Relaxed);
            }
            slot.work = Some(shared);
            self.common.count.fetch_add(1, Ordering::Release);
            if slot.sleeping > 0 {
                self.common.wake.notify_all();
            }
        }
        let done = catch_unwind(AssertUnwindSafe(|| self.common.work(&tasks, 0)));
        drop(under_way);
        if let Err(panic) = done {
            resume_unwind(panic);
        }
        assert!(
            !tasks.has_panicked.load(Ordering::Relaxed),
            "a task panicked on another thread"
        );
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.common.slot().is_closed = true;
        self.common.count.fetch_add(1, Ordering::Release);
        self.common.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread ends by itself; what panicked in it was told to who asked for the work.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_however_long_the_threads_slept() {
        let pool = Pool::new(3).unwrap();
        for round in 0..2000 {
            if round % 500 == 499 {
                std::thread::sleep(PATIENCE * 3);
            }
            let hits: Vec<AtomicUsize> = (0..round % 17).map(|_| AtomicUsize::new(0)).collect();
            pool.run(hits.len(), &|i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn tasks_within_tasks_and_of_several_callers_are_done() {
        let pool = Pool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, &|i| {
                            pool.run(5, &|j| {
                                sum.fetch_add(i * j, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 100 * 60);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for at in 0..8 {
            let tried = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|i| assert!(i != at, "task {i}"));
            }));
            assert!(tried.is_err());
        }
        let done = AtomicUsize::new(0);
        pool.run(8, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
    }
}
