//! Weights that were made smaller beside what they were: read from a model, dequantised, compared.

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, Graph, Result, Tensor};

/// A constant of smaller numbers, each close to the number that it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The name of the constant with the smaller numbers.
    pub constant: String,
    /// The name of the constant with its scales, where it has any.
    pub scale: Option<String>,
    /// The name of the constant with its zero points, where they are not 0.
    pub zero: Option<String>,
    /// The axis of scales and zero points; `None` where there is one for all.
    pub axis: Option<usize>,
    /// The largest magnitude of an integer, where that is not all that its type has.
    pub limit: Option<i32>,
    /// Each number is the nearest to the one that it stands for; otherwise one of both beside it.
    pub is_nearest: bool,
    /// The nodes that read it, as they are called in the model before.
    pub nodes: Vec<String>,
    /// What it was made from.
    pub float: Tensor,
}

impl Source {
    /// Floats of fewer bits, without scales.
    pub fn narrow(constant: &str, node: &str, float: Tensor) -> Self {
        Self {
            constant: constant.into(),
            scale: None,
            zero: None,
            axis: None,
            limit: None,
            is_nearest: true,
            nodes: vec![node.into()],
            float,
        }
    }

    /// Adds a node that reads it.
    pub fn read_by(&mut self, node: &str) {
        if !self.nodes.iter().any(|n| n == node) {
            self.nodes.push(node.into());
        }
    }
}

/// A weight as it is in a model, and how far it is from what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The name of the constant.
    pub constant: String,
    /// The nodes that read it, as they are called in the model before.
    pub nodes: Vec<String>,
    /// Signal to noise of the numbers, in dB; ∞ where nothing differs.
    pub sqnr_db: f64,
    /// Numbers that are further away than half a step, because the type ends there.
    pub saturated: u64,
}

/// Dequantises the weights of `graph` and compares them with what they were. One that a later step
/// put in another form, so that no constant of its name and shape is there, is left out.
///
/// # Errors
/// An internal one when a number lies further than half a step from the one that it stands for, or
/// a step where it need not be the nearest,
/// and not at the end of what its type has.
pub fn compare(graph: &Graph, sources: &[Source]) -> Result<Vec<Compared>> {
    let mut all = Vec::new();
    for source in sources {
        let place = || format!("weight \"{}\"", source.constant);
        if let Some(weight) = Weight::of(graph, source).at(place)? {
            all.push(weight.compare(source).at(place)?);
        }
    }
    Ok(all)
}

/// How far apart neighbours of a type are.
#[derive(Clone, Copy)]
enum Spacing {
    /// One code, from the first to the second.
    Even(f64, f64),
    /// Floats: half the distance in parts of the power of two below the number, half the least
    /// distance, the largest number.
    Float(f64, f64, f64),
}

impl Spacing {
    fn of(dtype: DType, limit: Option<i32>) -> Option<Self> {
        let even = |low: i32, high: i32| Self::Even(f64::from(low), f64::from(high));
        let float = |digits: i32, least: i32, most: f64| {
            Self::Float(
                f64::exp2(-f64::from(digits)),
                f64::exp2(f64::from(least - 1)),
                most,
            )
        };
        Some(match (dtype, limit) {
            (DType::I8 | DType::I16 | DType::I4, Some(limit)) => even(-limit, limit),
            (DType::I4, None) => even(-8, 7),
            (DType::U4, None) => even(0, 15),
            (DType::I8, None) => even(-128, 127),
            (DType::U8, None) => even(0, 255),
            (DType::I16, None) => even(-32768, 32767),
            (DType::U16, None) => even(0, 65535),
            (DType::F16, _) => float(11, -24, 65504.0),
            (DType::BF16, _) => float(8, -133, f64::from(half::bf16::MAX.to_f32())),
            (DType::F8E4M3FN, _) => float(4, -9, 448.0),
            (DType::F8E5M2, _) => float(3, -16, 57344.0),
            _ => return None,
        })
    }
}

/// The smaller numbers, with their grid.
struct Weight {
    numbers: Vec<f32>,
    scale: Vec<f32>,
    zero: Vec<f32>,
    /// Numbers that share a scale lie so many in a row.
    inner: usize,
    spacing: Spacing,
}

impl Weight {
    /// `None` where the constant is not there as it was written.
    fn of(graph: &Graph, source: &Source) -> Result<Option<Self>> {
        let find = |name: &str| graph.find_value(name).and_then(|v| graph.constant(v));
        let found = |name: &Option<String>| match name {
            None => Some(None),
            Some(name) => find(name).map(Some),
        };
        let (Some(t), Some(scale), Some(zero)) = (
            find(&source.constant),
            found(&source.scale),
            found(&source.zero),
        ) else {
            return Ok(None);
        };
        let dims = source.float.dims();
        if t.dims() != dims {
            return Ok(None);
        }
        let spacing = Spacing::of(t.dtype(), source.limit);
        let spacing = spacing.ok_or_else(|| {
            Error::internal(format!(
                "it is not known how far numbers of {} are apart",
                t.dtype()
            ))
        })?;
        let lanes = source.axis.map_or(1, |a| dims[a]);
        let of_lanes = |t: Option<&Tensor>, none: f32| match t {
            None => Ok(vec![none; lanes]),
            Some(t) => {
                let numbers = numbers(t)?;
                match numbers.len() {
                    1 => Ok(vec![numbers[0]; lanes]),
                    n if n == lanes => Ok(numbers),
                    n => Err(Error::internal(format!("{n} scales for {lanes} channels"))),
                }
            }
        };
        Ok(Some(Self {
            numbers: numbers(t)?,
            scale: of_lanes(scale, 1.0)?,
            zero: of_lanes(zero, 0.0)?,
            inner: source
                .axis
                .map_or(dims.iter().product(), |a| dims[a + 1..].iter().product()),
            spacing,
        }))
    }

    fn compare(&self, source: &Source) -> Result<Compared> {
        let (mut signal, mut noise, mut saturated) = (0.0, 0.0, 0);
        let (floats, inner) = (source.float.to_f32()?, self.inner.max(1));
        let rows = floats.chunks(inner).zip(self.numbers.chunks(inner));
        for (row, (floats, numbers)) in rows.enumerate() {
            let lane = row % self.scale.len();
            let (scale, zero) = (f64::from(self.scale[lane]), f64::from(self.zero[lane]));
            for (i, (&w, &q)) in floats.iter().zip(numbers).enumerate() {
                let (w, q) = (f64::from(w), f64::from(q) - zero);
                if !w.is_finite() {
                    continue;
                }
                match fit(w / scale, q, self.spacing, zero, source.is_nearest) {
                    Fit::Near => {}
                    Fit::End => saturated += 1,
                    Fit::Far => {
                        return Err(Error::internal(format!(
                            "number {} was {w:e} and is {:e}, further away than {} step",
                            row * inner + i,
                            q * scale,
                            if source.is_nearest { "half a" } else { "a" }
                        )));
                    }
                }
                signal += w * w;
                noise += (w - q * scale).powi(2);
            }
        }
        Ok(Compared {
            constant: source.constant.clone(),
            nodes: source.nodes.clone(),
            sqnr_db: match noise {
                0.0 => f64::INFINITY,
                _ => 10.0 * (signal / noise).log10(),
            },
            saturated,
        })
    }
}

/// Where a number is, seen from the one that it stands for.
enum Fit {
    Near,
    End,
    Far,
}

/// Both numbers in steps: the one that was, and the one that is. Divisions by scales are done in
/// f32, so that halves may fall to either side by its last digit.
fn fit(was: f64, is: f64, spacing: Spacing, zero: f64, is_nearest: bool) -> Fit {
    let slack = was.abs() * f64::from(f32::EPSILON);
    let (half, low, high) = match spacing {
        Spacing::Even(low, high) => (0.5, low - zero, high - zero),
        Spacing::Float(share, least, most) => ((binade(was) * share).max(least), -most, most),
    };
    // NaN and infinity are near to nothing finite.
    let apart = if is_nearest { half } else { 2.0 * half };
    if (was - is).abs() <= apart + slack {
        return Fit::Near;
    }
    match (was > is && is == high) || (was < is && is == low) {
        true => Fit::End,
        false => Fit::Far,
    }
}

/// The largest power of two that is not above the magnitude of `x`.
fn binade(x: f64) -> f64 {
    f64::from_bits(x.abs().to_bits() & 0x7FF0_0000_0000_0000)
}

/// Numbers of any type that weights have.
fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    use edgesmith_ir::packed::{decode_floats, decode_integers, is_packed};
    match t.dtype() {
        DType::I4 | DType::U4 => Ok(decode_integers(t)?.into_iter().map(f32::from).collect()),
        dtype if is_packed(dtype) => decode_floats(t),
        _ => Ok(t.to_f32()?.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Rows of −1.27..1.27 in steps of 0.01, and a number beyond them.
    const FLOATS: [f32; 6] = [-1.27, 0.004, 0.016, 0.9, 1.27, 1.5];
    const CODES: [i8; 6] = [-127, 0, 2, 90, 127, 127];

    fn graph(codes: &[i8], scale: f32) -> Graph {
        let mut graph = Graph::new("g");
        let codes = Tensor::from_vec(&[2, 3], codes.to_vec()).unwrap();
        graph.add_constant("w_q", codes);
        graph.add_constant("w_scale", Tensor::vector(vec![0.01f32, scale]));
        graph
    }

    fn source() -> Source {
        Source {
            scale: Some("w_scale".into()),
            axis: Some(0),
            limit: Some(127),
            ..Source::narrow(
                "w_q",
                "m",
                Tensor::from_vec(&[2, 3], FLOATS.to_vec()).unwrap(),
            )
        }
    }

    #[test]
    fn half_a_step_is_near_and_the_end_saturates() {
        let found = compare(&graph(&CODES, 0.01), &[source()]).unwrap();
        assert_eq!(
            (found[0].saturated, &found[0].nodes[..]),
            (1, &["m".to_owned()][..])
        );
        let noise = 2.0 * 0.004f64.powi(2) + 0.23f64.powi(2);
        let signal: f64 = FLOATS.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((found[0].sqnr_db - 10.0 * (signal / noise).log10()).abs() < 1e-3);
    }

    #[test]
    fn a_wrong_code_or_scale_is_a_fault() {
        let mut codes = CODES;
        codes[1] = 1;
        let fault = compare(&graph(&codes, 0.01), &[source()])
            .unwrap_err()
            .to_string();
        assert!(fault.contains("weight \"w_q\": number 1 was"), "{fault}");
        assert!(compare(&graph(&CODES, 0.011), &[source()]).is_err());
        // The end of seven bits is not where that of eight is.
        let limited = Source {
            limit: Some(63),
            ..source()
        };
        assert!(compare(&graph(&CODES, 0.01), &[limited]).is_err());
    }

    #[test]
    fn what_need_not_be_the_nearest_is_one_of_both_beside_it() {
        let beside = Source {
            is_nearest: false,
            ..source()
        };
        // 0.4, 1.6 and 90 steps.
        for (at, code, fits) in [
            (1, 1, true),
            (1, -1, false),
            (2, 1, true),
            (2, 3, false),
            (3, 91, true),
            (3, 92, false),
        ] {
            let mut codes = CODES;
            codes[at] = code;
            let found = compare(&graph(&codes, 0.01), std::slice::from_ref(&beside));
            assert_eq!(found.is_ok(), fits, "{at} {code}");
        }
    }

    #[test]
    fn what_a_later_step_put_in_another_form_is_left_out() {
        let other = Source {
            constant: "w_packed".into(),
            ..source()
        };
        assert_eq!(compare(&graph(&CODES, 0.01), &[other]).unwrap(), []);
    }

    #[test]
    fn floats_of_16_bits_are_the_nearest_or_a_fault() {
        let numbers = [1.0f32 / 3.0, -1e-7, 3e-5, 65504.0, 1e-42, 2.5e20];
        let mut graph = Graph::new("g");
        let near = numbers.map(bf16::from_f32).to_vec();
        graph.add_constant("b", Tensor::vector(near));
        let halves = numbers[..5]
            .iter()
            .map(|&x| f16::from_f32(x))
            .collect::<Vec<_>>();
        graph.add_constant("h", Tensor::vector(halves.clone()));
        let mut next = halves;
        next[0] = f16::from_bits(next[0].to_bits() + 1);
        graph.add_constant("next", Tensor::vector(next));
        let source =
            |name: &str, n: usize| Source::narrow(name, "m", Tensor::vector(numbers[..n].to_vec()));
        let found = compare(&graph, &[source("b", 6), source("h", 5)]).unwrap();
        assert!(
            found.iter().all(|c| c.sqnr_db > 40.0 && c.saturated == 0),
            "{found:?}"
        );
        assert!(compare(&graph, &[source("next", 5)]).is_err());
    }
}
