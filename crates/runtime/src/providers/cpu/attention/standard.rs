//! Attention of ONNX, in f32, without a cache.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::attention::{Rows, Scores, Shape, attention as attend};
use edgesmith_kernels::floats::Floats;
use edgesmith_kernels::permute::gather_strided;

use super::super::operand::Operand;
use crate::plan::{Layout, Planner, SlotId, Spec};

/// Queries, keys or values: (batch, heads, length, size), or (batch, length, heads · size).
struct Side {
    operand: Operand,
    batch: usize,
    heads: usize,
    length: usize,
    size: usize,
    /// From one sentence, head and row to the next.
    steps: [usize; 3],
}

impl Side {
    fn of(
        planner: &mut Planner,
        v: ValueId,
        heads: &str,
        id: NodeId,
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        let (dtype, dims) = planner.typed(v)?;
        let [batch, heads, length, size, steps @ ..] = match *dims.as_slice() {
            [b, n, l, s] => [b, n, l, s, n * l * s, l * s, s],
            [b, l, w] => {
                let n = usize::try_from(planner.graph().node(id).int(heads)?).ok()?;
                let size = w.checked_div(n).filter(|s| s * n == w)?;
                [b, n, l, size, l * w, size, w]
            }
            _ => return None,
        };
        (dtype == DType::F32 && batch * heads * length * size > 0).then_some(())?;
        Some(Self {
            operand: Operand::of(planner, v, reads)?,
            batch,
            heads,
            length,
            size,
            steps,
        })
    }

    /// The rows of each of so many heads, neighbours of which share one.
    fn rows<'a>(
        &'a self,
        x: &[&'a [u8]],
        heads: usize,
        room: &'a mut [f32],
    ) -> (&'a [f32], [usize; 3]) {
        let data = self.operand.get(x);
        if heads == self.heads {
            return (data, self.steps);
        }
        let shape = [
            self.batch,
            self.heads,
            heads / self.heads,
            self.length,
            self.size,
        ];
        let [batch, head, row] = self.steps.map(|s| s as isize);
        let strides = [batch, head, 0, row, 1];
        let (from, to) = (
            bytemuck::cast_slice(data),
            bytemuck::cast_slice_mut(&mut *room),
        );
        gather_strided(&Ctx::serial(), 4, &shape, from, 0, &strides, to);
        let head = self.length * self.size;
        (room, [heads * head, head, self.size])
    }
}

/// A mask that broadcasts to (batch, heads, queries, keys).
enum Mask {
    /// What is added.
    Floats(Operand),
    /// Which keys are seen, in the slot read at this place.
    Seen(usize),
}

impl Mask {
    fn of(planner: &mut Planner, v: ValueId, reads: &mut Vec<SlotId>) -> Option<Self> {
        match planner.typed(v)?.0 {
            DType::F32 => Some(Self::Floats(Operand::of(planner, v, reads)?)),
            DType::Bool if planner.constant(v).is_some() => {
                let seen = planner.constant(v)?.bytes().iter().map(number);
                Some(Self::Floats(Operand::Constant(seen.collect())))
            }
            DType::Bool => {
                reads.push(planner.read(v, Layout::Plain)?);
                Some(Self::Seen(reads.len() - 1))
            }
            _ => None,
        }
    }

    /// The numbers to be added, one for each element of the mask.
    fn numbers(&self, x: &[&[u8]]) -> Vec<f32> {
        match self {
            Self::Floats(operand) => operand.get(x).to_vec(),
            Self::Seen(at) => x[*at].iter().map(number).collect(),
        }
    }
}

/// What is added for a key that is seen or not.
fn number(seen: &u8) -> f32 {
    match seen {
        0 => f32::NEG_INFINITY,
        _ => 0.0,
    }
}

/// The steps of a tensor of shape `own` that broadcasts to `dims`.
fn broadcast(own: &[usize], dims: [usize; 4]) -> Option<[isize; 4]> {
    let front = 4usize.checked_sub(own.len())?;
    let (mut steps, mut step) = ([0isize; 4], 1isize);
    for i in (0..own.len()).rev() {
        match own[i] {
            1 => {}
            n if n == dims[front + i] => steps[front + i] = step,
            _ => return None,
        }
        step *= own[i] as isize;
    }
    Some(steps)
}

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (y, mask) = (node.output(0)?, node.input(3));
    let more = (4..7).any(|i| node.input(i).is_some()) || (1..4).any(|o| node.output(o).is_some());
    let capped = node.float("softcap").unwrap_or(0.0) != 0.0;
    let precise = node.int("softmax_precision").unwrap_or(1) == 1;
    if more || capped || !precise {
        return None;
    }
    let causal = node.int("is_causal").unwrap_or(0) != 0;
    let (scale, by_rows) = (node.float("scale"), planner.typed(y)?.1.len() == 3);
    let inputs = [node.input(0)?, node.input(1)?, node.input(2)?];
    let mut reads = Vec::new();
    let q = Side::of(planner, inputs[0], "q_num_heads", id, &mut reads)?;
    let k = Side::of(planner, inputs[1], "kv_num_heads", id, &mut reads)?;
    let v = Side::of(planner, inputs[2], "kv_num_heads", id, &mut reads)?;
    let pair = |s: &Side| (s.batch, s.heads, s.length);
    if q.batch != k.batch
        || pair(&k) != pair(&v)
        || q.size != k.size
        || !q.heads.is_multiple_of(k.heads)
    {
        return None;
    }
    let scale = scale.unwrap_or(1.0 / (q.size as f32).sqrt());
    let dims = [q.batch, q.heads, q.length, k.length];
    let mask = match mask {
        None => None,
        Some(m) => {
            let own = planner.typed(m)?.1;
            // Since opset 24 a shorter mask hides the keys behind it.
            let short = own.last().is_some_and(|&n| n != dims[3]);
            if short && planner.model().opset() >= 24 {
                return None;
            }
            let steps = broadcast(&own, dims)?;
            Some((Mask::of(planner, m, &mut reads)?, steps))
        }
    };
    let shape = Shape {
        batch: if by_rows { q.batch } else { q.batch * q.heads },
        heads: if by_rows { q.heads } else { 1 },
        queries: q.length,
        keys: k.length,
        size: q.size,
        value_size: v.size,
    };
    let write = planner.write(y, Layout::Plain)?;
    let shared = |s: &Side| {
        if s.heads == dims[1] {
            0
        } else {
            s.length * s.size * dims[0] * dims[1]
        }
    };
    let added = mask.as_ref().map_or(0, |_| dims.iter().product());
    let rooms = [shared(&k), shared(&v), added].map(|n| planner.slot(4 * n));
    let work = Heads {
        sides: [q, k, v],
        mask,
        dims,
        shape,
        scale,
        causal,
    };
    let spec = Spec {
        kernel: "attention",
        integer: false,
        reads,
        writes: [&[write], &rooms[..]].concat(),
        makes: vec![(y, Layout::Plain)],
        work: Box::new(move |ctx, x, y| work.run(ctx, x, y)),
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// The work of a node.
struct Heads {
    sides: [Side; 3],
    mask: Option<(Mask, [isize; 4])>,
    /// Batch, heads, queries, keys.
    dims: [usize; 4],
    /// Heads are sentences of their own where they stand behind each other.
    shape: Shape,
    scale: f32,
    causal: bool,
}

impl Heads {
    fn run(&self, ctx: &Ctx, x: &[&[u8]], y: &mut [&mut [u8]]) {
        let [y, of_keys, of_values, added] = y else {
            return;
        };
        let ([q, k, v], heads) = (&self.sides, self.dims[1]);
        let together = self.shape.heads == heads;
        let sides = [
            q.rows(x, heads, &mut []),
            k.rows(x, heads, bytemuck::cast_slice_mut(of_keys)),
            v.rows(x, heads, bytemuck::cast_slice_mut(of_values)),
        ];
        let rows = sides.map(|(data, [batch, head, row])| Rows {
            data: Floats::F32(data),
            batch: if together { batch } else { head },
            head: if together { head } else { 0 },
            row,
        });
        let matrix = self.dims[2] * self.dims[3];
        let pairs = self.mask.as_ref().map(|(mask, steps)| {
            let numbers = mask.numbers(x);
            let from = bytemuck::cast_slice(&numbers);
            gather_strided(ctx, 4, &self.dims, from, 0, steps, added);
            let steps = if together {
                [heads * matrix, matrix]
            } else {
                [matrix, 0]
            };
            (bytemuck::cast_slice(added), steps)
        });
        let scores = Scores {
            scale: self.scale,
            keys: None,
            pairs,
            causal: self.causal.then_some(0),
        };
        attend(ctx, self.shape, rows, scores, bytemuck::cast_slice_mut(y));
    }
}
