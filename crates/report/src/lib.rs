//! Evidence in, table, JSON and one-file HTML out.

pub mod evidence;
pub mod interval;
