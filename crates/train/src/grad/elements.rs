//! Functions of one element, and arithmetic of broadcast operands.

use edgesmith_ir::Result;

use super::Backward;

/// `<Op>Grad` of the input.
pub(super) fn by_input(cx: &mut Backward) -> Result<()> {
    let (node, inputs) = (cx.own(), [cx.x(0)?, cx.dy()?]);
    let dx = cx.add(node, &inputs);
    cx.give(0, dx);
    Ok(())
}

/// `<Op>Grad` of the output.
pub(super) fn by_output(cx: &mut Backward) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let dx = match cx.node().op.as_str() {
        "Exp" => cx.op("Mul", &[y, dy]),
        _ => {
            let node = cx.own();
            cx.add(node, &[y, dy])
        }
    };
    cx.give(0, dx);
    Ok(())
}

pub(super) fn clip(cx: &mut Backward) -> Result<()> {
    let bounds = [1, 2].map(|i| cx.node().input(i));
    let inputs = [Some(cx.x(0)?), bounds[0], bounds[1], Some(cx.dy()?)];
    let node = cx.own();
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

pub(super) fn cast(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dx = cx.cast_like(dy, x)?;
    cx.give(0, dx);
    Ok(())
}

/// Shrink: what is far from 0 is moved, the rest is 0.
pub(super) fn shrink(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let far = f64::from(cx.node().float("lambd").unwrap_or(0.5));
    let (zero, far) = (cx.number(x, 0.0)?, cx.number(x, far)?);
    let size = cx.op("Abs", &[x]);
    let stays = cx.op("Greater", &[size, far]);
    let dx = cx.op("Where", &[stays, dy, zero]);
    cx.give(0, dx);
    Ok(())
}

pub(super) fn neg(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    let dx = cx.op("Neg", &[dy]);
    cx.give(0, dx);
    Ok(())
}

pub(super) fn add(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    cx.give_broadcast(0, dy)?;
    cx.give_broadcast(1, dy)
}

pub(super) fn sum(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    (0..cx.node().inputs().len()).try_for_each(|i| cx.give_broadcast(i, dy))
}

pub(super) fn mean(cx: &mut Backward) -> Result<()> {
    let count = cx.node().inputs().len();
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let share = cx.scaled(dy, y, 1.0 / count as f64)?;
    (0..count).try_for_each(|i| cx.give_broadcast(i, share))
}

pub(super) fn sub(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    cx.give_broadcast(0, dy)?;
    if cx.wants(1) {
        let negative = cx.op("Neg", &[dy]);
        cx.give_broadcast(1, negative)?;
    }
    Ok(())
}

pub(super) fn mul(cx: &mut Backward) -> Result<()> {
    let (x, dy) = ([cx.x(0)?, cx.x(1)?], cx.dy()?);
    for i in 0..2 {
        if cx.wants(i) {
            let product = cx.op("Mul", &[dy, x[1 - i]]);
            cx.give_broadcast(i, product)?;
        }
    }
    Ok(())
}

/// d(a/b) = da/b − (a/b)·db/b.
pub(super) fn div(cx: &mut Backward) -> Result<()> {
    let (b, y, dy) = (cx.x(1)?, cx.y(0)?, cx.dy()?);
    let by_b = cx.op("Div", &[dy, b]);
    cx.give_broadcast(0, by_b)?;
    if cx.wants(1) {
        let product = cx.op("Mul", &[by_b, y]);
        let negative = cx.op("Neg", &[product]);
        cx.give_broadcast(1, negative)?;
    }
    Ok(())
}

/// a mod b is a − n·b, where n moves in jumps only.
pub(super) fn modulo(cx: &mut Backward) -> Result<()> {
    let (a, b, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    cx.give_broadcast(0, dy)?;
    if cx.wants(1) {
        let less = cx.op("Sub", &[y, a]);
        let negative = cx.op("Div", &[less, b]);
        let db = cx.op("Mul", &[negative, dy]);
        cx.give_broadcast(1, db)?;
    }
    Ok(())
}

/// d(a^b) = b·a^(b−1)·da + a^b·ln a·db, where the second term is 0 for an a that is not positive.
pub(super) fn pow(cx: &mut Backward) -> Result<()> {
    let (a, b, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    if cx.wants(0) {
        let one = cx.number(b, 1.0)?;
        let less = cx.op("Sub", &[b, one]);
        let power = cx.op("Pow", &[a, less]);
        let b = if cx.dtype(a)? == cx.dtype(b)? {
            b
        } else {
            cx.cast_like(b, a)?
        };
        let slope = cx.op("Mul", &[power, b]);
        let da = cx.op("Mul", &[slope, dy]);
        cx.give_broadcast(0, da)?;
    }
    if cx.wants(1) {
        let (zero, one) = (cx.number(a, 0.0)?, cx.number(a, 1.0)?);
        let positive = cx.op("Greater", &[a, zero]);
        let safe = cx.op("Where", &[positive, a, one]);
        let log = cx.op("Log", &[safe]);
        let slope = cx.op("Mul", &[y, log]);
        let db = cx.op("Mul", &[slope, dy]);
        cx.give_broadcast(1, db)?;
    }
    Ok(())
}

/// The gradient of Max or Min goes to the first operand that is the extreme.
pub(super) fn extreme(cx: &mut Backward) -> Result<()> {
    let (y, mut rest) = (cx.y(0)?, cx.dy()?);
    let zero = cx.number(y, 0.0)?;
    let count = cx.node().inputs().len();
    for i in 0..count {
        let x = cx.x(i)?;
        let hit = cx.op("Equal", &[x, y]);
        if cx.wants(i) {
            let own = cx.op("Where", &[hit, rest, zero]);
            cx.give_broadcast(i, own)?;
        }
        if i + 1 < count {
            rest = cx.op("Where", &[hit, zero, rest]);
        }
    }
    Ok(())
}

pub(super) fn prelu(cx: &mut Backward) -> Result<()> {
    let (x, slope, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let zero = cx.number(x, 0.0)?;
    let negative = cx.op("Less", &[x, zero]);
    if cx.wants(0) {
        let scaled = cx.op("Mul", &[dy, slope]);
        let dx = cx.op("Where", &[negative, scaled, dy]);
        cx.give_broadcast(0, dx)?;
    }
    if cx.wants(1) {
        let product = cx.op("Mul", &[dy, x]);
        let dslope = cx.op("Where", &[negative, product, zero]);
        cx.give_broadcast(1, dslope)?;
    }
    Ok(())
}

/// Where: each branch gets the gradient where it was taken.
pub(super) fn choose(cx: &mut Backward) -> Result<()> {
    let (condition, dy, y) = (cx.x(0)?, cx.dy()?, cx.y(0)?);
    let zero = cx.number(y, 0.0)?;
    if cx.wants(1) {
        let taken = cx.op("Where", &[condition, dy, zero]);
        cx.give_broadcast(1, taken)?;
    }
    if cx.wants(2) {
        let taken = cx.op("Where", &[condition, zero, dy]);
        cx.give_broadcast(2, taken)?;
    }
    Ok(())
}
