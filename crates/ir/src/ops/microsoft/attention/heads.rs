//! Queries, keys and values by head, from the layouts in which they are given.

use crate::ops::arith::{expect_rank, floats};
use crate::{Dim, Error, Result, Shape, Tensor};

/// Elements of shape (batch, heads, length, size).
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    /// Sentences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Rows of each head.
    pub length: usize,
    /// Elements of a row.
    pub size: usize,
    /// The elements.
    pub data: Vec<f64>,
}

/// Keys and values that came before.
pub struct Past {
    /// The keys.
    pub keys: Heads,
    /// The values.
    pub values: Heads,
}

impl Past {
    /// From one tensor of shape (2, batch, heads, length, size).
    ///
    /// # Errors
    /// When it is of another shape.
    pub fn of_both(t: &Tensor) -> Result<Self> {
        expect_rank("the past", t, 5..=5)?;
        let &[2, batch, heads, length, size] = t.dims() else {
            return Err(Error::invalid(format!(
                "the past should hold keys and values, found {}",
                t.ty()
            )));
        };
        let mut keys = floats(t)?;
        let values = keys.split_off(keys.len() / 2);
        let of = |data| Heads {
            batch,
            heads,
            length,
            size,
            data,
        };
        Ok(Self {
            keys: of(keys),
            values: of(values),
        })
    }
}

impl Heads {
    /// From rows of `width` elements in which head after head starts at `first`; `rows` are the
    /// batch and the length, `shape` the number of heads and their size.
    pub fn of(
        data: &[f64],
        [batch, length]: [usize; 2],
        width: usize,
        first: usize,
        [heads, size]: [usize; 2],
    ) -> Self {
        Self::picked(data, [batch, length, heads, size], |row, n| {
            row * width + first + n * size
        })
    }

    /// `at` says where the elements of a head of a row start.
    fn picked(
        data: &[f64],
        [batch, length, heads, size]: [usize; 4],
        at: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let mut picked = Vec::with_capacity(batch * heads * length * size);
        for b in 0..batch {
            for n in 0..heads {
                for i in 0..length {
                    picked.extend_from_slice(&data[at(b * length + i, n)..][..size]);
                }
            }
        }
        Self {
            batch,
            heads,
            length,
            size,
            data: picked,
        }
    }

    /// From a tensor of shape (batch, heads, length, size).
    ///
    /// # Errors
    /// When it has not four axes of floats.
    pub fn of_tensor(t: &Tensor) -> Result<Self> {
        expect_rank("heads", t, 4..=4)?;
        Ok(Self {
            batch: t.dims()[0],
            heads: t.dims()[1],
            length: t.dims()[2],
            size: t.dims()[3],
            data: floats(t)?,
        })
    }

    /// Lengths of the axes.
    pub fn dims(&self) -> [usize; 4] {
        [self.batch, self.heads, self.length, self.size]
    }

    /// Row `i` of head `n` of sentence `b`.
    pub fn row(&self, b: usize, n: usize, i: usize) -> &[f64] {
        let row = (b * self.heads + n) * self.length + i;
        &self.data[row * self.size..][..self.size]
    }

    /// Adds a bias of the elements of all heads to each row.
    pub fn add(&mut self, bias: &[f64]) {
        let (per_head, size) = (self.length * self.size, self.size);
        for (i, v) in self.data.iter_mut().enumerate() {
            *v += bias[i / per_head % self.heads * size + i % size];
        }
    }

    /// These rows, then those of `next`.
    ///
    /// # Errors
    /// When anything but the length differs.
    pub fn followed_by(&self, next: &Self) -> Result<Self> {
        if (self.batch, self.heads, self.size) != (next.batch, next.heads, next.size) {
            return Err(Error::invalid(format!(
                "what came before is of shape {}, what follows of {}",
                Shape::fixed(&self.dims()),
                Shape::fixed(&next.dims())
            )));
        }
        let mut data = Vec::with_capacity(self.data.len() + next.data.len());
        for head in 0..self.batch * self.heads {
            for part in [self, next] {
                let block = part.length * part.size;
                data.extend_from_slice(&part.data[head * block..][..block]);
            }
        }
        Ok(Self {
            length: self.length + next.length,
            data,
            ..*self
        })
    }
}

/// Queries, keys and values from the first three inputs of MultiHeadAttention: three tensors of
/// (batch, length, width); keys and values also of (batch, heads, length, size); keys and values
/// in one of (batch, length, heads, 2, size), or all in one of (batch, length, heads, 3, size).
///
/// # Errors
/// When they are given in another way.
pub fn parts(heads: usize, inputs: [Option<&Tensor>; 3]) -> Result<[Heads; 3]> {
    let [query, key, value] = inputs;
    let query = query.ok_or_else(|| Error::invalid("the query is missing"))?;
    match (key, value) {
        (None, None) => {
            let [q, k, v] = packed::<3>(query, heads)?;
            Ok([q, k, v])
        }
        (Some(key), None) => {
            let [k, v] = packed::<2>(key, heads)?;
            Ok([part(query, heads)?, k, v])
        }
        (Some(key), Some(value)) => {
            Ok([part(query, heads)?, part(key, heads)?, part(value, heads)?])
        }
        (None, Some(_)) => Err(Error::invalid("a value is given without a key")),
    }
}

fn part(t: &Tensor, heads: usize) -> Result<Heads> {
    if t.rank() == 4 {
        return Heads::of_tensor(t);
    }
    expect_rank("queries, keys or values", t, 3..=4)?;
    let (rows, width) = ([t.dims()[0], t.dims()[1]], t.dims()[2]);
    if !width.is_multiple_of(heads) {
        return Err(Error::invalid(format!(
            "{heads} heads do not divide {}",
            t.ty()
        )));
    }
    Ok(Heads::of(
        &floats(t)?,
        rows,
        width,
        0,
        [heads, width / heads],
    ))
}

fn packed<const N: usize>(t: &Tensor, heads: usize) -> Result<[Heads; N]> {
    expect_rank("packed keys and values", t, 5..=5)?;
    let &[batch, length, n, parts, size] = t.dims() else {
        return Err(Error::internal("five axes were checked"));
    };
    if n != heads || parts != N {
        return Err(Error::invalid(format!(
            "expected {heads} heads of {N} parts, found {}",
            t.ty()
        )));
    }
    let data = floats(t)?;
    Ok(std::array::from_fn(|p| {
        Heads::picked(&data, [batch, length, heads, size], |row, n| {
            ((row * heads + n) * N + p) * size
        })
    }))
}

/// What the shapes of the inputs say: batch, length of queries and of keys; size of keys and of
/// values.
pub struct Found {
    /// Batch, length of queries, length of keys.
    pub dims: [Dim; 3],
    /// Elements of a row of one head: of keys, of values.
    pub sizes: [Dim; 2],
}

/// As [`parts`], of shapes; the outer `None` stands for an input that is left out.
pub fn shapes(heads: usize, inputs: [Option<Option<&Shape>>; 3]) -> Option<Found> {
    let size = |d: &Dim| match d {
        Dim::Known(width) => Dim::Known(width / heads),
        _ => Dim::Unknown,
    };
    let [query, key, value] = inputs;
    let query = query??;
    let part = |s: &Shape| match s.rank() {
        3 => Some((s[1].clone(), size(&s[2]))),
        4 => Some((s[2].clone(), s[3].clone())),
        5 => Some((s[1].clone(), s[4].clone())),
        _ => None,
    };
    let (length, _) = part(query)?;
    let (keys, key_size) = part(match key {
        None => query,
        Some(key) => key?,
    })?;
    let value_size = match value {
        None => key_size.clone(),
        Some(value) => part(value?)?.1,
    };
    Some(Found {
        dims: [query[0].clone(), length, keys],
        sizes: [key_size, value_size],
    })
}
