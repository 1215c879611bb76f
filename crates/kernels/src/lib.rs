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
pub mod gemm;
pub mod norm;
pub mod peak;
pub mod permute;
pub mod pool;
pub mod quantize;
pub mod recurrent;
pub mod select;

pub(crate) mod simd;
#[cfg(test)]
mod testing;
pub mod threads;

pub use cpu::Isa;
pub use threads::Threads;

/// What a kernel may use: an instruction set that this CPU has, and threads.
#[derive(Clone, Debug)]
pub struct Ctx {
    isa: Isa,
    threads: Threads,
    bf16: bool,
}

impl Ctx {
    /// A context for `isa`, or for the best set below it that this CPU has.
    pub fn new(isa: Isa, threads: Threads) -> Self {
        Self {
            isa: Isa::detect_capped(Some(isa)),
            threads,
            bf16: false,
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
    pub(crate) fn on_one_thread(&self) -> Self {
        Self {
            threads: Threads::new(1),
            ..*self
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
