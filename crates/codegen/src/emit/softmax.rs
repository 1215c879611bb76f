//! Softmax along one axis: of bytes by a table of exponentials, of floats by a kernel.

use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use super::unary::like;
use crate::arena::Overlap;
use crate::fixed::Requant;
use crate::kernels::{Flavour, integer};
use crate::lower::{Lowering, Tail};
use crate::program::{Cost, Data, Element, Layer};

/// Rows of bytes.
struct Softmax8 {
    rows: usize,
    width: usize,
    of: integer::Softmax8,
    to: Requant,
}

/// Rows of floats.
struct SoftmaxF32 {
    rows: usize,
    width: usize,
}

/// Softmax along one axis, and until opset 13 along all from one on.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    let rank = x.dims.len() as i64;
    let since_13 = l.model.opset() >= 13;
    let axis = node.int("axis").unwrap_or(if since_13 { -1 } else { 1 });
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    if axis >= x.dims.len() {
        return Err(Error::invalid("its axis is none of its input's"));
    }
    // Until opset 13 all axes from this one on are one row.
    let (width, order): (usize, Vec<usize>) = match since_13 {
        true => {
            let others = (0..x.dims.len()).filter(|&a| a != axis);
            (x.dims[axis], others.chain([axis]).collect())
        }
        false => (x.dims[axis..].iter().product(), (0..x.dims.len()).collect()),
    };
    let x = l.ordered(&x, &order);
    let rows = x.dims.iter().product::<usize>() / width.max(1);
    let tail = l.tail(y);
    let plain = tail.value == y || tail.bounds == crate::lower::Bounds::NONE;
    if let (Some(from), Some(to)) = (l.grid(&x), tail.grid.filter(|_| plain)) {
        // The answer is a share of 2^30.
        let factor = 2f64.powi(-30) / f64::from(to.scale);
        let layer = Softmax8 {
            rows,
            width,
            of: integer::Softmax8::of(f64::from(from.scale), width),
            to: Requant::new(&[factor], 1 << 30, to.zero, -128, 127)?,
        };
        let made = like(l, &x, tail.value, Element::I8, Some(to));
        l.step(id, &[&x], &made, layer);
        l.finish(&tail, made);
        return Ok(());
    }
    let x = l.float(&x)?;
    let made = like(l, &x, y, Element::F32, None);
    l.step(id, &[&x], &made, SoftmaxF32 { rows, width });
    let alone = Tail {
        nodes: Vec::new(),
        value: y,
        ..tail
    };
    l.finish(&alone, made);
    Ok(())
}

impl Layer for Softmax8 {
    fn kernel(&self) -> &'static str {
        "softmax8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let table = call.u32s("table", &self.of.table);
        let to = super::requant(call, &[], &self.to);
        let fields = format!(
            ".rows = {}, .n = {}, .bits = {}, .table = {table}, .to = {to}",
            self.rows, self.width, self.of.bits
        );
        let layer = call.parameters("softmax", &fields);
        let f = call.kernel("softmax8");
        format!("{f}(&{layer}, {}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let Data::I8(y) = write else { return };
        let rows = reads[0].i8().chunks(self.width);
        let bounds = [self.to.lo, self.to.hi];
        let row = |x: &[i8]| self.of.apply(x, self.to.mult[0], self.to.zero, bounds);
        *y = rows.flat_map(row).collect();
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 4 * self.of.table.len(),
        }
    }
}

impl Layer for SoftmaxF32 {
    fn kernel(&self) -> &'static str {
        "softmax_f32"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("softmax_f32");
        format!(
            "{f}({}, {}, {}, {});",
            self.rows, self.width, call.reads[0], call.write
        )
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
