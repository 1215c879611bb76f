//! Brings arrays to the element type that a model asks for.

use edgesmith_ir::{DType, Error, Result, Tensor};
use half::{bf16, f16};

/// The tensor as `to`: numbers to floats as they are (no scaling), integers to wider or equal
/// integers when every element fits.
///
/// # Errors
/// When the types do not lead to each other, or an integer does not fit.
pub fn cast(tensor: &Tensor, to: DType) -> Result<Tensor> {
    let dims = tensor.dims();
    if tensor.dtype() == to {
        return Ok(tensor.clone());
    }
    match to {
        DType::F32 => Tensor::from_vec(dims, tensor.to_f32()?.into_owned()),
        DType::F16 => Tensor::from_vec(
            dims,
            tensor.to_f32()?.iter().map(|&x| f16::from_f32(x)).collect(),
        ),
        DType::BF16 => Tensor::from_vec(
            dims,
            tensor
                .to_f32()?
                .iter()
                .map(|&x| bf16::from_f32(x))
                .collect(),
        ),
        DType::F64 => Tensor::from_vec(
            dims,
            tensor.to_f32()?.iter().map(|&x| f64::from(x)).collect(),
        ),
        DType::I64 => Tensor::from_vec(dims, tensor.to_i64()?),
        DType::I32 => narrowed::<i32>(tensor),
        DType::I16 => narrowed::<i16>(tensor),
        DType::I8 => narrowed::<i8>(tensor),
        DType::U8 => narrowed::<u8>(tensor),
        DType::U16 => narrowed::<u16>(tensor),
        DType::U32 => narrowed::<u32>(tensor),
        DType::Bool => {
            let bools: Vec<bool> = tensor.to_i64()?.iter().map(|&x| x != 0).collect();
            Tensor::from_bools(dims, &bools)
        }
        _ => Err(Error::unsupported(format!(
            "{} cannot become {to}",
            tensor.ty()
        ))),
    }
}

fn narrowed<T: edgesmith_ir::Element + TryFrom<i64>>(tensor: &Tensor) -> Result<Tensor> {
    let fit = |x: i64| {
        T::try_from(x).map_err(|_| Error::invalid(format!("{x} does not fit into {}", T::DTYPE)))
    };
    let data = tensor
        .to_i64()?
        .into_iter()
        .map(fit)
        .collect::<Result<_>>()?;
    Tensor::from_vec(tensor.dims(), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_floats_as_they_are() {
        let t = cast(&Tensor::vector(vec![0u8, 255]), DType::F32).unwrap();
        assert_eq!(&*t.data::<f32>().unwrap(), &[0.0, 255.0]);
    }

    #[test]
    fn an_integer_that_does_not_fit_is_refused() {
        assert!(cast(&Tensor::vector(vec![300i64]), DType::U8).is_err());
    }
}
