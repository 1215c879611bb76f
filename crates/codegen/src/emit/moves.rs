//! Operators that only move numbers: copies along axes, and how they are walked.

use edgesmith_ir::{Error, NodeId, Result, ValueId};

use super::Call;
use crate::lower::{Held, Lowering};
use crate::program::{Data, Element, Layer};

mod fill;
mod join;
mod views;

pub(super) use fill::{blocks, expand, gather, pad, tile};
pub(super) use join::{concat, slice, split};
pub(super) use views::{identity, reshape, transpose};

/// Numbers that are copied from a place to another: along each axis so many, with steps on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copies {
    pub dims: Vec<usize>,
    /// Elements from one to the next in what is read.
    pub from: Vec<isize>,
    /// Elements from one to the next in what is made.
    pub to: Vec<isize>,
    /// The first element that is read.
    pub first: usize,
    /// The first element that is made.
    pub at: usize,
}

/// Axes that a kernel walks.
const AXES: usize = 5;

impl Copies {
    /// Axis `i` of the result is axis `perm[i]` of what is read, of lengths `laid`.
    fn permute(laid: &[usize], perm: &[usize]) -> Self {
        let own = steps(laid);
        let dims: Vec<usize> = perm.iter().map(|&p| laid[p]).collect();
        Self {
            from: perm.iter().map(|&p| own[p]).collect(),
            to: steps(&dims),
            dims,
            first: 0,
            at: 0,
        }
    }

    /// The same with axes that run on joined, and those of length 1 gone.
    pub fn joined(&self) -> Self {
        let mut made = Self {
            dims: Vec::new(),
            from: Vec::new(),
            to: Vec::new(),
            ..*self
        };
        for (i, &d) in self.dims.iter().enumerate().filter(|(_, d)| **d != 1) {
            let (f, t) = (self.from[i], self.to[i]);
            let n = made.dims.len();
            let length = d as isize;
            if n > 0 && made.from[n - 1] == f * length && made.to[n - 1] == t * length {
                made.dims[n - 1] *= d;
                (made.from[n - 1], made.to[n - 1]) = (f, t);
            } else {
                made.dims.push(d);
                made.from.push(f);
                made.to.push(t);
            }
        }
        made
    }

    /// Pairs of places: read, made.
    fn places(&self) -> Vec<(usize, usize)> {
        let mut all = vec![(self.first as isize, self.at as isize)];
        for (i, &d) in self.dims.iter().enumerate() {
            let (f, t) = (self.from[i], self.to[i]);
            all = all
                .iter()
                .flat_map(|&(a, b)| (0..d as isize).map(move |n| (a + n * f, b + n * t)))
                .collect();
        }
        all.iter().map(|&(a, b)| (a as usize, b as usize)).collect()
    }

    /// The statement in C.
    fn emit(&self, call: &mut Call, bytes: usize, x: &str, y: &str, part: usize) -> String {
        let mut joined = self.joined();
        let mut run = bytes;
        if joined.from.last() == Some(&1) && joined.to.last() == Some(&1) {
            run = bytes * joined.dims.pop().unwrap_or(1);
            joined.from.pop();
            joined.to.pop();
        }
        let from = format!("{x} + {}", self.first);
        let to = format!("{y} + {}", self.at);
        if joined.dims.is_empty() {
            return format!("(void)memcpy({to}, {from}, {run}u);");
        }
        let pad = AXES.saturating_sub(joined.dims.len());
        let steps = |v: &[isize]| {
            let all = std::iter::repeat_n(0, pad).chain(v.iter().map(|s| s * bytes as isize));
            all.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
        };
        let sizes = std::iter::repeat_n(1, pad).chain(joined.dims.iter().copied());
        let sizes: Vec<String> = sizes.map(|n| n.to_string()).collect();
        let fields = format!(
            ".size = {{{}}}, .from = {{{}}}, .to = {{{}}}, .bytes = {run}",
            sizes.join(", "),
            steps(&joined.from),
            steps(&joined.to)
        );
        let layer = call.parameters_of("move", &fields, part);
        let f = call.kernel("move_bytes");
        format!("{f}(&{layer}, {from}, {to});")
    }

    /// Whether a kernel can walk it.
    fn fits(&self) -> bool {
        let joined = self.joined();
        let runs = joined.from.last() == Some(&1) && joined.to.last() == Some(&1);
        joined.dims.len() <= AXES + usize::from(runs)
    }
}

/// Copies out of one or more buffers.
pub(crate) struct Moves {
    element: Element,
    /// Of each buffer that is read.
    copies: Vec<Copies>,
    /// What is where nothing is copied.
    fill: Option<Fill>,
}

/// A number everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fill {
    /// A byte.
    I8(i8),
    /// A float.
    F32(f32),
}

impl Moves {
    /// Axis `i` of the result is axis `perm[i]` of what is read, of lengths `laid`.
    pub fn permute(element: Element, laid: &[usize], perm: &[usize]) -> Self {
        Self {
            element,
            copies: vec![Copies::permute(laid, perm)],
            fill: None,
        }
    }

    /// What is copied; an error where it has too many axes for the kernel.
    pub fn new(element: Element, copies: Vec<Copies>, fill: Option<Fill>) -> Result<Self> {
        if copies.iter().all(Copies::fits) {
            return Ok(Self {
                element,
                copies,
                fill,
            });
        }
        Err(Error::unsupported(format!(
            "numbers that move along more than {AXES} axes"
        )))
    }
}

/// Elements from one to the next along each axis of row-major lengths.
pub(crate) fn steps(dims: &[usize]) -> Vec<isize> {
    let mut steps = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        steps[i - 1] = steps[i] * dims[i] as isize;
    }
    steps
}

impl Layer for Moves {
    fn kernel(&self) -> &'static str {
        "move_bytes"
    }

    fn emit(&self, call: &mut Call) -> String {
        let bytes = self.element.bytes();
        let y = call.write.clone();
        let mut text = Vec::new();
        match self.fill {
            Some(Fill::I8(q)) => {
                let count = call.count;
                text.push(format!("(void)memset({y}, {q}, {count}u);"));
            }
            Some(Fill::F32(x)) => {
                let f = call.kernel("fill_f32");
                text.push(format!("{f}({}, {}, {y});", call.count, super::c_float(x)));
            }
            None => {}
        }
        for (i, copies) in self.copies.iter().enumerate() {
            if copies.dims.contains(&0) {
                continue;
            }
            let x = call.reads[i.min(call.reads.len() - 1)].clone();
            text.push(copies.emit(call, bytes, &format!("({x})"), &format!("({y})"), i));
        }
        text.join("\n")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        match (self.fill, &mut *write) {
            (Some(Fill::I8(q)), Data::I8(y)) => y.fill(q),
            (Some(Fill::F32(x)), Data::F32(y)) => y.fill(x),
            _ => {}
        }
        for (i, copies) in self.copies.iter().enumerate() {
            for (a, b) in copies.places() {
                match (reads[i.min(reads.len() - 1)], &mut *write) {
                    (Data::I8(x), Data::I8(y)) => y[b] = x[a],
                    (Data::I16(x), Data::I16(y)) => y[b] = x[a],
                    (Data::I32(x), Data::I32(y)) => y[b] = x[a],
                    (Data::F32(x), Data::F32(y)) => y[b] = x[a],
                    (Data::F16(x), Data::F16(y)) => y[b] = x[a],
                    _ => {}
                }
            }
        }
    }
}

/// Steps on both sides for a value held as `from` that is read into one of lengths `to` in the order
/// `order`: along each axis of the graph.
fn walk(x: &Held, dims: &[usize], order: &[usize]) -> (Vec<isize>, Vec<isize>) {
    let of = |order: &[usize], dims: &[usize]| {
        let laid: Vec<usize> = order.iter().map(|&a| dims[a]).collect();
        let mut by_axis = vec![0; dims.len()];
        for (&axis, step) in order.iter().zip(steps(&laid)) {
            by_axis[axis] = step;
        }
        by_axis
    };
    (of(&x.order, &x.dims), of(order, dims))
}

/// Copies of lengths `dims`, given by axes of the graph, walked as the result lies in memory.
fn ordered(
    order: &[usize],
    dims: &[usize],
    from: &[isize],
    to: &[isize],
    first: isize,
    at: isize,
) -> Copies {
    Copies {
        dims: order.iter().map(|&a| dims[a]).collect(),
        from: order.iter().map(|&a| from[a]).collect(),
        to: order.iter().map(|&a| to[a]).collect(),
        first: first as usize,
        at: at as usize,
    }
}

/// A buffer for `v` in row-major order, of the elements of `x`.
fn made(l: &mut Lowering, v: ValueId, x: &Held, dims: &[usize]) -> Held {
    let (element, grid) = (l.of(x).element, l.of(x).grid);
    let name = l.graph.value(v).name.clone();
    l.buffer(&name, element, dims, grid)
}

/// The same in the order of `x`.
fn moved(l: &mut Lowering, v: ValueId, x: &Held, dims: &[usize]) -> Held {
    let mut made = made(l, v, x, dims);
    made.order.clone_from(&x.order);
    made
}

/// Ends a node whose output `v` is copied out of `x` into `made`.
fn put(
    l: &mut Lowering,
    id: NodeId,
    v: ValueId,
    x: &Held,
    made: Held,
    copies: Vec<Copies>,
) -> Result<()> {
    let layer = Moves::new(l.of(x).element, copies, None)?;
    l.step(id, &[x], &made, layer);
    l.hold(v, made);
    Ok(())
}

/// The axis that `axis` names among `rank`, from the end where it is negative.
fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(at).ok().filter(|&a| a < rank);
    found.ok_or_else(|| Error::invalid(format!("axis {axis} is none of {rank}")))
}

/// The integers of a constant input, or of an attribute of older versions.
fn ints(l: &Lowering, id: NodeId, i: usize, name: &str) -> Result<Option<Vec<i64>>> {
    let node = l.graph.node(id);
    match node.input(i) {
        Some(v) => {
            let t = l.constant(v).ok_or_else(|| {
                Error::unsupported(format!(
                    "input {i} is computed: its result has no fixed shape"
                ))
            })?;
            Ok(Some(t.to_i64()?))
        }
        None => Ok(node.ints(name).map(<[i64]>::to_vec)),
    }
}
