//! From which share of zeros on lists are faster than the dense kernel.

use super::lists::{FOUR, MOST_INPUTS};
use crate::Ctx;
use crate::gemm::Order;

/// What a list belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Four outputs that follow each other: 4x1 blocks.
    Blocks,
    /// One output: CSR.
    Rows,
}

impl Form {
    /// Both, that which is faster at the same share first.
    pub const ALL: [Form; 2] = [Form::Blocks, Form::Rows];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Blocks => "4x1",
            Form::Rows => "csr",
        }
    }

    /// What it counts.
    pub const fn counts(self) -> &'static str {
        match self {
            Form::Blocks => "blocks",
            Form::Rows => "weights",
        }
    }

    /// Outputs of a list.
    pub(super) const fn rows(self) -> usize {
        match self {
            Form::Blocks => FOUR,
            Form::Rows => 1,
        }
    }
}

/// The form in which weights are quickest, where one is quicker than dense.
pub(super) fn choose(
    _ctx: &Ctx,
    _weight_bytes: usize,
    [_m, k, _n]: [usize; 3],
    _is_zero: impl Fn(usize) -> bool,
    _order: Order,
) -> Option<Form> {
    (k <= MOST_INPUTS).then_some(Form::Blocks)
}
