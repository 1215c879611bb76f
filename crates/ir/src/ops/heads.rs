//! What operators of attention share: heads, scaled products, softmax and weighted sums.

use super::arith::{floats, from_floats};
use super::layout;
use super::softmax::{map_lines, softmax_line};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

/// The elements of a tensor of (batch, heads, steps, size).
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Heads of each sequence.
    pub heads: usize,
    /// Steps of each head.
    pub steps: usize,
    /// Elements of a step.
    pub size: usize,
    /// The elements, row major.
    pub data: Vec<f64>,
}

impl Heads {
    /// The elements of `t`, which has 4 axes.
    ///
    /// # Errors
    /// When it has not, or holds no floats.
    pub fn of(t: &Tensor) -> Result<Self> {
        let [batch, heads, steps, size] = *t.dims() else {
            return Err(Error::invalid(format!(
                "expected (batch, heads, steps, size), found {}",
                t.ty()
            )));
        };
        Ok(Self {
            batch,
            heads,
            steps,
            size,
            data: floats(t)?,
        })
    }

    fn step(&self, batch: usize, head: usize, step: usize) -> &[f64] {
        let at = (batch * self.heads + head) * self.steps + step;
        &self.data[at * self.size..][..self.size]
    }

    /// The head that head `h` of `many` shares: neighbours share one.
    fn shared(&self, h: usize, many: usize) -> usize {
        h / (many / self.heads)
    }
}

/// `t` of (batch, steps, heads · size) as (batch, heads, steps, size); 4 axes stay as they are.
///
/// # Errors
/// When it has another number of axes, or the heads are not given or do not divide the last one.
pub fn split(t: &Tensor, heads: Option<i64>) -> Result<Tensor> {
    let (&[batch, steps, width], Some(heads)) = (t.dims(), heads) else {
        return match t.rank() {
            4 => Ok(t.clone()),
            3 => Err(Error::invalid("the number of heads is missing")),
            _ => Err(Error::invalid(format!(
                "expected 3 or 4 axes, found {}",
                t.ty()
            ))),
        };
    };
    let heads = usize::try_from(heads)
        .ok()
        .filter(|&h| h > 0 && (h == 1 || h <= width) && width.is_multiple_of(h));
    let heads = heads
        .ok_or_else(|| Error::invalid(format!("{} does not split in so many heads", t.ty())))?;
    let size = width / heads;
    layout::swapped(&t.reshaped(&[batch, steps, heads, size])?, 1, 2)
}

/// `t` of (batch, heads, steps, size) as (batch, steps, heads · size).
///
/// # Errors
/// When it has other axes.
pub fn join(t: &Tensor) -> Result<Tensor> {
    let [batch, heads, steps, size] = *t.dims() else {
        return Err(Error::internal("heads have 4 axes"));
    };
    layout::swapped(t, 1, 2)?.reshaped(&[batch, steps, heads * size])
}

/// Checks that queries and keys, and keys and values, fit each other.
///
/// # Errors
/// Says which do not.
pub fn check(q: &Heads, k: &Heads, v: &Heads) -> Result<()> {
    let fits = q.batch == k.batch
        && (k.batch, k.heads, k.steps) == (v.batch, v.heads, v.steps)
        && q.size == k.size
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads);
    if fits {
        return Ok(());
    }
    let show = |h: &Heads| Shape::fixed(&[h.batch, h.heads, h.steps, h.size]);
    Err(Error::invalid(format!(
        "queries {}, keys {} and values {} do not fit each other",
        show(q),
        show(k),
        show(v)
    ))
    .hint("they are [batch, heads, steps, size]; keys and values have as many steps and heads"))
}

/// The scaled products of each query with each key: (batch, query heads, queries, keys).
///
/// # Errors
/// When they are too many.
pub fn products(q: &Heads, k: &Heads, scale: f64) -> Result<Vec<f64>> {
    let count = checked_count(&[q.batch, q.heads, q.steps, k.steps])?;
    let mut out = Vec::with_capacity(count);
    if count == 0 {
        return Ok(out);
    }
    for b in 0..q.batch {
        for h in 0..q.heads {
            let shared = k.shared(h, q.heads);
            for i in 0..q.steps {
                let query = q.step(b, h, i);
                out.extend((0..k.steps).map(|j| {
                    let key = k.step(b, shared, j);
                    query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * scale
                }));
            }
        }
    }
    Ok(out)
}

/// The softmax of each row of scores of `keys` elements.
pub fn softmax(scores: &mut [f64], keys: usize) {
    map_lines(scores, keys, 1, softmax_line);
}

/// The sums of values that weights of (batch, query heads, queries, keys) give, as a tensor of
/// (batch, query heads, queries, size).
///
/// # Errors
/// When the result is too large or `dtype` is no float.
pub fn weigh(weights: &[f64], q: &Heads, v: &Heads, dtype: DType) -> Result<Tensor> {
    let dims = [q.batch, q.heads, q.steps, v.size];
    let mut out = vec![0.0; checked_count(&dims)?];
    for (row, out) in out.chunks_mut(v.size.max(1)).enumerate() {
        let at = row / q.steps;
        let (b, h) = (at / q.heads, v.shared(at % q.heads, q.heads));
        for (j, weight) in weights[row * v.steps..][..v.steps].iter().enumerate() {
            for (o, x) in out.iter_mut().zip(v.step(b, h, j)) {
                *o += weight * x;
            }
        }
    }
    from_floats(dtype, &dims, out)
}

/// The node's factor, else 1/√size.
pub fn scale(cx: &EvalCx, size: usize) -> f64 {
    let given = cx.node.float("scale").map(f64::from);
    given.unwrap_or_else(|| 1.0 / (size as f64).sqrt())
}

/// What is known of the axes of input `i`, as (batch, heads, steps, size).
///
/// # Errors
/// When it has neither 3 nor 4 axes.
pub fn dims(cx: &InferCx, i: usize, heads: Option<i64>) -> Result<[Dim; 4]> {
    let count = heads
        .and_then(|h| usize::try_from(h).ok())
        .filter(|&h| h > 0);
    match cx.shape(i).map(|s| &s[..]) {
        None => Ok([const { Dim::Unknown }; 4]),
        Some([b, h, s, d]) => Ok([b.clone(), h.clone(), s.clone(), d.clone()]),
        Some([b, s, width]) => {
            let size = width.known().and_then(|w| Some(w / count?));
            let dim = |n: Option<usize>| n.map_or(Dim::Unknown, Dim::Known);
            Ok([b.clone(), dim(count), s.clone(), dim(size)])
        }
        Some(other) => Err(Error::invalid(format!(
            "input {i} should have 3 or 4 axes, found {}",
            other.len()
        ))),
    }
}
