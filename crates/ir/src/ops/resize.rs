//! Resize and Upsample: images and volumes at other sizes.

use super::numbers::Numbers;
use super::taps::{Kernel, Taps, normalize};
use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::tensor::MAX_COUNT;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX Resize.
pub static RESIZE: OpDef = OpDef {
    name: "Resize",
    since: &[10, 11, 13, 18, 19],
    inputs: Arity(1, 4),
    attrs: &[
        attr("antialias", AttrKind::Int(Some(0))),
        attr("axes", AttrKind::Ints),
        attr(
            "coordinate_transformation_mode",
            AttrKind::String(Some("half_pixel")),
        ),
        attr("cubic_coeff_a", AttrKind::Float(Some(-0.75))),
        attr("exclude_outside", AttrKind::Int(Some(0))),
        attr("extrapolation_value", AttrKind::Float(Some(0.0))),
        attr(
            "keep_aspect_ratio_policy",
            AttrKind::String(Some("stretch")),
        ),
        attr("mode", AttrKind::String(Some("nearest"))),
        attr("nearest_mode", AttrKind::String(Some("round_prefer_floor"))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Resize(f32[1,1,2,3], _, f32[4]{1,1,2,1.5})",
        "Resize(f32[1,1,4,4], _, _, i64[4]{1,1,3,2}) {mode=\"linear\"}",
        "Resize(f32[4,4], _, f32[2]{0.6,0.6}) {mode=\"cubic\",antialias=1}",
        "Resize(f32[1,1,4,4], _, _, i64[2]{8,6}) {axes=[3,2],mode=\"cubic\",exclude_outside=1}",
        "Resize(u8[2,4], _, _, i64[1]{6}) {axes=[1],keep_aspect_ratio_policy=\"not_larger\"}",
        "Resize(f32[4,4], f32[4]{-0.2,0.1,0.8,1.2}, _, i64[2]{3,3}) \
         {mode=\"linear\",coordinate_transformation_mode=\"tf_crop_and_resize\"}",
        "Resize@10(f32[1,1,2,2], f32[4]{1,1,2,2})",
    ],
    ..OpDef::BASE
};

/// ONNX Upsample: the older, plainer Resize.
pub static UPSAMPLE: OpDef = OpDef {
    name: "Upsample",
    since: &[7, 9, 10],
    inputs: Arity(1, 2),
    attrs: &[
        attr("mode", AttrKind::String(Some("nearest"))),
        attr("scales", AttrKind::Floats),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Upsample@9(f32[1,1,2,2], f32[4]{1,1,2,3})",
        "Upsample@7(f32[1,1,2,2]) {scales=[1.0,1.0,2.0,2.0],mode=\"linear\"}",
    ],
    ..OpDef::BASE
};

/// The new length of one axis, and new over old.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    length: usize,
    scale: f64,
}

/// Which inputs hold the scales and the sizes.
fn places(node: &Node, version: i64) -> (usize, usize) {
    if node.op == "Upsample" || version < 11 {
        (1, usize::MAX)
    } else {
        (2, 3)
    }
}

fn chosen(node: &Node, rank: usize) -> Result<Vec<usize>> {
    match node.ints("axes") {
        Some(axes) => Ok(axes::resolve(axes, rank)?.to_vec()),
        None => Ok((0..rank).collect()),
    }
}

/// Each axis of a tensor of `dims`, from scales or sizes of the chosen axes.
fn plan(
    node: &Node,
    dims: &[usize],
    scales: Option<Vec<f64>>,
    sizes: Option<Vec<i64>>,
) -> Result<Vec<Axis>> {
    let axes = chosen(node, dims.len())?;
    let mut out: Vec<Axis> = dims
        .iter()
        .map(|&length| Axis { length, scale: 1.0 })
        .collect();
    let given = scales
        .as_ref()
        .map_or(sizes.as_ref().map_or(0, Vec::len), Vec::len);
    if given != axes.len() {
        return Err(Error::invalid(format!(
            "expected scales or sizes for {} axes, found {given}",
            axes.len()
        )));
    }
    if let Some(scales) = scales {
        for (&a, s) in axes.iter().zip(scales) {
            if !(s > 0.0 && s.is_finite()) {
                return Err(Error::invalid(format!(
                    "a scale should be positive, found {s}"
                )));
            }
            let length = scaled(dims[a], s)?;
            out[a] = Axis { length, scale: s };
        }
        return Ok(out);
    }
    let sizes = sizes.unwrap_or_default();
    let ratios = || {
        axes.iter()
            .zip(&sizes)
            .map(|(&a, &s)| s as f64 / dims[a] as f64)
    };
    let common = match node.string("keep_aspect_ratio_policy") {
        Some("not_larger") => Some(ratios().fold(f64::INFINITY, f64::min)),
        Some("not_smaller") => Some(ratios().fold(0.0, f64::max)),
        _ => None,
    };
    for (&a, &size) in axes.iter().zip(&sizes) {
        let mut length = axes::length(size, "a size")?;
        let mut scale = length as f64 / dims[a] as f64;
        if let Some(common) = common {
            length = scaled(1, common * dims[a] as f64 + 0.5)?;
            scale = common;
        }
        out[a] = Axis { length, scale };
    }
    Ok(out)
}

fn scaled(length: usize, scale: f64) -> Result<usize> {
    let length = (length as f64 * scale).floor();
    if length > MAX_COUNT as f64 {
        return Err(Error::invalid(format!("a length of {length} is too large")));
    }
    Ok(length as usize)
}

fn floats(t: &Tensor) -> Result<Option<Vec<f64>>> {
    let values = Numbers::of(t)?.into_floats();
    Ok((!values.is_empty()).then_some(values))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (s, z) = places(cx.node, cx.version);
    let scales = match cx.node.floats("scales") {
        Some(v) => Some(v.iter().map(|&x| f64::from(x)).collect()),
        None => cx.constant(s).map(floats).transpose()?.flatten(),
    };
    let sizes = cx.ints(z).filter(|v| !v.is_empty());
    let shape = match cx.shape(0) {
        Some(shape) => Some(match shape.known() {
            Some(dims) if scales.is_some() || sizes.is_some() => {
                let axes = plan(cx.node, &dims, scales, sizes)?;
                axes.iter().map(|a| Dim::Known(a.length)).collect()
            }
            _ => open(cx.node, shape, scales, cx.contents(z))?,
        }),
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// The shape where some lengths are not known.
fn open(
    node: &Node,
    shape: &Shape,
    scales: Option<Vec<f64>>,
    sizes: Option<&[Dim]>,
) -> Result<Shape> {
    let mut out = shape.clone();
    let stretch = node
        .string("keep_aspect_ratio_policy")
        .is_none_or(|p| p == "stretch");
    for (i, a) in chosen(node, shape.rank())?.into_iter().enumerate() {
        let scale = scales.as_ref().and_then(|s| s.get(i)).copied();
        out.0[a] = match (&shape[a], scale, sizes.and_then(|s| s.get(i))) {
            (d, Some(1.0), _) => d.clone(),
            (Dim::Known(n), Some(s), _) => Dim::Known(scaled(*n, s)?),
            (_, None, Some(size)) if stretch => size.clone(),
            _ => Dim::Unknown,
        };
    }
    Ok(out)
}

/// How an axis is resized.
#[derive(Debug)]
pub struct Resized {
    /// Its new length.
    pub length: usize,
    /// For each new element the elements that it reads, with weights, none where it lies outside;
    /// `None` where the axis stays as it is.
    pub taps: Option<Vec<Taps>>,
}

/// How each axis of an input of lengths `from` is resized; the other inputs are read.
///
/// # Errors
/// When attributes or inputs do not fit, or the result is too large.
pub fn resized(cx: &EvalCx, from: &[usize]) -> Result<Vec<Resized>> {
    let (s, z) = places(cx.node, cx.version);
    let scales = match cx.node.floats("scales") {
        Some(v) => Some(v.iter().map(|&x| f64::from(x)).collect()),
        None => cx.optional(s).map(floats).transpose()?.flatten(),
    };
    let sizes = match scales {
        Some(_) => None,
        None => cx.optional(z).map(Tensor::to_i64).transpose()?,
    };
    let plan = plan(cx.node, from, scales, sizes)?;
    let dims: Vec<usize> = plan.iter().map(|a| a.length).collect();
    checked_count(&dims)?;
    let is_lost = |(&from, &to): (&usize, &usize)| from == 0 && to > 0;
    if from.iter().zip(&dims).any(is_lost) {
        return Err(Error::invalid(format!(
            "lengths of {from:?} have nothing to be made larger"
        )));
    }
    let coordinates = Coordinates::of(cx, from.len())?;
    let none = dims.contains(&0);
    let one = |(a, axis): (usize, &Axis)| {
        let same = Axis {
            length: from[a],
            scale: 1.0,
        };
        let taps = if none || (*axis == same && !coordinates.crops()) {
            None
        } else {
            let each = (0..axis.length).map(|i| coordinates.taps(cx.node, a, i, *axis, from[a]));
            Some(each.collect::<Result<_>>()?)
        };
        let length = axis.length;
        Ok(Resized { length, taps })
    };
    plan.iter().enumerate().map(one).collect()
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axes = resized(cx, x.dims())?;
    let dims: Vec<usize> = axes.iter().map(|a| a.length).collect();
    if dims.contains(&0) {
        return Ok(vec![Numbers::Float(vec![]).tensor(x.dtype(), &dims)?]);
    }
    let mut values = Numbers::of(x)?.into_floats();
    let mut now = x.dims().to_vec();
    let mut outside = vec![Vec::new(); dims.len()];
    for (a, axis) in axes.iter().enumerate() {
        let Some(taps) = &axis.taps else { continue };
        outside[a] = taps.iter().map(Vec::is_empty).collect();
        values = along(&values, &now, a, taps)?;
        now[a] = axis.length;
    }
    let fill = f64::from(cx.float("extrapolation_value", 0.0));
    let mut walk = layout::walk(&dims, &vec![0; dims.len()], 0)?;
    for v in &mut values {
        let index = walk.index();
        if index
            .iter()
            .zip(&outside)
            .any(|(&i, o)| o.get(i) == Some(&true))
        {
            *v = fill;
        }
        walk.next();
    }
    if x.dtype().is_integer() {
        values.iter_mut().for_each(|v| *v = v.round_ties_even());
    }
    Ok(vec![Numbers::Float(values).tensor(x.dtype(), &dims)?])
}

/// `values` of shape `dims` read along one axis by the taps.
fn along(values: &[f64], dims: &[usize], axis: usize, taps: &[Taps]) -> Result<Vec<f64>> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let len = dims[axis];
    let mut out = Vec::with_capacity(checked_count(&[outer, taps.len(), inner])?);
    for block in values.chunks(len.max(1) * inner.max(1)).take(outer) {
        for taps in taps {
            for i in 0..inner {
                let read = taps.iter().map(|&(t, w)| w * block[t as usize * inner + i]);
                out.push(read.sum());
            }
        }
    }
    Ok(out)
}

/// From a place in the result to one in the input.
struct Coordinates<'a> {
    mode: &'a str,
    roi: Vec<(f64, f64)>,
    /// Of Upsample, or of Resize before opset 11.
    old: bool,
}

impl<'a> Coordinates<'a> {
    fn of(cx: &EvalCx<'a>, rank: usize) -> Result<Self> {
        let old = cx.node.op == "Upsample" || cx.version < 11;
        let default = if old { "asymmetric" } else { "half_pixel" };
        let mode = cx
            .node
            .string("coordinate_transformation_mode")
            .unwrap_or(default);
        let mut roi = vec![(0.0, 1.0); rank];
        if mode == "tf_crop_and_resize" {
            let given = floats(cx.input(1)?)?.unwrap_or_default();
            let axes = chosen(cx.node, rank)?;
            if given.len() != 2 * axes.len() {
                return Err(Error::invalid(format!(
                    "expected a region of {} numbers, found {}",
                    2 * axes.len(),
                    given.len()
                )));
            }
            for (i, &a) in axes.iter().enumerate() {
                roi[a] = (given[i], given[axes.len() + i]);
            }
        }
        Ok(Self { mode, roi, old })
    }

    fn crops(&self) -> bool {
        self.mode == "tf_crop_and_resize"
    }

    /// The coordinate in an axis of `len` of element `i` of the resized axis.
    fn place(&self, a: usize, i: usize, axis: Axis, len: usize) -> Result<f64> {
        let (x, n, m) = (i as f64, len as f64, axis.length as f64);
        // The length before it is rounded down to a whole number.
        let exact = axis.scale * n;
        let half = (x + 0.5) / axis.scale - 0.5;
        let (start, end) = self.roi[a];
        Ok(match self.mode {
            "half_pixel" => half,
            "half_pixel_symmetric" => {
                let adjustment = m / exact;
                n / 2.0 * (1.0 - adjustment) + half
            }
            "pytorch_half_pixel" if axis.length > 1 => half,
            "pytorch_half_pixel" => 0.0,
            "align_corners" if axis.length > 1 => x * (n - 1.0) / (exact - 1.0),
            "align_corners" => 0.0,
            "asymmetric" => x / axis.scale,
            "tf_half_pixel_for_nn" => (x + 0.5) / axis.scale,
            "tf_crop_and_resize" if axis.length > 1 => {
                start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0)
            }
            "tf_crop_and_resize" => 0.5 * (start + end) * (n - 1.0),
            mode => {
                return Err(Error::unsupported(format!(
                    "the coordinates \"{mode}\" are unknown"
                )));
            }
        })
    }

    /// The taps of element `i`; none outside of what a crop shows.
    fn taps(&self, node: &Node, a: usize, i: usize, axis: Axis, len: usize) -> Result<Taps> {
        let x = self.place(a, i, axis, len)?;
        let last = len as f64 - 1.0;
        if self.crops() && !(0.0..=last).contains(&x) {
            return Ok(Vec::new());
        }
        let kernel = match node.string("mode").unwrap_or("nearest") {
            "nearest" => {
                let at = match self.old {
                    true => first_nearest(x, axis.scale),
                    false => nearest(node, x),
                };
                return Ok(vec![(at.clamp(0.0, last) as i64, 1.0)]);
            }
            "linear" | "bilinear" => Kernel::Linear,
            "cubic" => Kernel::Cubic(f64::from(node.float("cubic_coeff_a").unwrap_or(-0.75))),
            mode => {
                return Err(Error::unsupported(format!(
                    "the mode \"{mode}\" is unknown"
                )));
            }
        };
        // Past its ends an axis goes on with its last element, and a line stays flat.
        let x = x.clamp(-2.0, last + 2.0);
        let antialias = node.int("antialias").unwrap_or(0) != 0;
        let mut taps = kernel.taps(x, if antialias { axis.scale } else { 1.0 });
        if node.int("exclude_outside").unwrap_or(0) != 0 {
            taps.retain(|&(i, _)| (0..len as i64).contains(&i));
            normalize(&mut taps);
        }
        for t in &mut taps {
            t.0 = t.0.clamp(0, len as i64 - 1);
        }
        Ok(taps)
    }
}

/// What ONNX Runtime takes before opset 11, where ONNX does not say: the element before a place of
/// an axis that is made longer, the one after it where the axis is made shorter.
fn first_nearest(x: f64, scale: f64) -> f64 {
    if scale < 1.0 { x.ceil() } else { x.floor() }
}

fn nearest(node: &Node, x: f64) -> f64 {
    match node.string("nearest_mode").unwrap_or("round_prefer_floor") {
        "round_prefer_ceil" => (x + 0.5).floor(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        _ => (x - 0.5).ceil(),
    }
}

#[cfg(test)]
mod tests {
    use crate::eval::evaluate;
    use crate::text::parse;

    #[test]
    fn before_opset_11_neighbours_are_those_of_onnx_runtime() {
        for (scale, expected) in [
            ("0.6", &[0.0f32, 2.0, 4.0, 5.0][..]),
            ("0.4", &[0.0, 3.0]),
            ("1.5", &[0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0]),
        ] {
            let text = format!(
                "opset 10 graph g() -> (y) {{ x: f32[1,7] = {{0,1,2,3,4,5,6}}
                   s: f32[2] = {{1,{scale}}} y = Resize(x, s) }}"
            );
            let y = evaluate(&parse(&text).unwrap(), &[]).unwrap();
            assert_eq!(&*y[0].data::<f32>().unwrap(), expected, "{scale}");
        }
    }

    #[test]
    fn an_axis_without_length_is_empty_and_one_past_all_bounds_an_error() {
        let run = |scales: &str| {
            let text = format!(
                "opset 19 graph g() -> (y) {{ x: f32[2,2] = {{1,2,3,4}} s: f32[2] = {{{scales}}}
                   y = Resize(x, _, s) }}"
            );
            evaluate(&parse(&text).unwrap(), &[])
        };
        assert_eq!(run("1e-30,3").unwrap()[0].dims(), [0, 6]);
        let error = run("1e-30,1e30").unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }
}
