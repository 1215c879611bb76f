//! CenterCropPad: the middle of a tensor, or zeros around it, to given lengths.

use super::layout::{self, Run};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX CenterCropPad.
pub static CENTER_CROP_PAD: OpDef = OpDef {
    name: "CenterCropPad",
    since: &[18],
    inputs: Arity(2, 2),
    attrs: &[attr("axes", AttrKind::Ints)],
    infer,
    eval: Some(eval),
    examples: &[
        "CenterCropPad(f32[5,4], i64[2]{2,7})",
        "CenterCropPad(i8[2,5,3], i32[2]{3,4}) {axes=[-2,-1]}",
    ],
    ..OpDef::BASE
};

/// The axes that lengths are given for.
fn chosen(given: Option<&[i64]>, rank: usize, count: usize) -> Result<Vec<usize>> {
    let axes = match given {
        Some(axes) => axes::resolve(axes, rank)?.to_vec(),
        None => (0..rank).collect(),
    };
    if axes.len() == count {
        return Ok(axes);
    }
    Err(Error::invalid(format!(
        "expected {} lengths, found {count}",
        axes.len()
    )))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.shape(0), cx.contents(1)) {
        (Some(s), Some(wanted)) => {
            let axes = chosen(cx.node.ints("axes"), s.rank(), wanted.len())?;
            let mut out = s.clone();
            for (axis, d) in axes.into_iter().zip(wanted) {
                out.0[axis] = d.clone();
            }
            Some(out)
        }
        (Some(s), None) => {
            let all = (0..s.rank() as i64).collect::<Vec<_>>();
            let changed = axes::marks(cx.node.ints("axes").unwrap_or(&all), s.rank())?;
            let keep = |(d, &changed): (&Dim, &bool)| match changed {
                true => Dim::Unknown,
                false => d.clone(),
            };
            Some(s.iter().zip(&changed).map(keep).collect::<Shape>())
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let wanted = cx.input(1)?.to_i64()?;
    let axes = chosen(cx.node.ints("axes"), x.rank(), wanted.len())?;
    let mut dims = x.dims().to_vec();
    for (axis, n) in axes.into_iter().zip(wanted) {
        dims[axis] = axes::length(n, "a length")?;
    }
    let zero = layout::zeros(x.dtype(), &[])?;
    let strides = layout::strides(x.dims());
    let mut walk = layout::walk(&dims, &vec![0; dims.len()], 0)?;
    let runs = std::iter::from_fn(|| {
        let axes = walk.index().iter().zip(&dims).zip(x.dims()).zip(&strides);
        let place = axes.map(|(((&i, &to), &from), &stride)| {
            let at = source(i, from, to)?;
            Some(at * usize::try_from(stride).ok()?)
        });
        let place: Option<usize> = place.sum();
        walk.next()?;
        Some(Run {
            source: usize::from(place.is_none()),
            start: place.unwrap_or(0),
            len: 1,
        })
    });
    Ok(vec![layout::assemble(&[x, &zero], &dims, runs)?])
}

/// The element of an axis of `from` that stands at `i` of the middle of `to`.
fn source(i: usize, from: usize, to: usize) -> Option<usize> {
    let at = if from >= to {
        i + (from - to) / 2
    } else {
        i.checked_sub((to - from) / 2)?
    };
    (at < from).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_element_is_cut_and_added_at_the_end() {
        let shown = |from, to| (0..to).map(|i| source(i, from, to)).collect::<Vec<_>>();
        assert_eq!(shown(5, 2), [Some(1), Some(2)]);
        assert_eq!(shown(2, 5), [None, Some(0), Some(1), None, None]);
    }
}
