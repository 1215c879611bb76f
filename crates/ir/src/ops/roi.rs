//! RoiAlign and MaxRoiPool: regions of an image brought to one size.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX RoiAlign (K. He et al., "Mask R-CNN", 2017).
///
/// As in ONNX Runtime, `max` takes the largest of the four weighted neighbours of a sample, not
/// of the sample itself.
pub static ROI_ALIGN: OpDef = OpDef {
    name: "RoiAlign",
    since: &[10, 16, 22],
    inputs: Arity(3, 3),
    attrs: &[
        attr(
            "coordinate_transformation_mode",
            AttrKind::String(Some("half_pixel")),
        ),
        attr("mode", AttrKind::String(Some("avg"))),
        attr("output_height", AttrKind::Int(Some(1))),
        attr("output_width", AttrKind::Int(Some(1))),
        attr("sampling_ratio", AttrKind::Int(Some(0))),
        attr("spatial_scale", AttrKind::Float(Some(1.0))),
    ],
    infer: |cx| {
        let [h, w] = output(cx.node)?;
        infer(cx, h, w)
    },
    eval: Some(eval_align),
    examples: &[
        "RoiAlign(f32[2,3,6,6], f32[2,4]{0,0,5,5,1,2,4,3.5}, i64[2]{1,0}) \
         {output_height=2,output_width=3}",
        "RoiAlign@10(f32[1,1,4,4], f32[1,4]{0,0,2,2}, i64[1]{0}) {mode=\"max\",sampling_ratio=2}",
    ],
    ..OpDef::BASE
};

/// ONNX MaxRoiPool (R. Girshick, "Fast R-CNN", 2015).
pub static MAX_ROI_POOL: OpDef = OpDef {
    name: "MaxRoiPool",
    since: &[1, 22],
    inputs: Arity(2, 2),
    attrs: &[
        attr("pooled_shape", AttrKind::Ints),
        attr("spatial_scale", AttrKind::Float(Some(1.0))),
    ],
    infer: |cx| {
        let [h, w] = pooled_shape(cx.node)?;
        infer(cx, h, w)
    },
    eval: Some(eval_pool),
    examples: &["MaxRoiPool(f32[1,2,4,6], f32[2,5]{0,1,1,6,6,0,0,0,3,3}) \
         {pooled_shape=[2,2],spatial_scale=0.5}"],
    ..OpDef::BASE
};

/// A bin is sampled at most so often along an axis.
const MAX_SAMPLES: f64 = 4096.0;

fn output(node: &Node) -> Result<[usize; 2]> {
    let length = |name| axes::length(node.int(name).unwrap_or(1), name);
    Ok([length("output_height")?, length("output_width")?])
}

fn pooled_shape(node: &Node) -> Result<[usize; 2]> {
    match node.ints("pooled_shape") {
        Some(&[h, w]) => Ok([axes::length(h, "a height")?, axes::length(w, "a width")?]),
        _ => Err(Error::invalid(
            "pooled_shape should be a height and a width",
        )),
    }
}

fn infer(cx: &mut InferCx, height: usize, width: usize) -> Result<()> {
    let dim = |i: usize, axis: usize| {
        let d = cx.shape(i).and_then(|s| s.get(axis).cloned());
        d.unwrap_or(Dim::Unknown)
    };
    let shape = [dim(1, 0), dim(0, 1), Dim::Known(height), Dim::Known(width)];
    cx.set_tensor(0, cx.dtype(0), Some(Shape::from_iter(shape)));
    Ok(())
}

/// An image batch with its regions.
struct Regions {
    dims: [usize; 4],
    data: Vec<f64>,
    /// The place in the batch and the corners x1, y1, x2, y2 in elements of the image.
    regions: Vec<(usize, [f64; 4])>,
}

impl Regions {
    fn new(x: &Tensor, scale: f64, regions: &[(f64, &[f64])]) -> Result<Self> {
        expect_rank("the image", x, 4..=4)?;
        let &[batch, channels, height, width] = x.dims() else {
            return Err(Error::internal("the image has 4 axes"));
        };
        if height == 0 || width == 0 {
            return Err(Error::invalid(format!("{} is empty", x.ty())));
        }
        let region = |&(image, corners): &(f64, &[f64])| {
            let image = (image >= 0.0 && image < batch as f64).then_some(image as usize)?;
            let corners = <[f64; 4]>::try_from(corners).ok()?;
            Some((image, corners.map(|c| c * scale)))
        };
        let regions: Option<Vec<_>> = regions.iter().map(region).collect();
        Ok(Self {
            dims: [batch, channels, height, width],
            data: floats(x)?,
            regions: regions
                .ok_or_else(|| Error::invalid(format!("a region is of none of {batch} images")))?,
        })
    }

    /// One number for each region, channel and bin: `bin` sees the corners, row and column of
    /// the bin and gives a function of the plane.
    fn pooled<F: Fn(&[f64]) -> f64>(
        &self,
        x: &Tensor,
        [height, width]: [usize; 2],
        bin: impl Fn([f64; 4], usize, usize) -> Result<F>,
    ) -> Result<Vec<Tensor>> {
        let [_, channels, h, w] = self.dims;
        let dims = [self.regions.len(), channels, height, width];
        let mut y = vec![0.0; checked_count(&dims)?];
        let cells = checked_count(&[height, width])?;
        for (r, &(image, corners)) in self.regions.iter().enumerate() {
            for cell in 0..cells {
                let f = bin(corners, cell / width, cell % width)?;
                for c in 0..channels {
                    let plane = &self.data[(image * channels + c) * h * w..][..h * w];
                    y[(r * channels + c) * cells + cell] = f(plane);
                }
            }
        }
        Ok(vec![from_floats(x.dtype(), &dims, y)?])
    }
}

/// Where the samples of one bin lie along an axis: each has two elements with their weights, or
/// none outside the image.
type Samples = Vec<[(usize, f64); 2]>;

fn samples(start: f64, size: f64, count: usize, len: usize) -> Samples {
    let sample = |i: usize| {
        let at = start + (i as f64 + 0.5) * size / count as f64;
        if !(-1.0..=len as f64).contains(&at) {
            return [(0, 0.0); 2];
        }
        let at = at.clamp(0.0, (len - 1) as f64);
        let low = at.floor();
        let high = (low as usize + 1).min(len - 1);
        [(low as usize, 1.0 - (at - low)), (high, at - low)]
    };
    (0..count).map(sample).collect()
}

/// The samples of a bin along an axis between two corners.
fn axis_samples(
    range: (f64, f64),
    bins: usize,
    bin: usize,
    ratio: usize,
    len: usize,
) -> Result<Samples> {
    let size = (range.1 - range.0) / bins as f64;
    let count = if ratio > 0 { ratio as f64 } else { size.ceil() };
    if count > MAX_SAMPLES {
        return Err(Error::unsupported(format!(
            "a bin would be sampled {count} times along an axis"
        )));
    }
    Ok(samples(
        range.0 + bin as f64 * size,
        size,
        count as usize,
        len,
    ))
}

fn eval_align(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, rois, images) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    expect_rank("the regions", rois, 2..=2)?;
    expect_dims("the regions", rois, &[images.count(), 4])?;
    let (corners, images) = (floats(rois)?, images.to_i64()?);
    let images = images.into_iter().map(|i| i as f64);
    let rows: Vec<(f64, &[f64])> = images.zip(corners.chunks(4)).collect();
    let regions = Regions::new(x, cx.float("spatial_scale", 1.0).into(), &rows)?;
    let default = if cx.version < 16 {
        "output_half_pixel"
    } else {
        "half_pixel"
    };
    let mode = cx.node.string("coordinate_transformation_mode");
    let half_pixel = mode.unwrap_or(default) == "half_pixel";
    let shift = if half_pixel { 0.5 } else { 0.0 };
    let ratio = axes::length(cx.int("sampling_ratio", 0), "sampling_ratio")?;
    let max = match cx.node.string("mode").unwrap_or("avg") {
        "avg" => false,
        "max" => true,
        other => {
            return Err(Error::unsupported(format!(
                "the mode \"{other}\" is unknown"
            )));
        }
    };
    let out = output(cx.node)?;
    let [.., h, w] = regions.dims;
    regions.pooled(x, out, |[x1, y1, x2, y2], row, column| {
        let range = |low: f64, high: f64| {
            let least = if half_pixel { f64::NEG_INFINITY } else { 1.0 };
            (low - shift, low - shift + (high - low).max(least))
        };
        let rows = axis_samples(range(y1, y2), out[0], row, ratio, h)?;
        let columns = axis_samples(range(x1, x2), out[1], column, ratio, w)?;
        Ok(move |plane: &[f64]| {
            let corners = |ys: &[(usize, f64); 2], xs: &[(usize, f64); 2]| {
                let at = |(y, a): (usize, f64), (x, b): (usize, f64)| a * b * plane[y * w + x];
                [
                    at(ys[0], xs[0]),
                    at(ys[0], xs[1]),
                    at(ys[1], xs[0]),
                    at(ys[1], xs[1]),
                ]
            };
            let all = rows
                .iter()
                .flat_map(|ys| columns.iter().map(move |xs| (ys, xs)))
                .flat_map(|(ys, xs)| corners(ys, xs));
            match (max, rows.len() * columns.len()) {
                (_, 0) => 0.0,
                (true, _) => all.fold(f64::NEG_INFINITY, f64::max),
                (false, count) => all.sum::<f64>() / count as f64,
            }
        })
    })
}

fn eval_pool(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, rois) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the regions", rois, 2..=2)?;
    expect_dims("the regions", rois, &[rois.dims()[0], 5])?;
    let data = floats(rois)?;
    let rows: Vec<(f64, &[f64])> = data.chunks(5).map(|r| (r[0], &r[1..])).collect();
    let regions = Regions::new(x, cx.float("spatial_scale", 1.0).into(), &rows)?;
    let out = pooled_shape(cx.node)?;
    let [.., h, w] = regions.dims;
    regions.pooled(x, out, |[x1, y1, x2, y2], row, column| {
        let rows = bin_range((y1, y2), out[0], row, h);
        let columns = bin_range((x1, x2), out[1], column, w);
        Ok(move |plane: &[f64]| {
            let all = rows
                .clone()
                .flat_map(|y| columns.clone().map(move |x| y * w + x));
            all.map(|i| plane[i]).reduce(f64::max).unwrap_or(0.0)
        })
    })
}

/// The elements of one bin along an axis: corners are rounded and belong to the region.
fn bin_range(range: (f64, f64), bins: usize, bin: usize, len: usize) -> std::ops::Range<usize> {
    let (start, end) = (range.0.round(), range.1.round());
    let size = (end - start + 1.0).max(1.0) / bins as f64;
    let clamp = |v: f64| (start + v).clamp(0.0, len as f64) as usize;
    clamp((bin as f64 * size).floor())..clamp(((bin + 1) as f64 * size).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn bins_of_rounded_regions_are_those_of_onnx_runtime() {
        let elements: Vec<String> = (0..24).map(|i| i.to_string()).collect();
        let model = parse(&format!(
            "opset 22 graph g() -> (y) {{ x: f32[1,1,4,6] = {{{}}}
            r: f32[3,5] = {{0,1,1,6,6, 0,0,0,3,3, 0,8,4,20,20}}
            y = MaxRoiPool(x, r) {{pooled_shape=[2,2], spatial_scale=0.5}} }}",
            elements.join(",")
        ));
        let y = eval::evaluate(&model.unwrap(), &[]).unwrap();
        assert_eq!(
            &*y[0].data::<f32>().unwrap(),
            &[
                14.0, 15.0, 20.0, 21.0, 7.0, 8.0, 13.0, 14.0, 23.0, 0.0, 0.0, 0.0
            ]
        );
    }

    #[test]
    fn samples_outside_the_image_weigh_nothing() {
        assert_eq!(samples(-3.0, 2.0, 1, 4), [[(0, 0.0), (0, 0.0)]]);
        assert_eq!(samples(-1.0, 1.0, 1, 4), [[(0, 1.0), (1, 0.0)]]);
        assert_eq!(samples(1.0, 1.5, 1, 4), [[(1, 0.25), (2, 0.75)]]);
        assert_eq!(samples(3.0, 1.0, 1, 4), [[(3, 1.0), (3, 0.0)]]);
    }
}
