//! Which uses of an operator are not quantised, and why.

use edgesmith_ir::{DType, Tensor};

use super::Site;

type Checked = Result<(), String>;

fn require(ok: bool, reason: &str) -> Checked {
    if ok { Ok(()) } else { Err(reason.into()) }
}

fn float_weight<'a>(s: &'a Site) -> Result<&'a Tensor, String> {
    let weight = s.constant(1).ok_or("its weight is computed")?;
    require(weight.dtype() == DType::F32, "its weight is not f32")?;
    Ok(weight)
}

fn constant_bias(s: &Site) -> Checked {
    require(
        s.node.input(2).is_none() || s.constant(2).is_some_and(|t| t.dtype() == DType::F32),
        "its bias is computed",
    )
}

fn activation(s: &Site) -> Checked {
    require(s.constant(0).is_none(), "its input is constant")
}

/// A weight and a bias that are constant.
pub fn conv(s: &Site) -> Checked {
    activation(s)?;
    require(float_weight(s)?.rank() >= 3, "its weight has under 3 axes")?;
    constant_bias(s)
}

/// `x·W + b` or `x·Wᵀ + b` with a bias for each column.
pub fn gemm(s: &Site) -> Checked {
    activation(s)?;
    let weight = float_weight(s)?;
    require(weight.rank() == 2, "its weight has not 2 axes")?;
    require(
        s.node.int("transA").unwrap_or(0) == 0,
        "its input is transposed",
    )?;
    let plain = |name| s.node.float(name).unwrap_or(1.0) == 1.0;
    require(plain("alpha") && plain("beta"), "alpha or beta is not 1")?;
    constant_bias(s)?;
    let columns = weight.dims()[usize::from(s.node.int("transB").unwrap_or(0) == 0)];
    let Some(bias) = s.constant(2) else {
        return Ok(());
    };
    let per_column =
        bias.count() == 1 || (bias.count() == columns && bias.dims().last() == Some(&columns));
    require(per_column, "its bias is not one number a column")
}

/// Two activations, or an activation and a constant matrix.
pub fn matmul(s: &Site) -> Checked {
    activation(s)?;
    let Some(b) = s.constant(1) else {
        return require(s.is_float(1), "its second input is not f32");
    };
    require(
        b.dtype() == DType::F32 && b.rank() >= 2,
        "its constant is no matrix of f32",
    )
}

/// At most one input is constant.
pub fn one_constant(s: &Site) -> Checked {
    let inputs = 0..s.node.inputs().len();
    require(inputs.clone().all(|i| s.is_float(i)), "an input is not f32")?;
    let constants = inputs.filter(|&i| s.constant(i).is_some()).count();
    require(constants < 2, "its inputs are constant")
}

/// Bounds that are constant.
pub fn constant_bounds(s: &Site) -> Checked {
    let constant = |i| s.node.input(i).is_none() || s.constant(i).is_some();
    require(constant(1) && constant(2), "its bounds are computed")
}

/// No second output.
pub fn one_output(s: &Site) -> Checked {
    require(s.node.output(1).is_none(), "its indices are used")
}

/// Padding that is part of the tensor, or zero.
pub fn pad(s: &Site) -> Checked {
    if s.node.string("mode").unwrap_or("constant") != "constant" || s.node.input(2).is_none() {
        return Ok(());
    }
    let zero = s
        .constant(2)
        .and_then(|t| Some(t.to_f32().ok()?.first() == Some(&0.0)));
    require(zero == Some(true), "it pads with another number than 0")
}

/// Interpolation that stays within the range of its input.
pub fn resize(s: &Site) -> Checked {
    require(
        s.node.string("mode") != Some("cubic"),
        "cubic interpolation leaves the range",
    )?;
    let mode = s.node.string("coordinate_transformation_mode");
    require(
        mode != Some("tf_crop_and_resize"),
        "it fills with a number of its own",
    )
}
