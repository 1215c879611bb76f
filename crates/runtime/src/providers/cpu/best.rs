//! ArgMax and ArgMin of floats.

use edgesmith_ir::{NodeId, infer};
use edgesmith_kernels::select::{Best, places_of_best};

use super::activations::present_layout;
use crate::plan::{Layout, Planner, Spec};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let axis = infer::axis(node.int("axis").unwrap_or(0), dims.len()).ok()?;
    let width = dims[axis];
    if width == 0 || i32::try_from(width).is_err() {
        return None;
    }
    let best = Best {
        largest: node.op == "ArgMax",
        last: node.int("select_last_index").unwrap_or(0) != 0,
    };
    // Lines of channels-last images are pixels, in the order of the result.
    let layout = match present_layout(planner, x) {
        Layout::Last if dims.len() > 2 && axis == 1 => Layout::Last,
        _ => Layout::Plain,
    };
    let inner = match layout {
        Layout::Last => 1,
        Layout::Plain => dims[axis + 1..].iter().product(),
    };
    let read = planner.read_f32(x, layout)?;
    let write = planner.write(y, Layout::Plain)?;
    let spec = Spec {
        kernel: "best",
        integer: false,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(y, Layout::Plain)],
        work: Box::new(move |ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            places_of_best(ctx, best, x, [width, inner], y);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}
