//! What hides keys: a mask by sentence and key where that can be seen, else a sum.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Dim, Node, Tensor, ValueId};

use crate::float_data::from_f64;
use crate::pattern::Group;
use crate::rewrite::{Editor, Scope, shape, tensor_type};

/// How scores are hidden before the softmax.
#[derive(Clone, Copy)]
pub(super) enum Hidden {
    Nothing,
    /// By what is added.
    Added(ValueId),
    /// By another number where a condition is true, or false.
    Replaced {
        condition: ValueId,
        where_true: bool,
        by: f64,
    },
}

/// The inputs that hide keys, and the number that is added for a mask.
#[derive(Default)]
pub(super) struct Written {
    pub(super) mask: Option<ValueId>,
    pub(super) bias: Option<ValueId>,
    pub(super) filter: Option<f64>,
}

/// A number that stays the same when a score is added to it.
const ABSORBING: f64 = -1e8;

impl Hidden {
    /// A Where that keeps scores where `condition` is `keeps`, and puts a constant elsewhere.
    pub(super) fn where_(
        g: &Group,
        condition: ValueId,
        keeps: bool,
        other: ValueId,
    ) -> Option<Self> {
        let by = g.scalar(other)?;
        (by <= ABSORBING).then_some(Self::Replaced {
            condition,
            where_true: !keeps,
            by,
        })
    }

    /// True where ONNX Runtime's Attention takes it.
    pub(super) fn suits_attention(self, _: &Editor, _: &Inferred) -> bool {
        true
    }

    /// Writes it as inputs of a node whose scores are `scores`, of queries along the second axis
    /// of `query`; `None` where that cannot be.
    pub(super) fn write(
        self,
        editor: &mut Editor,
        types: &Inferred,
        [scores, query]: [ValueId; 2],
        scope: &mut Scope,
    ) -> Option<Written> {
        match self {
            Self::Nothing => Some(Written::default()),
            Self::Added(v) => {
                if let Some((mask, filter)) = key_mask(editor, types, v) {
                    return Some(Written {
                        mask: Some(as_i32(editor, types, mask, scope)),
                        bias: None,
                        filter: Some(filter),
                    });
                }
                Some(Written {
                    bias: Some(fitted(editor, types, v, [scores, query], scope)?),
                    ..Written::default()
                })
            }
            Self::Replaced {
                condition,
                where_true,
                by,
            } => {
                let dtype = tensor_type(types, scores)?.dtype;
                fits(types, condition, scores)?;
                let name = format!("{}_bias", editor.graph.value(condition).name);
                let mut number = |x: f64| {
                    let name = scope.names.fresh(&format!("{name}_number"));
                    let data = from_f64(dtype, &[], &[x]).ok()?;
                    Some(editor.graph.add_constant(&name, data))
                };
                let (hides, shows) = (number(by)?, number(0.0)?);
                let (then, other) = if where_true {
                    (hides, shows)
                } else {
                    (shows, hides)
                };
                let name = scope.names.fresh(&name);
                let node = Node::new("Where", &name);
                let bias = editor.graph.add_op(node, &[condition, then, other], &name);
                Some(Written {
                    bias: Some(bias),
                    ..Written::default()
                })
            }
        }
    }
}

/// Something where a value has the axes that ONNX Runtime asks of an attention bias: batch or 1,
/// heads or 1, and those of the scores.
fn fits(types: &Inferred, v: ValueId, scores: ValueId) -> Option<()> {
    let (own, all) = (shape(types, v)?, shape(types, scores)?);
    let one = |i: usize| own[i].known() == Some(1) || own[i].same(&all[i]);
    let same = |i: usize| own[i].same(&all[i]);
    (own.rank() == 4 && one(0) && one(1) && same(2) && same(3)).then_some(())
}

/// `v` with the axes of an attention bias, stretched over the queries where it has one for all.
fn fitted(
    editor: &mut Editor,
    types: &Inferred,
    v: ValueId,
    [scores, query]: [ValueId; 2],
    scope: &mut Scope,
) -> Option<ValueId> {
    if fits(types, v, scores).is_some() {
        return Some(v);
    }
    let (own, all) = (shape(types, v)?, shape(types, scores)?);
    let stretches = own.rank() == 4
        && own[2].known() == Some(1)
        && own[3].same(&all[3])
        && (own[0].known() == Some(1) || own[0].same(&all[0]))
        && (own[1].known() == Some(1) || own[1].same(&all[1]));
    if !stretches || scope.opset() < 15 {
        return None;
    }
    // A zero for each query, of shape (1, 1, queries, 1), is added.
    let name = scope
        .names
        .fresh(&format!("{}_by_query", editor.graph.value(v).name));
    let mut constant = |what: &str, data: Vec<i64>| {
        let name = scope.names.fresh(&format!("{name}_{what}"));
        editor.graph.add_constant(&name, Tensor::vector(data))
    };
    let ones = constant("ones", vec![1, 1]);
    let one = constant("one", vec![1]);
    let queries = Node::new("Shape", &format!("{name}_Shape"))
        .with("start", Attribute::Int(1))
        .with("end", Attribute::Int(2));
    let queries = editor.graph.add_op(
        queries,
        &[query],
        &scope.names.fresh(&format!("{name}_queries")),
    );
    let join = Node::new("Concat", &format!("{name}_Concat")).with("axis", Attribute::Int(0));
    let target = editor.graph.add_op(
        join,
        &[ones, queries, one],
        &scope.names.fresh(&format!("{name}_target")),
    );
    let expand = Node::new("Expand", &format!("{name}_Expand"));
    Some(editor.graph.add_op(expand, &[v, target], &name))
}

/// The mask of shape (batch, keys), 0 where a key is hidden, from which `(1 − mask) · filter` is
/// computed, and the filter.
fn key_mask(editor: &Editor, types: &Inferred, v: ValueId) -> Option<(ValueId, f64)> {
    let g = Group::new(editor, types);
    let id = g.peek(v, &["Mul", "Where"])?;
    let (inverse, filter) = if g.node(id).is("Mul") {
        g.with_scalar(id)?
    } else {
        let node = g.node(id);
        let inverse = node.input(2)?;
        let cast = g.peek(node.input(0)?, &["Cast"])?;
        (g.node(cast).input(0) == Some(inverse)).then_some(())?;
        (inverse, g.scalar(node.input(1)?)?)
    };
    let sub = g.peek(inverse, &["Sub"])?;
    let node = g.node(sub);
    if filter >= 0.0 || g.scalar(node.input(0)?) != Some(1.0) {
        return None;
    }
    let outer = g.shape(v)?;
    let mut at = node.input(1)?;
    while let Some(id) = g.peek(at, &["Cast", "Unsqueeze", "Reshape", "Expand"]) {
        let flat = g
            .shape(at)
            .is_some_and(|s| s.rank() < 4 || (s[1].known() == Some(1) && s[2].known() == Some(1)));
        let shapes = g.node(id).is("Unsqueeze") || g.node(id).is("Reshape");
        if shapes && !flat {
            return None;
        }
        at = g.node(id).input(0)?;
    }
    let mask = g.shape(at)?;
    let fits = mask.rank() == 2
        && outer.rank() == 4
        && outer[1].known() == Some(1)
        && outer[0].same(&mask[0])
        && outer[3].same(&mask[1]);
    let dtype = g.dtype(at)?;
    let whole = dtype.is_integer() || dtype == DType::Bool || dtype.is_float();
    (fits && whole && !matches!(mask[1], Dim::Unknown)).then_some((at, filter))
}

fn as_i32(editor: &mut Editor, types: &Inferred, v: ValueId, scope: &mut Scope) -> ValueId {
    if tensor_type(types, v).map(|t| t.dtype) == Some(DType::I32) {
        return v;
    }
    let name = scope
        .names
        .fresh(&format!("{}_i32", editor.graph.value(v).name));
    let node = Node::new("Cast", &name).with("to", Attribute::Int(i64::from(DType::I32.onnx())));
    editor.graph.add_op(node, &[v], &name)
}
