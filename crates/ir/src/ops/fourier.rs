//! DFT and STFT: the discrete Fourier transform of a signal, whole or frame by frame.

use std::f64::consts::PI;

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX DFT; the axis is an attribute before opset 20.
pub static DFT: OpDef = OpDef {
    name: "DFT",
    since: &[17, 20],
    inputs: Arity(1, 3),
    attrs: &[
        attr("axis", AttrKind::Int(Some(1))),
        attr("inverse", AttrKind::Int(Some(0))),
        attr("onesided", AttrKind::Int(Some(0))),
    ],
    infer: infer_dft,
    eval: Some(eval_dft),
    examples: &[
        "DFT(f32[2,6,1])",
        "DFT(f32[2,6,2], _, i64[]{0}) {inverse=1}",
        "DFT(f64[2,5,3,1], i64[]{4}, i64[]{-3}) {onesided=1}",
        "DFT(f32[1,4,2], i64[]{7}) {onesided=1,inverse=1}",
        "DFT@17(f32[2,6,1]) {axis=1,onesided=1}",
    ],
    ..OpDef::BASE
};

/// ONNX STFT.
pub static STFT: OpDef = OpDef {
    name: "STFT",
    since: &[17],
    inputs: Arity(2, 4),
    attrs: &[attr("onesided", AttrKind::Int(Some(1)))],
    infer: infer_stft,
    eval: Some(eval_stft),
    examples: &[
        "STFT(f32[2,16,1], i64[]{3}, _, i64[]{8})",
        "STFT(f32[1,16,1], i64[]{4}, f32[6])",
        "STFT(f64[1,9,2], i32[]{2}, _, i32[]{5}) {onesided=0}",
    ],
    ..OpDef::BASE
};

/// A complex number: real and imaginary part.
pub type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// The discrete Fourier transform of `signal`: Σ x\[n\] · e^(∓2πi·kn/N), without a factor.
/// Lengths are split by their prime factors (J. Cooley and J. Tukey, 1965).
pub fn transform(signal: &[Complex], inverse: bool) -> Vec<Complex> {
    let n = signal.len();
    let turn = if inverse { 2.0 } else { -2.0 } * PI / n as f64;
    let roots: Vec<Complex> = (0..n)
        .map(|k| ((turn * k as f64).cos(), (turn * k as f64).sin()))
        .collect();
    let mut out = vec![(0.0, 0.0); n];
    split(signal, 1, &roots, &mut out);
    out
}

/// Transforms every `stride`-th element of `signal` to `out`, which has as many.
fn split(signal: &[Complex], stride: usize, roots: &[Complex], out: &mut [Complex]) {
    let n = out.len();
    let Some(factor) = smallest_factor(n) else {
        if n == 1 {
            out[0] = signal[0];
        }
        return;
    };
    let part = n / factor;
    for (r, out) in out.chunks_mut(part).enumerate() {
        split(&signal[r * stride..], stride * factor, roots, out);
    }
    let mut parts = vec![(0.0, 0.0); factor];
    for k in 0..part {
        for (r, p) in parts.iter_mut().enumerate() {
            *p = out[r * part + k];
        }
        for q in 0..factor {
            let at = q * part + k;
            out[at] = parts
                .iter()
                .enumerate()
                .map(|(r, &p)| times(p, roots[r * at % n * stride]))
                .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        }
    }
}

/// The smallest factor over 1; `None` for 0 and 1.
fn smallest_factor(n: usize) -> Option<usize> {
    if n < 2 {
        return None;
    }
    (2..)
        .take_while(|f| f * f <= n)
        .find(|f| n.is_multiple_of(*f))
        .or(Some(n))
}

/// What a DFT node asks for, beside its axis and length.
#[derive(Clone, Copy)]
struct Kind {
    inverse: bool,
    half: bool,
}

impl Kind {
    fn of(node: &Node) -> Self {
        Self {
            inverse: node.int("inverse").unwrap_or(0) != 0,
            half: node.int("onesided").unwrap_or(0) != 0,
        }
    }

    /// True where half a spectrum becomes a real signal.
    fn is_real(self) -> bool {
        self.inverse && self.half
    }

    fn default_length(self, axis: usize) -> usize {
        if self.is_real() {
            axis.saturating_sub(1).saturating_mul(2)
        } else {
            axis
        }
    }

    fn output_length(self, n: usize) -> usize {
        if self.half && !self.inverse {
            n / 2 + 1
        } else {
            n
        }
    }

    /// The transform of one line that is cut or filled up with zeros to `n`.
    fn line(self, line: &[Complex], n: usize) -> Vec<Complex> {
        let mut signal: Vec<Complex> = line.iter().copied().take(n).collect();
        signal.resize(n, (0.0, 0.0));
        if self.is_real() {
            mirror(&mut signal);
        }
        let mut out = transform(&signal, self.inverse);
        out.truncate(self.output_length(n));
        if self.inverse {
            let scale = n as f64;
            out.iter_mut().for_each(|v| *v = (v.0 / scale, v.1 / scale));
        }
        out
    }
}

/// Fills the second half of a spectrum so that its signal is real.
fn mirror(spectrum: &mut [Complex]) {
    let n = spectrum.len();
    for k in 0..n / 2 + 1 {
        if k == 0 || 2 * k == n {
            if let Some(v) = spectrum.get_mut(k) {
                v.1 = 0.0;
            }
        } else if k < n - k {
            spectrum[n - k] = (spectrum[k].0, -spectrum[k].1);
        }
    }
}

/// The elements of a tensor whose last axis holds real and imaginary part, or one of them.
fn complex(t: &Tensor, what: &str) -> Result<Vec<Complex>> {
    let data = floats(t)?;
    match t.dims().last() {
        Some(1) => Ok(data.into_iter().map(|v| (v, 0.0)).collect()),
        Some(2) => Ok(data.chunks(2).map(|v| (v[0], v[1])).collect()),
        _ => Err(Error::invalid(format!(
            "{what} should end in an axis of 1 or 2 elements, found {}",
            t.ty()
        ))),
    }
}

fn signal_axis(axis: i64, rank: usize) -> Result<usize> {
    let axis = infer::axis(axis, rank)?;
    if axis + 1 == rank {
        return Err(Error::invalid(
            "the axis of real and imaginary parts cannot be transformed",
        ));
    }
    Ok(axis)
}

fn eval_dft(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axis = match (cx.version < 20, cx.optional(2)) {
        (true, _) => cx.int("axis", 1),
        (false, Some(t)) => axes::scalar(t)?,
        (false, None) => -2,
    };
    let axis = signal_axis(axis, x.rank())?;
    let kind = Kind::of(cx.node);
    let data = complex(x, "the signal")?;
    if kind.half && !kind.inverse && x.dims().last() == Some(&2) {
        return Err(Error::invalid(
            "half a spectrum is enough for real signals only",
        ));
    }
    let len = x.dims()[axis];
    let n = match cx.optional(1) {
        Some(t) => axes::length(axes::scalar(t)?, "the length")?,
        None => kind.default_length(len),
    };
    if n == 0 {
        return Err(Error::invalid("the transform has no elements"));
    }
    let mut dims = x.dims().to_vec();
    dims[axis] = kind.output_length(n);
    dims[x.rank() - 1] = if kind.is_real() { 1 } else { 2 };
    let mut y = vec![0.0; checked_count(&dims)?];
    let inner: usize = x.dims()[axis + 1..x.rank() - 1].iter().product();
    let outer: usize = x.dims()[..axis].iter().product();
    let (out, width) = (dims[axis], dims[x.rank() - 1]);
    checked_count(&[n, 2])?;
    let mut line = vec![(0.0, 0.0); len];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        for (k, v) in line.iter_mut().enumerate() {
            *v = data[(o * len + k) * inner + i];
        }
        for (k, v) in kind.line(&line, n).into_iter().enumerate() {
            let at = ((o * out + k) * inner + i) * width;
            y[at] = v.0;
            if width == 2 {
                y[at + 1] = v.1;
            }
        }
    }
    Ok(vec![from_floats(x.dtype(), &dims, y)?])
}

fn infer_dft(cx: &mut InferCx) -> Result<()> {
    let axis = match (cx.version < 20, cx.has(2)) {
        (true, _) => Some(cx.node.int("axis").unwrap_or(1)),
        (false, true) => cx.ints(2).and_then(|v| v.first().copied()),
        (false, false) => Some(-2),
    };
    let kind = Kind::of(cx.node);
    let shape = match (cx.shape(0), axis) {
        (Some(s), None) => Some(Shape::unknown(s.rank())),
        (Some(s), Some(axis)) => {
            let axis = signal_axis(axis, s.rank())?;
            let given = cx.ints(1).and_then(|v| usize::try_from(*v.first()?).ok());
            let n = if cx.has(1) {
                given
            } else {
                s[axis].known().map(|n| kind.default_length(n))
            };
            let mut out = s.clone();
            out.0[axis] = match n {
                Some(n) => Dim::Known(kind.output_length(n)),
                None if cx.has(1) || kind.half => Dim::Unknown,
                None => s[axis].clone(),
            };
            out.0[s.rank() - 1] = Dim::Known(if kind.is_real() { 1 } else { 2 });
            Some(out)
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval_stft(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the signal", x, 3..=3)?;
    let data = complex(x, "the signal")?;
    let (batch, len) = (x.dims()[0], x.dims()[1]);
    let step = axes::length(axes::scalar(cx.input(1)?)?, "the step")?;
    let frame = match (cx.optional(3), cx.optional(2)) {
        (Some(t), _) => axes::length(axes::scalar(t)?, "the frame")?,
        (None, Some(window)) => window.count(),
        (None, None) => len,
    };
    if step == 0 || frame == 0 || frame > len {
        return Err(Error::invalid(format!(
            "frames of {frame} every {step} do not fit a signal of {len}"
        )));
    }
    let window = match cx.optional(2) {
        Some(t) => {
            expect_dims("the window", t, &[frame])?;
            floats(t)?
        }
        None => vec![1.0; frame],
    };
    let half = cx.int("onesided", 1) != 0;
    if half && x.dims()[2] == 2 {
        return Err(
            Error::invalid("half a spectrum is enough for real signals only")
                .hint("set onesided to 0"),
        );
    }
    let frames = (len - frame) / step + 1;
    let bins = if half { frame / 2 + 1 } else { frame };
    let dims = [batch, frames, bins, 2];
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    for (b, f) in (0..batch).flat_map(|b| (0..frames).map(move |f| (b, f))) {
        let start = b * len + f * step;
        let weighted: Vec<Complex> = data[start..start + frame]
            .iter()
            .zip(&window)
            .map(|(v, w)| (v.0 * w, v.1 * w))
            .collect();
        let spectrum = transform(&weighted, false);
        y.extend(spectrum[..bins].iter().flat_map(|v| [v.0, v.1]));
    }
    Ok(vec![from_floats(x.dtype(), &dims, y)?])
}

fn infer_stft(cx: &mut InferCx) -> Result<()> {
    let known = |i: usize| {
        let v = cx.ints(i)?;
        usize::try_from(*v.first()?).ok().filter(|&n| n > 0)
    };
    let (batch, len) = match cx.shape(0) {
        Some(s) if s.rank() != 3 => {
            return Err(Error::invalid(format!(
                "the signal should have 3 axes, found {s}"
            )));
        }
        Some(s) => (s[0].clone(), s[1].known()),
        None => (Dim::Unknown, None),
    };
    let frame = match (cx.has(3), cx.has(2)) {
        (true, _) => known(3),
        (false, true) => cx.shape(2).and_then(Shape::count),
        (false, false) => len,
    };
    let frames = match (len, frame, known(1)) {
        (Some(len), Some(frame), Some(step)) => len.checked_sub(frame).map(|rest| rest / step + 1),
        _ => None,
    };
    let half = cx.node.int("onesided").unwrap_or(1) != 0;
    let bins = frame.map(|n| if half { n / 2 + 1 } else { n });
    let dim = |n: Option<usize>| n.map_or(Dim::Unknown, Dim::Known);
    let shape = [batch, dim(frames), dim(bins), Dim::Known(2)];
    cx.set_tensor(0, cx.dtype(0), Some(shape.into_iter().collect()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[Complex], b: &[Complex]) -> bool {
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9)
    }

    #[test]
    fn a_transform_equals_its_definition_at_every_length() {
        for n in 1..=30usize {
            let x: Vec<Complex> = (0..n)
                .map(|i| ((i * i % 7) as f64, (i % 3) as f64))
                .collect();
            let plain: Vec<Complex> = (0..n)
                .map(|k| {
                    let term = |(i, &v): (usize, &Complex)| {
                        let angle = -2.0 * PI * (i * k) as f64 / n as f64;
                        times(v, (angle.cos(), angle.sin()))
                    };
                    let add = |a: Complex, b: Complex| (a.0 + b.0, a.1 + b.1);
                    x.iter().enumerate().map(term).fold((0.0, 0.0), add)
                })
                .collect();
            assert!(close(&transform(&x, false), &plain), "length {n}");
        }
    }

    #[test]
    fn half_a_spectrum_is_a_real_signal() {
        // numpy.fft.irfft([6, -1.5+0.8660254j], n=3) is [1, 2, 3].
        let kind = Kind {
            inverse: true,
            half: true,
        };
        let y = kind.line(&[(6.0, 0.0), (-1.5, 0.75f64.sqrt())], 3);
        assert!(close(&y, &[(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]));
        // numpy.fft.irfft([10, -2+2j, -2+9j], n=4): the last imaginary part says nothing.
        let y = kind.line(&[(10.0, 0.0), (-2.0, 2.0), (-2.0, 9.0)], 4);
        assert!(close(&y, &[(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0)]));
    }
}
