//! Operators of com.microsoft that hold several others: activations with a bias, and norms of sums.

use edgesmith_ir::ops::gradient::DOMAIN;
use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::Backward;

/// The sum of those of `inputs` that the node has.
fn sum_of(cx: &mut Backward, inputs: &[usize]) -> Result<ValueId> {
    let mut given = inputs
        .iter()
        .filter_map(|&i| cx.node().input(i))
        .collect::<Vec<_>>()
        .into_iter();
    let first = given
        .next()
        .ok_or_else(|| Error::invalid("the input is missing"))?;
    Ok(given.fold(first, |sum, v| cx.op("Add", &[sum, v])))
}

/// BiasGelu and FastGelu: Gelu of the sum of the inputs.
pub(super) fn biased_gelu(cx: &mut Backward) -> Result<()> {
    let sum = sum_of(cx, &[0, 1])?;
    let form = match cx.node().op.as_str() {
        "FastGelu" => "tanh",
        _ => "none",
    };
    let node = Node::new("GeluGrad", "").in_domain(DOMAIN);
    let node = node.with("approximate", Attribute::String(form.into()));
    let dy = cx.dy()?;
    let d = cx.add(node, &[sum, dy]);
    cx.give_broadcast(0, d)?;
    cx.give_broadcast(1, d)
}

/// QuickGelu is Swish with another default.
pub(super) fn quick_gelu(cx: &mut Backward) -> Result<()> {
    let alpha = cx.node().float("alpha").unwrap_or(1.702);
    let node = Node::new("SwishGrad", "").in_domain(DOMAIN);
    let inputs = [cx.x(0)?, cx.dy()?];
    let dx = cx.add(node.with("alpha", Attribute::Float(alpha)), &inputs);
    cx.give(0, dx);
    Ok(())
}

/// What a norm of a sum has where.
struct Norm {
    /// The operator that has its gradient.
    op: &'static str,
    /// The sum, as an output.
    sum: usize,
    /// Its scale and, where it has one, its shift, as inputs.
    scale: usize,
    shift: Option<usize>,
}

impl Norm {
    /// Gives scale and shift their gradients; that of the sum, which may also be an output, is
    /// returned. Where it is none, `sum` makes it again.
    fn back(
        &self,
        cx: &mut Backward,
        sum: impl FnOnce(&mut Backward) -> Result<ValueId>,
    ) -> Result<Option<ValueId>> {
        let outputs = cx.node().outputs().len();
        if (1..outputs).any(|o| o != self.sum && cx.dy_of(o).is_some()) {
            return Err(Error::unsupported(
                "the gradients of mean and deviation of a norm are not done",
            ));
        }
        let shown = cx.dy_of(self.sum);
        let Some(dy) = cx.dy_of(0) else {
            return Ok(shown);
        };
        let sum = match cx.node().output(self.sum) {
            Some(sum) => sum,
            None => sum(cx)?,
        };
        let epsilon = cx.node().float("epsilon").unwrap_or(1e-12);
        let node = Node::new(self.op, "")
            .in_domain(DOMAIN)
            .with("axis", Attribute::Int(-1))
            .with("epsilon", Attribute::Float(epsilon));
        let mut wants = vec![true, cx.wants(self.scale)];
        wants.extend(self.shift.map(|i| cx.wants(i)));
        let scale = cx.x(self.scale)?;
        let made = cx.emit(node, &[sum, scale, dy].map(Some), &wants);
        let places = [Some(self.scale), self.shift];
        for (place, d) in places.into_iter().flatten().zip(&made[1..]) {
            if let Some(d) = d {
                cx.give(place, *d);
            }
        }
        Ok(match (made[0], shown) {
            (Some(a), Some(b)) => Some(cx.op("Add", &[a, b])),
            (a, b) => a.or(b),
        })
    }
}

fn skip(cx: &mut Backward, norm: &Norm, parts: &[usize]) -> Result<()> {
    if let Some(d) = norm.back(cx, |cx| sum_of(cx, parts))? {
        parts.iter().try_for_each(|&i| cx.give_broadcast(i, d))?;
    }
    Ok(())
}

/// SkipLayerNormalization of (input, skip, gamma, beta, bias).
pub(super) fn skip_layer_norm(cx: &mut Backward) -> Result<()> {
    let norm = Norm {
        op: "LayerNormalizationGrad",
        sum: 3,
        scale: 2,
        shift: Some(3),
    };
    skip(cx, &norm, &[0, 1, 4])
}

/// SkipSimplifiedLayerNormalization of (input, skip, gamma, bias).
pub(super) fn skip_root_mean_square_norm(cx: &mut Backward) -> Result<()> {
    let norm = Norm {
        op: "RMSNormalizationGrad",
        sum: 3,
        scale: 2,
        shift: None,
    };
    skip(cx, &norm, &[0, 1, 3])
}

/// EmbedLayerNormalization of (word ids, segment ids, word rows, position rows, segment rows,
/// gamma, beta, mask, position ids).
pub(super) fn embed_layer_norm(cx: &mut Backward) -> Result<()> {
    let norm = Norm {
        op: "LayerNormalizationGrad",
        sum: 2,
        scale: 5,
        shift: Some(6),
    };
    let words = cx.x(0)?;
    let mut tables = vec![(cx.x(2)?, words), (cx.x(3)?, positions(cx, words)?)];
    let segments = cx.node().input(4).zip(cx.node().input(1));
    tables.extend(segments);
    let d = norm.back(cx, |cx| {
        let mut rows = tables.iter().map(|&(table, ids)| [table, ids]);
        let first = rows.next().map(|r| cx.op("Gather", &r));
        let first = first.ok_or_else(|| Error::internal("there are words"))?;
        Ok(rows.fold(first, |sum, rows| {
            let rows = cx.op("Gather", &rows);
            cx.op("Add", &[sum, rows])
        }))
    })?;
    let Some(d) = d else { return Ok(()) };
    for (i, (table, ids)) in [2, 3, 4].into_iter().zip(tables) {
        if cx.wants(i) {
            let rows = cx.ours("GatherGrad", &[table, ids, d]);
            cx.give(i, rows);
        }
    }
    Ok(())
}

/// The position of each word: as given, else 0, 1, …
fn positions(cx: &mut Backward, words: ValueId) -> Result<ValueId> {
    let shape = cx.op("Shape", &[words]);
    let given = match cx.node().input(8) {
        Some(ids) => ids,
        None => {
            let one = cx.constant(edgesmith_ir::Tensor::scalar(1i64));
            let length = cx.op("Gather", &[shape, one]);
            let zero = cx.constant(edgesmith_ir::Tensor::scalar(0i64));
            cx.op("Range", &[zero, length, one])
        }
    };
    Ok(cx.op("Expand", &[given, shape]))
}

/// RotaryEmbedding turns pairs; the gradient is turned back.
fn turned_back(cx: &mut Backward, cosines: usize, sines: usize) -> Result<()> {
    if cx.wants(cosines) || cx.wants(sines) {
        return Err(Error::unsupported(
            "the tables of a RotaryEmbedding have no gradient",
        ));
    }
    let mut node = Node::new("RotaryEmbedding", "").in_domain(&cx.node().domain);
    node.attributes.clone_from(&cx.node().attributes);
    let mut inputs = cx.node().inputs().to_vec();
    let sines_given = cx.x(sines)?;
    inputs[0] = Some(cx.dy()?);
    inputs[sines] = Some(cx.op("Neg", &[sines_given]));
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

/// ONNX's RotaryEmbedding of (X, cosines, sines, positions).
pub(super) fn rotary(cx: &mut Backward) -> Result<()> {
    turned_back(cx, 1, 2)
}

/// com.microsoft's, of (X, positions, cosines, sines).
pub(super) fn rotary_of_positions(cx: &mut Backward) -> Result<()> {
    turned_back(cx, 2, 3)
}
