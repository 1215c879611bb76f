//! Steps between integers and floats that operators ask for.

use edgesmith_ir::{Error, Result};

use super::{Held, Lowering, Tail};
use crate::emit::half::FromHalf;
use crate::emit::int16::{Dequantize16, Quantize16};
use crate::emit::quantize::{Dequantize, Lookup, Quantize};
use crate::program::{Element, Grid};

impl Lowering<'_> {
    /// The value in floats.
    ///
    /// # Errors
    /// When it is of integers that stand for no floats.
    pub fn float(&mut self, held: &Held) -> Result<Held> {
        let Some(grid) = self.grid(held) else {
            let buffer = self.of(held);
            if buffer.element == Element::F32 {
                return Ok(held.clone());
            }
            if buffer.element == Element::F16 {
                let name = buffer.name.clone();
                let mut made =
                    self.buffer(&format!("{name} (floats)"), Element::F32, &held.dims, None);
                made.order = held.order.clone();
                let layer = FromHalf(made.dims.iter().product());
                self.add(name, "Cast".into(), &[held], &made, Box::new(layer));
                return Ok(made);
            }
            if let (Element::I16, Some(grid)) = (buffer.element, buffer.grid) {
                return Ok(self.float16(held, grid));
            }
            return Err(Error::unsupported(format!(
                "\"{}\" is of integers without a scale: code computes on floats and on quantised bytes",
                buffer.name
            )));
        };
        let name = self.of(held).name.clone();
        let mut made = self.buffer(&format!("{name} (floats)"), Element::F32, &held.dims, None);
        made.order = held.order.clone();
        self.add(
            name,
            "DequantizeLinear".into(),
            &[held],
            &made,
            Box::new(Dequantize::new(grid, made.dims.iter().product())),
        );
        Ok(made)
    }

    fn float16(&mut self, held: &Held, grid: Grid) -> Held {
        let name = self.of(held).name.clone();
        let mut made = self.buffer(&format!("{name} (floats)"), Element::F32, &held.dims, None);
        made.order = held.order.clone();
        let layer = Dequantize16::new(grid.scale, made.dims.iter().product());
        self.add(
            name,
            "DequantizeLinear".into(),
            &[held],
            &made,
            Box::new(layer),
        );
        made
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
        let name = self.of(&held).name.clone();
        let mut made = self.buffer(
            &format!("{name} (16 bits)"),
            Element::I16,
            &held.dims,
            Some(grid),
        );
        made.order = held.order.clone();
        let layer = Quantize16::new(scale, made.dims.iter().product());
        self.add(
            name,
            "QuantizeLinear".into(),
            &[&held],
            &made,
            Box::new(layer),
        );
        Ok(made)
    }

    /// What floats become by the quantisation behind an operator, if there is any.
    pub fn quantized(&mut self, held: Held, tail: &Tail) -> Held {
        match tail.grid {
            Some(grid) => self.on_grid(&held, grid),
            None => held,
        }
    }

    /// The value in integers of `grid`.
    pub fn on_grid(&mut self, held: &Held, grid: Grid) -> Held {
        let from = self.grid(held);
        if from.is_some_and(|f| (f.scale, f.zero) == (grid.scale, grid.zero)) {
            return held.clone();
        }
        let name = self.of(held).name.clone();
        let mut made = self.buffer(
            &format!("{name} (bytes)"),
            Element::I8,
            &held.dims,
            Some(grid),
        );
        made.order = held.order.clone();
        let count = made.dims.iter().product();
        let op = "QuantizeLinear".into();
        match from {
            Some(from) => {
                let layer = Lookup::between(from, grid, count);
                self.add(name, op, &[held], &made, Box::new(layer));
            }
            None => {
                let layer = Quantize::new(grid, count);
                self.add(name, op, &[held], &made, Box::new(layer));
            }
        }
        made
    }
}
