//! Steps between integers, halves and floats that operators ask for.

use edgesmith_ir::{Error, Result};

use super::{Held, Lowering, Tail};
use crate::emit::half::{FromHalf, ToHalf};
use crate::emit::int16::{Dequantize16, Quantize16};
use crate::emit::quantize::{Dequantize, Lookup, Quantize};
use crate::program::{Element, Grid, Layer};

impl Lowering<'_> {
    /// The value in floats.
    ///
    /// # Errors
    /// When it is of integers that stand for no floats.
    pub fn float(&mut self, held: &Held) -> Result<Held> {
        let (element, grid) = (self.of(held).element, self.of(held).grid);
        let count = self.of(held).count;
        let (op, layer): (_, Box<dyn Layer>) = match (element, grid) {
            (Element::F32, _) => return Ok(held.clone()),
            (Element::F16, _) => ("Cast", Box::new(FromHalf(count))),
            (Element::I8, Some(grid)) => {
                ("DequantizeLinear", Box::new(Dequantize::new(grid, count)))
            }
            (Element::I16, Some(grid)) => (
                "DequantizeLinear",
                Box::new(Dequantize16::new(grid.scale, count)),
            ),
            _ => {
                return Err(Error::unsupported(format!(
                    "\"{}\" is of integers without a scale: code computes on floats and on quantised bytes",
                    self.of(held).name
                )));
            }
        };
        Ok(self.converted(held, (Element::F32, None), "floats", op, layer))
    }

    /// The value in integers of 16 bits of this scale.
    ///
    /// # Errors
    /// When it is of integers that stand for no floats.
    pub fn int16(&mut self, held: &Held, scale: f32) -> Result<Held> {
        let grid = Grid {
            scale,
            zero: 0,
            unsigned: false,
        };
        let buffer = self.of(held);
        if buffer.element == Element::I16 && buffer.grid == Some(grid) {
            return Ok(held.clone());
        }
        let held = self.float(held)?;
        let layer = Box::new(Quantize16::new(scale, self.of(&held).count));
        let to = (Element::I16, Some(grid));
        Ok(self.converted(&held, to, "16 bits", "QuantizeLinear", layer))
    }

    /// The value in halves.
    ///
    /// # Errors
    /// When it is of integers that stand for no floats.
    pub fn half(&mut self, held: &Held) -> Result<Held> {
        if self.of(held).element == Element::F16 {
            return Ok(held.clone());
        }
        let held = self.float(held)?;
        let layer = Box::new(ToHalf(self.of(&held).count));
        Ok(self.converted(&held, (Element::F16, None), "halves", "Cast", layer))
    }

    /// What floats become by the quantisation behind an operator, if there is any.
    pub fn quantized(&mut self, held: Held, tail: &Tail) -> Held {
        match tail.grid {
            Some(grid) => self.on_grid(&held, grid),
            None => held,
        }
    }

    /// The value in bytes of `grid`, out of bytes of another or out of floats.
    pub fn on_grid(&mut self, held: &Held, grid: Grid) -> Held {
        let from = self.grid(held);
        if from.is_some_and(|f| (f.scale, f.zero) == (grid.scale, grid.zero)) {
            return held.clone();
        }
        let count = self.of(held).count;
        let layer: Box<dyn Layer> = match from {
            Some(from) => Box::new(Lookup::between(from, grid, count)),
            None => Box::new(Quantize::new(grid, count)),
        };
        let to = (Element::I8, Some(grid));
        self.converted(held, to, "bytes", "QuantizeLinear", layer)
    }

    /// The step of no node that gives a value other elements, in the order that it has.
    fn converted(
        &mut self,
        held: &Held,
        (element, grid): (Element, Option<Grid>),
        what: &str,
        op: &str,
        layer: Box<dyn Layer>,
    ) -> Held {
        let name = self.of(held).name.clone();
        let mut made = self.buffer(&format!("{name} ({what})"), element, &held.dims, grid);
        made.order.clone_from(&held.order);
        self.add(name, op.into(), &[held], &made, layer);
        made
    }
}
