//! Evidence in, table, JSON and one-file HTML out.
