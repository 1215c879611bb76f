//! What a conversion did, layer by layer and tensor by tensor, as finished texts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::evidence::{Evidence, NodeAccount, NodeRow, Stored, TensorRow, Variant};
use crate::format::{self, MISSING};

/// Tensors that the page shows at most.
const MOST_TENSORS: usize = 60;

/// What one variant's conversion did.
#[derive(Serialize)]
pub(super) struct ConversionView<'a> {
    name: &'a str,
    counts: String,
    layers: Vec<LayerView<'a>>,
    fallbacks: Vec<FallbackView<'a>>,
    tensors: Vec<TensorView<'a>>,
    /// What the tensors that are not shown are, where some are not.
    rest: Option<String>,
    total: [String; 3],
}

/// A node of the model before.
#[derive(Serialize)]
struct LayerView<'a> {
    name: &'a str,
    op: &'a str,
    became: String,
    arithmetic: &'static str,
    kernel: &'a str,
    weight_sqnr: String,
    output_sqnr: String,
    before: String,
    after: String,
}

/// A reason for which nodes did not run in integers.
#[derive(Serialize)]
struct FallbackView<'a> {
    reason: &'a str,
    nodes: Vec<&'a str>,
}

#[derive(Serialize)]
struct TensorView<'a> {
    name: &'a str,
    node: &'a str,
    types: String,
    shape: &'a str,
    before: String,
    after: String,
    share: String,
    grew: bool,
}

/// What each conversion of the evidence did; variants without an account have none.
pub(super) fn conversions(evidence: &Evidence) -> Vec<ConversionView<'_>> {
    let Some((baseline, others)) = evidence.variants.split_first() else {
        return Vec::new();
    };
    let told = others
        .iter()
        .filter(|v| !v.account.is_empty() || !v.tensors.is_empty());
    told.map(|v| conversion(baseline, v)).collect()
}

fn conversion<'a>(baseline: &'a Variant, variant: &'a Variant) -> ConversionView<'a> {
    let count = |fate: &str| variant.account.iter().filter(|a| a.fate == fate).count();
    let all = variant.account.len();
    let (before, after) = variant
        .tensors
        .iter()
        .map(TensorRow::bytes)
        .fold((0, 0), |(a, b): (u64, u64), (c, d)| (a + c, b + d));
    let hidden = variant.tensors.iter().skip(MOST_TENSORS);
    let (count_hidden, bytes) = hidden.fold((0, (0, 0)), |(n, (a, b)), t| {
        let (c, d) = t.bytes();
        (n + 1, (a + c, b + d))
    });
    ConversionView {
        name: &variant.name,
        counts: format!(
            "{} of {all} nodes converted, {} absorbed, {} left as they were",
            count("converted"),
            count("absorbed"),
            count("left")
        ),
        layers: layers(baseline, variant),
        fallbacks: fallbacks(variant),
        tensors: variant
            .tensors
            .iter()
            .take(MOST_TENSORS)
            .map(tensor)
            .collect(),
        rest: (count_hidden > 0).then(|| {
            format!(
                "{} more, {} before and {} after",
                format::plural(count_hidden, "tensor"),
                format::bytes(bytes.0),
                format::bytes(bytes.1)
            )
        }),
        total: [
            format::grouped(before),
            format::grouped(after),
            format::times(after as f64 / before as f64),
        ],
    }
}

fn named<'a>(variant: &'a Variant, name: &str) -> Option<&'a NodeRow> {
    variant.nodes.iter().find(|n| n.name == name)
}

/// The layers in their order. What several nodes did together is told of the first of them.
fn layers<'a>(baseline: &'a Variant, variant: &'a Variant) -> Vec<LayerView<'a>> {
    let mut told = [BTreeSet::new(), BTreeSet::new()];
    let mut row = |which: usize, variant: &'a Variant, name: &'a Option<String>| {
        let name = name.as_deref().filter(|name| told[which].insert(*name))?;
        named(variant, name)
    };
    let layer = |a: &'a NodeAccount| {
        let before = row(0, baseline, &a.ran_before);
        let after = match a.fate.as_str() {
            "absorbed" => None,
            _ => row(1, variant, &a.ran_as),
        };
        layer(a, before, after)
    };
    variant.account.iter().map(layer).collect()
}

fn layer<'a>(
    a: &'a NodeAccount,
    before: Option<&'a NodeRow>,
    own: Option<&'a NodeRow>,
) -> LayerView<'a> {
    let ms = |t: Option<f64>| t.map_or(MISSING.into(), format::ms);
    let db = |v: Option<f64>| match v {
        Some(v) if v.is_finite() => format!("{v:.1}"),
        _ => MISSING.into(),
    };
    LayerView {
        name: &a.name,
        op: &a.op,
        became: became(a),
        arithmetic: match own {
            None => "",
            Some(n) if n.integer => "integer",
            Some(_) => "float",
        },
        kernel: own.map_or("", |n| &n.kernel),
        weight_sqnr: db(own.and_then(|n| n.weight_sqnr_db)),
        output_sqnr: db(own.and_then(|n| n.sqnr_db)),
        before: ms(before.and_then(|n| n.ms)),
        after: ms(own.and_then(|n| n.ms)),
    }
}

fn became(a: &NodeAccount) -> String {
    match a.fate.as_str() {
        "absorbed" => format!("in {}", a.detail),
        "left" => format!("left: {}", a.detail),
        fate => fate.to_owned(),
    }
}

/// Why nodes that compute did not run in integers, the reason with the most nodes first.
fn fallbacks(variant: &Variant) -> Vec<FallbackView<'_>> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in variant.nodes.iter().filter(|n| !n.integer) {
        let told = |a: &&NodeAccount| a.ran_as.as_deref() == Some(node.name.as_str());
        let account = variant.account.iter().filter(told);
        let left = account.clone().find(|a| a.fate == "left");
        let converted = account.clone().any(|a| a.fate == "converted");
        let reason = match (&node.note, left) {
            (Some(note), _) => note,
            (None, Some(left)) => left.detail.as_str(),
            (None, None) if node.provider == "reference" => {
                "it has no fast kernel, so that reference evaluation ran it"
            }
            (None, None) if converted => "it was converted, but no integer kernel takes its form",
            (None, None) => "the runtime or the conversion added it",
        };
        reasons.entry(reason).or_default().push(&node.name);
    }
    let view = |(reason, nodes)| FallbackView { reason, nodes };
    let mut all: Vec<_> = reasons.into_iter().map(view).collect();
    all.sort_by_key(|f| std::cmp::Reverse(f.nodes.len()));
    all
}

fn tensor(t: &TensorRow) -> TensorView<'_> {
    let size = |s: &Option<Stored>| {
        s.as_ref()
            .map_or(MISSING.into(), |s| format::grouped(s.bytes))
    };
    let dtype = |s: &Option<Stored>| s.as_ref().map_or(MISSING.to_owned(), |s| s.dtype.clone());
    let (was, is) = (dtype(&t.before), dtype(&t.after));
    let (before, after) = t.bytes();
    TensorView {
        name: &t.name,
        node: &t.node,
        types: if was == is {
            was
        } else {
            format!("{was} → {is}")
        },
        shape: t
            .before
            .as_ref()
            .or(t.after.as_ref())
            .map_or("", |s| &s.shape),
        before: size(&t.before),
        after: size(&t.after),
        share: match before {
            0 => MISSING.into(),
            _ => format::times(after as f64 / before as f64),
        },
        grew: after > before && before > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, fate: &str, detail: &str) -> NodeAccount {
        NodeAccount {
            name: name.into(),
            op: "Conv".into(),
            fate: fate.into(),
            detail: detail.into(),
            ran_before: Some(if name == "a" { "r" } else { name }.into()),
            ran_as: Some(name.into()),
        }
    }

    fn row(name: &str, integer: bool) -> NodeRow {
        NodeRow {
            name: name.into(),
            integer,
            kernel: format!("kernel of {name}"),
            ms: Some(0.5),
            sqnr_db: Some(31.25),
            weight_sqnr_db: Some(f64::NAN),
            provider: "cpu".into(),
            ..NodeRow::default()
        }
    }

    fn evidence() -> Evidence {
        let stored = |dtype: &str, bytes| {
            Some(Stored {
                dtype: dtype.into(),
                shape: "[4]".into(),
                bytes,
            })
        };
        let tensor = |i: usize| TensorRow {
            name: format!("w{i}"),
            node: "a".into(),
            before: stored("f32", 16),
            after: stored("i8", 4),
        };
        let after = Variant {
            nodes: vec![row("a", true), row("b", false), row("c", false)],
            account: vec![
                account("a", "converted", ""),
                account("r", "absorbed", "a"),
                account("b", "left", "excluded by name"),
            ],
            tensors: (0..70).map(tensor).collect(),
            ..Variant::default()
        };
        let before = Variant {
            nodes: vec![row("a", false), row("r", false)],
            ..Variant::default()
        };
        Evidence {
            variants: vec![before, after],
            ..Evidence::default()
        }
    }

    #[test]
    fn a_layer_stands_beside_what_it_was() {
        let evidence = evidence();
        let view = &conversions(&evidence)[0];
        let [a, r, b] = &view.layers[..] else {
            panic!("three nodes have an account")
        };
        assert_eq!(
            (a.arithmetic, a.before.as_str(), a.after.as_str()),
            ("integer", "0.500", "0.500")
        );
        assert_eq!(
            (a.output_sqnr.as_str(), a.weight_sqnr.as_str()),
            ("31.2", MISSING)
        );
        assert_eq!((r.became.as_str(), r.arithmetic), ("in a", ""));
        assert_eq!(r.before, MISSING, "its time is that of a");
        assert_eq!(
            (b.became.as_str(), b.arithmetic),
            ("left: excluded by name", "float")
        );
    }

    #[test]
    fn what_did_not_run_in_integers_has_a_reason() {
        let evidence = evidence();
        let found = &conversions(&evidence)[0].fallbacks;
        let found: Vec<_> = found
            .iter()
            .map(|f| (f.reason, f.nodes.join(" ")))
            .collect();
        assert_eq!(found.len(), 2);
        assert!(found.contains(&("excluded by name", "b".into())));
        assert!(found.contains(&("the runtime or the conversion added it", "c".into())));
    }

    #[test]
    fn tensors_that_are_not_shown_are_counted() {
        let evidence = evidence();
        let view = &conversions(&evidence)[0];
        assert_eq!(view.tensors.len(), 60);
        assert_eq!(view.tensors[0].types, "f32 → i8");
        assert_eq!(
            view.rest.as_deref(),
            Some("10 tensors more, 160 B before and 40 B after")
        );
        assert_eq!(view.total, ["1,120", "280", "0.25×"]);
    }

    #[test]
    fn the_page_shows_a_conversion_and_nothing_where_there_is_none() {
        let mut evidence = evidence();
        let html = evidence.to_html();
        assert!(html.contains("What became of each layer") && html.contains("Size by tensor"));
        assert!(html.contains("left: excluded by name"));
        evidence.variants[1].account.clear();
        evidence.variants[1].tensors.clear();
        let html = evidence.to_html();
        assert!(!html.contains("What became of each layer") && !html.contains("Size by tensor"));
    }
}
