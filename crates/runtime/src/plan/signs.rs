//! Quantised activations in the bytes that this CPU multiplies best.
//!
//! x86 multiplies unsigned with signed bytes, Arm before Armv8.6 signed ones alone, and products turn bytes of the
//! other kind wherever they read them. Here values change their type once, and their zero points with them: `q + 128`
//! on a grid whose zero is 128 higher is the same number, and the ends of both ranges are the same, so all that is
//! computed of them stays as it was, bit for bit.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Graph, NodeId, Tensor, ValueId};

/// Operators that count bytes from a zero point.
struct Row {
    domain: &'static str,
    ops: &'static [&'static str],
    /// Inputs of bytes, each with that of its zero point; that of its scale is in front of it.
    reads: &'static [(usize, usize)],
    /// The zero point of the output.
    makes: Option<usize>,
    /// Whether all these bytes are of one type.
    is_tied: bool,
}

static ROWS: &[Row] = &[
    Row {
        domain: "",
        ops: &["QuantizeLinear"],
        reads: &[],
        makes: Some(2),
        is_tied: false,
    },
    Row {
        domain: "",
        ops: &["DequantizeLinear"],
        reads: &[(0, 2)],
        makes: None,
        is_tied: false,
    },
    Row {
        domain: "",
        ops: &["QLinearConv", "QLinearMatMul"],
        reads: &[(0, 2)],
        makes: Some(7),
        is_tied: true,
    },
    Row {
        domain: "com.microsoft",
        ops: &["QLinearAdd", "QLinearMul"],
        reads: &[(0, 2), (3, 5)],
        makes: Some(7),
        is_tied: true,
    },
    Row {
        domain: "com.microsoft",
        ops: &[
            "QLinearAveragePool",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearSigmoid",
        ],
        reads: &[(0, 2)],
        makes: Some(4),
        is_tied: true,
    },
];

/// Operators of ONNX that only move the elements of all inputs of bytes, or choose the largest.
static MOVERS: &[&str] = &[
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Values that have to be of one type.
struct Groups {
    parent: Vec<usize>,
    stays: Vec<bool>,
}

impl Groups {
    fn root(&mut self, v: ValueId) -> usize {
        let mut at = v.index();
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn tie(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[b] = a;
        self.stays[a] |= self.stays[b];
    }

    fn keep(&mut self, v: ValueId) {
        let root = self.root(v);
        self.stays[root] = true;
    }
}

/// A zero point of bytes that may change.
struct Zero {
    of: ValueId,
    node: NodeId,
    input: usize,
    /// Where it is now; nowhere is 0.
    at: Option<ValueId>,
    now: Tensor,
}

/// Turns signed activations of `graph` into unsigned ones, or the other way where `to_signed`, but those in
/// `kept`, what enters and leaves the graph and its bodies, and what an operator reads that is not known here.
/// Whether there were any: what was inferred of types holds no longer then.
pub(super) fn turn(
    graph: &mut Graph,
    inferred: &Inferred,
    kept: &BTreeSet<ValueId>,
    to_signed: bool,
) -> bool {
    let from = if to_signed { DType::U8 } else { DType::I8 };
    let is_byte = |v: ValueId| inferred.tensor(v).is_some_and(|t| t.dtype == from);
    if !graph
        .values()
        .any(|(v, value)| value.producer().is_some() && is_byte(v))
    {
        return false;
    }
    let mut groups = Groups {
        parent: (0..graph.value_slots()).collect(),
        stays: vec![false; graph.value_slots()],
    };
    let captured = graph.captured();
    for (v, value) in graph.values() {
        let is_seen = kept.contains(&v) || captured.contains(&v) || graph.is_output(v);
        if is_seen || value.producer().is_none() || graph.constant(v).is_some() {
            groups.keep(v);
        }
    }
    let mut zeros = Vec::new();
    for (id, _) in graph.nodes() {
        look(graph, id, &is_byte, &mut groups, &mut zeros);
    }
    let mut turned = BTreeMap::new();
    for Zero {
        of,
        node,
        input,
        at,
        now,
    } in zeros
    {
        let root = groups.root(of);
        if groups.stays[root] {
            continue;
        }
        let key = (at, now.dims().to_vec());
        let new = *turned.entry(key).or_insert_with(|| {
            let name = graph.fresh_name("zero_point");
            graph.add_constant(&name, flipped(&now, to_signed))
        });
        graph.set_input(node, input, Some(new));
    }
    !turned.is_empty()
}

/// The same place in the range of the other type.
fn flipped(zero: &Tensor, to_signed: bool) -> Tensor {
    let bytes = zero.bytes().iter().map(|b| b ^ 0x80);
    let made = if to_signed {
        Tensor::from_vec(zero.dims(), bytes.map(u8::cast_signed).collect())
    } else {
        Tensor::from_vec(zero.dims(), bytes.collect())
    };
    made.expect("as many bytes as before")
}

/// Ties the bytes that a node reads and makes, keeps those of which nothing is known, and notes zero points.
fn look(
    graph: &Graph,
    id: NodeId,
    is_byte: &dyn Fn(ValueId) -> bool,
    groups: &mut Groups,
    zeros: &mut Vec<Zero>,
) {
    let node = graph.node(id);
    let made = node.output(0).filter(|&v| is_byte(v));
    let inputs = node.inputs().iter().enumerate();
    let read = inputs.filter_map(|(i, v)| v.filter(|&v| is_byte(v)).map(|v| (i, v)));
    let moves = node.domain.is_empty() && MOVERS.contains(&node.op.as_str());
    let row = ROWS
        .iter()
        .find(|row| row.domain == node.domain && row.ops.contains(&node.op.as_str()));
    if moves {
        let outputs = node
            .outputs()
            .iter()
            .flatten()
            .copied()
            .filter(|&v| is_byte(v));
        let all: Vec<ValueId> = read.map(|(_, v)| v).chain(outputs).collect();
        all.windows(2).for_each(|pair| groups.tie(pair[0], pair[1]));
        return;
    }
    let mut first = None;
    let mut count = |v: ValueId, input: usize, groups: &mut Groups| {
        if row.is_some_and(|row| row.is_tied) {
            groups.tie(*first.get_or_insert(v), v);
        }
        match zero_point(graph, id, input) {
            Some(now) => zeros.push(Zero {
                of: v,
                node: id,
                input,
                at: node.input(input),
                now,
            }),
            None => groups.keep(v),
        }
    };
    let zero_of = |i: usize| {
        row?.reads
            .iter()
            .find(|&&(at, _)| at == i)
            .map(|&(_, zero)| zero)
    };
    for (i, v) in read {
        let is_zero =
            row.is_some_and(|row| row.makes == Some(i) || row.reads.iter().any(|r| r.1 == i));
        match zero_of(i) {
            Some(input) => count(v, input, groups),
            None if is_zero => {}
            None => groups.keep(v),
        }
    }
    if let Some(v) = made {
        match row.and_then(|row| row.makes) {
            Some(input) => count(v, input, groups),
            None => groups.keep(v),
        }
    }
}

/// The zero point at an input of a node, where it is constant; one that is left out is 0 of a DequantizeLinear.
fn zero_point(graph: &Graph, id: NodeId, input: usize) -> Option<Tensor> {
    let node = graph.node(id);
    let has_type = node.int("output_dtype").unwrap_or(0) != 0;
    match node.input(input) {
        Some(v) => graph.constant(v).filter(|_| !has_type).cloned(),
        None if node.is("DequantizeLinear") => {
            let scale = graph.constant(node.input(1)?)?;
            let numbers = vec![0u8; scale.count()];
            Tensor::from_vec(scale.dims(), numbers).ok()
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::text::parse;
    use edgesmith_ir::{eval, infer, verify};
    use edgesmith_testkit::random;

    /// The types of values by name after the turn; all outputs are as before, bit for bit.
    fn turned(body: &str, kept: &[&str], to_signed: bool) -> Vec<(String, DType)> {
        let mut before = parse(&format!("opset 17\n{body}")).unwrap();
        before.opsets.insert("com.microsoft".into(), 1);
        let mut model = before.clone();
        let graph = &model.graph;
        let kept = kept.iter().map(|n| graph.find_value(n).unwrap()).collect();
        let known = infer::infer(&model, &[]).unwrap();
        turn(&mut model.graph, &known, &kept, to_signed);
        verify::verify(&model).unwrap();
        for seed in 0..3 {
            let inputs = random::inputs(&before, seed);
            let inputs: Vec<_> = inputs
                .iter()
                .map(|(n, t)| (n.as_str(), t.clone()))
                .collect();
            let answers = [&before, &model].map(|m| eval::evaluate(m, &inputs).unwrap());
            assert_eq!(answers[0], answers[1]);
        }
        let types = infer::infer(&model, &[]).unwrap();
        let values = model.graph.values().filter(|(_, v)| v.producer().is_some());
        let typed =
            values.filter_map(|(v, value)| Some((value.name.clone(), types.tensor(v)?.dtype)));
        typed.collect()
    }

    fn of_type(types: &[(String, DType)], dtype: DType) -> Vec<&str> {
        let names = types.iter().filter(|(_, t)| *t == dtype);
        names.map(|(n, _)| n.as_str()).collect()
    }

    fn chain(ops: &str) -> String {
        format!(
            "graph g(x: f32[1,2,4,4]) -> (y) {{
               s: f32[] = {{0.05}}
               z: i8[] = {{-3}}
               t: f32[] = {{0.5}}
               w: i8[2,2,1,1] = {{1,-20,30,44}}
               u: f32[] = {{0.01}}
               n: i8[] = {{0}}
               q = QuantizeLinear(x, s, z)
               {ops}
             }}"
        )
    }

    #[test]
    fn what_only_moves_turns_with_what_it_moves_and_weights_stay() {
        let ops = "m = MaxPool(q) {kernel_shape=[2,2], pads=[1,1,0,0]}
                   c = Concat(m, m) {axis=1}
                   d = DequantizeLinear(c, s, z)
                   f = DequantizeLinear(w, u)
                   y = Add(d, t)";
        let types = turned(&chain(ops), &[], false);
        assert_eq!(of_type(&types, DType::U8), ["q", "m", "c"]);
        assert!(of_type(&types, DType::I8).is_empty());
    }

    #[test]
    fn operators_on_bytes_turn_whole_and_a_zero_that_is_left_out_is_128() {
        let ops = "c = QLinearConv(q, s, z, w, u, n, t, n)
                   p = com.microsoft.QLinearGlobalAveragePool(c, t, n, t, z)
                   a = com.microsoft.QLinearAdd(p, t, z, c, t, n, s, z)
                   y = DequantizeLinear(a, t)";
        let types = turned(&chain(ops), &[], false);
        assert_eq!(of_type(&types, DType::U8), ["q", "c", "p", "a"]);
    }

    #[test]
    fn what_others_see_and_what_is_not_known_here_stays() {
        let ends = "d = DequantizeLinear(q, s, z)\nr = QuantizeLinear(d, t, n)";
        for (ops, kept) in [
            (format!("{ends}\ny = DequantizeLinear(r, t, n)"), &["q", "r"][..]),
            (format!("{ends}\ny = Identity(r)"), &["q"]),
            ("a = Abs(q)\ny = DequantizeLinear(a, s, z)".into(), &[]),
            ("k: i8[1,2,4,4] = {hex\"0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\"}
              c = Concat(q, k) {axis=1}\ny = DequantizeLinear(c, s, z)".into(), &[]),
        ] {
            let types = turned(&chain(&ops), kept, false);
            assert!(of_type(&types, DType::U8).is_empty(), "{ops} {types:?}");
        }
    }

    #[test]
    fn unsigned_bytes_turn_where_products_are_signed() {
        let ops = "d = DequantizeLinear(q, s, z)
                   b: u8[] = {128}
                   r = QuantizeLinear(d, t, b)
                   y = DequantizeLinear(r, t, b)";
        let types = turned(&chain(ops), &[], true);
        assert_eq!(of_type(&types, DType::I8), ["q", "r"]);
    }
}
