//! Softmax along one axis: of bytes by a table of exponentials, of floats by a kernel.

use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use super::unary::like;
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::{Lowering, Tail};
use crate::program::{Cost, Data, Element, Grid, Layer};

/// Rows of bytes: `zero + (e * steps + 128 * sum) / (256 * sum)`, clamped, where `e` is the table's entry
/// of what an element is below the greatest of its row, `sum` that of its row, and `steps` 256 / scale
/// of the result.
struct Softmax8 {
    rows: usize,
    width: usize,
    /// `exp(-i * scale) * 2^15` for each `i`.
    table: Vec<u32>,
    steps: u32,
    zero: i32,
}

/// Rows of floats.
struct SoftmaxF32 {
    rows: usize,
    width: usize,
}

/// Rows of more elements could overflow 32 bits.
const WIDEST: usize = 256;

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
    if let (Some(from), Some(to)) = (l.grid(&x), tail.grid.filter(|_| plain))
        && let Some(layer) = Softmax8::new(rows, width, from, to)
    {
        let made = like(l, &x, tail.value, Element::I8, Some(to));
        l.step(id, &[&x], &made, layer);
        l.finish(&tail, made);
        return Ok(());
    }
    let x = l.float(&x);
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

impl Softmax8 {
    fn new(rows: usize, width: usize, from: Grid, to: Grid) -> Option<Self> {
        let steps = (256.0 / f64::from(to.scale)).round();
        if width > WIDEST || !(1.0..=65536.0).contains(&steps) {
            return None;
        }
        let entry = |i: i32| ((-f64::from(i) * f64::from(from.scale)).exp() * 32768.0).round() as u32;
        Some(Self {
            rows,
            width,
            table: (0..256).map(entry).collect(),
            steps: steps as u32,
            zero: to.zero,
        })
    }
}

impl Layer for Softmax8 {
    fn kernel(&self) -> &'static str {
        "softmax8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let table = call.u32s("table", &self.table);
        let f = call.kernel("softmax8");
        format!(
            "{f}({}, {table}, {}, {}, {}, {}u, {});",
            call.reads[0], call.write, self.rows, self.width, self.steps, self.zero
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].i8();
        let Data::I8(y) = write else { return };
        for (x, y) in x.chunks(self.width).zip(y.chunks_mut(self.width)) {
            let most = x.iter().copied().max().map_or(0, i32::from);
            let of = |q: i8| self.table[(most - i32::from(q)) as usize];
            let sum: u32 = x.iter().map(|&q| of(q)).sum();
            for (&q, y) in x.iter().zip(y) {
                let share = (u64::from(of(q) * self.steps) + u64::from(128 * sum)) / u64::from(256 * sum);
                *y = (self.zero + share as i32).clamp(-128, 127) as i8;
            }
        }
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 4 * self.table.len(),
        }
    }
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
