//! Packed weights that are kept in a file serve a session as its own do.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use bytes::Bytes;
use edgesmith_formats::prepared::{self, Image, Prepared};
use edgesmith_ir::{Model, Tensor};
use edgesmith_runtime::stored::{ALIGNMENT, PackedNode};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::random;

fn options() -> Options {
    Options {
        threads: 1,
        ..Options::default()
    }
}

/// The trained example of the repository.
fn example() -> Model {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/fashion_mnist/model.onnx"
    );
    let mut model = edgesmith_formats::read(path.as_ref()).unwrap();
    let level = edgesmith_passes::Level::Extended;
    edgesmith_passes::optimize(&mut model, level, &edgesmith_passes::RunOptions::default())
        .unwrap();
    model
}

fn input(session: &Session) -> Vec<(String, Tensor)> {
    let info = &session.inputs()[0];
    let count = 28 * 28;
    let x: Vec<f32> = (0..count).map(|i| (i % 13) as f32 / 13.0).collect();
    let shape = info.ty.as_ref().unwrap().shape.as_ref().unwrap();
    let dims: Vec<usize> = match shape.rank() {
        4 => vec![1, 1, 28, 28],
        _ => vec![1, count],
    };
    vec![(info.name.clone(), Tensor::from_vec(&dims, x).unwrap())]
}

fn answer(session: &mut Session, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let inputs: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
    session.run(&inputs).unwrap()
}

/// The file of a model, read again.
fn file(model: &Model, name: &str) -> (Prepared, Vec<PackedNode>) {
    let image = Image::of(model).unwrap();
    let packed = Session::prepare(&image.model().unwrap(), &options())
        .unwrap()
        .packed();
    let weights: Vec<(String, Vec<&[u8]>)> = packed
        .iter()
        .map(|node| (node.name.clone(), node.parts()))
        .collect();
    let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    prepared::write(&path, true, prepared::Settings::new(), &image, &weights).unwrap();
    let read = prepared::read(&path).unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    (read, packed)
}

#[test]
fn packed_weights_lie_in_the_file_and_give_the_same_answers() {
    let model = example();
    let (file, packed) = file(&model, "edgesmith-stored");
    assert!(!packed.is_empty(), "convolutions are packed");
    let mut own = Session::prepare(&model, &options()).unwrap();
    let mut kept = Session::prepare_stored(&file.model, &options(), file.weights.clone()).unwrap();
    let inputs = input(&own);
    assert_eq!(answer(&mut own, &inputs), answer(&mut kept, &inputs));
    let ranges: Vec<_> = file
        .weights
        .iter()
        .flat_map(|(_, parts)| parts)
        .map(|(bytes, len)| bytes[..*len].as_ptr_range())
        .collect();
    for part in kept.packed().iter().flat_map(PackedNode::parts) {
        assert!(ranges.contains(&part.as_ptr_range()), "it was copied");
    }
}

#[test]
fn weights_that_do_not_fit_are_packed_anew() {
    let model = example();
    let (file, _) = file(&model, "edgesmith-misfit");
    let mut own = Session::prepare(&model, &options()).unwrap();
    let inputs = input(&own);
    let wanted = answer(&mut own, &inputs);
    for way in 0..6 {
        let mut weights = file.weights.clone();
        for (name, parts) in &mut weights {
            match way {
                0 => parts.clear(),
                1 => parts[0].1 -= 1,
                2 => parts[0].0 = Bytes::new(),
                3 => name.push_str(".nothing"),
                4 => *name = "0.body.".repeat(200_000) + "0",
                _ => parts[0] = (vec![0; ALIGNMENT].into(), usize::MAX),
            }
        }
        let mut kept = Session::prepare_stored(&file.model, &options(), weights).unwrap();
        assert_eq!(answer(&mut kept, &inputs), wanted, "way {way}");
    }
}

#[test]
fn every_random_graph_is_prepared_and_read() {
    let mut nodes = 0;
    for seed in 0..60 {
        let model = random::graph(seed);
        let (file, packed) = file(&model, "edgesmith-random");
        let kept = Session::prepare_stored(&file.model, &options(), file.weights).unwrap();
        let names = |all: &[PackedNode]| all.iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&kept.packed()), names(&packed), "seed {seed}");
        nodes += packed.len();
    }
    assert!(nodes > 20, "some graphs have weights: {nodes} nodes");
}
