//! Transpose, Reshape, Identity and their kin: only another way to read what is there.

use edgesmith_ir::{Error, NodeId, Result};

use crate::lower::{Held, Lowering};

/// Transpose: the order of axes in memory stays as it is.
pub(in crate::emit) fn transpose(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let rank = x.dims.len();
    let perm: Vec<usize> = match node.ints("perm") {
        Some(perm) => perm.iter().map(|&p| p as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    let y = l.output(id, 0)?;
    let mut order = Vec::with_capacity(rank);
    for &axis in &x.order {
        let place = perm.iter().position(|&p| p == axis);
        order.push(place.ok_or_else(|| Error::invalid("perm does not name every axis"))?);
    }
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    l.hold(
        y,
        Held {
            buffer: x.buffer,
            dims,
            order,
        },
    );
    Ok(())
}

/// Reshape, Flatten, Squeeze, Unsqueeze.
pub(in crate::emit) fn reshape(l: &mut Lowering, id: NodeId) -> Result<()> {
    l.reshaped(id)
}

/// Identity, Dropout, and casts to the same type.
pub(in crate::emit) fn identity(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let y = l.output(id, 0)?;
    if node.is("Dropout")
        && node
            .output(1)
            .is_some_and(|m| !l.graph.value(m).consumers().is_empty())
    {
        return Err(Error::unsupported("the mask of Dropout is read"));
    }
    if node.is("Dropout") && node.input(2).is_some() {
        let off = node.input(2).and_then(|v| l.constant(v)?.bools().ok());
        if off != Some(vec![false]) {
            return Err(Error::unsupported("a Dropout of training has no emitter"));
        }
    }
    l.hold(y, x);
    Ok(())
}
