//! Tiles of x86-64 AMX: sixteen rows of 64 bytes, and products of two of them.
//!
//! Instructions are written out: what the compiler calls them is not settled. Tiles 0 to 3 hold
//! sums, 4 and 5 rows of A, 6 and 7 columns of B; the compiler itself uses none of them.

use std::arch::asm;

/// Rows of a tile at most.
pub(crate) const ROWS: usize = 16;

/// Bytes of a row of a tile.
pub(crate) const BYTES: usize = 64;

/// Whether the CPU multiplies tiles of bytes and of BF16, and the system lets this process do so.
pub(crate) fn available() -> bool {
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    let wanted = 1 << 22 | 1 << 24 | 1 << 25;
    features & wanted == wanted && permitted()
}

/// Asks Linux for the state of tiles, which a process does not have until it asks
/// (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    let result: i64;
    // SAFETY: the call takes two numbers, touches no memory of this process, and changes the
    // registers that are named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158i64 => result,
            in("rdi") 0x1023u64,
            in("rsi") 18u64,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What a product multiplies: four bytes, or two BF16 numbers, in each 32 bits.
pub(crate) trait Product: Copy + 'static {
    /// Adds the product of tiles `A` and `B` to tile `C`.
    ///
    /// # Safety
    /// The CPU has AMX, and tiles are configured.
    unsafe fn add<const C: usize, const A: usize, const B: usize>();
}

/// Unsigned bytes of A with signed ones of B, to 32-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct U8I8;

impl Product for U8I8 {
    #[inline(always)]
    unsafe fn add<const C: usize, const A: usize, const B: usize>() {
        // SAFETY: the caller's promise; tiles are no registers of the compiler.
        unsafe {
            asm!("tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags));
        }
    }
}

/// BF16 numbers, to f32; what is below the normal range counts as 0.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Product for Bf16 {
    #[inline(always)]
    unsafe fn add<const C: usize, const A: usize, const B: usize>() {
        // SAFETY: the caller's promise; tiles are no registers of the compiler.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags));
        }
    }
}

/// Sets the shapes of all tiles: sums and A have `rows` rows, B has sixteen.
///
/// # Safety
/// The CPU has AMX, and `rows` is 1 to 16.
#[inline(always)]
pub(crate) unsafe fn configure(rows: usize) {
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }
    let mut shapes = Shapes {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        bytes: [0; 16],
        rows: [0; 16],
    };
    shapes.bytes[..8].fill(BYTES as u16);
    shapes.rows[..6].fill(rows as u8);
    shapes.rows[6..8].fill(ROWS as u8);
    // SAFETY: the caller's promise; the instruction reads the 64 bytes of `shapes`.
    unsafe {
        asm!("ldtilecfg [{p}]", p = in(reg) &raw const shapes,
            options(nostack, readonly, preserves_flags));
    }
}

/// Gives the state of all tiles back.
///
/// # Safety
/// The CPU has AMX.
#[inline(always)]
pub(crate) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Clears tile `T`.
///
/// # Safety
/// The CPU has AMX, and tiles are configured.
#[inline(always)]
pub(crate) unsafe fn zero<const T: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) };
}

/// Loads tile `T` from rows `stride` bytes apart.
///
/// # Safety
/// As for [`zero`]; the rows of the tile, 64 bytes each, are readable.
#[inline(always)]
pub(crate) unsafe fn load<const T: usize>(from: *const u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tileloadd tmm{t}, [{p} + {s}*1]", t = const T, p = in(reg) from, s = in(reg) stride,
            options(nostack, readonly, preserves_flags));
    }
}

/// Stores tile `T` to rows `stride` bytes apart.
///
/// # Safety
/// As for [`zero`]; the rows of the tile, 64 bytes each, are writable.
#[inline(always)]
pub(crate) unsafe fn store<const T: usize>(to: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tilestored [{p} + {s}*1], tmm{t}", t = const T, p = in(reg) to, s = in(reg) stride,
            options(nostack, preserves_flags));
    }
}
