//! Conv, and the arithmetic that every convolution shares.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::matmul::Number;
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::geometry::{Axis, Window, WindowSpec};
use crate::infer::InferCx;
use crate::{Dim, Error, Node, Result, Shape, Tensor, checked_count};

/// ONNX Conv, of any number of spatial axes.
pub static CONV: OpDef = OpDef {
    name: "Conv",
    since: &[1, 11, 22],
    inputs: Arity(2, 3),
    attrs: ATTRS,
    infer: |cx| infer(cx, 1, cx.dtype(0)),
    eval: Some(eval),
    examples: &[
        "Conv(f32[1,4,5,5], f32[6,4,3,3], f32[6]) {pads=[1,1,1,1]}",
        "Conv(f32[2,4,9,9], f32[4,1,3,3]) {group=4, strides=[2,2], auto_pad=\"SAME_UPPER\"}",
        "Conv(f32[1,2,9], f32[3,2,3]) {dilations=[2]}",
    ],
    ..OpDef::BASE
};

/// The attributes of every convolution.
pub const ATTRS: &[AttrDef] = &[
    attr("auto_pad", AttrKind::String(Some("NOTSET"))),
    attr("dilations", AttrKind::Ints),
    attr("group", AttrKind::Int(Some(1))),
    attr("kernel_shape", AttrKind::Ints),
    attr("pads", AttrKind::Ints),
    attr("strides", AttrKind::Ints),
];

/// The checked geometry of one convolution.
pub struct Convolution {
    /// The windows over the spatial axes.
    pub window: Window,
    /// Lengths of the result: batch, output channels, spatial.
    pub dims: Vec<usize>,
    group: usize,
    /// Channels of the input, and of one filter.
    channels: (usize, usize),
}

impl Convolution {
    /// The convolution of `x` (batch, channels, spatial) with `w` (filters, channels of a
    /// group, kernel).
    ///
    /// # Errors
    /// When shapes and attributes do not fit each other.
    pub fn of(node: &Node, x: &Tensor, w: &Tensor) -> Result<Self> {
        expect_rank("the input", x, 3..=usize::MAX)?;
        expect_rank("the weight", w, x.rank()..=x.rank())?;
        let (x, w) = (x.dims(), w.dims());
        let group = group(node)?;
        if w[1].checked_mul(group) != Some(x[1]) || !w[0].is_multiple_of(group) {
            return Err(Error::invalid(format!(
                "a weight {} with {group} groups does not fit an input {}",
                Shape::fixed(w),
                Shape::fixed(x)
            )));
        }
        let window = Window::of(node, &x[2..], &w[2..])?;
        let dims = [&[x[0], w[0]], &window.output()[..]].concat();
        checked_count(&dims)?;
        Ok(Self {
            window,
            dims,
            group,
            channels: (x[1], w[1]),
        })
    }

    /// The sums, without bias.
    pub fn convolve<T: Number>(&self, x: &[T], w: &[T]) -> Vec<T> {
        let mut y = vec![T::default(); self.dims.iter().product()];
        let (filters, (channels, depth)) = (self.dims[1], self.channels);
        let plane = self.window.axes.iter().map(|a| a.output).product::<usize>();
        let area = self.window.axes.iter().map(|a| a.input).product::<usize>();
        let taps = self.window.taps();
        let mut sources = Vec::new();
        for o in 0..plane {
            self.window.sources(o, &mut sources);
            for n in 0..self.dims[0] {
                for f in 0..filters {
                    let first = n * channels + f / (filters / self.group) * depth;
                    let mut sum = T::default();
                    for c in 0..depth {
                        let x = &x[(first + c) * area..][..area];
                        let w = &w[(f * depth + c) * taps..][..taps];
                        for &(tap, i) in &sources {
                            sum = sum + x[i] * w[tap];
                        }
                    }
                    y[(n * filters + f) * plane + o] = sum;
                }
            }
        }
        y
    }

    /// The gradients of input and weight for that of the result.
    pub fn gradients(&self, x: &[f64], w: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let (filters, (channels, depth)) = (self.dims[1], self.channels);
        let plane = self.window.axes.iter().map(|a| a.output).product::<usize>();
        let area = self.window.axes.iter().map(|a| a.input).product::<usize>();
        let taps = self.window.taps();
        let mut sources = Vec::new();
        for o in 0..plane {
            self.window.sources(o, &mut sources);
            for (line, n, f) in (0..self.dims[0] * filters).map(|i| (i, i / filters, i % filters)) {
                let first = n * channels + f / (filters / self.group) * depth;
                let dy = dy[line * plane + o];
                for c in 0..depth {
                    for &(tap, i) in &sources {
                        let (i, tap) = ((first + c) * area + i, (f * depth + c) * taps + tap);
                        dx[i] += dy * w[tap];
                        dw[tap] += dy * x[i];
                    }
                }
            }
        }
        (dx, dw)
    }
}

/// The node's number of groups.
///
/// # Errors
/// When it is not positive.
pub fn group(node: &Node) -> Result<usize> {
    let group = node.int("group").unwrap_or(1);
    usize::try_from(group)
        .ok()
        .filter(|&g| g > 0)
        .ok_or_else(|| Error::invalid(format!("group is {group}")))
}

/// The bias of `channels` elements; zeros where the node leaves it out.
///
/// # Errors
/// When it is of another shape.
pub fn bias(b: Option<&Tensor>, channels: usize) -> Result<Vec<f64>> {
    match b {
        None => Ok(vec![0.0; channels]),
        Some(b) => {
            expect_dims("the bias", b, &[channels])?;
            floats(b)
        }
    }
}

/// Adds a number for each channel to data of (batch, channels, `plane` elements).
pub fn add_bias<T: Number>(y: &mut [T], bias: &[T], plane: usize) {
    if plane == 0 || bias.is_empty() {
        return;
    }
    for (i, y) in y.chunks_mut(plane).enumerate() {
        let b = bias[i % bias.len()];
        y.iter_mut().for_each(|v| *v = *v + b);
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let conv = Convolution::of(cx.node, x, w)?;
    let mut y = conv.convolve(&floats(x)?, &floats(w)?);
    let bias = bias(cx.optional(2), conv.dims[1])?;
    add_bias(&mut y, &bias, conv.dims[2..].iter().product());
    Ok(vec![from_floats(x.dtype(), &conv.dims, y)?])
}

/// The rule of convolutions: the weight is input `w`, the result of element type `dtype`.
///
/// # Errors
/// When known lengths and attributes do not fit.
pub fn infer(cx: &mut InferCx, w: usize, dtype: Option<crate::DType>) -> Result<()> {
    let shape = match (cx.shape(0), cx.shape(w)) {
        (Some(x), Some(w)) => Some(convolved(cx.node, x, w)?),
        (x, w) => x.or(w).map(|s| Shape::unknown(s.rank())),
    };
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

/// The shape of the convolution of `x` with the weight `w`.
///
/// # Errors
/// When known lengths and attributes do not fit.
pub fn convolved(node: &Node, x: &Shape, w: &Shape) -> Result<Shape> {
    if x.rank() != w.rank() || x.rank() < 3 {
        return Err(Error::invalid(format!(
            "weight has {} axes, input has {}",
            w.rank(),
            x.rank()
        ))
        .hint(
            "the input is [batch, channels, spatial…], the weight [filters, channels, kernel…]",
        ));
    }
    let group = group(node)?;
    if let (Dim::Known(c), Dim::Known(depth)) = (&x[1], &w[1])
        && depth.checked_mul(group) != Some(*c)
    {
        return Err(Error::invalid(format!(
            "the input has {c} channels, the weight {depth} for each of {group} groups"
        )));
    }
    let mut out = Shape([x[0].clone(), w[0].clone()].into_iter().collect());
    let spec = WindowSpec::of(node, x.rank() - 2)?;
    for i in 0..x.rank() - 2 {
        out.0.push(window_dim(&spec, i, &x[i + 2], &w[i + 2])?);
    }
    Ok(out)
}

/// The length of the output along spatial axis `i`: a number where input and kernel are known,
/// the input's symbol where the windows keep every length.
///
/// # Errors
/// When the kernel does not fit.
pub fn window_dim(spec: &WindowSpec, i: usize, input: &Dim, kernel: &Dim) -> Result<Dim> {
    let Dim::Known(kernel) = *kernel else {
        return Ok(Dim::Unknown);
    };
    if let Dim::Known(n) = *input {
        return Ok(Dim::Known(spec.axis(i, n, kernel)?.output));
    }
    let keeps = |n: usize| spec.axis(i, n, kernel).is_ok_and(|a: Axis| a.output == n);
    let long = 1 << 20;
    Ok(if keeps(long) && keeps(long + 1) {
        input.clone()
    } else {
        Dim::Unknown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(group: i64, x: &[usize], w: &[usize]) -> Result<Convolution> {
        let mut node = Node::new("Conv", "c");
        node.attributes
            .push(("group".into(), crate::Attribute::Int(group)));
        let zeros = |d: &[usize]| Tensor::from_vec(d, vec![0f32; d.iter().product()]).unwrap();
        Convolution::of(&node, &zeros(x), &zeros(w))
    }

    #[test]
    fn groups_see_only_their_own_channels() {
        let c = conv(2, &[1, 2, 3], &[2, 1, 2]).unwrap();
        let y = c.convolve(&[1i64, 2, 3, 10, 20, 30], &[1, 1, 1, -1]);
        assert_eq!(y, [3, 5, -10, -10]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(conv(1, &[1, 3, 4, 4], &[2, 2, 1, 1]).is_err());
        assert!(conv(0, &[1, 3, 4, 4], &[2, 3, 1, 1]).is_err());
        assert!(conv(1, &[1, 3, 4, 4], &[2, 3, 1]).is_err());
        assert!(conv(1, &[1, 3], &[2, 3]).is_err());
    }
}
