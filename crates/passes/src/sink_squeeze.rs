//! Moves Squeeze behind what the convolution in front of it can take in.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::ops::axes;
use edgesmith_ir::{Model, NodeId, Result, Tensor};

use crate::pass::{Level, Pass, PassCx};
use crate::pattern::MICROSOFT;
use crate::rewrite::{Editor, Names, each_graph, nodes_of, rank};

/// A Squeeze between a convolution and the only reader of both, where that is a function of single
/// elements, or arithmetic with a constant of no more axes: exporters of one-dimensional
/// convolutions put it there, and neither the bias nor the activation behind it would be found. Bit
/// for bit.
pub static PASS: Pass = Pass {
    name: "sink_squeeze",
    about: "move Squeeze behind what a convolution can take in",
    level: Level::Basic,
    run,
};

const SINGLE: &[&str] = &[
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Relu",
    "Sigmoid",
    "Swish",
    "Tanh",
];

const PAIRS: &[&str] = &["Add", "Div", "Mul", "Sub"];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let squeezes = nodes_of(graph, &["Squeeze"]);
        if squeezes.is_empty() || scope.opset() < 7 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in squeezes {
            changes += usize::from(sink(&mut editor, id, &types, scope.names).is_some());
        }
        Ok(changes)
    })
}

fn sink(editor: &mut Editor, id: NodeId, types: &Inferred, names: &mut Names) -> Option<()> {
    editor.only_source(id, 0, &["Conv", "ConvTranspose"])?;
    let squeezed = editor.ints(id, "axes", 1)?;
    let node = editor.graph.node(id);
    let (source, short) = (node.input(0)?, node.output(0)?);
    let removed = axes::marks(&squeezed, rank(types, source)?).ok()?;
    let &(reader, input) = editor.graph.value(short).consumers().first()?;
    let then = editor.graph.node(reader);
    if !editor.has_one_reader(short) || then.outputs().len() != 1 {
        return None;
    }
    then.output(0)?;
    let alone = then.inputs().len() == 1;
    let is_single = SINGLE.iter().any(|op| then.is(op))
        || (then.domain == MICROSOFT && matches!(then.op.as_str(), "FastGelu" | "Gelu"));
    if PAIRS.iter().any(|op| then.is(op)) && then.inputs().len() == 2 {
        let longer = stretched(editor.constant(then.input(1 - input)?)?, &removed)?;
        editor.set_constant(reader, 1 - input, longer, "stretched", names);
    } else if !(is_single && alone) {
        return None;
    }
    editor.move_behind(id, (reader, input), names)
}

/// A constant that is broadcast to the axes that stay, with axes of one where others were removed.
fn stretched(constant: &Tensor, removed: &[bool]) -> Option<Tensor> {
    let left = removed.iter().filter(|&&gone| !gone).count();
    let missing = left.checked_sub(constant.rank())?;
    let mut short = std::iter::repeat_n(1, missing).chain(constant.dims().iter().copied());
    let longer = removed.iter().map(|&gone| match gone {
        true => Some(1),
        false => short.next(),
    });
    constant.reshaped(&longer.collect::<Option<Vec<_>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn behind(ops: &str) -> Vec<String> {
        let text = format!(
            "opset 17
             graph g(x: f32[batch,2,5,1]) -> (y) {{
               w: f32[3,2,2,1] = {{1,2,3,4,5,6,7,8,9,10,11,12}}
               last: i64[1] = {{3}}
               c: f32[1,3,1] = {{1,2,3}}
               row: f32[4] = {{1,2,3,4}}
               more: f32[1,1,3,1] = {{1,2,3}}
               z = Conv(x, w)
               s = Squeeze(z, last)
               {ops}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn functions_and_constants_stand_behind_the_convolution() {
        assert_eq!(behind("y = Relu(s)"), ["Conv", "Relu", "Squeeze"]);
        for add in ["Add(s, c)", "Sub(c, s)", "Mul(s, row)"] {
            let found = behind(&format!("a = {add}\ny = Sigmoid(a)"));
            assert_eq!(found[0], "Conv");
            assert_eq!(found[2..], ["Squeeze", "Sigmoid"], "{add}");
        }
    }

    #[test]
    fn what_another_node_reads_and_what_adds_axes_stays() {
        for ops in [
            "y = Add(s, more)",
            "r = Relu(s)\ny = Add(r, s)",
            "y = Softmax(s)",
        ] {
            assert_eq!(behind(ops)[1], "Squeeze", "{ops}");
        }
    }
}
