//! Joins Slices in a row.

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Model, Node, NodeId, Result, Tensor};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, shape};

/// Constant ranges only, and where both cut the same axis only if its length is known. The first
/// Slice has no other reader.
pub static PASS: Pass = Pass {
    name: "merge_slices",
    about: "join Slices in a row",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let slices = nodes_of(graph, &["Slice"]);
        // Before opset 10 there are no steps.
        if slices.len() < 2 || scope.opset() < 10 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in slices {
            // An earlier one may have taken it in.
            if editor.graph.get_node(id).is_some() {
                changes += usize::from(merge(&mut editor, id, &types, scope).is_some());
            }
        }
        Ok(changes)
    })
}

/// A range of one axis, as Slice has it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    axis: usize,
    start: i64,
    end: i64,
    step: i64,
}

impl Cut {
    /// First index, number of elements, step.
    fn span(self, len: i64) -> (i64, i64, i64) {
        let front = |i: i64| if i < 0 { i.saturating_add(len) } else { i };
        let (low, high) = if self.step > 0 {
            (0, len)
        } else {
            (-1, len - 1)
        };
        let (start, end) = (
            front(self.start).max(low).min(high),
            front(self.end).max(low).min(high),
        );
        let far = if self.step > 0 {
            end - start
        } else {
            start - end
        };
        let step = self.step.saturating_abs();
        let count = if far > 0 { (far - 1) / step + 1 } else { 0 };
        (start, count, self.step)
    }

    /// This cut of an axis of `len`, then `next` of what it leaves.
    fn then(self, next: Self, len: i64) -> Option<Self> {
        let (first, left, step) = self.span(len);
        let (start, count, stride) = next.span(left);
        if count == 0 {
            return None;
        }
        let start = first + start * step;
        let step = step.checked_mul(stride)?;
        let last = start + (count - 1).checked_mul(step)?;
        let end = if step > 0 { last + 1 } else { last - 1 };
        Some(Self {
            start,
            end: if end < 0 { -len - 1 } else { end },
            step,
            ..self
        })
    }
}

fn cuts(editor: &Editor, id: NodeId, rank: usize) -> Option<Vec<Cut>> {
    let constant = |i: usize| match editor.graph.node(id).input(i) {
        None => Some(None),
        Some(v) => Some(Some(editor.constant(v)?.to_i64().ok()?)),
    };
    let (starts, ends) = (constant(1)??, constant(2)??);
    let axes = constant(3)?.unwrap_or_else(|| (0..).take(starts.len()).collect());
    let steps = constant(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return None;
    }
    let cut = |i: usize| {
        Some(Cut {
            axis: infer::axis(axes[i], rank).ok()?,
            start: starts[i],
            end: ends[i],
            step: Some(steps[i]).filter(|&s| s != 0)?,
        })
    };
    (0..starts.len()).map(cut).collect()
}

fn merge(editor: &mut Editor, second: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let first = editor.only_source(second, 0, &["Slice"])?;
    let x = editor.graph.node(first).input(0)?;
    let from = shape(types, x)?;
    let mut all = cuts(editor, first, from.rank())?;
    for next in cuts(editor, second, from.rank())? {
        match all.iter_mut().find(|c| c.axis == next.axis) {
            Some(cut) => {
                let len = i64::try_from(from[next.axis].known()?).ok()?;
                *cut = cut.then(next, len)?;
            }
            None => all.push(next),
        }
    }
    let y = editor.graph.node(second).output(0)?;
    editor.keep_type(y, types);
    let name = editor.graph.value(y).name.clone();
    let axis = |c: &Cut| i64::try_from(c.axis).unwrap_or(i64::MAX);
    let columns: [(&str, Vec<i64>); 4] = [
        ("starts", all.iter().map(|c| c.start).collect()),
        ("ends", all.iter().map(|c| c.end).collect()),
        ("axes", all.iter().map(axis).collect()),
        ("steps", all.iter().map(|c| c.step).collect()),
    ];
    let mut inputs = vec![Some(x)];
    for (what, data) in columns {
        let name = scope.names.fresh(&format!("{name}_{what}"));
        inputs.push(Some(editor.graph.add_constant(&name, Tensor::vector(data))));
    }
    editor.swap_node(second, Node::new("Slice", ""), &inputs);
    editor.graph.remove_node(first);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{Cut, PASS};
    use crate::testing::left;

    #[test]
    fn cuts_of_a_cut_are_those_of_python() {
        let indices = |c: Cut, from: &[i64]| -> Vec<i64> {
            let (start, count, step) = c.span(from.len() as i64);
            (0..count)
                .map(|i| from[(start + i * step) as usize])
                .collect()
        };
        let numbers: Vec<i64> = (0..7).collect();
        let ends = [-9, -7, -3, -1, 0, 1, 3, 6, 7, 9];
        let mut all = Vec::new();
        for start in ends {
            for end in ends {
                for step in [-3, -1, 1, 2] {
                    all.push(Cut {
                        axis: 0,
                        start,
                        end,
                        step,
                    });
                }
            }
        }
        for (i, a) in all.iter().enumerate() {
            for b in all.iter().skip(i % 7).step_by(7) {
                let expected = indices(*b, &indices(*a, &numbers));
                if let Some(both) = a.then(*b, 7) {
                    assert_eq!(indices(both, &numbers), expected, "{a:?} {b:?}");
                } else {
                    assert!(expected.is_empty(), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn slices_of_other_axes_and_of_known_lengths_join() {
        let text = |x: &str, second: &str| {
            format!(
                "opset 17
                 graph g(x: {x}) -> (y) {{
                   one: i64[1] = {{1}}
                   far: i64[1] = {{99}}
                   back: i64[1] = {{-1}}
                   low: i64[1] = {{-99}}
                   a = Slice(x, one, far, one)
                   y = Slice(a, {second})
                 }}"
            )
        };
        for (x, second, left_over) in [
            ("f32[3,4,5]", "back, low, one, back", 1),
            ("f32[3,n,5]", "back, low, back, back", 1),
            ("f32[3,n,5]", "one, far, one", 2),
        ] {
            let ops = left(&PASS, &text(x, second));
            assert_eq!(ops.len(), left_over, "{x} {second}");
        }
    }
}
