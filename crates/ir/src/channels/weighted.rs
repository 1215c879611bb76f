//! Products with weights, normalisations and pools.

use crate::ValueId;

use super::Axis;
use super::grouped::Grouped;
use super::rules::Cx;

const SPATIAL: &str = "its windows go along this axis";

/// Batch and channels of an image stay, pixels are held.
fn image(cx: &mut Cx, x: ValueId, y: ValueId) -> Result<(), String> {
    if cx.rank(x) < 2 || cx.rank(x) != cx.rank(y) {
        return Err("it is of no image".into());
    }
    cx.tie((x, 0), (y, 0));
    for v in [x, y] {
        for a in 2..cx.rank(v) {
            cx.hold(v, a, SPATIAL);
        }
    }
    Ok(())
}

pub(super) fn pool(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    if cx.node.outputs().len() > 1 {
        return Err("it tells where maxima are".into());
    }
    image(cx, x, y)?;
    cx.tie((x, 1), (y, 1));
    Ok(())
}

/// A normalisation of each channel for itself.
pub(super) fn norm(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    if cx.node.outputs().len() > 1 || cx.rank(x) < 2 {
        return Err("it is in training mode".into());
    }
    for i in 1..cx.node.inputs().len() {
        let v = cx.x(i)?;
        if cx.rank(v) != 1 {
            return Err("its scales are no list".into());
        }
        cx.tie((x, 1), (v, 0));
    }
    for a in 0..cx.rank(x) {
        cx.tie((x, a), (y, a));
    }
    if cx.node.op == "InstanceNormalization" {
        for a in 2..cx.rank(x) {
            cx.hold(x, a, SPATIAL);
        }
    }
    Ok(())
}

/// A normalisation over the last axes.
pub(super) fn layer_norm(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    if cx.node.outputs().len() > 1 {
        return Err("it gives its statistics".into());
    }
    let first = cx.axis(cx.node.int("axis").unwrap_or(-1), rank)?;
    for i in 1..cx.node.inputs().len() {
        let scale = cx.x(i)?;
        cx.broadcast(scale, y);
    }
    for a in 0..rank {
        cx.tie((x, a), (y, a));
        // A root mean square of some of them is that of all where the others are 0, but for a factor.
        let is_one = a == first && first + 1 == rank;
        if a >= first && is_one && (cx.node.op != "LayerNormalization" || cx.options.means) {
            cx.reads(0, a);
        } else if a >= first {
            cx.hold(x, a, "its mean goes over all of them");
        }
    }
    Ok(())
}

/// A normalisation of groups of channels: a group stays or goes as a whole.
pub(super) fn group_norm(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let channels = cx.length(x, 1)?;
    let groups = cx.node.int("num_groups").unwrap_or(0);
    let groups = usize::try_from(groups).ok();
    let groups = groups.filter(|g| *g > 0 && channels % g == 0);
    let groups = groups.ok_or("its groups do not fit its channels")?;
    for i in 1..3 {
        let v = cx.x(i)?;
        if cx.rank(v) != 1 || cx.length(v, 0) != Ok(channels) {
            return Err("its scales are of groups".into());
        }
        cx.tie((v, 0), (x, 1));
    }
    image(cx, x, y)?;
    cx.tie((x, 1), (y, 1));
    let own = channels / groups;
    for c in 0..channels {
        cx.tie_at((x, 1, c), (x, 1, c / own * own));
    }
    Ok(())
}

/// The weight of a convolution, which makes channels along one axis and reads them along another.
struct Kernel {
    w: ValueId,
    makes: usize,
    reads: usize,
}

/// How channels go through a convolution.
struct Groups {
    count: usize,
    /// Channels of a group, in and out.
    from: usize,
    to: usize,
}

pub(super) fn conv(cx: &mut Cx) -> Result<(), String> {
    let w = cx.x(1)?;
    convolution(
        cx,
        &Kernel {
            w,
            makes: 0,
            reads: 1,
        },
    )
}

pub(super) fn conv_transpose(cx: &mut Cx) -> Result<(), String> {
    let w = cx.x(1)?;
    convolution(
        cx,
        &Kernel {
            w,
            makes: 1,
            reads: 0,
        },
    )
}

fn convolution(cx: &mut Cx, kernel: &Kernel) -> Result<(), String> {
    let (x, w, y) = (cx.x(0)?, kernel.w, cx.y()?);
    if cx.rank(x) < 2 || cx.rank(w) != cx.rank(x) {
        return Err("it is of no image".into());
    }
    let (from, to) = (cx.length(x, 1)?, cx.length(y, 1)?);
    let count = cx.node.int("group").unwrap_or(1);
    let count = usize::try_from(count).ok().filter(|&g| g > 0);
    let count = count.filter(|g| from % g == 0 && to % g == 0);
    let count = count.ok_or("its groups do not fit its channels")?;
    let groups = Groups {
        count,
        from: from / count,
        to: to / count,
    };
    // Each axis of the weight has all channels, or those of a group.
    let lengths = [0, 1].map(|a| cx.length(w, a));
    let transposed = kernel.makes == 1;
    let expected = match transposed {
        false => [Ok(to), Ok(groups.from)],
        true => [Ok(from), Ok(groups.to)],
    };
    if lengths != expected {
        return Err("its weight does not fit its channels".into());
    }
    let bias = match cx.node.input(2) {
        Some(_) => Some(cx.x(2)?),
        None => None,
    };
    if bias.is_some_and(|b| cx.rank(b) != 1) {
        return Err("its bias is no list".into());
    }
    image(cx, x, y)?;
    for a in 2..cx.rank(w) {
        cx.hold(w, a, SPATIAL);
    }
    if let Some(b) = bias {
        cx.tie((b, 0), (y, 1));
    }
    match groups {
        Groups { count: 1, .. } => {
            cx.tie((x, 1), (w, kernel.reads));
            cx.tie((w, kernel.makes), (y, 1));
            cx.makes(w, kernel.makes);
            cx.reads(1, kernel.reads);
        }
        Groups { from: 1, .. } => depthwise(cx, w, y, &groups, transposed),
        _ => grouped(cx, w, y, &groups, transposed),
    }
    Ok(())
}

/// Each channel makes `to` channels of its own.
fn depthwise(cx: &mut Cx, w: ValueId, y: ValueId, groups: &Groups, transposed: bool) {
    let Some(x) = cx.node.input(0) else { return };
    for c in 0..groups.count {
        for m in 0..groups.to {
            let out = c * groups.to + m;
            cx.tie_at((x, 1, c), (y, 1, out));
            let row = if transposed { c } else { out };
            cx.tie_at((w, 0, row), (y, 1, out));
        }
    }
    if groups.to > 1 && transposed {
        cx.hold(w, 1, "each channel makes several");
    }
}

/// Channels that are read at the same place of all groups stay together, for the weight has one axis
/// for them. Of those that are made as many of each group are to stay.
fn grouped(cx: &mut Cx, w: ValueId, y: ValueId, groups: &Groups, transposed: bool) {
    let Some(x) = cx.node.input(0) else { return };
    let (whole, part) = if transposed { (x, y) } else { (y, x) };
    let (wide, narrow) = match transposed {
        true => (groups.from, groups.to),
        false => (groups.to, groups.from),
    };
    for k in 0..groups.count {
        for i in 0..wide {
            // Axis 0 of the weight has the channels of all groups.
            let at = k * wide + i;
            cx.tie_at((whole, 1, at), (w, 0, at));
        }
        for i in 0..narrow {
            cx.tie_at((part, 1, k * narrow + i), (w, 1, i));
        }
    }
    let axis = Axis::of(w, 0);
    cx.ties.grouped.push(Grouped {
        node: cx.id,
        axis,
        groups: groups.count,
    });
    let (makes, reads) = if transposed { (1, 0) } else { (0, 1) };
    cx.makes(w, makes);
    cx.reads(1, reads);
}

pub(super) fn gemm(cx: &mut Cx) -> Result<(), String> {
    let (a, b, y) = (cx.x(0)?, cx.x(1)?, cx.y()?);
    if [a, b, y].iter().any(|v| cx.rank(*v) != 2) {
        return Err("it is of no matrices".into());
    }
    let turned = |name: &str| cx.node.int(name).unwrap_or(0) != 0;
    let rows = if turned("transA") { (1, 0) } else { (0, 1) };
    let columns = if turned("transB") { (0, 1) } else { (1, 0) };
    if let Some(c) = cx.node.input(2) {
        cx.x(2)?;
        cx.broadcast(c, y);
    }
    product(cx, (a, rows), (b, columns), y)
}

pub(super) fn matmul(cx: &mut Cx) -> Result<(), String> {
    let (a, b, y) = (cx.x(0)?, cx.x(1)?, cx.y()?);
    let (m, n, rank) = (cx.rank(a), cx.rank(b), cx.rank(y));
    if m < 2 || n < 2 || rank != m.max(n) {
        return Err("it is a product with a list".into());
    }
    let is_activations = !cx.is_weight(a) && !cx.is_weight(b);
    for (v, own) in [(a, m), (b, n)] {
        for axis in 0..own - 2 {
            let to = axis + rank - own;
            let is_one = cx.length(v, axis) == Ok(1);
            if !is_one {
                cx.tie((v, axis), (y, to));
            }
            if is_activations && !is_one {
                cx.ties.heads.insert(Axis::of(y, to));
            }
        }
    }
    product(cx, (a, (m - 2, m - 1)), (b, (n - 1, n - 2)), y)
}

/// An operand of a product, with the axis that the result has too, and the one that is summed along.
type Operand = (ValueId, (usize, usize));

fn product(cx: &mut Cx, left: Operand, right: Operand, y: ValueId) -> Result<(), String> {
    let rank = cx.rank(y);
    let ((a, (row, along_a)), (b, (column, along_b))) = (left, right);
    cx.tie((a, row), (y, rank - 2));
    cx.tie((b, column), (y, rank - 1));
    cx.tie((a, along_a), (b, along_b));
    cx.makes(a, row);
    cx.makes(b, column);
    match (cx.is_weight(a), cx.is_weight(b)) {
        (_, true) => cx.reads(1, along_b),
        (true, false) => cx.reads(0, along_a),
        (false, false) => {
            cx.reads(0, along_a);
            cx.ties.widths.insert(Axis::of(a, along_a));
        }
    }
    Ok(())
}
