//! Inputs to measure with: the first sample of the user's data, or random ones.

use edgesmith_ir::analysis::lengths;
use edgesmith_ir::random::Random;
use edgesmith_ir::types::{DType, Dim, Type};
use edgesmith_ir::{Error, Model, Result, Tensor, ValueId};

/// Named inputs of one run.
pub type Inputs = Vec<(String, Tensor)>;

/// The inputs as [`Session::run`] takes them.
pub fn borrowed(inputs: &Inputs) -> Vec<(&str, Tensor)> {
    inputs
        .iter()
        .map(|(name, t)| (name.as_str(), t.clone()))
        .collect()
}

/// Random inputs of the shapes that `dims` gives, other symbols 1: floats in -1..1 and small
/// integers, the same every time.
///
/// # Errors
/// When a rank is unknown or a type has no random values.
pub fn random_inputs(model: &Model, dims: &[(String, usize)]) -> Result<Inputs> {
    let mut random = Random::new(0);
    let mut inputs = Inputs::new();
    let dims: Vec<(&str, usize)> = dims.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let types = lengths::workable_inputs(model, &dims);
    for (v, ty) in types.map_err(|e| with_lengths_hint(e, model))? {
        let value = model.graph.value(v);
        if value.constant.is_some() {
            continue;
        }
        let place = format!("input \"{}\"", value.name);
        let known = match &ty {
            Type::Tensor(t) => t
                .shape
                .as_ref()
                .and_then(|s| s.known())
                .map(|d| (t.dtype, d)),
            _ => None,
        };
        let (dtype, dims) = known.ok_or_else(|| {
            Error::unsupported(format!("no random data for {ty}"))
                .at(place.clone())
                .hint("give data with --input, or lengths with --dim NAME=N")
        })?;
        let count = dims.iter().product();
        let tensor = if dtype.is_float() {
            let number = |_| (random.unit() * 2.0 - 1.0) as f32;
            Tensor::from_vec(&dims, (0..count).map(number).collect())?
        } else if dtype == DType::Bool {
            Tensor::from_bools(&dims, &vec![true; count])?
        } else {
            let number = |_| random.below(2) as i64;
            Tensor::from_vec(&dims, (0..count).map(number).collect())?
        };
        let tensor = edgesmith_data::cast(&tensor, dtype).map_err(|e| e.at(place))?;
        inputs.push((value.name.clone(), tensor));
    }
    Ok(inputs)
}

/// The error of a run whose lengths nobody gave, with what sets them.
pub fn with_lengths_hint(e: Error, model: &Model) -> Error {
    let open = crate::opened::open_axes(model);
    if e.hint.is_some() || open.is_empty() {
        return e;
    }
    e.hint(format!(
        "lengths that nothing sets are as small as fits: set them by --dim NAME=N ({}), or give \
         data, to a command that has --input",
        open.join(", ")
    ))
}

/// The first sample of each array that the model asks for: of the axis that is open and first in
/// some input, and in the others of axes of the same name, or without a name and of as many
/// samples.
///
/// # Errors
/// When an array is missing or cannot be cast.
pub fn first_samples(model: &Model, arrays: &[(String, Tensor)]) -> Result<Inputs> {
    let shape = |v: ValueId| model.graph.value(v).tensor_type()?.shape.as_ref();
    let first = model.graph.inputs.iter().filter_map(|&v| shape(v)?.first());
    let samples: Vec<&Dim> = first.filter(|d| d.known().is_none()).collect();
    let given = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t);
    let counts = model.graph.inputs.iter().filter_map(|&v| {
        let open = shape(v)?.first()?.known().is_none();
        let first = given(&model.graph.value(v).name)?.dims().first().copied();
        first.filter(|_| open)
    });
    let counts: Vec<usize> = counts.collect();
    let mut inputs = Inputs::new();
    for &v in &model.graph.inputs {
        let value = model.graph.value(v);
        let Some((name, t)) = arrays.iter().find(|(n, _)| *n == value.name) else {
            continue;
        };
        let dtype = value.tensor_type().map_or(t.dtype(), |t| t.dtype);
        let t = edgesmith_data::cast(t, dtype)?;
        let axis = shape(v).and_then(|s| {
            let open = s.first().is_some_and(|d| d.known().is_none());
            let named = |d: &Dim| samples.iter().any(|s| s.same(d));
            let unnamed = |(d, n): (&Dim, &usize)| matches!(d, Dim::Unknown) && counts.contains(n);
            open.then_some(0)
                .or_else(|| s.iter().position(named))
                .or_else(|| s.iter().zip(t.dims()).position(unnamed))
        });
        let one = match axis {
            Some(axis) if t.dims().get(axis).is_some_and(|&n| n > 1) => first_along(&t, axis)?,
            _ => t,
        };
        inputs.push((name.clone(), one));
    }
    Ok(inputs)
}

/// The first slice along an axis that is longer than 1.
fn first_along(t: &Tensor, axis: usize) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let outer: usize = dims[..axis].iter().product();
    let size = t.byte_len() / outer.max(1);
    let one = size / dims[axis];
    dims[axis] = 1;
    let each = t.bytes().chunks(size.max(1)).flat_map(|part| &part[..one]);
    Tensor::from_bytes(t.dtype(), &dims, each.copied().collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_is_taken_along_the_axis_of_samples() {
        let text = "graph g (x: f32[n,2], state: f32[2,n,1]) -> (y: f32[n,2]) { y = Identity(x) }";
        let model = edgesmith_ir::text::parse(text).expect("it is a model");
        let x = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).expect("4 elements");
        let state = Tensor::from_vec(&[2, 2, 1], vec![5f32, 6.0, 7.0, 8.0]).expect("4 elements");
        let arrays = [("x".to_owned(), x), ("state".to_owned(), state)];
        let inputs = first_samples(&model, &arrays).expect("both are there");
        assert_eq!(inputs[0].1.to_f32().expect("floats")[..], [1.0, 2.0]);
        assert_eq!(inputs[1].1.dims(), [2, 1, 1]);
        assert_eq!(inputs[1].1.to_f32().expect("floats")[..], [5.0, 7.0]);
    }

    #[test]
    fn an_axis_without_a_name_is_that_of_samples_where_it_is_as_long() {
        let text = "graph g (x: f32[?,2], state: f32[2,?,1]) -> (y: f32[?,2]) { y = Identity(x) }";
        let model = edgesmith_ir::text::parse(text).expect("it is a model");
        let x = Tensor::from_vec(&[3, 2], vec![1f32; 6]).expect("6 elements");
        let state = Tensor::from_vec(&[2, 3, 1], vec![2f32; 6]).expect("6 elements");
        let other = Tensor::from_vec(&[2, 4, 1], vec![2f32; 8]).expect("8 elements");
        for (state, dims) in [(state, [2, 1, 1]), (other, [2, 4, 1])] {
            let arrays = [("x".to_owned(), x.clone()), ("state".to_owned(), state)];
            let inputs = first_samples(&model, &arrays).expect("both are there");
            assert_eq!(inputs[0].1.dims(), [1, 2]);
            assert_eq!(inputs[1].1.dims(), dims);
        }
    }
}
