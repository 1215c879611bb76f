//! MatMulNBits of com.microsoft while it is trained: its codes in bytes, a block a row, that are
//! dequantised and multiplied; and packed as they were when the model is written.

use edgesmith_ir::{Attribute, DType, Error, Model, Node, NodeId, Result, Tensor, ValueId};

use super::integers;

/// A node that was taken apart.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The node as it was, with the names of its inputs and its output.
    node: Node,
    /// What it multiplies, what it adds and what it makes.
    a: ValueId,
    bias: Option<ValueId>,
    out: ValueId,
    /// Its place in the codes, and which nodes stand for it.
    pub(super) reader: NodeId,
    made: Vec<NodeId>,
    /// Bits of a code.
    pub(super) bits: usize,
    /// The constants of the file: codes, scales and zero points.
    codes: (String, Vec<usize>),
    scales: (String, Vec<usize>),
    zeros: Option<ValueId>,
}

/// What a node says of its weight.
struct Form {
    n: usize,
    k: usize,
    block: usize,
    bits: usize,
}

impl Form {
    /// The form of a node whose weight is known and can be trained.
    fn of(model: &Model, node: &Node) -> Option<Self> {
        let graph = &model.graph;
        let size = |name: &str| usize::try_from(node.int(name)?).ok().filter(|&x| x > 0);
        let form = Self {
            n: size("N")?,
            k: size("K")?,
            block: size("block_size")?,
            bits: size("bits").unwrap_or(4),
        };
        let constant = |i: usize| graph.constant(node.input(i)?);
        let blocks = form.blocks();
        let is_packed = constant(1)?.dtype() == DType::U8
            && [2, 4, 8].contains(&form.bits)
            && (form.block * form.bits).is_multiple_of(8)
            && constant(1)?.count() * 8 == form.n * blocks * form.block * form.bits;
        let has_scales =
            constant(2)?.dtype() == DType::F32 && constant(2)?.count() == form.n * blocks;
        let row = (blocks * form.bits).div_ceil(8);
        let has_zeros = match node.input(3) {
            None => true,
            Some(v) => graph
                .constant(v)
                .is_some_and(|t| t.dtype() == DType::U8 && t.count() == form.n * row),
        };
        let is_plain = node.input(4).is_none() && node.int("weight_prepacked").unwrap_or(0) == 0;
        (is_packed && has_scales && has_zeros && is_plain).then_some(form)
    }

    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// A zero point for each block.
    fn zeros(&self, given: Option<&Tensor>) -> Result<Vec<u8>> {
        let blocks = self.blocks();
        let Some(given) = given else {
            return Ok(vec![1 << (self.bits - 1); self.n * blocks]);
        };
        let codes = unpacked(&given.data::<u8>()?, self.bits);
        let row = (blocks * self.bits).div_ceil(8) * 8 / self.bits;
        Ok(codes
            .chunks(row)
            .flat_map(|r| &r[..blocks])
            .copied()
            .collect())
    }
}

/// Codes of `bits` bits, the first in the low bits of a byte.
fn unpacked(bytes: &[u8], bits: usize) -> Vec<u8> {
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    let codes = |&b: &u8| (0..8 / bits).map(move |i| (b >> (i * bits)) & mask);
    bytes.iter().flat_map(codes).collect()
}

/// The bytes of codes.
fn packed(codes: &[i64], bits: usize) -> Vec<u8> {
    let byte = |part: &[i64]| {
        let parts = part.iter().enumerate();
        parts.fold(0u8, |byte, (i, c)| byte | (*c as u8) << (i * bits))
    };
    codes.chunks(8 / bits).map(byte).collect()
}

/// Takes apart each MatMulNBits whose weight is a constant: DequantizeLinear of bytes, one row for each
/// block, and MatMul. What comes out is the same but for rounding.
///
/// # Errors
/// When a constant cannot be read.
pub(super) fn open(model: &mut Model) -> Result<Vec<Packed>> {
    let mut found = Vec::new();
    for id in model.graph.order()? {
        let node = model.graph.node(id).clone();
        if node.op != "MatMulNBits" || node.domain != "com.microsoft" {
            continue;
        }
        if let Some(form) = Form::of(model, &node) {
            found.push(open_one(model, id, node, &form)?);
        }
    }
    Ok(found)
}

fn open_one(model: &mut Model, id: NodeId, node: Node, form: &Form) -> Result<Packed> {
    let missing = || Error::internal("a MatMulNBits has inputs and an output");
    let [a, b, s] = [0, 1, 2].map(|i| node.input(i).ok_or_else(missing));
    let (a, b, s, out) = (a?, b?, s?, node.output(0).ok_or_else(missing)?);
    let (n, blocks) = (form.n, form.blocks());
    let constant = |v: ValueId| {
        let value = model.graph.value(v);
        let data = value.constant.clone().ok_or_else(missing)?;
        Ok::<_, Error>((value.name.clone(), data))
    };
    let ((name, codes), (scales_name, scales)) = (constant(b)?, constant(s)?);
    let zeros = match node.input(3) {
        Some(v) => form.zeros(Some(&constant(v)?.1))?,
        None => form.zeros(None)?,
    };
    let bytes = unpacked(&codes.data::<u8>()?, form.bits);
    let rows = [n * blocks];
    let data = Tensor::from_vec(&[rows[0], form.block], bytes)?;
    let stored = (name.clone(), codes.dims().to_vec());
    let kept = (scales_name.clone(), scales.dims().to_vec());
    let by_block = Tensor::from_vec(&rows, scales.to_f32()?.into_owned())?;
    model.graph.remove_node(id);
    // The names are those of the file, for what is frozen or masked by them.
    let graph = &mut model.graph;
    for v in [b, s] {
        let value = graph.value_mut(v);
        if value.consumers().is_empty() {
            value.constant = None;
            value.name = format!("{}/gone", value.name);
        }
    }
    let mut add = |wanted: &str, data: Tensor| {
        let name = graph.fresh_name(wanted);
        graph.add_constant(&name, data)
    };
    let codes = add(&name, data);
    let scales = add(&scales_name, by_block);
    let zero = add(&format!("{name}/zero"), Tensor::from_vec(&rows, zeros)?);
    let list = |dims: &[usize]| Tensor::vector(dims.iter().map(|&d| d as i64).collect::<Vec<_>>());
    let whole = add(&format!("{name}/shape"), list(&[n, blocks * form.block]));
    let ends: Vec<ValueId> = [0, form.k, 1]
        .into_iter()
        .map(|x| add(&format!("{name}/columns"), list(&[x])))
        .collect();
    let mut made = Vec::new();
    let mut op = |node: Node, inputs: &[ValueId]| {
        let y = graph.add_op(node, inputs, &format!("{name}/opened"));
        made.extend(graph.value(y).producer().map(|p| p.0));
        y
    };
    let called = |op: &str| Node::new(op, &format!("{name}/{op}"));
    let axis = Attribute::Int(0);
    let dequantize = called("DequantizeLinear").with("axis", axis);
    let w = op(dequantize, &[codes, scales, zero]);
    let mut w = op(called("Reshape"), &[w, whole]);
    if blocks * form.block != form.k {
        w = op(called("Slice"), &[w, ends[0], ends[1], ends[2]]);
    }
    let turn = called("Transpose").with("perm", Attribute::Ints(vec![1, 0]));
    let w = op(turn, &[w]);
    let bias = node.input(5);
    let mut y = op(called("MatMul"), &[a, w]);
    if let Some(bias) = bias {
        y = op(called("Add"), &[y, bias]);
    }
    let last = *made.last().ok_or_else(missing)?;
    graph.set_output(last, 0, Some(out));
    graph.value_mut(y).name = format!("{name}/unused");
    Ok(Packed {
        a,
        bias,
        out,
        reader: made[0],
        made,
        bits: form.bits,
        codes: stored,
        scales: kept,
        zeros: node.input(3),
        node,
    })
}

/// Puts the node back, with the codes and scales of now.
///
/// # Errors
/// When they are no constants any more.
pub(super) fn close(model: &mut Model, of: &Packed) -> Result<()> {
    let missing = || Error::internal("a trained weight is a constant");
    let graph = &mut model.graph;
    let reader = graph.node(of.reader).clone();
    let [codes, scales] = [0, 1].map(|i| reader.input(i).ok_or_else(missing));
    let (codes, scales) = (codes?, scales?);
    let data = |v: ValueId| graph.constant(v).cloned().ok_or_else(missing);
    let (now, steps) = (data(codes)?, data(scales)?);
    for &id in of.made.iter().rev() {
        graph.remove_node(id);
    }
    let bytes = packed(&integers(&now)?, of.bits);
    let mut put = |v: ValueId, (name, dims): &(String, Vec<usize>), data: Tensor| {
        let value = graph.value_mut(v);
        if value.consumers().is_empty() {
            value.constant = None;
            value.name = format!("{}/gone", value.name);
        }
        let name = graph.fresh_name(name);
        Ok::<_, Error>(graph.add_constant(&name, data.reshaped(dims)?))
    };
    let count = [bytes.len()];
    let b = put(codes, &of.codes, Tensor::from_vec(&count, bytes)?)?;
    let s = put(scales, &of.scales, steps)?;
    let mut inputs = vec![Some(of.a), Some(b), Some(s), of.zeros];
    if of.bias.is_some() {
        inputs.extend([None, of.bias]);
    }
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let mut node = Node::new(&of.node.op, &of.node.name).in_domain(&of.node.domain);
    node.attributes.clone_from(&of.node.attributes);
    node.metadata.clone_from(&of.node.metadata);
    graph.add_node(node, &inputs, &[Some(of.out)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text};

    use super::super::{freeze, thaw};
    use super::*;

    /// Three rows of 20 numbers in two blocks of 16, with a bias.
    fn net(bits: usize, zeros: &str) -> Model {
        let mut random = edgesmith_ir::random::Random::of(&[bits as u64]);
        let mut hex = |n: usize| -> String {
            (0..n)
                .map(|_| format!("{:02x}", random.bits() >> 56))
                .collect()
        };
        let bytes = 16 * bits / 8;
        let row = (2 * bits).div_ceil(8);
        let z = match zeros {
            "" => String::new(),
            _ => format!("z: u8[{}] = {{hex\"{}\"}}", 3 * row, hex(3 * row)),
        };
        let given = if zeros.is_empty() { "_" } else { zeros };
        text::parse(&format!(
            "opset 17 opset \"com.microsoft\" 1 graph g(x: f32[n,20]) -> (y: f32[n,3]) {{
            q: u8[3,2,{bytes}] = {{hex\"{}\"}} s: f32[6] = {{0.5,0.25,1,0.5,0.75,0.5}} {z}
            b: f32[3] = {{1,2,3}}
            y = com.microsoft.MatMulNBits(x, q, s, {given}, _, b)
                {{K=20,N=3,bits={bits},block_size=16,accuracy_level=4,name=\"fc\"}} }}",
            hex(3 * 2 * bytes)
        ))
        .unwrap()
    }

    fn answers(model: &Model) -> Vec<f32> {
        let x = (0..40).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let x = Tensor::from_vec(&[2, 20], x).unwrap();
        let y = eval::evaluate(model, &[("x", x)]).unwrap();
        y[0].to_f32().unwrap().into_owned()
    }

    fn constant(model: &Model, name: &str) -> Tensor {
        let v = model.graph.find_value(name).unwrap();
        model.graph.constant(v).unwrap().clone()
    }

    #[test]
    fn taken_apart_it_computes_the_same_and_comes_back_as_it_was() {
        for (bits, zeros) in [(2, ""), (4, ""), (4, "z"), (8, "z"), (8, "")] {
            let before = net(bits, zeros);
            let mut model = before.clone();
            let thawed = thaw(&mut model).unwrap();
            assert_eq!((thawed.weights.len(), thawed.scales.len()), (1, 1));
            edgesmith_testkit::check(&model);
            let near = |(a, b): (f32, f32)| (a - b).abs() < 1e-3;
            let pairs = answers(&before).into_iter().zip(answers(&model));
            assert!(pairs.into_iter().all(near), "{bits}");
            freeze(&mut model, &thawed).unwrap();
            edgesmith_testkit::check(&model);
            assert_eq!(answers(&model), answers(&before), "{bits}");
            let (_, node) = model.graph.nodes().next().unwrap();
            let (_, old) = before.graph.nodes().next().unwrap();
            assert_eq!(model.graph.nodes().count(), 1);
            assert_eq!((&node.attributes, &node.name), (&old.attributes, &old.name));
            assert_eq!(node.inputs().len(), old.inputs().len());
            for name in ["q", "s", "b"] {
                assert_eq!(constant(&model, name), constant(&before, name), "{name}");
            }
        }
    }

    #[test]
    fn codes_stay_within_their_bits_and_compute_what_training_saw() {
        let mut model = net(4, "z");
        let thawed = thaw(&mut model).unwrap();
        let data: Vec<f32> = (0..96).map(|i| (i as f32 - 48.0) * 0.4).collect();
        let data = Tensor::from_vec(&[6, 16], data).unwrap();
        model.graph.value_mut(thawed.weights[0].float).constant = Some(data);
        let s = model.graph.find_value("s").unwrap();
        model.graph.value_mut(s).constant = Some(Tensor::vector(vec![0.3f32; 6]));
        let seen = answers(&model);
        freeze(&mut model, &thawed).unwrap();
        assert_eq!(constant(&model, "s").to_f32().unwrap()[..], [0.3; 6]);
        for (a, b) in seen.into_iter().zip(answers(&model)) {
            assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{a} {b}");
        }
    }
}
