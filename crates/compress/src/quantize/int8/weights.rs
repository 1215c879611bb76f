//! Weights and biases of products as integers.

use edgesmith_ir::{DType, Graph, Node, Result, Tensor, packed};

use super::{Settings, WeightRange};
use crate::quantize::affine::power_of_two;

/// A weight with a scale for each index along one axis, or one for all.
pub(super) struct Weight {
    pub ints: Vec<i8>,
    pub dims: Vec<usize>,
    /// The axis of the scales; `None` for a single one.
    pub axis: Option<usize>,
    pub scales: Vec<f32>,
    /// The largest magnitude of an integer: up to 7 they are stored in 4 bits.
    pub limit: i32,
}

impl Weight {
    /// The integers as a tensor.
    pub fn tensor(&self) -> Result<Tensor> {
        self.stored(&self.dims, &self.ints)
    }

    /// Zero points, one for each scale.
    pub fn zero(&self) -> Result<Tensor> {
        let dims: &[usize] = match self.axis {
            Some(_) => &[self.scales.len()],
            None => &[],
        };
        self.stored(dims, &vec![0; self.scales.len()])
    }

    fn stored(&self, dims: &[usize], ints: &[i8]) -> Result<Tensor> {
        match self.limit {
            ..8 => packed::encode_integers(DType::I4, dims, ints.iter().map(|&i| i128::from(i))),
            _ => Tensor::from_vec(dims, ints.to_vec()),
        }
    }

    /// The scales as a tensor: of no axes for a single one of all.
    pub fn scale(&self) -> Result<Tensor> {
        let dims: &[usize] = if self.axis.is_some() {
            &[self.scales.len()]
        } else {
            &[]
        };
        Tensor::from_vec(dims, self.scales.clone())
    }
}

/// What a node asks of the scales of its weight: that its bias fits in 32 bits.
pub(super) struct Demand {
    pub input_scale: f32,
    pub bias: Option<Vec<f32>>,
}

/// The channels of a row-major tensor along one axis.
#[derive(Clone, Copy)]
struct Lanes {
    channels: usize,
    inner: usize,
}

impl Lanes {
    fn of(dims: &[usize], axis: Option<usize>) -> Self {
        match axis {
            Some(a) => Self {
                channels: dims[a],
                inner: dims[a + 1..].iter().product(),
            },
            None => Self {
                channels: 1,
                inner: 1,
            },
        }
    }

    fn channel(self, i: usize) -> usize {
        i / self.inner % self.channels
    }
}

impl Weight {
    pub fn of(
        t: &Tensor,
        axis: Option<usize>,
        demands: &[Demand],
        most: i32,
        settings: &Settings,
    ) -> Result<Self> {
        let data = t.to_f32()?;
        let lanes = Lanes::of(t.dims(), axis);
        let limit = most as f32;
        let mut scales = scales(&data, lanes, limit, settings.weights);
        for demand in demands {
            demand.raise(&mut scales);
        }
        if settings.power_of_two_scales {
            scales.iter_mut().for_each(|s| *s = power_of_two(*s));
        }
        let ints = data
            .iter()
            .enumerate()
            .map(|(i, &w)| round(w, scales[lanes.channel(i)], limit) as i8)
            .collect();
        Ok(Self {
            ints,
            dims: t.dims().to_vec(),
            axis,
            scales,
            limit: most,
        })
    }

    /// How far each original element lies above its rounded one.
    pub fn errors(&self, t: &Tensor) -> Result<Vec<f64>> {
        let lanes = Lanes::of(&self.dims, self.axis);
        let kept = |i: usize| f64::from(self.ints[i]) * f64::from(self.scales[lanes.channel(i)]);
        let data = t.to_f32()?;
        Ok(data
            .iter()
            .enumerate()
            .map(|(i, &w)| f64::from(w) - kept(i))
            .collect())
    }
}

/// 1.5·2²³: added to a small number it leaves the nearest integer, ties to even.
const SHIFT: f32 = 12_582_912.0;

fn round(w: f32, scale: f32, limit: f32) -> f32 {
    (w / scale).clamp(-limit, limit) + SHIFT - SHIFT
}

fn scales(data: &[f32], lanes: Lanes, limit: f32, range: WeightRange) -> Vec<f32> {
    let mut most = vec![0.0f32; lanes.channels];
    for (i, w) in data.iter().enumerate() {
        let m = &mut most[lanes.channel(i)];
        *m = m.max(w.abs());
    }
    let scale = |m: f32| (f64::from(m) / f64::from(limit)) as f32;
    let mut scales: Vec<f32> = most.into_iter().map(scale).collect();
    if range == WeightRange::Mse {
        narrow(&mut scales, data, lanes, limit);
    }
    let usable = |s: &f32| *s >= f32::MIN_POSITIVE;
    let smallest = scales
        .iter()
        .copied()
        .filter(usable)
        .fold(f32::INFINITY, f32::min);
    let instead = if smallest.is_finite() { smallest } else { 1.0 };
    scales
        .into_iter()
        .map(|s| if usable(&s) { s } else { instead })
        .collect()
}

/// Fractions of the full range that are tried, in per cent: the fewer integers there are, the more
/// is clipped.
fn fractions(limit: f32) -> std::ops::Range<u32> {
    if limit < 16.0 { 30..100 } else { 70..100 }
}

/// Gives each channel the fraction of its range with the smallest squared error.
fn narrow(scales: &mut [f32], data: &[f32], lanes: Lanes, limit: f32) {
    let errors = |scales: &[f32]| {
        let mut sums = vec![0.0f64; lanes.channels];
        for (i, &w) in data.iter().enumerate() {
            let scale = scales[lanes.channel(i)].max(f32::MIN_POSITIVE);
            let e = f64::from(round(w, scale, limit) * scale - w);
            sums[lanes.channel(i)] += e * e;
        }
        sums
    };
    let full = scales.to_vec();
    let mut best = errors(scales);
    for percent in fractions(limit).rev() {
        let tried: Vec<f32> = full.iter().map(|s| s * percent as f32 / 100.0).collect();
        for (c, e) in errors(&tried).into_iter().enumerate() {
            if e < best[c] {
                (best[c], scales[c]) = (e, tried[c]);
            }
        }
    }
}

impl Demand {
    /// Raises scales so that the bias, in steps of input scale times weight scale, fits in 32 bits.
    fn raise(&self, scales: &mut [f32]) {
        let Some(bias) = &self.bias else {
            return;
        };
        let shared = scales.len() == 1;
        for (c, b) in bias.iter().enumerate() {
            let most = f64::from(i32::MAX) * f64::from(self.input_scale);
            let least = (f64::from(b.abs()) * 1.0001 / most) as f32;
            let scale = &mut scales[if shared { 0 } else { c }];
            *scale = scale.max(least);
        }
    }
}

/// The bias in steps of input scale times weight scale, and those scales.
pub(super) fn integer_bias(bias: &[f64], input_scale: f32, scales: &[f32]) -> (Vec<i32>, Vec<f32>) {
    let scale = |c: usize| input_scale * scales[c % scales.len()];
    let int = |(c, b): (usize, &f64)| (b / f64::from(scale(c))).round_ties_even() as i32;
    let ints = bias.iter().enumerate().map(int).collect();
    (ints, (0..scales.len()).map(scale).collect())
}

/// What rounding the weight takes from each output on average, for inputs with these means along
/// their channels: `Σ (w − ŵ)·E[x]`. Padding is taken for data, which it nearly is.
///
/// `None` for products whose outputs these means do not determine.
pub(in crate::quantize) fn mean_loss(
    node: &Node,
    dims: &[usize],
    errors: &[f64],
    means: &[f64],
) -> Option<Vec<f64>> {
    match node.op.as_str() {
        "Conv" => {
            let groups = usize::try_from(node.int("group").unwrap_or(1)).ok()?.max(1);
            let (outputs, depth) = (dims[0], dims[1]);
            if means.len() != depth * groups || outputs % groups != 0 {
                return None;
            }
            let window: usize = dims[2..].iter().product();
            let mut loss = vec![0.0; outputs];
            for (row, e) in errors.chunks_exact(window).enumerate() {
                let (o, c) = (row / depth, row % depth);
                let group = o / (outputs / groups);
                loss[o] += e.iter().sum::<f64>() * means[group * depth + c];
            }
            Some(loss)
        }
        "Gemm" | "MatMul" if dims.len() == 2 => {
            let transposed = node.is("Gemm") && node.int("transB").unwrap_or(0) != 0;
            let (k, n) = if transposed {
                (dims[1], dims[0])
            } else {
                (dims[0], dims[1])
            };
            if means.len() != k {
                return None;
            }
            let at = |i: usize, o: usize| errors[if transposed { o * k + i } else { i * n + o }];
            Some(
                (0..n)
                    .map(|o| (0..k).map(|i| at(i, o) * means[i]).sum())
                    .collect(),
            )
        }
        _ => None,
    }
}

/// The bias of a product as one number for each of `outputs`.
pub(in crate::quantize) fn float_bias(
    graph: &Graph,
    node: &Node,
    outputs: usize,
) -> Result<Option<Vec<f32>>> {
    if node.is("MatMul") {
        return Ok(None);
    }
    let Some(bias) = node.input(2).and_then(|v| graph.constant(v)) else {
        return Ok(None);
    };
    let data = bias.to_f32()?;
    Ok(Some(if data.len() == 1 {
        vec![data[0]; outputs]
    } else {
        data.into_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize], data: &[f32]) -> Tensor {
        Tensor::from_vec(dims, data.to_vec()).unwrap()
    }

    #[test]
    fn channels_reach_the_limit_and_an_empty_one_borrows_a_scale() {
        let t = tensor(&[3, 2], &[1.0, -2.0, 0.0, 0.0, 0.25, 0.1]);
        let w = Weight::of(&t, Some(0), &[], 127, &Settings::default()).unwrap();
        assert_eq!(w.ints, [64, -127, 0, 0, 127, 51]);
        assert_eq!(w.scales[1], w.scales[2]);
        let w = Weight::of(&t, Some(1), &[], 127, &Settings::default()).unwrap();
        assert_eq!(w.ints, [127, -127, 0, 0, 32, 6]);
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_integer_ties_to_even() {
        for i in -1300..=1300 {
            for away in [-1e-4f32, 0.0, 1e-4] {
                let x = i as f32 / 10.0 + away;
                let wanted = x.round_ties_even().clamp(-127.0, 127.0);
                assert_eq!(round(x, 1.0, 127.0), wanted, "{x}");
            }
        }
        assert_eq!(
            [0.5, 1.5, 2.5, -0.5].map(|x| round(x, 1.0, 127.0)),
            [0.0, 2.0, 2.0, 0.0]
        );
        assert_eq!(
            [f32::INFINITY, -1e30].map(|x| round(x, 1.0, 63.0)),
            [63.0, -63.0]
        );
    }

    #[test]
    fn a_large_bias_raises_the_scale_of_its_channel_until_it_fits() {
        let t = tensor(&[2, 1], &[1e-6, 1.0]);
        let demand = Demand {
            input_scale: 1e-4,
            bias: Some(vec![1000.0, 1.0]),
        };
        let w = Weight::of(&t, Some(0), &[demand], 127, &Settings::default()).unwrap();
        let (ints, scales) = integer_bias(&[1000.0, 1.0], 1e-4, &w.scales);
        assert!(
            ints[0] < i32::MAX && (f64::from(ints[0]) * f64::from(scales[0]) - 1000.0).abs() < 1e-2
        );
        assert_eq!(w.scales[1], 1.0 / 127.0);
    }

    #[test]
    fn least_squares_is_never_worse_than_the_full_range() {
        let mut data: Vec<f32> = (0..4096)
            .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
            .collect();
        data[7] = 1.06;
        let t = tensor(&[1, 4096], &data);
        let error = |weights| {
            let s = Settings {
                weights,
                ..Settings::default()
            };
            let w = Weight::of(&t, Some(0), &[], 63, &s).unwrap();
            w.errors(&t).unwrap().iter().map(|e| e * e).sum::<f64>()
        };
        assert!(error(WeightRange::Mse) < error(WeightRange::MinMax));
    }

    #[test]
    fn the_mean_loss_is_the_product_with_the_errors() {
        let conv = Node::new("Conv", "c").with("group", edgesmith_ir::Attribute::Int(2));
        let loss = mean_loss(&conv, &[2, 1, 2], &[1.0, 2.0, 3.0, 4.0], &[10.0, 100.0]);
        assert_eq!(loss.unwrap(), [30.0, 700.0]);
        let gemm = Node::new("Gemm", "g");
        let loss = mean_loss(&gemm, &[2, 2], &[1.0, 2.0, 3.0, 4.0], &[10.0, 100.0]);
        assert_eq!(loss.unwrap(), [310.0, 420.0]);
    }
}
