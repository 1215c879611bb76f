//! Overflow analysis: which numbers of weights and activations are too large for a float format, and
//! which are so small in it that they lose bits or become zero.
//!
//! Weights are counted. Of activations calibration keeps a histogram, in whose bins numbers are
//! taken to lie evenly; its largest and smallest number are exact, and so is whether any overflows.

use std::collections::BTreeSet;

use edgesmith_ir::{DType, Graph, NodeId, Result, ValueId};

use super::changes::{Activations, RangeChange, Ranges};
use crate::calibrate::Statistics;
use crate::calibrate::ValueStatistics;

/// The range of a float format. Numbers are rounded to nearest, ties to even.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    /// Its name, as `--to` has it.
    pub name: &'static str,
    /// Its largest number.
    pub largest: f64,
    /// Halfway from its largest number to the one that would come next.
    pub limit: f64,
    /// Whether `limit` itself is rounded to the largest number.
    pub limit_fits: bool,
    /// Its smallest number that has all bits.
    pub normal: f64,
    /// Its smallest number.
    pub step: f64,
}

/// IEEE binary16.
pub const FP16: Format = Format {
    name: "fp16",
    largest: 65504.0,
    limit: 65520.0,
    limit_fits: false,
    normal: 1.0 / 16_384.0,
    step: 1.0 / 16_777_216.0,
};

/// The upper half of an f32.
pub const BF16: Format = Format {
    name: "bf16",
    largest: f32::from_bits(0x7F7F_0000) as f64,
    limit: f32::from_bits(0x7F7F_8000) as f64,
    limit_fits: false,
    normal: f32::MIN_POSITIVE as f64,
    step: f32::MIN_POSITIVE as f64 / 128.0,
};

/// ONNX's FLOAT8E4M3FN.
pub const E4M3: Format = Format {
    name: "fp8 e4m3",
    largest: 448.0,
    limit: 464.0,
    limit_fits: true,
    normal: 1.0 / 64.0,
    step: 1.0 / 512.0,
};

/// ONNX's FLOAT8E5M2.
pub const E5M2: Format = Format {
    name: "fp8 e5m2",
    largest: 57_344.0,
    limit: 61_440.0,
    limit_fits: false,
    normal: 1.0 / 16_384.0,
    step: 1.0 / 65_536.0,
};

impl Format {
    /// True where a number of magnitude `a` is too large.
    pub fn overflows(&self, a: f64) -> bool {
        a > self.limit || a == self.limit && !self.limit_fits
    }

    /// True where a number of magnitude `a` > 0 becomes zero.
    pub fn vanishes(&self, a: f64) -> bool {
        a <= self.step / 2.0
    }

    /// True where a number of magnitude `a` becomes a subnormal one, which has fewer bits.
    pub fn is_subnormal(&self, a: f64) -> bool {
        !self.vanishes(a) && a < self.normal - self.step / 2.0
    }
}

/// How many finite numbers but zero there are, and how many of them are lost in a format.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lost {
    /// Numbers that are finite and not zero.
    pub numbers: f64,
    /// Their largest magnitude, before any scale.
    pub largest: f64,
    /// Those that are too large.
    pub overflow: f64,
    /// Those that become zero.
    pub zero: f64,
    /// Those that become subnormal.
    pub subnormal: f64,
}

impl Lost {
    /// Counts a number that is divided by `scale` and rounded.
    pub fn add(&mut self, x: f32, scale: f32, format: &Format) {
        if x == 0.0 || !x.is_finite() {
            return;
        }
        let a = f64::from((x / scale).abs());
        self.numbers += 1.0;
        self.largest = self.largest.max(f64::from(x.abs()));
        self.overflow += f64::from(u8::from(format.overflows(a)));
        self.zero += f64::from(u8::from(format.vanishes(a)));
        self.subnormal += f64::from(u8::from(format.is_subnormal(a)));
    }

    /// What the numbers that calibration saw lose when they are divided by `scale` and rounded:
    /// numbers lie evenly in the bins of their histogram.
    pub fn of(seen: &ValueStatistics, scale: f32, format: &Format) -> Self {
        let scale = f64::from(scale);
        let (least, most) = seen.range();
        let zero = format.step / 2.0 * scale;
        let normal = ((format.normal - format.step / 2.0) * scale).max(zero);
        let limit = format.limit * scale;
        let mut lost = Self {
            numbers: (seen.count - seen.zeros) as f64,
            largest: most.max(-least),
            ..Self::default()
        };
        let middle = seen.histogram.bins().len() / 2;
        for (i, &n) in seen.histogram.bins().iter().enumerate() {
            let n = if i == middle {
                n - seen.zeros.min(n)
            } else {
                n
            };
            if n == 0 {
                continue;
            }
            let from = seen.histogram.edge(i).max(least);
            let to = seen.histogram.edge(i + 1).min(most);
            let (a, b) = if i < middle { (-to, -from) } else { (from, to) };
            let below = |t: f64| match b > a {
                true => n as f64 * ((t - a) / (b - a)).clamp(0.0, 1.0),
                false if t > a => n as f64,
                false => 0.0,
            };
            lost.zero += below(zero);
            lost.subnormal += below(normal) - below(zero);
            lost.overflow += n as f64 - below(limit);
        }
        lost.overflow = match format.overflows(lost.largest / scale) {
            true => lost.overflow.max(1.0),
            false => 0.0,
        };
        lost
    }

    fn row(self, name: &str, is_weight: bool, headroom: Option<f64>) -> RangeChange {
        let share = |n: f64| if n > 0.0 { n / self.numbers } else { 0.0 };
        RangeChange {
            name: name.to_owned(),
            is_weight,
            nodes: Vec::new(),
            numbers: self.numbers as u64,
            largest: self.largest,
            headroom,
            overflow: share(self.overflow),
            zero: share(self.zero),
            subnormal: share(self.subnormal),
            kept: false,
        }
    }

    /// The row of a tensor that is converted as it is.
    pub fn unscaled(self, name: &str, is_weight: bool, format: &Format) -> RangeChange {
        let headroom = match self.largest > 0.0 {
            true => format.largest / self.largest,
            false => f64::INFINITY,
        };
        self.row(name, is_weight, Some(headroom))
    }

    /// The row of a tensor that a scale fits to the largest number of the format.
    pub fn scaled(self, name: &str, is_weight: bool) -> RangeChange {
        self.row(name, is_weight, None)
    }
}

/// The analysis of a graph whose tensors of 32-bit floats are converted as they are. A tensor of
/// which every node is in `left` is kept; `constants` leaves activations out.
///
/// # Errors
/// When a constant cannot be read as f32.
pub(super) fn analyse(
    graph: &Graph,
    format: &'static Format,
    statistics: Option<&Statistics>,
    constants: bool,
    left: &dyn Fn(NodeId) -> bool,
) -> Result<Ranges> {
    let mut rows = Vec::new();
    for (v, value) in graph.values() {
        let nodes = nodes_of(graph, v);
        let row = if let Some(t) = graph.constant(v) {
            if t.dtype() != DType::F32 || nodes.is_empty() {
                continue;
            }
            let mut lost = Lost::default();
            t.to_f32()?.iter().for_each(|&x| lost.add(x, 1.0, format));
            lost.unscaled(&value.name, true, format)
        } else {
            let Some(seen) = statistics.and_then(|s| s.of(&value.name)) else {
                continue;
            };
            Lost::of(seen, 1.0, format).unscaled(&value.name, false, format)
        };
        rows.push(RangeChange {
            kept: nodes.iter().all(|&id| left(id)),
            nodes: nodes
                .iter()
                .map(|&id| graph.node(id).name.clone())
                .collect(),
            ..row
        });
    }
    let activations = match statistics {
        _ if constants => Activations::StayFloat,
        Some(_) => Activations::LookedAt,
        None => Activations::NotLookedAt,
    };
    Ok(Ranges {
        format: format.name,
        largest: format.largest,
        activations,
        rows,
    })
}

/// The nodes that make or read a value; not those that only hold a constant.
fn nodes_of(graph: &Graph, v: ValueId) -> BTreeSet<NodeId> {
    let value = graph.value(v);
    let maker = value.producer().map(|(id, _)| id);
    let maker = maker.filter(|_| graph.constant(v).is_none());
    let readers = value.consumers().iter().map(|&(id, _)| id);
    maker.into_iter().chain(readers).collect()
}

/// A larger share of the numbers of a tensor that become zero is worth a warning.
pub const MANY: f64 = 0.01;

/// Names in a warning.
const NAMED: usize = 4;

impl Ranges {
    /// What overflows or vanishes, and what to do: one sentence, where there is anything to say.
    pub fn warning(&self) -> Option<String> {
        let over = |r: &&RangeChange| r.overflow > 0.0;
        let (kept, lost): (Vec<_>, Vec<_>) = self.rows.iter().filter(over).partition(|r| r.kept);
        let gone = |r: &&RangeChange| r.zero > MANY && !r.kept;
        let gone: Vec<_> = self.rows.iter().filter(gone).collect();
        let largest = match self.largest < 1e6 {
            true => self.largest.to_string(),
            false => format!("{:.3e}", self.largest),
        };
        let mut parts = Vec::new();
        if !kept.is_empty() {
            parts.push(format!(
                "numbers of {} are beyond {largest}, kept in float: {}",
                named(&kept),
                nodes(&kept)
            ));
        }
        if !lost.is_empty() {
            parts.push(format!(
                "numbers of {} are beyond {largest} and become infinite or that: --exclude keeps {}",
                named(&lost),
                nodes(&lost)
            ));
        }
        if !gone.is_empty() {
            parts.push(format!(
                "over {} % of the numbers of {} become zero: --exclude keeps {}",
                100.0 * MANY,
                named(&gone),
                nodes(&gone)
            ));
        }
        (!parts.is_empty()).then(|| format!("{}: {}", self.format, parts.join("; ")))
    }
}

/// The first names in quotes, and how many more there are.
fn named(rows: &[&RangeChange]) -> String {
    list(rows.iter().map(|r| format!("\"{}\"", r.name)).collect())
}

/// The nodes of rows, each once.
fn nodes(rows: &[&RangeChange]) -> String {
    let mut seen = BTreeSet::new();
    let all = rows.iter().flat_map(|r| &r.nodes);
    let once = all.filter(|n| seen.insert(n.as_str()));
    list(once.map(|n| format!("\"{n}\"")).collect())
}

fn list(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names[..names.len() - more].join(", ");
    match more {
        0 => first,
        _ => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{Tensor, packed};
    use half::{bf16, f16};

    use super::*;

    /// The magnitude that `a` becomes.
    fn rounded(format: &Format, a: f32) -> f64 {
        let small = |dtype| {
            let t = packed::encode_floats(dtype, &[1], &[a.into()], false).unwrap();
            packed::decode_floats(&t).unwrap()[0]
        };
        f64::from(match format.name {
            "fp16" => f16::from_f32(a).to_f32(),
            "bf16" => bf16::from_f32(a).to_f32(),
            "fp8 e4m3" => small(DType::F8E4M3FN),
            _ => small(DType::F8E5M2),
        })
    }

    #[test]
    fn every_bound_is_where_conversion_changes() {
        for format in [FP16, BF16, E4M3, E5M2] {
            assert_eq!(rounded(&format, format.largest as f32), format.largest);
            for bound in [
                format.limit,
                format.normal,
                format.step,
                format.normal - format.step / 2.0,
                format.step / 2.0,
            ] {
                let bound = bound as f32;
                for a in [bound.next_down(), bound, bound.next_up()] {
                    let r = rounded(&format, a);
                    let (name, a) = (format.name, f64::from(a));
                    assert_eq!(format.overflows(a), !r.is_finite(), "{name} {a:e} is {r:e}");
                    assert_eq!(format.vanishes(a), r == 0.0, "{name} {a:e} is {r:e}");
                    let few = r > 0.0 && r < format.normal;
                    assert_eq!(format.is_subnormal(a), few, "{name} {a:e} is {r:e}");
                }
            }
        }
    }

    #[test]
    fn weights_are_counted_one_by_one() {
        let mut lost = Lost::default();
        for x in [0.0, 65504.0, -65520.0, 1e-9, -1e-6, 1.0, f32::NAN] {
            lost.add(x, 1.0, &FP16);
        }
        assert_eq!((lost.numbers, lost.largest), (5.0, 65520.0));
        assert_eq!((lost.overflow, lost.zero, lost.subnormal), (1.0, 1.0, 1.0));
        let row = lost.unscaled("w", true, &FP16);
        assert_eq!((row.overflow, row.zero), (0.2, 0.2));
        assert_eq!(row.headroom, Some(65504.0 / 65520.0));
    }

    #[test]
    fn a_scale_comes_before_the_rounding() {
        let mut lost = Lost::default();
        for x in [1.0, 0.5f32.powi(10), 0.75 * 0.5f32.powi(9), 0.5f32.powi(7)] {
            lost.add(4.0 * x, 4.0, &E4M3);
        }
        assert_eq!((lost.zero, lost.subnormal, lost.largest), (1.0, 2.0, 4.0));
    }

    #[test]
    fn bins_are_cut_where_the_format_ends() {
        let mut seen = ValueStatistics::new(None);
        // Bins 64 wide: 65472 to 65536 holds three numbers, of which the last is at 65536.
        let data = vec![65480.0f32, 65500.0, 65535.0, -70000.0, 0.0, 0.0, 100.0];
        seen.add(&Tensor::vector(data)).unwrap();
        assert_eq!(seen.histogram.width(), 64.0);
        let lost = Lost::of(&seen, 1.0, &FP16);
        assert_eq!((lost.numbers, lost.largest), (5.0, 70000.0));
        let three = 3.0 * (65535.0 - 65520.0) / (65535.0 - 65472.0);
        assert!((lost.overflow - 1.0 - three).abs() < 1e-9, "{lost:?}");
        assert_eq!((lost.zero, lost.subnormal), (0.0, 0.0));
    }

    #[test]
    fn the_bin_at_zero_is_cut_too_and_zeros_are_left_out() {
        let mut seen = ValueStatistics::new(None);
        let mut data = vec![0.0f32; 1000];
        data.extend([1e-9f32; 512]);
        data.push(1.0);
        seen.add(&Tensor::vector(data)).unwrap();
        let (lost, width) = (Lost::of(&seen, 1.0, &FP16), seen.histogram.width());
        assert_eq!((lost.numbers, width), (513.0, 0.5f64.powi(10)));
        assert_eq!(lost.zero, 512.0 * FP16.step / 2.0 / width);
        assert_eq!(
            lost.zero + lost.subnormal,
            512.0 * (FP16.normal - FP16.step / 2.0) / width
        );
    }

    #[test]
    fn what_fits_is_never_said_to_overflow() {
        let mut seen = ValueStatistics::new(None);
        seen.add(&Tensor::vector(vec![65504.0f32; 10])).unwrap();
        assert_eq!(Lost::of(&seen, 1.0, &FP16).overflow, 0.0);
        seen.add(&Tensor::vector(vec![65520.0f32])).unwrap();
        assert!(Lost::of(&seen, 1.0, &FP16).overflow > 0.0);
    }
}
