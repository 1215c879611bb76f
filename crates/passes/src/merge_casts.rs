//! Joins two Casts where the first loses nothing.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, tensor_type};

/// The second Cast reads what the first one read, where the type in between holds every value of
/// the type before it; bit for bit. Strings and floats of 8 bits or less stay as they are.
pub static PASS: Pass = Pass {
    name: "merge_casts",
    about: "join two Casts in a row where the first loses nothing",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let casts = nodes_of(graph, &["Cast"]);
        if casts.len() < 2 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in casts {
            changes += usize::from(merge(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn merge(editor: &mut Editor, second: NodeId, types: &Inferred) -> Option<()> {
    let first = editor.source(second, 0, &["Cast"])?;
    let source = editor.graph.node(first).input(0)?;
    let from = tensor_type(types, source)?.dtype;
    let through = target(editor.graph.node(first))?;
    let to = target(editor.graph.node(second))?;
    if !passes_through(from, through, to) {
        return None;
    }
    editor.graph.set_input(second, 0, Some(source));
    Some(())
}

/// The type that a Cast makes.
pub(crate) fn target(cast: &Node) -> Option<DType> {
    DType::from_onnx(i32::try_from(cast.int("to")?).ok()?)
}

/// True where casting by way of `through` is casting at once.
fn passes_through(from: DType, through: DType, to: DType) -> bool {
    let plain = |d: DType| d == DType::Bool || digits(d).is_some();
    if !plain(from) || !plain(to) || !holds(through, from) {
        return false;
    }
    let becomes_float = through.is_float() && !from.is_float();
    if becomes_float && to.is_integer() {
        // Integers wrap where they do not fit, floats do something else.
        return holds(to, from);
    }
    // A direct cast to a short float may go by way of f32.
    let short = matches!(to, DType::F16 | DType::BF16);
    !(short && from.is_integer()) || holds(DType::F32, from)
}

/// Binary digits of the numbers that are held without gaps, the sign left out.
fn digits(d: DType) -> Option<usize> {
    match d {
        DType::F64 => Some(53),
        DType::F32 => Some(24),
        DType::F16 => Some(11),
        DType::BF16 => Some(8),
        d if d.is_integer() && d.bits() >= 8 => Some(d.bits() - usize::from(d.is_signed_integer())),
        _ => None,
    }
}

/// True where `wide` holds every value of `narrow` exactly.
fn holds(wide: DType, narrow: DType) -> bool {
    let (Some(w), Some(n)) = (digits(wide), digits(narrow)) else {
        return narrow == DType::Bool && (digits(wide).is_some() || wide == DType::Bool);
    };
    let signs = !narrow.is_signed_integer() || wide.is_signed_integer() || wide.is_float();
    match (wide.is_float(), narrow.is_float()) {
        (true, true) => wide == narrow || wide.bits() > narrow.bits(),
        (false, true) => false,
        (_, false) => signs && w >= n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::left;

    #[test]
    fn a_wider_type_between_two_casts_is_left_out() {
        let text = |from: &str, through: i32, to: i32| {
            format!(
                "opset 17
                 graph g(x: {from}[2,3]) -> (y) {{
                   a = Cast(x) {{to={through}}}
                   y = Cast(a) {{to={to}}}
                 }}"
            )
        };
        let count = |from, through: DType, to: DType| {
            let mut model =
                edgesmith_ir::text::parse(&text(from, through.onnx(), to.onnx())).unwrap();
            let cx = PassCx::new(&edgesmith_ir::NoProgress);
            run(&mut model, &cx).unwrap()
        };
        assert_eq!(left(&PASS, &text("i32", 7, 1)), ["Cast", "Cast"]);
        for (from, through, to, merges) in [
            ("i32", DType::I64, DType::F32, 1),
            ("f32", DType::F64, DType::I64, 1),
            ("f32", DType::F16, DType::F32, 0),
            ("i64", DType::F32, DType::I64, 0),
            ("u8", DType::F32, DType::I8, 0),
            ("u8", DType::F32, DType::I32, 1),
            ("i8", DType::U8, DType::I32, 0),
            ("bool", DType::I32, DType::F32, 1),
            ("f32", DType::Bool, DType::F32, 0),
        ] {
            assert_eq!(count(from, through, to), merges, "{from} {through} {to}");
        }
    }
}
