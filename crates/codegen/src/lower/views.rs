//! Orders of axes in memory: most changes of shape cost nothing, and the others are one copy.

use edgesmith_ir::{Error, NodeId, Result};

use super::{Held, Lowering};
use crate::emit::moves::Moves;

/// Whether two orders of axes are the same in memory: axes of length 1 do not count.
pub(crate) fn same(a: &[usize], b: &[usize], dims: &[usize]) -> bool {
    let real = |order: &[usize]| -> Vec<usize> {
        order.iter().copied().filter(|&i| dims[i] != 1).collect()
    };
    real(a) == real(b)
}

/// Row-major order.
pub(crate) fn plain(rank: usize) -> Vec<usize> {
    (0..rank).collect()
}

/// Channels-last: axis 1 behind all others.
pub(crate) fn last(rank: usize) -> Vec<usize> {
    match rank {
        0 | 1 => plain(rank),
        _ => {
            let mut order = vec![0];
            order.extend(2..rank);
            order.push(1);
            order
        }
    }
}

impl Lowering<'_> {
    /// The value with its axes in `order`; a copy where they are in another.
    pub fn ordered(&mut self, held: &Held, order: &[usize]) -> Held {
        if same(&held.order, order, &held.dims) {
            return Held {
                order: order.to_vec(),
                ..held.clone()
            };
        }
        let laid = held.laid();
        let perm: Vec<usize> = order
            .iter()
            .map(|a| held.order.iter().position(|b| b == a).unwrap_or(0))
            .collect();
        let (element, grid, name) = {
            let buffer = self.of(held);
            (buffer.element, buffer.grid, buffer.name.clone())
        };
        let mut made = self.buffer(&format!("{name} (turned)"), element, &held.dims, grid);
        made.order = order.to_vec();
        let layer = Moves::permute(element, &laid, &perm);
        self.add(name, "Transpose".into(), &[held], &made, Box::new(layer));
        made
    }

    /// The value in row-major order.
    pub fn row_major(&mut self, held: &Held) -> Held {
        self.ordered(held, &plain(held.dims.len()))
    }

    /// The value channels-last.
    pub fn channels_last(&mut self, held: &Held) -> Held {
        self.ordered(held, &last(held.dims.len()))
    }

    /// A copy of a value.
    pub fn copied(&mut self, held: &Held, name: &str) -> Held {
        let buffer = self.of(held);
        let (element, grid) = (buffer.element, buffer.grid);
        let mut made = self.buffer(name, element, &held.dims, grid);
        made.order = held.order.clone();
        let count = held.dims.iter().product();
        let layer = Moves::permute(element, &[count], &[0]);
        self.add(
            name.to_owned(),
            "Identity".into(),
            &[held],
            &made,
            Box::new(layer),
        );
        made
    }

    /// Node `id` gives what it reads another shape: no step.
    pub fn reshaped(&mut self, id: NodeId) -> Result<()> {
        let y = self.output(id, 0)?;
        let x = self.read(id, 0)?;
        let dims = self.typed(y)?.1;
        if dims.iter().product::<usize>() != x.dims.iter().product::<usize>() {
            return Err(Error::invalid(
                "the new shape has another number of elements",
            ));
        }
        let x = self.row_major(&x);
        let held = Held {
            buffer: x.buffer,
            order: plain(dims.len()),
            dims,
        };
        self.hold(y, held);
        Ok(())
    }
}
