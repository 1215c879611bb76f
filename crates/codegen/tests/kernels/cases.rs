//! What a case of the driver is, and its bytes.

use edgesmith_ir::random::Random;

/// A call of a kernel and its answer.
#[derive(Default)]
pub struct Case {
    /// Which, as `calls.inc` counts.
    pub kernel: i32,
    /// Parameters, as `calls.inc` reads them.
    pub parameters: Vec<i32>,
    /// Bytes of scratch.
    pub scratch: usize,
    /// Where the answer starts behind the start of x, where it lies over it.
    pub overlap: Option<usize>,
    /// x, a second operand, weights, biases, multipliers.
    pub arrays: [Vec<u8>; 5],
    /// The answer.
    pub answer: Vec<u8>,
}

/// The bytes that the driver reads.
pub fn blob(cases: &[Case]) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, v: i32| out.extend(v.to_le_bytes());
    word(&mut out, cases.len() as i32);
    for case in cases {
        word(&mut out, case.kernel);
        for i in 0..24 {
            word(&mut out, case.parameters.get(i).copied().unwrap_or(0));
        }
        word(&mut out, case.scratch as i32);
        word(&mut out, case.overlap.map_or(-1, |at| at as i32));
        for array in case.arrays.iter().chain([&case.answer]) {
            word(&mut out, array.len() as i32);
            out.extend(array);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out
}

/// Words of 32 bits as bytes.
pub fn words(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Int8 as bytes.
pub fn bytes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|v| *v as u8).collect()
}

/// Any int8.
pub fn int8(r: &mut Random, count: usize) -> Vec<i8> {
    (0..count).map(|_| (r.bits() >> 56) as u8 as i8).collect()
}
