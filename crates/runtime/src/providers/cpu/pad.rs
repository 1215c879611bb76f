//! Pad with a constant, in the layout in which the value is.

use edgesmith_ir::{NodeId, infer};

use super::activations::present_layout;
use crate::plan::{Kernel, Planner, in_memory};

/// Pad of floats by constant amounts that are not negative.
pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    if node.string("mode").is_some_and(|m| m != "constant") {
        return None;
    }
    let (x, y) = (node.input(0)?, node.output(0)?);
    let (own, dims) = (planner.float_dims(x)?, planner.float_dims(y)?);
    let begins = begins(planner, id, own.len())?;
    let fits = |i: usize| {
        begins[i]
            .checked_add(own[i])
            .is_some_and(|end| end <= dims[i])
    };
    if own.is_empty() || own.contains(&0) || !(0..own.len()).all(fits) {
        return None;
    }
    let value = match node.input(2) {
        Some(v) => *planner.floats(v)?.first()?,
        None => node.float("value").unwrap_or(0.0),
    };
    let layout = present_layout(planner, x);
    let read = planner.read_f32(x, layout)?;
    let [own, dims, begins] = [&own, &dims, &begins].map(|d| in_memory(d, layout));
    let work: Kernel = Box::new(move |_, x, y| {
        let y: &mut [f32] = bytemuck::cast_slice_mut(y[0]);
        y.fill(value);
        place(bytemuck::cast_slice(x[0]), &own, y, &dims, &begins);
    });
    planner.step_f32(id, &[id], (y, layout), "pad", vec![read], work)
}

/// How many elements come before each axis; nothing where any amount is negative or unknown.
fn begins(planner: &Planner, id: NodeId, rank: usize) -> Option<Vec<usize>> {
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
    if pads.len() != 2 * axes.len() || pads.iter().any(|&p| p < 0) {
        return None;
    }
    let mut begins = vec![0; rank];
    for (&axis, &pad) in axes.iter().zip(&pads) {
        begins[axis] = usize::try_from(pad).ok()?;
    }
    Some(begins)
}

/// Copies `x` of shape `own` into `y` of shape `dims`, from `begins` on.
fn place(x: &[f32], own: &[usize], y: &mut [f32], dims: &[usize], begins: &[usize]) {
    let inner = |d: &[usize]| d[1..].iter().product::<usize>();
    let (from, to) = (inner(own), inner(dims));
    let y = &mut y[begins[0] * to..];
    if own[1..] == dims[1..] {
        y[..x.len()].copy_from_slice(x);
        return;
    }
    for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
        place(x, &own[1..], y, &dims[1..], &begins[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_the_padding_ends() {
        let mut y = [9.0; 12];
        place(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &mut y, &[3, 4], &[1, 1]);
        let expected = [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 9.0];
        assert_eq!(y, expected);
    }
}
