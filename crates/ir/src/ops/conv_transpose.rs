//! ConvTranspose: each input element spreads a kernel over the output.

use super::arith::{expect_rank, floats, from_floats};
use super::conv::{self, add_bias, bias, group};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::geometry::{AutoPad, WindowSpec, lengths};
use crate::infer::InferCx;
use crate::{Dim, Error, Node, Result, Shape, Tensor, checked_count};

/// ONNX ConvTranspose, of any number of spatial axes.
pub static CONV_TRANSPOSE: OpDef = OpDef {
    name: "ConvTranspose",
    since: &[1, 11, 22],
    inputs: Arity(2, 3),
    attrs: &[
        attr("auto_pad", AttrKind::String(Some("NOTSET"))),
        attr("dilations", AttrKind::Ints),
        attr("group", AttrKind::Int(Some(1))),
        attr("kernel_shape", AttrKind::Ints),
        attr("output_padding", AttrKind::Ints),
        attr("output_shape", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "ConvTranspose(f32[1,2,3,3], f32[2,4,3,3], f32[4]) {strides=[2,2], pads=[1,1,1,1]}",
        "ConvTranspose(f32[1,2,5], f32[2,1,3]) {group=2, output_padding=[1], strides=[2]}",
    ],
    ..OpDef::BASE
};

/// Where the kernels lie on one spatial axis.
#[derive(Debug)]
pub struct Spread {
    /// Length of the input.
    pub input: usize,
    /// Length of the kernel.
    pub kernel: usize,
    /// Steps of the input in the output.
    pub stride: usize,
    /// Distance of kernel elements in the output.
    pub dilation: usize,
    /// Elements before the output, which are cut off.
    pub begin: usize,
    /// Length of the output.
    pub output: usize,
}

/// The spatial axes, by the equations of ONNX ConvTranspose; an error where attributes do not fit
/// the lengths or the output is too large.
pub fn spreads(node: &Node, input: &[usize], kernel: &[usize]) -> Result<Vec<Spread>> {
    let axes = input.len();
    let spec = WindowSpec::of(node, axes)?;
    let extra = lengths(node, "output_padding", axes, 0)?;
    let wanted = match node.ints("output_shape") {
        Some(v) if v.len() == axes + 2 => Some(v[2..].to_vec()),
        other => other.map(<[i64]>::to_vec),
    };
    if wanted.as_ref().is_some_and(|w| w.len() != axes) {
        return Err(Error::invalid(format!(
            "attribute \"output_shape\" should have {axes} entries"
        )));
    }
    let large = || Error::invalid("the output is too large");
    (0..axes)
        .map(|i| {
            let (stride, dilation) = (spec.strides[i], spec.dilations[i]);
            let whole = input[i]
                .checked_sub(1)
                .zip(kernel[i].checked_sub(1))
                .and_then(|(n, k)| {
                    n.checked_mul(stride)?
                        .checked_add(k.checked_mul(dilation)?)?
                        .checked_add(extra[i] + 1)
                })
                .ok_or_else(large)?;
            let same = input[i].checked_mul(stride).ok_or_else(large)?;
            let target = match (&wanted, spec.auto_pad) {
                (Some(w), _) => Some(usize::try_from(w[i]).map_err(|_| large())?),
                (None, AutoPad::SameUpper | AutoPad::SameLower) => Some(same),
                _ => None,
            };
            let (begin, output) = match target {
                Some(target) => {
                    let total = whole.saturating_sub(target);
                    let upper = spec.auto_pad == AutoPad::SameUpper;
                    let begin = if upper { total / 2 } else { total - total / 2 };
                    (begin, target)
                }
                None => {
                    let (begin, end) = match spec.auto_pad {
                        AutoPad::Valid => (0, 0),
                        _ => spec.pads[i],
                    };
                    let output = whole.checked_sub(begin + end).filter(|&n| n > 0);
                    let output = output.ok_or_else(|| {
                        Error::invalid(format!("the pads leave nothing of spatial axis {i}"))
                    })?;
                    (begin, output)
                }
            };
            Ok(Spread {
                input: input[i],
                kernel: kernel[i],
                stride,
                dilation,
                begin,
                output,
            })
        })
        .collect()
}

/// For each tap over input element `i` (flat), where on the output it falls.
fn targets(spreads: &[Spread], i: usize, into: &mut Vec<(usize, usize)>) {
    into.clear();
    into.push((0, 0));
    let mut stride = spreads.iter().map(|a| a.input).product::<usize>();
    let mut rest = i;
    for a in spreads {
        stride /= a.input;
        let start = rest / stride * a.stride;
        rest %= stride;
        *into = into
            .iter()
            .flat_map(|&(tap, at)| {
                (0..a.kernel).filter_map(move |k| {
                    let o = (start + k * a.dilation).checked_sub(a.begin)?;
                    (o < a.output).then_some((tap * a.kernel + k, at * a.output + o))
                })
            })
            .collect();
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 3..=usize::MAX)?;
    expect_rank("the weight", w, x.rank()..=x.rank())?;
    let group = group(cx.node)?;
    let (channels, depth) = (x.dims()[1], w.dims()[1]);
    if w.dims()[0] != channels || !channels.is_multiple_of(group) {
        return Err(Error::invalid(format!(
            "a weight {} with {group} groups does not fit an input {}",
            w.ty(),
            x.ty()
        )));
    }
    let spreads = spreads(cx.node, &x.dims()[2..], &w.dims()[2..])?;
    let filters = depth
        .checked_mul(group)
        .ok_or_else(|| Error::invalid("too many groups"))?;
    let mut dims = vec![x.dims()[0], filters];
    dims.extend(spreads.iter().map(|s| s.output));
    let mut y = vec![0.0; checked_count(&dims)?];
    let plane: usize = dims[2..].iter().product();
    let area: usize = x.dims()[2..].iter().product();
    let taps: usize = w.dims()[2..].iter().product();
    let (data, weight) = (floats(x)?, floats(w)?);
    let mut places = Vec::new();
    for i in 0..area {
        targets(&spreads, i, &mut places);
        for n in 0..dims[0] {
            for c in 0..channels {
                let v = data[(n * channels + c) * area + i];
                let first = n * filters + c / (channels / group) * depth;
                for f in 0..depth {
                    let w = &weight[(c * depth + f) * taps..][..taps];
                    let y = &mut y[(first + f) * plane..][..plane];
                    for &(tap, o) in &places {
                        y[o] += v * w[tap];
                    }
                }
            }
        }
    }
    add_bias(&mut y, &bias(cx.optional(2), filters)?, plane);
    Ok(vec![from_floats(x.dtype(), &dims, y)?])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (Some(x), Some(w)) = (cx.shape(0), cx.shape(1)) else {
        return Ok(());
    };
    if x.rank() != w.rank() || x.rank() < 3 {
        return Err(Error::invalid(format!(
            "weight has {} axes, input has {}",
            w.rank(),
            x.rank()
        )));
    }
    let group = conv::group(cx.node)?;
    if w[0].unify(&x[1]).is_none() || w[0].known().is_some_and(|n| !n.is_multiple_of(group)) {
        return Err(Error::invalid(format!(
            "a weight {w} with {group} groups does not fit an input {x}"
        )));
    }
    let filters = match &w[1] {
        Dim::Known(depth) => depth.checked_mul(group),
        _ => None,
    };
    let known = |s: &Shape| {
        s[2..]
            .iter()
            .map(Dim::known)
            .collect::<Option<Vec<usize>>>()
    };
    let mut out: Shape = [x[0].clone(), filters.map_or(Dim::Unknown, Dim::Known)]
        .into_iter()
        .collect();
    match known(x).zip(known(w)) {
        Some((input, kernel)) => {
            let spreads = spreads(cx.node, &input, &kernel)?;
            out.0.extend(spreads.iter().map(|s| Dim::Known(s.output)));
        }
        None => out.0.extend(x[2..].iter().map(|_| Dim::Unknown)),
    }
    cx.set_tensor(0, cx.dtype(0), Some(out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_spreads_elements_apart() {
        let mut node = Node::new("ConvTranspose", "c");
        node.attributes
            .push(("strides".into(), crate::Attribute::Ints(vec![2])));
        let s = spreads(&node, &[3], &[2]).unwrap();
        assert_eq!(s[0].output, 6);
        let mut t = Vec::new();
        targets(&s, 1, &mut t);
        assert_eq!(t, [(0, 2), (1, 3)]);
    }
}
