//! Arithmetic on slices by instruction set; the only home of `unsafe`.
//!
//! Every function takes a [`Ctx`], which says what instructions and how many threads it may use,
//! and plain slices. Images are channels-last: `[batch, height, width, channels]`. Shapes are
//! the caller's to get right: a slice that is too short for its stated shape is a bug of the
//! caller and panics before anything is read.
#![allow(
    unsafe_code,
    reason = "this crate is where vector instructions are called"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over lanes and tiles index several arrays of known length at once"
)]

pub mod activation;
pub mod arena;
pub mod attention;
pub mod conv;
pub mod convert;
pub mod cpu;
pub mod elementwise;
pub mod float8;
pub mod floats;
pub mod gemm;
pub mod layout;
pub mod loss;
pub mod memory;
pub mod norm;
pub(crate) mod parts;
pub mod peak;
pub mod permute;
pub mod pool;
pub mod quantize;
pub mod recurrent;
pub mod resample;
pub(crate) mod rows;
pub mod select;
pub mod sparse;
pub mod survey;

pub(crate) mod simd;
pub(crate) mod taps;
#[cfg(test)]
mod testing;
pub mod threads;

pub use cpu::Isa;
pub use threads::Threads;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arena::Buffer;

/// What a kernel may use: an instruction set that this CPU has, and threads.
#[derive(Clone, Debug)]
pub struct Ctx {
    isa: Isa,
    threads: Threads,
    bf16: bool,
    sparse: bool,
    stored: Option<Arc<Mutex<VecDeque<Buffer>>>>,
}

impl Ctx {
    /// A context for `isa`, or for the best set below it that this CPU has.
    pub fn new(isa: Isa, threads: Threads) -> Self {
        Self {
            isa: Isa::detect_capped(Some(isa)),
            threads,
            bf16: false,
            sparse: true,
            stored: None,
        }
    }

    /// The best instruction set of this CPU, on the calling thread only.
    pub fn serial() -> Self {
        Self::new(Isa::detect(), Threads::new(1))
    }

    /// The same threads with `isa`, which this CPU has.
    pub(crate) fn with_isa(&self, isa: Isa) -> Self {
        debug_assert!(isa.available());
        Self {
            isa,
            ..self.clone()
        }
    }

    /// The same on the calling thread only.
    #[must_use]
    pub fn on_one_thread(&self) -> Self {
        Self {
            threads: Threads::new(1),
            ..self.clone()
        }
    }

    /// With products of floats that round both sides to BF16 and add in f32; `false`: products of
    /// f32, which all sets have that do not multiply BF16 ([`Isa::multiplies_bf16`]).
    #[must_use]
    pub fn with_bf16(mut self, bf16: bool) -> Self {
        self.bf16 = bf16 && self.isa.multiplies_bf16();
        self
    }

    /// Whether products of floats round both sides to BF16.
    pub fn bf16(&self) -> bool {
        self.bf16
    }

    /// Whether products take signed activations as they are, and turn unsigned ones; else the other way.
    pub fn takes_signed(&self) -> bool {
        simd::takes_signed(self.isa)
    }

    /// Whether weights of which most are zero may be packed as lists of the others ([`sparse`]); they
    /// may where this is not said.
    #[must_use]
    pub fn with_sparse(self, sparse: bool) -> Self {
        Self { sparse, ..self }
    }

    /// Whether weights may be packed as lists.
    pub fn sparse(&self) -> bool {
        self.sparse
    }

    /// For packing weights that were packed before by the same instruction set and precision:
    /// `parts` are what `parts` of the packed weights gave, in their order. Where one has not the
    /// length that is wanted, it and those after it are left out, and weights are packed anew.
    #[must_use]
    pub fn with_stored(&self, parts: Vec<Buffer>) -> Self {
        Self {
            stored: Some(Arc::new(Mutex::new(parts.into()))),
            ..self.clone()
        }
    }

    /// The next stored parts, where they have these lengths.
    pub(crate) fn stored<const N: usize>(&self, lengths: [usize; N]) -> Option<[Buffer; N]> {
        let mut parts = self.stored.as_ref()?.lock().ok()?;
        let fits = (0..N).all(|i| parts.get(i).is_some_and(|p| p.len() == lengths[i]));
        if !fits {
            parts.clear();
            return None;
        }
        Some(std::array::from_fn(|_| {
            parts.pop_front().unwrap_or_default()
        }))
    }

    /// The next stored part, where `fits` says so; else it stays.
    pub(crate) fn stored_if(&self, fits: impl FnOnce(&Buffer) -> bool) -> Option<Buffer> {
        let mut parts = self.stored.as_ref()?.lock().ok()?;
        if parts.front().is_some_and(fits) {
            parts.pop_front()
        } else {
            None
        }
    }

    /// Whether there are stored parts.
    pub(crate) fn has_stored(&self) -> bool {
        let parts = self.stored.as_ref().and_then(|parts| parts.lock().ok());
        parts.is_some_and(|parts| !parts.is_empty())
    }

    /// The same without stored parts.
    pub(crate) fn without_stored(&self) -> Self {
        Self {
            stored: None,
            ..self.clone()
        }
    }

    /// The instruction set; this CPU has it.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }
}

/// A request that no kernel of this crate can serve; the text says which and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

#[cfg(test)]
mod tests {
    use bytes::Bytes as Shared;

    use super::*;
    use crate::arena::ALIGNMENT;
    use crate::conv::{ConvF32, ConvI8};
    use crate::gemm::{Bytes, Order, PackedF32, PackedI8};
    use crate::recurrent::{Cell, Form, Recurrent, Sizes};
    use crate::testing::{Random, contexts};

    /// Parts as they come out of a file.
    fn kept<'a>(parts: impl IntoIterator<Item = &'a Buffer>) -> Vec<Buffer> {
        let one = |part: &Buffer| {
            let mut whole = Buffer::zeroed(part.len().next_multiple_of(ALIGNMENT));
            whole.bytes_mut()[..part.len()].copy_from_slice(part.bytes());
            let len = part.len();
            Buffer::shared(&Shared::from_owner(Aligned(whole)), len).unwrap()
        };
        parts.into_iter().map(one).collect()
    }

    struct Aligned(Buffer);

    impl AsRef<[u8]> for Aligned {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }

    fn bytes<'a>(parts: impl IntoIterator<Item = &'a Buffer>) -> Vec<Vec<u8>> {
        parts.into_iter().map(|p| p.bytes().to_vec()).collect()
    }

    /// What `pack` makes of ones equals what it makes of `weights`, where that is stored.
    fn comes_back<T: 'static>(
        ctx: &Ctx,
        pack: impl Fn(&Ctx, bool) -> T,
        parts: impl Fn(&T) -> Vec<&Buffer>,
    ) {
        let first = pack(ctx, true);
        let all = parts(&first);
        let stored = ctx.with_stored(kept(all.iter().copied()));
        let again = pack(&stored, false);
        assert_eq!(bytes(all.iter().copied()), bytes(parts(&again)));
        assert!(stored.stored([0]).is_none(), "nothing is left");
    }

    #[test]
    fn what_was_packed_and_kept_is_not_packed_again() {
        let mut random = Random::new(11);
        for ctx in contexts() {
            for (k, n) in [(1, 1), (20, 40), (64, 33), (130, 7)] {
                let (w, ones) = (random.floats(k * n), vec![1.0; k * n]);
                let pick = |real: bool| if real { &w[..] } else { &ones[..] };
                let pack = |ctx: &Ctx, real| PackedF32::new(ctx, pick(real), Order::KN, k, n);
                comes_back(&ctx, pack, |p| p.parts().collect());
                if ctx.isa() != Isa::Avx2 {
                    let (w, ones) = (random.signed(k * n), vec![1; k * n]);
                    let pick = |real: bool| Bytes::I8(if real { &w[..] } else { &ones[..] });
                    let pack =
                        |ctx: &Ctx, real| PackedI8::new(ctx, pick(real), Order::NK, k, n, &[]);
                    comes_back(&ctx, pack, |p| p.parts().collect());
                }
            }
            let sizes = Sizes {
                input: 17,
                hidden: 9,
            };
            let (w, r) = (random.floats(2 * 3 * 9 * 17), random.floats(2 * 3 * 9 * 9));
            let ones = vec![1.0; w.len()];
            let cell = Cell::Gru {
                linear_before_reset: true,
            };
            let form = Form {
                cell,
                sizes,
                directions: &[false, true],
            };
            let pack = |ctx: &Ctx, real: bool| {
                let weights = match real {
                    true => (&w[..], &r[..], None),
                    false => (&ones[..], &ones[..r.len()], None),
                };
                Recurrent::new(ctx, form, weights)
            };
            comes_back(&ctx, pack, Recurrent::parts);
            for round in 0..20 {
                let mut g = conv::tests::some_geometry(&mut random);
                if round == 0 {
                    (g.kernel, g.stride, g.dilation, g.groups) = ([3; 2], [1; 2], [1; 2], 1);
                    (g.input, g.channels_in, g.channels_out) = ([9; 2], 16, 24);
                }
                let count = g.channels_out * g.depth();
                let (w, ones) = (random.floats(count), vec![1.0; count]);
                let pack = |ctx: &Ctx, real: bool| {
                    ConvF32::prepare(ctx, g, if real { &w } else { &ones }).unwrap()
                };
                comes_back(&ctx, pack, ConvF32::parts);
                if ctx.isa() != Isa::Avx2 && !g.is_depthwise() {
                    let (w, ones) = (random.signed(count), vec![1; count]);
                    let pack = |ctx: &Ctx, real: bool| {
                        let w = Bytes::I8(if real { &w } else { &ones });
                        ConvI8::prepare(ctx, g, w, &[]).unwrap()
                    };
                    comes_back(&ctx, pack, ConvI8::parts);
                }
            }
        }
    }

    #[test]
    fn parts_of_another_size_are_left_out() {
        for ctx in contexts() {
            let packed = PackedF32::new(&ctx, &[2.0; 12], Order::KN, 3, 4);
            let stored = ctx.with_stored(kept(packed.parts()));
            let ones = [1.0; 300];
            let other = PackedF32::new(&stored, &ones, Order::KN, 15, 20);
            let wanted = PackedF32::new(&ctx, &ones, Order::KN, 15, 20);
            assert_eq!(bytes(other.parts()), bytes(wanted.parts()));
        }
    }

    #[test]
    fn shared_bytes_are_aligned_whole_lines_and_copied_before_they_are_written() {
        let bytes = Shared::from_owner(Aligned(Buffer::zeroed(192)));
        assert!(Buffer::shared(&bytes, 193).is_none());
        assert!(Buffer::shared(&bytes.slice(1..), 64).is_none());
        assert!(Buffer::shared(&bytes.slice(64..100), 10).is_none());
        assert!(Buffer::shared(&bytes, usize::MAX).is_none());
        let mut part = Buffer::shared(&bytes.slice(64..), 70).unwrap();
        part.bytes_mut()[69] = 7;
        assert_eq!((part.len(), part.bytes()[69]), (70, 7));
        assert!(bytes.iter().all(|b| *b == 0));
    }
}
