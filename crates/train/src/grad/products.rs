//! Products of matrices.

use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::Backward;

/// A batched product of operands whose last two axes may be swapped, times `alpha`.
fn product(
    cx: &mut Backward,
    (a, turn_a): (ValueId, bool),
    (b, turn_b): (ValueId, bool),
    alpha: f32,
) -> ValueId {
    if !turn_a && !turn_b && alpha == 1.0 {
        return cx.op("MatMul", &[a, b]);
    }
    let turned = |t: bool| Attribute::Int(i64::from(t));
    let node = Node::new("FusedMatMul", "")
        .in_domain("com.microsoft")
        .with("transA", turned(turn_a))
        .with("transB", turned(turn_b))
        .with("alpha", Attribute::Float(alpha));
    cx.add(node, &[a, b])
}

/// Gives input `i` the gradient `d`, summed over the axes of a batch along which it is repeated.
fn give(cx: &mut Backward, i: usize, d: ValueId) -> Result<()> {
    let (x, y) = (cx.x(i)?, cx.y(0)?);
    let whole = match (cx.shape(x), cx.shape(y)) {
        (Some(x), Some(y)) => {
            let (n, m) = (x.rank(), y.rank());
            n == m
                && x.iter()
                    .zip(y.iter())
                    .take(n.saturating_sub(2))
                    .all(|(a, b)| a.same(b))
        }
        _ => false,
    };
    let d = if whole {
        d
    } else {
        cx.ours("Unbroadcast", &[d, x])
    };
    cx.give(i, d);
    Ok(())
}

/// MatMul: dA = dY·Bᵀ, dB = Aᵀ·dY.
pub(super) fn matmul(cx: &mut Backward) -> Result<()> {
    both(cx, [false; 2], 1.0)
}

/// FusedMatMul with swapped axes and a factor.
pub(super) fn fused(cx: &mut Backward) -> Result<()> {
    let node = cx.node();
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    if set("transBatchA") || set("transBatchB") {
        return Err(Error::unsupported("a swapped batch axis is not done"));
    }
    let turned = [set("transA"), set("transB")];
    let alpha = node.float("alpha").unwrap_or(1.0);
    both(cx, turned, alpha)
}

fn both(cx: &mut Backward, [ta, tb]: [bool; 2], alpha: f32) -> Result<()> {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    if cx.rank(a)? < 2 || cx.rank(b)? < 2 {
        return with_vectors(cx);
    }
    if cx.wants(0) {
        let da = match ta {
            false => product(cx, (dy, false), (b, !tb), alpha),
            true => product(cx, (b, tb), (dy, true), alpha),
        };
        give(cx, 0, da)?;
    }
    if cx.wants(1) {
        // One matrix for a whole batch: the rows of the batch are one long axis.
        let db = match (ta, tb, folded(cx, a, b)?) {
            (false, false, Some(rows)) => {
                let [a, dy] = [a, dy].map(|v| flat(cx, v, rows));
                product(cx, (a?, true), (dy?, false), alpha)
            }
            (_, false, _) => product(cx, (a, !ta), (dy, false), alpha),
            (_, true, _) => product(cx, (dy, true), (a, ta), alpha),
        };
        give(cx, 1, db)?;
    }
    Ok(())
}

/// MatMul with vectors: one is a row on the left, a column on the right.
fn with_vectors(cx: &mut Backward) -> Result<()> {
    let (a, b, mut dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let mut matrix = [a, b];
    let is_vector = [cx.rank(a)? == 1, cx.rank(b)? == 1];
    // The column comes first: the row is then the last but one of two axes.
    for (i, of_result) in [(1, -1), (0, -2)] {
        if is_vector[i] {
            let [axis, of_result] = [i as i64, of_result].map(|a| cx.list(&[a]));
            matrix[i] = cx.op("Unsqueeze", &[matrix[i], axis]);
            dy = cx.op("Unsqueeze", &[dy, of_result]);
        }
    }
    let gradients = [
        ((dy, false), (matrix[1], true)),
        ((matrix[0], true), (dy, false)),
    ];
    for (i, (left, right)) in gradients.into_iter().enumerate() {
        if cx.wants(i) {
            let d = product(cx, left, right, 1.0);
            let d = cx.ours("Unbroadcast", &[d, matrix[i]]);
            let x = cx.x(i)?;
            let d = cx.reshaped(d, x);
            cx.give(i, d);
        }
    }
    Ok(())
}

/// The number of axes of `a`, where it has a batch and `b` is one matrix.
fn folded(cx: &Backward, a: ValueId, b: ValueId) -> Result<Option<usize>> {
    let rank = cx.rank(a)?;
    Ok((rank > 2 && cx.rank(b)? == 2).then_some(rank))
}

/// A batch of matrices as one matrix of all their rows.
fn flat(cx: &mut Backward, v: ValueId, rank: usize) -> Result<ValueId> {
    let node = Node::new("Flatten", "").with("axis", Attribute::Int(rank as i64 - 1));
    Ok(cx.add(node, &[v]))
}

/// Gemm: Y = α·A'·B' + β·C.
pub(super) fn gemm(cx: &mut Backward) -> Result<()> {
    let node = cx.node();
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    let (ta, tb) = (set("transA"), set("transB"));
    let factor = |name: &str| node.float(name).unwrap_or(1.0);
    let (alpha, beta) = (factor("alpha"), factor("beta"));
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    if cx.wants(0) {
        let da = match ta {
            false => product(cx, (dy, false), (b, !tb), alpha),
            true => product(cx, (b, tb), (dy, true), alpha),
        };
        cx.give(0, da);
    }
    if cx.wants(1) {
        let db = match tb {
            false => product(cx, (a, !ta), (dy, false), alpha),
            true => product(cx, (dy, true), (a, ta), alpha),
        };
        cx.give(1, db);
    }
    if cx.wants(2) {
        let dc = cx.scaled(dy, a, f64::from(beta))?;
        cx.give_broadcast(2, dc)?;
    }
    Ok(())
}
