//! A firmware on its board, held against what the program of its model gives in Rust.

use edgesmith_codegen::Firmware;
use edgesmith_codegen::boards::{Board, Interface, Port};
use edgesmith_codegen::firmware::STACK_BYTES;
use edgesmith_codegen::program::{self, Data, Element, Program};
use edgesmith_ir::error::At;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Result, Tensor};

use super::{Measured, Run};

/// The same where the network computes in halves, whose sums have 11 bits.
const NEAR_HALVES: f64 = 0.03;

/// How far floats may be from those of Rust, as part of 1 and of the number: compilers may add in another
/// order, and multiply and add in one rounding.
const NEAR: f32 = 1e-4;

/// What was found.
pub struct Proof {
    /// What the board gave.
    pub measured: Measured,
    /// How many samples it ran.
    pub samples: usize,
    /// Of how many samples all outputs have the bits of those of Rust.
    pub equal: usize,
    /// Of how many samples an output is wrong: an integer that is another, or a float that is not near.
    pub wrong: usize,
    /// The first output that is wrong, in words.
    pub first: Option<String>,
    /// How many samples have their label's class as the largest output, where there are labels.
    pub right: Option<usize>,
}

/// Samples of a program: what its inputs hold, one entry a sample.
pub struct Samples {
    inputs: Vec<Vec<Data>>,
    labels: Option<Vec<i64>>,
}

impl Samples {
    /// The first `count` samples of arrays with the samples on the first axis, and the labels where there are
    /// some.
    ///
    /// # Errors
    /// When an array is missing or does not fit.
    pub fn of(program: &Program, arrays: &[(String, Tensor)], count: usize) -> Result<Self> {
        let mut inputs: Vec<Vec<Data>> = Vec::new();
        for (i, port) in program.inputs.iter().enumerate() {
            let place = || format!("array \"{}\"", port.name);
            let found = arrays.iter().find(|(name, _)| *name == port.name);
            let (_, array) = found.ok_or_else(|| Error::invalid("it is missing").at(place()))?;
            let all = split(program, i, array, count).at(place)?;
            match inputs.is_empty() {
                true => inputs = all.into_iter().map(|data| vec![data]).collect(),
                false if inputs.len() == all.len() => {
                    inputs
                        .iter_mut()
                        .zip(all)
                        .for_each(|(s, data)| s.push(data));
                }
                false => {
                    let (n, other) = (all.len(), inputs.len());
                    return Err(
                        Error::invalid(format!("it has {n} samples, others {other}")).at(place()),
                    );
                }
            }
        }
        let labels = arrays.iter().find(|(name, _)| name == "labels");
        let labels = labels.map(|(_, t)| t.to_i64()).transpose()?;
        let labels = labels.map(|l| l.iter().copied().take(inputs.len()).collect());
        Ok(Self { inputs, labels })
    }
}

impl Samples {
    /// Random numbers, the same every time: integers of the whole range of bytes and of -256..256 in wider
    /// types, floats in -1..1.
    pub fn random(program: &Program, count: usize) -> Self {
        let mut random = Random::new(0);
        let mut data = |element, n: usize| match element {
            Element::I8 => Data::I8((0..n).map(|_| random.below(256) as u8 as i8).collect()),
            Element::I16 => Data::I16((0..n).map(|_| random.below(512) as i16 - 256).collect()),
            Element::I32 => Data::I32((0..n).map(|_| random.below(512) as i32 - 256).collect()),
            Element::F32 => Data::F32((0..n).map(|_| (random.unit() * 2.0 - 1.0) as f32).collect()),
            Element::F16 => Data::halves((0..n).map(|_| (random.unit() * 2.0 - 1.0) as f32)),
        };
        let mut sample = || {
            let buffers = program.inputs.iter().map(|p| &program.buffers[p.buffer]);
            buffers.map(|b| data(b.element, b.count)).collect()
        };
        Self {
            inputs: (0..count).map(|_| sample()).collect(),
            labels: None,
        }
    }
}

/// The samples of an array, each as input `i` holds it.
fn split(program: &Program, i: usize, array: &Tensor, count: usize) -> Result<Vec<Data>> {
    let dims = &program.inputs[i].dims;
    let fits = array.dims().len() == dims.len() && array.dims().get(1..) == dims.get(1..);
    let (Some(&has), Some(&each), true) = (array.dims().first(), dims.first(), fits) else {
        let found = array.dims();
        return Err(Error::invalid(format!(
            "the code takes {dims:?} of each sample, it is {found:?}"
        )));
    };
    if each == 0 || has % each != 0 {
        return Err(Error::invalid(format!(
            "samples have {each} rows, it has {has}"
        )));
    }
    let bytes = array.byte_len() / (has / each).max(1);
    let one = |n: usize| {
        let part = array.bytes().slice(n * bytes..(n + 1) * bytes);
        program.input(i, &Tensor::from_bytes(array.dtype(), dims, part)?)
    };
    (0..(has / each).min(count)).map(one).collect()
}

/// How a firmware is called from outside.
pub fn interface(firmware: &Firmware) -> Interface {
    let port = |p: &program::Port| Port {
        name: p.name.clone(),
        c_name: p.c_name.clone(),
        bytes: firmware.program.buffers[p.buffer].bytes(),
    };
    Interface {
        prefix: firmware.prefix.clone(),
        inputs: firmware.program.inputs.iter().map(port).collect(),
        outputs: firmware.program.outputs.iter().map(port).collect(),
        layers: firmware.program.steps.len(),
    }
}

/// Whether a board has the instructions of a firmware.
///
/// # Errors
/// Where it has not.
pub fn check(firmware: &Firmware, board: &Board) -> Result<()> {
    match board.flavours.contains(&firmware.flavour) {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "{} has no instructions for the kernels of this target",
            board.name
        ))
        .hint("name another --board, or a --target whose code is portable C, such as rv32imc")),
    }
}

/// Runs a firmware on its board and compares every output.
///
/// # Errors
/// As [`super::run`]; a wrong output is no error here.
pub fn prove(firmware: &Firmware, samples: &Samples, settings: &Run) -> Result<Proof> {
    check(firmware, settings.board)?;
    let program = &firmware.program;
    let bytes = |sample: &Vec<Data>| sample.iter().flat_map(Data::to_bytes).collect();
    let inputs: Vec<Vec<u8>> = samples.inputs.iter().map(bytes).collect();
    let measured = super::run(&firmware.files, &interface(firmware), &inputs, settings)?;
    if let Some(board) = measured
        .board
        .as_ref()
        .filter(|b| b.stack > STACK_BYTES as u64)
    {
        return Err(Error::internal(format!(
            "the stack grew by {} bytes in a run, and the header promises {STACK_BYTES} at most",
            board.stack
        )));
    }
    let expected = evaluate(program, &samples.inputs, settings)?;
    let mut proof = Proof {
        samples: inputs.len(),
        equal: 0,
        wrong: 0,
        first: None,
        right: None,
        measured,
    };
    let mut right = 0;
    for (n, (found, expected)) in proof.measured.outputs.iter().zip(&expected).enumerate() {
        let found = outputs(program, found)?;
        proof.equal += usize::from(bits(&found) == bits(expected));
        if let Some(what) = difference(program, &found, expected) {
            proof.wrong += 1;
            proof
                .first
                .get_or_insert_with(|| format!("sample {n}, {what}"));
        }
        let label = samples.labels.as_ref().and_then(|l| l.get(n));
        right += usize::from(label.is_some_and(|&l| largest(&found[0]) == usize::try_from(l).ok()));
    }
    let classes = program
        .outputs
        .first()
        .map(|p| program.buffers[p.buffer].count);
    proof.right = (samples.labels.is_some() && classes.is_some_and(|n| n > 1)).then_some(right);
    Ok(proof)
}

/// What the program gives in Rust, in as many threads as emulators.
fn evaluate(program: &Program, inputs: &[Vec<Data>], settings: &Run) -> Result<Vec<Vec<Data>>> {
    let each = inputs.len().div_ceil(settings.jobs.max(1)).max(1);
    let part = |part: &[Vec<Data>]| -> Result<Vec<Vec<Data>>> {
        let mut states = program.rest();
        let one = |sample: &Vec<Data>| {
            settings.progress.check()?;
            program.run_on(&mut states, sample)
        };
        part.iter().map(one).collect()
    };
    let parts: Vec<Result<Vec<Vec<Data>>>> = std::thread::scope(|scope| {
        let start = |p| scope.spawn(move || part(p));
        let threads: Vec<_> = inputs.chunks(each).map(start).collect();
        let ended = |t: std::thread::ScopedJoinHandle<'_, _>| {
            t.join()
                .unwrap_or_else(|_| Err(Error::internal("the evaluation panicked")))
        };
        threads.into_iter().map(ended).collect()
    });
    let all: Result<Vec<_>> = parts.into_iter().collect();
    Ok(all?.concat())
}

/// The outputs of one sample from the bytes of all.
fn outputs(program: &Program, bytes: &[u8]) -> Result<Vec<Data>> {
    let mut at = 0;
    let mut all = Vec::with_capacity(program.outputs.len());
    for (i, port) in program.outputs.iter().enumerate() {
        let end = at + program.buffers[port.buffer].bytes();
        let part = bytes.get(at..end);
        let part = part.ok_or_else(|| Error::internal("the board gave too few bytes"))?;
        all.push(program.output_of_bytes(i, part)?);
        at = end;
    }
    Ok(all)
}

fn bits(all: &[Data]) -> Vec<Vec<u8>> {
    all.iter().map(Data::to_bytes).collect()
}

fn numbers(data: &Data) -> Vec<f64> {
    match data {
        Data::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::I16(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
    }
}

/// The place of the largest number, the first of equal ones.
fn largest(data: &Data) -> Option<usize> {
    let all = numbers(data);
    let largest = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    all.iter().position(|&x| x == largest)
}

/// The first number that is wrong, in words. Where the network computes in floats, they have to be near, and
/// integers that were rounded from them may be one apart.
fn difference(program: &Program, found: &[Data], expected: &[Data]) -> Option<String> {
    let floats = program.buffers.iter().any(|b| b.element == Element::F32);
    let halves = program.buffers.iter().any(|b| b.element == Element::F16);
    for ((port, found), expected) in program.outputs.iter().zip(found).zip(expected) {
        let near = if halves { NEAR_HALVES } else { f64::from(NEAR) };
        let is_float = matches!(found, Data::F32(_) | Data::F16(_));
        let wrong = |(_, (a, b)): &(usize, (f64, f64))| {
            let apart = match (is_float, floats) {
                (true, _) => near * (1.0 + b.abs()),
                (false, true) => 1.0,
                (false, false) => 0.0,
            };
            let same = a == b || a.is_nan() && b.is_nan();
            // A difference that is no number is wrong too.
            !(same || (a - b).abs() <= apart)
        };
        let pairs = numbers(found).into_iter().zip(numbers(expected));
        if let Some((at, (a, b))) = pairs.enumerate().find(wrong) {
            return Some(format!(
                "output \"{}\"[{at}]: {a} on the board, {b} in Rust",
                port.name
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_the_first_of_equal_ones() {
        assert_eq!(largest(&Data::I8(vec![-3, 7, 7])), Some(1));
        assert_eq!(largest(&Data::F32(vec![f32::NAN])), None);
    }
}
