//! Damaged and hostile ONNX files: no panic, no hang, no memory above the stated cap.
//!
//! `cargo test -p edgesmith-formats --test mutations` tries 10,000 of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgesmith_formats::onnx;
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, TensorType, infer, ops, text, verify};
use edgesmith_testkit::mutate::file::mutate;
use edgesmith_testkit::mutate::wire::{self, Wire};
use edgesmith_testkit::{Rng, random};
use peak_alloc::PeakAlloc;

/// Files that are tried.
const CASES: u64 = 10_000;

/// No file takes longer.
const MAX_TIME: Duration = Duration::from_secs(20);

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Bytes in use at the most while `work` runs, above those before it.
fn peak_of<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let result = work();
    (result, ALLOCATED.peak_usage().saturating_sub(before))
}

/// Small files of every operator, of random graphs, and the trained example of the repository.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for example in ops::OPS.iter().flat_map(|op| op.examples) {
        let (model, _) = text::example(example).expect("examples parse");
        seeds.push(onnx::encode(&model).expect("examples are written"));
    }
    for seed in 0..100 {
        seeds.push(onnx::encode(&random::graph(seed)).expect("random graphs have an order"));
    }
    let trained =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fashion_mnist/model.onnx");
    seeds.extend(std::fs::read(trained));
    seeds
}

/// Everything that is done with a file before anything is run; true where it decodes.
fn work(bytes: Bytes) -> bool {
    let Ok(model) = onnx::decode(bytes, None) else {
        return false;
    };
    let sound = verify::verify(&model).is_ok();
    let _types = infer::infer(&model, &[]);
    let again = onnx::encode(&model).expect("what was decoded has an order");
    if sound {
        onnx::decode(again.into(), None).expect("a sound model that was written is read");
    }
    true
}

/// What trying files has shown so far.
#[derive(Default)]
struct Findings {
    decoded: usize,
    highest: usize,
    slowest: Duration,
    faults: Vec<String>,
}

impl Findings {
    fn try_file(&mut self, name: &str, bytes: Vec<u8>) {
        let cap = onnx::memory_cap(bytes.len());
        let start = Instant::now();
        let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| work(bytes.into()))));
        let time = start.elapsed();
        match result {
            Ok(ok) => self.decoded += usize::from(ok),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                let text = text.unwrap_or_default();
                self.faults.push(format!("{name} panics: {text}"));
            }
        }
        if peak > cap {
            self.faults
                .push(format!("{name} takes {peak} bytes, the cap is {cap}"));
        }
        if time > MAX_TIME {
            self.faults.push(format!("{name} takes {time:?}"));
        }
        self.slowest = self.slowest.max(time);
        self.highest = self.highest.max(peak);
    }
}

/// Files of so many parts of two bytes in one field of the model or of its graph.
fn crowd(field: u8, parts: usize, in_graph: bool) -> Vec<u8> {
    let empty = || Wire::Bytes(Vec::new());
    let field = u64::from(field);
    let all: Vec<(u64, Wire)> = (0..parts).map(|_| (field, empty())).collect();
    let version = (1, Wire::Varint(8));
    if in_graph {
        wire::encode(&[version, (7, Wire::Message(all))])
    } else {
        wire::encode(&[vec![version, (7, empty())], all].concat())
    }
}

/// A graph of `n` inputs with defaults, which `n` nodes turn into `n` outputs, the names of all in
/// a subgraph too, and a node of `n` attributes: what is looked up one by one takes forever.
fn wide(n: usize, ir_version: u64) -> Vec<u8> {
    let named = |field, name: String| (field, Wire::Bytes(name.into_bytes()));
    let value = |field, name: String| (field, Wire::Message(vec![named(1, name)]));
    let op = |kind: &str| named(4, kind.to_owned());
    let relu =
        |from: String, to: String| Wire::Message(vec![named(1, from), named(2, to), op("Relu")]);
    let inner = (0..n).map(|i| (1, relu(format!("i{i}"), format!("s{i}"))));
    let branch = (6, Wire::Message(inner.collect()));
    let attributes = (0..n).map(|i| {
        (
            5,
            Wire::Message(vec![named(1, format!("a{i}")), (3, Wire::Varint(1))]),
        )
    });
    let condition = Wire::Message(vec![
        op("If"),
        (5, Wire::Message(vec![named(1, "b".into()), branch])),
    ]);
    let mut graph: Vec<(u64, Wire)> = Vec::new();
    graph.extend((0..n).map(|i| value(11, format!("i{i}"))));
    graph.extend((0..n).map(|i| {
        (
            5,
            Wire::Message(vec![
                (2, Wire::Varint(1)),
                (1, Wire::Varint(0)),
                named(8, format!("i{i}")),
            ]),
        )
    }));
    graph.extend((0..n).map(|i| (1, relu(format!("i{i}"), format!("o{i}")))));
    graph.extend((0..n).map(|i| value(12, format!("o{i}"))));
    graph.push((1, condition));
    graph.push((
        1,
        Wire::Message([vec![op("X")], attributes.collect()].concat()),
    ));
    wire::encode(&[(1, Wire::Varint(ir_version)), (7, Wire::Message(graph))])
}

/// `depth` loops, each in the body of the one before.
fn nested_loops(depth: usize) -> Vec<u8> {
    let ty = |dims: &[usize]| TensorType::fixed(DType::F32, dims);
    let mut body: Option<Graph> = None;
    for _ in 0..=depth {
        let mut graph = Graph::new("body");
        let turn = graph.add_input("turn", TensorType::fixed(DType::I64, &[]));
        let go = graph.add_input("go", TensorType::fixed(DType::Bool, &[]));
        let x = graph.add_input("x", ty(&[1]));
        let out = match body.take() {
            Some(inner) => {
                let node = Node::new("Loop", "l").with("body", Attribute::Graph(Box::new(inner)));
                graph.add_op(node, &[turn, go, x], "y")
            }
            None => graph.add_op(
                Node::new("Concat", "c").with("axis", Attribute::Int(0)),
                &[x, x],
                "y",
            ),
        };
        let still = graph.add_op(Node::new("Identity", "i"), &[go], "still");
        graph.outputs = vec![still, out];
        body = Some(graph);
    }
    onnx::encode(&Model::new(body.unwrap_or_default(), 17)).expect("loops have an order")
}

#[test]
fn no_file_panics_hangs_or_takes_more_memory_than_stated() {
    let seeds = seeds();
    let small: Vec<&Vec<u8>> = seeds.iter().filter(|s| s.len() < 1 << 16).collect();
    for seed in &seeds {
        assert!(work(seed.clone().into()), "a seed is a sound file");
    }
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut found = Findings::default();
    for case in 0..CASES {
        let mut rng = Rng::new(case);
        let seed = if case % 50 == 0 {
            rng.pick(&seeds)
        } else {
            *rng.pick(&small)
        };
        found.try_file(&format!("case {case}"), mutate(seed, &mut rng));
    }
    assert!(
        found.decoded > CASES as usize / 10,
        "too few were decoded: {}",
        found.decoded
    );
    for field in 1..27 {
        for parts in [100_000, 2_000_000] {
            found.try_file(
                &format!("a crowd of field {field}"),
                crowd(field, parts, true),
            );
            found.try_file(
                &format!("a crowd of field {field}"),
                crowd(field, parts, false),
            );
        }
    }
    for ir_version in [3, 8] {
        found.try_file("a wide graph", wide(30_000, ir_version));
    }
    for depth in [1, 8, 28, 31, 32, 60] {
        found.try_file(&format!("{depth} nested loops"), nested_loops(depth));
    }
    std::panic::set_hook(quiet);
    let Findings {
        decoded,
        highest,
        slowest,
        faults,
    } = found;
    println!("{decoded} decoded, {highest} bytes at the most, slowest {slowest:?}");
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}
