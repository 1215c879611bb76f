//! One vector vocabulary that kernels are written in once, and its words in each instruction set.

use crate::Isa;

mod ahead;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod turn;

pub(crate) use ahead::{Ahead, ask};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use turn::turn;

/// Vectors of an instruction set. Closures do not belong in what uses them: one that is not
/// inlined by itself is compiled without the instructions, each of which it then calls. A value of the type is the proof that this CPU has the set,
/// so that only what touches memory is unsafe. Everything is inlined into a function that
/// enables the instructions.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of `LANES` floats.
    type F: Copy;
    /// A vector of `LANES` 32-bit integers, also read as twice as many 16-bit ones.
    type I: Copy;
    /// Four floats.
    type Q: Copy;
    /// The least set that has these vectors.
    const ISA: Isa;
    /// Lanes of a vector; at most [`MAX_LANES`].
    const LANES: usize;
    /// Rows of a matrix tile that is two vectors wide, so that its sums stay in registers.
    const ROWS: usize;
    /// Rows of such a tile where a step needs one register more, for products that are not added at once.
    const PAIR_ROWS: usize = Self::ROWS;
    /// Whether [`Simd::store_rounded_rows`] is quicker than a row at a time.
    const ROUNDS_ROWS: bool = false;

    /// Whether [`Simd::fma`] rounds once.
    const FUSES: bool = true;

    /// Whether [`Simd::look_up`] is one instruction.
    const LOOKS_UP: bool = false;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the set can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `x` where `a < b`, else `y`; `y` if either is NaN.
    fn if_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// To the nearest integer, ties to even; out of range is unspecified.
    fn to_int(self, a: Self::F) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    fn bits(self, a: Self::F) -> Self::I;
    fn float_of(self, a: Self::I) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shifts every lane left by a byte.
    fn byte_up(self, a: Self::I) -> Self::I;
    /// Shifts every lane right by `n` bits in 0..=31; zeros come in.
    fn shift_down(self, a: Self::I, n: i32) -> Self::I;
    /// Shifts every lane left by 23, where the exponent of a float begins.
    fn to_exponent(self, a: Self::I) -> Self::I;
    /// `acc + a.low * b.low + a.high * b.high` in every lane, halves read as signed 16-bit.
    fn dot_pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// # Safety
    /// `LANES` floats are readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `LANES` floats are writable at `p`.
    unsafe fn store(self, p: *mut f32, a: Self::F);
    /// # Safety
    /// `LANES` integers are readable at `p`.
    unsafe fn load_i(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `LANES` integers are writable at `p`.
    unsafe fn store_i(self, p: *mut i32, a: Self::I);
    /// `V` vectors of floats.
    ///
    /// # Safety
    /// They are readable at `p`.
    #[inline(always)]
    unsafe fn load_all<const V: usize>(self, p: *const f32) -> [Self::F; V] {
        let mut all = [self.splat(0.0); V];
        for (v, to) in all.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { self.load(p.add(v * Self::LANES)) };
        }
        all
    }
    /// `V` vectors of integers.
    ///
    /// # Safety
    /// They are readable at `p`.
    #[inline(always)]
    unsafe fn load_all_i<const V: usize>(self, p: *const i32) -> [Self::I; V] {
        let mut all = [self.splat_i(0); V];
        for (v, to) in all.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { self.load_i(p.add(v * Self::LANES)) };
        }
        all
    }
    /// Bytes, zero-extended.
    ///
    /// # Safety
    /// `LANES` bytes are readable at `p`.
    unsafe fn load_u8(self, p: *const u8) -> Self::I;
    /// Bytes, sign-extended.
    ///
    /// # Safety
    /// `LANES` bytes are readable at `p`.
    unsafe fn load_i8(self, p: *const u8) -> Self::I;
    /// Stores the low byte of every lane. Lanes lie in -128..=255, all within one of the two
    /// byte ranges.
    ///
    /// # Safety
    /// `LANES` bytes are writable at `p`.
    unsafe fn store_bytes(self, p: *mut u8, a: Self::I);
    /// `2 * LANES` unsigned bytes as 16-bit integers.
    ///
    /// # Safety
    /// `2 * LANES` bytes are readable at `p`.
    unsafe fn load_u8_pairs(self, p: *const u8) -> Self::I;
    /// `2 * LANES` signed bytes as 16-bit integers.
    ///
    /// # Safety
    /// `2 * LANES` bytes are readable at `p`.
    unsafe fn load_i8_pairs(self, p: *const i8) -> Self::I;
    /// [`Simd::interleave_u8`] of the bytes at `p` and `q`, and of the next `LANES` bytes.
    ///
    /// # Safety
    /// `2 * LANES` bytes are readable at both.
    #[inline(always)]
    unsafe fn interleave_u8_twice(self, p: *const u8, q: *const u8) -> [Self::I; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let next = self.interleave_u8(p.add(Self::LANES), q.add(Self::LANES));
            [self.interleave_u8(p, q), next]
        }
    }

    /// In every lane a byte from `p` (low half) and one from `q` (high half), zero-extended.
    ///
    /// # Safety
    /// `LANES` bytes are readable at both.
    unsafe fn interleave_u8(self, p: *const u8, q: *const u8) -> Self::I;

    /// Stores two rows of `2 * LANES` bytes `clamp(round(x) + zero, lo, hi)`, ties to even.
    ///
    /// # Safety
    /// `2 * LANES` bytes are writable at both of `to`.
    #[inline(always)]
    unsafe fn store_rounded(self, to: [*mut u8; 2], x: [[Self::F; 2]; 2], range: ByteRange) {
        let lo = self.splat((range.lo - range.zero) as f32);
        let hi = self.splat((range.hi - range.zero) as f32);
        let zero = self.splat_i(range.zero);
        for (to, row) in to.into_iter().zip(x) {
            for (v, x) in row.into_iter().enumerate() {
                let y = self.add_i(self.to_int(self.clamp(x, lo, hi)), zero);
                // SAFETY: the caller's promise.
                unsafe { self.store_bytes(to.add(v * Self::LANES), y) };
            }
        }
    }

    /// Stores four rows of `LANES` bytes, as [`Simd::store_rounded`] does.
    ///
    /// # Safety
    /// `LANES` bytes are writable at each of `to`.
    #[inline(always)]
    unsafe fn store_rounded_rows(self, to: [*mut u8; 4], x: [Self::F; 4], range: ByteRange) {
        let lo = self.splat((range.lo - range.zero) as f32);
        let hi = self.splat((range.hi - range.zero) as f32);
        let zero = self.splat_i(range.zero);
        for (to, x) in to.into_iter().zip(x) {
            let y = self.add_i(self.to_int(self.clamp(x, lo, hi)), zero);
            // SAFETY: the caller's promise.
            unsafe { self.store_bytes(to, y) };
        }
    }

    /// The first `n <= LANES` floats, then zeros.
    ///
    /// # Safety
    /// `n` floats are readable at `p`.
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F {
        let mut lanes = [0f32; MAX_LANES];
        // SAFETY: `n` elements are readable, and fit the array, which holds a vector.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }

    /// [`Simd::load_n`], quick where `n` is all.
    ///
    /// # Safety
    /// `n <= LANES` floats are readable at `p`.
    #[inline(always)]
    unsafe fn load_up_to(self, p: *const f32, n: usize) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe {
            if n == Self::LANES {
                self.load(p)
            } else {
                self.load_n(p, n)
            }
        }
    }

    /// [`Simd::store_n`], quick where `n` is all.
    ///
    /// # Safety
    /// `n <= LANES` floats are writable at `p`.
    #[inline(always)]
    unsafe fn store_up_to(self, p: *mut f32, a: Self::F, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if n == Self::LANES {
                self.store(p, a);
            } else {
                self.store_n(p, a, n);
            }
        }
    }

    /// Stores the low byte of the first `n <= LANES` lanes; else as [`Simd::store_bytes`].
    ///
    /// # Safety
    /// `n` bytes are writable at `p`.
    #[inline(always)]
    unsafe fn store_bytes_n(self, p: *mut u8, a: Self::I, n: usize) {
        let mut bytes = [0; MAX_LANES];
        // SAFETY: the array holds a vector, and `n` bytes are writable.
        unsafe {
            self.store_bytes(bytes.as_mut_ptr(), a);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
        }
    }

    /// Stores the first `n <= LANES` floats.
    ///
    /// # Safety
    /// `n` floats are writable at `p`.
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, a: Self::F, n: usize) {
        let lanes = self.lanes(a);
        // SAFETY: `n` elements are writable, and the array holds as many.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n) }
    }

    /// The lanes in order, then zeros.
    #[inline(always)]
    fn lanes(self, a: Self::F) -> [f32; MAX_LANES] {
        let mut lanes = [0f32; MAX_LANES];
        // SAFETY: the array holds a vector.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        lanes
    }

    /// The integer lanes in order, then zeros.
    #[inline(always)]
    fn lanes_i(self, a: Self::I) -> [i32; MAX_LANES] {
        let mut lanes = [0; MAX_LANES];
        // SAFETY: the array holds a vector.
        unsafe { self.store_i(lanes.as_mut_ptr(), a) };
        lanes
    }

    /// `x` within `lo..=hi`; NaN stays NaN.
    #[inline(always)]
    fn clamp(self, x: Self::F, lo: Self::F, hi: Self::F) -> Self::F {
        self.min(hi, self.max(lo, x))
    }

    /// `y * 2^n` for whole `n` in -252..=254, in two factors, so that results below the normal
    /// range come out right.
    #[inline(always)]
    fn times_power(self, y: Self::F, n: Self::F) -> Self::F {
        let half = self.round(self.mul(n, self.splat(0.5)));
        let rest = self.sub(n, half);
        self.mul(self.mul(y, self.power(half)), self.power(rest))
    }

    /// `2^n` for whole `n` in -126..=127.
    #[inline(always)]
    fn power(self, n: Self::F) -> Self::F {
        let exponent = self.add_i(self.to_int(n), self.splat_i(127));
        self.float_of(self.to_exponent(exponent))
    }

    /// The number of `table` that each lane of `i` names, by its last five bits.
    #[inline(always)]
    fn look_up(self, table: &[f32; 32], i: Self::I) -> Self::F {
        let mut lanes = [0f32; MAX_LANES];
        for (lane, i) in lanes.iter_mut().zip(self.lanes_i(i)) {
            *lane = table[i as usize & 31];
        }
        // SAFETY: the array holds a vector.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// The number of `table` that each lane of `i` names, by its last four bits.
    #[inline(always)]
    fn look_up_16(self, table: &[f32; 16], i: Self::I) -> Self::F {
        let mut lanes = [0f32; MAX_LANES];
        for (lane, i) in lanes.iter_mut().zip(self.lanes_i(i)) {
            *lane = table[i as usize & 15];
        }
        // SAFETY: the array holds a vector.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Four zeros.
    fn four_zeros(self) -> Self::Q;
    /// `acc + w x` of the four floats at `w`, as [`Simd::fma`] rounds it.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn four_fma(self, w: *const f32, x: f32, acc: Self::Q) -> Self::Q;
    /// # Safety
    /// Four floats are writable at `p`.
    unsafe fn four_store(self, p: *mut f32, a: Self::Q);

    /// Four neighbours of each of `LANES` rows, `stride` apart: row `i` is lane `i` of four vectors.
    ///
    /// # Safety
    /// They are readable.
    #[inline(always)]
    unsafe fn load_columns(self, from: *const f32, stride: usize) -> [Self::F; 4] {
        let mut columns = [[0f32; MAX_LANES]; 4];
        // SAFETY: the caller's promise; the arrays hold vectors.
        unsafe {
            for i in 0..4 * Self::LANES {
                columns[i % 4][i / 4] = *from.add(i / 4 * stride + i % 4);
            }
            let [a, b, c, d] = &columns;
            [
                self.load(a.as_ptr()),
                self.load(b.as_ptr()),
                self.load(c.as_ptr()),
                self.load(d.as_ptr()),
            ]
        }
    }

    /// The bytes of four lines, four neighbours in every lane.
    ///
    /// # Safety
    /// `LANES` bytes are readable at each of `p`.
    #[inline(always)]
    unsafe fn join_four(self, p: [*const u8; 4]) -> Self::I {
        let mut lanes = [0i32; MAX_LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's promise.
            *lane = i32::from_le_bytes(unsafe {
                [*p[0].add(i), *p[1].add(i), *p[2].add(i), *p[3].add(i)]
            });
        }
        // SAFETY: the array holds a vector.
        unsafe { self.load_i(lanes.as_ptr()) }
    }

    /// As [`Simd::join_four`], of `4 * LANES` bytes: lane `4 l + i` of vector `v` holds bytes
    /// `16 l + 4 v + i`.
    ///
    /// # Safety
    /// `4 * LANES` bytes are readable at each of `p`.
    #[inline(always)]
    unsafe fn join_sixteen(self, p: [*const u8; 4]) -> [Self::I; 4] {
        let mut all = [self.splat_i(0); 4];
        for (v, to) in all.iter_mut().enumerate() {
            let mut lanes = [0i32; MAX_LANES];
            for (i, lane) in lanes.iter_mut().enumerate().take(Self::LANES) {
                let at = i / 4 * 16 + 4 * v + i % 4;
                // SAFETY: the caller's promise.
                *lane = i32::from_le_bytes(unsafe {
                    [*p[0].add(at), *p[1].add(at), *p[2].add(at), *p[3].add(at)]
                });
            }
            // SAFETY: the array holds a vector.
            *to = unsafe { self.load_i(lanes.as_ptr()) };
        }
        all
    }

    /// Writes sixteen bytes of each of `4 * LANES` rows as sixteen lines of as many, changed in
    /// the bits of `flip`.
    ///
    /// # Safety
    /// Sixteen bytes are readable `at` bytes behind each row, and the lines are writable.
    #[inline(always)]
    unsafe fn turn_bytes(self, rows: &[*const u8], at: usize, to: *mut u8, flip: u8) {
        for (i, row) in rows[..4 * Self::LANES].iter().enumerate() {
            for c in 0..16 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(c * 4 * Self::LANES + i) = *row.add(at + c) ^ flip };
            }
        }
    }

    /// The largest lane; any of them if one is NaN.
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        let lanes = self.lanes(a);
        lanes[1..Self::LANES]
            .iter()
            .fold(lanes[0], |most, &x| if x > most { x } else { most })
    }

    /// The sum of the lanes, added pairwise.
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        let mut lanes = self.lanes(a);
        let mut n = Self::LANES;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                lanes[i] += lanes[i + n];
            }
        }
        lanes[0]
    }
}

/// The bytes that numbers are rounded to: `lo..=hi`, all unsigned or all signed, and the one
/// that stands for 0.
#[derive(Clone, Copy)]
pub(crate) struct ByteRange {
    pub zero: i32,
    pub lo: i32,
    pub hi: i32,
}

/// The most lanes that any set has.
pub(crate) const MAX_LANES: usize = 16;

/// How bytes are multiplied: products of `GROUP` neighbours along K are added in one step.
/// Both sides of a group take four bytes.
pub(crate) trait Dot<S: Simd>: Copy + 'static {
    /// Neighbours in a group: 2 if activations are widened to 16 bits, 4 if they stay bytes.
    const GROUP: usize;
    /// Rows of a tile of two vectors, at most: what a step needs beside the sums has to find registers too.
    const ROWS: usize = S::ROWS;
    /// `acc` plus the products of a group of activations, the same in every lane, with a group
    /// of weights in every lane.
    fn dot(s: S, acc: S::I, a: S::I, b: S::I) -> S::I;
    /// The groups of weights of `LANES` columns.
    ///
    /// # Safety
    /// `LANES * GROUP` bytes are readable at `p`.
    unsafe fn weights(s: S, p: *const i8) -> S::I;
}

/// Whether `isa` multiplies bytes with signed ones only, rather than unsigned with signed.
pub(crate) fn takes_signed(isa: Isa) -> bool {
    isa == Isa::NeonDot
}

/// Widens both sides to 16 bits: exact on every CPU.
#[derive(Clone, Copy)]
pub(crate) struct Widen;

impl<S: Simd> Dot<S> for Widen {
    const GROUP: usize = 2;
    const ROWS: usize = S::PAIR_ROWS;
    #[inline(always)]
    fn dot(s: S, acc: S::I, a: S::I, b: S::I) -> S::I {
        s.dot_pairs(acc, a, b)
    }
    #[inline(always)]
    unsafe fn weights(s: S, p: *const i8) -> S::I {
        // SAFETY: the caller's promise is the same.
        unsafe { s.load_i8_pairs(p) }
    }
}

/// A kernel body that can be compiled for every instruction set. `run` is `#[inline(always)]`.
pub(crate) trait Body {
    type Out;
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Runs `body` with the instructions of `isa`, which this CPU has.
pub(crate) fn dispatch<B: Body>(isa: Isa, body: B) -> B::Out {
    match dispatch_vector(isa, body) {
        Ok(out) => out,
        Err(body) => body.run(scalar::Scalar),
    }
}

/// [`dispatch`] without the generic set, for which the body is given back: long bodies are not
/// worth compiling for it.
pub(crate) fn dispatch_vector<B: Body>(isa: Isa, body: B) -> Result<B::Out, B> {
    debug_assert!(isa.available());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Ctx` holds only sets that this CPU has.
        Isa::Avx2 | Isa::AvxVnni => Ok(unsafe { avx2::run(body) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => Ok(unsafe { avx512::run(body) }),
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Ok(unsafe { neon::run(body) }),
        _ => Err(body),
    }
}

/// Defines methods that are one intrinsic each.
macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: a value of this type exists only where the CPU has the instructions.
            unsafe { $body }
        }
    )*};
}

/// Defines methods that touch memory.
macro_rules! memory {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) $(-> $out)? {
            // SAFETY: the caller promises the memory; the type proves the instructions.
            unsafe { $body }
        }
    )*};
}
pub(crate) use {memory, ops};
