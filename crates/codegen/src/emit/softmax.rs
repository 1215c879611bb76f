//! Softmax along the last axis in memory.

use edgesmith_ir::{Error, NodeId, Result};

use super::unary::like;
use super::Call;
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::Lowering;
use crate::program::{Data, Element, Layer};

/// Rows of floats.
struct SoftmaxF32 {
    rows: usize,
    width: usize,
}

pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node.output(0).ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let rank = x.dims.len() as i64;
    let since_13 = l.model.opset() >= 13;
    let axis = node.int("axis").unwrap_or(if since_13 { -1 } else { 1 });
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    if axis >= x.dims.len() {
        return Err(Error::invalid("its axis is none of its input's"));
    }
    // Until opset 13 all axes from this one on are one row.
    let width: usize = match since_13 {
        true => x.dims[axis],
        false => x.dims[axis..].iter().product(),
    };
    let order: Vec<usize> = match since_13 {
        true => (0..x.dims.len()).filter(|&a| a != axis).chain([axis]).collect(),
        false => (0..x.dims.len()).collect(),
    };
    let x = l.ordered(&x, &order);
    let tail = l.tail(y);
    let rows = x.dims.iter().product::<usize>() / width.max(1);
    let x = l.float(&x);
    let made = like(l, &x, y, Element::F32, None);
    l.step(id, &[&x], &made, SoftmaxF32 { rows, width });
    let _ = tail;
    l.hold(y, made);
    Ok(())
}

impl Layer for SoftmaxF32 {
    fn kernel(&self) -> &'static str {
        "softmax_f32"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("softmax_f32");
        format!("{f}({}, {}, {}, {});", call.reads[0], call.write, self.rows, self.width)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32();
        let Data::F32(y) = write else { return };
        for (x, y) in x.chunks(self.width).zip(y.chunks_mut(self.width)) {
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (x, y) in x.iter().zip(&mut *y) {
                *y = (x - most).exp();
                sum += *y;
            }
            y.iter_mut().for_each(|y| *y /= sum);
        }
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }
}
