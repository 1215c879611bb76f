//! Random numbers: RandomUniform, RandomNormal and their likes, Bernoulli, Multinomial.
//!
//! ONNX leaves the generator open. Here number `i` is the `i`-th output of SplitMix64
//! (G. Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014) for the seed, so
//! every run of a model gives the same numbers. The seed is the bits of the attribute `seed`;
//! without it, the 64-bit FNV-1a hash of the node's name.

use super::arith::{expect_rank, floats, from_floats};
use super::numbers::{self, Numbers};
use super::softmax::softmax_line;
use super::{Arity, AttrDef, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::random::Random;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

const BASE: OpDef = OpDef {
    deterministic: false,
    ..OpDef::BASE
};

/// ONNX RandomUniform.
pub static RANDOM_UNIFORM: OpDef = OpDef {
    name: "RandomUniform",
    attrs: &[
        attr("dtype", AttrKind::Int(Some(1))),
        attr("high", AttrKind::Float(Some(1.0))),
        attr("low", AttrKind::Float(Some(0.0))),
        attr("seed", AttrKind::Float(None)),
        attr("shape", AttrKind::Ints),
    ],
    eval: Some(|cx| of_shape(cx, uniform)),
    examples: &["RandomUniform() {shape=[2,3],low=-1.0,seed=3.0}"],
    ..OF_SHAPE
};

/// ONNX RandomNormal.
pub static RANDOM_NORMAL: OpDef = OpDef {
    name: "RandomNormal",
    attrs: &[
        attr("dtype", AttrKind::Int(Some(1))),
        attr("mean", AttrKind::Float(Some(0.0))),
        attr("scale", AttrKind::Float(Some(1.0))),
        attr("seed", AttrKind::Float(None)),
        attr("shape", AttrKind::Ints),
    ],
    eval: Some(|cx| of_shape(cx, normal)),
    examples: &["RandomNormal() {shape=[5],dtype=11}"],
    ..OF_SHAPE
};

/// ONNX RandomUniformLike.
pub static RANDOM_UNIFORM_LIKE: OpDef = OpDef {
    name: "RandomUniformLike",
    attrs: &[
        attr("dtype", AttrKind::Int(None)),
        attr("high", AttrKind::Float(Some(1.0))),
        attr("low", AttrKind::Float(Some(0.0))),
        attr("seed", AttrKind::Float(None)),
    ],
    eval: Some(|cx| like(cx, uniform)),
    examples: &["RandomUniformLike(f16[2,3])"],
    ..LIKE
};

/// ONNX RandomNormalLike.
pub static RANDOM_NORMAL_LIKE: OpDef = OpDef {
    name: "RandomNormalLike",
    attrs: &[
        attr("dtype", AttrKind::Int(None)),
        attr("mean", AttrKind::Float(Some(0.0))),
        attr("scale", AttrKind::Float(Some(1.0))),
        attr("seed", AttrKind::Float(None)),
    ],
    eval: Some(|cx| like(cx, normal)),
    examples: &["RandomNormalLike(i64[2,3]) {dtype=1,mean=4.0,seed=0.5}"],
    ..LIKE
};

/// ONNX Bernoulli.
pub static BERNOULLI: OpDef = OpDef {
    name: "Bernoulli",
    since: &[15, 22],
    attrs: DTYPE_AND_SEED,
    infer: infer_like,
    eval: Some(eval_bernoulli),
    examples: &["Bernoulli(f32[3]{0,0.5,1}) {dtype=9,seed=1.0}"],
    ..BASE
};

/// ONNX Multinomial, of unnormalised logarithms of probabilities.
pub static MULTINOMIAL: OpDef = OpDef {
    name: "Multinomial",
    since: &[7, 22],
    attrs: &[
        attr("dtype", AttrKind::Int(Some(6))),
        attr("sample_size", AttrKind::Int(Some(1))),
        attr("seed", AttrKind::Float(None)),
    ],
    infer: infer_multinomial,
    eval: Some(eval_multinomial),
    examples: &["Multinomial(f32[2,3]) {sample_size=5,dtype=7}"],
    ..BASE
};

const DTYPE_AND_SEED: &[AttrDef] = &[
    attr("dtype", AttrKind::Int(None)),
    attr("seed", AttrKind::Float(None)),
];

const OF_SHAPE: OpDef = OpDef {
    since: &[1, 22],
    inputs: Arity(0, 0),
    infer: |cx| {
        let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(DType::F32);
        let shape = Shape::fixed(&shape(cx.node)?);
        cx.set_tensor(0, Some(dtype), Some(shape));
        Ok(())
    },
    ..BASE
};

const LIKE: OpDef = OpDef {
    since: &[1, 22],
    infer: infer_like,
    ..BASE
};

/// Random numbers of a node by their place, the same for the same `i`.
pub struct Draws(Random);

impl Draws {
    /// The numbers of a node.
    pub fn of(node: &Node) -> Self {
        Self(Random::new(seed(node)))
    }

    /// A number from 0 up to but not including 1.
    pub fn unit(&self, i: u64) -> f64 {
        self.0.after(i).unit()
    }

    /// A number of the standard normal distribution, of two outputs.
    pub fn normal(&self, i: u64) -> f64 {
        self.0.after(i.wrapping_mul(2)).normal()
    }
}

fn seed(node: &Node) -> u64 {
    let name = node.name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    node.float("seed").map_or(name, |s| u64::from(s.to_bits()))
}

fn uniform(cx: &EvalCx, draws: &Draws, i: u64) -> f64 {
    let (low, high) = (cx.float("low", 0.0), cx.float("high", 1.0));
    let (low, high) = (f64::from(low), f64::from(high));
    low + (high - low) * draws.unit(i)
}

fn normal(cx: &EvalCx, draws: &Draws, i: u64) -> f64 {
    let (mean, scale) = (cx.float("mean", 0.0), cx.float("scale", 1.0));
    f64::from(mean) + f64::from(scale) * draws.normal(i)
}

type Draw = fn(&EvalCx, &Draws, u64) -> f64;

fn shape(node: &Node) -> Result<Vec<usize>> {
    let shape = node.ints("shape");
    let shape = shape.ok_or_else(|| Error::invalid("attribute \"shape\" is missing"))?;
    shape.iter().map(|&n| axes::length(n, "a length")).collect()
}

fn filled(cx: &EvalCx, dtype: DType, dims: &[usize], draw: Draw) -> Result<Vec<Tensor>> {
    let draws = Draws::of(cx.node);
    let count = checked_count(dims)? as u64;
    let values = (0..count).map(|i| draw(cx, &draws, i)).collect();
    Ok(vec![from_floats(dtype, dims, values)?])
}

fn of_shape(cx: &EvalCx, draw: Draw) -> Result<Vec<Tensor>> {
    let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(DType::F32);
    filled(cx, dtype, &shape(cx.node)?, draw)
}

fn like(cx: &EvalCx, draw: Draw) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(x.dtype());
    filled(cx, dtype, x.dims(), draw)
}

fn infer_like(cx: &mut InferCx) -> Result<()> {
    let dtype = numbers::dtype(cx.node, "dtype")?.or(cx.dtype(0));
    cx.set_tensor(0, dtype, cx.shape(0).cloned());
    Ok(())
}

fn eval_bernoulli(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(x.dtype());
    let draws = Draws::of(cx.node);
    let chances = floats(x)?.into_iter().zip(0..);
    let drawn = chances.map(|(p, i)| i128::from(draws.unit(i) < p));
    let drawn: Vec<i128> = drawn.collect();
    let numbers = if dtype.is_float() {
        Numbers::Float(drawn.into_iter().map(|v| v as f64).collect())
    } else {
        Numbers::Int(drawn)
    };
    Ok(vec![numbers.tensor(dtype, x.dims())?])
}

fn infer_multinomial(cx: &mut InferCx) -> Result<()> {
    let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(DType::I32);
    let rows = cx.shape(0).and_then(|s| s.first().cloned());
    let samples = axes::length(cx.node.int("sample_size").unwrap_or(1), "sample_size")?;
    let shape = [rows.unwrap_or(Dim::Unknown), Dim::Known(samples)];
    cx.set_tensor(0, Some(dtype), Some(Shape::from_iter(shape)));
    Ok(())
}

fn eval_multinomial(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the input", x, 2..=2)?;
    let (rows, classes) = (x.dims()[0], x.dims()[1]);
    if classes == 0 {
        return Err(Error::invalid("there is no outcome to draw"));
    }
    let samples = axes::length(cx.int("sample_size", 1), "sample_size")?;
    let dims = [rows, samples];
    let mut drawn = Vec::with_capacity(checked_count(&dims)?);
    let draws = Draws::of(cx.node);
    for row in floats(x)?.chunks_mut(classes) {
        softmax_line(row);
        for _ in 0..samples {
            let mut left = draws.unit(drawn.len() as u64);
            let passed = row.iter().take_while(|&&p| {
                left -= p;
                left >= 0.0
            });
            drawn.push(passed.count().min(classes - 1) as i128);
        }
    }
    let dtype = numbers::dtype(cx.node, "dtype")?.unwrap_or(DType::I32);
    Ok(vec![Numbers::Int(drawn).tensor(dtype, &dims)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let draws = Draws(Random::new(7));
        let n = 20_000;
        let moments = |f: &dyn Fn(u64) -> f64| {
            let mean = (0..n).map(f).sum::<f64>() / n as f64;
            let square = (0..n).map(|i| (f(i) - mean).powi(2)).sum::<f64>();
            (mean, square / n as f64)
        };
        let (mean, variance) = moments(&|i| draws.unit(i));
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.003);
        let (mean, variance) = moments(&|i| draws.normal(i));
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_name_is_a_seed_and_a_given_one_wins() {
        let node = |name: &str| Node::new("RandomNormal", name);
        // FNV-1a of "a" by its specification.
        assert_eq!(seed(&node("a")), 0xaf63_dc4c_8601_ec8c);
        let seeded = node("a").with("seed", crate::Attribute::Float(1.0));
        assert_eq!(seed(&seeded), 0x3f80_0000);
    }
}
