//! Integers that operators on integers make, as the floats that they stand for.

use edgesmith_ir::{Graph, Result, Tensor, ValueId};

/// Where operators have the scale and the zero point of what they make.
static GRIDS: &[(&str, usize, usize)] = &[
    ("QGemm", 7, 8),
    ("QLinearAdd", 6, 7),
    ("QLinearAveragePool", 3, 4),
    ("QLinearConcat", 0, 1),
    ("QLinearConv", 6, 7),
    ("QLinearGlobalAveragePool", 3, 4),
    ("QLinearLeakyRelu", 3, 4),
    ("QLinearMatMul", 6, 7),
    ("QLinearMul", 6, 7),
    ("QLinearSigmoid", 3, 4),
    ("QuantizeLinear", 1, 2),
];

/// The grid of all numbers of one value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    scale: f32,
    zero: f32,
}

impl Grid {
    /// That of a value of integers, where the node that makes it says it.
    pub fn of(graph: &Graph, v: ValueId) -> Option<Self> {
        let (id, 0) = graph.value(v).producer()? else {
            return None;
        };
        let node = graph.node(id);
        let (_, scale, zero) = GRIDS.iter().find(|(op, ..)| node.op == *op)?;
        let number = |i: usize| {
            let t = graph.constant(node.input(i)?).filter(|t| t.count() == 1)?;
            t.to_f32().ok().map(|x| x[0])
        };
        Some(Self {
            scale: number(*scale)?,
            zero: node.input(*zero).map_or(Some(0.0), |_| number(*zero))?,
        })
    }

    /// The floats that integers stand for.
    ///
    /// # Errors
    /// When they cannot be read as f32.
    pub fn floats(self, t: &Tensor) -> Result<Tensor> {
        let data = t.to_f32()?;
        let data = data.iter().map(|q| (q - self.zero) * self.scale).collect();
        Tensor::from_vec(t.dims(), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_of_operators_that_are_known() {
        assert!(GRIDS.windows(2).all(|p| p[0].0 < p[1].0));
        let known = |op| {
            ["", "com.microsoft"]
                .iter()
                .any(|d| edgesmith_ir::ops::find(d, op).is_some())
        };
        assert!(GRIDS.iter().all(|(op, ..)| known(op)));
    }
}
