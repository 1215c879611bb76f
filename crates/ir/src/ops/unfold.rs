//! MaxUnpool and Col2Im: elements put back to where windows took them from.

use super::arith::{expect_dims, expect_rank};
use super::layout::{self, Run};
use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::geometry::{Window, lengths};
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX MaxUnpool: the elements of a MaxPool at their places, zeros elsewhere. The places count
/// in the shape that the attributes give; a larger `output_shape` adds zeros behind it.
pub static MAX_UNPOOL: OpDef = OpDef {
    name: "MaxUnpool",
    since: &[9, 11, 22],
    inputs: Arity(2, 3),
    attrs: &[
        attr("kernel_shape", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: infer_unpool,
    eval: Some(eval_unpool),
    examples: &[
        "MaxUnpool(f32[1,1,2,2], i64[1,1,2,2]{5,7,13,15}) {kernel_shape=[2,2],strides=[2,2]}",
        "MaxUnpool(f32[1,1,2], i64[1,1,2]{0,3}, i64[3]{1,1,5}) {kernel_shape=[2],strides=[2]}",
    ],
    ..OpDef::BASE
};

/// ONNX Col2Im: the sum of overlapping blocks; the inverse of taking an image apart.
pub static COL2IM: OpDef = OpDef {
    name: "Col2Im",
    since: &[18],
    inputs: Arity(3, 3),
    attrs: &[
        attr("dilations", AttrKind::Ints),
        attr("pads", AttrKind::Ints),
        attr("strides", AttrKind::Ints),
    ],
    infer: infer_col2im,
    eval: Some(eval_col2im),
    examples: &[
        "Col2Im(f32[1,8,4], i64[2]{3,3}, i64[2]{2,2})",
        "Col2Im(i32[2,3,4], i64[1]{5}, i64[1]{3}) {pads=[1,0],strides=[1]}",
    ],
    ..OpDef::BASE
};

/// The spatial length that a window of `kernel` makes of `n` elements, undone.
fn unpooled(n: usize, kernel: usize, stride: usize, pads: usize) -> Result<usize> {
    let whole = n.checked_sub(1).and_then(|n| {
        n.checked_mul(stride)?
            .checked_add(kernel)?
            .checked_sub(pads)
    });
    whole.ok_or_else(|| {
        Error::invalid(format!(
            "{n} windows of {kernel} every {stride} leave nothing without pads of {pads}"
        ))
    })
}

fn unpooled_lengths(node: &Node, spatial: &[Dim]) -> Result<Vec<Dim>> {
    let n = spatial.len();
    let kernel = super::pool::kernel_shape(node, n)?;
    let (strides, pads) = (
        lengths(node, "strides", n, 1)?,
        lengths(node, "pads", 2 * n, 0)?,
    );
    let length = |(i, d): (usize, &Dim)| match d {
        Dim::Known(d) => {
            let pads = pads[i] + pads[n + i];
            Ok(Dim::Known(unpooled(*d, kernel[i], strides[i], pads)?))
        }
        _ => Ok(Dim::Unknown),
    };
    spatial.iter().enumerate().map(length).collect()
}

fn infer_unpool(cx: &mut InferCx) -> Result<()> {
    let shape = match cx.shape(0) {
        Some(x) if x.rank() < 3 => {
            return Err(Error::invalid(format!("expected spatial axes, found {x}")));
        }
        Some(x) if cx.has(2) => {
            let given = cx.contents(2).map(|c| c.iter().cloned().collect());
            Some(given.unwrap_or(Shape::unknown(x.rank())))
        }
        Some(x) => {
            let spatial = unpooled_lengths(cx.node, &x[2..])?;
            Some(x[..2].iter().cloned().chain(spatial).collect())
        }
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval_unpool(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, places) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 3..=usize::MAX)?;
    expect_dims("the places", places, x.dims())?;
    let spatial = Shape::fixed(&x.dims()[2..]);
    let mut inner = x.dims()[..2].to_vec();
    inner.extend(
        unpooled_lengths(cx.node, &spatial)?
            .iter()
            .filter_map(Dim::known),
    );
    let count = checked_count(&inner)?;
    let mut from = vec![None; count];
    for (i, place) in places.to_i64()?.into_iter().enumerate() {
        let slot = usize::try_from(place).ok().and_then(|p| from.get_mut(p));
        *slot.ok_or_else(|| {
            let shape = Shape::fixed(&inner);
            Error::invalid(format!("the place {place} is outside {shape}"))
        })? = Some(i);
    }
    let dims = match cx.optional(2) {
        Some(t) => {
            let given = t.to_i64()?.into_iter();
            given
                .map(|n| axes::length(n, "a length"))
                .collect::<Result<Vec<_>>>()?
        }
        None => inner.clone(),
    };
    if dims.len() != inner.len() || dims.iter().zip(&inner).any(|(d, i)| d < i) {
        return Err(Error::invalid(format!(
            "{} does not hold {}",
            Shape::fixed(&dims),
            Shape::fixed(&inner)
        )));
    }
    let strides = layout::strides(&inner);
    let mut walk = layout::walk(&dims, &strides, 0)?;
    let zero = layout::zeros(x.dtype(), &[])?;
    let runs = std::iter::from_fn(|| {
        let inside = walk.index().iter().zip(&inner).all(|(i, d)| i < d);
        let place = walk.next()?;
        let source = from.get(place).copied().flatten().filter(|_| inside);
        Some(Run {
            source: usize::from(source.is_none()),
            start: source.unwrap_or(0),
            len: 1,
        })
    });
    Ok(vec![layout::assemble(&[x, &zero], &dims, runs)?])
}

fn infer_col2im(cx: &mut InferCx) -> Result<()> {
    let front = |axis: usize| match cx.shape(0) {
        Some(s) if s.rank() != 3 => Err(Error::invalid(format!("expected 3 axes, found {s}"))),
        s => Ok(s.map_or(Dim::Unknown, |s| s[axis].clone())),
    };
    let (batch, width) = (front(0)?, front(1)?);
    let block: Option<usize> = cx.ints(2).and_then(|v| {
        let lengths = v.into_iter().map(|n| usize::try_from(n).ok());
        lengths
            .into_iter()
            .try_fold(1usize, |all, n| all.checked_mul(n?))
    });
    let channels = match (width, block.filter(|&b| b > 0)) {
        (Dim::Known(w), Some(b)) => Dim::Known(w / b),
        _ => Dim::Unknown,
    };
    let image = match cx.contents(1) {
        Some(c) => Some(c.to_vec()),
        None => cx.shape_of_rank(1).map(|s| s.to_vec()),
    };
    let shape = image.map(|i| [batch, channels].into_iter().chain(i).collect());
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// A move of an element: from its place in the input to its place in the output.
type Move = (usize, usize);

/// The lengths of the image that a Col2Im node makes, and where each element of its input is added.
///
/// # Errors
/// When the inputs do not fit each other.
pub fn col2im_moves(cx: &EvalCx) -> Result<(Vec<usize>, Vec<Move>)> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 3..=3)?;
    let &[batch, width, blocks] = x.dims() else {
        return Err(Error::internal("the input has 3 axes"));
    };
    let lengths = |i: usize| {
        let given = cx.input(i)?.to_i64()?.into_iter();
        given
            .map(|n| axes::length(n, "a length"))
            .collect::<Result<Vec<_>>>()
    };
    let (image, block) = (lengths(1)?, lengths(2)?);
    let taps = checked_count(&block)?;
    checked_count(&image)?;
    let window = Window::of(cx.node, &image, &block)?;
    let channels = width.checked_div(taps).unwrap_or(0);
    if channels * taps != width || checked_count(&window.output())? != blocks {
        return Err(Error::invalid(format!(
            "{} is not taken from an image of {} in blocks of {}",
            x.ty(),
            Shape::fixed(&image),
            Shape::fixed(&block)
        )));
    }
    let dims = [&[batch, channels], &image[..]].concat();
    checked_count(&dims)?;
    let area: usize = image.iter().product();
    let mut sources = Vec::new();
    let mut pairs = Vec::new();
    for o in 0..blocks {
        window.sources(o, &mut sources);
        pairs.extend(
            sources
                .iter()
                .map(|&(tap, place)| (tap * blocks + o, place)),
        );
    }
    let moves = (0..batch * channels).flat_map(|plane| {
        let (from, to) = (plane * taps * blocks, plane * area);
        pairs.iter().map(move |&(a, b)| (from + a, to + b))
    });
    let moves = moves.collect();
    Ok((dims, moves))
}

fn eval_col2im(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (dims, moves) = col2im_moves(cx)?;
    let (x, count) = (cx.input(0)?, checked_count(&dims)?);
    let sums = match Numbers::of(x)? {
        Numbers::Float(v) => Numbers::Float(gathered(&v, count, &moves)),
        Numbers::Int(v) => Numbers::Int(gathered(&v, count, &moves)),
    };
    Ok(vec![sums.tensor(x.dtype(), &dims)?])
}

fn gathered<T: Copy + Default + std::ops::AddAssign>(
    x: &[T],
    count: usize,
    moves: &[Move],
) -> Vec<T> {
    let mut y = vec![T::default(); count];
    for &(from, to) in moves {
        y[to] += x[from];
    }
    y
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    fn run(text: &str) -> Vec<f32> {
        let model = parse(&format!("opset 22 graph g() -> (y) {{ {text} }}")).unwrap();
        let y = eval::evaluate(&model, &[]).unwrap();
        y[0].data::<f32>().unwrap().to_vec()
    }

    #[test]
    fn maxima_go_back_to_their_places() {
        let text = "x: f32[1,1,2,2] = {1,2,3,4} i: i64[1,1,2,2] = {5,7,13,15}";
        let y = run(&format!(
            "{text} y = MaxUnpool(x, i) {{kernel_shape=[2,2],strides=[2,2]}}"
        ));
        let mut expected = [0.0; 16];
        (expected[5], expected[7], expected[13], expected[15]) = (1.0, 2.0, 3.0, 4.0);
        assert_eq!(y, expected);
        let y = run(&format!(
            "{text} s: i64[4] = {{1,1,5,5}}
            y = MaxUnpool(x, i, s) {{kernel_shape=[2,2],strides=[2,2]}}"
        ));
        assert_eq!((y[6], y[8], y[16], y[18]), (1.0, 2.0, 3.0, 4.0));
    }

    #[test]
    fn overlapping_blocks_are_summed() {
        // torch.nn.functional.fold(torch.ones(1, 4, 4), (3, 3), (2, 2)).
        let y = run("x: f32[1,4,4] = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}
            i: i64[2] = {3,3} b: i64[2] = {2,2} y = Col2Im(x, i, b)");
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]);
    }
}
