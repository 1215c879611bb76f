//! Networks with fewer channels: the largest of each dimension stay, with their weights.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Attribute, DType, Error, Model, NodeId, Result, Tensor, ValueId};

use crate::ties::{Axis, Class, Dimension, Ties};

/// The indices that stay, of the axes that lose some.
pub(super) type Kept = BTreeMap<Axis, Vec<usize>>;

/// What became narrower, and why other things did not.
pub(super) struct Narrowed {
    pub model: Model,
    pub notes: Vec<String>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests compare with zeros in the teacher")
    )]
    pub kept: Kept,
}

/// Keeps the part `width` of the channels of each dimension, a multiple of `round_to` where there
/// are that many, and at least one: those whose weights are the longest, lengths in all weights
/// that make or read a channel together.
///
/// # Errors
/// When no dimension can be made smaller.
pub(super) fn narrow(model: &Model, width: f64, round_to: usize) -> Result<Narrowed> {
    let inferred = infer::infer(model, &[])?;
    let mut ties = Ties::of(model, &inferred)?;
    let mut notes = Vec::new();
    let mut kept = Kept::new();
    for dimension in ties.dimensions() {
        let count = dimension.classes.len();
        let left = rounded(count, width, round_to);
        if left == count {
            continue;
        }
        notes.push(told(model, &ties, &dimension, left));
        let chosen = longest(model, &dimension, left)?;
        for axis in dimension.classes.iter().flat_map(Class::keys) {
            kept.entry(*axis).or_insert_with(|| {
                let length = length_of(model, &inferred, *axis);
                (0..length).collect()
            });
        }
        let gone = dimension.classes.iter().enumerate();
        for (_, class) in gone.filter(|(i, _)| !chosen.contains(i)) {
            for (axis, indices) in class {
                let gone: BTreeSet<usize> = indices.iter().copied().collect();
                if let Some(stay) = kept.get_mut(axis) {
                    stay.retain(|i| !gone.contains(i));
                }
            }
        }
    }
    let held = ties.held().into_iter().map(|h| {
        let more = match h.more {
            0 => String::new(),
            n => format!(" ({n} more such nodes)"),
        };
        format!("{} stay as wide: {}{more}", names(model, &h.weights), h.why)
    });
    let held: Vec<String> = held.collect();
    if kept.is_empty() {
        let hint = match held.is_empty() {
            true => "all its channels are those of its inputs and outputs, or too few".to_owned(),
            false => held.join("; "),
        };
        return Err(Error::unsupported("nothing in the model can be made narrower").hint(hint));
    }
    notes.extend(held);
    Ok(Narrowed {
        model: cut(model, &inferred, &kept)?,
        notes,
        kept,
    })
}

/// The part of a count, as a multiple of `multiple` that is not 0 where the count has one.
fn rounded(count: usize, part: f64, multiple: usize) -> usize {
    let multiple = multiple.max(1);
    let parts = (count as f64 * part / multiple as f64).round();
    let wanted = (parts as usize).saturating_mul(multiple);
    wanted.clamp(multiple.min(count), count)
}

fn told(model: &Model, ties: &Ties, dimension: &Dimension, left: usize) -> String {
    let axes = dimension.classes.first().into_iter().flat_map(Class::keys);
    let makers: Vec<ValueId> = axes.filter(|a| ties.makes(**a)).map(|a| a.value).collect();
    let count = dimension.classes.len();
    format!("{}: {count} channels, now {left}", names(model, &makers))
}

/// Names of values, the first few.
fn names(model: &Model, values: &[ValueId]) -> String {
    const MOST: usize = 4;
    let name = |v: &ValueId| format!("\"{}\"", model.graph.value(*v).name);
    let mut list: Vec<String> = values.iter().take(MOST).map(name).collect();
    if values.len() > MOST {
        list.push(format!("{} more", values.len() - MOST));
    }
    list.join(", ")
}

fn length_of(model: &Model, inferred: &Inferred, axis: Axis) -> usize {
    let constant = model.graph.value(axis.value).constant.as_ref();
    let length = match constant {
        Some(data) => data.dims().get(axis.axis).copied(),
        None => inferred
            .tensor(axis.value)
            .and_then(|t| t.shape.as_ref()?[axis.axis].known()),
    };
    length.unwrap_or(0)
}

/// The classes with the longest weights.
fn longest(model: &Model, dimension: &Dimension, left: usize) -> Result<BTreeSet<usize>> {
    let mut squares: BTreeMap<Axis, Vec<f64>> = BTreeMap::new();
    for axis in dimension.classes.iter().flat_map(Class::keys) {
        let data = model.graph.value(axis.value).constant.as_ref();
        let weight = data.filter(|d| d.rank() > 1 && d.dtype() == DType::F32);
        if let (Some(weight), false) = (weight, squares.contains_key(axis)) {
            squares.insert(*axis, sums_of_squares(weight, axis.axis)?);
        }
    }
    let length = |class: &Class| -> f64 {
        let parts = class.iter().filter_map(|(axis, indices)| {
            let squares = squares.get(axis)?;
            Some(indices.iter().map(|&i| squares[i]).sum::<f64>().sqrt())
        });
        parts.sum()
    };
    let lengths: Vec<f64> = dimension.classes.iter().map(length).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    Ok(order.into_iter().take(left).collect())
}

/// The sum of squares of each slice along an axis.
fn sums_of_squares(t: &Tensor, axis: usize) -> Result<Vec<f64>> {
    let data = t.to_f32()?;
    let length = t.dims()[axis];
    let inner: usize = t.dims()[axis + 1..].iter().product();
    let mut sums = vec![0.0; length];
    for (line, values) in data.chunks(inner.max(1)).enumerate() {
        let square = |&x: &f32| f64::from(x) * f64::from(x);
        sums[line % length] += values.iter().map(square).sum::<f64>();
    }
    Ok(sums)
}

/// The model without what is not kept.
fn cut(model: &Model, before: &Inferred, kept: &Kept) -> Result<Model> {
    let mut out = model.clone();
    let is_cut = |v: ValueId| {
        kept.range(Axis::of(v, 0)..)
            .next()
            .is_some_and(|(a, _)| a.value == v)
    };
    for (v, value) in model.graph.values() {
        if let Some(data) = &value.constant {
            if is_cut(v) {
                let mut data = data.clone();
                for axis in 0..data.rank() {
                    if let Some(stay) = kept.get(&Axis::of(v, axis)) {
                        data = chosen(&data, axis, stay)?;
                    }
                }
                let new = out.graph.value_mut(v);
                new.ty = Some(data.ty().into());
                new.constant = Some(data);
            }
        } else if !model.graph.is_input(v) && !model.graph.is_output(v) {
            out.graph.value_mut(v).ty = None;
        }
    }
    for (id, node) in model.graph.nodes() {
        if node.is("Reshape") {
            retarget(&mut out, id, kept)?;
        }
        let count = node.int("group").unwrap_or(1);
        let is_grouped = count > 1 && (node.is("Conv") || node.is("ConvTranspose"));
        let Some(x) = node.input(0).filter(|_| is_grouped) else {
            continue;
        };
        let channels = Axis::of(x, 1);
        let is_depthwise = length_of(model, before, channels) as i64 == count;
        if let Some(stay) = kept.get(&channels).filter(|_| is_depthwise) {
            let stay = Attribute::Int(stay.len() as i64);
            out.graph.node_mut(id).set("group", stay);
        }
    }
    check(&out, before, kept)?;
    Ok(out)
}

/// Writes the new lengths into the target of a Reshape, where it has the old ones.
fn retarget(out: &mut Model, id: NodeId, kept: &Kept) -> Result<()> {
    let node = out.graph.node(id);
    let (Some(shape), Some(y)) = (node.input(1), node.output(0)) else {
        return Ok(());
    };
    let Some(data) = out.graph.constant(shape) else {
        return Ok(());
    };
    let mut target = data.to_i64()?.to_vec();
    let mut changed = false;
    for (axis, length) in target.iter_mut().enumerate().filter(|(_, l)| **l > 0) {
        if let Some(stay) = kept.get(&Axis::of(y, axis)) {
            (*length, changed) = (stay.len() as i64, true);
        }
    }
    if changed {
        let name = out.graph.fresh_name(&out.graph.value(shape).name);
        let new = out.graph.add_constant(&name, Tensor::vector(target));
        out.graph.set_input(id, 1, Some(new));
    }
    Ok(())
}

/// Asserts that inference finds the lengths that are left, everywhere.
fn check(out: &Model, before: &Inferred, kept: &Kept) -> Result<()> {
    let after = infer::infer(out, &[])?;
    for (v, value) in out.graph.values().take(before.types.len()) {
        let shapes = [before, &after].map(|i| i.tensor(v).and_then(|t| t.shape.clone()));
        let [Some(old), Some(new)] = shapes else {
            continue;
        };
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
fn chosen(t: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor> {
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

    use edgesmith_ir::eval::evaluate;
    use edgesmith_testkit::{Tolerance, difference, random};

    use super::super::{drawn, prepared};

    /// The teacher with zeros where its weights read channels that the student has not.
    fn masked(teacher: &Model, kept: &Kept) -> Model {
        let inferred = infer::infer(teacher, &[]).unwrap();
        let ties = Ties::of(teacher, &inferred).unwrap();
        let mut out = teacher.clone();
        for (axis, stay) in kept.iter().filter(|(a, _)| ties.reads(**a)) {
            let data = out.graph.value(axis.value).constant.clone().unwrap();
            let mut numbers = data.to_f32().unwrap().to_vec();
            let inner: usize = data.dims()[axis.axis + 1..].iter().product();
            for (i, x) in numbers.iter_mut().enumerate() {
                if !stay.contains(&(i / inner % data.dims()[axis.axis])) {
                    *x = 0.0;
                }
            }
            let zeros = Tensor::from_vec(data.dims(), numbers).unwrap();
            out.graph.value_mut(axis.value).constant = Some(zeros);
        }
        out
    }

    /// Fails where the student is not the teacher with zeros. The channels that are gone.
    fn assert_sound(teacher: &Model, width: f64, seed: u64) -> usize {
        let Ok(made) = narrow(teacher, width, 1) else {
            return 0;
        };
        edgesmith_testkit::check(&made.model);
        let inputs = random::inputs_with(teacher, seed, &[("batch", 2)]);
        let given: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        let expected = evaluate(&masked(teacher, &made.kept), &given).unwrap();
        let found = evaluate(&made.model, &given).unwrap();
        let tolerance = Tolerance {
            relative: 1e-4,
            absolute: 1e-5,
        };
        for (a, b) in found.iter().zip(&expected) {
            if let Some(what) = difference(a, b, tolerance) {
                panic!("seed {seed}: {what}");
            }
        }
        made.kept.len()
    }

    #[test]
    fn a_student_is_its_teacher_with_zeros_for_the_channels_that_are_gone() {
        let mut cut = 0;
        for seed in 0..150 {
            cut += usize::from(assert_sound(&drawn::network(seed), 0.5, seed) > 0);
        }
        assert!(cut > 140, "{cut} of 150 networks were cut");
    }

    #[test]
    fn no_operator_makes_a_student_that_is_something_else() {
        let mut cut = 0;
        for seed in 0..4000 {
            let teacher = prepared(&random::graph(seed)).unwrap();
            cut += usize::from(assert_sound(&teacher, 0.5, seed) > 0);
        }
        assert!(cut > 30, "{cut} of 4000 models were cut");
    }

    #[test]
    fn a_count_is_rounded_to_a_multiple_and_never_to_nothing() {
        let of = |count, multiple| rounded(count, 0.5, multiple);
        assert_eq!([of(16, 1), of(5, 1), of(1, 1)], [8, 3, 1]);
        assert_eq!(
            [of(16, 8), of(24, 8), of(40, 8), of(12, 8), of(6, 8)],
            [8, 16, 24, 8, 6]
        );
        assert_eq!(rounded(10, 1.0, 8), 8);
    }

    #[test]
    fn slices_are_taken_along_any_axis() {
        let t = Tensor::from_vec(&[2, 3, 2], (0..12).map(|x| x as f32).collect()).unwrap();
        let of = |axis, i: &[usize]| chosen(&t, axis, i).unwrap().to_f32().unwrap().to_vec();
        assert_eq!(of(1, &[0, 2]), [0., 1., 4., 5., 6., 7., 10., 11.]);
        assert_eq!(of(2, &[1]), [1., 3., 5., 7., 9., 11.]);
        assert_eq!(sums_of_squares(&t, 0).unwrap()[0], 55.0);
    }
}
