//! DeformConv: a convolution whose taps are moved by offsets and weighed by a mask.
//!
//! J. Dai et al., "Deformable Convolutional Networks", 2017; X. Zhu et al., version 2, 2018.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::conv::{self, Convolution, add_bias, bias};
use super::grid_sample::spread;
use super::layout;
use super::taps::{Kernel, Taps};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::{Error, Result, Tensor, checked_count};

/// ONNX DeformConv, of any number of spatial axes.
pub static DEFORM_CONV: OpDef = OpDef {
    name: "DeformConv",
    since: &[19, 22],
    inputs: Arity(3, 5),
    attrs: &[
        attr("dilations", AttrKind::Ints),
        attr("group", AttrKind::Int(Some(1))),
        attr("kernel_shape", AttrKind::Ints),
        attr("offset_group", AttrKind::Int(Some(1))),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: |cx| conv::infer(cx, 1, cx.dtype(0)),
    eval: Some(eval),
    examples: &[
        "DeformConv(f32[1,1,4,4], f32[2,1,2,2], f32[1,8,3,3], f32[2], f32[1,4,3,3])",
        "DeformConv(f32[1,4,5,5], f32[2,2,3,3], f32[1,36,3,3]) \
         {group=2,offset_group=2,pads=[1,1,1,1],strides=[2,2]}",
        "DeformConv(f32[1,1,6], f32[1,1,3], f32[1,3,4])",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let conv = Convolution::of(cx.node, x, w)?;
    let (batch, channels, space) = (x.dims()[0], x.dims()[1], &x.dims()[2..]);
    let (filters, depth, out) = (conv.dims[1], w.dims()[1], &conv.dims[2..]);
    let groups = axes::length(cx.int("offset_group", 1), "offset_group")?;
    if groups == 0 || groups > channels || !channels.is_multiple_of(groups) {
        return Err(Error::invalid(format!(
            "{channels} channels do not split in {groups} groups of offsets"
        )));
    }
    let taps = conv.window.taps();
    let expect = |what: &str, t: &Tensor, width: usize| {
        expect_rank(what, t, x.rank()..=x.rank())?;
        expect_dims(what, t, &[&[batch, width], out].concat())
    };
    expect("the offsets", offset, groups * taps * space.len())?;
    let mask = match cx.optional(4) {
        Some(t) => {
            expect("the mask", t, groups * taps)?;
            Some(floats(t)?)
        }
        None => None,
    };
    let (data, weights, offsets) = (floats(x)?, floats(w)?, floats(offset)?);
    let bias = bias(cx.optional(3), filters)?;
    let volume: usize = space.iter().product();
    let points: usize = out.iter().product();
    let strides = layout::strides(space);
    let mut y = vec![0.0; checked_count(&conv.dims)?];
    let in_group = filters / (channels / depth.max(1)).max(1);
    let rows = (0..batch * groups * taps).flat_map(|row| (0..points).map(move |p| (row, p)));
    for (row, point) in rows {
        let (tap, group) = (row % taps, row / taps % groups);
        let image = row / taps / groups;
        let moved = |axis: usize| offsets[(row * space.len() + axis) * points + point];
        let places = places(&conv, space, (tap, point), moved);
        let factor = mask.as_ref().map_or(1.0, |m| m[row * points + point]);
        let around = spread(&places, &strides);
        let share = channels / groups;
        for channel in group * share..(group + 1) * share {
            let plane = &data[(image * channels + channel) * volume..][..volume];
            let value: f64 = around.iter().map(|&(i, weight)| weight * plane[i]).sum();
            let first = channel / depth * in_group;
            for filter in first..first + in_group {
                let weight = weights[(filter * depth + channel % depth) * taps + tap];
                y[(image * filters + filter) * points + point] += weight * value * factor;
            }
        }
    }
    add_bias(&mut y, &bias, points);
    Ok(vec![from_floats(x.dtype(), &conv.dims, y)?])
}

/// The elements around a moved tap, along each axis.
fn places(
    conv: &Convolution,
    space: &[usize],
    (mut tap, mut point): (usize, usize),
    moved: impl Fn(usize) -> f64,
) -> Vec<Taps> {
    let mut places = Vec::with_capacity(space.len());
    for (i, axis) in conv.window.axes.iter().enumerate().rev() {
        let at = (point % axis.output * axis.stride + tap % axis.kernel * axis.dilation) as f64;
        point /= axis.output;
        tap /= axis.kernel;
        let x = at - axis.begin as f64 + moved(i);
        let len = space[i] as i64;
        let x = if x.is_nan() {
            -2.0
        } else {
            x.clamp(-2.0, len as f64 + 2.0)
        };
        let mut taps = Kernel::Linear.taps(x, 1.0);
        taps.retain(|t| (0..len).contains(&t.0));
        places.push(taps);
    }
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn the_example_of_onnx_with_a_moved_tap() {
        let mut offsets = vec!["0.0"; 32];
        // The first tap of the first window half a row down, the third tap of the second window
        // a tenth of a column back.
        (offsets[0], offsets[5 * 4 + 1]) = ("0.5", "-0.1");
        let model = parse(&format!(
            "opset 19 graph g() -> (y) {{ x: f32[1,1,3,3] = {{0,1,2,3,4,5,6,7,8}}
            w: f32[1,1,2,2] = {{1,1,1,1}} o: f32[1,8,2,2] = {{{}}} y = DeformConv(x, w, o) }}",
            offsets.join(",")
        ));
        let y = eval::evaluate(&model.unwrap(), &[]).unwrap();
        let y = y[0].data::<f32>().unwrap();
        for (y, e) in y.iter().zip([9.5, 11.9, 20.0, 24.0]) {
            assert!((y - e).abs() < 1e-6, "{y}, expected {e}");
        }
    }
}
