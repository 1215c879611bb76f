//! Functions of one number: of bytes by a table of 256, of floats by a kernel.

use edgesmith_ir::eval::{EvalCx, evaluate_tensors, items};
use edgesmith_ir::{Error, NodeId, Result, Tensor, ValueId};

use super::quantize::Lookup;
use super::{Call, c_float};
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::{Bounds, Held, Lowering};
use crate::program::{Data, Element, Grid, Layer};

/// A function of floats.
pub(super) struct Unary {
    kernel: &'static str,
    /// Further numbers that the kernel takes.
    numbers: Vec<f32>,
    count: usize,
    eval: fn(f32, &[f32]) -> f32,
}

/// Kernels of floats by operator, with what they compute.
type Float = (&'static str, &'static str, fn(f32, &[f32]) -> f32);

static FLOATS: &[Float] = &[
    ("Abs", "abs_f32", |x, _| x.abs()),
    ("Ceil", "ceil_f32", |x, _| x.ceil()),
    ("Clip", "clip_f32", |x, n| x.max(n[0]).min(n[1])),
    ("Elu", "elu_f32", elu),
    ("Erf", "erf_f32", |x, _| erf(x)),
    ("Exp", "exp_f32", |x, _| x.exp()),
    ("Floor", "floor_f32", |x, _| x.floor()),
    ("Gelu", "gelu_f32", |x, _| {
        0.5 * x * (1.0 + erf(x / std::f32::consts::SQRT_2))
    }),
    ("HardSigmoid", "hardsigmoid_f32", |x, n| {
        (n[0] * x + n[1]).clamp(0.0, 1.0)
    }),
    ("HardSwish", "hardswish_f32", |x, _| {
        x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
    }),
    (
        "LeakyRelu",
        "leaky_f32",
        |x, n| {
            if x < 0.0 { n[0] * x } else { x }
        },
    ),
    ("Log", "log_f32", |x, _| x.ln()),
    ("Neg", "neg_f32", |x, _| -x),
    ("Reciprocal", "reciprocal_f32", |x, _| 1.0 / x),
    ("Relu", "clip_f32", |x, n| x.max(n[0]).min(n[1])),
    ("Selu", "elu_f32", elu),
    ("Sigmoid", "sigmoid_f32", |x, _| 1.0 / (1.0 + (-x).exp())),
    (
        "Sign",
        "sign_f32",
        |x, _| {
            if x == 0.0 { x } else { x.signum() }
        },
    ),
    ("Softplus", "softplus_f32", |x, _| {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }),
    ("Softsign", "softsign_f32", |x, _| x / (1.0 + x.abs())),
    ("Sqrt", "sqrt_f32", |x, _| x.sqrt()),
    ("Tanh", "tanh_f32", |x, _| x.tanh()),
];

/// `scale * x`, or `scale * alpha * (e^x - 1)` below 0.
fn elu(x: f32, n: &[f32]) -> f32 {
    n[1] * if x < 0.0 { n[0] * x.exp_m1() } else { x }
}

/// The error function: Abramowitz and Stegun 7.1.26 is too coarse, so its series and continued fraction
/// in f64.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    let a = x.abs();
    let value = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..80 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + fraction)
    };
    (value * x.signum()) as f32
}

/// A function of one number.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    let tail = l.tail(y);
    if let (Some(from), Some(to)) = (l.grid(&x), tail.grid) {
        let layer = table(l, id, from, to, tail.bounds, x.dims.iter().product())?;
        let made = like(l, &x, tail.value, Element::I8, Some(to));
        l.step(id, &[&x], &made, layer);
        l.finish(&tail, made);
        return Ok(());
    }
    let x = l.float(&x)?;
    let layer = floats(l, id, x.dims.iter().product())?;
    let made = like(l, &x, y, Element::F32, None);
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// A buffer for `v` in the order of `x`.
pub(super) fn like(
    l: &mut Lowering,
    x: &Held,
    v: ValueId,
    element: Element,
    grid: Option<Grid>,
) -> Held {
    let name = l.graph.value(v).name.clone();
    let mut made = l.buffer(&name, element, &x.dims, grid);
    made.order.clone_from(&x.order);
    made
}

/// The node's function of every byte, by the reference evaluation.
fn table(
    l: &Lowering,
    id: NodeId,
    from: Grid,
    to: Grid,
    bounds: Bounds,
    count: usize,
) -> Result<Lookup> {
    let node = l.graph.node(id);
    let numbers: Vec<f32> = (-128..=127).map(|q| from.number(q)).collect();
    let mut inputs = vec![Some(Tensor::vector(numbers))];
    for v in node.inputs().iter().skip(1) {
        inputs.push(match v {
            None => None,
            Some(v) => Some(
                l.float_constant(*v)
                    .filter(|t| t.count() <= 1)
                    .ok_or_else(|| {
                        Error::unsupported(
                            "an input behind the first is computed, or several numbers",
                        )
                    })?,
            ),
        });
    }
    let inputs = items(inputs);
    let made = evaluate_tensors(&EvalCx::new(l.model, node, &inputs))?;
    let made = made
        .first()
        .ok_or_else(|| Error::internal("a function gives nothing"))?;
    let made = made.to_f32()?;
    let (lo, hi) = bounds.bytes(to);
    Ok(Lookup::of(count, |q| {
        let y = to.integer(made[(i32::from(q) + 128) as usize]);
        i32::from(y).clamp(lo, hi) as i8
    }))
}

impl Unary {
    /// Numbers between bounds.
    pub fn clip(bounds: Bounds, count: usize) -> Self {
        Self {
            kernel: "clip_f32",
            numbers: vec![bounds.lo, bounds.hi],
            count,
            eval: |x, n| x.max(n[0]).min(n[1]),
        }
    }
}

fn floats(l: &Lowering, id: NodeId, count: usize) -> Result<Unary> {
    let node = l.graph.node(id);
    let &(_, kernel, eval) = FLOATS.iter().find(|f| node.op == f.0).ok_or_else(|| {
        Error::unsupported(format!("{} has no emitter for floats", node.op))
            .hint("quantised to int8 it has one: a table")
    })?;
    if node.string("approximate").is_some_and(|a| a != "none") {
        return Err(Error::unsupported("Gelu by tanh has no emitter for floats"));
    }
    let numbers = match node.op.as_str() {
        "Relu" | "Clip" => {
            let (lo, hi) = l
                .clamp(id)
                .ok_or_else(|| Error::unsupported("its bounds are computed"))?;
            vec![lo, hi]
        }
        "HardSigmoid" => vec![
            node.float("alpha").unwrap_or(0.2),
            node.float("beta").unwrap_or(0.5),
        ],
        "Elu" => vec![node.float("alpha").unwrap_or(1.0), 1.0],
        "Selu" => vec![
            node.float("alpha").unwrap_or(1.673_263_2),
            node.float("gamma").unwrap_or(1.050_701),
        ],
        "LeakyRelu" => vec![node.float("alpha").unwrap_or(0.01)],
        _ => Vec::new(),
    };
    Ok(Unary {
        kernel,
        numbers,
        count,
        eval,
    })
}

impl Layer for Unary {
    fn kernel(&self) -> &'static str {
        self.kernel
    }

    fn emit(&self, call: &mut Call) -> String {
        let f = call.kernel(self.kernel);
        let numbers: String = self
            .numbers
            .iter()
            .map(|&n| format!(", {}", c_float(n)))
            .collect();
        format!(
            "{f}({}, {}{numbers}, {});",
            self.count, call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32().iter();
        *write = Data::F32(x.map(|&x| (self.eval)(x, &self.numbers)).collect());
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        Some(Overlap::Behind(0))
    }
}
