//! Pad in the layout in which the value is.

use std::ops::Range;

use edgesmith_ir::ops::pad::sources;
use edgesmith_ir::{DType, NodeId, infer};

use super::activations::present_layout;
use super::resize::LONGEST;
use crate::plan::{Kernel, Planner, Spec, in_memory};

/// Pad of floats or bytes by constant amounts.
pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let mode = node.string("mode").unwrap_or("constant").to_string();
    let (x, y) = (node.input(0)?, node.output(0)?);
    let ((dtype, own), (_, dims)) = (planner.typed(x)?, planner.typed(y)?);
    let is_bytes = matches!(dtype, DType::U8 | DType::I8);
    if !is_bytes {
        planner.float_dims(x)?;
    }
    let amounts = amounts(planner, id, own.len())?;
    let made = planner.typed(y)?.1;
    let grown = |(&n, &(a, b)): (&usize, &(i64, i64))| n as i128 + i128::from(a) + i128::from(b);
    let lengths = made.iter().map(|&n| n as i128);
    if !own.iter().zip(&amounts).map(grown).eq(lengths) {
        return None;
    }
    if dims.iter().any(|&n| n > LONGEST) {
        return None;
    }
    let layout = present_layout(planner, x);
    let places: Vec<usize> = (0..own.len()).collect();
    let (sizes, places) = (in_memory(&own, layout), in_memory(&places, layout));
    let mut axes = Vec::new();
    for (i, &axis) in places.iter().enumerate() {
        let inner: usize = sizes[i + 1..].iter().product();
        let parts = if amounts[axis] == (0, 0) {
            vec![Part::Shown(0..own[axis])]
        } else {
            let shown = sources(own[axis], amounts[axis], &mode).ok()?;
            parts(&shown)
        };
        axes.push(Axis { parts, inner });
    }
    // Axes behind the last that is padded are copied as they are.
    while axes.len() > 1 && axes.last()?.is_whole(own[places[axes.len() - 1]]) {
        axes.pop();
    }
    if axes.is_empty() {
        return None;
    }
    if is_bytes {
        let value = match node.input(2) {
            Some(v) => *planner.constant(v)?.bytes().first()?,
            None => 0,
        };
        let read = planner.read(x, layout)?;
        let write = planner.write(y, layout)?;
        let work: Kernel = Box::new(move |_, x, y| {
            place(&axes, x[0], y[0], value);
        });
        let spec = Spec {
            kernel: "pad",
            integer: false,
            reads: vec![read],
            writes: vec![write],
            makes: vec![(y, layout)],
            work,
        };
        planner.step(id, &[id], spec);
        return Some(());
    }
    let value = match node.input(2) {
        Some(v) => *planner.floats(v)?.first()?,
        None => node.float("value").unwrap_or(0.0),
    };
    let read = planner.read_f32(x, layout)?;
    let work: Kernel = Box::new(move |_, x, y| {
        let y: &mut [f32] = bytemuck::cast_slice_mut(y[0]);
        place(&axes, bytemuck::cast_slice(x[0]), y, value);
    });
    planner.step_f32(id, &[id], (y, layout), "pad", vec![read], work)
}

/// Elements before and after each axis; nothing where they are unknown.
fn amounts(planner: &Planner, id: NodeId, rank: usize) -> Option<Vec<(i64, i64)>> {
    let node = planner.graph().node(id);
    let pads = match node.input(1) {
        Some(v) => planner.constant(v)?.to_i64().ok()?,
        None => node.ints("pads")?.to_vec(),
    };
    let axes: Vec<usize> = match node.input(3) {
        Some(v) => {
            let axes = planner.constant(v)?.to_i64().ok()?;
            let axes = axes.into_iter().map(|a| infer::axis(a, rank).ok());
            axes.collect::<Option<_>>()?
        }
        None => (0..rank).collect(),
    };
    let n = axes.len();
    if pads.len() != 2 * n {
        return None;
    }
    let mut amounts = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        amounts[axis] = (pads[i], pads[n + i]);
    }
    Some(amounts)
}

/// A part of a padded axis.
#[derive(Debug, PartialEq)]
enum Part {
    /// These indices of the input, one after another.
    Shown(Range<usize>),
    /// So many constants.
    Constant(usize),
}

/// An axis of the result.
struct Axis {
    parts: Vec<Part>,
    /// Elements of an index of the input.
    inner: usize,
}

impl Axis {
    fn is_whole(&self, len: usize) -> bool {
        self.parts == [Part::Shown(0..len)]
    }
}

/// The parts of an axis of which each index shows one of the input or the constant.
fn parts(shown: &[Option<usize>]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for &at in shown {
        match (parts.last_mut(), at) {
            (Some(Part::Shown(range)), Some(at)) if range.end == at => range.end += 1,
            (Some(Part::Constant(n)), None) => *n += 1,
            (_, Some(at)) => parts.push(Part::Shown(at..at + 1)),
            (_, None) => parts.push(Part::Constant(1)),
        }
    }
    parts
}

/// Fills the start of `y` with the padded `x`; what is left of `y` is given back.
fn place<'y, T: Copy>(axes: &[Axis], x: &[T], mut y: &'y mut [T], value: T) -> &'y mut [T] {
    let (axis, within) = (&axes[0], &axes[1..]);
    // Elements of an index of the result.
    let wide = within.iter().rev().fold(None, |wide, a| {
        let count = a.parts.iter().map(Part::len).sum::<usize>();
        Some(count * wide.unwrap_or(a.inner))
    });
    for part in &axis.parts {
        match (part, wide) {
            (Part::Constant(n), wide) => {
                let (to, rest) = y.split_at_mut(n * wide.unwrap_or(axis.inner));
                to.fill(value);
                y = rest;
            }
            (Part::Shown(range), None) => {
                let from = &x[range.start * axis.inner..range.end * axis.inner];
                let (to, rest) = y.split_at_mut(from.len());
                to.copy_from_slice(from);
                y = rest;
            }
            (Part::Shown(range), Some(_)) => {
                for i in range.clone() {
                    y = place(within, &x[i * axis.inner..][..axis.inner], y, value);
                }
            }
        }
    }
    y
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Shown(range) => range.len(),
            Part::Constant(n) => *n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(inner: usize, shown: &[Option<usize>]) -> Axis {
        Axis {
            parts: parts(shown),
            inner,
        }
    }

    #[test]
    fn indices_that_follow_each_other_are_one_part() {
        let shown = [Some(1), Some(0), Some(1), Some(2), None, None];
        let expected = [Part::Shown(1..2), Part::Shown(0..3), Part::Constant(2)];
        assert_eq!(parts(&shown), expected);
    }

    #[test]
    fn rows_stand_where_the_padding_ends() {
        let mut y = [9.0; 12];
        let axes = [
            axis(2, &[None, Some(0), Some(1)]),
            axis(1, &[None, Some(0), Some(1), Some(0)]),
        ];
        let rest = place(&axes, &[1.0, 2.0, 3.0, 4.0], &mut y, 7.0);
        assert!(rest.is_empty());
        let expected = [7.0, 7.0, 7.0, 7.0, 7.0, 1.0, 2.0, 1.0, 7.0, 3.0, 4.0, 3.0];
        assert_eq!(y, expected);
    }
}
