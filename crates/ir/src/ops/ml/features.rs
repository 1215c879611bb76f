//! Columns of features chosen and joined: ArrayFeatureExtractor, FeatureVectorizer.

use super::BASE;
use super::samples::Samples;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::gather::gather;
use crate::ops::{Arity, AttrKind, MANY, OpDef, attr};
use crate::{DType, Dim, Error, Node, Result, Shape, Tensor, checked_count};

/// `ai.onnx.ml.ArrayFeatureExtractor`: elements of the last axis by their places.
pub static ARRAY_FEATURE_EXTRACTOR: OpDef = OpDef {
    name: "ArrayFeatureExtractor",
    inputs: Arity(2, 2),
    infer: |cx| {
        let shape = match (cx.shape(0), cx.shape(1)) {
            (Some(x), Some(y)) => {
                let count = y.count().map_or(Dim::Unknown, Dim::Known);
                let front = x[..x.rank().saturating_sub(1)].to_vec();
                let front = if x.rank() < 2 {
                    vec![Dim::Known(1)]
                } else {
                    front
                };
                Some([front, vec![count]].concat().into_iter().collect())
            }
            _ => None,
        };
        cx.set_tensor(0, cx.dtype(0), shape);
        Ok(())
    },
    eval: Some(|cx| {
        let (x, at) = (cx.input(0)?, cx.input(1)?);
        let y = gather(x, &at.reshaped(&[at.count()])?, -1)?;
        let y = match x.rank() {
            1 => y.reshaped(&[1, at.count()])?,
            _ => y,
        };
        Ok(vec![y])
    }),
    examples: &[
        "ai.onnx.ml.ArrayFeatureExtractor(f32[3,4], i64[1,2]{3,0})",
        "ai.onnx.ml.ArrayFeatureExtractor(string[3], i64[2]{2,1})",
    ],
    ..BASE
};

/// `ai.onnx.ml.FeatureVectorizer`: matrices side by side, each cut or filled with zeros to its
/// width.
pub static FEATURE_VECTORIZER: OpDef = OpDef {
    name: "FeatureVectorizer",
    inputs: Arity(1, MANY),
    attrs: &[attr("inputdimensions", AttrKind::Ints)],
    infer: infer_vectors,
    eval: Some(join),
    examples: &[
        "ai.onnx.ml.FeatureVectorizer(f32[2,3], f32[2,1]) {inputdimensions=[3,1]}",
        "ai.onnx.ml.FeatureVectorizer(i64[3], i64[2]) {inputdimensions=[2,4]}",
    ],
    ..BASE
};

/// The width that each input is given.
fn widths(node: &Node, inputs: usize) -> Result<Vec<usize>> {
    let widths = node.ints("inputdimensions").unwrap_or_default();
    if widths.len() != inputs {
        return Err(Error::invalid(format!(
            "inputdimensions has {} entries for {inputs} inputs",
            widths.len()
        )));
    }
    let width = |&w: &i64| {
        usize::try_from(w)
            .ok()
            .filter(|&w| checked_count(&[w]).is_ok())
            .ok_or_else(|| Error::invalid(format!("inputdimensions has the entry {w}")))
    };
    widths.iter().map(width).collect()
}

fn infer_vectors(cx: &mut InferCx) -> Result<()> {
    let width: usize = widths(cx.node, cx.inputs())?.iter().sum();
    let rows = super::samples::count(cx);
    let shape: Shape = [rows, Dim::Known(width)].into_iter().collect();
    cx.set_tensor(0, Some(DType::F32), Some(shape));
    Ok(())
}

fn join(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let widths = widths(cx.node, cx.inputs())?;
    let parts = (0..cx.inputs())
        .map(|i| Samples::of(cx.input(i)?))
        .collect::<Result<Vec<_>>>()?;
    let count = parts[0].count;
    if parts.iter().any(|p| p.count != count) {
        return Err(Error::invalid("the inputs differ in their number of rows"));
    }
    let dims = [count, widths.iter().sum()];
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    for row in 0..count {
        for (part, &width) in parts.iter().zip(&widths) {
            let features = &part.data[row * part.width..][..part.width];
            let kept = features.iter().map(|&v| v as f32);
            y.extend(kept.chain(std::iter::repeat(0.0)).take(width));
        }
    }
    Ok(vec![Tensor::from_vec(&dims, y)?])
}
