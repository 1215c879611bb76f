//! A graph without some channels is the graph whose sums see zeros there.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::channels::{
    Kept, Options, Split, Ties, as_places, as_shuffles, cut, length, masked,
};
use edgesmith_ir::eval::evaluate;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Model, Tensor, infer, verify};
use edgesmith_testkit::{Tolerance, difference, networks, random};

/// Classes by chance out of each dimension, of which one stays.
fn chosen(model: &Model, ties: &mut Ties, seed: u64) -> Kept {
    let inferred = infer::infer(model, &[]).unwrap();
    let mut random = Random::of(&[seed, 7]);
    let mut kept = Kept::new();
    for dimension in ties.dimensions() {
        let stays = random.below(dimension.classes.len());
        let gone = dimension.classes.iter().enumerate();
        for (i, class) in gone.filter(|(i, _)| *i != stays) {
            if random.below(2) == 0 && i != stays {
                for (axis, indices) in class {
                    let all = || (0..length(model, &inferred, *axis)).collect::<Vec<usize>>();
                    let gone: BTreeSet<usize> = indices.iter().copied().collect();
                    let stay = kept.entry(*axis).or_insert_with(all);
                    stay.retain(|i| !gone.contains(i));
                }
            }
        }
    }
    // An axis of which nothing is left cannot be.
    let is_whole = kept.values().all(|stay| !stay.is_empty());
    if is_whole { kept } else { Kept::new() }
}

/// Fails where the cut graph is not the one with zeros. True where something was cut.
fn assert_cut(model: &Model, options: Options, seed: u64) -> bool {
    let mut gathered = model.clone();
    let mut shuffles = Vec::new();
    // Shuffles are cut as they are too, with the same places of all their groups.
    if !seed.is_multiple_of(4) {
        shuffles = as_places(&mut gathered).unwrap();
    }
    let model = &gathered;
    let inferred = infer::infer(model, &[]).unwrap();
    let mut ties = Ties::of(model, &inferred, options).unwrap();
    let kept = chosen(model, &mut ties, seed);
    if kept.is_empty() {
        return false;
    }
    let mut small = cut(model, &inferred, &kept).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    as_shuffles(&mut small, &shuffles).unwrap();
    if let Err(faults) = verify::verify(&small) {
        panic!("seed {seed}: {}", faults[0]);
    }
    let zeroed = masked(model, &inferred, &ties, &kept).unwrap();
    let inputs = random::inputs_with(model, seed, &[("batch", 2)]);
    let given: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let expected = evaluate(&zeroed, &given).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let found = evaluate(&small, &given).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let tolerance = Tolerance {
        relative: 1e-4,
        absolute: 1e-5,
    };
    for (a, b) in found.iter().zip(&expected) {
        if let Some(what) = difference(a, b, tolerance) {
            panic!("seed {seed}, {options:?}: {what}");
        }
    }
    true
}

const WAYS: [Options; 3] = [
    Options {
        split: Split::Outer,
        means: false,
    },
    Options {
        split: Split::Inner,
        means: false,
    },
    Options {
        split: Split::Outer,
        means: true,
    },
];

/// How many of so many networks were cut.
fn count(seeds: u64, make: fn(u64) -> Model) -> usize {
    let mut cut = 0;
    for seed in 0..seeds {
        let options = WAYS[seed as usize % WAYS.len()];
        cut += usize::from(assert_cut(&make(seed), options, seed));
    }
    cut
}

#[test]
fn networks_of_images_without_channels_are_those_with_zeros() {
    let cut = count(700, networks::images);
    assert!(cut > 600, "{cut} of 700 networks were cut");
}

#[test]
fn shuffled_networks_without_channels_are_those_with_zeros() {
    let cut = count(1000, networks::shuffled);
    assert!(cut > 900, "{cut} of 1000 networks were cut");
}

#[test]
fn networks_of_sequences_without_heads_and_units_are_those_with_zeros() {
    let cut = count(1000, networks::sequences);
    assert!(cut > 960, "{cut} of 1000 networks were cut");
}

#[test]
fn no_operator_makes_a_cut_that_is_something_else() {
    let cut = count(3000, random::graph);
    assert!(cut > 30, "{cut} of 3000 models were cut");
}

#[test]
fn every_operator_of_channels_is_met() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..200 {
        for model in [networks::shuffled(seed), networks::sequences(seed)] {
            for (_, node) in model.graph.nodes() {
                *seen.entry(node.op.clone()).or_default() += 1;
            }
        }
    }
    let wanted = [
        "Add",
        "Attention",
        "BatchNormalization",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "GRU",
        "Gather",
        "GroupNormalization",
        "InstanceNormalization",
        "LSTM",
        "LayerNormalization",
        "MatMul",
        "MultiHeadAttention",
        "Pad",
        "QuantizeLinear",
        "RMSNormalization",
        "RNN",
        "Reshape",
        "Resize",
        "RotaryEmbedding",
        "Slice",
        "Softmax",
        "Split",
        "Transpose",
    ];
    for op in wanted {
        assert!(seen.get(op).is_some_and(|n| *n >= 10), "{op}: {seen:?}");
    }
}
