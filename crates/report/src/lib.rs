//! Evidence in, table, JSON and one-file HTML out.

pub mod evidence;
pub mod format;
mod html;
pub mod interval;
mod plot;
mod summary;
pub mod table;

pub use evidence::Evidence;
pub use table::{Align, Cell, Column, Style, Table, Tone};
