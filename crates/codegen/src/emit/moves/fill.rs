//! Pad, Expand, Tile, Gather and blocks: numbers that are repeated, picked, put in another order or set in a frame.

use edgesmith_ir::{Error, NodeId, Result};

use super::{Copies, Fill, Moves, axis_of, ints, made, moved, ordered, put, steps, walk};
use crate::lower::{Held, Lowering};
use crate::program::Element;

/// Pad with a constant.
pub(in crate::emit) fn pad(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
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
pub(in crate::emit) fn expand(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    let dims = l.typed(y)?.1;
    let made = l.stretched(&x, &dims)?;
    l.hold(y, made);
    Ok(())
}

/// DepthToSpace and SpaceToDepth: blocks of channels against blocks of pixels.
pub(in crate::emit) fn blocks(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
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
    let made = made(l, y, &x, &dims);
    put(l, id, y, &x, made, vec![Copies::permute(&laid, &perm)])
}

/// Gather by constant indices: a copy for each run of them.
pub(in crate::emit) fn gather(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
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
    let made = made(l, y, &x, &dims);
    put(l, id, y, &x, made, copies)
}

/// Tile by constant counts.
pub(in crate::emit) fn tile(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
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
    let made = made(l, y, &x, &dims);
    put(l, id, y, &x, made, vec![copies])
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
