//! The input of a model of `ai.onnx.ml`: samples in rows, features in columns.

use crate::infer::InferCx;
use crate::ops::arith::any;
use crate::{Dim, Error, Result, Shape, Tensor};

/// The numbers of samples, row after row.
pub struct Samples {
    /// All features of all samples.
    pub data: Vec<f64>,
    /// How many samples.
    pub count: usize,
    /// Features of a sample.
    pub width: usize,
}

impl Samples {
    /// The rows of a matrix; a vector is one sample.
    ///
    /// # Errors
    /// When `x` has other axes, no features, or holds strings.
    pub fn of(x: &Tensor) -> Result<Self> {
        let (count, width) = match *x.dims() {
            [width] => (1, width),
            [count, width] => (count, width),
            _ => {
                return Err(Error::invalid(format!(
                    "expected samples in rows, found {}",
                    x.ty()
                )));
            }
        };
        if width == 0 {
            return Err(Error::invalid(format!("{} has no features", x.ty())));
        }
        Ok(Self {
            data: any(x)?,
            count,
            width,
        })
    }

    /// Each sample's features.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks(self.width)
    }
}

/// The number of samples in input 0, where it is known.
pub fn count(cx: &InferCx) -> Dim {
    match cx.shape(0).map(|s| s.to_vec()).as_deref() {
        Some([_]) => Dim::Known(1),
        Some([count, _]) => count.clone(),
        _ => Dim::Unknown,
    }
}

/// The shape of `columns` results for each sample.
pub fn results(cx: &InferCx, columns: Dim) -> Shape {
    [count(cx), columns].into_iter().collect()
}
