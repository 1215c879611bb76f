//! Joins the nodes that spell a norm over the last axes to LayerNormalization or its form without
//! a mean.

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::float_data::from_f64;
use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, fuse_each_graph};
use crate::rewrite::{Editor, Scope, nodes_of, tensor_type};

/// `(x − mean) / √(variance + ε) · scale + bias` with any of Pow, Mul, Div and Reciprocal, and with
/// casts around it, becomes LayerNormalization, which ONNX Runtime takes at every opset; `x / √(mean
/// of squares + ε) · scale` becomes RMSNormalization from opset 23 on, before that ONNX Runtime's
/// SimplifiedLayerNormalization. Answers agree within 1e-5 relative.
pub static PASS: Pass = Pass {
    name: "fuse_layer_norm",
    about: "join the spellings of layer and root mean square norms to one node",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let roots = nodes_of(graph, &["Sqrt", "Pow"]);
        if roots.is_empty() || nodes_of(graph, &["ReduceMean"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in roots {
            changes += usize::from(fuse(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

/// A norm as far as it is found.
struct Norm {
    /// What is normalised: before and after casts to a wider type.
    x: [ValueId; 2],
    casts: Vec<NodeId>,
    /// How many of the last axes.
    axes: usize,
    centred: bool,
    epsilon: f64,
    scale: Option<ValueId>,
    bias: Option<ValueId>,
    result: ValueId,
}

fn fuse(editor: &mut Editor, root: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let (nodes, norm) = [true, false]
        .into_iter()
        .find_map(|centred| find(editor, root, types, centred))?;
    let dtype = |v: ValueId| Some(tensor_type(types, v)?.dtype);
    let wanted = dtype(norm.result)?;
    let is_float = matches!(wanted, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    let scale_fits = norm.scale.is_none_or(|s| dtype(s) == Some(wanted));
    let which = norm.x.iter().position(|&x| dtype(x) == Some(wanted))?;
    if !is_float || !scale_fits {
        return None;
    }
    let nodes: Vec<NodeId> = (nodes.into_iter())
        .filter(|id| which == 0 || !norm.casts.contains(id))
        .collect();
    let shape = tensor_type(types, norm.x[which])?.shape.as_ref()?;
    let dims: Vec<usize> = (shape.iter().skip(shape.rank() - norm.axes))
        .map(|d| d.known())
        .collect::<Option<_>>()?;
    let name = editor.graph.value(norm.result).name.clone();
    let mut row = |v: Option<ValueId>, name: &str| {
        let data = match v {
            Some(v) => editor.constant(v)?.reshaped(&dims).ok()?,
            None => from_f64(wanted, &dims, &vec![1.0; dims.iter().product()]).ok()?,
        };
        match v {
            Some(v) if editor.constant(v)?.dims() == dims => Some(v),
            _ => Some(editor.graph.add_constant(&scope.names.fresh(name), data)),
        }
    };
    let scale = row(norm.scale, &format!("{name}_scale"))?;
    let bias = match norm.bias {
        Some(bias) => Some(row(Some(bias), &format!("{name}_bias"))?),
        None => None,
    };
    let op = match (norm.centred, scope.opset()) {
        (true, _) => "LayerNormalization",
        (false, 23..) => "RMSNormalization",
        (false, _) => "SimplifiedLayerNormalization",
    };
    let node = Node::new(op, "")
        .with("axis", Attribute::Int(-(norm.axes as i64)))
        .with("epsilon", Attribute::Float(norm.epsilon as f32));
    let inputs = [Some(norm.x[which]), Some(scale), bias];
    editor.fuse(&nodes, node, &inputs, &[Some(norm.result)]);
    Some(())
}

/// The norm around a root of a variance.
fn find(
    editor: &Editor,
    root: NodeId,
    types: &Inferred,
    centred: bool,
) -> Option<(Vec<NodeId>, Norm)> {
    let mut g = Group::new(editor, types);
    g.nodes.push(root);
    let node = g.node(root);
    let exponent = if node.is("Sqrt") {
        0.5
    } else {
        g.scalar(node.input(1)?)?
    };
    let sum = g.take(node.input(0)?, &["Add"])?;
    let (variance, epsilon) = g.with_scalar(sum)?;
    let mean = g.take(variance, &["ReduceMean"])?;
    let square = g.take(g.node(mean).input(0)?, &["Pow", "Mul"])?;
    let d = g.node(square).input(0)?;
    let other = g.node(square).input(1)?;
    let is_square = match g.node(square).op.as_str() {
        "Pow" => g.scalar(other) == Some(2.0),
        _ => other == d,
    };
    if !is_square || epsilon <= 0.0 {
        return None;
    }
    let before = g.nodes.len();
    let base = g.before_casts(d);
    let (wide, axes) = if centred {
        centre(&mut g, base, mean)?
    } else {
        (d, axes(&g, mean)?)
    };
    let mut casts: Vec<NodeId> = Vec::new();
    if !centred {
        casts.extend(g.nodes.drain(before..));
    }
    let narrow = {
        let from = g.nodes.len();
        let narrow = g.before_casts(wide);
        casts.extend(g.nodes.drain(from..));
        narrow
    };
    let mut norm = Norm {
        x: [narrow, wide],
        casts,
        axes,
        centred,
        epsilon,
        scale: None,
        bias: None,
        result: divide(&mut g, root, exponent, |g, v| g.before_casts(v) == base)?,
    };
    g.nodes.extend(norm.casts.clone());
    affine(&mut g, &mut norm);
    let nodes = g.closed(&[norm.result])?;
    Some((nodes, norm))
}

/// What a mean along the same axes as in `mean` is taken off to make `base`; the axes.
fn centre(g: &mut Group, base: ValueId, mean: NodeId) -> Option<(ValueId, usize)> {
    let sub = g.take(base, &["Sub"])?;
    let (x, m) = (g.node(sub).input(0)?, g.node(sub).input(1)?);
    let first = g.take(m, &["ReduceMean"])?;
    let count = axes(g, first)?;
    (g.node(first).input(0) == Some(x) && axes(g, mean)? == count).then_some((x, count))
}

/// How many of the last axes a ReduceMean joins and keeps as 1.
fn axes(g: &Group, id: NodeId) -> Option<usize> {
    let node = g.node(id);
    let rank = g.shape(node.input(0)?)?.rank();
    let given = g.editor.ints(id, "axes", 1)?;
    let mut axes: Vec<usize> = given
        .iter()
        .map(|&a| infer::axis(a, rank).ok())
        .collect::<Option<_>>()?;
    axes.sort_unstable();
    let last = (rank - axes.len().min(rank)..rank).eq(axes.iter().copied());
    (last && !axes.is_empty() && node.int("keepdims").unwrap_or(1) == 1).then_some(axes.len())
}

/// What divides by the root; `is_base` says what is divided.
fn divide(
    g: &mut Group,
    root: NodeId,
    exponent: f64,
    is_base: impl Fn(&mut Group, ValueId) -> bool,
) -> Option<ValueId> {
    let mut by = g.node(root).output(0)?;
    if exponent == 0.5 {
        let id = g.reader(by, &["Div", "Reciprocal"])?;
        let node = g.node(id);
        let y = node.output(0)?;
        let is_inverse = node.is("Reciprocal") || g.scalar(node.input(0)?) == Some(1.0);
        if !is_inverse {
            return (node.input(1) == Some(by) && is_base(g, node.input(0)?)).then_some(y);
        }
        by = y;
    } else if exponent != -0.5 {
        return None;
    }
    let id = g.reader(by, &["Mul"])?;
    let other = g.beside(id, by)?;
    let y = g.node(id).output(0)?;
    is_base(g, other).then_some(y)
}

/// The product with a scale and the sum with a bias behind a norm, where they are there.
fn affine(g: &mut Group, norm: &mut Norm) {
    let Some(x) = g.shape(norm.x[1]) else { return };
    let dims: Option<Vec<usize>> = (x.iter().skip(x.rank() - norm.axes))
        .map(|d| d.known())
        .collect();
    let Some(dims) = dims else { return };
    let next = |g: &mut Group, v: ValueId, op: &str| {
        let id = g.reader(v, &[op])?;
        let row = g.beside(id, v)?;
        let data = g.editor.constant(row)?;
        let leading = data.rank().checked_sub(dims.len())?;
        let fits = data.dims()[leading..] == dims[..] && data.count() == dims.iter().product();
        (fits && data.rank() <= x.rank()).then_some((row, g.node(id).output(0)?))
    };
    let mut trial = g.clone();
    let mut at = norm.result;
    if let Some(cast) = trial.reader(at, &["Cast"])
        && let Some(y) = trial.node(cast).output(0)
        && trial.dtype(y).is_some_and(DType::is_float)
    {
        at = y;
    } else {
        trial = g.clone();
    }
    let Some((scale, y)) = next(&mut trial, at, "Mul") else {
        return;
    };
    (norm.scale, norm.result) = (Some(scale), y);
    *g = trial.clone();
    if norm.centred
        && let Some((bias, y)) = next(&mut trial, norm.result, "Add")
    {
        (norm.bias, norm.result) = (Some(bias), y);
        *g = trial;
    }
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    const HEAD: &str = "
        two: f32[] = {2.0}
        one: f32[] = {1.0}
        eps: f32[] = {0.01}
        minus: f32[] = {-0.5}
        gamma: f32[4] = {1,2,-1,0.5}
        beta: f32[4] = {0,1,2,3}
        m = ReduceMean(x) {axes=[-1]}
        d = Sub(x, m)";

    fn around(body: &str) -> Vec<String> {
        left(
            &PASS,
            &format!("opset 17\ngraph g(x: f32[2,3,4]) -> (y) {{\n{HEAD}\n{body}\n}}"),
        )
    }

    #[test]
    fn every_spelling_of_a_layer_norm_is_found() {
        let end = "s = Mul(n, gamma)\ny = Add(beta, s)";
        let root = "v = ReduceMean(p) {axes=[2]}\nw = Add(v, eps)";
        for body in [
            format!("p = Pow(d, two)\n{root}\nr = Sqrt(w)\nn = Div(d, r)\n{end}"),
            format!("p = Mul(d, d)\n{root}\nr = Sqrt(w)\ni = Reciprocal(r)\nn = Mul(i, d)\n{end}"),
            format!("p = Mul(d, d)\n{root}\nr = Sqrt(w)\ni = Div(one, r)\nn = Mul(d, i)\n{end}"),
            format!("p = Pow(d, two)\n{root}\nr = Pow(w, minus)\nn = Mul(d, r)\n{end}"),
            format!("p = Pow(d, two)\n{root}\nr = Sqrt(w)\ny = Div(d, r)"),
        ] {
            assert_eq!(around(&body), ["LayerNormalization"], "{body}");
        }
    }

    #[test]
    fn a_norm_without_a_mean_is_simplified() {
        let text = |opset: i64| {
            format!(
                "opset {opset}
                 graph g(x: f32[batch,3,4]) -> (y) {{
                   two: f32[] = {{2.0}}
                   eps: f32[] = {{0.01}}
                   gamma: f32[4] = {{1,2,-1,0.5}}
                   axes: i64[1] = {{-1}}
                   p = Pow(x, two)
                   v = ReduceMean(p, axes)
                   w = Add(v, eps)
                   r = Sqrt(w)
                   i = Reciprocal(r)
                   n = Mul(x, i)
                   y = Mul(gamma, n)
                 }}"
            )
        };
        assert_eq!(left(&PASS, &text(18)), ["SimplifiedLayerNormalization"]);
        assert_eq!(left(&PASS, &text(23)), ["RMSNormalization"]);
    }

    #[test]
    fn casts_inside_go_and_casts_around_a_wider_scale_stay() {
        let text = "opset 17
            graph g(x: f32[2,3,4]) -> (y: f16[2,3,4]) {
              h = Cast(x) {to=10}
              two: f32[] = {2.0}
              eps: f32[] = {0.01}
              gamma: f16[4] = {1,2,-1,0.5}
              w = Cast(h) {to=1}
              m = ReduceMean(w) {axes=[-1]}
              d = Sub(w, m)
              p = Pow(d, two)
              v = ReduceMean(p) {axes=[-1]}
              e = Add(v, eps)
              r = Sqrt(e)
              n = Div(d, r)
              k = Cast(n) {to=10}
              y = Mul(k, gamma)
            }";
        assert_eq!(left(&PASS, text), ["Cast", "LayerNormalization"]);
    }

    #[test]
    fn a_norm_over_other_axes_stays_and_one_read_inside_is_parted() {
        let body = "p = Pow(d, two)\nv = ReduceMean(p) {axes=[1]}\nw = Add(v, eps)\n\
                    r = Sqrt(w)\ny = Div(d, r)";
        assert_eq!(around(body).len(), 7);
        let text = format!(
            "opset 17\ngraph g(x: f32[2,3,4]) -> (y, d) {{\n{HEAD}\np = Pow(d, two)\n\
             v = ReduceMean(p) {{axes=[-1]}}\nw = Add(v, eps)\nr = Sqrt(w)\ny = Div(d, r)\n}}"
        );
        let parts = ["ReduceMean", "Sub", "SimplifiedLayerNormalization"];
        assert_eq!(left(&PASS, &text), parts);
    }
}
