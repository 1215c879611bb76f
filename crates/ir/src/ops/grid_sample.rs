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

/// A node's image, and the places where it is read.
pub struct Sampling {
    /// Images of the batch.
    pub batch: usize,
    /// Planes of an image.
    pub channels: usize,
    /// Lengths of a plane.
    pub space: Vec<usize>,
    /// Lengths of the output.
    pub dims: Vec<usize>,
    /// Places of one image.
    pub points: usize,
    places: Vec<f64>,
}

impl Sampling {
    /// The image in input 0 and the grid in input 1.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn of(cx: &EvalCx) -> Result<Self> {
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
        let dims = [&[batch, channels], out].concat();
        checked_count(&dims)?;
        Ok(Self {
            batch,
            channels,
            space: space.to_vec(),
            points: checked_count(out)?,
            dims,
            places: Numbers::of(grid)?.into_floats(),
        })
    }

    /// What each axis shows at place `row` of all images.
    ///
    /// # Errors
    /// When the mode is unknown.
    pub fn shown(&self, node: &Node, row: usize) -> Result<Vec<Shown>> {
        let width = self.space.len();
        let place = &self.places[row * width..][..width];
        // The last number of a place belongs to the first axis.
        let axes = place.iter().rev().zip(&self.space);
        axes.map(|(&g, &len)| Shown::of(node, g, len)).collect()
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let sampling = Sampling::of(cx)?;
    let x = cx.input(0)?;
    let values = Numbers::of(x)?.into_floats();
    let (points, channels) = (sampling.points, sampling.channels);
    let volume: usize = sampling.space.iter().product();
    let strides = layout::strides(&sampling.space);
    let mut result = vec![0.0; checked_count(&sampling.dims)?];
    for row in 0..sampling.batch * points {
        let (b, point) = (row / points, row % points);
        let shown = sampling.shown(cx.node, row)?;
        let taps: Vec<Taps> = shown.into_iter().map(|s| s.taps).collect();
        for (at, weight) in spread(&taps, &strides) {
            for c in 0..channels {
                let image = b * channels + c;
                result[image * points + point] += weight * values[image * volume + at];
            }
        }
    }
    Ok(vec![
        Numbers::Float(result).tensor(x.dtype(), &sampling.dims)?,
    ])
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

/// What one axis shows at a place.
pub struct Shown {
    /// The elements and their weights.
    pub taps: Taps,
    /// The same elements, with the derivatives of their weights by the place.
    pub slopes: Taps,
}

impl Shown {
    /// What an axis of `len` shows at `g`, from −1 at its start to 1 at its end.
    fn of(node: &Node, g: f64, len: usize) -> Result<Self> {
        let (mut taps, mut slopes) = (Taps::new(), Taps::new());
        if len == 0 {
            return Ok(Self { taps, slopes });
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
        let mut slope = (high - low) / 2.0;
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
        // The place inside that is shown for one outside, and how the two move together.
        let inside = |x: f64| match padding {
            "border" => (x.clamp(0.0, last), 0.0),
            "reflection" => reflected(x, low, high),
            _ => (x, 1.0),
        };
        // The cubic weights are those of the place outside: only the elements are taken from the edge.
        let keeps = padding == "border" && matches!(kernel, Some(Kernel::Cubic(_)));
        if !keeps && !(low..=high).contains(&x) {
            let (place, along) = inside(x);
            (x, slope) = (place, slope * along);
        }
        match kernel {
            None => taps.push((x.round_ties_even() as i64, 1.0)),
            Some(kernel) => {
                taps = kernel.taps(x, 1.0);
                let by_place = |&(i, _): &(i64, f64)| (i, -kernel.slope(i as f64 - x) * slope);
                slopes = taps.iter().map(by_place).collect();
            }
        }
        for taps in [&mut taps, &mut slopes] {
            for t in taps.iter_mut() {
                t.0 = inside(t.0 as f64).0 as i64;
            }
            taps.retain(|t| (0..len as i64).contains(&t.0));
        }
        Ok(Self { taps, slopes })
    }
}

/// `x` thrown back at the ends, and whether it moves with `x` or against it.
fn reflected(x: f64, low: f64, high: f64) -> (f64, f64) {
    let range = high - low;
    if range <= 0.0 {
        return (low, 0.0);
    }
    let t = (x - low).rem_euclid(2.0 * range);
    match t <= range {
        true => (low + t, 1.0),
        false => (low + 2.0 * range - t, -1.0),
    }
}
