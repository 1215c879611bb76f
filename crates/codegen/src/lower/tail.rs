//! What follows an operator and becomes a part of its step: a Relu or Clip, and QuantizeLinear.

use edgesmith_ir::{DType, NodeId, Result, ValueId};

use super::Lowering;
use crate::program::Grid;

/// The least and the greatest number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    /// The least.
    pub lo: f32,
    /// The greatest.
    pub hi: f32,
}

impl Bounds {
    /// All numbers.
    pub const NONE: Self = Self {
        lo: f32::NEG_INFINITY,
        hi: f32::INFINITY,
    };

    /// As integers of 8 bits.
    pub fn bytes(self, grid: Grid) -> (i32, i32) {
        let of = |x: f32| {
            (f64::from(x) / f64::from(grid.scale)).round_ties_even() + f64::from(grid.zero)
        };
        let lo = of(self.lo).clamp(-128.0, 127.0) as i32;
        let hi = of(self.hi).clamp(-128.0, 127.0) as i32;
        (lo, hi.max(lo))
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tail {
    /// The nodes that are taken along.
    pub nodes: Vec<NodeId>,
    /// What the result is clamped to.
    pub bounds: Bounds,
    /// The value that the step makes.
    pub value: ValueId,
    /// Its integers, where it is quantised.
    pub grid: Option<Grid>,
}

impl Lowering<'_> {
    /// What follows value `y` and can be done by the step that makes it.
    pub fn tail(&self, y: ValueId) -> Tail {
        let mut tail = Tail {
            nodes: Vec::new(),
            bounds: Bounds::NONE,
            value: y,
            grid: None,
        };
        while let Some((id, lo, hi)) = self.clamp_after(tail.value) {
            tail.nodes.push(id);
            let Bounds { lo: l, hi: h } = tail.bounds;
            tail.bounds = Bounds {
                lo: l.clamp(lo, hi.max(lo)),
                hi: h.clamp(lo, hi.max(lo)),
            };
            if let Some(v) = self.graph.node(id).output(0) {
                tail.value = v;
            }
        }
        if let Some((id, grid, v)) = self.quantize_after(tail.value) {
            tail.nodes.push(id);
            tail.grid = Some(grid);
            tail.value = v;
        }
        tail
    }

    /// The one reader of a value that is no output.
    fn reader(&self, v: ValueId) -> Option<NodeId> {
        let (id, i) = self.graph.sole_consumer(v)?;
        (i == 0 && !self.graph.is_output(v)).then_some(id)
    }

    fn clamp_after(&self, v: ValueId) -> Option<(NodeId, f32, f32)> {
        let id = self.reader(v)?;
        let (lo, hi) = self.clamp(id)?;
        Some((id, lo, hi))
    }

    /// The bounds of a Relu or Clip.
    pub fn clamp(&self, id: NodeId) -> Option<(f32, f32)> {
        let node = self.graph.node(id);
        if node.is("Relu") {
            return Some((0.0, f32::INFINITY));
        }
        if !node.is("Clip") {
            return None;
        }
        let bound = |i: usize, name: &str, none: f32| match node.input(i) {
            Some(v) => self.floats(v)?.first().copied(),
            None => Some(node.float(name).unwrap_or(none)),
        };
        let lo = bound(1, "min", f32::NEG_INFINITY)?;
        let hi = bound(2, "max", f32::INFINITY)?;
        (!lo.is_nan() && !hi.is_nan()).then_some((lo, hi))
    }

    fn quantize_after(&self, v: ValueId) -> Option<(NodeId, Grid, ValueId)> {
        let id = self.reader(v)?;
        let node = self.graph.node(id);
        if !node.is("QuantizeLinear") {
            return None;
        }
        let grid = self.grid_of(id).ok()??;
        Some((id, grid, node.output(0)?))
    }

    /// The scale of the integers of 16 bits behind a value and a Relu or Clip, with what is taken along.
    pub fn tail16(&self, y: ValueId) -> Option<(Tail, f32)> {
        let tail = self.tail(y);
        let id = self.reader(tail.value).filter(|_| tail.grid.is_none())?;
        if !self.graph.node(id).is("QuantizeLinear") {
            return None;
        }
        let scale = self.scale16(id)?;
        let mut nodes = tail.nodes;
        nodes.push(id);
        let made = Tail {
            nodes,
            value: self.graph.node(id).output(0)?,
            ..tail
        };
        Some((made, scale))
    }

    /// The scale of a QuantizeLinear or DequantizeLinear of signed integers of 16 bits around 0.
    pub fn scale16(&self, id: NodeId) -> Option<f32> {
        let node = self.graph.node(id);
        let integers = match node.is("QuantizeLinear") {
            true => node.output(0)?,
            false => node.input(0)?,
        };
        let scale = self.floats(node.input(1)?)?;
        let zero = match node.input(2) {
            Some(v) => self.constant(v)?.to_i64().ok()?,
            None => vec![0],
        };
        let is_16 = self.typed(integers).ok()?.0 == DType::I16;
        match (scale.as_slice(), zero.as_slice()) {
            (&[scale], &[0]) if is_16 && scale.is_finite() && scale > 0.0 => Some(scale),
            _ => None,
        }
    }

    /// The grid of a QuantizeLinear or DequantizeLinear of 8 bits and one constant scale; `None` where
    /// it is another.
    pub fn grid_of(&self, id: NodeId) -> Result<Option<Grid>> {
        let node = self.graph.node(id);
        let integers = match node.is("QuantizeLinear") {
            true => node.output(0),
            false => node.input(0),
        };
        let Some(integers) = integers else {
            return Ok(None);
        };
        let dtype = self.typed(integers)?.0;
        let scale = node.input(1).and_then(|v| self.floats(v));
        let zero = match node.input(2) {
            Some(v) => self.constant(v).and_then(|t| t.to_i64().ok()),
            None => Some(vec![0]),
        };
        let (Some(scale), Some(zero)) = (scale, zero) else {
            return Ok(None);
        };
        let unsigned = dtype == DType::U8;
        let is_byte = unsigned || dtype == DType::I8;
        let (&[scale], &[zero]) = (scale.as_slice(), zero.as_slice()) else {
            return Ok(None);
        };
        let sound = is_byte && scale.is_finite() && scale > 0.0;
        Ok(sound.then(|| Grid {
            scale,
            zero: zero as i32 - if unsigned { 128 } else { 0 },
            unsigned,
        }))
    }
}
