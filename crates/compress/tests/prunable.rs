//! What a person would call prunable is, in networks as exporters write them.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use std::fmt::Write;

use edgesmith_compress::prune::bodies;
use edgesmith_compress::prune::channels::plan::Scope;
use edgesmith_compress::prune::channels::{Of, Pruned, Seen, Settings, criteria, prune};
use edgesmith_compress::prune::groups::{Groups, Structure};
use edgesmith_ir::eval::evaluate;
use edgesmith_ir::random::Random;
use edgesmith_ir::text::parse;
use edgesmith_ir::{Model, NoProgress, Tensor};

/// A network whose constants `{*}` are drawn by chance.
fn network(source: &str) -> Model {
    let mut random = Random::of(&[source.len() as u64]);
    let mut parts = source.split("{*}");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let dims = filled.rsplit_once('[').unwrap().1;
        let dims = dims.split_once(']').unwrap().0.split(',');
        let count: usize = dims.map(|n| n.trim().parse::<usize>().unwrap()).product();
        let data = (0..count).map(|_| format!("{:?}", random.normal() as f32 * 0.3));
        let data: Vec<String> = data.collect();
        write!(filled, "{{{}}}{part}", data.join(",")).unwrap();
    }
    parse(&filled).unwrap_or_else(|e| panic!("{e}: {source}"))
}

fn settings(structure: Structure, amount: f64) -> Settings {
    Settings {
        structure,
        amount,
        of: Of::Count,
        criterion: criteria::find("l2").unwrap(),
        scope: Scope::Local,
        round_to: 1,
        most: 0.75,
        exclude: Vec::new(),
        keep_streams: false,
        seed: 3,
        threads: 1,
    }
}

/// The pruned model, which the gate compared with the dense one with zeros.
fn pruned(model: &Model, structure: Structure, amount: f64) -> (Groups, Pruned) {
    let mut groups = Groups::of(model, structure, &[]).unwrap();
    let settings = settings(structure, amount);
    let pruned = prune(&mut groups, &settings, &Seen::default(), &NoProgress)
        .unwrap_or_else(|e| panic!("{e}: {:?}", groups.frozen));
    let equal = pruned
        .notes
        .iter()
        .any(|n| n.starts_with("equal to the dense"));
    assert!(equal, "{:?}", pruned.notes);
    edgesmith_testkit::check(&pruned.model);
    (groups, pruned)
}

/// The lengths of a constant.
fn lengths(model: &Model, name: &str) -> Vec<usize> {
    let v = model.graph.find_value(name).unwrap();
    model.graph.constant(v).unwrap().dims().to_vec()
}

fn count(model: &Model, op: &str) -> usize {
    model.graph.nodes().filter(|(_, n)| n.op == op).count()
}

/// A shuffle of `channels` in `groups` of images of `side` pixels.
fn shuffle(x: &str, y: &str, [groups, channels, side]: [usize; 3]) -> String {
    let own = channels / groups;
    format!(
        "{y}a: i64[5] = {{0,{groups},{own},{side},{side}}} {y}b: i64[4] = {{0,{channels},{side},{side}}}
        {y}p = Reshape({x}, {y}a) {y}t = Transpose({y}p) {{perm=[0,2,1,3,4]}} {y} = Reshape({y}t, {y}b)\n"
    )
}

/// A convolution with a norm, and a Relu where that is asked for.
fn conv(x: &str, y: &str, [from, to, groups, size]: [usize; 4], relu: bool) -> String {
    let (own, pad) = (from / groups, size / 2);
    let last = if relu { "Relu" } else { "Identity" };
    format!(
        "w{y}: f32[{to},{own},{size},{size}] = {{*}} s{y}: f32[{to}] = {{*}} b{y}: f32[{to}] = {{*}} m{y}: f32[{to}] = {{*}}
        v{y}: f32[{to}] = {{{}}}
        {y}c = Conv({x}, w{y}) {{group={groups}, pads=[{pad},{pad},{pad},{pad}], name=\"{y}\"}}
        {y}n = BatchNormalization({y}c, s{y}, b{y}, m{y}, v{y}) {y} = {last}({y}n)\n",
        vec!["1.5"; to].join(",")
    )
}

/// A stage of ShuffleNet v2: one unit of two branches, and three that pass half of what they take.
fn second(half: usize, chunk: &str) -> Model {
    let mut source = "opset 17 graph net(x: f32[n,3,6,6]) -> (y: f32[n,5]) {\n".to_owned();
    source += &conv("x", "stem", [3, 12, 1, 3], true);
    source += &conv("stem", "l0", [12, 12, 12, 3], false);
    source += &conv("l0", "l1", [12, half, 1, 1], true);
    source += &conv("stem", "r0", [12, half, 1, 1], true);
    source += &conv("r0", "r1", [half, half, half, 3], false);
    source += &conv("r1", "r2", [half, half, 1, 1], true);
    source += "j0 = Concat(l1, r2) {axis=1}\n";
    source += &shuffle("j0", "u0", [2, 2 * half, 6]);
    for unit in 1..4 {
        let (before, u) = (format!("u{}", unit - 1), format!("u{unit}"));
        match chunk {
            "split" => {
                source += &format!(
                    "{u}n: i64[2] = {{{half},{half}}} {u}l, {u}r = Split({before}, {u}n) {{axis=1}}\n"
                );
            }
            _ => {
                source += &format!(
                    "{u}f: i64[1] = {{0}} {u}h: i64[1] = {{{half}}} {u}e: i64[1] = {{9223372036854775807}} {u}x: i64[1] = {{1}}
                    {u}l = Slice({before}, {u}f, {u}h, {u}x) {u}r = Slice({before}, {u}h, {u}e, {u}x)\n"
                );
            }
        }
        source += &conv(&format!("{u}r"), &format!("{u}i"), [half, half, 1, 1], true);
        source += &conv(
            &format!("{u}i"),
            &format!("{u}d"),
            [half, half, half, 3],
            false,
        );
        source += &conv(&format!("{u}d"), &format!("{u}o"), [half, half, 1, 1], true);
        source += &format!("j{unit} = Concat({u}l, {u}o) {{axis=1}}\n");
        source += &shuffle(&format!("j{unit}"), &u, [2, 2 * half, 6]);
    }
    source += &conv("u3", "last", [2 * half, 16, 1, 1], true);
    source += "g = GlobalAveragePool(last) f = Flatten(g) wf: f32[16,5] = {*} bf: f32[5] = {*}
        y = Gemm(f, wf, bf) {name=\"head\"} }";
    network(&source)
}

#[test]
fn all_channels_of_a_shufflenet_v2_can_go() {
    for (half, chunk) in [(16, "split"), (16, "slice"), (29, "split")] {
        let model = second(half, chunk);
        let (groups, pruned) = pruned(&model, Structure::Channel, 0.5);
        // Only the head is held, which makes the outputs.
        let frozen: Vec<&String> = groups.frozen.iter().flat_map(|f| &f.nodes).collect();
        assert_eq!(frozen, ["head"], "{:?}", groups.frozen);
        // Each channel for itself, and each once.
        let free: usize = groups.groups.iter().map(|g| g.count()).sum();
        assert_eq!(free, 12 + 2 * half + 3 * (2 * half) + half + 16);
        for weight in ["wl1", "wr2", "wu1o", "wu2o", "wu3o", "wu2i", "wu1d"] {
            let left = lengths(&pruned.model, weight)[0] as f64 / half as f64;
            assert!((0.4..0.6).contains(&left), "{weight}: {left}");
        }
        assert_eq!(count(&pruned.model, "Conv"), count(&model, "Conv"));
    }
}

#[test]
fn what_is_not_cut_keeps_its_shuffles() {
    let model = second(16, "split");
    let exclude: Vec<String> = ["l1", "r2", "u1o", "u2o", "u3o"].map(String::from).into();
    let mut groups = Groups::of(&model, Structure::Channel, &exclude).unwrap();
    let settings = settings(Structure::Channel, 0.5);
    let pruned = prune(&mut groups, &settings, &Seen::default(), &NoProgress).unwrap();
    assert_eq!(lengths(&pruned.model, "wlast"), [8, 32, 1, 1]);
    assert_eq!(count(&pruned.model, "Gather"), 0);
    assert_eq!(count(&pruned.model, "Transpose"), 4);
}

/// Two units of ShuffleNet v1: convolutions in groups with a shuffle between, on a stream.
fn first(groups: usize, own: usize) -> Model {
    let (inner, wide) = (groups * own, 2 * groups * own);
    let mut source = "opset 17 graph net(x: f32[n,3,6,6]) -> (y: f32[n,5]) {\n".to_owned();
    source += &conv("x", "u0", [3, wide, 1, 3], true);
    for unit in 1..3 {
        let (before, u) = (format!("u{}", unit - 1), format!("u{unit}"));
        source += &conv(&before, &format!("{u}i"), [wide, inner, groups, 1], true);
        source += &shuffle(&format!("{u}i"), &format!("{u}s"), [groups, inner, 6]);
        source += &conv(
            &format!("{u}s"),
            &format!("{u}d"),
            [inner, inner, inner, 3],
            false,
        );
        source += &conv(
            &format!("{u}d"),
            &format!("{u}o"),
            [inner, wide, groups, 1],
            false,
        );
        source += &format!("{u}p = Add({before}, {u}o) {u} = Relu({u}p)\n");
    }
    source += "g = GlobalAveragePool(u2) f = Flatten(g) ";
    source += &format!(
        "wf: f32[{wide},5] = {{*}} bf: f32[5] = {{*}} y = Gemm(f, wf, bf) {{name=\"head\"}} }}"
    );
    network(&source)
}

#[test]
fn groups_of_a_shufflenet_v1_stay_equally_wide() {
    // Channels of a class: one of each group, or as many as there are groups.
    for (groups, own, class) in [(3, 8, 3), (2, 9, 2), (2, 8, 4), (4, 8, 16), (3, 9, 9)] {
        let model = first(groups, own);
        let (found, pruned) = pruned(&model, Structure::Channel, 0.5);
        let frozen: Vec<&String> = found.frozen.iter().flat_map(|f| &f.nodes).collect();
        assert_eq!(frozen, ["head"], "{:?}", found.frozen);
        let group = found.groups.iter().find(|g| g.name.contains("u1i"));
        assert_eq!(
            group.unwrap().count(),
            groups * own / class,
            "{groups} {own}"
        );
        let [rows, columns, ..] = lengths(&pruned.model, "wu1i")[..] else {
            panic!("a weight of four axes");
        };
        assert_eq!(rows % groups, 0);
        assert!(rows < groups * own && columns < 2 * own, "{rows} {columns}");
        // Where groups lose the same places, what lays them in order is a shuffle still.
        let is_regular = own % groups == 0;
        assert_eq!(
            count(&pruned.model, "Transpose"),
            2 * usize::from(is_regular)
        );
        assert_eq!(count(&pruned.model, "Gather"), 2 * usize::from(!is_regular));
    }
}

/// A block of a vision transformer: one product for queries, keys and values of 4 heads.
fn attention(pick: &str) -> Model {
    let mut source = "opset 17 graph net(x: f32[n,5,16]) -> (y: f32[n,5,16]) {
        s: f32[16] = {*} o: f32[16] = {*} wq: f32[16,48] = {*} bq: f32[48] = {*} wo: f32[16,16] = {*}
        parted: i64[5] = {0,5,3,4,4} joined: i64[3] = {0,5,16} half: f32[] = {0.5}
        xn = LayerNormalization(x, s, o) m = MatMul(xn, wq) {name=\"qkv\"} a = Add(m, bq)
        p = Reshape(a, parted) t = Transpose(p) {perm=[2,0,3,1,4]}\n"
        .to_owned();
    source += match pick {
        "gather" => {
            "i0: i64[] = {0} i1: i64[] = {1} i2: i64[] = {2}
            q = Gather(t, i0) {axis=0} k = Gather(t, i1) {axis=0} v = Gather(t, i2) {axis=0}\n"
        }
        _ => {
            "ones: i64[3] = {1,1,1} zero: i64[1] = {0} qs, ks, vs = Split(t, ones) {axis=0}
            q = Squeeze(qs, zero) k = Squeeze(ks, zero) v = Squeeze(vs, zero)\n"
        }
    };
    source += "kt = Transpose(k) {perm=[0,1,3,2]} qh = Mul(q, half) l = MatMul(qh, kt) w = Softmax(l) {axis=-1}
        c = MatMul(w, v) ct = Transpose(c) {perm=[0,2,1,3]} j = Reshape(ct, joined)
        z = MatMul(j, wo) {name=\"out\"} y = Add(x, z) }";
    network(&source)
}

#[test]
fn heads_of_one_product_for_queries_keys_and_values_can_go() {
    for pick in ["gather", "split"] {
        let model = attention(pick);
        let (groups, pruned) = self::pruned(&model, Structure::Head, 0.5);
        assert_eq!(groups.groups[0].count(), 4, "{pick}");
        assert_eq!(lengths(&pruned.model, "wq"), [16, 24], "{pick}");
        assert_eq!(lengths(&pruned.model, "wo"), [8, 16], "{pick}");
        let (_, pruned) = self::pruned(&model, Structure::HeadWidth, 0.5);
        assert_eq!(lengths(&pruned.model, "wq"), [16, 24], "{pick}");
        assert_eq!(lengths(&pruned.model, "wo"), [8, 16], "{pick}");
    }
}

/// A transformer of opset 13, whose norms and GELU are spelled out, between a table and scores.
fn spelled(norm: &str) -> Model {
    let mut source = "opset 13 graph net(words: i64[n,5]) -> (y: f32[n,5,7]) {
        table: f32[11,16] = {*} two: f32[] = {2.0} e: f32[] = {0.00001} r: f32[] = {1.41421} one: f32[] = {1.0} half: f32[] = {0.5}
        w1: f32[16,24] = {*} b1: f32[24] = {*} w2: f32[24,16] = {*} w: f32[16,7] = {*}
        x0 = Gather(table, words) {name=\"table\"}\n"
        .to_owned();
    for (i, (x, y)) in [("x0", "n0"), ("x1", "n1")].into_iter().enumerate() {
        source += &format!("g{i}: f32[16] = {{*}} o{i}: f32[16] = {{*}}\n");
        source += &match norm {
            "layer" => format!(
                "m{i} = ReduceMean({x}) {{axes=[-1]}} d{i} = Sub({x}, m{i}) q{i} = Pow(d{i}, two)
                v{i} = ReduceMean(q{i}) {{axes=[-1]}} s{i} = Add(v{i}, e) t{i} = Sqrt(s{i}) u{i} = Div(d{i}, t{i})
                z{i} = Mul(u{i}, g{i}) {y} = Add(z{i}, o{i})\n"
            ),
            _ => format!(
                "q{i} = Mul({x}, {x}) v{i} = ReduceMean(q{i}) {{axes=[2]}} s{i} = Add(v{i}, e) t{i} = Sqrt(s{i})
                c{i} = Reciprocal(t{i}) u{i} = Mul({x}, c{i}) {y} = Mul(u{i}, g{i})\n"
            ),
        };
        if i == 0 {
            source += "h0 = MatMul(n0, w1) {name=\"up\"} h = Add(h0, b1) k0 = Div(h, r) k1 = Erf(k0) k2 = Add(k1, one)
                k3 = Mul(h, k2) k = Mul(k3, half) f = MatMul(k, w2) {name=\"down\"} x1 = Add(x0, f)\n";
        }
    }
    network(&(source + "y = MatMul(n1, w) {name=\"scores\"} }"))
}

#[test]
fn the_width_goes_through_norms_that_are_spelled_out() {
    for norm in ["layer", "root"] {
        let model = spelled(norm);
        let (groups, pruned) = self::pruned(&model, Structure::Width, 0.5);
        let [group] = &groups.groups[..] else {
            panic!("{:?}", groups.frozen);
        };
        assert_eq!((group.count(), group.is_inexact), (16, norm == "layer"));
        assert_eq!(lengths(&pruned.model, "table"), [11, 8]);
        assert_eq!(lengths(&pruned.model, "w"), [8, 7]);
        let (groups, pruned) = self::pruned(&model, Structure::Channel, 0.5);
        assert_eq!(groups.groups.len(), 1, "hidden units alone");
        assert_eq!(lengths(&pruned.model, "w1"), [16, 12]);
    }
}

/// Norms of groups and of each channel, as exporters spell them.
#[test]
fn norms_of_groups_and_channels_let_them_go() {
    let bodies = [
        ("p: i64[3] = {0,4,-1} q: i64[4] = {0,16,4,4} one: f32[4] = {1,1,1,1} zero: f32[4] = {0,0,0,0}
          a = Reshape(h, p) b = InstanceNormalization(a, one, zero) c = Reshape(b, q)
          g: f32[16,1,1] = {*} o: f32[16,1,1] = {*} d = Mul(c, g) k = Add(d, o)", 4),
        ("s = Shape(h) p: i64[3] = {0,4,-1} one: f32[4] = {1,1,1,1} zero: f32[4] = {0,0,0,0}
          a = Reshape(h, p) b = InstanceNormalization(a, one, zero) c = Reshape(b, s)
          g: f32[16,1,1] = {*} o: f32[16,1,1] = {*} d = Mul(c, g) k = Add(d, o)", 4),
        ("g: f32[16] = {*} o: f32[16] = {*} k = InstanceNormalization(h, g, o)", 16),
        ("e: f32[] = {0.001} m = ReduceMean(h) {axes=[2,3]} d = Sub(h, m) q = Mul(d, d) v = ReduceMean(q) {axes=[2,3]}
          w = Add(v, e) r = Sqrt(w) g: f32[16,1,1] = {*} u = Div(d, r) k = Mul(u, g)", 16),
    ];
    for (body, count) in bodies {
        let source = format!(
            "opset 17 graph net(x: f32[n,3,4,4]) -> (y: f32[n,2,4,4]) {{
            w0: f32[16,3,1,1] = {{*}} w1: f32[2,16,1,1] = {{*}} h = Conv(x, w0) {{name=\"first\"}}
            {body} y = Conv(k, w1) {{name=\"last\"}} }}"
        );
        let model = network(&source);
        let (groups, pruned) = pruned(&model, Structure::Channel, 0.5);
        assert_eq!(groups.groups[0].count(), count, "{body}");
        assert_eq!(lengths(&pruned.model, "w0"), [8, 3, 1, 1], "{body}");
    }
}

/// Attention in one node, of 4 heads of 4 numbers.
fn attended(body: &str) -> Model {
    let mut model = network(&format!(
        "opset 23 graph net(x: f32[2,5,16]) -> (y: f32[2,5,16]) {{
        wq: f32[16,16] = {{*}} wk: f32[16,16] = {{*}} wv: f32[16,16] = {{*}} wo: f32[16,16] = {{*}} b: f32[48] = {{*}}
        wk2: f32[16,8] = {{*}} wv2: f32[16,8] = {{*}} wm: f32[16,48] = {{*}} cos: f32[2,5,2] = {{*}} sin: f32[2,5,2] = {{*}}
        lengths: i32[2] = {{4,4}} total: i32[] = {{5}}
        q = MatMul(x, wq) {{name=\"q\"}} k = MatMul(x, wk) {{name=\"k\"}} v = MatMul(x, wv) {{name=\"v\"}}
        k2 = MatMul(x, wk2) v2 = MatMul(x, wv2)
        {body} y = MatMul(a, wo) {{name=\"out\"}} }}"
    ));
    model.opsets.insert("com.microsoft".into(), 1);
    model
}

fn int(model: &Model, op: &str, name: &str) -> Option<i64> {
    let mut nodes = model.graph.nodes();
    nodes.find(|(_, n)| n.op == op).unwrap().1.int(name)
}

#[test]
fn heads_of_attention_in_one_node_can_go() {
    let plain = "Attention(q, k, v) {q_num_heads=4, kv_num_heads=4}";
    let shared = "Attention(q, k2, v2) {q_num_heads=4, kv_num_heads=2}";
    let turned = "a0 = RotaryEmbedding(q, cos, sin) {num_heads=4} a1 = RotaryEmbedding(k, cos, sin) {num_heads=4}
        a = Attention(a0, a1, v) {q_num_heads=4, kv_num_heads=4}";
    let several = "a = com.microsoft.MultiHeadAttention(q, k, v, b) {num_heads=4}";
    let merged = "a = com.microsoft.Attention(x, wm, b) {num_heads=4, qkv_hidden_sizes=[16,16,16]}";
    let group = "a = com.microsoft.GroupQueryAttention(q, k2, v2, _, _, lengths, total) {num_heads=4, kv_num_heads=2}";
    let cases = [
        (&*format!("a = {plain}"), 4, "Attention", "q_num_heads"),
        (&*format!("a = {shared}"), 2, "Attention", "q_num_heads"),
        (turned, 4, "Attention", "q_num_heads"),
        (several, 4, "MultiHeadAttention", "num_heads"),
        (merged, 4, "Attention", "num_heads"),
        (group, 2, "GroupQueryAttention", "num_heads"),
    ];
    for (body, count, op, heads) in cases {
        let model = attended(body);
        let (groups, pruned) = pruned(&model, Structure::Head, 0.5);
        assert_eq!(groups.groups[0].count(), count, "{body}");
        assert_eq!(lengths(&pruned.model, "wo"), [8, 16], "{body}");
        assert_eq!(int(&pruned.model, op, heads), Some(2), "{body}");
    }
    let (_, found) = pruned(&attended(turned), Structure::Head, 0.5);
    assert_eq!(int(&found.model, "RotaryEmbedding", "num_heads"), Some(2));
    let (_, found) = pruned(&attended(merged), Structure::Head, 0.5);
    assert_eq!(lengths(&found.model, "wm"), [16, 24]);
}

#[test]
fn heads_of_attention_in_one_node_become_narrower() {
    let plain = "a = Attention(q, k, v) {q_num_heads=4, kv_num_heads=4}";
    let turned = "a0 = RotaryEmbedding(q, cos, sin) {num_heads=4} a1 = RotaryEmbedding(k, cos, sin) {num_heads=4}
        a = Attention(a0, a1, v) {q_num_heads=4, kv_num_heads=4}";
    let several = "a = com.microsoft.MultiHeadAttention(q, k, v, b) {num_heads=4}";
    for (body, op) in [
        (plain, "Attention"),
        (turned, "Attention"),
        (several, "MultiHeadAttention"),
    ] {
        let (groups, pruned) = pruned(&attended(body), Structure::HeadWidth, 0.5);
        assert_eq!(groups.groups.len(), 2, "{body}");
        assert_eq!(lengths(&pruned.model, "wq"), [16, 8], "{body}");
        assert_eq!(lengths(&pruned.model, "wo"), [8, 16], "{body}");
        let node = pruned.model.graph.nodes().find(|(_, n)| n.op == op);
        assert_eq!(node.unwrap().1.float("scale"), Some(0.5), "{body}");
    }
    let merged = attended("a = com.microsoft.Attention(x, wm, b) {num_heads=4}");
    let groups = Groups::of(&merged, Structure::HeadWidth, &[]).unwrap();
    let why: Vec<&str> = groups.frozen.iter().map(|f| f.why.as_str()).collect();
    assert!(
        why.iter()
            .any(|w| w.contains("the width of its heads stays")),
        "{why:?}"
    );
}

#[test]
fn a_fused_norm_says_that_the_width_can_go_before_it_is_fused() {
    let model = attended(
        "g: f32[16] = {*} o: f32[16] = {*} s = com.microsoft.SkipLayerNormalization(q, k, g, o)
        wu: f32[16,24] = {*} wd: f32[24,16] = {*} u = MatMul(s, wu) {name=\"up\"} f = com.microsoft.FastGelu(u) a = MatMul(f, wd)",
    );
    let (_, found) = pruned(&model, Structure::Channel, 0.5);
    assert_eq!(lengths(&found.model, "wu"), [16, 12]);
    let groups = Groups::of(&model, Structure::Width, &[]).unwrap();
    let why: Vec<&str> = groups.frozen.iter().map(|f| f.why.as_str()).collect();
    assert!(
        why.iter().any(|w| w.contains("before it was fused")),
        "{why:?}"
    );
}

#[test]
fn control_flow_holds_what_it_touches_and_no_more() {
    let model = network(
        "opset 17 graph net(x: f32[1,3,4,4], c: bool[]) -> (y: f32[1,2,4,4]) {
        w0: f32[16,3,1,1] = {*} w1: f32[16,16,1,1] = {*} w2: f32[16,16,1,1] = {*} w3: f32[2,16,1,1] = {*}
        h0 = Conv(x, w0) {name=\"first\"} r0 = Relu(h0) h1 = Conv(r0, w1) {name=\"read by both\"}
        i = If(c) {then_branch = graph t() -> (p) { capture a = h1 p = Relu(a) },
            else_branch = graph e() -> (p) { capture a = h1 p = Neg(a) }}
        h2 = Conv(i, w2) {name=\"behind\"} r2 = Relu(h2) y = Conv(r2, w3) {name=\"last\"} }",
    );
    let (groups, pruned) = pruned(&model, Structure::Channel, 0.5);
    assert_eq!(lengths(&pruned.model, "w0"), [8, 3, 1, 1]);
    assert_eq!(lengths(&pruned.model, "w1"), [16, 8, 1, 1]);
    assert_eq!(lengths(&pruned.model, "w2"), [8, 16, 1, 1]);
    let frozen = groups.frozen.iter().find(|f| f.why.contains("If"));
    assert_eq!(frozen.unwrap().nodes, ["read by both"]);
}

#[test]
fn bodies_of_control_flow_are_pruned_for_themselves() {
    let source = "opset 17 graph net(x: f32[1,3,4,4], c: bool[]) -> (y: f32[1,2,4,4]) {
        w: f32[16,3,1,1] = {*} out: f32[2,16,1,1] = {*} other: f32[2,16,1,1] = {*} h = Conv(x, w) {name=\"shared\"}
        y = If(c) {name=\"choice\",
            then_branch = graph t() -> (p) { capture a = h capture o = out
                w1: f32[16,16,1,1] = {*} d = Conv(a, w1) {name=\"inner\"} e = Relu(d) p = Conv(e, o) {name=\"last\"} },
            else_branch = graph e() -> (p) { capture a = h capture o = other p = Conv(a, o) {name=\"direct\"} }} }";
    let model = network(source);
    let mut groups = Groups::of(&model, Structure::Channel, &[]).unwrap();
    assert!(groups.groups.is_empty(), "what bodies read is held");
    let settings = settings(Structure::Channel, 0.5);
    let mut small = std::mem::take(&mut groups.model);
    let inside = bodies::prune(&mut small, &settings, &NoProgress).unwrap();
    let found: Vec<(&str, usize, usize)> = inside
        .changes
        .iter()
        .map(|c| (c.name.as_str(), c.count, c.kept))
        .collect();
    assert_eq!(found, [("inner", 16, 8)]);
    edgesmith_testkit::check(&small);
    let (_, node) = small.graph.nodes().find(|(_, n)| n.op == "If").unwrap();
    let bodies: Vec<&edgesmith_ir::Graph> = node.subgraphs().collect();
    let captured = |g: &edgesmith_ir::Graph| -> Vec<String> {
        let name = |c: &edgesmith_ir::Capture| small.graph.value(c.outer).name.clone();
        g.captures.iter().map(name).collect()
    };
    // The weight that lost channels is the body's own now; the other branch is as it was.
    assert_eq!(captured(bodies[0]), ["h"]);
    assert_eq!(captured(bodies[1]), ["h", "other"]);
    let out = small.graph.find_value("out").unwrap();
    assert!(
        small.graph.constant(out).is_none(),
        "nothing reads it any more"
    );
    let notes = inside.notes.join("; ");
    assert!(
        notes.contains("If \"choice\", then_branch: equal to the dense"),
        "{notes}"
    );
    // The whole runs, and the branch that was not touched gives what it gave.
    let x: Vec<f32> = (0..48).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_vec(&[1, 3, 4, 4], x).unwrap();
    let run = |m: &Model, c: bool| {
        let c = Tensor::from_bools(&[], &[c]).unwrap();
        evaluate(m, &[("x", x.clone()), ("c", c)])
            .unwrap()
            .remove(0)
    };
    assert_eq!(run(&small, false), run(&model, false));
    assert_ne!(run(&small, true), run(&model, true));
}

#[test]
fn a_model_that_runs_on_no_random_input_is_pruned_and_told_to_be_unchecked() {
    let model = network(
        "opset 17 graph net(x: f32[1,3], ids: i64[9]) -> (y: f32[9,2]) {
        only: f32[1,2] = {*} w0: f32[3,16] = {*} w1: f32[16,2] = {*}
        h = MatMul(x, w0) {name=\"first\"} p = MatMul(h, w1) {name=\"last\"} e = Gather(only, ids) y = Add(p, e) }",
    );
    let mut groups = Groups::of(&model, Structure::Channel, &[]).unwrap();
    let settings = settings(Structure::Channel, 0.5);
    let pruned = prune(&mut groups, &settings, &Seen::default(), &NoProgress).unwrap();
    let told = pruned.notes.iter().any(|n| n.starts_with("not compared"));
    assert!(told, "{:?}", pruned.notes);
    assert_eq!(lengths(&pruned.model, "w0"), [3, 8]);
}
