//! Examples of operators: one line that says a node with its inputs.

use half::{bf16, f16};

use super::parse::Parser;
use crate::graph::{Graph, Model, ValueId};
use crate::random::Random;
use crate::tensor::checked_count;
use crate::types::{Shape, TensorType};
use crate::{DType, Error, Result, Tensor, ops};

/// The version of the default domain that examples are at, unless they say another.
const OPSET: i64 = 24;

/// Reads an example such as `Gather(f32[3,4], i64[2]{0,-1}) {axis=1}` to a model of that one node,
/// and the tensors for its inputs, in order.
///
/// An input that is a type is a graph input (`x0`, `x1`, …) with random data, always the same; one
/// with elements is a constant; `_` (or nothing before a comma) is left out. `Squeeze@11(…)` is at opset 11 and `Split(…) -> 2`
/// has two outputs; without a number there are as many as the operator must have. The outputs are
/// called `y0`, `y1`, ….
///
/// # Errors
/// Says line and column of what is not understood.
pub fn example(text: &str) -> Result<(Model, Vec<Tensor>)> {
    let mut p = Parser::new(text);
    let mut node = p.op()?;
    let version = if p.c.eat("@") {
        p.c.int("an opset")?
    } else if node.domain.is_empty() {
        OPSET
    } else {
        1
    };
    let mut graph = Graph::new("example");
    let (mut inputs, mut tensors) = (Vec::new(), Vec::new());
    p.c.expect("(")?;
    while !p.c.eat(")") {
        inputs.push(argument(&mut p, &mut graph, inputs.len(), &mut tensors)?);
        if !p.c.eat(",") && !p.c.sees(")") {
            return Err(p.c.expected("`,` or `)`"));
        }
    }
    p.attributes(&mut node)?;
    let def = ops::find(&node.domain, &node.op);
    let count = if p.c.eat("->") {
        p.c.int("a number of outputs")?
    } else {
        def.map_or(1, |d| d.outputs.0.max(1))
    };
    checked_count(&[count])?;
    if !p.c.is_at_end() {
        return Err(p.c.expected("the end"));
    }
    let outputs: Vec<Option<ValueId>> = (0..count)
        .map(|i| Some(graph.add_value(&format!("y{i}"), None)))
        .collect();
    graph.outputs = outputs.iter().flatten().copied().collect();
    let domain = node.domain.clone();
    graph.add_node(node, &inputs, &outputs);
    let mut model = Model::new(graph, if domain.is_empty() { version } else { OPSET });
    model.opsets.insert(domain, version);
    Ok((model, tensors))
}

fn argument(
    p: &mut Parser,
    graph: &mut Graph,
    i: usize,
    tensors: &mut Vec<Tensor>,
) -> Result<Option<ValueId>> {
    if p.c.eat("_") || p.c.sees(",") {
        return Ok(None);
    }
    let ty = p.tensor_type()?;
    if p.c.sees("{") {
        let data = p.elements(&ty)?;
        return Ok(Some(graph.add_constant(&format!("c{i}"), data)));
    }
    tensors.push(random(&ty, i as u64).map_err(|e| p.c.place(e))?);
    Ok(Some(graph.add_input(&format!("x{i}"), ty)))
}

/// A tensor with the same data for the same seed: floats from −2 to 2 that every float type of
/// 16 bits or more holds exactly, small integers of either sign.
///
/// # Errors
/// When lengths are not known, and for types without numbers.
pub(super) fn random(ty: &TensorType, seed: u64) -> Result<Tensor> {
    let dims = ty
        .shape
        .as_ref()
        .and_then(Shape::known)
        .ok_or_else(|| Error::invalid("an input of an example has known lengths"))?;
    let count = checked_count(&dims)?;
    // The lowest bits are left out.
    let mut random = Random::new(seed);
    let mut next = || random.bits() >> 8;
    let bits: Vec<u64> = (0..count).map(|_| next()).collect();
    let float = |b: &u64| (b % 257) as f32 / 64.0 - 2.0;
    let signed = |b: &u64| i64::try_from(b % 9).unwrap_or(0) - 4;
    macro_rules! filled {
        ($f:expr) => {
            Tensor::from_vec(&dims, bits.iter().map($f).collect())
        };
    }
    match ty.dtype {
        DType::F32 => filled!(float),
        DType::F64 => filled!(|b| f64::from(float(b))),
        DType::F16 => filled!(|b| f16::from_f32(float(b))),
        DType::BF16 => filled!(|b| bf16::from_f32(float(b))),
        DType::I64 => filled!(signed),
        DType::I32 => filled!(|b| signed(b) as i32),
        DType::I16 => filled!(|b| signed(b) as i16),
        DType::I8 => filled!(|b| signed(b) as i8),
        DType::U64 => filled!(|b| b % 9),
        DType::U32 => filled!(|b| (b % 9) as u32),
        DType::U16 => filled!(|b| (b % 9) as u16),
        DType::U8 => filled!(|b| (b % 9) as u8),
        DType::Bool => {
            let values: Vec<bool> = bits.iter().map(|b| b % 2 == 1).collect();
            Tensor::from_bools(&dims, &values)
        }
        DType::String => {
            Tensor::from_strings(&dims, bits.iter().map(|b| format!("s{}", b % 9)).collect())
        }
        // Any bits are a number of a packed type; the top of a byte float is left clear so that
        // it is finite.
        d => {
            let len = d.bytes_of(count).unwrap_or(0);
            let mask = if d.bits() == 8 { 0x3f } else { 0xff };
            let data: Vec<u8> = (0..len).map(|_| (next() & mask) as u8).collect();
            Tensor::from_bytes(d, &dims, data.into())
        }
    }
}
