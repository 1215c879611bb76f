//! Puts `y = scale * x + shift` of each channel into the weights of the layer in front of it.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Graph, Node, NodeId, Tensor};

use crate::float_data::{self, from_f64, to_f64};
use crate::rewrite::{Editor, Scope, nodes_of, rank};

/// The layers that take one in.
pub(crate) const LAYERS: &[&str] = &["Conv", "ConvTranspose", "Gemm", "MatMul", "Add"];

/// The products of which the last axis is the channel axis: all, or those of two axes where the
/// channels are axis 1.
pub(crate) fn products(graph: &Graph, types: &Inferred, of_two_axes: bool) -> Vec<NodeId> {
    let fits = |id: &NodeId| {
        let rank = graph.node(*id).output(0).and_then(|v| rank(types, v));
        rank.is_some_and(|r| r == 2 || (r > 2 && !of_two_axes))
    };
    nodes_of(graph, &["MatMul"])
        .into_iter()
        .filter(fits)
        .collect()
}

/// What is done to each channel: `y = scale * x + shift`.
pub(crate) struct Affine {
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

impl Affine {
    fn channels(&self) -> usize {
        self.scale.len()
    }

    fn scales(&self) -> bool {
        self.scale.iter().any(|&s| s != 1.0)
    }

    fn shifts(&self) -> bool {
        self.shift.iter().any(|&s| s != 0.0)
    }

    /// `bias` (zero where there is none) after it; one value stands for all channels.
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

    /// The weight with each element multiplied by the scale of its channel: `run` elements after
    /// each other have the same, which `channel` finds from the place of the run.
    fn weight(&self, t: &Tensor, run: usize, channel: impl Fn(usize) -> usize) -> Option<Tensor> {
        if !self.scales() {
            return Some(t.clone());
        }
        let scale = |i: usize| self.scale[channel(i)];
        let scaled = float_data::scale(t, run, scale)?;
        float_data::all(&scaled, f64::is_finite)?.then_some(scaled)
    }
}

/// The tensor, where all of its elements are finite in its type.
fn finite(dtype: DType, dims: &[usize], data: &[f64]) -> Option<Tensor> {
    let tensor = from_f64(dtype, dims, data).ok()?;
    float_data::all(&tensor, f64::is_finite)?.then_some(tensor)
}

/// Lets the layer that makes input `side` of `norm` do what `norm` does, which is `affine`; the
/// layer is nobody else's. Nothing changes where that cannot be.
pub(crate) fn absorb(
    editor: &mut Editor,
    norm: NodeId,
    side: usize,
    affine: &Affine,
    products: &[NodeId],
    scope: &mut Scope,
) -> Option<()> {
    let source = editor.only_source(norm, side, LAYERS)?;
    match editor.graph.node(source).op.as_str() {
        "Conv" | "ConvTranspose" => fuse_conv(editor, source, norm, affine, scope),
        "Gemm" => fuse_gemm(editor, source, norm, affine, scope),
        "MatMul" => fuse_matmul(editor, source, norm, affine, products, scope),
        _ => fuse_add(editor, source, norm, affine, products, scope),
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
        affine.weight(w, taps, |row| (row / second / rows) * second + row % second)?
    } else {
        affine.weight(w, (taps * second).max(1), |row| row)?
    };
    let dtype = w.dtype();
    let old = optional(editor, conv, 2)?;
    let bias = affine.bias(old.as_deref())?;
    finish(editor, conv, weight, (dtype, &[channels], &bias), scope)?;
    take_over(editor, conv, norm);
    Some(())
}

/// Writes weight (input 1) and bias (input 2), which is left out where it was and is zero.
fn finish(
    editor: &mut Editor,
    layer: NodeId,
    weight: Tensor,
    (dtype, dims, bias): (DType, &[usize], &[f64]),
    scope: &mut Scope,
) -> Option<()> {
    let zero = bias.iter().all(|&x| x == 0.0);
    let bias = finite(dtype, dims, bias)?;
    let name = name_of(editor, layer, 1);
    if data(editor, layer, 1) != Some(&weight) {
        editor.set_constant(layer, 1, weight, &name, scope.names);
    }
    if zero && editor.graph.node(layer).input(2).is_none() {
        return Some(());
    }
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
    let weight = match by_row {
        true => affine.weight(w, cols, |row| row)?,
        false => affine.weight(w, 1, |i| i % cols)?,
    };
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

/// The weight of a MatMul after `affine`.
fn product_weight(
    editor: &Editor,
    matmul: NodeId,
    affine: &Affine,
    products: &[NodeId],
) -> Option<Tensor> {
    let w = data(editor, matmul, 1)?;
    let [_, cols] = *w.dims() else { return None };
    if cols != affine.channels() || products.binary_search(&matmul).is_err() {
        return None;
    }
    affine.weight(w, 1, |i| i % cols)
}

/// What shifts becomes the Add of the new bias.
fn fuse_matmul(
    editor: &mut Editor,
    matmul: NodeId,
    norm: NodeId,
    affine: &Affine,
    products: &[NodeId],
    scope: &mut Scope,
) -> Option<()> {
    let weight = product_weight(editor, matmul, affine, products)?;
    let bias = finite(weight.dtype(), &[affine.channels()], &affine.shift)?;
    if !affine.scales() {
        return None;
    }
    let name = name_of(editor, matmul, 1);
    editor.set_constant(matmul, 1, weight, &name, scope.names);
    if !affine.shifts() {
        take_over(editor, matmul, norm);
        return Some(());
    }
    let bias = editor
        .graph
        .add_constant(&scope.names.fresh(&format!("{name}_bias")), bias);
    let node = editor.graph.node(norm);
    let (x, y) = (editor.graph.node(matmul).output(0), node.output(0));
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
    products: &[NodeId],
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
    let bias = finite(old.dtype(), &[affine.channels()], &bias)?;
    let weight = product_weight(editor, matmul, affine, products)?;
    let of: [(NodeId, usize, Tensor); 2] = [(matmul, 1, weight), (add, 1 - side, bias)];
    for (id, i, tensor) in of {
        let name = name_of(editor, id, i);
        editor.set_constant(id, i, tensor, &name, scope.names);
    }
    take_over(editor, add, norm);
    Some(())
}
