//! TfIdfVectorizer: how often the n-grams of a pool occur in each row.

use std::collections::BTreeMap;

use super::strings;
use super::{AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

/// ONNX TfIdfVectorizer. Weights stand beside the n-grams of the pool, as in ONNX Runtime.
pub static TF_IDF_VECTORIZER: OpDef = OpDef {
    name: "TfIdfVectorizer",
    since: &[9],
    attrs: &[
        attr("max_gram_length", AttrKind::Int(None)),
        attr("max_skip_count", AttrKind::Int(None)),
        attr("min_gram_length", AttrKind::Int(None)),
        attr("mode", AttrKind::String(None)),
        attr("ngram_counts", AttrKind::Ints),
        attr("ngram_indexes", AttrKind::Ints),
        attr("pool_int64s", AttrKind::Ints),
        attr("pool_strings", AttrKind::Strings),
        attr("weights", AttrKind::Floats),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "TfIdfVectorizer(i64[2,4]{1,2,1,3,2,2,3,1}) {mode=\"TFIDF\",min_gram_length=1,\
         max_gram_length=2,max_skip_count=1,ngram_counts=[0,2],ngram_indexes=[1,0,2],\
         pool_int64s=[1,2,2,3],weights=[0.5,2.0,3.0]}",
        "TfIdfVectorizer(string[3]{\"a\",\"b\",\"a\"}) {mode=\"IDF\",min_gram_length=1,\
         max_gram_length=1,max_skip_count=0,ngram_counts=[0],ngram_indexes=[0,1],\
         pool_strings=[\"a\",\"c\"]}",
    ],
    ..OpDef::BASE
};

/// The length of a row of the result.
fn width(node: &Node) -> Result<usize> {
    let indices = node.ints("ngram_indexes").unwrap_or_default();
    let most = indices.iter().max().copied();
    let width = most.and_then(|n| usize::try_from(n).ok()?.checked_add(1));
    width.ok_or_else(|| Error::invalid("ngram_indexes are missing or negative"))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let width = Dim::Known(width(cx.node)?);
    let shape = match cx.shape(0).map(|s| &s[..]) {
        Some([] | [_]) => Some(Shape::from_iter([width])),
        Some([rows, _]) => Some(Shape::from_iter([rows.clone(), width])),
        Some(_) => return Err(Error::invalid("expected rows of tokens")),
        None => None,
    };
    cx.set_tensor(0, Some(DType::F32), shape);
    Ok(())
}

/// The n-grams of each length with the place of each in the pool.
struct Pool<T> {
    grams: BTreeMap<Vec<T>, usize>,
    lengths: std::ops::RangeInclusive<usize>,
    skips: usize,
}

impl<T: Ord + Clone> Pool<T> {
    fn new(node: &Node, tokens: &[T]) -> Result<Self> {
        let length = |name: &str| {
            let n = node.int(name);
            let n = n.ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is missing")))?;
            axes::length(n, name)
        };
        let starts = node.ints("ngram_counts").unwrap_or_default();
        let starts = starts.iter().map(|&n| axes::length(n, "a start"));
        let starts = starts.collect::<Result<Vec<_>>>()?;
        let mut grams = BTreeMap::new();
        let mut place = 0;
        for (i, &start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(tokens.len());
            let part = tokens
                .get(start..end)
                .filter(|p| p.len().is_multiple_of(i + 1));
            let part = part.ok_or_else(|| {
                Error::invalid(format!("ngram_counts {starts:?} do not fit the pool"))
            })?;
            for gram in part.chunks(i + 1) {
                grams.entry(gram.to_vec()).or_insert(place);
                place += 1;
            }
        }
        Ok(Self {
            grams,
            lengths: length("min_gram_length")?.max(1)..=length("max_gram_length")?,
            skips: length("max_skip_count")?,
        })
    }

    /// How often each n-gram occurs in `row`, by its place in the pool.
    fn counts(&self, row: &[T]) -> BTreeMap<usize, u64> {
        let mut counts = BTreeMap::new();
        for n in self.lengths.clone().take_while(|&n| n <= row.len()) {
            // Nothing is skipped inside one token.
            let skips = if n == 1 { 0 } else { self.skips.min(row.len()) };
            for step in 1..=skips + 1 {
                let Some(starts) = row.len().checked_sub((n - 1) * step) else {
                    break;
                };
                for start in 0..starts {
                    let gram: Vec<T> = row[start..].iter().step_by(step).take(n).cloned().collect();
                    if let Some(&place) = self.grams.get(&gram) {
                        *counts.entry(place).or_insert(0) += 1;
                    }
                }
            }
        }
        counts
    }
}

fn vectors<T: Ord + Clone>(cx: &EvalCx, pool: &[T], tokens: &[T]) -> Result<Tensor> {
    let x = cx.input(0)?;
    let (rows, length) = match *x.dims() {
        [] => (None, 1),
        [n] => (None, n),
        [rows, n] => (Some(rows), n),
        _ => {
            return Err(Error::invalid(format!(
                "expected rows of tokens, found {}",
                x.ty()
            )));
        }
    };
    let width = width(cx.node)?;
    let dims: Vec<usize> = rows.into_iter().chain([width]).collect();
    let mut y = vec![0f32; checked_count(&dims)?];
    let pool = Pool::new(cx.node, pool)?;
    let indices = cx.node.ints("ngram_indexes").unwrap_or_default();
    let weights = cx.node.floats("weights").unwrap_or_default();
    let mode = cx.node.string("mode").unwrap_or_default();
    if !["TF", "IDF", "TFIDF"].contains(&mode) {
        return Err(Error::invalid(format!(
            "the mode \"{mode}\" is none of TF, IDF, TFIDF"
        )));
    }
    for (row, y) in y.chunks_mut(width).enumerate() {
        let row = &tokens[row * length..][..length];
        for (place, count) in pool.counts(row) {
            let index = indices.get(place).and_then(|&i| usize::try_from(i).ok());
            let slot = index.and_then(|i| y.get_mut(i));
            let slot = slot.ok_or_else(|| Error::invalid("ngram_indexes do not fit the pool"))?;
            let weight = weights.get(place).copied().unwrap_or(1.0);
            *slot += match mode {
                "TF" => count as f32,
                "IDF" => weight,
                _ => count as f32 * weight,
            };
        }
    }
    Tensor::from_vec(&dims, y)
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let y = if x.dtype() == DType::String {
        let pool = strings::attribute(cx.node, "pool_strings")?;
        vectors(cx, &pool, x.strings()?)?
    } else {
        let pool = cx.node.ints("pool_int64s").unwrap_or_default();
        vectors(cx, pool, &x.to_i64()?)?
    };
    Ok(vec![y])
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::example;

    #[test]
    fn weights_stand_beside_the_pool_as_in_onnx_runtime() {
        for (mode, expected) in [
            ("TFIDF", [20.0, 100.0, 2.0, 10000.0, 1000.0]),
            ("IDF", [10.0, 100.0, 1.0, 10000.0, 1000.0]),
        ] {
            let (model, _) = example(&format!(
                "TfIdfVectorizer(i64[5]{{5,6,7,6,5}}) {{mode=\"{mode}\",min_gram_length=1,\
                 max_gram_length=2,max_skip_count=1,ngram_counts=[0,3],\
                 ngram_indexes=[2,0,1,4,3],pool_int64s=[5,6,7,5,6,6,7],\
                 weights=[1.0,10.0,100.0,1000.0,10000.0]}}"
            ))
            .unwrap();
            let y = eval::evaluate(&model, &[]).unwrap();
            assert_eq!(&*y[0].data::<f32>().unwrap(), &expected);
        }
    }
}
