//! Evidence in, table, JSON and one-file HTML out.

pub mod evidence;
pub mod format;
pub mod interval;
mod summary;
pub mod table;

pub use evidence::Evidence;
pub use table::{Align, Cell, Column, Style, Table, Tone};
