//! The text form of models: made to be read, written by hand in tests, and compared.
//!
//! ```text
//! opset 17
//! graph mlp(x: f32[batch,3]) -> (y: f32[batch,2]) {
//!   w: f32[2,3] = {1,2,3,4,5,6}
//!   y = Gemm(x, w, _) {transB=1, name="fc"}
//! }
//! ```
//!
//! A name is a word (`fc.weight`) or quoted (`"/fc/MatMul_output_0"`); `_` is a value left out;
//! `#` starts a comment. Constants stand in full, long ones as `hex"…"` of their bytes. Floats
//! have a point, an exponent or are `inf` and `nan`, so that `1` is an INT attribute and `1.0`
//! a FLOAT. A graph in an attribute is written like the main graph, with
//! `capture inner = outer` for what it reads from around it.
//!
//! Documentation and metadata of values are left out; everything else comes back.

mod example;
mod lex;
mod literal;
mod parse;
mod print;

pub use example::example;
pub use parse::parse;
pub use print::print;

/// Words that are quoted where they are names, because they start something else.
const RESERVED: &[&str] = &[
    "_",
    "attribute",
    "capture",
    "doc",
    "extra",
    "function",
    "graph",
    "metadata",
    "opset",
];

/// Keys in the braces of a node that are no attributes unless they are quoted.
const NODE_KEYS: &[&str] = &["name", "doc", "metadata", "extra", "overload"];

fn is_word(s: &str) -> bool {
    let mut chars = s.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(lex::in_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;
    use crate::types::TensorType;
    use crate::{DType, Graph, Model, Node, Tensor, eval};

    const MLP: &str = r#"
        opset 17
        graph mlp(x: f32[batch,3]) -> (y: f32[batch,2]) {
          w: f32[2,3] = {1,2,3,4,5,6}   # a constant
          h = Transpose(w) {name="fc"}; y = Reshape(x, _, h) {perm=[1,0], "name"="other"}
        }"#;

    #[test]
    fn what_is_printed_reads_back_to_the_same_text() {
        let m = parse(MLP).unwrap();
        let (_, node) = m.graph.nodes().nth(1).unwrap();
        assert_eq!(node.inputs().len(), 3);
        assert_eq!(node.string("name"), Some("other"));
        let once = print(&m).unwrap();
        assert_eq!(print(&parse(&once).unwrap()).unwrap(), once);
        assert_eq!(once, print(&m).unwrap());
    }

    #[test]
    fn every_kind_of_attribute_comes_back() {
        let mut inner = Graph::new("a graph");
        let i = inner.add_constant("c", Tensor::scalar(f32::NAN));
        inner.outputs.push(i);
        let nan = Tensor::vector(vec![f32::from_bits(0x7fc0_0001), -0.0]);
        let attributes = [
            ("i", Attribute::Int(i64::MIN)),
            ("f", Attribute::Float(0.1)),
            ("n", Attribute::Float(f32::NEG_INFINITY)),
            ("b", Attribute::Float(f32::from_bits(0xffc0_0001))),
            ("s", Attribute::String("a\"\u{1}ü".into())),
            (
                "raw",
                Attribute::String(bytes::Bytes::from_static(&[0xff, 0])),
            ),
            ("t", Attribute::Tensor(nan)),
            ("is", Attribute::Ints(vec![])),
            ("fs", Attribute::Floats(vec![1.0, 1e-30])),
            ("e", Attribute::Strings(vec![])),
            (
                "ts",
                Attribute::Tensors(vec![Tensor::vector(vec![1u8; 1000])]),
            ),
            ("g", Attribute::Graph(Box::new(inner.clone()))),
            ("gs", Attribute::Graphs(vec![inner.clone(), inner])),
            (
                "ty",
                Attribute::Type(
                    TensorType {
                        dtype: DType::I4,
                        shape: None,
                    }
                    .into(),
                ),
            ),
            ("r", Attribute::Reference("alpha".into(), 1)),
        ];
        let mut node = Node::new("Odd op", "").in_domain("my.domain");
        for (n, a) in attributes {
            node.set(n, a);
        }
        let mut g = Graph::new("graph");
        g.add_node(node.clone(), &[None], &[]);
        let model = Model::new(g, 20);
        let back = parse(&print(&model).unwrap()).unwrap();
        let (_, read) = back.graph.nodes().next().unwrap();
        for ((n, a), (m, b)) in node.attributes.iter().zip(&read.attributes) {
            // A NaN does not equal itself as an attribute, its bits do.
            match (a, b) {
                (Attribute::Float(a), Attribute::Float(b)) => assert_eq!(a.to_bits(), b.to_bits()),
                _ => assert_eq!((n, a), (m, b)),
            }
        }
        assert_eq!((&read.op, &read.domain), (&node.op, &node.domain));
    }

    #[test]
    fn a_subgraph_reads_from_around_itself() {
        let text = "opset 17 graph g(x: f32[2]) -> (y) {
            y = Loop(_, _) {body=graph b() -> (z) { capture inner: f32[2] = x; z = Relu(inner) }}
        }";
        let m = parse(text).unwrap();
        let (_, node) = m.graph.nodes().next().unwrap();
        let inner = node.graph("body").unwrap();
        assert_eq!(inner.captures[0].outer, m.graph.inputs[0]);
        assert_eq!(
            print(&parse(&print(&m).unwrap()).unwrap()).unwrap(),
            print(&m).unwrap()
        );
    }

    #[test]
    fn faults_are_errors_with_their_place() {
        for (text, message) in [
            (
                "graph g() -> () { x = Relu(a)",
                "line 1, column 30: expected a value, found the end",
            ),
            (
                "graph g() -> () {\n x: f32[2] = {1} }",
                "line 2, column 17: f32[2]",
            ),
            ("graph g() -> () { x = A(); x = A() }", "defined twice"),
            ("graph g() -> () { x, x = A() }", "defined twice"),
            ("graph g() -> () { x: i8[1] = {300} }", "out of range"),
            ("graph g() -> () { capture a = b }", "no graph around"),
            ("graph g() -> () {} graph", "expected the end"),
            ("nonsense 1", "a model has no `nonsense`"),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(message), "{text}: {e}");
        }
        let deep = "x: ".to_owned() + &"seq<".repeat(100_000);
        assert!(parse(&format!("graph g({deep}")).is_err());
        let nested = "graph g() -> () { = A() {b=".repeat(10_000);
        assert!(parse(&nested).is_err());
    }

    #[test]
    fn an_opaque_attribute_is_refused() {
        let mut g = Graph::new("g");
        let opaque = Attribute::Opaque(bytes::Bytes::from_static(b"?"));
        g.add_node(Node::new("A", "n").with("x", opaque), &[], &[]);
        let e = print(&Model::new(g, 17)).unwrap_err().to_string();
        assert!(e.starts_with("A \"n\": attribute \"x\": "), "{e}");
    }

    #[test]
    fn an_example_runs() {
        let (model, inputs) = example("Gather@13(f32[3,4], i64[2]{0,-1}) {axis=1}").unwrap();
        assert_eq!((model.opset(), inputs.len()), (13, 1));
        let y = eval::evaluate(&model, &[("x0", inputs[0].clone())]).unwrap();
        assert_eq!(y[0].dims(), &[3, 2]);
        assert!(example("Gather(f32[3,n])").is_err());
    }
}
