//! FlexAttention: attention whose scores and weights pass through graphs of the node.

use super::arith::{any, from_floats};
use super::heads::{self, Heads};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::Shape;
use crate::{DType, Error, Item, Result, Tensor};

/// FlexAttention of ai.onnx.preview.
pub static FLEX_ATTENTION: OpDef = OpDef {
    name: "FlexAttention",
    domain: "ai.onnx.preview",
    since: &[1],
    inputs: Arity(3, 3),
    attrs: &[
        attr("prob_mod", AttrKind::Graph),
        attr("scale", AttrKind::Float(None)),
        attr("score_mod", AttrKind::Graph),
        attr("softmax_precision", AttrKind::Int(None)),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "ai.onnx.preview.FlexAttention(f32[1,2,3,4], f32[1,1,5,4], f32[1,1,5,6])",
        "ai.onnx.preview.FlexAttention(f16[1,2,3,4], f16[1,2,3,4], f16[1,2,3,4]) \
         {score_mod=graph s(x: f32[1,2,3,3]) -> (y) { y = Tanh(x) }, \
         prob_mod=graph p(x: f32[1,2,3,3]) -> (y) { y = Sqrt(x) }}",
    ],
    ..OpDef::BASE
};

/// The type that scores have in the graphs: at least f32, unless the node asks for less.
fn precision(node: &Node, dtype: DType) -> Result<DType> {
    let Some(code) = node.int("softmax_precision") else {
        return Ok(if dtype == DType::F64 {
            dtype
        } else {
            DType::F32
        });
    };
    let known = i32::try_from(code).ok().and_then(DType::from_onnx);
    known
        .filter(|d| matches!(d, DType::F64 | DType::F32 | DType::F16 | DType::BF16))
        .ok_or_else(|| Error::invalid(format!("softmax_precision {code} is no float type")))
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (query, values) = (cx.input(0)?, cx.input(2)?);
    let (q, k, v) = (
        Heads::of(query)?,
        Heads::of(cx.input(1)?)?,
        Heads::of(values)?,
    );
    heads::check(&q, &k, &v)?;
    let dims = [q.batch, q.heads, q.steps, k.steps];
    let dtype = precision(cx.node, query.dtype())?;
    let scores = heads::products(&q, &k, heads::scale(cx, q.size))?;
    let mut scores = through(cx, "score_mod", dtype, &dims, scores)?;
    heads::softmax(&mut scores, k.steps);
    let weights = through(cx, "prob_mod", dtype, &dims, scores)?;
    Ok(vec![heads::weigh(&weights, &q, &v, values.dtype())?])
}

/// `data` after the graph in attribute `name`; unchanged where there is none.
fn through(
    cx: &EvalCx,
    name: &str,
    dtype: DType,
    dims: &[usize],
    data: Vec<f64>,
) -> Result<Vec<f64>> {
    if cx.node.graph(name).is_none() {
        return Ok(data);
    }
    let x = from_floats(dtype, dims, data)?;
    let out = cx.subgraph(name, vec![Some(x.into())])?;
    match out.as_slice() {
        [Item::Tensor(y)] if y.dims() == dims => any(y),
        _ => Err(Error::invalid(format!(
            "the graph in \"{name}\" should keep the shape of its one input"
        ))),
    }
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let [batch, heads, queries, _] = heads::dims(cx, 0, None)?;
    let [.., size] = heads::dims(cx, 2, None)?;
    let shape = Shape::from_iter([batch, heads, queries, size]);
    cx.set_tensor(0, cx.dtype(2), Some(shape));
    Ok(())
}
