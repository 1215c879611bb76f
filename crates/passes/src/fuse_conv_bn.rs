//! Folds BatchNormalization into the weights of the layer in front of it.

use edgesmith_ir::{DType, Graph, Model, Node, NodeId, Result, Tensor};

use crate::float_data::{from_f64, to_f64};
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, rank};

/// Conv, ConvTranspose, Gemm, and MatMul of two axes with or without Add, in front of a
/// BatchNormalization in inference, where nobody else reads what lies between. New weights are
/// computed in f64 and rounded once; answers agree within 1e-5 relative.
pub static PASS: Pass = Pass {
    name: "fuse_conv_bn",
    about: "fold BatchNormalization into the weights in front of it",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, _cx: &PassCx) -> Result<usize> {
    each_graph(model, &mut |graph, scope| {
        let norms = nodes_of(graph, &["BatchNormalization"]);
        if norms.is_empty() || scope.opset() < 7 {
            return Ok(0);
        }
        let ranks = ranks_of_matmuls(graph, scope)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in norms {
            changes += usize::from(fuse(&mut editor, id, &ranks, scope).is_some());
        }
        Ok(changes)
    })
}

/// The products of two axes: the only ones whose last axis is the channel axis of the norm.
fn ranks_of_matmuls(graph: &Graph, scope: &Scope) -> Result<Vec<NodeId>> {
    let products = nodes_of(graph, &["MatMul"]);
    if products.is_empty() {
        return Ok(products);
    }
    let types = scope.infer(graph)?;
    let two = |id: &NodeId| {
        let out = graph.node(*id).output(0);
        out.and_then(|v| rank(&types, v)) == Some(2)
    };
    Ok(products.into_iter().filter(two).collect())
}

/// What a BatchNormalization does to each channel: `y = scale * x + shift`.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn of(editor: &Editor, norm: &Node) -> Option<Self> {
        let trains = norm.int("training_mode").unwrap_or(0) != 0;
        let per_pixel = norm.int("spatial").unwrap_or(1) == 0;
        if trains || per_pixel || norm.outputs().iter().skip(1).flatten().next().is_some() {
            return None;
        }
        let read = |i: usize| to_f64(editor.constant(norm.input(i)?)?);
        let (gamma, beta, mean, var) = (read(1)?, read(2)?, read(3)?, read(4)?);
        let n = gamma.len();
        if [beta.len(), mean.len(), var.len()] != [n; 3] {
            return None;
        }
        let epsilon = f64::from(norm.float("epsilon").unwrap_or(1e-5));
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&var)
            .map(|(g, v)| g / (v + epsilon).sqrt())
            .collect();
        let shift: Vec<f64> = (0..n).map(|c| beta[c] - mean[c] * scale[c]).collect();
        let finite = scale.iter().chain(&shift).all(|x| x.is_finite());
        finite.then_some(Self { scale, shift })
    }

    fn channels(&self) -> usize {
        self.scale.len()
    }

    /// `bias` (zero where there is none) after the norm; one value stands for all channels.
    fn bias(&self, bias: Option<&[f64]>) -> Option<Vec<f64>> {
        let n = self.channels();
        let at = |c: usize| match bias {
            None => Some(0.0),
            Some([one]) => Some(*one),
            Some(all) if all.len() == n => Some(all[c]),
            Some(_) => None,
        };
        (0..n)
            .map(|c| Some(at(c)? * self.scale[c] + self.shift[c]))
            .collect()
    }

    /// The weight with each element multiplied by the scale of its channel, which `channel` finds
    /// from the element's place.
    fn weight(&self, t: &Tensor, channel: impl Fn(usize) -> usize) -> Option<Tensor> {
        let data: Vec<f64> = to_f64(t)?
            .iter()
            .enumerate()
            .map(|(i, &x)| x * self.scale[channel(i)])
            .collect();
        from_f64(t.dtype(), t.dims(), &data).ok()
    }
}

fn fuse(editor: &mut Editor, norm: NodeId, ranks: &[NodeId], scope: &mut Scope) -> Option<()> {
    let affine = Affine::of(editor, editor.graph.node(norm))?;
    let layers = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add"];
    let source = editor.only_source(norm, 0, &layers)?;
    match editor.graph.node(source).op.as_str() {
        "Conv" | "ConvTranspose" => fuse_conv(editor, source, norm, &affine, scope),
        "Gemm" => fuse_gemm(editor, source, norm, &affine, scope),
        "MatMul" => fuse_matmul(editor, source, norm, &affine, ranks, scope),
        _ => fuse_add(editor, source, norm, &affine, ranks, scope),
    }
}

/// The data of input `i`, where it is constant.
fn data<'e>(editor: &'e Editor, id: NodeId, i: usize) -> Option<&'e Tensor> {
    editor.constant(editor.graph.node(id).input(i)?)
}

/// The elements of an optional constant input; the outer `None` where it is given, not constant.
fn optional(editor: &Editor, id: NodeId, i: usize) -> Option<Option<Vec<f64>>> {
    match editor.graph.node(id).input(i) {
        None => Some(None),
        Some(v) => Some(Some(to_f64(editor.constant(v)?)?)),
    }
}

fn name_of(editor: &Editor, id: NodeId, i: usize) -> String {
    let v = editor.graph.node(id).input(i);
    v.map_or_else(String::new, |v| editor.graph.value(v).name.clone())
}

/// `layer` makes from now on what the norm made.
fn take_over(editor: &mut Editor, layer: NodeId, norm: NodeId) {
    let out = editor.graph.node(norm).output(0);
    editor.graph.remove_node(norm);
    editor.graph.set_output(layer, 0, out);
}

fn fuse_conv(
    editor: &mut Editor,
    conv: NodeId,
    norm: NodeId,
    affine: &Affine,
    scope: &mut Scope,
) -> Option<()> {
    let node = editor.graph.node(conv);
    let transposed = node.is("ConvTranspose");
    let group = usize::try_from(node.int("group").unwrap_or(1)).ok()?;
    let w = data(editor, conv, 1)?;
    let (first, second) = (*w.dims().first()?, *w.dims().get(1)?);
    let taps: usize = w.dims()[2..].iter().product();
    let channels = if transposed { second * group } else { first };
    if channels != affine.channels() || group == 0 || taps == 0 || first % group != 0 {
        return None;
    }
    let weight = if transposed {
        let rows = first / group;
        affine.weight(w, |i| {
            let row = i / taps;
            (row / second / rows) * second + row % second
        })?
    } else {
        affine.weight(w, |i| i / taps / second)?
    };
    let dtype = w.dtype();
    let old = optional(editor, conv, 2)?;
    let bias = affine.bias(old.as_deref())?;
    finish(editor, conv, weight, (dtype, &[channels], &bias), scope)?;
    take_over(editor, conv, norm);
    Some(())
}

/// Writes weight (input 1) and bias (input 2).
fn finish(
    editor: &mut Editor,
    layer: NodeId,
    weight: Tensor,
    (dtype, dims, bias): (DType, &[usize], &[f64]),
    scope: &mut Scope,
) -> Option<()> {
    let bias = from_f64(dtype, dims, bias).ok()?;
    let name = name_of(editor, layer, 1);
    editor.set_constant(layer, 1, weight, &name, scope.names);
    let name = format!("{name}_bias");
    editor.set_constant(layer, 2, bias, &name, scope.names);
    Some(())
}

fn fuse_gemm(
    editor: &mut Editor,
    gemm: NodeId,
    norm: NodeId,
    affine: &Affine,
    scope: &mut Scope,
) -> Option<()> {
    let n = affine.channels();
    let node = editor.graph.node(gemm);
    let beta = f64::from(node.float("beta").unwrap_or(1.0));
    let by_row = node.int("transB").unwrap_or(0) != 0;
    let w = data(editor, gemm, 1)?;
    let [rows, cols] = *w.dims() else { return None };
    if n != if by_row { rows } else { cols } || cols == 0 {
        return None;
    }
    let weight = affine.weight(w, |i| if by_row { i / cols } else { i % cols })?;
    let dtype = w.dtype();
    let is_row = |t: &Tensor| t.count() == *t.dims().last().unwrap_or(&1);
    if editor.graph.node(gemm).input(2).is_some() && !is_row(data(editor, gemm, 2)?) {
        return None;
    }
    let old = optional(editor, gemm, 2)?.map(|b| b.iter().map(|x| x * beta).collect::<Vec<_>>());
    let bias = affine.bias(old.as_deref())?;
    finish(editor, gemm, weight, (dtype, &[n], &bias), scope)?;
    let attributes = &mut editor.graph.node_mut(gemm).attributes;
    attributes.retain(|(name, _)| name != "beta");
    take_over(editor, gemm, norm);
    Some(())
}

/// The weight of a MatMul of two axes after the norm.
fn product_weight(
    editor: &Editor,
    matmul: NodeId,
    affine: &Affine,
    ranks: &[NodeId],
) -> Option<Tensor> {
    let w = data(editor, matmul, 1)?;
    let [_, cols] = *w.dims() else { return None };
    if cols != affine.channels() || ranks.binary_search(&matmul).is_err() {
        return None;
    }
    affine.weight(w, |i| i % cols)
}

/// The norm becomes the Add of the new bias.
fn fuse_matmul(
    editor: &mut Editor,
    matmul: NodeId,
    norm: NodeId,
    affine: &Affine,
    ranks: &[NodeId],
    scope: &mut Scope,
) -> Option<()> {
    let weight = product_weight(editor, matmul, affine, ranks)?;
    let bias = from_f64(weight.dtype(), &[affine.channels()], &affine.shift).ok()?;
    let name = name_of(editor, matmul, 1);
    editor.set_constant(matmul, 1, weight, &name, scope.names);
    let bias = editor
        .graph
        .add_constant(&scope.names.fresh(&format!("{name}_bias")), bias);
    let node = editor.graph.node(norm);
    let (x, y) = (node.input(0), node.output(0));
    let add = Node::new("Add", &node.name.clone());
    editor.graph.remove_node(norm);
    editor.graph.add_node(add, &[x, Some(bias)], &[y]);
    Some(())
}

fn fuse_add(
    editor: &mut Editor,
    add: NodeId,
    norm: NodeId,
    affine: &Affine,
    ranks: &[NodeId],
    scope: &mut Scope,
) -> Option<()> {
    let side = usize::from(data(editor, add, 0).is_some());
    let matmul = editor.only_source(add, side, &["MatMul"])?;
    let old = data(editor, add, 1 - side)?;
    let is_row = old.rank() <= 2 && old.count() == *old.dims().last().unwrap_or(&1);
    if !is_row {
        return None;
    }
    let bias = affine.bias(Some(&to_f64(old)?))?;
    let bias = from_f64(old.dtype(), &[affine.channels()], &bias).ok()?;
    let weight = product_weight(editor, matmul, affine, ranks)?;
    let of: [(NodeId, usize, Tensor); 2] = [(matmul, 1, weight), (add, 1 - side, bias)];
    for (id, i, tensor) in of {
        let name = name_of(editor, id, i);
        editor.set_constant(id, i, tensor, &name, scope.names);
    }
    take_over(editor, add, norm);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    const NORM: &str = "
        s: f32[4] = {1,-2,0.5,3}
        b: f32[4] = {0,1,-1,0.25}
        m: f32[4] = {0.5,-0.5,1,0}
        v: f32[4] = {1,0.25,2,0.5}
        y = BatchNormalization(a, s, b, m, v)";

    fn normed(input: &str, layer: &str) -> String {
        format!("opset 17\ngraph g(x: {input}) -> (y) {{\n{layer}\n{NORM}\n}}")
    }

    #[test]
    fn the_norm_vanishes_into_every_layer() {
        let image = "f32[2,2,3,3]";
        for (input, layer, op) in [
            (
                image,
                "w: f32[2,2,1,1] = {1,2,3,4}\na = ConvTranspose(x, w) {group=2}",
                "ConvTranspose",
            ),
            (
                image,
                "w: f32[2,4,1,1] = {1,2,3,4,5,6,7,8}\na = ConvTranspose(x, w)",
                "ConvTranspose",
            ),
            (
                image,
                "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)",
                "Conv",
            ),
            (
                image,
                "w: f32[4,1,1,1] = {1,2,3,4}\nc: f32[4] = {1,2,3,4}\n\
                 a = Conv(x, w, c) {group=2}",
                "Conv",
            ),
            (
                "f32[3,2]",
                "w: f32[4,2] = {1,2,3,4,5,6,7,8}\nc: f32[1] = {3}\n\
                 a = Gemm(x, w, c) {transB=1, alpha=0.5, beta=2.0}",
                "Gemm",
            ),
            (
                "f32[3,2]",
                "w: f32[2,4] = {1,2,3,4,5,6,7,8}\na = Gemm(x, w)",
                "Gemm",
            ),
        ] {
            assert_eq!(left(&PASS, &normed(input, layer)), [op], "{layer}");
        }
    }

    #[test]
    fn the_norm_after_a_product_becomes_or_joins_its_bias() {
        let product = "w: f32[2,4] = {1,2,3,4,5,6,7,8}\na = MatMul(x, w)";
        assert_eq!(left(&PASS, &normed("f32[3,2]", product)), ["MatMul", "Add"]);
        let sum = "w: f32[2,4] = {1,2,3,4,5,6,7,8}\nc: f32[4] = {1,2,3,4}\n\
                   p = MatMul(x, w)\na = Add(c, p)";
        assert_eq!(left(&PASS, &normed("f32[3,2]", sum)), ["MatMul", "Add"]);
    }

    #[test]
    fn a_product_of_three_axes_keeps_its_norm() {
        let product = "w: f32[2,3] = {1,2,3,4,5,6}\na = MatMul(x, w)";
        let ops = left(&PASS, &normed("f32[1,4,2]", product));
        assert_eq!(ops, ["MatMul", "BatchNormalization"]);
    }

    #[test]
    fn a_layer_that_others_read_keeps_its_norm() {
        let layer = "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)";
        let text = normed("f32[1,2,3,3]", layer).replace("(y)", "(y, a)");
        assert_eq!(left(&PASS, &text), ["Conv", "BatchNormalization"]);
    }

    #[test]
    fn a_shared_weight_is_copied() {
        let layer = "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)\nz = Conv(x, w)";
        let text = normed("f32[1,2,3,3]", layer).replace("(y)", "(y, z)");
        assert_eq!(left(&PASS, &text), ["Conv", "Conv"]);
    }
}
