//! Asking for memory before it is read.

/// Asks for what will be read after a loop, a little in each of its steps: more at once would wait
/// for the memory.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    at: *const u8,
    /// In 256ths of a line, what is asked for and what a step asks for.
    done: usize,
    rate: usize,
}

impl Ahead {
    const LINE: usize = 64;

    /// Asks for the share of part `i` of `parts` of `data` in `steps` steps.
    #[inline(always)]
    pub(crate) fn new<T>(data: &[T], steps: usize, i: usize, parts: usize) -> Self {
        let bytes = size_of_val(data);
        let share = bytes.div_ceil(Self::LINE).div_ceil(parts);
        Self {
            at: data
                .as_ptr()
                .cast::<u8>()
                .wrapping_add((i * share * Self::LINE).min(bytes)),
            done: 0,
            rate: (share << 8) / steps.max(1),
        }
    }

    /// A step.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        let at = self.at.wrapping_add((self.done >> 8) * Self::LINE);
        ask(at);
        if self.rate > 256 {
            ask(at.wrapping_add(Self::LINE));
        }
        self.done += self.rate;
    }
}

/// Asks for the line at `at`, which need not be there.
#[inline(always)]
pub(crate) fn ask(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it reads nothing, and every x86-64 CPU has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: it reads nothing, and every 64-bit Arm CPU has it.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{at}]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
