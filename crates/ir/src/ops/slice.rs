//! Slice: a range with a step along some axes.

use smallvec::SmallVec;

use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Slice; attributes before version 10, inputs since.
pub static SLICE: OpDef = OpDef {
    name: "Slice",
    since: &[1, 10, 11, 13],
    inputs: Arity(1, 5),
    attrs: &[
        attr("starts", AttrKind::Ints),
        attr("ends", AttrKind::Ints),
        attr("axes", AttrKind::Ints),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Slice(f32[4,5], i64[2]{1,0}, i64[2]{3,-1})",
        "Slice(f32[4,5], i64[1]{-1}, i64[1]{-9}, i64[1]{1}, i64[1]{-2})",
        "Slice(f32[4,5], i64[1]{3}, i64[1]{1}, i64[1]{0})",
        "Slice(i64[4]{1,2,3,4}, i64[1]{1}, i64[1]{9223372036854775807})",
        "Slice@9(f32[4,5]) {starts=[1],ends=[3],axes=[-1]}",
    ],
    ..OpDef::BASE
};

/// First index, length and step of a slice of an axis of `len`.
fn span(start: i64, end: i64, step: i64, len: usize) -> Result<(usize, usize, isize)> {
    if step == 0 {
        return Err(Error::invalid("the step of a slice should not be 0"));
    }
    let n = len as i128;
    let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
    let front = |i: i128| if i < 0 { i + n } else { i };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let clamp = |i: i128| front(i).max(low).min(high);
    let (start, end) = (clamp(start), clamp(end));
    let count = if step > 0 {
        (end - start + step - 1) / step
    } else {
        (start - end - step - 1) / -step
    };
    let count = usize::try_from(count.max(0)).unwrap_or(0);
    // A step that is never taken may be longer than an address.
    let step = if count > 1 { step } else { 0 };
    let step = isize::try_from(step).map_err(|_| Error::invalid("the step is too large"))?;
    Ok((usize::try_from(start.max(0)).unwrap_or(0), count, step))
}

struct Ranges {
    axes: SmallVec<[usize; 6]>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    steps: Vec<i64>,
}

fn ranges(
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
    rank: usize,
) -> Result<Ranges> {
    let axes = axes.unwrap_or_else(|| (0..).take(starts.len()).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    let lens = [starts.len(), ends.len(), axes.len(), steps.len()];
    if lens.iter().any(|&n| n != lens[0]) {
        return Err(Error::invalid(format!(
            "starts, ends, axes and steps should be equally many, found {lens:?}"
        )));
    }
    Ok(Ranges {
        axes: axes::resolve(&axes, rank)?,
        starts,
        ends,
        steps,
    })
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let missing = || Error::invalid("starts or ends are missing");
    let steps = cx.optional(4).map(Tensor::to_i64).transpose()?;
    let r = ranges(
        axes::given(cx, "starts", 1)?.ok_or_else(missing)?,
        axes::given(cx, "ends", 2)?.ok_or_else(missing)?,
        axes::given(cx, "axes", 3)?,
        steps,
        x.rank(),
    )?;
    let mut dims = layout::Dims::from_slice(x.dims());
    let mut strides = layout::strides(x.dims());
    let mut offset = 0;
    for (i, &a) in r.axes.iter().enumerate() {
        let (first, count, step) = span(r.starts[i], r.ends[i], r.steps[i], dims[a])?;
        offset += first * usize::try_from(strides[a]).unwrap_or(0);
        dims[a] = count;
        strides[a] = strides[a].saturating_mul(step);
    }
    Ok(vec![layout::strided(x, &dims, &strides, offset)?])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let known = |p: axes::Param| match p {
        axes::Param::Known(v) => Some(Some(v)),
        axes::Param::Absent => Some(None),
        axes::Param::Unknown => None,
    };
    let starts = known(axes::known(cx, "starts", 1)).flatten();
    let ends = known(axes::known(cx, "ends", 2)).flatten();
    let axes = known(axes::known(cx, "axes", 3));
    let steps = match cx.has(4) {
        true => cx.ints(4).map(Some),
        false => Some(None),
    };
    let shape = match (cx.shape(0), starts, ends, axes, steps) {
        (None, ..) => None,
        (Some(s), Some(starts), Some(ends), Some(axes), Some(steps)) => {
            let r = ranges(starts, ends, axes, steps, s.rank())?;
            slice_contents(cx, &r)?;
            Some(sliced(cx.shape(0).unwrap_or(&Shape::default()), &r)?)
        }
        (Some(s), _, _, Some(Some(axes)), _) => {
            let mut shape = s.clone();
            for a in axes::resolve(&axes, s.rank())? {
                shape.0[a] = Dim::Unknown;
            }
            Some(shape)
        }
        (Some(s), ..) => Some(Shape::unknown(s.rank())),
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn sliced(shape: &Shape, r: &Ranges) -> Result<Shape> {
    let mut out = shape.clone();
    for (i, &a) in r.axes.iter().enumerate() {
        let (start, end, step) = (r.starts[i], r.ends[i], r.steps[i]);
        let whole = start == 0 && end >= i64::from(i32::MAX) && step == 1;
        out.0[a] = match &shape[a] {
            Dim::Known(n) => Dim::Known(span(start, end, step, *n)?.1),
            d if whole => d.clone(),
            _ => Dim::Unknown,
        };
    }
    Ok(out)
}

fn slice_contents(cx: &mut InferCx, r: &Ranges) -> Result<()> {
    let one_axis = cx.shape(0).is_some_and(|s| s.rank() == 1);
    let (true, Some(from), [_]) = (one_axis, cx.contents(0), r.axes.as_slice()) else {
        return Ok(());
    };
    let (first, count, step) = span(r.starts[0], r.ends[0], r.steps[0], from.len())?;
    let picked: Option<Vec<Dim>> = (0..count)
        .map(|i| {
            from.get(first.wrapping_add_signed(step * i as isize))
                .cloned()
        })
        .collect();
    if let Some(picked) = picked {
        cx.set_contents(0, picked);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_those_of_python() {
        assert_eq!(span(1, -1, 1, 5).unwrap(), (1, 3, 1));
        assert_eq!(span(-1, i64::MIN, -1, 4).unwrap(), (3, 4, -1));
        assert_eq!(span(0, 4, 3, 4).unwrap(), (0, 2, 3));
        assert_eq!(span(3, 1, 1, 4).unwrap().1, 0);
        assert_eq!(span(-1, -9, -1, 0).unwrap().1, 0);
        assert_eq!(span(3, i64::MIN, i64::MIN, 4).unwrap(), (3, 1, 0));
        assert!(span(0, 1, 0, 4).is_err());
    }
}
