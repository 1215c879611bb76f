//! Two operands of one type that broadcast, element by element: Equal, Greater, Less and their
//! kin, and the arithmetic of integers.

use edgesmith_ir::{DType, Element, NodeId, Tensor, ValueId};

use super::views::broadcast;
use crate::plan::{Kernel, Layout, Planner, SlotId, Spec};

/// Where an operand comes from.
enum Side<T> {
    Read(usize),
    Constant(Vec<T>),
}

impl<T: Element> Side<T> {
    fn of(
        constant: Option<&Tensor>,
        slot: Option<SlotId>,
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        if let Some(t) = constant {
            return Some(Self::Constant(t.data::<T>().ok()?.into_owned()));
        }
        reads.push(slot?);
        Some(Self::Read(reads.len() - 1))
    }

    fn get<'a>(&'a self, x: &[&'a [u8]]) -> &'a [T] {
        match self {
            Self::Read(i) => bytemuck::cast_slice(x[*i]),
            Self::Constant(data) => data,
        }
    }
}

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b) = (node.input(0)?, node.input(1)?);
    let dtype = planner.typed(a)?.0;
    if planner.typed(b)?.0 != dtype {
        return None;
    }
    match dtype {
        DType::F32 => typed::<f32>(planner, id, a, b),
        DType::I32 => typed::<i32>(planner, id, a, b),
        DType::I64 => typed::<i64>(planner, id, a, b),
        _ => None,
    }
}

fn typed<T: Element>(planner: &mut Planner, id: NodeId, a: ValueId, b: ValueId) -> Option<()> {
    match planner.graph().node(id).op.as_str() {
        "Equal" => step(planner, id, a, b, |a: &T, b: &T| u8::from(a == b)),
        "Greater" => step(planner, id, a, b, |a: &T, b: &T| u8::from(a > b)),
        "GreaterOrEqual" => step(planner, id, a, b, |a: &T, b: &T| u8::from(a >= b)),
        "Less" => step(planner, id, a, b, |a: &T, b: &T| u8::from(a < b)),
        "LessOrEqual" => step(planner, id, a, b, |a: &T, b: &T| u8::from(a <= b)),
        _ => None,
    }
}

/// Add, Sub and Mul of 32-bit and 64-bit integers, which wrap.
pub(crate) fn arithmetic(planner: &mut Planner, id: NodeId) -> Option<()> {
    macro_rules! typed {
        ($t:ty, $a:expr, $b:expr) => {
            match planner.graph().node(id).op.as_str() {
                "Add" => step(planner, id, $a, $b, |a: &$t, b: &$t| a.wrapping_add(*b)),
                "Sub" => step(planner, id, $a, $b, |a: &$t, b: &$t| a.wrapping_sub(*b)),
                "Mul" => step(planner, id, $a, $b, |a: &$t, b: &$t| a.wrapping_mul(*b)),
                _ => None,
            }
        };
    }
    let node = planner.graph().node(id);
    let (a, b) = (node.input(0)?, node.input(1)?);
    let dtype = planner.typed(a)?.0;
    match dtype {
        _ if planner.typed(b)?.0 != dtype => None,
        DType::I32 => typed!(i32, a, b),
        DType::I64 => typed!(i64, a, b),
        _ => None,
    }
}

fn step<T: Element, O: Element>(
    planner: &mut Planner,
    id: NodeId,
    a: ValueId,
    b: ValueId,
    f: impl Fn(&T, &T) -> O + Copy + Send + Sync + 'static,
) -> Option<()> {
    let y = planner.graph().node(id).output(0)?;
    let dims = planner.typed(y)?.1;
    let (_, a_strides) = broadcast(&planner.typed(a)?.1, &dims, Layout::Plain)?;
    let (_, b_strides) = broadcast(&planner.typed(b)?.1, &dims, Layout::Plain)?;
    let (a_slot, b_slot) = (
        planner.read(a, Layout::Plain),
        planner.read(b, Layout::Plain),
    );
    let mut reads = Vec::new();
    let a = Side::<T>::of(planner.constant(a), a_slot, &mut reads)?;
    let b = Side::<T>::of(planner.constant(b), b_slot, &mut reads)?;
    let work: Kernel = Box::new(move |_, x, y| {
        let sides = [(a.get(x), &a_strides[..]), (b.get(x), &b_strides[..])];
        if !y[0].is_empty() {
            apply(&dims, sides, bytemuck::cast_slice_mut(y[0]), f);
        }
    });
    let write = planner.write(y, Layout::Plain)?;
    let spec = Spec {
        kernel: "elementwise",
        integer: false,
        reads,
        writes: vec![write],
        makes: vec![(y, Layout::Plain)],
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// Takes the operands along the first axis, then within it.
fn apply<T: Element, O: Element>(
    dims: &[usize],
    [(a, a_strides), (b, b_strides)]: [(&[T], &[isize]); 2],
    y: &mut [O],
    f: impl Fn(&T, &T) -> O + Copy,
) {
    let (Some((&n, rest)), [a_step, a_rest @ ..], [b_step, b_rest @ ..]) =
        (dims.split_first(), a_strides, b_strides)
    else {
        y[0] = f(&a[0], &b[0]);
        return;
    };
    let (a_step, b_step) = (a_step.unsigned_abs(), b_step.unsigned_abs());
    let size = rest.iter().product::<usize>();
    if !rest.is_empty() {
        for (i, y) in (0..n).zip(y.chunks_exact_mut(size)) {
            let (a, b) = (&a[i * a_step..], &b[i * b_step..]);
            apply(rest, [(a, a_rest), (b, b_rest)], y, f);
        }
        return;
    }
    let (a, b) = (&a[..(n - 1) * a_step + 1], &b[..(n - 1) * b_step + 1]);
    match (a, b) {
        ([a], b) => y.iter_mut().zip(b).for_each(|(y, b)| *y = f(a, b)),
        (a, [b]) => y.iter_mut().zip(a).for_each(|(y, a)| *y = f(a, b)),
        (a, b) => {
            let pairs = a.iter().zip(b);
            y.iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = f(a, b));
        }
    }
}
