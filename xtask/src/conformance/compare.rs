//! Comparing what came out with what should have: types, shapes, elements.

use edgesmith_ir::ops::numbers::Numbers;
use edgesmith_ir::{DType, Item, Result, Tensor};

use super::cases::Tolerance;

/// The first difference in words; `None` where there is none.
///
/// # Errors
/// When elements cannot be read as numbers.
pub fn difference(found: &Item, expected: &Item, near: Tolerance) -> Result<Option<String>> {
    match (found, expected) {
        (Item::Tensor(a), Item::Tensor(b)) => tensors(a, b, near),
        (Item::Sequence(a), Item::Sequence(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b.iter()).enumerate() {
                if let Some(text) = difference(a, b, near)? {
                    return Ok(Some(format!("item {i}: {text}")));
                }
            }
            Ok(None)
        }
        (Item::Optional(Some(a)), Item::Optional(Some(b))) => difference(a, b, near),
        (a, b) if a == b => Ok(None),
        (a, b) => Ok(Some(format!("found {a}, expected {b}"))),
    }
}

fn tensors(a: &Tensor, b: &Tensor, near: Tolerance) -> Result<Option<String>> {
    if a.ty() != b.ty() {
        return Ok(Some(format!("found {}, expected {}", a.ty(), b.ty())));
    }
    if a == b {
        return Ok(None);
    }
    if let (Ok(x), Ok(y)) = (a.strings(), b.strings()) {
        let mut pairs = x.iter().zip(y);
        let differs = pairs.position(|(x, y)| x != y).unwrap_or(0);
        let text = format!("[{differs}] is {:?}, expected {:?}", x[differs], y[differs]);
        return Ok(Some(text));
    }
    let (x, y) = (elements(a)?, elements(b)?);
    let wrong = |(_, (x, y)): &(usize, (&f64, &f64))| {
        let equal = x == y || x.is_nan() && y.is_nan();
        // A difference that is no number is wrong too.
        !(equal || (*x - *y).abs() <= near.absolute + near.relative * y.abs())
    };
    let mut all = x.iter().zip(&y).enumerate().filter(wrong);
    Ok(all.next().map(|(i, (x, y))| {
        let more = all.count();
        let of = b.ty();
        format!("[{i}] is {x}, expected {y} ({} wrong of {of})", more + 1)
    }))
}

/// Real and imaginary parts follow each other.
fn elements(t: &Tensor) -> Result<Vec<f64>> {
    let parts = |dtype, width: usize| {
        Tensor::from_bytes(dtype, &[t.bytes().len() / width], t.bytes().clone())
    };
    let t = match t.dtype() {
        DType::C64 => parts(DType::F32, 4)?,
        DType::C128 => parts(DType::F64, 8)?,
        _ => t.clone(),
    };
    Ok(Numbers::of(&t)?.into_floats())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(a: Vec<f32>, b: Vec<f32>) -> Option<String> {
        let (a, b) = (Tensor::vector(a).into(), Tensor::vector(b).into());
        difference(&a, &b, Tolerance::default()).unwrap()
    }

    #[test]
    fn what_is_near_enough_agrees_and_what_is_not_is_named() {
        assert_eq!(told(vec![1.0, f32::NAN], vec![1.0009, f32::NAN]), None);
        let text = told(vec![1.0, 2.0, 3.0], vec![1.0, 2.1, 4.0]).unwrap();
        assert!(
            text.starts_with("[1] is 2,") && text.contains("2 wrong"),
            "{text}"
        );
        assert!(told(vec![f32::INFINITY], vec![f32::MAX]).is_some());
        assert!(told(vec![f32::NAN], vec![0.0]).is_some());
    }

    #[test]
    fn sequences_are_compared_item_by_item() {
        let seq = |x: f32| Item::tensors(vec![Tensor::scalar(0f32), Tensor::scalar(x)]);
        let text = difference(&seq(1.0), &seq(2.0), Tolerance::default()).unwrap();
        assert!(text.unwrap().starts_with("item 1: "));
        let empty = Item::tensors(Vec::new());
        assert!(
            difference(&seq(1.0), &empty, Tolerance::default())
                .unwrap()
                .is_some()
        );
    }
}
