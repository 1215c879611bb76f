//! A program as files of C.

use std::fmt::Write as _;

use edgesmith_ir::{Error, Result};

use crate::arena::{Arena, Block, Overlap, Pair, TRIES};
use crate::emit::{Call, Unit, c_float, lines};
use crate::kernels::{self, Flavour};
use crate::program::{Element, Port, Program, Step};
use crate::readme::page;

/// Bytes that the stack grows by in a run, at most; every proof on a board checks it.
pub const STACK_BYTES: usize = 1024;

/// Offsets of buffers are multiples of so many bytes.
pub(crate) const ALIGN: usize = 4;

/// Where everything in the arena lies.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Of each buffer, in bytes.
    pub offsets: Vec<usize>,
    /// Of the scratch memory of each step, with its bytes; `None` where it has none.
    pub scratch: Vec<Option<(usize, usize)>>,
    /// The plan.
    pub arena: Arena,
}

/// A step, as far as memory cares.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    /// The buffers that it reads.
    pub reads: Vec<usize>,
    /// The buffer that it makes.
    pub write: usize,
    /// Bytes that it needs while it runs.
    pub scratch: usize,
    /// How what it makes may lie over each of what it reads.
    pub overlaps: Vec<Option<Overlap>>,
}

impl Needs {
    /// Those of the steps of a program.
    pub fn of(program: &Program, flavour: Flavour) -> Vec<Self> {
        let needs = |step: &Step| Self {
            reads: step.reads.clone(),
            write: step.write,
            scratch: step.layer.scratch(flavour),
            overlaps: (0..step.reads.len())
                .map(|i| step.layer.overlap(flavour, i))
                .collect(),
        };
        program.steps.iter().map(needs).collect()
    }
}

impl Memory {
    /// Places the buffers of a program and what its steps need while they run.
    pub fn plan(program: &Program, flavour: Flavour) -> Self {
        let needs = Needs::of(program, flavour);
        Self::of(program, &needs, TRIES)
    }

    /// The same for steps that may be others than those of the program.
    pub(crate) fn of(program: &Program, steps: &[Needs], tries: usize) -> Self {
        let (mut blocks, pairs) = blocks(program, steps);
        let mut scratch = Vec::with_capacity(steps.len());
        for (n, step) in steps.iter().enumerate() {
            let size = step.scratch.next_multiple_of(ALIGN);
            scratch.push((size > 0).then_some(blocks.len()));
            if size > 0 {
                blocks.push(Block {
                    size,
                    live: (n, n),
                    align: 8,
                });
            }
        }
        let arena = Arena::with(&blocks, &pairs, tries);
        Self {
            offsets: arena.offsets[..program.buffers.len()].to_vec(),
            scratch: scratch
                .iter()
                .map(|s| s.map(|s| (arena.offsets[s], blocks[s].size)))
                .collect(),
            arena,
        }
    }
}

/// For each buffer the last step that reads it; behind all steps for outputs and states.
fn lasts(program: &Program, steps: &[Needs]) -> Vec<usize> {
    let mut last = vec![0; program.buffers.len()];
    for (n, step) in steps.iter().enumerate() {
        for &r in &step.reads {
            last[r] = n;
        }
    }
    for port in &program.outputs {
        last[port.buffer] = steps.len();
    }
    for state in &program.states {
        last[state.read] = steps.len();
    }
    last
}

/// The buffers as blocks, in their order, and what may lie over what.
fn blocks(program: &Program, steps: &[Needs]) -> (Vec<Block>, Vec<Pair>) {
    let last = lasts(program, steps);
    let mut made = vec![false; program.buffers.len()];
    for port in &program.inputs {
        made[port.buffer] = true;
    }
    for state in &program.states {
        made[state.read] = true;
    }
    let mut blocks: Vec<Block> = program
        .buffers
        .iter()
        .zip(&last)
        .map(|(buffer, &last)| Block {
            size: buffer.bytes().next_multiple_of(ALIGN),
            live: (0, last),
            align: ALIGN,
        })
        .collect();
    let mut pairs = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let block = &mut blocks[step.write];
        if !made[step.write] {
            block.live.0 = n;
            made[step.write] = true;
        }
        block.live.1 = block.live.1.max(n);
        for (i, &read) in step.reads.iter().enumerate() {
            let again = step.reads.iter().filter(|&&r| r == read).count() > 1;
            if last[read] == n && !again {
                pairs.extend(step.overlaps[i].map(|overlap| Pair {
                    read,
                    write: step.write,
                    overlap,
                }));
            }
        }
    }
    // What no step touches takes no room.
    for (block, made) in blocks.iter_mut().zip(&made) {
        if !made {
            block.size = 0;
        }
    }
    (blocks, pairs)
}

/// A step, for reports.
#[derive(Debug, Clone)]
pub struct LayerReport {
    /// The name of the node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// The function in C.
    pub kernel: &'static str,
    /// Products that are added.
    pub macs: u64,
    /// Bytes in flash.
    pub weights: usize,
    /// Bytes of what it makes.
    pub bytes: usize,
    /// Bytes that are alive while it runs, scratch memory included.
    pub alive: usize,
}

/// Files of C, and what was found while they were made.
pub struct Firmware {
    /// Names and texts.
    pub files: Vec<(String, String)>,
    /// What names begin with.
    pub prefix: String,
    /// The steps.
    pub program: Program,
    /// Where values lie.
    pub memory: Memory,
    /// Bytes of constants: weights, biases, multipliers, tables.
    pub weights: usize,
    /// The steps, for people.
    pub layers: Vec<LayerReport>,
    /// Which instructions the kernels use.
    pub flavour: Flavour,
}

/// Whether a name can begin names in C.
///
/// # Errors
/// Where it cannot.
pub fn check_prefix(prefix: &str) -> Result<()> {
    let starts = prefix.starts_with(|c: char| c.is_ascii_lowercase());
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if starts && prefix.chars().all(fits) && prefix.len() <= 32 {
        return Ok(());
    }
    Err(
        Error::usage(format!("\"{prefix}\" cannot begin names in C")).hint(
            "a name begins with a small letter and has small letters, digits and _, 32 at most",
        ),
    )
}

impl Firmware {
    /// Writes a program as C; `source` is what the texts call the model.
    ///
    /// # Errors
    /// When `prefix` is no name.
    pub fn new(program: Program, prefix: &str, flavour: Flavour, source: &str) -> Result<Self> {
        check_prefix(prefix)?;
        let source = &in_comment(source);
        let memory = Memory::plan(&program, flavour);
        let mut unit = Unit::new(prefix, flavour);
        let mut calls = Vec::with_capacity(program.steps.len());
        for (n, step) in program.steps.iter().enumerate() {
            let at = |b: usize| pointer(prefix, program.buffers[b].element, memory.offsets[b]);
            let mut call = Call {
                step: n,
                part: 0,
                reads: step.reads.iter().map(|&r| at(r)).collect(),
                write: at(step.write),
                count: program.buffers[step.write].count,
                scratch: match memory.scratch[n] {
                    Some((at, _)) => format!("(void *)&{prefix}_arena.bytes[{at}]"),
                    None => "(void *)0".to_owned(),
                },
                unit: &mut unit,
            };
            calls.push(step.layer.emit(&mut call));
        }
        let layers = layers(&program, &memory);
        let mut firmware = Self {
            files: Vec::new(),
            prefix: prefix.to_owned(),
            weights: unit.bytes(),
            layers,
            program,
            memory,
            flavour,
        };
        firmware.files = vec![
            (format!("{prefix}.h"), firmware.header(source)),
            (
                format!("{prefix}.c"),
                firmware.network(&unit, &calls, source),
            ),
            (format!("{prefix}_kernels.h"), firmware.kernels(&unit)),
            (format!("{prefix}_weights.h"), firmware.constants(&unit)),
            (format!("{prefix}.md"), page(&firmware, source)),
        ];
        Ok(firmware)
    }

    fn upper(&self) -> String {
        self.prefix.to_ascii_uppercase()
    }

    /// The header that an application includes.
    fn header(&self, source: &str) -> String {
        let (p, u) = (&self.prefix, self.upper());
        let mut text = format!(
            "/* The network of {source}, as edgesmith wrote it. */\n\
             #ifndef {u}_H\n#define {u}_H\n\n#include <stdint.h>\n\n\
             #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
             /* Bytes of RAM for all activations; they are in this file's .bss. */\n\
             #define {u}_ARENA_BYTES {}u\n\
             /* Bytes of constants in flash: weights, biases, multipliers, tables. */\n\
             #define {u}_WEIGHTS_BYTES {}u\n\
             /* Bytes that the stack grows by in a run, at most. */\n\
             #define {u}_STACK_BYTES {STACK_BYTES}u\n\
             /* Steps that {u}_PROFILE is told of. */\n\
             #define {u}_LAYERS {}u\n\n",
            self.memory.arena.bytes,
            self.weights,
            self.program.steps.len()
        );
        for (ports, way) in [
            (&self.program.inputs, "INPUT"),
            (&self.program.outputs, "OUTPUT"),
        ] {
            for port in ports {
                self.port(&mut text, port, way);
            }
        }
        let _ = write!(
            text,
            "/* Makes the network ready{}; call it first. */\nvoid {p}_init(void);\n\n\
             /* Runs the network once. Inputs are overwritten: fill them before each call. */\n\
             void {p}_invoke(void);\n\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
            match self.program.states.as_slice() {
                [] => String::new(),
                states => {
                    let names: Vec<&str> = states.iter().map(|s| s.name.as_str()).collect();
                    format!(" and forgets what it kept ({})", names.join(", "))
                }
            }
        );
        text
    }

    /// What the header says of an input or output.
    fn port(&self, text: &mut String, port: &Port, way: &str) {
        let (p, u) = (&self.prefix, self.upper());
        let buffer = &self.program.buffers[port.buffer];
        let name = format!("{u}_{way}_{}", port.c_name.to_ascii_uppercase());
        let laid: Vec<String> = port
            .order
            .iter()
            .map(|&a| port.dims[a].to_string())
            .collect();
        let _ = write!(
            text,
            "/* {} \"{}\", {:?} in the graph: {} in memory, its axes {:?} */\n#define {name}_COUNT {}u\n",
            if way == "INPUT" { "Input" } else { "Output" },
            in_comment(&port.name),
            port.dims,
            laid.join(" x "),
            port.order,
            buffer.count
        );
        if let Some(grid) = buffer.grid {
            let _ = write!(
                text,
                "/* number = SCALE * (integer - ZERO_POINT) */\n#define {name}_SCALE {}\n\
                 #define {name}_ZERO_POINT ({})\n",
                c_float(grid.scale),
                grid.zero
            );
        }
        let c = buffer.element.c();
        let f = format!("{p}_{}_{}", way.to_ascii_lowercase(), port.c_name);
        let _ = match way {
            "INPUT" => write!(text, "{c} *{f}(void);\n\n"),
            _ => write!(text, "const {c} *{f}(void);\n\n"),
        };
    }

    /// The file that is compiled.
    fn network(&self, unit: &Unit, calls: &[String], source: &str) -> String {
        let (p, u) = (&self.prefix, self.upper());
        // GCC 12 takes what vectors of Helium wrote for unchanged, where it has loaded it before.
        let between = match self.flavour {
            Flavour::Mve => format!(
                "#elif defined(__GNUC__)\n#define {u}_STEP(n) __asm__ volatile(\"\" ::: \"memory\")\n"
            ),
            _ => String::new(),
        };
        let mut text = format!(
            "/* The network of {source}, as edgesmith wrote it. */\n\
             #include \"{p}.h\"\n\n#include <string.h>\n\n#include \"{p}_kernels.h\"\n#include \"{p}_weights.h\"\n\n\
             /* {u}_ARENA_SECTION, a string, puts the arena into a section of the linker script. */\n\
             #if defined({u}_ARENA_SECTION)\n\
             #define {u}_IN_ARENA __attribute__((section({u}_ARENA_SECTION)))\n\
             #else\n#define {u}_IN_ARENA\n#endif\n\n\
             /* {u}_PROFILE, a function, is told of each step before it runs, and of the end. */\n\
             #if defined({u}_PROFILE)\nvoid {u}_PROFILE(unsigned int layer);\n\
             #define {u}_STEP(n) {u}_PROFILE(n)\n\
             {between}\
             #else\n#define {u}_STEP(n)\n#endif\n\n\
             static union {{\n    int8_t bytes[{u}_ARENA_BYTES];\n    int64_t align;\n}} {p}_arena {u}_IN_ARENA;\n\n"
        );
        for parameters in &unit.parameters {
            text.push_str(parameters);
            text.push('\n');
        }
        self.pointers(&mut text, &self.program.inputs, "input", "");
        self.pointers(&mut text, &self.program.outputs, "output", "const ");
        self.init(&mut text);
        let _ = write!(text, "\nvoid {p}_invoke(void)\n{{\n");
        for (n, (call, step)) in calls.iter().zip(&self.program.steps).enumerate() {
            let name = in_comment(&step.name);
            let _ = write!(
                text,
                "    /* {}: {name} */\n    {u}_STEP({n}u);\n    ",
                step.op
            );
            text.push_str(&call.replace('\n', "\n    "));
            text.push('\n');
        }
        let _ = write!(text, "    {u}_STEP({u}_LAYERS);\n}}\n");
        text
    }

    /// The functions that tell where inputs or outputs lie.
    fn pointers(&self, text: &mut String, ports: &[Port], way: &str, cv: &str) {
        let p = &self.prefix;
        for port in ports {
            let element = self.program.buffers[port.buffer].element;
            let at = pointer(p, element, self.memory.offsets[port.buffer]);
            let _ = write!(
                text,
                "\n{cv}{} *{p}_{way}_{}(void)\n{{\n    return {at};\n}}\n",
                element.c(),
                port.c_name
            );
        }
    }

    /// The function that makes the network ready: zeros, and what stands for 0 in states.
    fn init(&self, text: &mut String) {
        let p = &self.prefix;
        let _ = write!(
            text,
            "\nvoid {p}_init(void)\n{{\n    (void)memset({p}_arena.bytes, 0, sizeof({p}_arena.bytes));\n"
        );
        for state in &self.program.states {
            let buffer = &self.program.buffers[state.read];
            if let Some(grid) = buffer.grid.filter(|g| g.zero != 0) {
                let at = self.memory.offsets[state.read];
                let _ = writeln!(
                    text,
                    "    (void)memset(&{p}_arena.bytes[{at}], {}, {}u);",
                    grid.zero,
                    buffer.bytes()
                );
            }
        }
        text.push_str("}\n");
    }

    /// The kernels that steps ask for.
    fn kernels(&self, unit: &Unit) -> String {
        let u = self.upper();
        let names: Vec<&str> = unit.kernels.iter().copied().collect();
        format!(
            "/* Kernels that {}.c uses. */\n#ifndef {u}_KERNELS_H\n#define {u}_KERNELS_H\n\n{}\n#endif\n",
            self.prefix,
            kernels::text(self.flavour, &names, &self.prefix)
        )
    }

    /// The numbers in flash.
    fn constants(&self, unit: &Unit) -> String {
        let u = self.upper();
        let mut text = format!(
            "/* Constants of {}.c. */\n#ifndef {u}_WEIGHTS_H\n#define {u}_WEIGHTS_H\n\n\
             #include <stdint.h>\n\n\
             /* {u}_WEIGHTS_SECTION, a string, puts them into a section of the linker script. */\n\
             #if defined({u}_WEIGHTS_SECTION)\n\
             #define {u}_IN_FLASH __attribute__((aligned(16), section({u}_WEIGHTS_SECTION)))\n\
             #elif defined(__GNUC__)\n#define {u}_IN_FLASH __attribute__((aligned({})))\n\
             #else\n#define {u}_IN_FLASH\n#endif\n",
            self.prefix,
            if self.flavour == Flavour::Mve { 16 } else { 4 },
        );
        for (name, constant) in &unit.constants {
            let _ = write!(
                text,
                "\nstatic const {} {name}[{}] {u}_IN_FLASH = {{{}\n}};\n",
                constant.c,
                constant.numbers.len(),
                lines(&constant.numbers)
            );
        }
        text.push_str("\n#endif\n");
        text
    }
}

/// A name from a file, fit for a comment of C.
fn in_comment(name: &str) -> String {
    let plain = |c: char| if c.is_control() || c == '\\' { '?' } else { c };
    let name: String = name.chars().map(plain).collect();
    name.replace("*/", "* /").replace("/*", "/ *")
}

/// A place in the arena as a pointer.
fn pointer(prefix: &str, element: Element, offset: usize) -> String {
    match element {
        Element::I8 => format!("&{prefix}_arena.bytes[{offset}]"),
        other => format!("({} *)(void *)&{prefix}_arena.bytes[{offset}]", other.c()),
    }
}

/// The steps of a program, for reports.
fn layers(program: &Program, memory: &Memory) -> Vec<LayerReport> {
    let last = program.last_reads();
    let mut first = vec![0; program.buffers.len()];
    for (n, step) in program.steps.iter().enumerate() {
        first[step.write] = n;
    }
    let of = |(n, step): (usize, &Step)| {
        let cost = step.layer.cost();
        // Bytes that lie over each other count once.
        let mut spans: Vec<(usize, usize)> = (0..program.buffers.len())
            .filter(|&b| first[b] <= n && (n <= last[b] || b == step.write))
            .map(|b| {
                (
                    memory.offsets[b],
                    memory.offsets[b] + program.buffers[b].bytes(),
                )
            })
            .collect();
        spans.sort_unstable();
        let mut alive = 0;
        let mut until = 0;
        for (from, to) in spans {
            alive += to.saturating_sub(from.max(until));
            until = until.max(to);
        }
        LayerReport {
            name: step.name.clone(),
            op: step.op.clone(),
            kernel: step.layer.kernel(),
            macs: cost.macs,
            weights: cost.weights,
            bytes: program.buffers[step.write].bytes(),
            alive: alive + memory.scratch[n].map_or(0, |(_, bytes)| bytes),
        }
    };
    program.steps.iter().enumerate().map(of).collect()
}
