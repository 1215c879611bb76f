//! GridSample: an image or volume read at the places of a grid.

use super::numbers::Numbers;
use super::taps::{Kernel, Taps};
use super::{Arity, AttrKind, OpDef, attr, layout};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX GridSample.
pub static GRID_SAMPLE: OpDef = OpDef {
    name: "GridSample",
    since: &[16, 20, 22],
    inputs: Arity(2, 2),
    attrs: &[
        attr("align_corners", AttrKind::Int(Some(0))),
        attr("mode", AttrKind::String(Some("linear"))),
        attr("padding_mode", AttrKind::String(Some("zeros"))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "GridSample(f32[1,2,4,4], f32[1,3,2,2])",
        "GridSample(f32[1,1,4,3], f32[1,3,2,2]) {mode=\"cubic\",padding_mode=\"reflection\"}",
        "GridSample(f32[1,1,2,3,4], f32[1,1,2,2,3]) \
         {mode=\"nearest\",padding_mode=\"border\",align_corners=1}",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape: Option<Shape> = match (cx.shape(0), cx.shape(1)) {
        (Some(x), Some(grid)) => {
            if x.rank() != grid.rank() || x.rank() < 3 {
                return Err(Error::invalid(format!("a grid of {grid} does not fit {x}")));
            }
            let dims: Vec<Dim> = [&x[..2], &grid[1..grid.rank() - 1]].concat();
            Some(dims.into_iter().collect())
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let refuse = || Error::invalid(format!("a grid of {} does not fit {}", grid.ty(), x.ty()));
    let [batch, channels, ref space @ ..] = *x.dims() else {
        return Err(refuse());
    };
    let [grids, ref out @ .., width] = *grid.dims() else {
        return Err(refuse());
    };
    if space.is_empty() || width != space.len() || out.len() != width || grids != batch {
        return Err(refuse());
    }
    let values = Numbers::of(x)?.into_floats();
    let places = Numbers::of(grid)?.into_floats();
    let dims = [&[batch, channels], out].concat();
    let points: usize = checked_count(out)?;
    let volume: usize = space.iter().product();
    let strides = layout::strides(space);
    let mut result = vec![0.0; checked_count(&dims)?];
    let rows = places.chunks(width).enumerate().take(batch * points);
    for (row, place) in rows {
        let (b, point) = (row / points, row % points);
        // The last number of a place belongs to the first axis.
        let taps = place.iter().rev().zip(space);
        let taps = taps
            .map(|(&g, &len)| taps_of(cx.node, g, len))
            .collect::<Result<Vec<_>>>()?;
        for (at, weight) in spread(&taps, &strides) {
            for c in 0..channels {
                let image = b * channels + c;
                result[image * points + point] += weight * values[image * volume + at];
            }
        }
    }
    Ok(vec![Numbers::Float(result).tensor(x.dtype(), &dims)?])
}

/// The places and weights that the taps of all axes give together.
pub fn spread(taps: &[Taps], strides: &[isize]) -> Vec<(usize, f64)> {
    let mut all = vec![(0usize, 1.0)];
    for (taps, &stride) in taps.iter().zip(strides) {
        let step = |&(at, weight): &(usize, f64)| {
            let each = move |&(i, w): &(i64, f64)| (at + i as usize * stride as usize, weight * w);
            taps.iter().map(each).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(step).collect();
    }
    all
}

/// What one axis of `len` shows at `g`, from −1 at its start to 1 at its end.
fn taps_of(node: &Node, g: f64, len: usize) -> Result<Taps> {
    if len == 0 {
        return Ok(Taps::new());
    }
    let last = len as f64 - 1.0;
    let aligned = node.int("align_corners").unwrap_or(0) != 0;
    let (low, high) = if aligned {
        (0.0, last)
    } else {
        (-0.5, last + 0.5)
    };
    let g = if g.is_finite() {
        g.clamp(-1e6, 1e6)
    } else {
        -2.0
    };
    let mut x = low + (g + 1.0) / 2.0 * (high - low);
    let kernel = match node.string("mode").unwrap_or("linear") {
        "nearest" => None,
        "linear" | "bilinear" => Some(Kernel::Linear),
        "cubic" | "bicubic" => Some(Kernel::Cubic(-0.75)),
        mode => {
            return Err(Error::unsupported(format!(
                "the mode \"{mode}\" is unknown"
            )));
        }
    };
    if kernel.is_none() {
        x = x.round_ties_even();
    }
    let padding = node.string("padding_mode").unwrap_or("zeros");
    let inside = |x: f64| match padding {
        "border" => x.clamp(0.0, last),
        "reflection" => reflected(x, low, high),
        _ => x,
    };
    // The cubic weights are those of the place outside: only the elements are taken from the edge.
    let keeps = padding == "border" && matches!(kernel, Some(Kernel::Cubic(_)));
    if !keeps && !(low..=high).contains(&x) {
        x = inside(x);
    }
    let mut taps = match kernel {
        None => vec![(x.round_ties_even() as i64, 1.0)],
        Some(kernel) => kernel.taps(x, 1.0),
    };
    for t in &mut taps {
        t.0 = inside(t.0 as f64) as i64;
    }
    taps.retain(|t| (0..len as i64).contains(&t.0));
    Ok(taps)
}

fn reflected(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let t = (x - low).rem_euclid(2.0 * range);
    low + t.min(2.0 * range - t)
}
