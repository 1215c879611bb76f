//! What the tests of kernels share: reproducible numbers, contexts for every set here, closeness.

use crate::{Ctx, Isa, Threads};

/// A small generator of reproducible numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn float(&mut self) -> f32 {
        (self.next() % 20001) as f32 / 10000.0 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Signed bytes in the middle of their range, but for one in a thousand.
    pub(crate) fn mild(&mut self, n: usize) -> Vec<i8> {
        let one = |byte: i8, rare| if rare { byte } else { byte / 2 };
        (0..n)
            .map(|_| one(self.next() as i8, self.below(1000) == 0))
            .collect()
    }

    pub(crate) fn signed(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }
}

/// A context for every instruction set of this CPU, on one thread and on two, and for the best of them on three.
pub(crate) fn contexts() -> Vec<Ctx> {
    let sets = Isa::ALL.into_iter().filter(|isa| isa.available());
    let most = |isa| if isa == Isa::detect() { 3 } else { 2 };
    sets.flat_map(|isa| (1..=most(isa)).map(move |n| Ctx::new(isa, Threads::new(n))))
        .collect()
}

/// Checks that floats agree to `tolerance` of the larger of 1 and the expected magnitude.
#[track_caller]
pub(crate) fn close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan());
        let near = (g - w).abs() <= tolerance * w.abs().max(1.0);
        assert!(same || near, "{what}: element {i} is {g}, expected {w}");
    }
}
