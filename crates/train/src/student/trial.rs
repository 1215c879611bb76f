//! A run of teacher and student on the same random numbers.

use edgesmith_ir::analysis::lengths::workable_inputs;
use edgesmith_ir::{DType, Error, Model, Result, Tensor, Type};
use edgesmith_runtime::{Options, Session};

use edgesmith_ir::random::Random;

/// Runs both, and compares what they give but for the numbers. False where no numbers can be made
/// for an input.
///
/// # Errors
/// When one of them does not run, when their outputs differ in type or shape, or when the student
/// alone gives numbers that are none.
pub fn compare(teacher: &Model, student: &Model) -> Result<bool> {
    let Some(inputs) = inputs(teacher)? else {
        return Ok(false);
    };
    let given: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let run = |model: &Model| Session::prepare(model, &Options::default())?.run(&given);
    let expected = run(teacher).map_err(|e| e.at("the teacher"))?;
    let found = run(student).map_err(|e| e.at("the student"))?;
    for ((&v, a), b) in teacher.graph.outputs.iter().zip(&expected).zip(&found) {
        let fault = |what: String| {
            let place = format!("output \"{}\"", teacher.graph.value(v).name);
            Err(Error::internal(what).at(place))
        };
        if a.ty() != b.ty() {
            return fault(format!(
                "the teacher gives {}, the student {}",
                a.ty(),
                b.ty()
            ));
        }
        let is_finite = |t: &Tensor| t.to_f32().map_or(true, |d| d.iter().all(|x| x.is_finite()));
        if is_finite(a) && !is_finite(b) {
            return fault("the student gives infinities or what is no number".into());
        }
    }
    Ok(true)
}

/// Normal numbers, zeros and ones, and true for all inputs; `None` where an input is something else.
pub fn inputs(model: &Model) -> Result<Option<Vec<(String, Tensor)>>> {
    let mut random = Random::of(&[17]);
    let mut inputs = Vec::new();
    for (v, ty) in workable_inputs(model, &[])? {
        let value = model.graph.value(v);
        let Type::Tensor(ty) = ty else {
            return Ok(None);
        };
        let Some(dims) = ty.shape.as_ref().and_then(|s| s.known()) else {
            return Ok(None);
        };
        let count = edgesmith_ir::checked_count(&dims)?;
        let tensor = match ty.dtype {
            DType::F32 => {
                let data = (0..count).map(|_| random.normal() as f32);
                Tensor::from_vec(&dims, data.collect())?
            }
            DType::I64 => {
                let data = (0..count).map(|_| random.below(2) as i64);
                Tensor::from_vec(&dims, data.collect())?
            }
            DType::I32 => {
                let data = (0..count).map(|_| random.below(2) as i32);
                Tensor::from_vec(&dims, data.collect())?
            }
            DType::Bool => Tensor::from_bools(&dims, &vec![true; count])?,
            _ => return Ok(None),
        };
        inputs.push((value.name.clone(), tensor));
    }
    Ok(Some(inputs))
}
