//! Pad: an edge added to, or cut off, each side of each axis.

use super::layout::{self, Run};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Pad; attributes before version 11, inputs since, axes since 18.
pub static PAD: OpDef = OpDef {
    name: "Pad",
    since: &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25],
    inputs: Arity(1, 4),
    attrs: &[
        attr("mode", AttrKind::String(Some("constant"))),
        attr("pads", AttrKind::Ints),
        attr("paddings", AttrKind::Ints),
        attr("value", AttrKind::Float(Some(0.0))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Pad(f32[2,3], i64[4]{0,1,2,0})",
        "Pad(f32[2,3], i64[4]{1,1,0,0}, f32[]{2.5})",
        "Pad(f32[2,3], i64[2]{2,1}, _, i64[1]{-1}) {mode=\"reflect\"}",
        "Pad(f32[2,3], i64[4]{0,1,2,4}) {mode=\"edge\"}",
        "Pad(f32[2,3], i64[4]{0,1,2,4}) {mode=\"wrap\"}",
        "Pad(f32[4,3], i64[4]{-1,0,-1,1})",
        "Pad@2(f32[2,3]) {pads=[0,1,0,1],value=1.5}",
    ],
    ..OpDef::BASE
};

/// Elements added before and after each axis.
fn amounts(pads: &[i64], axes: Option<&[i64]>, rank: usize) -> Result<Vec<(i64, i64)>> {
    let axes = match axes {
        Some(axes) => axes::resolve(axes, rank)?,
        None => (0..rank).collect(),
    };
    let n = axes.len();
    if pads.len() != 2 * n {
        return Err(Error::invalid(format!(
            "expected {} pads for {n} axes, found {}",
            2 * n,
            pads.len()
        )));
    }
    let mut out = vec![(0, 0); rank];
    for (i, &a) in axes.iter().enumerate() {
        out[a] = (pads[i], pads[n + i]);
    }
    Ok(out)
}

fn padded(len: usize, (before, after): (i64, i64)) -> Result<usize> {
    let sum = len as i128 + i128::from(before) + i128::from(after);
    usize::try_from(sum).map_err(|_| {
        Error::invalid(format!(
            "pads {before} and {after} leave nothing of an axis of {len}"
        ))
    })
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let pads = match axes::known(cx, "pads", 1) {
        axes::Param::Absent => axes::known(cx, "paddings", 1),
        pads => pads,
    };
    let shape = match (cx.shape(0), pads, axes::known(cx, "", 3)) {
        (Some(s), axes::Param::Known(pads), axes) if axes != axes::Param::Unknown => {
            let axes = match &axes {
                axes::Param::Known(v) => Some(v.as_slice()),
                _ => None,
            };
            let amounts = amounts(&pads, axes, s.rank())?;
            let dims = s.iter().zip(amounts).map(|(d, p)| match (d, p) {
                (Dim::Known(n), p) => padded(*n, p).map(Dim::Known),
                (d, (0, 0)) => Ok(d.clone()),
                _ => Ok(Dim::Unknown),
            });
            Some(dims.collect::<Result<Shape>>()?)
        }
        (Some(s), ..) => Some(Shape::unknown(s.rank())),
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// For each index of an axis of `len`, padded before and after, the index that it shows; `None`
/// for the constant. Negative pads cut. An error where nothing is there to show, or the axis is
/// too long.
pub fn sources(len: usize, pads: (i64, i64), mode: &str) -> Result<Vec<Option<usize>>> {
    let out = padded(len, pads)?;
    crate::checked_count(&[out])?;
    // What a negative pad cuts off is not seen by the reflection or the wrap.
    let low = -i128::from(pads.0.min(0));
    let high = len as i128 + i128::from(pads.1.min(0));
    let size = high - low;
    if size <= 0 && out > 0 && mode != "constant" {
        return Err(Error::invalid(format!(
            "an axis of {len} has nothing to fill the pads with"
        )));
    }
    let show = |i: usize| {
        let at = i as i128 - i128::from(pads.0) - low;
        let at = match mode {
            "constant" => at,
            "edge" => at.clamp(0, size - 1),
            "wrap" => at.rem_euclid(size),
            _ => {
                let period = (2 * (size - 1)).max(1);
                let at = at.rem_euclid(period);
                at.min(period - at).min(size - 1)
            }
        };
        let shown = usize::try_from(at + low).ok();
        shown.filter(|_| (0..size).contains(&at))
    };
    Ok((0..out).map(show).collect())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let pads = match axes::given(cx, "pads", 1)? {
        None => axes::given(cx, "paddings", 1)?,
        pads => pads,
    };
    let pads = pads.ok_or_else(|| Error::invalid("the pads are missing"))?;
    let axes = axes::given(cx, "", 3)?;
    let mode = cx.node.string("mode").unwrap_or("constant");
    if !["constant", "edge", "wrap", "reflect"].contains(&mode) {
        return Err(Error::unsupported(format!(
            "the mode \"{mode}\" is unknown"
        )));
    }
    let fill = fill(cx, x)?;
    let tables = amounts(&pads, axes.as_deref(), x.rank())?
        .into_iter()
        .zip(x.dims())
        .map(|(p, &d)| sources(d, p, mode))
        .collect::<Result<Vec<_>>>()?;
    let dims: Vec<usize> = tables.iter().map(Vec::len).collect();
    let strides = layout::strides(x.dims());
    let mut walk = layout::walk(&dims, &vec![0; dims.len()], 0)?;
    let runs = std::iter::from_fn(|| {
        let places = walk.index().iter().zip(&tables).zip(&strides);
        let start = places
            .map(|((&i, table), &s)| Some(*table.get(i)?.as_ref()? * usize::try_from(s).ok()?));
        let start: Option<usize> = start.sum();
        walk.next()?;
        Some(Run {
            source: usize::from(start.is_none()),
            start: start.unwrap_or(0),
            len: 1,
        })
    });
    Ok(vec![layout::assemble(&[x, &fill], &dims, runs)?])
}

/// The constant as a tensor of one element of the type of `x`.
fn fill(cx: &EvalCx, x: &Tensor) -> Result<Tensor> {
    if let Some(t) = cx.optional(2).filter(|t| t.count() > 0) {
        return t.reshaped(&[]);
    }
    let value = f64::from(cx.float("value", 0.0));
    if value == 0.0 || x.dtype() == crate::DType::String {
        return layout::zeros(x.dtype(), &[]);
    }
    super::numbers::Numbers::Float(vec![value]).tensor(x.dtype(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_shows_its_elements() {
        let show = |mode| {
            let v = sources(3, (2, 3), mode).unwrap();
            v.into_iter().map(|i| i.unwrap_or(9)).collect::<Vec<_>>()
        };
        assert_eq!(show("constant"), [9, 9, 0, 1, 2, 9, 9, 9]);
        assert_eq!(show("edge"), [0, 0, 0, 1, 2, 2, 2, 2]);
        assert_eq!(show("wrap"), [1, 2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(show("reflect"), [2, 1, 0, 1, 2, 1, 0, 1]);
    }

    #[test]
    fn a_negative_pad_cuts() {
        let v = sources(4, (-1, 1), "constant").unwrap();
        assert_eq!(v, [Some(1), Some(2), Some(3), None]);
        assert!(sources(2, (-2, -1), "constant").is_err());
        assert!(sources(0, (1, 0), "edge").is_err());
        assert_eq!(sources(1, (1, 1), "reflect").unwrap(), [Some(0); 3]);
    }
}
