//! AffineGrid: where an affine map puts the elements of an image.

use super::arith::{expect_dims, floats, from_floats};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX AffineGrid.
pub static AFFINE_GRID: OpDef = OpDef {
    name: "AffineGrid",
    since: &[20],
    inputs: Arity(2, 2),
    attrs: &[attr("align_corners", AttrKind::Int(Some(0)))],
    infer,
    eval: Some(eval),
    examples: &[
        "AffineGrid(f32[2,2,3], i64[4]{2,1,3,4})",
        "AffineGrid(f64[1,3,4], i64[5]{1,1,2,1,3}) {align_corners=1}",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = match cx.contents(1) {
        Some([n, _, space @ ..]) => {
            let dims = [n].into_iter().chain(space).cloned();
            Some(dims.chain([Dim::Known(space.len())]).collect())
        }
        Some(_) => return Err(Error::invalid("the size is too short")),
        None => cx.shape_of_rank(1),
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let theta = cx.input(0)?;
    let size = cx.input(1)?.to_i64()?;
    let size = size.into_iter().map(|n| axes::length(n, "a length"));
    let size = size.collect::<Result<Vec<usize>>>()?;
    let [batch, _, space @ ..] = &size[..] else {
        return Err(Error::invalid(format!(
            "expected a size of 4 or 5 lengths, found {}",
            Shape::fixed(&size)
        )));
    };
    let n = space.len();
    expect_dims("theta", theta, &[*batch, n, n + 1])?;
    let dims = [&[*batch], space, &[n]].concat();
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    let theta_data = floats(theta)?;
    let aligned = cx.int("align_corners", 0) != 0;
    let points = checked_count(space)?;
    let mut place = vec![0.0; n];
    for row in 0..batch * points {
        let mut rest = row % points;
        // The first coordinate is that of the last axis.
        for (p, &len) in place.iter_mut().zip(space.iter().rev()) {
            *p = coordinate(rest % len, len, aligned);
            rest /= len;
        }
        let map = &theta_data[row / points * n * (n + 1)..][..n * (n + 1)];
        y.extend(map.chunks(n + 1).map(|m| {
            let turned: f64 = place.iter().zip(m).map(|(p, m)| p * m).sum();
            turned + m[n]
        }));
    }
    Ok(vec![from_floats(theta.dtype(), &dims, y)?])
}

/// Where element `i` of `len` lies between −1 and 1.
fn coordinate(i: usize, len: usize, aligned: bool) -> f64 {
    if !aligned {
        (2 * i + 1) as f64 / len as f64 - 1.0
    } else if len == 1 {
        -1.0
    } else {
        2.0 * i as f64 / (len - 1) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_lie_between_the_corners() {
        let all = |len, aligned| {
            (0..len)
                .map(|i| coordinate(i, len, aligned))
                .collect::<Vec<_>>()
        };
        assert_eq!(all(4, false), [-0.75, -0.25, 0.25, 0.75]);
        assert_eq!(all(3, true), [-1.0, 0.0, 1.0]);
    }
}
