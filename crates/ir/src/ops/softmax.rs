//! Softmax, LogSoftmax and Hardmax along an axis; before opset 13 over all axes from one on.

use super::arith::{floats, from_floats};
use super::{AttrDef, AttrKind, EvalFn, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer;
use crate::{Result, Tensor};

/// The attributes of all three.
pub const ATTRS: &[AttrDef] = &[attr("axis", AttrKind::Int(None))];

const fn row(name: &'static str, example: &'static [&'static str], eval: EvalFn) -> OpDef {
    OpDef {
        name,
        since: &[1, 11, 13],
        attrs: ATTRS,
        eval: Some(eval),
        examples: example,
        ..OpDef::BASE
    }
}

/// ONNX Softmax.
pub static SOFTMAX: OpDef = row(
    "Softmax",
    &["Softmax(f32[2,3,4]) {axis=1}", "Softmax(f32[2,5])"],
    |cx| lines(cx, softmax_line),
);

/// ONNX LogSoftmax.
pub static LOG_SOFTMAX: OpDef = row("LogSoftmax", &["LogSoftmax(f32[2,3])"], |cx| {
    lines(cx, log_softmax_line)
});

/// ONNX Hardmax: one at the first maximum.
pub static HARDMAX: OpDef = row("Hardmax", &["Hardmax(f32[2,3])"], |cx| {
    lines(cx, |line| {
        let best = (0..line.len()).fold(0, |b, i| if line[i] > line[b] { i } else { b });
        line.fill(0.0);
        line[best] = 1.0;
    })
});

/// The softmax of one line, in place.
pub fn softmax_line(line: &mut [f64]) {
    let sum = shift_and_sum(line);
    line.iter_mut().for_each(|v| *v = v.exp() / sum);
}

/// The logarithm of the softmax of one line, in place.
pub fn log_softmax_line(line: &mut [f64]) {
    let log = shift_and_sum(line).ln();
    line.iter_mut().for_each(|v| *v -= log);
}

/// Takes the maximum off each element; the sum of their exponentials.
fn shift_and_sum(line: &mut [f64]) -> f64 {
    let max = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    line.iter_mut().for_each(|v| *v -= max);
    line.iter().map(|v| v.exp()).sum()
}

fn lines(cx: &EvalCx, f: impl Fn(&mut [f64])) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (length, inner) = extent(cx, x)?;
    let mut data = floats(x)?;
    map_lines(&mut data, length, inner, f);
    Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
}

/// The length of the lines of `x` that attribute `axis` names, and how far apart their elements lie: before
/// opset 13 all axes from that one on are a line.
///
/// # Errors
/// When there is no such axis.
pub fn extent(cx: &EvalCx, x: &Tensor) -> Result<(usize, usize)> {
    let flat = cx.version < 13;
    let axis = cx.int("axis", if flat { 1 } else { -1 });
    if flat {
        let at = if axis == x.rank() as i64 {
            x.rank()
        } else {
            infer::axis(axis, x.rank())?
        };
        return Ok((x.dims()[at..].iter().product(), 1));
    }
    if x.rank() == 0 {
        return Ok((1, 1));
    }
    let at = infer::axis(axis, x.rank())?;
    Ok((x.dims()[at], x.dims()[at + 1..].iter().product()))
}

/// Applies `f` to each line of `length` elements that lie `inner` apart.
pub fn map_lines(data: &mut [f64], length: usize, inner: usize, f: impl Fn(&mut [f64])) {
    if data.is_empty() {
        return;
    }
    let mut line = vec![0.0; length];
    for block in data.chunks_mut(length * inner) {
        for i in 0..inner {
            for (k, v) in line.iter_mut().enumerate() {
                *v = block[k * inner + i];
            }
            f(&mut line);
            for (k, &v) in line.iter().enumerate() {
                block[k * inner + i] = v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_run_along_their_axis() {
        let mut data = vec![1.0, 2.0, 3.0, 4.0];
        map_lines(&mut data, 2, 2, |line| line.reverse());
        assert_eq!(data, [3.0, 4.0, 1.0, 2.0]);
    }
}
