//! Recurrent layers: a hidden unit is made by all gates, and read by all of them in the next step.

use crate::ValueId;

use super::rules::Cx;

pub(super) fn rnn(cx: &mut Cx) -> Result<(), String> {
    layer(cx, 1)
}

pub(super) fn gru(cx: &mut Cx) -> Result<(), String> {
    layer(cx, 3)
}

pub(super) fn lstm(cx: &mut Cx) -> Result<(), String> {
    layer(cx, 4)
}

/// Axes of X are \[length, batch, in\], of W \[directions, gates * hidden, in\], of R \[directions,
/// gates * hidden, hidden\], of Y \[length, directions, batch, hidden\], of states \[directions,
/// batch, hidden\].
fn layer(cx: &mut Cx, gates: usize) -> Result<(), String> {
    if cx.node.int("layout").unwrap_or(0) != 0 {
        return Err("its batch comes first".into());
    }
    let (x, w, r) = (cx.x(0)?, cx.x(1)?, cx.x(2)?);
    if [x, w, r].iter().any(|v| cx.rank(*v) != 3) {
        return Err("its weights are of another form".into());
    }
    let hidden = cx.length(r, 2)?;
    if cx.length(w, 1)? != gates * hidden || cx.length(r, 1)? != gates * hidden {
        return Err("its weights do not fit its hidden units".into());
    }
    cx.hold(x, 0, "it goes along this axis");
    cx.tie((x, 2), (w, 2));
    cx.reads(1, 2);
    cx.reads(2, 2);
    cx.makes(w, 1);
    cx.tie((w, 0), (r, 0));
    cx.hold(w, 0, "these are its directions");
    for h in 0..hidden {
        for g in 0..gates {
            cx.tie_at((w, 1, g * hidden + h), (r, 2, h));
            cx.tie_at((r, 1, g * hidden + h), (r, 2, h));
        }
    }
    for (i, lists) in [(3, 2 * gates), (7, 3)] {
        if let Some(v) = cx.node.input(i) {
            list(cx, (v, r), lists, hidden)?;
        }
    }
    if let Some(lengths) = cx.node.input(4) {
        cx.tie((lengths, 0), (x, 1));
    }
    let states = [cx.node.input(5), cx.node.input(6)];
    let ends = [cx.node.output(1), cx.node.output(2)];
    for v in states.into_iter().chain(ends).flatten() {
        if cx.rank(cx.ranked(v)?) != 3 {
            return Err("its states are of another form".into());
        }
        cx.tie((v, 0), (r, 0));
        cx.tie((v, 1), (x, 1));
        cx.tie((v, 2), (r, 2));
    }
    if let Some(y) = cx.node.output(0) {
        if cx.rank(cx.ranked(y)?) != 4 {
            return Err("its output is of another form".into());
        }
        cx.tie((y, 0), (x, 0));
        cx.tie((y, 1), (r, 0));
        cx.tie((y, 2), (x, 1));
        cx.tie((y, 3), (r, 2));
    }
    Ok(())
}

/// Ties a list of so many numbers for each hidden unit, of all directions.
fn list(
    cx: &mut Cx,
    (v, r): (ValueId, ValueId),
    lists: usize,
    hidden: usize,
) -> Result<(), String> {
    if cx.rank(cx.ranked(v)?) != 2 || cx.length(v, 1)? != lists * hidden {
        return Err("its biases do not fit its hidden units".into());
    }
    cx.tie((v, 0), (r, 0));
    for i in 0..lists * hidden {
        cx.tie_at((v, 1, i), (r, 2, i % hidden));
    }
    Ok(())
}
