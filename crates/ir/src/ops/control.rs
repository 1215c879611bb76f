//! If and Loop: graphs inside a node, run once of two or many times.

use super::{Arity, AttrKind, MANY, OpDef, attr, axes, concat};
use crate::budget::bytes_of;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape, TensorType, Type};
use crate::{DType, Error, Graph, Item, Result, Tensor};

/// ONNX If.
pub static IF: OpDef = OpDef {
    name: "If",
    since: &[1, 11, 13, 16, 19, 21, 23, 24, 25],
    inputs: Arity(1, 1),
    outputs: Arity(1, MANY),
    attrs: &[
        attr("then_branch", AttrKind::Graph),
        attr("else_branch", AttrKind::Graph),
    ],
    infer: infer_if,
    eval_items: Some(eval_if),
    examples: &[
        "If(bool[]{true}) {then_branch=graph a() -> (y) { y: f32[2] = {1,2} }, \
         else_branch=graph b() -> (y) { x: f32[3] = {1,2,-3}; y = Relu(x) }}",
    ],
    ..OpDef::BASE
};

/// ONNX Loop.
pub static LOOP: OpDef = OpDef {
    name: "Loop",
    since: &[1, 11, 13, 16, 19, 21, 23, 24, 25],
    inputs: Arity(2, MANY),
    outputs: Arity(1, MANY),
    attrs: &[attr("body", AttrKind::Graph)],
    infer: infer_loop,
    eval_items: Some(eval_loop),
    examples: &[
        "Loop(i64[]{3}, bool[]{true}, f32[2]) {body=graph body(i: i64[], c: bool[], s: f32[2]) \
         -> (d, t, u) { d = Identity(c); t = Concat(s) {axis=0}; u = Identity(i) }} -> 2",
        "Loop(i64[]{3}, _, f32[2]) {body=graph body(i: i64[], c: bool[], s: f32[2]) \
         -> (d, t) { d = Identity(c); t = Concat(s, s) {axis=0} }}",
        "Loop(i64[]{0}, _, f32[2]) {body=graph body(i: i64[], c: bool[], s: f32[2]) \
         -> (d, t, u: f32[2]) { d = Identity(c); t = Identity(s); u = Relu(s) }} -> 2",
    ],
    ..OpDef::BASE
};

/// What both branches give. A branch that does not fit what is known is never taken, so the other
/// one decides.
fn infer_if(cx: &mut InferCx) -> Result<()> {
    let names = ["then_branch", "else_branch"];
    if let Some(name) = names.iter().find(|n| cx.node.graph(n).is_none()) {
        return Err(Error::invalid(format!("attribute \"{name}\" is missing")));
    }
    let (yes, no) = match names.map(|name| cx.subgraph(name, &[])) {
        [Ok(yes), Ok(no)] => (yes, no),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => (one.clone(), one),
        [Err(e), Err(_)] => return Err(e),
    };
    for (o, pair) in yes.iter().zip(&no).enumerate() {
        if let (Some(a), Some(b)) = pair
            && let Some(ty) = a.common(b)
        {
            cx.set(o, ty);
        }
    }
    Ok(())
}

fn truth(t: &Tensor) -> Result<bool> {
    match t.bools()?.as_slice() {
        [one] => Ok(*one),
        _ => Err(Error::invalid(format!(
            "expected one condition, found {}",
            t.ty()
        ))),
    }
}

fn eval_if(cx: &EvalCx) -> Result<Vec<Item>> {
    let branch = if truth(cx.input(0)?)? {
        "then_branch"
    } else {
        "else_branch"
    };
    cx.subgraph(branch, Vec::new())
}

/// The type of a stack of values of type `ty` along `axis`.
pub(super) fn stacked_type(ty: &Type, axis: i64, length: Dim) -> Option<Type> {
    let t = ty.tensor()?;
    let shape = t.shape.as_ref().and_then(|s| {
        let axis = crate::infer::axis(axis, s.rank() + 1).ok()?;
        let mut s = s.clone();
        s.0.insert(axis, length);
        Some(s)
    });
    Some(
        TensorType {
            dtype: t.dtype,
            shape,
        }
        .into(),
    )
}

/// Loops inside so many graphs are looked at once.
const MAX_TURNING: usize = 3;

fn forget_shape(ty: &mut Option<Type>) {
    *ty = match ty.take() {
        Some(Type::Tensor(t)) => Some(Type::Tensor(TensorType { shape: None, ..t })),
        _ => None,
    };
}

fn infer_loop(cx: &mut InferCx) -> Result<()> {
    let carried = cx.inputs() - 2;
    let number = TensorType::fixed(DType::I64, &[]);
    let condition = TensorType::fixed(DType::Bool, &[]);
    let mut types: Vec<Option<Type>> = vec![Some(number.into()), Some(condition.into())];
    types.extend((0..carried).map(|i| cx.ty(i + 2).cloned()));
    // Shapes may change from turn to turn: what changes in one turn is not known, and what
    // follows from that shows in the next.
    // Deep inside other loops, where each turn costs a turn of all loops around, no shape is known.
    if cx.depth() >= MAX_TURNING {
        types[2..].iter_mut().for_each(forget_shape);
    }
    let mut outputs = cx.subgraph("body", &types)?;
    let turns = if cx.depth() >= MAX_TURNING { 0 } else { 4 };
    for _ in 0..turns {
        let before = types.clone();
        for (ty, out) in types[2..].iter_mut().zip(outputs.iter().skip(1)) {
            *ty = match (&*ty, out) {
                (Some(a), Some(b)) => a.common(b),
                _ => None,
            };
        }
        if types == before {
            break;
        }
        outputs = cx.subgraph("body", &types)?;
    }
    for (o, ty) in types[2..].iter().enumerate() {
        if let Some(ty) = ty {
            cx.set(o, ty.clone());
        }
    }
    for (o, ty) in outputs.iter().enumerate().skip(carried + 1) {
        if let Some(ty) = ty.as_ref().and_then(|t| stacked_type(t, 0, Dim::Unknown)) {
            cx.set(o - 1, ty);
        }
    }
    Ok(())
}

/// Values of each turn, to be stacked.
pub(super) struct Stack {
    turns: Vec<Vec<Tensor>>,
    bytes: u64,
}

impl Stack {
    pub(super) fn new(outputs: usize) -> Self {
        Self {
            turns: vec![Vec::new(); outputs],
            bytes: 0,
        }
    }

    /// Keeps the values of one turn.
    pub(super) fn push(&mut self, values: impl Iterator<Item = Item>) -> Result<()> {
        for (turns, value) in self.turns.iter_mut().zip(values) {
            let value = value.into_tensor()?;
            let size = (value.byte_len() + size_of::<Tensor>()) as u64;
            self.bytes = self.bytes.saturating_add(2 * size);
            turns.push(value);
        }
        Ok(())
    }

    /// Bytes of the values that are kept, and of the stacks that are made of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stacks; one without turns is typed by the body's output.
    pub(super) fn finish(
        self,
        body: &Graph,
        first: usize,
        axis: impl Fn(usize) -> i64,
    ) -> Result<Vec<Item>> {
        let stack = |(i, turns): (usize, Vec<Tensor>)| match turns.first() {
            Some(t) => {
                let at = crate::infer::axis(axis(i), t.rank() + 1)?;
                let one = |t: &Tensor| {
                    let mut dims = t.dims().to_vec();
                    dims.insert(at.min(dims.len()), 1);
                    t.reshaped(&dims)
                };
                let turns = turns.iter().map(one).collect::<Result<Vec<Tensor>>>()?;
                concat::join(&turns.iter().collect::<Vec<_>>(), at as i64)
            }
            None => empty(body, first + i, axis(i)),
        };
        let all = self.turns.into_iter().enumerate();
        all.map(|turns| stack(turns).map(Item::Tensor)).collect()
    }
}

fn empty(body: &Graph, output: usize, axis: i64) -> Result<Tensor> {
    let ty = body
        .outputs
        .get(output)
        .and_then(|&v| body.value(v).tensor_type());
    let ty = ty.ok_or_else(|| {
        Error::unsupported("the loop makes no turn and does not say the type of its outputs")
    })?;
    let shape = ty.shape.clone().unwrap_or_default();
    let mut dims: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(0)).collect();
    dims.insert(crate::infer::axis(axis, dims.len() + 1)?, 0);
    if ty.dtype == DType::String {
        return Tensor::from_strings(&dims, Vec::new());
    }
    Tensor::from_bytes(ty.dtype, &dims, bytes::Bytes::new())
}

/// The body of a loop.
pub(super) fn body<'a>(cx: &EvalCx<'a>) -> Result<&'a Graph> {
    cx.node
        .graph("body")
        .ok_or_else(|| Error::invalid("attribute \"body\" is missing"))
}

/// An error where the body has not as many outputs as the node needs.
pub(super) fn check_outputs(body: &Graph, least: usize) -> Result<()> {
    if body.outputs.len() >= least {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the body should have {least} or more outputs, it has {}",
        body.outputs.len()
    )))
}

fn eval_loop(cx: &EvalCx) -> Result<Vec<Item>> {
    let body = body(cx)?;
    let turns = cx
        .optional(0)
        .map(axes::scalar)
        .transpose()?
        .unwrap_or(i64::MAX);
    let mut go = cx.optional(1).map(truth).transpose()?.unwrap_or(true);
    let mut carried: Vec<Item> = (2..cx.inputs())
        .map(|i| cx.get(i).cloned())
        .collect::<Result<_>>()?;
    let n = carried.len();
    check_outputs(body, n + 1)?;
    let mut stack = Stack::new(body.outputs.len() - n - 1);
    let (held, mut turn) = (cx.held(), 0);
    while go && turn < turns {
        let mut inputs = vec![
            Some(Tensor::scalar(turn).into()),
            Some(Tensor::from_bools(&[], &[go])?.into()),
        ];
        inputs.extend(carried.into_iter().map(Some));
        let mut outputs = cx.subgraph("body", inputs)?.into_iter();
        go = outputs
            .next()
            .map_or(Ok(false), |t| truth(t.as_tensor()?))?;
        carried = outputs.by_ref().take(n).collect();
        stack.push(outputs)?;
        cx.hold_after(held, stack.bytes().saturating_add(bytes_of(&carried)))?;
        turn += 1;
    }
    carried.extend(stack.finish(body, n + 1, |_| 0)?);
    Ok(carried)
}

/// A shape of which only the element type is known to stay.
pub(super) fn without_axis(shape: &Shape, axis: usize) -> Shape {
    let mut out = shape.clone();
    out.0.remove(axis);
    out
}

#[cfg(test)]
mod tests {
    use crate::infer::infer;
    use crate::text::parse;

    #[test]
    fn a_branch_that_cannot_fit_leaves_the_other_to_decide() {
        let model = parse(
            "opset 17
             graph g(c: bool[], x: f32[2]) -> (y) {
               y = If(c) {
                 then_branch=graph t() -> (p) { capture x = x
                   p = Relu(x) },
                 else_branch=graph e() -> (q) { capture x = x
                   axes: i64[1] = {0}
                   q = Squeeze(x, axes) }}
             }",
        )
        .expect("the model reads");
        let types = infer(&model, &[]).expect("one branch fits");
        let ty = types.tensor(model.graph.outputs[0]);
        assert_eq!(ty.map(ToString::to_string).as_deref(), Some("f32[2]"));
    }
}
