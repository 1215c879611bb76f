//! Growth by If and Loop, whose bodies read values around them.

use edgesmith_ir::{Attribute, Capture, Graph, Node, Tensor, ValueId};

use super::{Builder, Known};

/// A body of one or two elementwise operators on `x` of the graph around it.
fn branch(b: &mut Builder, x: &Known, name: &str) -> Graph {
    let mut g = Graph::new(name);
    b.names += 1;
    let captured = g.add_value(&format!("outer_{}", b.names), None);
    g.captures.push(Capture {
        outer: x.id,
        inner: captured,
    });
    let mut v = captured;
    for _ in 0..b.rng.below(4) {
        let op = *b.rng.pick(&["Relu", "Neg", "Identity", "Abs", "Add"]);
        b.names += 1;
        let label = format!("inner_{}", b.names);
        let mut inputs = vec![v];
        if op == "Add" {
            let c = b.rng.floats(&[], -1.0, 1.0);
            inputs.push(g.add_constant(&format!("{label}_c"), c));
        }
        v = g.add_op(Node::new(op, &label), &inputs, &label);
    }
    if v == captured {
        b.names += 1;
        let label = format!("inner_{}", b.names);
        v = g.add_op(Node::new("Identity", &label), &[v], &label);
    }
    g.outputs.push(v);
    g
}

/// By a constant, or by the input `flag`.
pub(super) fn choose(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let condition = match b.graph.find_value("flag") {
        Some(flag) if b.rng.one_in(2) => flag,
        _ => {
            let bit = b.rng.one_in(2);
            let bit = Tensor::from_bools(&[], &[bit]).expect("one element");
            b.constant(bit)
        }
    };
    let (yes, no) = (branch(b, &x, "then"), branch(b, &x, "else"));
    let node = Node::new("If", "")
        .with("then_branch", Attribute::Graph(Box::new(yes)))
        .with("else_branch", Attribute::Graph(Box::new(no)));
    Some(x.with(b.op(node, &[condition])))
}

/// Adds to a value in each of 0 to 2 rounds.
pub(super) fn repeat(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let mut g = Graph::new("body");
    b.names += 1;
    let n = b.names;
    let input = |g: &mut Graph, name: &str| -> ValueId {
        let v = g.add_value(&format!("{name}_{n}"), None);
        g.inputs.push(v);
        v
    };
    input(&mut g, "round");
    let go = input(&mut g, "go");
    let v = input(&mut g, "carried");
    let c = b.rng.floats(&[], -1.0, 1.0);
    let c = g.add_constant(&format!("step_{n}"), c);
    let on = g.add_op(Node::new("Identity", ""), &[go], &format!("on_{n}"));
    let sum = g.add_op(Node::new("Add", ""), &[v, c], &format!("sum_{n}"));
    g.outputs = vec![on, sum];
    let rounds = b.rng.below(3) as i64;
    let rounds = b.constant(Tensor::scalar(rounds));
    let yes = Tensor::from_bools(&[], &[true]).expect("one element");
    let yes = b.constant(yes);
    let node = Node::new("Loop", "").with("body", Attribute::Graph(Box::new(g)));
    Some(x.with(b.op(node, &[rounds, yes, x.id])))
}
