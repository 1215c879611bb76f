//! Queries, keys and values, followed back to rows in which one head stands beside the other.

use edgesmith_ir::{NodeId, ValueId};

use crate::pattern::Group;

/// Which operand of attention it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Query,
    Key,
    Value,
}

/// Where the rows of an operand are.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    /// A value of shape (batch, length, heads · size).
    Plain(ValueId),
    /// A value of shape (batch, length, heads, size).
    ByHead(ValueId),
}

/// An operand of attention.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) rows: Rows,
    pub(super) heads: usize,
    pub(super) size: usize,
    /// What its elements are multiplied by.
    pub(super) scale: f64,
}

/// The operand that is multiplied as `v`; the nodes between join the group.
pub(super) fn find(g: &mut Group, mut v: ValueId, role: Role) -> Option<Operand> {
    let mut scale = 1.0;
    // The order in which axes (batch, length, heads, size) stand in `v`.
    let mut order: Vec<i64> = match role {
        Role::Key => vec![0, 2, 3, 1],
        _ => vec![0, 2, 1, 3],
    };
    for _ in 0..5 {
        let id = g.take(v, &["Mul", "Div", "Transpose", "Reshape"])?;
        let node = g.node(id);
        match node.op.as_str() {
            "Transpose" => {
                let perm = node.ints("perm")?;
                let mut before = vec![0; 4];
                for (to, &from) in perm.iter().enumerate() {
                    *before.get_mut(usize::try_from(from).ok()?)? = *order.get(to)?;
                }
                order = before;
                v = node.input(0)?;
            }
            "Reshape" if order != [0, 1, 2, 3] => {
                v = swapped_in_stacks(g, id, v)?;
                order.swap(2, 3);
            }
            "Reshape" => {
                let shape = g.shape(v)?;
                let x = node.input(0)?;
                if shape.rank() != 4 {
                    return None;
                }
                let (heads, size) = (shape[2].known()?, shape[3].known()?);
                let from = g.shape(x)?;
                let is_plain = from.rank() == 3
                    && from[2].known() == Some(heads * size)
                    && from[0].same(&shape[0])
                    && from[1].same(&shape[1]);
                let rows = if is_plain {
                    Rows::Plain(x)
                } else {
                    g.nodes.retain(|&n| n != id);
                    Rows::ByHead(v)
                };
                return Some(Operand {
                    rows,
                    heads,
                    size,
                    scale,
                });
            }
            op => {
                let (x, factor) = g.with_scalar(id)?;
                if op == "Div" && node.input(0) != Some(x) {
                    return None;
                }
                scale *= if op == "Div" { 1.0 / factor } else { factor };
                v = x;
            }
        }
    }
    None
}

/// What has its last two axes swapped to make `v`, where `reshape` takes apart a stack of matrices,
/// each of them transposed, that another Reshape made: so newer exporters of PyTorch turn keys.
fn swapped_in_stacks(g: &mut Group, reshape: NodeId, v: ValueId) -> Option<ValueId> {
    let turn = g.take(g.node(reshape).input(0)?, &["Transpose"])?;
    let stack = g.take(g.node(turn).input(0)?, &["Reshape"])?;
    let x = g.node(stack).input(0)?;
    let (from, to) = (g.shape(x)?, g.shape(v)?);
    let same = |a: usize, b: usize| from[a].same(&to[b]);
    let fits = from.rank() == 4
        && to.rank() == 4
        && g.node(turn).ints("perm") == Some(&[0, 2, 1])
        && same(0, 0)
        && same(1, 1)
        && same(2, 3)
        && same(3, 2);
    fits.then_some(x)
}
