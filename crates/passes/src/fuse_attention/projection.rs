//! The products of one input with constant weights that make queries, keys and values.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{NodeId, Tensor, ValueId};

use super::operand::{Operand, Rows};
use crate::pattern::Group;
use crate::rewrite::Editor;

/// The three products as one.
pub(super) struct Projections {
    pub(super) nodes: Vec<NodeId>,
    pub(super) x: ValueId,
    /// Of shape (input width, sum of widths).
    pub(super) weight: Tensor,
    /// Zero where a product has none.
    pub(super) bias: Tensor,
    pub(super) widths: [usize; 3],
}

/// One product: its input, weight and bias.
struct Projection {
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
}

/// The products behind three operands, where they read one input and nobody else reads them.
pub(super) fn find(
    editor: &Editor,
    types: &Inferred,
    operands: &[Operand; 3],
    inside: &[NodeId],
) -> Option<Projections> {
    let mut g = Group::new(editor, types);
    let mut found = Vec::new();
    for operand in operands {
        let Rows::Plain(v) = operand.rows else {
            return None;
        };
        let one = projection(&mut g, v, operand.heads * operand.size)?;
        found.push(one);
    }
    let x = found[0].x;
    if found.iter().any(|p| p.x != x) || g.shape(x)?.rank() != 3 {
        return None;
    }
    let widths = [0, 1, 2].map(|i| operands[i].heads * operands[i].size);
    let weights: Vec<&Tensor> = (found.iter())
        .map(|p| editor.constant(p.weight))
        .collect::<Option<_>>()?;
    let rows = weights[0].dims()[0];
    let weight = beside(&weights, rows, &widths)?;
    let zeros: Vec<Tensor> = (weights.iter().zip(widths))
        .map(|(w, n)| zeros(w, n))
        .collect::<Option<_>>()?;
    let biases: Vec<&Tensor> = (found.iter().zip(&zeros))
        .map(|(p, zeros)| p.bias.map_or(Some(zeros), |b| editor.constant(b)))
        .collect::<Option<_>>()?;
    let bias = beside(&biases, 1, &widths)?;
    let bias = bias.reshaped(&[bias.count()]).ok()?;
    g.nodes.extend(inside);
    let outputs: Vec<ValueId> = inside
        .iter()
        .flat_map(|&id| g.node(id).outputs().iter().flatten().copied())
        .collect();
    let mut nodes = g.closed(&outputs)?;
    nodes.retain(|id| !inside.contains(id));
    Some(Projections {
        nodes,
        x,
        weight,
        bias,
        widths,
    })
}

fn projection(g: &mut Group, v: ValueId, width: usize) -> Option<Projection> {
    let mut product = v;
    let mut bias = None;
    if let Some(add) = g.take(v, &["Add"]) {
        let (x, row) = crate::fuse_skip_norm::with_row(g, add, width)?;
        (product, bias) = (x, Some(row));
    }
    let id = g.take(product, &["MatMul"])?;
    let (x, weight) = (g.node(id).input(0)?, g.node(id).input(1)?);
    let data = g.editor.constant(weight)?;
    (data.rank() == 2 && data.dims()[1] == width).then_some(Projection { x, weight, bias })
}

fn zeros(like: &Tensor, n: usize) -> Option<Tensor> {
    let bytes = vec![0u8; like.dtype().bytes_of(n)?];
    Tensor::from_bytes(like.dtype(), &[n], bytes.into()).ok()
}

/// Matrices of as many rows put side by side.
fn beside(parts: &[&Tensor], rows: usize, widths: &[usize; 3]) -> Option<Tensor> {
    let dtype = parts[0].dtype();
    let size = dtype.bits() / 8;
    let fits = |(t, &w): (&&Tensor, &usize)| t.dtype() == dtype && t.count() == rows * w;
    if size == 0 || !parts.iter().zip(widths).all(fits) {
        return None;
    }
    let total: usize = widths.iter().sum();
    let mut bytes = Vec::with_capacity(rows * total * size);
    for row in 0..rows {
        for (t, w) in parts.iter().zip(widths) {
            bytes.extend_from_slice(&t.bytes()[row * w * size..][..w * size]);
        }
    }
    Tensor::from_bytes(dtype, &[rows, total], bytes.into()).ok()
}
