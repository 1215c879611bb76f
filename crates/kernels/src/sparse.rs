//! Products with weights of which most are zero: where they are, nothing is multiplied.
//!
//! Weights `[K, N]` are kept as lists: for four outputs together the inputs of which one of the four
//! weights is not zero (4x1 blocks), or for each output by itself (CSR). Rows of A are turned to
//! columns, so that a vector holds one input of many rows, and meets one weight. Sums go over K from
//! first to last with one rounding for each product, as those of dense kernels do: what is left out
//! would have added nothing, and floats come out as there, to the bit. A product with zero is not zero
//! where A is infinite or not a number; such a product is taken anew by the dense kernel.
//!
//! Bytes meet in fours where the instruction set multiplies fours: four inputs of a list are joined to
//! words of one byte each, and meet the four weights of an output. Others widen them in pairs. Where
//! one instruction picks any of 64 bytes, rows stay as they are, and each step picks inputs of sixteen
//! lists from a window of a row.
//!
//! [`break_even`] says from which share of zeros on that is faster.

pub mod break_even;
mod cut;
pub mod f32;
mod frame;
pub mod int8;
mod lists;
mod windows;

pub use self::break_even::Form;
pub use self::f32::SparseF32;
pub use self::int8::SparseI8;

use crate::Isa;

/// A kernel for lists of weights.
#[derive(Debug)]
pub struct Kernel {
    /// `<arch>-<isa>-<types>-<form>-<rows>`.
    pub name: &'static str,
    /// What it needs.
    pub isa: Isa,
    /// Bytes in a weight.
    pub weight_bytes: usize,
    /// The form of its lists.
    pub form: Form,
    /// Whether it picks bytes of rows, for which the instruction set alone is not enough.
    pub picks: bool,
}

const fn kernel(isa: Isa, weight_bytes: usize, form: Form, name: &'static str) -> Kernel {
    Kernel {
        name,
        isa,
        weight_bytes,
        form,
        picks: false,
    }
}

/// The same, picking bytes.
const fn picking(kernel: Kernel) -> Kernel {
    Kernel {
        picks: true,
        ..kernel
    }
}

/// The kernels, best first.
pub static KERNELS: &[Kernel] = &[
    kernel(
        Isa::Avx512,
        4,
        Form::Blocks,
        "x86_64-avx512-f32-sparse4x1-64",
    ),
    kernel(Isa::Avx2, 4, Form::Blocks, "x86_64-avx2-f32-sparse4x1-16"),
    kernel(Isa::Neon, 4, Form::Blocks, "aarch64-neon-f32-sparse4x1-16"),
    kernel(Isa::Generic, 4, Form::Blocks, "generic-f32-sparse4x1-8"),
    kernel(Isa::Avx512, 4, Form::Rows, "x86_64-avx512-f32-csr-64"),
    kernel(Isa::Avx2, 4, Form::Rows, "x86_64-avx2-f32-csr-16"),
    kernel(Isa::Neon, 4, Form::Rows, "aarch64-neon-f32-csr-16"),
    kernel(Isa::Generic, 4, Form::Rows, "generic-f32-csr-8"),
    picking(kernel(
        Isa::Avx512Vnni,
        1,
        Form::Blocks,
        "x86_64-avx512-vbmi-u8i8-sparse4x1-6",
    )),
    kernel(
        Isa::Avx512Vnni,
        1,
        Form::Blocks,
        "x86_64-avx512-vnni-u8i8-sparse4x1-64",
    ),
    kernel(
        Isa::Avx512,
        1,
        Form::Blocks,
        "x86_64-avx512-u8i8-sparse4x1-64",
    ),
    kernel(
        Isa::AvxVnni,
        1,
        Form::Blocks,
        "x86_64-avx-vnni-u8i8-sparse4x1-16",
    ),
    kernel(Isa::Avx2, 1, Form::Blocks, "x86_64-avx2-u8i8-sparse4x1-16"),
    kernel(
        Isa::NeonI8mm,
        1,
        Form::Blocks,
        "aarch64-neon-i8mm-u8i8-sparse4x1-16",
    ),
    kernel(
        Isa::NeonDot,
        1,
        Form::Blocks,
        "aarch64-neon-dotprod-i8i8-sparse4x1-16",
    ),
    kernel(Isa::Neon, 1, Form::Blocks, "aarch64-neon-u8i8-sparse4x1-16"),
    kernel(Isa::Generic, 1, Form::Blocks, "generic-u8i8-sparse4x1-8"),
    picking(kernel(
        Isa::Avx512Vnni,
        1,
        Form::Rows,
        "x86_64-avx512-vbmi-u8i8-csr-8",
    )),
    kernel(
        Isa::Avx512Vnni,
        1,
        Form::Rows,
        "x86_64-avx512-vnni-u8i8-csr-64",
    ),
    kernel(Isa::Avx512, 1, Form::Rows, "x86_64-avx512-u8i8-csr-64"),
    kernel(Isa::AvxVnni, 1, Form::Rows, "x86_64-avx-vnni-u8i8-csr-16"),
    kernel(Isa::Avx2, 1, Form::Rows, "x86_64-avx2-u8i8-csr-16"),
    kernel(
        Isa::NeonI8mm,
        1,
        Form::Rows,
        "aarch64-neon-i8mm-u8i8-csr-16",
    ),
    kernel(
        Isa::NeonDot,
        1,
        Form::Rows,
        "aarch64-neon-dotprod-i8i8-csr-16",
    ),
    kernel(Isa::Neon, 1, Form::Rows, "aarch64-neon-u8i8-csr-16"),
    kernel(Isa::Generic, 1, Form::Rows, "generic-u8i8-csr-8"),
];

/// What is said of lists: their form, and the part of blocks or weights that is left.
fn told(form: Form, share: f64) -> String {
    let (name, percent) = (form.name(), 100.0 * share);
    format!("sparse {name}, {percent:.0} % of {}", form.counts())
}

/// The kernel that `isa` uses for lists of this form, and that picks bytes or not.
fn name(isa: Isa, weight_bytes: usize, form: Form, picks: bool) -> &'static str {
    let fits = |k: &&Kernel| (k.weight_bytes, k.form, k.picks) == (weight_bytes, form, picks);
    KERNELS
        .iter()
        .filter(fits)
        .find(|k| isa.includes(k.isa))
        .expect("the list has a generic kernel for each form")
        .name
}
