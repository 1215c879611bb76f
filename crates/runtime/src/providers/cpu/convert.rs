//! Cast between the floats, and from integers and booleans to floats.

use edgesmith_ir::{DType, Element, NodeId};

use super::activations::present_layout;
use crate::plan::{Kernel, Layout, Planner};

pub(crate) fn cast(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    planner.float_dims(y)?;
    if planner.float_dims(x).is_some() {
        let layout = present_layout(planner, x);
        let read = planner.read_f32(x, layout)?;
        let work: Kernel = Box::new(|_, x, y| y[0].copy_from_slice(x[0]));
        return planner.step_f32(id, &[id], (y, layout), "convert", vec![read], work);
    }
    // A wide integer rounds to f32 once; to narrower types that would be twice.
    if planner.typed(y)?.0 != DType::F32 {
        return None;
    }
    let work = match planner.typed(x)?.0 {
        DType::Bool => floats(|b: u8| f32::from(u8::from(b != 0))),
        DType::U8 => floats(|i: u8| f32::from(i)),
        DType::I8 => floats(|i: i8| f32::from(i)),
        DType::U16 => floats(|i: u16| f32::from(i)),
        DType::I16 => floats(|i: i16| f32::from(i)),
        DType::I32 => floats(|i: i32| i as f32),
        DType::I64 => floats(|i: i64| i as f32),
        _ => return None,
    };
    let read = planner.read(x, Layout::Plain)?;
    planner.step_f32(id, &[id], (y, Layout::Plain), "convert", vec![read], work)
}

fn floats<T: Element>(to: impl Fn(T) -> f32 + Send + Sync + 'static) -> Kernel {
    Box::new(move |_, x, y| {
        let (x, y): (&[T], &mut [f32]) =
            (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        x.iter().zip(y).for_each(|(x, y)| *y = to(*x));
    })
}
