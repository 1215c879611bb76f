//! Running a program on its board, in parts of the samples, and reading what it left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use edgesmith_codegen::boards::{EMULATED, STACK_BYTES};
use edgesmith_ir::{Error, Result};

use super::build::{Build, Program};
use super::counts::Counts;
use super::process::{self, refused};
use super::{Run, write};

/// What a program left.
#[derive(Default)]
pub struct Left {
    /// The outputs of each sample.
    pub outputs: Vec<Vec<u8>>,
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of the stack.
    pub stack: u64,
    /// Instructions of each sample; empty where they were not counted.
    pub counts: Vec<u64>,
    /// Instructions by function, most first; of a program with marks only.
    pub functions: Vec<(String, u64)>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Instructions before each mark.
    spans: Vec<u64>,
    /// The layer of each mark.
    marks: Vec<usize>,
}

impl Left {
    /// Instructions of each layer: those behind its marks.
    ///
    /// # Errors
    /// When the marks are not those of a network with so many layers.
    pub fn layers(&self, layers: usize) -> Result<Vec<u64>> {
        let is_closed = self.marks.last() == Some(&layers);
        if !is_closed || self.spans.len() != self.marks.len() {
            return Err(Error::internal(format!(
                "the network has {layers} layers and gave {} marks, the last {:?}; {} were counted",
                self.marks.len(),
                self.marks.last(),
                self.spans.len()
            )));
        }
        let mut counts = vec![0; layers];
        for (layer, span) in self.marks.iter().zip(&self.spans[1..]) {
            let count = counts.get_mut(*layer);
            *count.ok_or_else(|| Error::internal(format!("there is no layer {layer}")))? += span;
        }
        Ok(counts)
    }
}

/// Runs `program` on the samples, several emulators at a time.
///
/// # Errors
/// When a board faults, hangs or gives too little, or the work is cancelled.
pub fn run(build: &Build, program: &Program, samples: &[Vec<u8>], settings: &Run) -> Result<Left> {
    let start = Instant::now();
    let each = samples
        .len()
        .div_ceil(settings.jobs.clamp(1, samples.len()));
    let parts: Vec<&[Vec<u8>]> = samples.chunks(each).collect();
    let results: Vec<Result<Left>> = std::thread::scope(|scope| {
        let work = |(i, part)| scope.spawn(move || one(build, program, part, settings, i));
        let threads: Vec<_> = parts.iter().copied().enumerate().map(work).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, Result<Left>>| {
            t.join()
                .unwrap_or_else(|_| Err(Error::internal("a thread of a board panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut all = Left::default();
    for left in results {
        let left = left?;
        all.outputs.extend(left.outputs);
        all.counts.extend(left.counts);
        all.stack = all.stack.max(left.stack);
        all.arena = left.arena;
        all.spans = left.spans;
        all.marks = left.marks;
        all.functions = left.functions;
    }
    all.seconds = start.elapsed().as_secs_f64();
    Ok(all)
}

fn one(
    build: &Build,
    program: &Program,
    samples: &[Vec<u8>],
    settings: &Run,
    part: usize,
) -> Result<Left> {
    let stem = program.path.file_stem().unwrap_or_default();
    let folder = build.folder().join(format!("{}-{part}", stem.display()));
    write(&folder, "samples.bin", &samples.concat())?;
    let mark = program.place(&build.mark());
    let mut command = command(build, program, mark.as_deref())?;
    let ended = process::run(
        &mut command,
        &folder,
        "said",
        settings.limit,
        build.progress(),
    );
    let hint = "fewer samples take less time";
    let ended = ended.map_err(|e| if e.hint.is_none() { e.hint(hint) } else { e })?;
    if !ended.status.success() {
        return Err(failure(program, &ended));
    }
    let mut left = Left::default();
    let numbers = read(&folder, "numbers.bin")?;
    let words: Vec<u64> = numbers
        .chunks_exact(4)
        .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let outputs = read(&folder, "outputs.bin")?;
    let bytes = build.answer_bytes();
    let [count, arena, stack, _, marks @ ..] = &words[..] else {
        return Err(Error::internal("the board left too few numbers"));
    };
    if *count != samples.len() as u64 || outputs.len() != bytes * samples.len() {
        return Err(Error::internal(format!(
            "the board ran {count} of {} samples and left {} bytes of outputs",
            samples.len(),
            outputs.len()
        )));
    }
    left.outputs = match bytes {
        0 => vec![Vec::new(); samples.len()],
        _ => outputs.chunks(bytes).map(<[u8]>::to_vec).collect(),
    };
    (left.arena, left.stack) = (*arena, *stack);
    left.marks = marks.iter().map(|&m| m as usize).collect();
    if build.emulator.is_some() {
        if *stack + 64 > STACK_BYTES {
            return Err(Error::invalid(format!(
                "the stack of {STACK_BYTES} bytes does not suffice"
            )));
        }
        let text = read(&folder, "counts.txt")?;
        let counts = Counts::read(&String::from_utf8_lossy(&text))?;
        left.functions = functions(program, &counts);
        left.counts = counts.inferences;
        left.spans = counts.marks;
    }
    Ok(left)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).map_err(|e| refused(&e, &path))
}

fn command(build: &Build, program: &Program, mark: Option<&str>) -> Result<Command> {
    let (Some(machine), Some((emulator, plugin))) = (build.board().machine, &build.emulator) else {
        return Ok(Command::new(&program.path));
    };
    let place = |function: &str| {
        let missing = || Error::internal(format!("the program has no function {function}"));
        program.place(function).ok_or_else(missing)
    };
    let mut words = format!(
        "{},out=counts.txt,begin={},end={}",
        plugin.display().to_string().replace(',', ",,"),
        place("board_begin")?,
        place("board_end")?
    );
    if let Some(mark) = mark {
        words += &format!(",mark={mark},blocks=1");
    }
    let mut command = Command::new(emulator);
    command.args(machine.words).args(EMULATED);
    command.arg("-plugin").arg(words);
    command.arg("-kernel").arg(&program.path);
    Ok(command)
}

/// Instructions of the functions of the network, and of those that it calls.
fn functions(program: &Program, counts: &Counts) -> Vec<(String, u64)> {
    let mut by_name = BTreeMap::<&str, u64>::new();
    for &(at, n) in &counts.blocks {
        if let Some((name, true)) = program.function(at) {
            *by_name.entry(name).or_default() += n;
        }
    }
    let mut all: Vec<_> = by_name.into_iter().collect();
    all.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    all.into_iter()
        .map(|(name, n)| (name.to_owned(), n))
        .collect()
}

/// What went wrong on the board, in words.
fn failure(program: &Program, ended: &process::Ended) -> Error {
    let said = &ended.said;
    if let Some(line) = said
        .lines()
        .find_map(|l| l.split_once("fault ").map(|p| p.1))
    {
        return Error::internal(fault(program, line));
    }
    let is_one = |l: &&str| l.contains("runtime error:") || l.contains("ERROR: AddressSanitizer");
    if let Some(line) = said.lines().find(is_one) {
        return Error::internal(format!("the generated code is not sound: {line}"));
    }
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(6)..].join("\n");
    let error = Error::internal(format!("the board ended with {}: {last}", ended.status));
    match said.contains("-plugin") || said.contains("plugin.so") {
        true => error.hint("QEMU has to be built with plugins, as those of Debian and Ubuntu are"),
        false => error,
    }
}

/// Bits of the fault status of Cortex-M (Armv8-M Architecture Reference Manual, CFSR) and what they mean.
const CAUSES: &[(u64, &str)] = &[
    (1 << 0, "no instruction may be fetched there"),
    (1 << 1, "no data may be there"),
    (1 << 8, "bus error of an instruction"),
    (1 << 9, "bus error"),
    (1 << 10, "bus error, imprecise"),
    (1 << 12, "bus error while registers were saved"),
    (1 << 16, "undefined instruction"),
    (1 << 17, "invalid state"),
    (1 << 18, "invalid return"),
    (1 << 19, "no such coprocessor: the FPU is off or not there"),
    (1 << 20, "stack overflow"),
    (1 << 24, "unaligned access"),
    (1 << 25, "division by zero"),
];

/// Exceptions of RISC-V by number (Privileged Architecture, mcause).
const TRAPS: &[&str] = &[
    "misaligned instruction",
    "no instruction may be fetched there",
    "undefined instruction",
    "breakpoint",
    "misaligned load",
    "no load is possible there",
    "misaligned store",
    "no store is possible there",
];

fn fault(program: &Program, line: &str) -> String {
    let mut words = line.split_whitespace();
    let architecture = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words
        .filter_map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok())
        .collect();
    let number = |i: usize| numbers.get(i).copied().unwrap_or(0);
    let function = program.function(number(1)).map_or("unknown", |f| f.0);
    let (why, address) = match architecture {
        "riscv" => {
            let trap = usize::try_from(number(0)).ok().and_then(|i| TRAPS.get(i));
            (trap.copied().unwrap_or("a trap").to_owned(), number(2))
        }
        _ => {
            let causes = CAUSES.iter().filter(|(bit, _)| number(2) & bit != 0);
            let causes: Vec<&str> = causes.map(|c| c.1).collect();
            (causes.join(", "), number(3))
        }
    };
    format!(
        "the board faults in {function} at {:#x}: {why} (exception {}, address {address:#x})",
        number(1),
        number(0)
    )
}
