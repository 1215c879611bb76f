//! Attention and MultiHeadAttention of `com.microsoft`, in f32.

mod standard;

pub(crate) use standard::plan as standard;

use std::ops::Range;
use std::sync::Arc;

use edgesmith_ir::ops::microsoft::attention::{heads, widths};
use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::attention::{Rows, Scores, Shape, attention as attend, takes_rounded};
use edgesmith_kernels::floats::{Floats, of_bytes, of_bytes_mut};
use edgesmith_kernels::gemm::{Epilogue, Order, PackedF32, gemm_mixed};

use super::operand::{Indices, Operand};
use crate::plan::{Kernel, Layout, Packed, Planner, SlotId, Spec};

/// Bytes of queries, keys and values that are made at a time, where a sentence has no more: the
/// attention that follows finds them in a cache.
const MOST: usize = 1280 * 1024;

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

    /// What becomes of products of the sentences `of`, which have `length` keys; `numbers` are those of
    /// all keys.
    fn scores<'a>(
        &'a self,
        scale: f32,
        numbers: Option<&'a [f32]>,
        x: &[&'a [u8]],
        of: Range<usize>,
        length: usize,
    ) -> Scores<'a> {
        let pairs = self.bias.as_ref().map(|(v, steps)| {
            let matrices: &[f32] = v.get(x);
            (&matrices[of.start * steps[0]..], *steps)
        });
        Scores {
            scale,
            keys: numbers.map(|m| &m[of.start * length..of.end * length]),
            pairs,
            causal: self.causal.then_some(0),
        }
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
    let sentence = length * columns * size;
    let together = batch.div_ceil(batch.div_ceil((MOST / sentence).max(1)));
    let room = planner.slot(together * sentence);
    let work: Kernel = Box::new(move |ctx, r, w| {
        let [y, room] = w else { return };
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            ..Epilogue::default()
        };
        let keys = masks.numbers(r);
        let x: &[f32] = bytemuck::cast_slice(r[0]);
        let y: &mut [f32] = bytemuck::cast_slice_mut(y);
        let x = x.chunks(together * length * depth);
        let y = y.chunks_mut(together * length * widths[2]);
        for (i, (x, y)) in x.zip(y).enumerate() {
            let first = i * together;
            let batch = together.min(batch - first);
            let room = &mut room[..batch * sentence];
            let (m, to) = (batch * length, of_bytes_mut(room, rounded));
            gemm_mixed(ctx, m, x.into(), depth, &packed, to, columns, &epilogue);
            let starts = [0, widths[0], widths[0] + widths[1]];
            let rows = [0, 1, 2].map(|i| Rows {
                data: of_bytes(room, rounded).skip(starts[i]),
                batch: length * columns,
                head: widths[i] / heads,
                row: columns,
            });
            let scores = masks.scores(scale, keys.as_deref(), r, first..first + batch, length);
            attend(ctx, Shape { batch, ..shape }, rows, scores, y);
        }
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
        let keys = masks.numbers(r);
        let scores = masks.scores(scale, keys.as_deref(), r, 0..batch, shape.keys);
        attend(ctx, shape, rows, scores, bytemuck::cast_slice_mut(w[0]));
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
