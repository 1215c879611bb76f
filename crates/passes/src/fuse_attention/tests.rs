//! Spellings of attention.

use edgesmith_ir::Model;

use super::PASS;
use crate::testing::{ops, run};

/// Weights of two heads of three elements, for an input of four.
fn weights() -> String {
    let list = |n: usize, seed: usize| {
        let one = |i: usize| format!("{}", ((i * 7 + seed * 5) % 11) as f32 / 8.0 - 0.6);
        (0..n).map(one).collect::<Vec<_>>().join(",")
    };
    let mut text = String::new();
    for (i, name) in ["q", "k", "v"].into_iter().enumerate() {
        text += &format!("w{name}: f32[4,6] = {{{}}}\n", list(24, i));
        text += &format!("b{name}: f32[6] = {{{}}}\n", list(6, i + 3));
    }
    text + "split: i64[4] = {0,0,2,3}
            join: i64[3] = {0,0,6}
            flat: i64[2] = {-1,6}
            scale: f32[] = {1.7}
            small: f32[] = {0.7}
            one: f32[] = {1.0}
            low: f32[] = {-1e9}
            axes: i64[2] = {1,2}\n"
}

fn projected(bias: bool) -> String {
    let mut text = String::new();
    for n in ["q", "k", "v"] {
        if bias {
            text += &format!("m{n} = MatMul(x, w{n})\nr{n} = Add(b{n}, m{n})\n");
        } else {
            text += &format!("r{n} = MatMul(x, w{n})\n");
        }
        text += &format!("s{n} = Reshape(r{n}, split)\n");
    }
    text
}

fn model(inputs: &str, body: &str) -> Model {
    run(
        &PASS,
        &format!(
            "opset 17\ngraph g(x: f32[b,s,4]{inputs}) -> (y) {{\n{}{body}\n}}",
            weights()
        ),
    )
}

const TURN: &str = "q = Transpose(sq) {perm=[0,2,1,3]}
    k = Transpose(sk) {perm=[0,2,3,1]}
    v = Transpose(sv) {perm=[0,2,1,3]}
    p = MatMul(q, k)\n";

const END: &str = "a = Softmax(c) {axis=-1}
    o = MatMul(a, v)
    t = Transpose(o) {perm=[0,2,1,3]}
    y = Reshape(t, join)";

#[test]
fn one_input_with_three_weights_becomes_attention() {
    for bias in [true, false] {
        let body = format!("{}{TURN}c = Div(p, scale)\n{END}", projected(bias));
        assert_eq!(ops(&model("", &body)), ["Attention"]);
    }
}

#[test]
fn a_mask_of_keys_is_read_by_the_node() {
    let body = format!(
        "{}{TURN}d = Div(p, scale)
         u = Unsqueeze(mask, axes)
         f = Cast(u) {{to=1}}
         n = Sub(one, f)
         h = Mul(n, low)
         c = Add(d, h)\n{END}",
        projected(true)
    );
    let m = model(", mask: i64[b,s]", &body);
    assert!(ops(&m).contains(&"Attention".to_owned()), "{:?}", ops(&m));
    assert!(!ops(&m).contains(&"Softmax".to_owned()));
    let (_, node) = m.graph.nodes().find(|(_, n)| n.op == "Attention").unwrap();
    assert!(node.input(3).is_some() && node.float("mask_filter_value") == Some(-1e9));
}

#[test]
fn other_masks_are_added() {
    let body = format!(
        "{}{TURN}d = Mul(p, small)\nc = Add(h, d)\n{END}",
        projected(true)
    );
    let m = model(", h: f32[b,1,s,s]", &body);
    assert_eq!(ops(&m), ["Attention"]);
    let m = model(", h: f32[b,1,1,s]", &body);
    assert_eq!(ops(&m).last().unwrap(), "Attention");
    let body = format!(
        "{}{TURN}d = Mul(p, small)\nw = Greater(h, small)\nc = Where(w, low, d)\n{END}",
        projected(true)
    );
    let m = model(", h: f32[1,1,s,s]", &body);
    assert_eq!(ops(&m), ["Greater", "Where", "Attention"]);
}

#[test]
fn scales_on_both_operands_and_turned_keys_are_found() {
    let body = format!(
        "{}q1 = Transpose(sq) {{perm=[0,2,1,3]}}
         q = Mul(q1, small)
         k1 = Transpose(sk) {{perm=[0,2,1,3]}}
         k2 = Transpose(k1) {{perm=[0,1,3,2]}}
         k = Mul(k2, small)
         v = Transpose(sv) {{perm=[0,2,1,3]}}
         c = MatMul(q, k)\n{END}",
        projected(true)
    );
    assert_eq!(ops(&model("", &body)), ["Attention"]);
}

#[test]
fn keys_turned_in_stacks_are_found() {
    let body = format!(
        "{}q = Transpose(sq) {{perm=[0,2,1,3]}}
         k1 = Transpose(sk) {{perm=[0,2,1,3]}}
         lengths = Shape(k1)
         first: i64[3] = {{0,1,3}}
         open: i64[1] = {{-1}}
         third: i64[1] = {{2}}
         fourth: i64[1] = {{3}}
         rows = Gather(lengths, third)
         size = Gather(lengths, fourth)
         stack = Concat(open, rows, size) {{axis=0}}
         k2 = Reshape(k1, stack)
         k3 = Transpose(k2) {{perm=[0,2,1]}}
         front = Gather(lengths, first)
         back = Concat(front, rows) {{axis=0}}
         k = Reshape(k3, back)
         v = Transpose(sv) {{perm=[0,2,1,3]}}
         p = MatMul(q, k)
         c = Div(p, scale)\n{END}",
        projected(true)
    )
    .replace("a = Softmax(c) {axis=-1}", "a = Softmax(c)");
    let m = model("", &body);
    assert!(ops(&m).contains(&"Attention".to_owned()), "{:?}", ops(&m));
}

#[test]
fn targets_computed_from_projections_go_with_them() {
    let body = format!("{}{TURN}c = Div(p, scale)\n{END}", projected(true)).replace(
        "sq = Reshape(rq, split)",
        "lengths = Shape(rq)
         two: i64[2] = {0,1}
         per: i64[2] = {2,3}
         front = Gather(lengths, two)
         target = Concat(front, per) {axis=0}
         sq = Reshape(rq, target)",
    );
    assert_eq!(ops(&model("", &body)), ["Attention"]);
}

#[test]
fn keys_from_elsewhere_become_multi_head_attention() {
    let body = format!("{}{TURN}c = Div(p, scale)\n{END}", projected(true))
        .replace("mk = MatMul(x, wk)", "mk = MatMul(z, wk)")
        .replace("mv = MatMul(x, wv)", "mv = MatMul(z, wv)");
    let m = model(", z: f32[b,t,4]", &body);
    assert_eq!(ops(&m).last().unwrap(), "MultiHeadAttention");
}

#[test]
fn rows_of_two_axes_are_shaped_back() {
    let body = format!("{}{TURN}c = Div(p, scale)\n{END}", projected(true))
        .replace("y = Reshape(t, join)", "y = Reshape(t, flat)");
    assert_eq!(ops(&model("", &body)), ["Attention", "Reshape"]);
}

#[test]
fn answers_that_are_rounded_before_they_are_turned_are_rounded_behind_the_node() {
    let rounded = "o = MatMul(a, v)
         q8 = QuantizeLinear(o, small, zero)
         t8 = Transpose(q8) {perm=[0,2,1,3]}
         r8 = Reshape(t8, TARGET)
         y = DequantizeLinear(r8, small, zero)";
    let (head, _) = END.split_once("o = MatMul").unwrap();
    for (target, left) in [
        (
            "join",
            &["Attention", "QuantizeLinear", "DequantizeLinear"][..],
        ),
        (
            "flat",
            &["Attention", "Reshape", "QuantizeLinear", "DequantizeLinear"],
        ),
    ] {
        let end = rounded.replace("TARGET", target);
        let body = format!(
            "zero: u8[] = {{99}}\n{}{TURN}c = Div(p, scale)\n{head}{end}",
            projected(true)
        );
        assert_eq!(ops(&model("", &body)), left);
    }
}

#[test]
fn weights_that_are_looked_at_keep_it_apart() {
    let body = format!("{}{TURN}c = Div(p, scale)\n{END}", projected(true))
        .replace("a = Softmax(c)", "a = Softmax(c)\n");
    let text = format!(
        "opset 17\ngraph g(x: f32[b,s,4]) -> (y, a) {{\n{}{body}\n}}",
        weights()
    );
    assert!(ops(&run(&PASS, &text)).contains(&"Softmax".to_owned()));
}
