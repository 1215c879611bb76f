//! Networks with fewer channels: the largest of each dimension stay, with their weights.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::channels::{
    Axis, Class, Dimension, Kept, Options, SHOWN, Ties, as_places, as_shuffles, cut, length,
};
use edgesmith_ir::infer;
use edgesmith_ir::{DType, Error, Model, Result, Tensor, ValueId};

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
    let mut model = model.clone();
    let shuffles = as_places(&mut model)?;
    let model = &model;
    let inferred = infer::infer(model, &[])?;
    let mut ties = Ties::of(model, &inferred, Options::default())?;
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
            kept.entry(*axis)
                .or_insert_with(|| (0..length(model, &inferred, *axis)).collect());
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
    let held = ties.held().into_iter().filter(|h| h.why != SHOWN).map(|h| {
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
    let mut narrow = cut(model, &inferred, &kept)?;
    as_shuffles(&mut narrow, &shuffles)?;
    Ok(Narrowed {
        model: narrow,
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
    let mut axes = dimension.classes.iter().flat_map(Class::keys);
    let what = match axes.any(|a| ties.is_head(*a)) {
        true => "heads",
        false => "channels",
    };
    format!("{}: {count} {what}, now {left}", names(model, &makers))
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

#[cfg(test)]
mod tests {
    use super::*;

    use edgesmith_ir::channels::masked;
    use edgesmith_ir::eval::evaluate;
    use edgesmith_testkit::{Tolerance, difference, networks, random};

    use super::super::prepared;

    /// The teacher with zeros where it reads channels that the student has not.
    fn zeroed(teacher: &Model, kept: &Kept) -> Model {
        let mut teacher = teacher.clone();
        as_places(&mut teacher).unwrap();
        let teacher = &teacher;
        let inferred = infer::infer(teacher, &[]).unwrap();
        let ties = Ties::of(teacher, &inferred, Options::default()).unwrap();
        masked(teacher, &inferred, &ties, kept).unwrap()
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
        let expected = evaluate(&zeroed(teacher, &made.kept), &given).unwrap();
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
            cut += usize::from(assert_sound(&networks::shuffled(seed), 0.5, seed) > 0);
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
    fn squares_are_summed_by_slice() {
        let t = Tensor::from_vec(&[2, 3, 2], (0..12).map(|x| x as f32).collect()).unwrap();
        assert_eq!(sums_of_squares(&t, 0).unwrap()[0], 55.0);
    }
}
