//! The activation functions of recurrent operators, each with its derivative.

use crate::eval::EvalCx;
use crate::ops::unary::{sigmoid, softplus};
use crate::{Attribute, Error, Result};

/// A function of (x, α, β).
type Of = fn(f64, f64, f64) -> f64;

/// An activation function by ONNX's name, with its parameters.
#[derive(Clone, Copy)]
pub struct Function {
    f: Of,
    slope: Of,
    alpha: f64,
    beta: f64,
}

impl Function {
    /// Its value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        (self.f)(x, self.alpha, self.beta)
    }

    /// Its derivative at `x`; at a kink one of the two that meet there.
    pub fn slope(&self, x: f64) -> f64 {
        (self.slope)(x, self.alpha, self.beta)
    }

    /// The function of that name, in lower case, with its default parameters.
    pub fn named(name: &str) -> Option<Self> {
        let row = FUNCTIONS.iter().find(|r| r.name == name)?;
        Some(row.function)
    }
}

/// A row of the list.
struct Row {
    name: &'static str,
    function: Function,
}

const fn row(name: &'static str, [alpha, beta]: [f64; 2], f: Of, slope: Of) -> Row {
    let function = Function {
        f,
        slope,
        alpha,
        beta,
    };
    Row { name, function }
}

/// Name, default α and β, function, derivative.
static FUNCTIONS: &[Row] = &[
    row("affine", [1.0, 0.0], |x, a, b| a * x + b, |_, a, _| a),
    row(
        "elu",
        [1.0, 0.0],
        |x, a, _| if x < 0.0 { a * x.exp_m1() } else { x },
        |x, a, _| if x < 0.0 { a * x.exp() } else { 1.0 },
    ),
    row(
        "hardsigmoid",
        [0.2, 0.5],
        |x, a, b| (a * x + b).clamp(0.0, 1.0),
        |x, a, b| {
            let inside = (0.0..=1.0).contains(&(a * x + b));
            if inside { a } else { 0.0 }
        },
    ),
    row(
        "leakyrelu",
        [0.01, 0.0],
        |x, a, _| if x < 0.0 { a * x } else { x },
        |x, a, _| if x < 0.0 { a } else { 1.0 },
    ),
    row(
        "relu",
        [0.0, 0.0],
        |x, _, _| x.max(0.0),
        |x, _, _| if x > 0.0 { 1.0 } else { 0.0 },
    ),
    row(
        "scaledtanh",
        [1.0, 1.0],
        |x, a, b| a * (b * x).tanh(),
        |x, a, b| a * b * (1.0 - (b * x).tanh().powi(2)),
    ),
    row(
        "sigmoid",
        [0.0, 0.0],
        |x, _, _| sigmoid(x),
        |x, _, _| sigmoid(x) * (1.0 - sigmoid(x)),
    ),
    row(
        "softplus",
        [0.0, 0.0],
        |x, _, _| softplus(x),
        |x, _, _| sigmoid(x),
    ),
    row(
        "softsign",
        [0.0, 0.0],
        |x, _, _| x / (1.0 + x.abs()),
        |x, _, _| (1.0 + x.abs()).powi(-2),
    ),
    row(
        "tanh",
        [0.0, 0.0],
        |x, _, _| x.tanh(),
        |x, _, _| 1.0 - x.tanh().powi(2),
    ),
    row(
        "thresholdedrelu",
        [1.0, 0.0],
        |x, a, _| if x > a { x } else { 0.0 },
        |x, a, _| if x > a { 1.0 } else { 0.0 },
    ),
];

/// The functions of all directions of a node, in order; `defaults` are those of one.
///
/// # Errors
/// When the node names another number of functions, or one that is not known.
pub fn functions(cx: &EvalCx, defaults: &[&str], directions: usize) -> Result<Vec<Function>> {
    let count = defaults.len() * directions;
    let names: Vec<String> = match cx.node.attribute("activations") {
        Some(Attribute::Strings(v)) if !v.is_empty() => v
            .iter()
            .map(|s| String::from_utf8_lossy(s).to_lowercase())
            .collect(),
        _ => (0..count)
            .map(|i| defaults[i % defaults.len()].to_lowercase())
            .collect(),
    };
    if names.len() != count {
        return Err(Error::invalid(format!(
            "expected {count} activations, found {}",
            names.len()
        )));
    }
    let parameter = |list: &str, i: usize| cx.node.floats(list).and_then(|v| v.get(i).copied());
    let find = |(i, name): (usize, &String)| {
        let function = Function::named(name)
            .ok_or_else(|| Error::invalid(format!("activation \"{name}\" is unknown")))?;
        Ok(Function {
            alpha: parameter("activation_alpha", i).map_or(function.alpha, f64::from),
            beta: parameter("activation_beta", i).map_or(function.beta, f64::from),
            ..function
        })
    };
    names.iter().enumerate().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_equal_central_differences() {
        for row in FUNCTIONS {
            for x in [-2.7, -0.6, 0.3, 1.4, 2.9] {
                let f = row.function;
                let expected = (f.at(x + 1e-5) - f.at(x - 1e-5)) / 2e-5;
                let found = f.slope(x);
                assert!(
                    (found - expected).abs() < 1e-8,
                    "{} at {x}: {found} and not {expected}",
                    row.name
                );
            }
        }
    }
}
