//! Transpose, Reshape and their kin: mostly only another way to read what is there.

use edgesmith_ir::{Error, NodeId, Result, ValueId};

use super::Call;
use crate::lower::{Held, Lowering};
use crate::program::{Data, Element, Layer};

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
        let steps = steps(laid);
        let dims: Vec<usize> = perm.iter().map(|&p| laid[p]).collect();
        let copies = Copies {
            from: perm.iter().map(|&p| steps[p]).collect(),
            to: self::steps(&dims),
            dims,
            first: 0,
            at: 0,
        };
        Self {
            element,
            copies: vec![copies],
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

/// Transpose: the order of axes in memory stays as it is.
pub(crate) fn transpose(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let rank = x.dims.len();
    let perm: Vec<usize> = match node.ints("perm") {
        Some(perm) => perm.iter().map(|&p| p as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let mut order = Vec::with_capacity(rank);
    for &axis in &x.order {
        let place = perm.iter().position(|&p| p == axis);
        order.push(place.ok_or_else(|| Error::invalid("perm does not name every axis"))?);
    }
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    l.hold(
        y,
        Held {
            buffer: x.buffer,
            dims,
            order,
        },
    );
    Ok(())
}

/// Reshape, Flatten, Squeeze, Unsqueeze.
pub(crate) fn reshape(l: &mut Lowering, id: NodeId) -> Result<()> {
    l.reshaped(id)
}

/// Identity, Dropout, and casts to the same type.
pub(crate) fn identity(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    if node.is("Dropout")
        && node
            .output(1)
            .is_some_and(|m| !l.graph.value(m).consumers().is_empty())
    {
        return Err(Error::unsupported("the mask of Dropout is read"));
    }
    if node.is("Dropout") && node.input(2).is_some() {
        let off = node.input(2).and_then(|v| l.constant(v)?.bools().ok());
        if off != Some(vec![false]) {
            return Err(Error::unsupported("a Dropout of training has no emitter"));
        }
    }
    l.hold(y, x);
    Ok(())
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

/// The result of moving what is in `x`, in the order of `x`.
fn moved(l: &mut Lowering, v: ValueId, x: &Held, dims: &[usize]) -> Held {
    let (element, grid) = (l.of(x).element, l.of(x).grid);
    let name = l.graph.value(v).name.clone();
    let mut made = l.buffer(&name, element, dims, grid);
    made.order.clone_from(&x.order);
    made
}

/// Concat: inputs one behind the other along an axis, all in one grid.
pub(crate) fn concat(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let dims = l.typed(y)?.1;
    let axis = axis_of(node.int("axis").unwrap_or(0), dims.len())?;
    let tail = l.tail(y);
    let count = node.inputs().len();
    let mut parts = Vec::with_capacity(count);
    for i in 0..count {
        parts.push(l.read(id, i)?);
    }
    let first = parts
        .first()
        .cloned()
        .ok_or_else(|| Error::invalid("it has no inputs"))?;
    let as_bytes = parts.iter().all(|p| l.grid(p).is_some());
    let grid = match as_bytes {
        true => tail.grid.or_else(|| l.grid(&first)),
        false => None,
    };
    let mut laid = Vec::with_capacity(count);
    for part in &parts {
        let part = match grid {
            Some(grid) => l.to_grid(part, grid),
            None => l.float(part)?,
        };
        laid.push(l.ordered(&part, &first.order));
    }
    let element = l.of(&laid[0]).element;
    let mut at = 0;
    let mut copies = Vec::with_capacity(count);
    for part in &laid {
        let (from, to) = walk(part, &dims, &first.order);
        copies.push(ordered(
            &first.order,
            &part.dims,
            &from,
            &to,
            0,
            at * to[axis],
        ));
        at += part.dims[axis] as isize;
    }
    let layer = Moves::new(element, copies, None)?;
    let plain = tail.bounds == crate::lower::Bounds::NONE;
    let value = if grid.is_some() && tail.grid.is_some() && plain {
        tail.value
    } else {
        y
    };
    let name = l.graph.value(value).name.clone();
    let mut made = l.buffer(&name, element, &dims, grid);
    made.order.clone_from(&first.order);
    let reads: Vec<&Held> = laid.iter().collect();
    l.step(id, &reads, &made, layer);
    if value == y {
        l.hold(y, made);
    } else {
        l.finish(&tail, made);
    }
    Ok(())
}

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

/// Slice by constant starts, ends and steps.
pub(crate) fn slice(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let starts = ints(l, id, 1, "starts")?.ok_or_else(|| Error::invalid("it has no starts"))?;
    let axes = ints(l, id, 3, "axes")?;
    let jumps = ints(l, id, 4, "steps")?;
    let dims = l.typed(y)?.1;
    let (mut from, to) = walk(&x, &dims, &x.order);
    let mut first = 0;
    for (i, &start) in starts.iter().enumerate() {
        let named = axes.as_ref().map_or(i as i64, |a| a[i]);
        let axis = axis_of(named, x.dims.len())?;
        let length = x.dims[axis] as i64;
        let jump = jumps.as_ref().map_or(1, |j| j[i]);
        let start = if start < 0 { start + length } else { start };
        let start = start.clamp(0, if jump < 0 { length - 1 } else { length });
        first += start as isize * from[axis];
        from[axis] *= jump as isize;
    }
    let made = moved(l, y, &x, &dims);
    let copies = ordered(&x.order, &dims, &from, &to, first, 0);
    let layer = Moves::new(l.of(&x).element, vec![copies], None)?;
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// Split: one slice for each output.
pub(crate) fn split(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let axis = axis_of(node.int("axis").unwrap_or(0), x.dims.len())?;
    let mut at = 0;
    for &y in node.outputs().iter().flatten() {
        let dims = l.typed(y)?.1;
        let (from, to) = walk(&x, &dims, &x.order);
        let copies = ordered(&x.order, &dims, &from, &to, at * from[axis], 0);
        at += dims[axis] as isize;
        if l.graph.value(y).consumers().is_empty() && !l.graph.is_output(y) {
            continue;
        }
        let made = moved(l, y, &x, &dims);
        let layer = Moves::new(l.of(&x).element, vec![copies], None)?;
        l.step(id, &[&x], &made, layer);
        l.hold(y, made);
    }
    Ok(())
}

/// Pad with a constant.
pub(crate) fn pad(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let mut x = l.read(id, 0)?;
    if l.of(&x).element == Element::F16 {
        x = l.float(&x)?;
    }
    let mode = node.string("mode").unwrap_or("constant");
    if mode != "constant" {
        return Err(Error::unsupported(format!("mode {mode} has no emitter")));
    }
    let pads = ints(l, id, 1, "pads")?.ok_or_else(|| Error::invalid("it has no pads"))?;
    let axes = match node.input(3) {
        Some(_) => ints(l, id, 3, "axes")?.unwrap_or_default(),
        None => (0..x.dims.len() as i64).collect(),
    };
    let number = match node.input(2) {
        Some(v) => l.floats(v).and_then(|f| f.first().copied()),
        None => Some(node.float("value").unwrap_or(0.0)),
    };
    let number =
        number.ok_or_else(|| Error::unsupported("the number that it pads with is computed"))?;
    let dims = l.typed(y)?.1;
    let (from, to) = walk(&x, &dims, &x.order);
    let (mut first, mut at) = (0, 0);
    let mut kept = x.dims.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, x.dims.len())?;
        let (before, after) = (pads[i], pads[i + axes.len()]);
        first += before.min(0).unsigned_abs() as isize * from[axis];
        at += before.max(0) as isize * to[axis];
        let cut = before.min(0) + after.min(0);
        kept[axis] = usize::try_from(kept[axis] as i64 + cut).unwrap_or(0);
    }
    let fill = match l.grid(&x) {
        Some(grid) => Fill::I8(grid.integer(number)),
        None if l.of(&x).element == Element::F32 => Fill::F32(number),
        None => {
            return Err(Error::unsupported(
                "only floats and quantised bytes are padded",
            ));
        }
    };
    let made = moved(l, y, &x, &dims);
    let copies = ordered(&x.order, &kept, &from, &to, first, at);
    let layer = Moves::new(l.of(&x).element, vec![copies], Some(fill))?;
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// Expand: axes of length 1 are repeated.
pub(crate) fn expand(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let dims = l.typed(y)?.1;
    let made = l.stretched(&x, &dims)?;
    l.hold(y, made);
    Ok(())
}

/// DepthToSpace and SpaceToDepth: blocks of channels against blocks of pixels.
pub(crate) fn blocks(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let b = usize::try_from(node.int("blocksize").unwrap_or(0)).unwrap_or(0);
    let dims = l.typed(y)?.1;
    let (&[n, c, h, w], true) = (x.dims.as_slice(), b > 0) else {
        return Err(Error::invalid("it takes an image and a block size"));
    };
    let x = l.row_major(&x);
    // Lengths in memory, and for each axis of the result in row-major order the axis that it is.
    let (laid, perm) = match node.op.as_str() {
        "SpaceToDepth" => (vec![n, c, h / b, b, w / b, b], [0, 3, 5, 1, 2, 4]),
        _ if node.string("mode") == Some("CRD") => {
            (vec![n, c / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3])
        }
        _ => (vec![n, b, b, c / (b * b), h, w], [0, 3, 4, 1, 5, 2]),
    };
    let element = l.of(&x).element;
    let whole = Moves::permute(element, &laid, &perm);
    let layer = Moves::new(element, whole.copies, None)?;
    let grid = l.of(&x).grid;
    let name = l.graph.value(y).name.clone();
    let made = l.buffer(&name, element, &dims, grid);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// Gather by constant indices: a copy for each run of them.
pub(crate) fn gather(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let axis = axis_of(node.int("axis").unwrap_or(0), x.dims.len())?;
    let indices = node.input(1).and_then(|v| l.constant(v));
    let indices = indices.ok_or_else(|| Error::unsupported("its indices are computed"))?;
    let dims = l.typed(y)?.1;
    let length = x.dims[axis] as i64;
    let numbers: Vec<i64> = indices
        .to_i64()?
        .iter()
        .map(|&i| if i < 0 { i + length } else { i })
        .collect();
    if numbers.iter().any(|i| !(0..length).contains(i)) {
        return Err(Error::invalid("an index is out of range"));
    }
    let x = l.row_major(&x);
    let (before, after) = x.dims.split_at(axis);
    let outer: usize = before.iter().product();
    let inner: usize = after[1..].iter().product();
    let (far, wide) = (
        (x.dims[axis] * inner) as isize,
        (numbers.len() * inner) as isize,
    );
    let mut copies = Vec::new();
    let mut at = 0;
    while at < numbers.len() {
        let run = numbers[at..]
            .windows(2)
            .take_while(|w| w[1] == w[0] + 1)
            .count()
            + 1;
        copies.push(Copies {
            dims: vec![outer, run * inner],
            from: vec![far, 1],
            to: vec![wide, 1],
            first: numbers[at] as usize * inner,
            at: at * inner,
        });
        at += run;
    }
    let element = l.of(&x).element;
    let layer = Moves::new(element, copies, None)?;
    let grid = l.of(&x).grid;
    let name = l.graph.value(y).name.clone();
    let made = l.buffer(&name, element, &dims, grid);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// Tile by constant counts.
pub(crate) fn tile(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = node
        .output(0)
        .ok_or_else(|| Error::invalid("it has no output"))?;
    let x = l.read(id, 0)?;
    let counts = ints(l, id, 1, "repeats")?.ok_or_else(|| Error::invalid("it has no counts"))?;
    let dims = l.typed(y)?.1;
    let x = l.row_major(&x);
    let (own, far) = (steps(&x.dims), steps(&dims));
    let (mut lengths, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &count) in counts.iter().enumerate() {
        lengths.extend([usize::try_from(count).unwrap_or(0), x.dims[i]]);
        from.extend([0, own[i]]);
        to.extend([far[i] * x.dims[i] as isize, far[i]]);
    }
    let copies = Copies {
        dims: lengths,
        from,
        to,
        first: 0,
        at: 0,
    };
    let element = l.of(&x).element;
    let layer = Moves::new(element, vec![copies], None)?;
    let grid = l.of(&x).grid;
    let name = l.graph.value(y).name.clone();
    let made = l.buffer(&name, element, &dims, grid);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

impl Lowering<'_> {
    /// The value repeated to lengths `dims`, in row-major order; itself where it has them.
    pub fn stretched(&mut self, x: &Held, dims: &[usize]) -> Result<Held> {
        if x.dims == dims {
            return Ok(x.clone());
        }
        let lead = dims.len() - x.dims.len();
        let (own, _) = walk(x, &x.dims, &x.order);
        let from: Vec<isize> = (0..dims.len())
            .map(|a| match a.checked_sub(lead) {
                Some(i) if x.dims[i] != 1 => own[i],
                _ => 0,
            })
            .collect();
        let copies = Copies {
            dims: dims.to_vec(),
            from,
            to: steps(dims),
            first: 0,
            at: 0,
        };
        let (element, grid, name) = {
            let b = self.of(x);
            (b.element, b.grid, b.name.clone())
        };
        let made = self.buffer(&format!("{name} (repeated)"), element, dims, grid);
        let layer = Moves::new(element, vec![copies], None)?;
        self.add(name, "Expand".into(), &[x], &made, Box::new(layer));
        Ok(made)
    }
}
