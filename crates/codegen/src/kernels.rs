//! Kernels in C: what each is called, the text of each by flavour, and how weights are packed for it.

/// Which instructions the text of a kernel may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// C99 alone.
    C,
    /// The DSP extension of Cortex-M: two products of 16 bits in one instruction.
    Dsp,
    /// Helium, the vectors of Cortex-M.
    Mve,
}

/// A fragment of C.
pub struct Kernel {
    /// What its function is called behind the prefix.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The fragments that stand before it.
    pub needs: &'static [&'static str],
    /// The text, with `es_` and `ES_` where the prefix comes.
    pub source: fn(Flavour) -> &'static str,
}

/// Every fragment, each after those that it needs.
pub static KERNELS: &[&Kernel] = &[];
