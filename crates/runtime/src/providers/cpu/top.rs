//! TopK of floats.

use edgesmith_ir::{DType, NodeId, infer};
use edgesmith_kernels::select::{Top, top};

use crate::plan::{Layout, Planner, Spec};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, values, places) = (node.input(0)?, node.output(0)?, node.output(1)?);
    let (dtype, dims) = planner.typed(x)?;
    let axis = infer::axis(node.int("axis").unwrap_or(-1), dims.len()).ok()?;
    let (width, inner) = (dims[axis], dims[axis + 1..].iter().product());
    let of = Top {
        k: planner.typed(values)?.1[axis],
        largest: node.int("largest").unwrap_or(1) != 0,
    };
    if dtype != DType::F32 || of.k > width || u32::try_from(width).is_err() {
        return None;
    }
    let read = planner.read_f32(x, Layout::Plain)?;
    let writes = vec![
        planner.write(values, Layout::Plain)?,
        planner.write(places, Layout::Plain)?,
    ];
    let spec = Spec {
        kernel: "top",
        integer: false,
        reads: vec![read],
        writes,
        makes: vec![(values, Layout::Plain), (places, Layout::Plain)],
        work: Box::new(move |ctx, x, y| {
            if let [values, places] = y {
                let of_lines = (
                    bytemuck::cast_slice_mut(values),
                    bytemuck::cast_slice_mut(places),
                );
                top(
                    ctx,
                    of,
                    bytemuck::cast_slice(x[0]),
                    [width, inner],
                    of_lines,
                );
            }
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}
