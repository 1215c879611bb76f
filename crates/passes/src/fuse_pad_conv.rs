//! Moves padding with zeros into the Conv behind it.

use edgesmith_ir::{Attribute, Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of};

/// Only the axes of the window, only zeros, and only where the Conv alone reads the padded value.
pub static PASS: Pass = Pass {
    name: "fuse_pad_conv",
    about: "move a Pad by zeros into the Conv that reads it",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, _| {
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes_of(editor.graph, &["Conv"]) {
            changes += usize::from(fuse(&mut editor, id).is_some());
        }
        Ok(changes)
    })
}

fn fuse(editor: &mut Editor, conv: NodeId) -> Option<()> {
    let pad = editor.only_source(conv, 0, &["Pad"])?;
    let before = zeros_around(editor, pad)?;
    let node = editor.graph.node(conv);
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    if !matches!(auto, "NOTSET" | "VALID") {
        return None;
    }
    let weight = node.input(1)?;
    let spatial = before.len() / 2 - 2;
    if editor
        .constant(weight)
        .is_some_and(|w| w.rank() != spatial + 2)
    {
        return None;
    }
    let own = match node.ints("pads") {
        Some(pads) if auto == "NOTSET" => pads.to_vec(),
        _ => vec![0; 2 * spatial],
    };
    let outer: Vec<i64> = [&before[2..2 + spatial], &before[4 + spatial..]].concat();
    if own.len() != outer.len() {
        return None;
    }
    let sums = own.iter().zip(&outer).map(|(a, b)| a + b).collect();
    let source = editor.graph.node(pad).input(0)?;
    let node = editor.graph.node_mut(conv);
    node.attributes.retain(|(name, _)| name != "auto_pad");
    node.set("pads", Attribute::Ints(sums));
    editor.graph.set_input(conv, 0, Some(source));
    editor.graph.remove_node(pad);
    Some(())
}

/// The padding of all axes, begins then ends, where it is by zeros, not negative, and leaves
/// batch and channels alone.
fn zeros_around(editor: &Editor, pad: NodeId) -> Option<Vec<i64>> {
    let node = editor.graph.node(pad);
    let constant = |i: usize| editor.constant(node.input(i)?);
    if node.string("mode").unwrap_or("constant") != "constant" || node.input(3).is_some() {
        return None;
    }
    let value = match node.input(2) {
        None => f64::from(node.float("value").unwrap_or(0.0)),
        Some(_) => f64::from(*constant(2)?.to_f32().ok()?.first()?),
    };
    let pads = match node.ints("pads") {
        Some(pads) => pads.to_vec(),
        None => constant(1)?.to_i64().ok()?,
    };
    let rank = pads.len() / 2;
    let kept = rank > 2 && pads.len() % 2 == 0;
    let fits = kept
        && value == 0.0
        && pads.iter().all(|&p| p >= 0)
        && [0, 1, rank, rank + 1].iter().all(|&i| pads[i] == 0);
    fits.then_some(pads)
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{ops, run};

    fn padded(pads: &str, rest: &str) -> String {
        format!(
            "opset 17
             graph g(x: f32[1,1,3,3]) -> (y) {{
               p: i64[8] = {pads}
               w: f32[1,1,2,2] = {{1,2,3,4}}
               a = Pad(x, p{rest})
               y = Conv(a, w) {{pads=[1,0,0,0]}}
             }}"
        )
    }

    #[test]
    fn zeros_around_the_window_move_into_the_conv() {
        let m = run(&PASS, &padded("{0,0,1,2,0,0,0,1}", ""));
        assert_eq!(ops(&m), ["Conv"]);
        let (_, conv) = m.graph.nodes().next().unwrap();
        assert_eq!(conv.ints("pads"), Some([2, 2, 0, 1].as_slice()));
    }

    #[test]
    fn padded_channels_and_negative_pads_stay() {
        for pads in ["{1,0,0,0,0,0,0,0}", "{0,0,0,-1,0,0,0,0}"] {
            assert_eq!(
                ops(&run(&PASS, &padded(pads, ""))),
                ["Pad", "Conv"],
                "{pads}"
            );
        }
    }
}
