//! Adagrad, Adam and Momentum of ai.onnx.preview.training: one step of training as a node.

use super::arith::{expect_dims, floats, from_floats};
use super::numbers;
use super::{Arity, AttrKind, MANY, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{Error, Result, Tensor};

const BASE: OpDef = OpDef {
    domain: "ai.onnx.preview.training",
    inputs: Arity(3, MANY),
    outputs: Arity(1, MANY),
    ..OpDef::BASE
};

/// Adagrad (J. Duchi et al., 2011).
pub static ADAGRAD: OpDef = OpDef {
    name: "Adagrad",
    attrs: &[
        attr("decay_factor", AttrKind::Float(Some(0.0))),
        attr("epsilon", AttrKind::Float(Some(1e-6))),
        attr("norm_coefficient", AttrKind::Float(Some(0.0))),
    ],
    infer: |cx| infer(cx, 3),
    eval: Some(|cx| step(cx, 3, |s, v| adagrad(cx, s, v))),
    examples: &[
        "ai.onnx.preview.training.Adagrad(f32[]{0.1}, i64[]{1}, f32[2], f32[3], f32[2], \
         f32[3], f32[2]{1,2}, f32[3]{1,0,3}) {norm_coefficient=0.01} -> 4",
    ],
    ..BASE
};

/// Adam (D. Kingma and J. Ba, 2014).
pub static ADAM: OpDef = OpDef {
    name: "Adam",
    attrs: &[
        attr("alpha", AttrKind::Float(Some(0.9))),
        attr("beta", AttrKind::Float(Some(0.999))),
        attr("epsilon", AttrKind::Float(Some(1e-6))),
        attr("norm_coefficient", AttrKind::Float(Some(0.0))),
        attr("norm_coefficient_post", AttrKind::Float(Some(0.0))),
    ],
    infer: |cx| infer(cx, 4),
    eval: Some(|cx| step(cx, 4, |s, v| adam(cx, s, v))),
    examples: &[
        "ai.onnx.preview.training.Adam(f32[]{0.1}, i64[]{2}, f32[2,2], f32[2,2], \
         f32[2,2], f32[2,2]{1,2,3,4}) {norm_coefficient_post=0.01} -> 3",
    ],
    ..BASE
};

/// Stochastic gradient descent with momentum, plain or Nesterov's.
pub static MOMENTUM: OpDef = OpDef {
    name: "Momentum",
    attrs: &[
        attr("alpha", AttrKind::Float(None)),
        attr("beta", AttrKind::Float(None)),
        attr("mode", AttrKind::String(None)),
        attr("norm_coefficient", AttrKind::Float(None)),
    ],
    infer: |cx| infer(cx, 3),
    eval: Some(|cx| step(cx, 3, |s, v| momentum(cx, s, v))),
    examples: &[
        "ai.onnx.preview.training.Momentum(f32[]{0.1}, i64[]{1}, f64[2], f64[2], f64[2]) \
         {alpha=0.9,beta=1.0,norm_coefficient=0.001,mode=\"nesterov\"} -> 2",
    ],
    ..BASE
};

/// Outputs are typed like the tensor, then like its states; the gradients come back as none.
fn infer(cx: &mut InferCx, parts: usize) -> Result<()> {
    let n = count(cx.inputs(), parts)?;
    for o in 0..cx.node.outputs().len().min(n * (parts - 1)) {
        let i = 2 + if o < n { o } else { o + n };
        if let Some(ty) = cx.ty(i).cloned() {
            cx.set(o, ty);
        }
    }
    Ok(())
}

/// How many tensors are trained, each of which has `parts` inputs behind the first two.
fn count(inputs: usize, parts: usize) -> Result<usize> {
    let rest = inputs.saturating_sub(2);
    if rest > 0 && rest.is_multiple_of(parts) {
        return Ok(rest / parts);
    }
    Err(Error::invalid(format!(
        "expected {parts} inputs for each tensor, found {rest}"
    )))
}

/// Learning rate and number of earlier updates.
#[derive(Clone, Copy)]
struct Schedule {
    rate: f64,
    updates: f64,
}

/// One element: its value, gradient and states, as many as the optimizer has.
type Element = [f64; 4];

fn step(
    cx: &EvalCx,
    parts: usize,
    update: impl Fn(Schedule, &mut Element) -> Result<()>,
) -> Result<Vec<Tensor>> {
    let n = count(cx.inputs(), parts)?;
    let schedule = Schedule {
        rate: numbers::real(cx.input(0)?)?,
        updates: axes::scalar(cx.input(1)?)? as f64,
    };
    let mut out: Vec<Vec<Tensor>> = vec![Vec::new(); parts];
    for i in 0..n {
        let x = cx.input(2 + i)?;
        let mut data = Vec::with_capacity(parts);
        for part in 0..parts {
            let t = cx.input(2 + part * n + i)?;
            expect_dims("a gradient or state", t, x.dims())?;
            data.push(floats(t)?);
        }
        for at in 0..x.count() {
            let mut element = [0.0; 4];
            for (e, part) in element.iter_mut().zip(&data) {
                *e = part[at];
            }
            update(schedule, &mut element)?;
            for (e, part) in element.iter().zip(&mut data) {
                part[at] = *e;
            }
        }
        for (part, data) in data.into_iter().enumerate() {
            let dtype = cx.input(2 + part * n + i)?.dtype();
            out[part].push(from_floats(dtype, x.dims(), data)?);
        }
    }
    out.remove(1);
    Ok(out.concat())
}

fn float(cx: &EvalCx, name: &str, default: f32) -> f64 {
    cx.float(name, default).into()
}

fn adagrad(cx: &EvalCx, s: Schedule, [x, gradient, squares, _]: &mut Element) -> Result<()> {
    let rate = s.rate / (1.0 + s.updates * float(cx, "decay_factor", 0.0));
    let g = float(cx, "norm_coefficient", 0.0) * *x + *gradient;
    *squares += g * g;
    *x -= rate * g / (squares.sqrt() + float(cx, "epsilon", 1e-6));
    Ok(())
}

fn adam(cx: &EvalCx, s: Schedule, [x, gradient, mean, squares]: &mut Element) -> Result<()> {
    let (alpha, beta) = (float(cx, "alpha", 0.9), float(cx, "beta", 0.999));
    let g = float(cx, "norm_coefficient", 0.0) * *x + *gradient;
    *mean = alpha * *mean + (1.0 - alpha) * g;
    *squares = beta * *squares + (1.0 - beta) * g * g;
    let rate = if s.updates > 0.0 {
        s.rate * (1.0 - beta.powf(s.updates)).sqrt() / (1.0 - alpha.powf(s.updates))
    } else {
        s.rate
    };
    *x -= rate * *mean / (squares.sqrt() + float(cx, "epsilon", 1e-6));
    *x *= 1.0 - float(cx, "norm_coefficient_post", 0.0);
    Ok(())
}

fn momentum(cx: &EvalCx, s: Schedule, [x, gradient, speed, _]: &mut Element) -> Result<()> {
    let given = |name: &str| {
        let value = cx.node.float(name).map(f64::from);
        value.ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is missing")))
    };
    let alpha = given("alpha")?;
    let beta = if s.updates > 0.0 { given("beta")? } else { 1.0 };
    let g = given("norm_coefficient")? * *x + *gradient;
    *speed = alpha * *speed + beta * g;
    *x -= s.rate
        * match cx.node.string("mode") {
            Some("standard") => *speed,
            Some("nesterov") => g + alpha * *speed,
            _ => return Err(Error::invalid("the mode is neither standard nor nesterov")),
        };
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    /// The outputs of one node of ai.onnx.preview.training on the scalars `inputs`.
    fn step(node: &str, inputs: &[f64], updates: i64) -> Vec<f64> {
        let values = inputs.iter().enumerate();
        let constants = values.map(|(i, v)| format!("v{i}: f64[1] = {{{v:?}}}\n"));
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("v{i}")).collect();
        let outs: Vec<String> = (0..inputs.len() - 1).map(|i| format!("y{i}")).collect();
        let model = parse(&format!(
            "opset 20 opset \"ai.onnx.preview.training\" 1 graph g() -> ({}) {{
            r: f64[] = {{0.1}} t: i64[] = {{{updates}}}
            {} {} = ai.onnx.preview.training.{} }}",
            outs.join(", "),
            constants.collect::<String>(),
            outs.join(", "),
            node.replace('@', &names.join(", "))
        ));
        let out = eval::evaluate(&model.unwrap(), &[]).unwrap();
        out.iter().map(|t| t.data::<f64>().unwrap()[0]).collect()
    }

    #[test]
    fn steps_follow_their_formulas() {
        // By numpy from the pseudo code of ONNX.
        let adam = "Adam(r, t, @) {alpha=0.9,beta=0.99,epsilon=0.01,norm_coefficient=0.1,\
                    norm_coefficient_post=0.2}";
        let adagrad = "Adagrad(r, t, @) {norm_coefficient=0.001,epsilon=0.00001,decay_factor=0.1}";
        let plain = "Momentum(r, t, @) {alpha=0.95,beta=0.85,norm_coefficient=0.01,\
                     mode=\"standard\"}";
        let nesterov = plain.replace("standard", "nesterov");
        for (node, inputs, updates, expected) in [
            (
                adam,
                &[1.2, -0.5, 1.7, 0.1][..],
                2,
                &[0.688_931_98, 1.492, 0.100_444][..],
            ),
            (adagrad, &[1.0, -1.0, 2.0], 1, &[1.052_451_08, 2.998_001]),
            (plain, &[1.2, -0.94, 1.7], 0, &[1.1313, 0.687]),
            (plain, &[1.2, -0.94, 1.7], 1, &[1.117_38, 0.8262]),
            (&nesterov, &[1.2, -0.94, 1.7], 0, &[1.227_535, 0.687]),
        ] {
            let found = step(node, inputs, updates);
            assert_eq!(found.len(), expected.len());
            for (y, e) in found.iter().zip(expected) {
                assert!((y - e).abs() < 1e-6, "{node}: {y}, expected {e}");
            }
        }
    }
}
