//! LayerNormalization, and ReduceMean, ReduceSum and ReduceMax over neighbouring axes.

use edgesmith_ir::{Error, NodeId, Result};

use super::{Call, c_float};
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::Lowering;
use crate::program::{Cost, Data, Element, Layer};

/// Rows of floats to mean 0 and variance 1, with a gain and a summand for each column.
struct LayerNorm {
    rows: usize,
    width: usize,
    epsilon: f32,
    gain: Vec<f32>,
    add: Vec<f32>,
}

/// What is made of the middle of three axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Mean,
    Sum,
    Max,
}

/// A fold of floats.
struct Reduce {
    fold: Fold,
    sizes: [usize; 3],
}

/// LayerNormalization, in floats.
pub(super) fn layer(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    if node.outputs().len() > 1 {
        return Err(Error::unsupported("its mean and deviation are asked for"));
    }
    let x = l.read(id, 0)?;
    let rank = x.dims.len() as i64;
    let axis = node.int("axis").unwrap_or(-1);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    if axis >= x.dims.len() {
        return Err(Error::invalid("its axis is none of its input's"));
    }
    let width: usize = x.dims[axis..].iter().product();
    let row = |i: usize, none: f32| match node.input(i) {
        None => Some(vec![none; width]),
        Some(v) => l.floats(v).filter(|f| f.len() == width),
    };
    let (Some(gain), Some(add)) = (row(1, 1.0), row(2, 0.0)) else {
        return Err(Error::unsupported(
            "its gain or bias is computed, or no row",
        ));
    };
    let x = l.float(&x)?;
    let x = l.row_major(&x);
    let layer = LayerNorm {
        rows: x.dims[..axis].iter().product(),
        width,
        epsilon: node.float("epsilon").unwrap_or(1e-5),
        gain,
        add,
    };
    let made = super::unary::like(l, &x, y, Element::F32, None);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// A fold over axes that lie beside each other in row-major order.
pub(super) fn reduce(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    let fold = match node.op.as_str() {
        "ReduceMean" => Fold::Mean,
        "ReduceSum" => Fold::Sum,
        _ => Fold::Max,
    };
    let x = l.read(id, 0)?;
    let axes = axes(l, id, x.dims.len())?;
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else {
        return Err(Error::unsupported("it has no axes to fold"));
    };
    if last - first + 1 != axes.len() {
        return Err(Error::unsupported(
            "axes that do not lie beside each other have no emitter",
        ));
    }
    let x = l.float(&x)?;
    let x = l.row_major(&x);
    let layer = Reduce {
        fold,
        sizes: [
            x.dims[..first].iter().product(),
            x.dims[first..=last].iter().product(),
            x.dims[last + 1..].iter().product(),
        ],
    };
    let dims = l.typed(y)?.1;
    let name = l.graph.value(y).name.clone();
    let made = l.buffer(&name, Element::F32, &dims, None);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// The axes that a node folds, from the least on; all where none are named.
pub(super) fn axes(l: &Lowering, id: NodeId, rank: usize) -> Result<Vec<usize>> {
    let node = l.graph.node(id);
    let given = match node.input(1) {
        Some(v) => {
            let t = l
                .constant(v)
                .ok_or_else(|| Error::unsupported("its axes are computed"))?;
            t.to_i64()?
        }
        None => node.ints("axes").map(<[i64]>::to_vec).unwrap_or_default(),
    };
    if given.is_empty() {
        let nothing = node.int("noop_with_empty_axes").unwrap_or(0) != 0;
        return Ok(if nothing {
            Vec::new()
        } else {
            (0..rank).collect()
        });
    }
    let at = |a: i64| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok();
    let mut axes: Vec<usize> = given.iter().filter_map(|&a| at(a)).collect();
    axes.sort_unstable();
    axes.dedup();
    if axes.len() != given.len() || axes.iter().any(|&a| a >= rank) {
        return Err(Error::invalid(
            "an axis is named twice, or is none of its input's",
        ));
    }
    Ok(axes)
}

impl Layer for LayerNorm {
    fn kernel(&self) -> &'static str {
        "layer_norm_f32"
    }

    fn emit(&self, call: &mut Call) -> String {
        let gain = call.f32s("gain", &self.gain);
        let add = call.f32s("add", &self.add);
        let f = call.kernel("layer_norm_f32");
        format!(
            "{f}({}, {}, {}, {gain}, {add}, {}, {});",
            self.rows,
            self.width,
            c_float(self.epsilon),
            call.reads[0],
            call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::F32(y) = write else { return };
        let n = self.width as f32;
        for (x, y) in reads[0]
            .f32()
            .chunks(self.width)
            .zip(y.chunks_mut(self.width))
        {
            let mean = x.iter().sum::<f32>() / n;
            let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
            let by = 1.0 / (variance + self.epsilon).sqrt();
            for (i, y) in y.iter_mut().enumerate() {
                *y = (x[i] - mean) * by * self.gain[i] + self.add[i];
            }
        }
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 8 * self.width,
        }
    }
}

impl Layer for Reduce {
    fn kernel(&self) -> &'static str {
        match self.fold {
            Fold::Mean => "reduce_mean_f32",
            Fold::Sum => "reduce_sum_f32",
            Fold::Max => "reduce_max_f32",
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel(self.kernel());
        let [outer, n, inner] = self.sizes;
        format!(
            "{f}({outer}, {n}, {inner}, {}, {});",
            call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32();
        let Data::F32(y) = write else { return };
        let [outer, n, inner] = self.sizes;
        for o in 0..outer {
            for i in 0..inner {
                let all = (0..n).map(|k| x[(o * n + k) * inner + i]);
                y[o * inner + i] = match self.fold {
                    Fold::Mean => all.sum::<f32>() / n as f32,
                    Fold::Sum => all.sum(),
                    Fold::Max => all.fold(f32::MIN, f32::max),
                };
            }
        }
    }
}
