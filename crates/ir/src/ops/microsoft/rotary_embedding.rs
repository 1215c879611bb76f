//! RotaryEmbedding: pairs of elements turned by angles that grow with the position (Su et al.,
//! "RoFormer", 2021).

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_rank, floats, from_floats};
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{Error, Result, Tensor};

/// `com.microsoft.RotaryEmbedding`.
pub static ROTARY_EMBEDDING: OpDef = OpDef {
    name: "RotaryEmbedding",
    inputs: Arity(4, 4),
    attrs: &[
        attr("interleaved", AttrKind::Int(Some(0))),
        attr("is_packed_batching", AttrKind::Int(Some(0))),
        attr("num_heads", AttrKind::Int(Some(0))),
        attr("rotary_embedding_dim", AttrKind::Int(Some(0))),
        attr("scale", AttrKind::Float(Some(1.0))),
    ],
    eval: Some(eval),
    examples: &[
        "com.microsoft.RotaryEmbedding(f32[2,3,8], i64[1]{1}, f32[5,2], f32[5,2])",
        "com.microsoft.RotaryEmbedding(f32[1,2,3,6], i64[1,3]{4,0,2}, f32[5,3], f32[5,3]) \
         {interleaved=1}",
        "com.microsoft.RotaryEmbedding(f32[1,3,16], i64[1,3]{4,0,2}, f32[5,2], f32[5,2]) \
         {num_heads=2, rotary_embedding_dim=4}",
    ],
    ..BASE
};

/// The cosines and sines of each position.
pub struct Rotation {
    cos: Vec<f64>,
    sin: Vec<f64>,
    /// Positions that there are.
    positions: usize,
    /// Angles of a position, half of the elements that are turned.
    pub width: usize,
    interleaved: bool,
}

impl Rotation {
    /// The rotation by the tables `cos` and `sin` of (positions, angles).
    ///
    /// # Errors
    /// When they have other axes, or differ in shape.
    pub fn of(cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Self> {
        expect_rank("the cosines", cos, 2..=2)?;
        crate::ops::arith::expect_dims("the sines", sin, cos.dims())?;
        Ok(Self {
            cos: floats(cos)?,
            sin: floats(sin)?,
            positions: cos.dims()[0],
            width: cos.dims()[1],
            interleaved,
        })
    }

    /// Turns the first `2 · width` elements of one head at `position`.
    ///
    /// # Errors
    /// When the tables do not know the position, or the head is too short.
    pub fn turn(&self, head: &mut [f64], position: i64) -> Result<()> {
        let at = usize::try_from(position)
            .ok()
            .filter(|&p| p < self.positions)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "position {position} is outside a table of {}",
                    self.positions
                ))
            })?;
        if head.len() < 2 * self.width {
            return Err(Error::invalid(format!(
                "{} elements cannot be turned by {} angles",
                head.len(),
                self.width
            )));
        }
        for i in 0..self.width {
            let (a, b) = match self.interleaved {
                true => (2 * i, 2 * i + 1),
                false => (i, i + self.width),
            };
            let (cos, sin) = (self.cos[at * self.width + i], self.sin[at * self.width + i]);
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
        Ok(())
    }
}

/// Batch, sequence and width of a head; and whether heads come before positions.
struct Heads {
    batch: usize,
    sequence: usize,
    size: usize,
    heads_first: bool,
}

impl Heads {
    fn of(cx: &EvalCx, x: &Tensor, angles: usize) -> Result<Self> {
        match *x.dims() {
            [batch, _, sequence, size] => Ok(Self {
                batch,
                sequence,
                size,
                heads_first: true,
            }),
            [batch, sequence, hidden] => {
                let heads = usize::try_from(cx.int("num_heads", 0)).unwrap_or(0);
                let size = hidden.checked_div(heads).unwrap_or(2 * angles);
                if size == 0 || !hidden.is_multiple_of(size) {
                    return Err(Error::invalid(format!(
                        "{} does not split into heads of {size}",
                        x.ty()
                    )));
                }
                Ok(Self {
                    batch,
                    sequence,
                    size,
                    heads_first: false,
                })
            }
            _ => Err(Error::invalid(format!(
                "expected 3 or 4 axes, found {}",
                x.ty()
            ))),
        }
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    if cx.int("is_packed_batching", 0) != 0 {
        return Err(Error::unsupported("ragged batches are not done"));
    }
    let (x, ids) = (cx.input(0)?, cx.input(1)?);
    let rotation = Rotation::of(cx.input(2)?, cx.input(3)?, cx.int("interleaved", 0) != 0)?;
    let heads = Heads::of(cx, x, rotation.width)?;
    let positions = ids.to_i64()?;
    let position = |b: usize, s: usize| match positions[..] {
        [first] if ids.rank() < 2 => Ok(first.saturating_add(s as i64)),
        _ => positions
            .get(b * heads.sequence + s)
            .copied()
            .ok_or_else(|| Error::invalid(format!("{} positions are too few", ids.ty()))),
    };
    let mut data = floats(x)?;
    let count = x.dims()[1..].iter().product::<usize>() / heads.size.max(1);
    let each = count / heads.sequence.max(1);
    for (i, head) in data.chunks_mut(heads.size.max(1)).enumerate() {
        let s = match heads.heads_first {
            true => i % heads.sequence,
            false => i / each % heads.sequence,
        };
        let b = i / count;
        debug_assert!(b < heads.batch, "a head is of one sample");
        rotation.turn(head, position(b, s)?)?;
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_a_pair() {
        let table = |v: f32| Tensor::from_vec(&[1, 1], vec![v]).unwrap();
        let turn = Rotation::of(&table(0.0), &table(1.0), false).unwrap();
        let mut head = [3.0, 4.0, 5.0];
        turn.turn(&mut head, 0).unwrap();
        assert_eq!(head, [-4.0, 3.0, 5.0]);
        assert!(turn.turn(&mut head, 1).is_err());
        assert!(turn.turn(&mut [1.0], 0).is_err());
    }
}
