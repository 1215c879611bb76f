//! NF4: codes of a table of normal quantiles, over the largest magnitude of each block; and that
//! magnitude in 8 bits (Dettmers et al., "QLoRA", 2023, section 3).
//!
//! Blocks run over the whole weight, row after row, and may go from one row to the next.

use edgesmith_ir::{Error, Result};

use super::method::Job;

/// The numbers of the codes (QLoRA, appendix E).
pub static TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_04,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The length of blocks of nested statistics.
pub const NESTED: usize = 256;

/// A weight of NF4 codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// Numbers of a block.
    pub block: usize,
    /// `[n, k]`, one in a byte.
    pub codes: Vec<u8>,
    /// The largest magnitude of each block; those that the nested form gives, where there is one.
    pub largest: Vec<f32>,
    /// The largest magnitudes in 8 bits.
    pub nested: Option<Nested>,
}

/// The largest magnitudes of blocks as codes: `map[code] · scale + offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    /// One for each block of the weight.
    pub codes: Vec<u8>,
    /// One for each [`NESTED`] codes.
    pub scales: Vec<f32>,
    /// The mean.
    pub offset: f32,
}

/// Rounds a weight to NF4.
///
/// # Errors
/// For other widths than 4 bits and blocks of whole rows.
pub fn round(job: &Job) -> Result<Nf4> {
    let (w, block) = (job.weight, job.scheme.group);
    if job.scheme.bits != 4 || block == 0 {
        return Err(Error::usage(
            "NF4 has 4 bits and blocks of 16 to 256 numbers",
        ));
    }
    let mut largest: Vec<f32> = w.data.chunks(block).map(magnitude).collect();
    let nested = job.settings.double_quantize.then(|| Nested::of(&largest));
    if let Some(nested) = &nested {
        largest = nested.numbers();
    }
    let codes = w.data.chunks(block).zip(&largest);
    let codes = codes
        .flat_map(|(w, &m)| w.iter().map(move |&x| code(x, m)))
        .collect();
    Ok(Nf4 {
        n: w.n,
        k: w.k,
        block,
        codes,
        largest,
        nested,
    })
}

fn magnitude(w: &[f32]) -> f32 {
    w.iter().fold(0.0, |m, x| x.abs().max(m))
}

/// The code next to `x / largest`; the upper of two at the same distance.
fn code(x: f32, largest: f32) -> u8 {
    if largest == 0.0 {
        return 7;
    }
    let x = x * (1.0 / largest);
    let above = TABLE.windows(2).filter(|p| x > (p[0] + p[1]) * 0.5).count();
    above as u8
}

impl Nf4 {
    /// The numbers that the codes stand for, row by row.
    pub fn numbers(&self) -> Vec<f32> {
        let blocks = self.codes.chunks(self.block.max(1)).zip(&self.largest);
        blocks
            .flat_map(|(codes, &m)| codes.iter().map(move |&c| TABLE[usize::from(c)] * m))
            .collect()
    }
}

impl Nested {
    fn of(largest: &[f32]) -> Self {
        let sum: f64 = largest.iter().map(|&x| f64::from(x)).sum();
        let offset = (sum / largest.len().max(1) as f64) as f32;
        let map = dynamic_map();
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for block in largest.chunks(NESTED) {
            let rest: Vec<f32> = block.iter().map(|x| x - offset).collect();
            let scale = magnitude(&rest);
            scales.push(scale);
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            codes.extend(rest.iter().map(|x| nearest(&map, x * inverse)));
        }
        Self {
            codes,
            scales,
            offset,
        }
    }

    /// The largest magnitudes that the codes stand for.
    pub fn numbers(&self) -> Vec<f32> {
        let map = dynamic_map();
        let blocks = self.codes.chunks(NESTED).zip(&self.scales);
        let number = |code: &u8, scale: f32| map[usize::from(*code)] * scale + self.offset;
        blocks
            .flat_map(|(codes, &scale)| {
                codes
                    .iter()
                    .map(move |c| number(c, scale))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn nearest(map: &[f32], x: f32) -> u8 {
    let at = map.partition_point(|&m| m < x).min(map.len() - 1);
    let below = at.saturating_sub(1);
    let is_below = (x - map[below]).abs() <= (map[at] - x).abs();
    (if is_below { below } else { at }) as u8
}

/// The signed dynamic map of 8 bits, in ascending order (Dettmers, "8-bit Approximations for
/// Parallelism in Deep Learning", 2016): for each power of ten from 10⁻⁶ to 1, twice as many
/// numbers at even distances as for the one before.
pub fn dynamic_map() -> Vec<f32> {
    let mut map = vec![0.0f32, 1.0];
    for i in 0..7 {
        let parts = 1 << i;
        let step = 0.9 / f64::from(parts);
        for part in 0..parts {
            let middle = 0.1 + step * (f64::from(part) + 0.5);
            let number = (10f64.powi(i - 6) * middle) as f32;
            map.extend([number, -number]);
        }
    }
    map.sort_by(f32::total_cmp);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_256_numbers_without_repeats() {
        let map = dynamic_map();
        assert_eq!(map.len(), 256);
        assert!(map.windows(2).all(|p| p[0] < p[1]));
        assert_eq!((map[255], map[127]), (1.0, 0.0));
        assert!((map[254] - 0.992_968_75).abs() < 1e-6);
    }

    #[test]
    fn each_number_of_the_table_is_its_own_code() {
        for (i, &x) in TABLE.iter().enumerate() {
            assert_eq!(code(x * 3.0, 3.0), i as u8);
        }
        assert_eq!(code(0.0, 0.0), 7);
    }

    #[test]
    fn nested_statistics_are_near() {
        let largest: Vec<f32> = (0..1000)
            .map(|i| 0.05 + ((i * 37) % 101) as f32 / 2000.0)
            .collect();
        let nested = Nested::of(&largest);
        assert_eq!(nested.scales.len(), 4);
        for (a, b) in largest.iter().zip(nested.numbers()) {
            assert!((a - b).abs() < 2e-3 * 0.1, "{a} {b}");
        }
    }
}
