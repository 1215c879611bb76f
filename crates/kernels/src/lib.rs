//! Arithmetic on slices by instruction set; the only home of `unsafe`.
