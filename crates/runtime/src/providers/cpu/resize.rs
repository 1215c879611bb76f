//! Resize and Upsample of floats, and of bytes that are only picked, in the layout in which the value
//! is.

use edgesmith_ir::eval::EvalCx;
use edgesmith_ir::ops::resize::resized;
use edgesmith_ir::{DType, NodeId};
use edgesmith_kernels::resample::{Taps, resample};
use edgesmith_kernels::select::take;

use super::activations::present_layout;
use crate::plan::{Kernel, Layout, Planner, Spec, in_memory};

/// Axes that become longer have no table of what they read: it would be made before the limits of
/// a run are seen.
pub(crate) const LONGEST: usize = 1 << 20;

/// Orders axes so that nothing in between is larger than the input and the result.
fn shrinking_first(axes: &mut [(usize, Taps)], sizes: &[usize]) {
    axes.sort_by(|(a, new_a), (b, new_b)| {
        (new_a.len() * sizes[*b]).cmp(&(new_b.len() * sizes[*a]))
    });
}

/// By constant scales or sizes, where nothing lies outside of the input.
pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let ((dtype, dims), (_, to)) = (planner.typed(x)?, planner.typed(y)?);
    let is_bytes = matches!(dtype, DType::U8 | DType::I8);
    if !is_bytes {
        planner.float_dims(x)?;
    }
    if to.iter().any(|&n| n > LONGEST) {
        return None;
    }
    let mut inputs = vec![None];
    for v in &node.inputs()[1..] {
        inputs.push(match v {
            Some(v) => Some(planner.constant(*v)?.clone().into()),
            None => None,
        });
    }
    let cx = EvalCx::new(planner.model(), node, &inputs);
    let resized = resized(&cx, &dims).ok()?;
    let layout = present_layout(planner, x);
    let places: Vec<usize> = (0..dims.len()).collect();
    let (sizes, places) = (in_memory(&dims, layout), in_memory(&places, layout));
    let (mut axes, mut picked) = (Vec::new(), Vec::new());
    for (at, &axis) in places.iter().enumerate() {
        let Some(each) = &resized[axis].taps else {
            continue;
        };
        let mut taps = Taps::default();
        let whole = |element: &Vec<(i64, f64)>| match element[..] {
            [(i, 1.0)] => usize::try_from(i).ok().filter(|&i| i < dims[axis]),
            _ => None,
        };
        let one_each = each.iter().map(whole).collect::<Option<Vec<usize>>>();
        picked.push(one_each.map(|places| (at, places)));
        for element in each {
            if element.is_empty() {
                return None;
            }
            let mut found = Vec::new();
            for &(i, weight) in element {
                let i = usize::try_from(i).ok().filter(|&i| i < dims[axis])?;
                found.push((i, weight as f32));
            }
            taps.push(found);
        }
        axes.push((at, taps));
    }
    if axes.is_empty() || to.contains(&0) {
        return None;
    }
    if is_bytes {
        let picked = picked.into_iter().collect::<Option<_>>()?;
        return pick(planner, id, layout, sizes, picked);
    }
    shrinking_first(&mut axes, &sizes);
    let read = planner.read_f32(x, layout)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        resample(ctx, x, &sizes, &axes, y);
    });
    planner.step_f32(id, &[id], (y, layout), "resample", vec![read], work)
}

/// The step of node `id`, which picks places of bytes along axes, one axis after the other.
fn pick(
    planner: &mut Planner,
    id: NodeId,
    layout: Layout,
    mut sizes: Vec<usize>,
    axes: Vec<(usize, Vec<usize>)>,
) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let read = planner.read(x, layout)?;
    let mut writes = vec![planner.write(y, layout)?];
    let mut parts = Vec::new();
    for (i, (axis, places)) in axes.into_iter().enumerate() {
        if i > 0 {
            writes.push(planner.slot(sizes.iter().product()));
        }
        let block: usize = sizes[axis + 1..].iter().product();
        let length = std::mem::replace(&mut sizes[axis], places.len());
        parts.push(([length, block], places));
    }
    let work: Kernel = Box::new(move |ctx, x, w| {
        let Some((y, between)) = w.split_first_mut() else {
            return;
        };
        let mut from: &[u8] = x[0];
        let mut between = between.iter_mut();
        for (size, places) in &parts {
            // The last axis makes the result, those before it what is between.
            match between.next() {
                Some(to) => {
                    take(ctx, from, *size, places, to);
                    from = to;
                }
                None => take(ctx, from, *size, places, y),
            }
        }
    });
    let spec = Spec {
        kernel: "pick",
        integer: false,
        reads: vec![read],
        writes,
        makes: vec![(y, layout)],
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_that_shrinks_goes_first() {
        let of_length = |n: usize| {
            let mut taps = Taps::default();
            (0..n).for_each(|_| taps.push([(0, 1.0)]));
            taps
        };
        let mut axes = [(0, of_length(900)), (1, of_length(2))];
        shrinking_first(&mut axes, &[30, 1000]);
        assert_eq!(axes.map(|a| a.0), [1, 0]);
    }
}
