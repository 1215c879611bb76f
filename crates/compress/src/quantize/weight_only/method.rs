//! The ways to round a weight: one row for each.
//!
//! To add one: write its function in a file of its own, and its row.

use edgesmith_ir::{Error, Result};
use edgesmith_kernels::Ctx;

use super::Settings;
use super::blocks::{Blocks, Scheme};
use super::matrix::Matrix;
use super::nf4::Nf4;
use super::{awq, gptq, hqq, nf4, rtn};

/// A way to round a weight.
pub struct Method {
    /// The name on the command line.
    pub name: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// It needs calibration data.
    pub needs_data: bool,
    /// Inputs are scaled against their weights first, after AWQ.
    pub scales_inputs: bool,
    /// A row is rounded by its own numbers and nothing else.
    pub by_rows: bool,
    /// Rounds one weight.
    pub round: fn(&Job) -> Result<Rounded>,
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every method; the first needs no data.
pub static METHODS: &[&Method] = &[&RTN, &GPTQ, &AWQ, &AWQ_GPTQ, &HQQ, &NF4];

/// The method of that name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().find(|m| m.name == name)
}

/// Each number by itself.
pub static RTN: Method = Method {
    name: "rtn",
    about: "each number to the nearest code",
    needs_data: false,
    scales_inputs: false,
    by_rows: true,
    round: |job| rtn::round(job).map(Rounded::Blocks),
};

/// Errors made good by the columns that follow.
pub static GPTQ: Method = Method {
    name: "gptq",
    about: "column by column, each error made good by the columns that follow",
    needs_data: true,
    scales_inputs: false,
    by_rows: false,
    round: |job| gptq::round(job).map(Rounded::Blocks),
};

/// Inputs that matter are scaled up, ranges cut where that costs least.
pub static AWQ: Method = Method {
    name: "awq",
    about: "inputs that matter are scaled up, then rounding with the best clipping",
    needs_data: true,
    scales_inputs: true,
    by_rows: false,
    round: |job| awq::clipped(job).map(Rounded::Blocks),
};

/// The scales of AWQ, then GPTQ.
pub static AWQ_GPTQ: Method = Method {
    name: "awq+gptq",
    about: "the scales of awq, then gptq",
    needs_data: true,
    scales_inputs: true,
    by_rows: false,
    round: |job| gptq::round(job).map(Rounded::Blocks),
};

/// Zero points between codes, found without data.
pub static HQQ: Method = Method {
    name: "hqq",
    about: "zero points between codes, found without data by half-quadratic steps",
    needs_data: false,
    scales_inputs: false,
    by_rows: true,
    round: |job| hqq::round(job).map(Rounded::Blocks),
};

/// Sixteen quantiles of the normal distribution.
pub static NF4: Method = Method {
    name: "nf4",
    about: "sixteen quantiles of the normal distribution, over the largest magnitude of a block",
    needs_data: false,
    scales_inputs: false,
    by_rows: false,
    round: |job| nf4::round(job).map(Rounded::Nf4),
};

/// A rounded weight.
#[derive(Debug, Clone, PartialEq)]
pub enum Rounded {
    /// Codes at even distances.
    Blocks(Blocks),
    /// Codes of a table.
    Nf4(Nf4),
}

impl Rounded {
    /// The numbers that the codes stand for, row by row.
    pub fn numbers(&self) -> Vec<f32> {
        match self {
            Self::Blocks(b) => b.numbers(),
            Self::Nf4(b) => b.numbers(),
        }
    }
}

/// A weight to be rounded.
pub struct Job<'a> {
    /// The weight.
    pub weight: &'a Matrix,
    /// XᵀX of what it multiplies, `[k, k]`.
    pub hessian: Option<&'a [f32]>,
    /// Bits and blocks.
    pub scheme: Scheme,
    /// What else was asked for.
    pub settings: &'a Settings,
    /// Threads and instructions.
    pub ctx: Ctx,
}

impl Job<'_> {
    /// XᵀX of what the weight multiplies.
    ///
    /// # Errors
    /// When calibration did not see it.
    pub fn hessian(&self) -> Result<&[f32]> {
        self.hessian
            .ok_or_else(|| Error::invalid("calibration saw nothing of the inputs of this weight"))
    }

    /// `f` of each row, on all threads.
    pub fn rows<T: Send + Default>(&self, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let mut out: Vec<T> = (0..self.weight.n).map(|_| T::default()).collect();
        let threads = self.ctx.threads();
        threads.parallel_chunks(&mut out, 8, |chunk, rows| {
            for (i, row) in rows.iter_mut().enumerate() {
                *row = f(chunk * 8 + i);
            }
        });
        out
    }
}
