//! BatchNormalization of fixed statistics: a factor and a summand for each channel.

use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use super::unary::like;
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::Lowering;
use crate::program::{Cost, Data, Element, Layer};

/// Channels behind all other axes.
struct AffineF32 {
    rows: usize,
    scale: Vec<f32>,
    add: Vec<f32>,
}

pub(super) fn batch(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let mut numbers = Vec::with_capacity(4);
    for i in 1..5 {
        let row = node.input(i).and_then(|v| l.floats(v));
        numbers.push(row.ok_or_else(|| Error::unsupported("its statistics are computed"))?);
    }
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    let x = l.read(id, 0)?;
    let x = l.float(&x);
    let x = l.channels_last(&x);
    let channels = numbers[0].len();
    let factor = |c: usize| f64::from(numbers[0][c]) / (f64::from(numbers[3][c]) + epsilon).sqrt();
    let add = |c: usize| f64::from(numbers[1][c]) - f64::from(numbers[2][c]) * factor(c);
    let layer = AffineF32 {
        rows: x.dims.iter().product::<usize>() / channels.max(1),
        scale: (0..channels).map(|c| factor(c) as f32).collect(),
        add: (0..channels).map(|c| add(c) as f32).collect(),
    };
    let made = like(l, &x, y, Element::F32, None);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

impl Layer for AffineF32 {
    fn kernel(&self) -> &'static str {
        "affine_f32"
    }

    fn emit(&self, call: &mut Call) -> String {
        let scale = call.f32s("scale", &self.scale);
        let add = call.f32s("add", &self.add);
        let f = call.kernel("affine_f32");
        let (x, y) = (&call.reads[0], &call.write);
        format!(
            "{f}({x}, {scale}, {add}, {y}, {}, {});",
            self.rows,
            self.scale.len()
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let by_channel = self.scale.iter().zip(&self.add).cycle();
        let x = reads[0].f32().iter().zip(by_channel);
        *write = Data::F32(x.map(|(x, (s, a))| x * s + a).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 8 * self.scale.len(),
        }
    }
}
