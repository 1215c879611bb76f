//! A graph without some of its channels: constants are sliced, and what says lengths is written anew.

use std::collections::BTreeMap;

use crate::infer::{self, Inferred};
use crate::{Attribute, Error, Model, Node, NodeId, Result, Tensor, ValueId};

use super::masked::is_of_squares;
use super::{Axis, is_named};

mod heads;

/// The indices that stay, of the axes that lose some.
pub type Kept = BTreeMap<Axis, Vec<usize>>;

/// The model without the indices that are not kept; names stay. `kept` are whole classes of
/// [`super::Ties`] of this model, and `before` what was inferred of it.
///
/// # Errors
/// When a constant of a packed type would be sliced, or lengths do not fit afterwards.
pub fn cut(model: &Model, before: &Inferred, kept: &Kept) -> Result<Model> {
    let mut out = model.clone();
    for (v, value) in model.graph.values() {
        if let Some(data) = &value.constant {
            let mut data = data.clone();
            let mut is_cut = false;
            for axis in 0..data.rank() {
                if let Some(stay) = kept.get(&Axis::of(v, axis)) {
                    data = chosen(&data, axis, stay)?;
                    is_cut = true;
                }
            }
            if is_cut {
                let new = out.graph.value_mut(v);
                new.ty = Some(data.ty().into());
                new.constant = Some(data);
            }
        } else if !model.graph.is_input(v) && !model.graph.is_output(v) {
            out.graph.value_mut(v).ty = None;
        }
    }
    let edits = Edits {
        model,
        before,
        kept,
    };
    for (id, node) in model.graph.nodes() {
        let edit = EDITS.iter().find(|(op, _)| is_named(node, op));
        if let Some((_, edit)) = edit {
            edit(&edits, &mut out, id)?;
        }
    }
    check(&out, before, kept)?;
    Ok(out)
}

/// Writes what a node says of lengths.
type Edit = fn(&Edits, &mut Model, NodeId) -> Result<()>;

/// The operators that say lengths.
static EDITS: &[(&str, Edit)] = &[
    ("Attention", |e, out, id| e.attention(out, id)),
    ("Conv", |e, out, id| e.group(out, id)),
    ("ConvTranspose", |e, out, id| e.group(out, id)),
    ("Expand", |e, out, id| e.target(out, id)),
    ("GRU", |e, out, id| e.hidden(out, id)),
    ("Gather", |e, out, id| e.places(out, id)),
    ("GroupNormalization", |e, out, id| e.groups(out, id)),
    ("LSTM", |e, out, id| e.hidden(out, id)),
    ("Pad", |e, out, id| e.pads(out, id)),
    ("RMSNormalization", |e, out, id| e.root_mean_square(out, id)),
    ("SimplifiedLayerNormalization", |e, out, id| {
        e.root_mean_square(out, id)
    }),
    ("RotaryEmbedding", |e, out, id| e.rotary(out, id)),
    ("RNN", |e, out, id| e.hidden(out, id)),
    ("ReduceMean", |e, out, id| e.mean(out, id)),
    ("Reshape", |e, out, id| e.target(out, id)),
    ("Resize", |e, out, id| e.sizes(out, id)),
    ("Slice", |e, out, id| e.slice(out, id)),
    ("Split", |e, out, id| e.split(out, id)),
    ("com.microsoft.Attention", |e, out, id| {
        e.merged_attention(out, id)
    }),
    ("com.microsoft.GroupQueryAttention", |e, out, id| {
        e.group_query(out, id)
    }),
    ("com.microsoft.MultiHeadAttention", |e, out, id| {
        e.multi_head(out, id)
    }),
    ("com.microsoft.RotaryEmbedding", |e, out, id| {
        e.rotary(out, id)
    }),
];

struct Edits<'a> {
    model: &'a Model,
    before: &'a Inferred,
    kept: &'a Kept,
}

impl Edits<'_> {
    fn length(&self, axis: Axis) -> usize {
        length(self.model, self.before, axis)
    }

    /// The indices of an axis that stay; `None` where all do.
    fn stay(&self, v: Option<ValueId>, axis: usize) -> Option<&Vec<usize>> {
        self.kept.get(&Axis::of(v?, axis))
    }

    fn input(&self, id: NodeId, i: usize) -> Option<ValueId> {
        self.model.graph.node(id).input(i)
    }

    fn output(&self, id: NodeId) -> Option<ValueId> {
        self.model.graph.node(id).output(0)
    }

    fn rank(&self, v: Option<ValueId>) -> usize {
        v.and_then(|v| self.before.tensor(v)?.shape.as_ref().map(|s| s.len()))
            .unwrap_or(0)
    }

    fn ints(&self, id: NodeId, name: &str, input: usize) -> Option<Vec<i64>> {
        let graph = &self.model.graph;
        let node = graph.node(id);
        if let Some(list) = node.ints(name) {
            return Some(list.to_vec());
        }
        graph.constant(node.input(input)?)?.to_i64().ok()
    }

    /// Writes a list where the node has it: as an attribute or as an input.
    fn write(&self, out: &mut Model, id: NodeId, (name, input): (&str, usize), list: Vec<i64>) {
        if self.model.graph.node(id).ints(name).is_some() {
            out.graph.node_mut(id).set(name, Attribute::Ints(list));
            return;
        }
        let old = self.input(id, input);
        let wanted = old.map_or(name, |v| &self.model.graph.value(v).name);
        let fresh = out.graph.fresh_name(wanted);
        let new = out.graph.add_constant(&fresh, Tensor::vector(list));
        out.graph.set_input(id, input, Some(new));
    }

    /// The group of a convolution whose channels go one by one.
    fn group(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let count = self.model.graph.node(id).int("group").unwrap_or(1);
        let x = self.input(id, 0);
        let Some(stay) = self.stay(x, 1).filter(|_| count > 1) else {
            return Ok(());
        };
        let channels = x.map_or(0, |x| self.length(Axis::of(x, 1)));
        if channels as i64 == count {
            let stay = Attribute::Int(stay.len() as i64);
            out.graph.node_mut(id).set("group", stay);
        }
        Ok(())
    }

    /// The number of groups that are normalised.
    fn groups(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let count = self.model.graph.node(id).int("num_groups").unwrap_or(1);
        let x = self.input(id, 0);
        if let (Some(stay), Some(x)) = (self.stay(x, 1), x) {
            let own = self.length(Axis::of(x, 1)) / (count.max(1) as usize);
            let left = Attribute::Int((stay.len() / own.max(1)) as i64);
            out.graph.node_mut(id).set("num_groups", left);
        }
        Ok(())
    }

    fn hidden(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let stay = self.stay(self.input(id, 2), 2);
        let says = self.model.graph.node(id).int("hidden_size").is_some();
        if let Some(stay) = stay.filter(|_| says) {
            let left = Attribute::Int(stay.len() as i64);
            out.graph.node_mut(id).set("hidden_size", left);
        }
        Ok(())
    }

    /// The new lengths in a target, where it has the old ones.
    fn target(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let Some(mut target) = self.ints(id, "shape", 1) else {
            return Ok(());
        };
        let y = self.output(id);
        let offset = self.rank(y).saturating_sub(target.len());
        let mut changed = false;
        for (axis, length) in target.iter_mut().enumerate().filter(|(_, l)| **l > 1) {
            if let Some(stay) = self.stay(y, axis + offset) {
                (*length, changed) = (stay.len() as i64, true);
            }
        }
        if changed {
            self.write(out, id, ("shape", 1), target);
        }
        Ok(())
    }

    /// The sizes of a Resize, which may name channels.
    fn sizes(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let has_sizes = node.input(3).is_some();
        let Some(mut sizes) = self.ints(id, "", 3).filter(|_| has_sizes) else {
            return Ok(());
        };
        if let (Some(stay), true) = (self.stay(self.output(id), 1), sizes.len() > 1) {
            sizes[1] = stay.len() as i64;
            self.write(out, id, ("sizes", 3), sizes);
        }
        Ok(())
    }

    /// Places that are looked up, counted over those that stay.
    fn places(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let (x, at, y) = (node.input(0), node.input(1), node.output(0));
        let rank = self.rank(x).max(1);
        let axis = normal(node.int("axis").unwrap_or(0), rank);
        let Some(stay) = self.stay(x, axis) else {
            return Ok(());
        };
        let list = at.and_then(|v| self.model.graph.constant(v)?.to_i64().ok());
        let (Some(list), Some(x)) = (list, x) else {
            return Ok(());
        };
        let length = self.length(Axis::of(x, axis)) as i64;
        let left = (0..list.len()).filter(|i| self.stay(y, axis).is_none_or(|s| s.contains(i)));
        let place = |i: usize| {
            let p = if list[i] < 0 {
                list[i] + length
            } else {
                list[i]
            };
            stay.binary_search(&(p as usize)).ok().map(|p| p as i64)
        };
        let new: Option<Vec<i64>> = left.map(place).collect();
        let new = new
            .ok_or_else(|| Error::internal("a place that is looked up is gone").at(node.place()))?;
        let fresh = out.graph.fresh_name("places");
        let new = out.graph.add_constant(&fresh, Tensor::vector(new));
        out.graph.set_input(id, 1, Some(new));
        Ok(())
    }

    /// Places that are padded, as many as stay.
    fn pads(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let (x, y) = (node.input(0), node.output(0));
        let (Some(mut pads), Some(x)) = (self.ints(id, "pads", 1), x) else {
            return Ok(());
        };
        let rank = self.rank(Some(x));
        let axes: Vec<usize> = match self.ints(id, "", 3).filter(|_| node.input(3).is_some()) {
            Some(axes) => axes.iter().map(|&a| normal(a, rank)).collect(),
            None => (0..rank).collect(),
        };
        let count = axes.len();
        let mut changed = false;
        for (i, axis) in axes.into_iter().enumerate() {
            let Some(stay) = self.stay(y, axis).filter(|_| pads.len() == 2 * count) else {
                continue;
            };
            let front = pads[i].max(0) as usize;
            let own = self.length(Axis::of(x, axis));
            let before = stay.iter().filter(|&&p| p < front).count();
            let behind = stay.iter().filter(|&&p| p >= front + own).count();
            (pads[i], pads[i + count]) = (before as i64, behind as i64);
            changed = true;
        }
        if changed {
            self.write(out, id, ("pads", 1), pads);
        }
        Ok(())
    }

    /// The root mean square of those that stay is that of all, where the others are 0, times
    /// √(all / those): γ and ε take that back.
    fn root_mean_square(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let rank = self.rank(node.input(0)).max(1);
        let axis = normal(node.int("axis").unwrap_or(-1), rank);
        let (Some(stay), Some(x)) = (self.stay(node.input(0), axis), node.input(0)) else {
            return Ok(());
        };
        let part = stay.len() as f64 / self.length(Axis::of(x, axis)) as f64;
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5)) / part;
        let scale = node.input(1).and_then(|v| out.graph.constant(v).cloned());
        let scale = scale.ok_or_else(|| {
            Error::unsupported("the scale of the norm is computed").at(node.place())
        })?;
        let data = scale.to_f32()?;
        let data: Vec<f32> = data
            .iter()
            .map(|&g| (f64::from(g) / part.sqrt()) as f32)
            .collect();
        let data = Tensor::from_vec(scale.dims(), data)?;
        if scale.dtype() != data.dtype() {
            return Err(Error::unsupported("the scale of the norm is no f32").at(node.place()));
        }
        let fresh = out.graph.fresh_name("scale");
        let new = out.graph.add_constant(&fresh, data);
        out.graph.set_input(id, 1, Some(new));
        out.graph
            .node_mut(id)
            .set("epsilon", Attribute::Float(epsilon as f32));
        Ok(())
    }

    /// The mean of squares of those that stay is that of all, where the others are 0, times
    /// all / those.
    fn mean(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let (Some(x), Some(y), Some(axes)) =
            (node.input(0), node.output(0), self.ints(id, "axes", 1))
        else {
            return Ok(());
        };
        let rank = self.rank(Some(x));
        let [axis] = axes[..] else { return Ok(()) };
        let axis = normal(axis, rank);
        let Some(stay) = self.stay(Some(x), axis) else {
            return Ok(());
        };
        if !is_of_squares(self.model, id) {
            return Ok(());
        }
        let part = stay.len() as f64 / self.length(Axis::of(x, axis)) as f64;
        let graph = &mut out.graph;
        let name = graph.fresh_name("share");
        let part = graph.add_constant(&name, Tensor::scalar(part as f32));
        let name = graph.fresh_name(&self.model.graph.value(y).name);
        let mean = graph.add_value(&name, None);
        graph.set_output(id, 0, Some(mean));
        graph.add_node(Node::new("Mul", ""), &[Some(mean), Some(part)], &[Some(y)]);
        Ok(())
    }

    /// Starts and ends, counted over those that stay.
    fn slice(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let (x, y) = (node.input(0), node.output(0));
        let lists = [self.ints(id, "starts", 1), self.ints(id, "ends", 2)];
        let ([Some(mut starts), Some(mut ends)], Some(x)) = (lists, x) else {
            return Ok(());
        };
        let rank = self.rank(Some(x));
        let axes = match self.ints(id, "axes", 3) {
            Some(axes) => axes,
            None => (0..starts.len() as i64).collect(),
        };
        let mut changed = false;
        for (i, axis) in axes.iter().map(|&a| normal(a, rank)).enumerate() {
            let Some(stay) = self.stay(Some(x), axis) else {
                continue;
            };
            let length = self.length(Axis::of(x, axis)) as i64;
            let start = if starts[i] < 0 {
                starts[i] + length
            } else {
                starts[i]
            };
            let first = stay.iter().filter(|&&p| (p as i64) < start).count();
            let own = match (self.stay(y, axis), y) {
                (Some(own), _) => own.len(),
                (None, Some(y)) => self.length(Axis::of(y, axis)),
                (None, None) => 0,
            };
            (starts[i], ends[i]) = (first as i64, (first + own) as i64);
            changed = true;
        }
        if changed {
            self.write(out, id, ("starts", 1), starts);
            self.write(out, id, ("ends", 2), ends);
        }
        Ok(())
    }

    /// The length of each part.
    fn split(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let rank = self.rank(node.input(0)).max(1);
        let axis = normal(node.int("axis").unwrap_or(0), rank);
        if self.stay(node.input(0), axis).is_none() {
            return Ok(());
        }
        let own = |y: &Option<ValueId>| match (self.stay(*y, axis), y) {
            (Some(stay), _) => stay.len() as i64,
            (None, Some(y)) => self.length(Axis::of(*y, axis)) as i64,
            (None, None) => 0,
        };
        let lengths: Vec<i64> = node.outputs().iter().map(own).collect();
        if self.model.opset() < 13 {
            out.graph
                .node_mut(id)
                .set("split", Attribute::Ints(lengths));
        } else {
            self.write(out, id, ("split", 1), lengths);
            out.graph.node_mut(id).remove("num_outputs");
        }
        Ok(())
    }
}

/// An axis that may count from the end.
fn normal(axis: i64, rank: usize) -> usize {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at).unwrap_or(0)
}

/// The length of an axis; 0 where it is not known.
pub fn length(model: &Model, inferred: &Inferred, axis: Axis) -> usize {
    let constant = model.graph.value(axis.value).constant.as_ref();
    let length = match constant {
        Some(data) => data.dims().get(axis.axis).copied(),
        None => inferred
            .tensor(axis.value)
            .and_then(|t| t.shape.as_ref()?[axis.axis].known()),
    };
    length.unwrap_or(0)
}

/// Asserts that inference finds the lengths that are left, everywhere.
fn check(out: &Model, before: &Inferred, kept: &Kept) -> Result<()> {
    let after = infer::infer(out, &[])?;
    for (v, value) in out.graph.values().take(before.types.len()) {
        let shapes = [before, &after].map(|i| i.tensor(v).and_then(|t| t.shape.clone()));
        let [Some(old), Some(new)] = shapes else {
            continue;
        };
        if value.consumers().is_empty() && !out.graph.is_output(v) {
            continue;
        }
        for (axis, (old, new)) in old.iter().zip(new.iter()).enumerate() {
            let expected = match kept.get(&Axis::of(v, axis)) {
                Some(stay) => Some(stay.len()),
                None => old.known(),
            };
            if expected.is_some() && new.known().is_some() && expected != new.known() {
                let what = format!("axis {axis} has {new}, {expected:?} were kept");
                return Err(Error::internal(what).at(format!("value \"{}\"", value.name)));
            }
        }
    }
    Ok(())
}

/// The slices of a tensor at these indices of an axis.
///
/// # Errors
/// When its numbers are packed, several in a byte.
pub fn chosen(t: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor> {
    let inner: usize = t.dims()[axis + 1..].iter().product();
    let bytes = |n: usize| t.dtype().bytes_of(n);
    let (one, two) = (bytes(1), bytes(2));
    let size = bytes(inner).filter(|_| one.and_then(|n| n.checked_mul(2)) == two);
    let size =
        size.ok_or_else(|| Error::unsupported(format!("slices of {} are not done", t.ty())))?;
    let length = t.dims()[axis];
    let outer: usize = t.dims()[..axis].iter().product();
    let mut data = Vec::with_capacity(outer * indices.len() * size);
    for o in 0..outer {
        for i in indices {
            data.extend_from_slice(&t.bytes()[(o * length + i) * size..][..size]);
        }
    }
    let mut dims = t.dims().to_vec();
    dims[axis] = indices.len();
    Tensor::from_bytes(t.dtype(), &dims, data.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_taken_along_any_axis() {
        let t = Tensor::from_vec(&[2, 3, 2], (0..12).map(|x| x as f32).collect()).unwrap();
        let of = |axis, i: &[usize]| chosen(&t, axis, i).unwrap().to_f32().unwrap().to_vec();
        assert_eq!(of(1, &[0, 2]), [0., 1., 4., 5., 6., 7., 10., 11.]);
        assert_eq!(of(2, &[1]), [1., 3., 5., 7., 9., 11.]);
    }
}
