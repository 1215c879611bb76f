//! Dropout: the input, of which elements are dropped in training.

use super::arith::{floats, from_floats};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{DType, Error, Result, Tensor};

/// ONNX Dropout. In training, element `i` stays where the `i`-th number of the Mersenne Twister
/// for the attribute `seed` (0 where it is left out) is at least the ratio, as in ONNX's own
/// tests; what stays is divided by the part that stays.
pub static DROPOUT: OpDef = OpDef {
    name: "Dropout",
    since: &[1, 6, 7, 10, 12, 13, 22],
    inputs: Arity(1, 3),
    outputs: Arity(1, 2),
    attrs: &[
        attr("is_test", AttrKind::Int(None)),
        attr("ratio", AttrKind::Float(None)),
        attr("seed", AttrKind::Int(None)),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Dropout(f32[2,3])",
        "Dropout(f16[2,3], f32[]{0.25}, bool[]{true}) {seed=3} -> 2",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    infer::like_first(cx)?;
    let mask = if cx.version < 10 {
        cx.dtype(0)
    } else {
        Some(DType::Bool)
    };
    let shape = cx.shape(0).cloned();
    cx.set_tensor(1, mask, shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let training = match cx.optional(2).filter(|_| cx.version >= 12) {
        Some(t) => t.bools()?.first() == Some(&true),
        None => false,
    };
    let ratio = match cx.optional(1) {
        Some(t) => floats(t)?.first().copied().unwrap_or(0.5),
        None => f64::from(cx.float("ratio", 0.5)),
    };
    if training && ratio != 0.0 {
        return drop(cx, x, ratio);
    }
    let mask = if cx.version < 10 {
        from_floats(x.dtype(), x.dims(), vec![1.0; x.count()])?
    } else {
        Tensor::from_bools(x.dims(), &vec![true; x.count()])?
    };
    Ok(vec![x.clone(), mask])
}

fn drop(cx: &EvalCx, x: &Tensor, ratio: f64) -> Result<Vec<Tensor>> {
    if !(0.0..1.0).contains(&ratio) {
        let message = format!("the ratio {ratio} is not from 0 to under 1");
        return Err(Error::invalid(message));
    }
    // The generator takes the low 32 bits of the seed.
    let mut numbers = Twister::new(cx.int("seed", 0) as u32);
    let mask: Vec<bool> = (0..x.count()).map(|_| numbers.unit() >= ratio).collect();
    let kept = |(x, &stays): (f64, &bool)| if stays { x / (1.0 - ratio) } else { 0.0 };
    let data = floats(x)?.into_iter().zip(&mask).map(kept).collect();
    Ok(vec![
        from_floats(x.dtype(), x.dims(), data)?,
        Tensor::from_bools(x.dims(), &mask)?,
    ])
}

const STATE: usize = 624;

/// MT19937: M. Matsumoto and T. Nishimura, "Mersenne Twister", 1998, with the seeding of 2002.
struct Twister {
    state: [u32; STATE],
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let before = state[i - 1];
            let mixed = before ^ (before >> 30);
            state[i] = mixed.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: STATE }
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 1 << 31) | (self.state[(i + 1) % STATE] & !(1 << 31));
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// From 0 to under 1, in steps of 2^-53.
    fn unit(&mut self) -> f64 {
        let high = f64::from(self.word() >> 5);
        let low = f64::from(self.word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut numbers = Twister::new(5489);
        let last = (0..10_000).map(|_| numbers.word()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
