//! The allocator of the system, which tells the program where there is no more memory.

use std::alloc::{GlobalAlloc, Layout, System};

/// Memory of the system. Where it gives none, `exhausted` is called with the bytes that were asked for.
pub struct Told {
    /// Ends the process. It aborts where it panics, as `extern "C"` functions do: nothing may unwind
    /// through an allocator.
    pub exhausted: extern "C" fn(usize) -> !,
}

impl Told {
    fn checked(&self, memory: *mut u8, bytes: usize) -> *mut u8 {
        if memory.is_null() {
            (self.exhausted)(bytes);
        }
        memory
    }
}

// SAFETY: each call goes to `System` with the same arguments, and what it answers is handed on;
// `exhausted` neither comes back nor unwinds.
unsafe impl GlobalAlloc for Told {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises is what `System` asks for.
        let memory = unsafe { System.alloc(layout) };
        self.checked(memory, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let memory = unsafe { System.alloc_zeroed(layout) };
        self.checked(memory, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let memory = unsafe { System.realloc(memory, layout, size) };
        self.checked(memory, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(memory, layout) };
    }
}
