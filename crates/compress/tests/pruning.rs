//! What pruning of channels, heads and blocks promises, on random networks.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_compress::prune::channels::plan::{SCOPES, Scope};
use edgesmith_compress::prune::channels::{
    CRITERIA, Criterion, Gradients, Needs, Of, Pruned, Seen, Settings, criteria, prune, recover,
};
use edgesmith_compress::prune::groups::{Groups, Structure};
use edgesmith_compress::{Batch, Samples};
use edgesmith_ir::random::Random;
use edgesmith_ir::text::parse;
use edgesmith_ir::types::TensorType;
use edgesmith_ir::{Attribute, DType, Graph, Model, NoProgress, Node, Result, Tensor};
use edgesmith_testkit::networks;

fn settings(structure: Structure, amount: f64, round_to: usize) -> Settings {
    Settings {
        structure,
        amount,
        of: Of::Count,
        criterion: criteria::find("l2").unwrap(),
        scope: Scope::Local,
        round_to,
        most: 0.75,
        exclude: Vec::new(),
        keep_streams: false,
        seed: 3,
        threads: 1,
    }
}

fn pruned(model: &Model, settings: &Settings) -> Result<(Groups, Pruned)> {
    let mut groups = Groups::of(model, settings.structure, &settings.exclude)?;
    let pruned = prune(&mut groups, settings, &Seen::default(), &NoProgress)?;
    Ok((groups, pruned))
}

/// Random images for `networks::images`, with labels.
struct Images(Vec<i64>);

impl Samples for Images {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn labels(&self) -> Option<&[i64]> {
        Some(&self.0)
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let batch = move |start: usize| {
            let range = start..(start + size).min(self.count());
            let mut data = Vec::new();
            for sample in range.clone() {
                let mut random = Random::of(&[sample as u64, 11]);
                data.extend((0..75).map(|_| random.normal() as f32));
            }
            let x = Tensor::from_vec(&[range.len(), 3, 5, 5], data)?;
            Ok((range, vec![("x".to_owned(), x)]))
        };
        Box::new((0..self.count()).step_by(size).map(batch))
    }
}

fn images(count: usize) -> Images {
    Images((0..count as i64).map(|i| i % 4).collect())
}

fn without_needs() -> impl Iterator<Item = &'static Criterion> {
    let all = CRITERIA.iter().copied();
    all.filter(|c| c.needs == Needs::Nothing && c.name != "bn-scale")
}

#[test]
fn what_stays_is_a_multiple_or_all_of_it() {
    for seed in 0..60 {
        let model = networks::images(seed);
        for (criterion, (_, scope)) in without_needs().zip(SCOPES.iter().cycle()) {
            let settings = Settings {
                criterion,
                scope: *scope,
                ..settings(Structure::Channel, 0.4, 2)
            };
            let Ok((_, pruned)) = pruned(&model, &settings) else {
                continue;
            };
            for g in &pruned.changes {
                let is_fit = g.kept == g.count || (g.kept % 2 == 0 && g.kept > 0);
                assert!(is_fit, "seed {seed}: {} of {}", g.kept, g.count);
                assert!(g.count - g.kept <= g.most);
            }
        }
    }
}

#[test]
fn heads_go_with_the_key_that_they_share() {
    let mut seen = 0;
    for seed in 0..40 {
        let model = networks::sequences(seed);
        let Ok((groups, pruned)) = pruned(&model, &settings(Structure::Head, 0.5, 1)) else {
            continue;
        };
        for (group, change) in groups.groups.iter().zip(&pruned.changes) {
            // Queries, keys and values are made by three weights; a key that all share stays.
            assert!([1, 3].contains(&group.makers.len()), "seed {seed}");
            seen += usize::from(change.kept < change.count && group.makers.len() == 3);
        }
    }
    assert!(seen > 10, "{seen} groups lost heads");
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let model = networks::images(4);
    let (groups, pruned) = pruned(&model, &settings(Structure::Channel, 0.0, 1)).unwrap();
    assert!(pruned.kept.is_empty());
    assert_eq!(pruned.model.graph, groups.model.graph);
}

/// 4 channels to 32, to 32, to 4.
fn three_convolutions() -> Model {
    let mut graph = Graph::new("three");
    let mut x = graph.add_input("x", TensorType::fixed(DType::F32, &[1, 4, 12, 12]));
    let mut random = Random::of(&[5]);
    for (name, dims) in [
        ("a", [32, 4, 3, 3]),
        ("b", [32, 32, 3, 3]),
        ("c", [4, 32, 3, 3]),
    ] {
        let data = (0..dims.iter().product()).map(|_| random.normal() as f32);
        let w = Tensor::from_vec(&dims, data.collect()).unwrap();
        let w = graph.add_constant(name, w);
        let node = Node::new("Conv", name).with("pads", Attribute::Ints(vec![1; 4]));
        x = graph.add_op(node, &[x, w], "y");
    }
    graph.outputs.push(x);
    Model::new(graph, 17)
}

#[test]
fn a_target_of_work_is_reached_and_not_by_far() {
    let model = three_convolutions();
    for of in [Of::Macs, Of::Parameters, Of::Bytes] {
        for (_, scope) in SCOPES {
            let settings = Settings {
                of,
                scope: *scope,
                ..settings(Structure::Channel, 0.5, 1)
            };
            let (_, pruned) = pruned(&model, &settings).unwrap();
            let price = |c: edgesmith_ir::analysis::Cost| match of {
                Of::Parameters => c.params,
                Of::Bytes => c.weight_bytes,
                _ => c.macs,
            };
            let left = price(pruned.cost.1) as f64 / price(pruned.cost.0) as f64;
            assert!(left <= 0.5 && left > 0.4, "{of:?} {scope:?}: {left}");
        }
    }
}

#[test]
fn an_unknown_operator_keeps_its_channels_and_is_told() {
    let text = r#"opset 17 graph g(x: f32[1,2,3,3]) -> (y) {
        a: f32[4,2,1,1] = {1,2,3,4,5,6,7,8} b: f32[2,4,1,1] = {1,2,3,4,5,6,7,8}
        p = Conv(x, a) {name="first"} q = Frobnicate(p) {name="odd one"} y = Conv(q, b) {name="last"} }"#;
    let model = parse(text).unwrap();
    let groups = Groups::of(&model, Structure::Channel, &[]).unwrap();
    assert!(groups.groups.is_empty());
    let told = groups
        .frozen
        .iter()
        .find(|f| f.nodes.contains(&"first".to_owned()));
    assert!(told.unwrap().why.contains("odd one"), "{:?}", groups.frozen);
    let error = groups.check("channel").unwrap_err().to_string();
    assert!(error.contains("Frobnicate"), "{error}");
}

#[test]
fn layers_that_lost_inputs_are_fitted_to_what_they_gave() {
    let mut found = 0;
    for seed in 0..12 {
        let model = networks::images(seed);
        let Ok((groups, mut pruned)) = pruned(&model, &settings(Structure::Channel, 0.5, 1)) else {
            continue;
        };
        let settings = recover::Settings {
            samples: 96,
            threads: 1,
            ..recover::Settings::default()
        };
        let rows = recover::recover(&groups, &mut pruned, &images(96), &settings, &NoProgress);
        for row in rows.unwrap() {
            assert!(row.before.is_finite() && row.after.is_finite(), "{row:?}");
            found += usize::from(row.after < 0.9 * row.before);
        }
        edgesmith_testkit::check(&pruned.model);
    }
    assert!(found > 12, "{found} layers were mended");
}

#[test]
fn gradients_rank_what_the_loss_depends_on() {
    // The head reads the first channel alone: nothing else changes the loss.
    let text = "opset 17 graph g(x: f32[batch,3,5,5]) -> (y) {
        a: f32[3,3,1,1] = {1,0,0,0,1,0,0,0,1} w: f32[4,3] = {1,0,0,-1,0,0,2,0,0,-2,0,0}
        p = Conv(x, a) g = GlobalAveragePool(p) f = Flatten(g) y = Gemm(f, w) {transB=1} }";
    let model = parse(text).unwrap();
    let mut groups = Groups::of(&model, Structure::Channel, &[]).unwrap();
    let gradients = Gradients::of(&groups.model, &images(64), 64, &NoProgress).unwrap();
    let seen = Seen {
        gradients: Some(&gradients),
        statistics: None,
    };
    let settings = Settings {
        criterion: criteria::find("taylor").unwrap(),
        ..settings(Structure::Channel, 0.67, 1)
    };
    let pruned = prune(&mut groups, &settings, &seen, &NoProgress).unwrap();
    let a = pruned.model.graph.find_value("a").unwrap();
    let weight = pruned.model.graph.constant(a).unwrap();
    assert_eq!(weight.to_f32().unwrap()[..], [1.0, 0.0, 0.0]);
}
