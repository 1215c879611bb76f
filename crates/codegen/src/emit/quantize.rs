//! QuantizeLinear and DequantizeLinear, and tables from byte to byte.

use edgesmith_ir::{Error, NodeId, Result};

use super::{Call, c_float};
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::{Held, Lowering};
use crate::program::{Cost, Data, Element, Grid, Layer};

/// Floats to bytes: `clamp(round(x / scale) + zero)`, halves to even, NaN to the zero point.
pub(crate) struct Quantize {
    grid: Grid,
    count: usize,
}

/// Bytes to floats: `(x - zero) * scale`.
pub(crate) struct Dequantize {
    grid: Grid,
    count: usize,
}

/// Bytes to bytes by a table.
pub(crate) struct Lookup {
    /// The result of -128 first.
    table: Vec<i8>,
    count: usize,
}

impl Grid {
    /// The integer next to a number.
    pub fn integer(self, x: f32) -> i8 {
        let q = (x / self.scale).round_ties_even();
        let q = if q.is_nan() { 0.0 } else { q };
        (q.clamp(-512.0, 512.0) as i32 + self.zero).clamp(-128, 127) as i8
    }

    /// The number of an integer.
    pub fn number(self, q: i8) -> f32 {
        (i32::from(q) - self.zero) as f32 * self.scale
    }
}

impl Quantize {
    /// Of `count` numbers on this grid.
    pub fn new(grid: Grid, count: usize) -> Self {
        Self { grid, count }
    }
}

impl Dequantize {
    /// Of `count` numbers on this grid.
    pub fn new(grid: Grid, count: usize) -> Self {
        Self { grid, count }
    }
}

impl Lookup {
    /// From one grid to another.
    pub fn between(from: Grid, to: Grid, count: usize) -> Self {
        Self::of(count, |q| to.integer(from.number(q)))
    }

    /// What `f` makes of each byte.
    pub fn of(count: usize, f: impl Fn(i8) -> i8) -> Self {
        Self {
            table: (-128..=127).map(f).collect(),
            count,
        }
    }
}

/// QuantizeLinear of a computed value.
pub(super) fn quantize(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    if let Some(scale) = l.scale16(id) {
        let made = l.int16(&x, scale)?;
        l.hold(y, made);
        return Ok(());
    }
    let grid = l.grid_of(id)?.ok_or_else(unusual)?;
    let made = l.on_grid(&x, grid);
    l.hold(y, made);
    Ok(())
}

fn unusual() -> Error {
    Error::unsupported("its integers are not bytes of one constant scale, nor s16 around 0")
        .hint("quantise with --activations s8 or u8")
}

/// DequantizeLinear: of a constant nothing is done until it is read; a computed value stays in bytes
/// until floats are needed.
pub(super) fn dequantize(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let (Some(x), Some(y)) = (node.input(0), node.output(0)) else {
        return Err(Error::invalid("it has no input or no output"));
    };
    if l.constant(x).is_some() {
        return Ok(());
    }
    let held: Held = l.value(x)?;
    let wide = l.scale16(id).map(|scale| Grid {
        scale,
        zero: 0,
        unsigned: false,
    });
    let grid = match wide {
        Some(grid) => grid,
        None => l.grid_of(id)?.ok_or_else(unusual)?,
    };
    let buffer = &mut l.program.buffers[held.buffer];
    match buffer.grid {
        None if buffer.element == Element::I8 && wide.is_none() => buffer.grid = Some(grid),
        None if buffer.element == Element::I16 && wide.is_some() => buffer.grid = Some(grid),
        Some(own) if own == grid => {}
        _ => {
            return Err(Error::unsupported(
                "the integers are read by another scale than they were made by",
            ));
        }
    }
    l.hold(y, held);
    Ok(())
}

impl Layer for Quantize {
    fn kernel(&self) -> &'static str {
        "quantize8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("quantize8");
        let (x, y) = (&call.reads[0], &call.write);
        let Grid { scale, zero, .. } = self.grid;
        format!("{f}({}, {}, {zero}, {x}, {y});", self.count, c_float(scale))
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32().iter();
        *write = Data::I8(x.map(|&x| self.grid.integer(x)).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }
}

impl Layer for Dequantize {
    fn kernel(&self) -> &'static str {
        "dequantize8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel("dequantize8");
        let (x, y) = (&call.reads[0], &call.write);
        let Grid { scale, zero, .. } = self.grid;
        format!("{f}({}, {}, {zero}, {x}, {y});", self.count, c_float(scale))
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].i8().iter();
        *write = Data::F32(x.map(|&q| self.grid.number(q)).collect());
    }
}

impl Layer for Lookup {
    fn kernel(&self) -> &'static str {
        "lookup8"
    }

    fn emit(&self, call: &mut Call) -> String {
        // Read by unsigned bytes: 0 to 127, then -128 to -1.
        let turned = self.table[128..].iter().chain(&self.table[..128]);
        let table: Vec<u8> = turned.map(|&q| q as u8).collect();
        let table = call.bytes("table", &table);
        let f = call.kernel("lookup8");
        format!(
            "{f}({}, {}, {table}, {});",
            self.count, call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].i8().iter();
        let byte = |&q: &i8| self.table[(i32::from(q) + 128) as usize];
        *write = Data::I8(x.map(byte).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 256,
        }
    }
}
