//! Attention and MultiHeadAttention of `com.microsoft`, in f32.

use std::sync::Arc;

use edgesmith_ir::ops::microsoft::attention::{heads, widths};
use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::attention::{Rows, Scores, Shape, attention as attend, takes_rounded};
use edgesmith_kernels::floats::{Floats, of_bytes, of_bytes_mut};
use edgesmith_kernels::gemm::{Epilogue, Order, PackedF32, gemm_mixed};

use super::operand::{Indices, Operand};
use crate::plan::{Kernel, Layout, Packed, Planner, SlotId, Spec};

/// Masks of keys and of pairs of queries and keys, as a step finds them.
struct Masks {
    filter: f32,
    keys: Option<Indices>,
    bias: Option<(Operand, [usize; 2])>,
    causal: bool,
}

impl Masks {
    /// The mask `keys` of shape (batch, keys) and the attention bias; `None` for other forms.
    fn of(
        planner: &mut Planner,
        id: NodeId,
        shape: &Shape,
        [keys, bias]: [Option<ValueId>; 2],
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        let node = planner.graph().node(id);
        let keys = match keys {
            None => None,
            Some(v) => {
                let by_key = planner.typed(v)?.1 == [shape.batch, shape.keys];
                by_key.then(|| Indices::of(planner, v, reads))??.into()
            }
        };
        let bias = match bias {
            None => None,
            Some(v) => {
                let dims = planner.typed(v)?.1;
                let &[b, n, s, t] = dims.as_slice() else {
                    return None;
                };
                let matrix = s * t;
                let fits = (s, t) == (shape.queries, shape.keys)
                    && (b == 1 || b == shape.batch)
                    && (n == 1 || n == shape.heads);
                let steps = [
                    if b == 1 { 0 } else { n * matrix },
                    if n == 1 { 0 } else { matrix },
                ];
                fits.then_some(())?;
                Some((Operand::of(planner, v, reads)?, steps))
            }
        };
        Some(Self {
            filter: node.float("mask_filter_value").unwrap_or(-10000.0),
            keys,
            bias,
            causal: node.int("unidirectional").unwrap_or(0) != 0,
        })
    }

    /// What is added for each key.
    fn numbers(&self, x: &[&[u8]]) -> Option<Vec<f32>> {
        let keys = self.keys.as_ref()?.get(x);
        let number = |&m: &i64| if m > 0 { 0.0 } else { self.filter };
        Some(keys.iter().map(number).collect())
    }
}

fn scale(planner: &Planner, id: NodeId, size: usize) -> f32 {
    match planner.graph().node(id).float("scale") {
        None | Some(0.0) => 1.0 / (size as f32).sqrt(),
        Some(scale) => scale,
    }
}

fn is_plain(planner: &Planner, id: NodeId, left_out: &[usize]) -> bool {
    let node = planner.graph().node(id);
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    left_out.iter().all(|&i| node.input(i).is_none())
        && node.outputs().iter().skip(1).flatten().next().is_none()
        && !set("do_rotary")
        && !set("past_present_share_buffer")
}

/// One product with the merged weights, then attention.
pub(crate) fn merged(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let (dtype, dims) = planner.typed(x)?;
    if dtype != DType::F32 || !is_plain(planner, id, &[4, 6]) {
        return None;
    }
    let &[batch, length, depth] = dims.as_slice() else {
        return None;
    };
    let columns = *planner.typed(w)?.1.get(1)?;
    let widths = widths(node, columns).ok()?;
    let heads = heads(node).ok()?;
    let shape = Shape {
        batch,
        heads,
        queries: length,
        keys: length,
        size: widths[0] / heads,
        value_size: widths[2] / heads,
    };
    if shape.size == 0 || shape.value_size == 0 || batch * length == 0 || depth == 0 {
        return None;
    }
    planner.constant(w)?;
    let weights = planner.weights_to_pack(id, w)?;
    let bias = match node.input(2) {
        Some(b) => Some(planner.floats(b)?),
        None => None,
    };
    let mut reads = vec![planner.read_f32(x, Layout::Plain)?];
    let inputs = [node.input(3), node.input(5)];
    let masks = Masks::of(planner, id, &shape, inputs, &mut reads)?;
    let packed = planner.packed(id, |ctx| {
        let packed = PackedF32::new(ctx, &weights, Order::KN, depth, columns);
        Some(Packed::Gemm(Arc::new(packed)))
    })?;
    let Packed::Gemm(packed) = packed else {
        return None;
    };
    let scale = scale(planner, id, shape.size);
    let write = planner.write(y, Layout::Plain)?;
    let rounded = packed.rounded() && takes_rounded(planner.ctx(), &shape);
    let size = if rounded { 2 } else { 4 };
    let room = planner.slot(size * batch * length * columns);
    let work: Kernel = Box::new(move |ctx, r, w| {
        let [y, room] = w else { return };
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            ..Epilogue::default()
        };
        let (x, to) = (of_bytes(r[0], false), of_bytes_mut(room, rounded));
        let rows = batch * length;
        gemm_mixed(ctx, rows, x, depth, &packed, to, columns, &epilogue);
        let starts = [0, widths[0], widths[0] + widths[1]];
        let rows = [0, 1, 2].map(|i| Rows {
            data: of_bytes(room, rounded).skip(starts[i]),
            batch: length * columns,
            head: widths[i] / heads,
            row: columns,
        });
        run(
            ctx,
            &shape,
            rows,
            scale,
            &masks,
            r,
            bytemuck::cast_slice_mut(y),
        );
    });
    let spec = Spec {
        kernel: "attention",
        integer: false,
        reads,
        writes: vec![write, room],
        makes: vec![(y, Layout::Plain)],
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}

fn run(
    ctx: &edgesmith_kernels::Ctx,
    shape: &Shape,
    rows: [Rows; 3],
    scale: f32,
    masks: &Masks,
    reads: &[&[u8]],
    y: &mut [f32],
) {
    let keys = masks.numbers(reads);
    let scores = Scores {
        scale,
        keys: keys.as_deref(),
        pairs: masks.bias.as_ref().map(|(v, steps)| (v.get(reads), *steps)),
        causal: masks.causal.then_some(0),
    };
    attend(ctx, *shape, rows, scores, y);
}

/// Attention of given rows: of (batch, length, width), keys and values also by head.
pub(crate) fn multi_head(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (q, k, v) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let y = node.output(0)?;
    if !is_plain(planner, id, &[3, 6, 7, 8, 9]) || planner.typed(q)?.0 != DType::F32 {
        return None;
    }
    let heads = heads(node).ok()?;
    let mut reads = Vec::new();
    let mut operands = Vec::new();
    let mut found = Vec::new();
    for v in [q, k, v] {
        let dims = planner.typed(v)?.1;
        // Batch, length, size, and the steps of batch, head and row.
        let [batch, length, size, steps @ ..] = match *dims.as_slice() {
            [b, l, w] if w % heads == 0 => [b, l, w / heads, l * w, w / heads, w],
            [b, n, l, s] if n == heads => [b, l, s, n * l * s, l * s, s],
            _ => return None,
        };
        operands.push((Operand::of(planner, v, &mut reads)?, steps));
        found.push([batch, length, size]);
    }
    let [[batch, queries, size], [kb, keys, ks], [vb, vl, value_size]] = found[..] else {
        return None;
    };
    let fits = kb == batch && vb == batch && ks == size && vl == keys;
    if !fits || batch * queries * keys * size * value_size == 0 {
        return None;
    }
    let shape = Shape {
        batch,
        heads,
        queries,
        keys,
        size,
        value_size,
    };
    let inputs = [node.input(4), node.input(5)];
    let masks = Masks::of(planner, id, &shape, inputs, &mut reads)?;
    let scale = scale(planner, id, size);
    let write = planner.write(y, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, r, w| {
        let rows = [0, 1, 2].map(|i| {
            let (operand, [batch, head, row]) = &operands[i];
            Rows {
                data: Floats::F32(operand.get(r)),
                batch: *batch,
                head: *head,
                row: *row,
            }
        });
        run(
            ctx,
            &shape,
            rows,
            scale,
            &masks,
            r,
            bytemuck::cast_slice_mut(w[0]),
        );
    });
    let spec = Spec {
        kernel: "attention",
        integer: false,
        reads,
        writes: vec![write],
        makes: vec![(y, Layout::Plain)],
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}
