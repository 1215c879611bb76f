//! Constants of integers: weights, biases, and what they are as floats.

use edgesmith_ir::eval::{EvalCx, evaluate_tensors, items};
use edgesmith_ir::{DType, Error, NodeId, Result, Tensor, ValueId};

use super::Lowering;

/// Weights of 8 bits or fewer around 0.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// In the order of the graph.
    pub data: Vec<i8>,
    /// The scale of each channel.
    pub scales: Vec<f32>,
    /// All fit in 4 bits, and are stored so in the graph.
    pub nibbles: bool,
}

/// Biases in units of sums.
pub(crate) struct Bias(pub Vec<i32>);

impl Lowering<'_> {
    /// The numbers of a constant of floats, or of integers that DequantizeLinear makes floats of.
    pub fn floats(&self, v: ValueId) -> Option<Vec<f32>> {
        let tensor = self.float_constant(v)?;
        tensor.to_f32().ok().map(|f| f.into_owned())
    }

    /// A constant, through a DequantizeLinear or a Cast of constants too.
    pub fn float_constant(&self, v: ValueId) -> Option<Tensor> {
        if let Some(t) = self.constant(v) {
            return Some(t.clone());
        }
        let id = self.graph.producer_is(v, "DequantizeLinear")?;
        let node = self.graph.node(id);
        let inputs = node.inputs().iter().map(|i| match i {
            Some(v) => self.constant(*v).cloned().map(Some),
            None => Some(None),
        });
        let inputs = items(inputs.collect::<Option<Vec<_>>>()?);
        let made = evaluate_tensors(&EvalCx::new(self.model, node, &inputs)).ok()?;
        made.into_iter().next()
    }

    /// Weights of 8 bits behind value `v`, with one scale for each channel along `axis`: a constant that
    /// DequantizeLinear reads, whose zero points can be taken out.
    pub fn weights(&self, v: ValueId, axis: usize) -> Option<Weights> {
        let id = self.graph.producer_is(v, "DequantizeLinear")?;
        let node = self.graph.node(id);
        let data = self.constant(node.input(0)?)?;
        let by_axis = node.int("axis").unwrap_or(1);
        let scale = self.constant(node.input(1)?)?;
        let zero = match node.input(2) {
            Some(v) => Some(self.constant(v)?),
            None => None,
        };
        if node.int("block_size").unwrap_or(0) != 0 {
            return None;
        }
        let along =
            usize::try_from(by_axis + if by_axis < 0 { data.rank() as i64 } else { 0 }).ok()?;
        self.weights_of(
            data,
            scale,
            zero,
            (scale.count() != 1).then_some(along),
            axis,
        )
    }

    /// Weights of a constant with its scales and zero points along `along`, where there are several.
    pub fn weights_of(
        &self,
        data: &Tensor,
        scale: &Tensor,
        zero: Option<&Tensor>,
        along: Option<usize>,
        axis: usize,
    ) -> Option<Weights> {
        let dims = data.dims().to_vec();
        let channels = *dims.get(axis)?;
        if along.is_some_and(|a| a != axis) || !matches!(data.dtype().bits(), 4 | 8) {
            return None;
        }
        let scales = scale.to_f32().ok()?.into_owned();
        let zeros = match zero {
            Some(z) => z.to_i64().ok()?,
            None => vec![0],
        };
        let sound = scales.iter().all(|s| s.is_finite() && *s > 0.0);
        let fits = |n: usize| n == 1 || n == channels;
        if !sound || !fits(scales.len()) || !fits(zeros.len()) {
            return None;
        }
        let inner: usize = dims[axis + 1..].iter().product();
        let numbers = data.to_i64().ok()?;
        let shifted = numbers.iter().enumerate().map(|(i, n)| {
            let channel = i / inner.max(1) % channels;
            i8::try_from(n - zeros[channel % zeros.len()]).ok()
        });
        let nibbles = data.dtype().bits() == 4;
        let data = shifted.collect::<Option<Vec<i8>>>()?;
        let fits = data.iter().all(|w| (-8..8).contains(w));
        Some(Weights {
            data,
            scales: (0..channels).map(|c| scales[c % scales.len()]).collect(),
            nibbles: nibbles && fits,
        })
    }

    /// The bias behind value `v` in units of `scales`, one for each channel.
    ///
    /// # Errors
    /// When it is computed, or has another number of channels.
    pub fn bias(&self, v: Option<ValueId>, scales: &[f64]) -> Result<Bias> {
        let Some(v) = v else {
            return Ok(Bias(vec![0; scales.len()]));
        };
        let name = &self.graph.value(v).name;
        let wrong = || {
            Error::unsupported(format!(
                "the bias \"{name}\" is no constant row of channels"
            ))
        };
        let behind = self.graph.producer_is(v, "DequantizeLinear");
        let exact = behind.and_then(|id| self.integers(id));
        let real: Vec<f64> = match exact {
            Some(real) => real,
            None => {
                let floats = self.floats(v).ok_or_else(wrong)?;
                floats.iter().map(|&b| f64::from(b)).collect()
            }
        };
        if real.len() != scales.len() && real.len() != 1 {
            return Err(wrong());
        }
        let number = |(c, s): (usize, &f64)| {
            let b = real[c % real.len()] / s;
            b.round_ties_even()
                .clamp(-2f64.powi(31), 2f64.powi(31) - 1.0) as i32
        };
        Ok(Bias(scales.iter().enumerate().map(number).collect()))
    }

    /// The exact numbers of a constant of 32-bit integers that DequantizeLinear reads.
    fn integers(&self, id: NodeId) -> Option<Vec<f64>> {
        let node = self.graph.node(id);
        let data = self.constant(node.input(0)?)?;
        if data.dtype() != DType::I32 || node.input(2).is_some_and(|z| !self.is_zero(z)) {
            return None;
        }
        let scale = self.floats(node.input(1)?)?;
        let numbers = data.to_i64().ok()?;
        let fits = scale.len() == 1 || scale.len() == numbers.len();
        fits.then(|| {
            let scaled = numbers.iter().enumerate();
            let scaled = scaled.map(|(i, &n)| n as f64 * f64::from(scale[i % scale.len()]));
            scaled.collect()
        })
    }

    fn is_zero(&self, v: ValueId) -> bool {
        let numbers = self.constant(v).and_then(|t| t.to_i64().ok());
        numbers.is_some_and(|n| n.iter().all(|&n| n == 0))
    }
}
