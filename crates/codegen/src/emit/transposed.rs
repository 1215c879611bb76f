//! ConvTranspose, as a convolution of an image with zeros between its pixels.

use edgesmith_ir::geometry::lengths;
use edgesmith_ir::{Error, NodeId, Result};

use super::conv::convolved;
use super::moves::{Copies, Fill, Moves, steps};
use crate::kernels::Geometry;
use crate::lower::{Held, Lowering, Weights, last};
use crate::program::Element;

/// ConvTranspose of a single image.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let (Some(w), Some(y)) = (node.input(1), node.output(0)) else {
        return Err(Error::invalid("it has no weights or no output"));
    };
    let x = l.read(id, 0)?;
    let (w_dims, y_dims) = (l.typed(w)?.1, l.typed(y)?.1);
    let spatial = x.dims.len().saturating_sub(2);
    if !(1..=2).contains(&spatial) || x.dims[0] != 1 {
        return Err(Error::unsupported(
            "it has an emitter for a single image of one or two axes",
        ));
    }
    let two = |v: &[usize], one: usize| match *v {
        [w] => [one, w],
        [h, w] => [h, w],
        _ => [one, one],
    };
    let stride = two(&lengths(node, "strides", spatial, 1)?, 1);
    let dilation = two(&lengths(node, "dilations", spatial, 1)?, 1);
    let kernel = two(&w_dims[2..], 1);
    let (input, output) = (two(&x.dims[2..], 1), two(&y_dims[2..], 1));
    let begin = begin(l, id, spatial, [input, output, kernel, stride, dilation])?;
    let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
    if groups == 0 || x.dims[1] != w_dims[0] || !x.dims[1].is_multiple_of(groups) {
        return Err(Error::invalid("channels and groups do not fit the weights"));
    }
    let tail = l.tail(y);
    let x = l.channels_last(&x);
    let (x, stuffed) = stuffed(l, &x, input, stride)?;
    let geometry = Geometry {
        in_h: stuffed[0],
        in_w: stuffed[1],
        in_c: x.dims[1],
        out_h: output[0],
        out_w: output[1],
        out_c: y_dims[1],
        kernel,
        stride: [1, 1],
        pad: begin,
        dilation,
        groups,
    };
    let ints = match groups {
        1 => l.weights(w, 1),
        _ => None,
    };
    let ints = ints.map(|w| Weights {
        data: flipped(&w.data, &geometry),
        ..w
    });
    let floats = l.floats(w).map(|w| flipped(&w, &geometry));
    let made = convolved(l, id, &x, &geometry, &tail, ints, floats)?;
    l.finish(&tail, made);
    Ok(())
}

/// The padding before the stuffed image that gives the node's output.
fn begin(l: &Lowering, id: NodeId, spatial: usize, sizes: [[usize; 2]; 5]) -> Result<[usize; 2]> {
    let node = l.graph.node(id);
    let [input, output, kernel, stride, dilation] = sizes;
    let pads = node.ints("pads");
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    let extra = lengths(node, "output_padding", spatial, 0)?;
    let mut begin = [0; 2];
    for axis in 2 - spatial..2 {
        let i = axis + spatial - 2;
        let reach = dilation[axis] * (kernel[axis] - 1);
        let whole = (input[axis] - 1) * stride[axis] + reach + 1 + extra[i];
        let cut = whole.saturating_sub(output[axis]);
        let given = pads.and_then(|p| p.get(i)).copied().unwrap_or(0);
        let before = match auto {
            "SAME_UPPER" => cut / 2,
            "SAME_LOWER" => cut - cut / 2,
            _ if node.ints("output_shape").is_some() => cut / 2,
            _ => usize::try_from(given).unwrap_or(0),
        };
        begin[axis] = reach.checked_sub(before).ok_or_else(|| {
            Error::unsupported("more padding than its kernel reaches has no emitter")
        })?;
    }
    Ok(begin)
}

/// The image with zeros between its pixels, where the stride asks for them.
fn stuffed(
    l: &mut Lowering,
    x: &Held,
    input: [usize; 2],
    stride: [usize; 2],
) -> Result<(Held, [usize; 2])> {
    if stride == [1, 1] {
        return Ok((x.clone(), input));
    }
    let long = [0, 1].map(|i| (input[i] - 1) * stride[i] + 1);
    let channels = x.dims[1];
    let (element, grid, name) = {
        let b = l.of(x);
        (b.element, b.grid, b.name.clone())
    };
    let fill = match (element, grid) {
        (Element::F32, _) => Fill::F32(0.0),
        (_, Some(grid)) => Fill::I8(grid.zero as i8),
        _ => return Err(Error::unsupported("integers without a scale")),
    };
    let mut dims = vec![1, channels];
    dims.extend(&long[4 - x.dims.len()..]);
    let mut made = l.buffer(&format!("{name} (spread)"), element, &dims, grid);
    made.order = last(dims.len());
    let far = steps(&[long[0], long[1], channels]);
    let copies = Copies {
        dims: vec![input[0], input[1], channels],
        from: steps(&[input[0], input[1], channels]),
        to: vec![far[0] * stride[0] as isize, far[1] * stride[1] as isize, 1],
        first: 0,
        at: 0,
    };
    let layer = Moves::new(element, vec![copies], Some(fill))?;
    l.add(name, "ConvTranspose".into(), &[x], &made, Box::new(layer));
    Ok((made, long))
}

/// From input, output of its group, row, column to output, input of its group, and back to front.
fn flipped<T: Copy>(weights: &[T], g: &Geometry) -> Vec<T> {
    let taps = g.kernel[0] * g.kernel[1];
    let (depth, in_group) = (g.in_c / g.groups, g.out_c / g.groups);
    let mut made = Vec::with_capacity(weights.len());
    for c in 0..g.out_c {
        let (group, column) = (c / in_group, c % in_group);
        for d in 0..depth {
            let from = ((group * depth + d) * in_group + column) * taps;
            made.extend(weights[from..from + taps].iter().rev());
        }
    }
    made
}
