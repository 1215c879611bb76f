//! `edgesmith codegen --run`: its options, and what it shows.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};
use edgesmith_codegen::Firmware;
use edgesmith_codegen::boards::{self, BOARDS, Board, Compiler};
use edgesmith_formats::npz;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Progress};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::proof::{self, Proof, Samples, prove};
use super::{OnBoard, Run, tools};
use crate::ui;

/// Samples that are run where there is no other number.
const SAMPLES: usize = 16;

/// Random samples, at most.
const RANDOM: usize = 4096;

/// Functions that are shown.
const FUNCTIONS: usize = 12;

/// Adds the options.
pub fn args(command: clap::Command) -> clap::Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .requires("run")
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::SetTrue)
    };
    let names: Vec<&str> = BOARDS.iter().map(|b| b.name).collect();
    command
        .arg(switch(
            "run",
            "Build the code too, run it on the emulated board, compare every output, and measure",
        ))
        .arg(option("board", "B", "The board [default: that of the target]").value_parser(names))
        .arg(
            option(
                "compiler",
                "C",
                "The compiler [default: the best of the board]",
            )
            .value_parser(["gcc", "clang"]),
        )
        .arg(
            option(
                "optimize",
                "LEVEL",
                "What the compiler is to do [default: O2]",
            )
            .value_parser(["O2", "O3", "Os"]),
        )
        .arg(option(
            "input",
            "FILE.npz",
            "Samples for --run, and labels where there are some [default: random numbers]",
        ))
        .arg(
            option(
                "samples",
                "N",
                "How many samples run; 0 is all [default: 16]",
            )
            .value_parser(clap::value_parser!(usize)),
        )
        .arg(
            option(
                "limit",
                "SECONDS",
                "How long the board may take [default: 600]",
            )
            .value_parser(clap::value_parser!(u64)),
        )
        .arg(
            switch(
                "sanitize",
                "On the board host, with the sanitizers of addresses and undefined behaviour",
            )
            .requires("run"),
        )
}

/// What the options ask for.
pub struct Asked {
    board: &'static Board,
    compiler: &'static Compiler,
    optimize: String,
    sanitize: bool,
    limit: Duration,
    samples: Samples,
}

/// What the options ask for, with the samples read; `None` where nothing is to run.
///
/// # Errors
/// When they make no sense together, a tool is missing, or the samples do not fit.
pub fn read(matches: &ArgMatches, firmware: &Firmware, target: &str) -> Result<Option<Asked>> {
    if !matches.get_flag("run") {
        return Ok(None);
    }
    let word = |name| matches.get_one::<String>(name).map(String::as_str);
    let board = match word("board") {
        Some(name) => boards::find(name),
        None => boards::of_target(target),
    };
    let board = board.ok_or_else(|| {
        Error::usage(format!("no board has the processor of {target}"))
            .hint("name one: --board host, or one of `edgesmith codegen --help`")
    })?;
    let compiler = match word("compiler") {
        Some(name) => board.compiler(name),
        None => board.compilers.first().copied(),
    };
    let compiler = compiler.ok_or_else(|| Error::internal("a board has no compiler"))?;
    let sanitize = matches.get_flag("sanitize");
    if sanitize && board.machine.is_some() {
        return Err(Error::usage("sanitizers are there on the board host only")
            .hint("add --board host")
            .into());
    }
    proof::check(firmware, board)?;
    tools::find(compiler.program)?;
    if let Some(machine) = board.machine {
        tools::find(machine.emulator)?;
        tools::find(boards::PLUGIN_COMPILER)?;
    }
    let count = match matches.get_one::<usize>("samples") {
        None => SAMPLES,
        Some(0) => usize::MAX,
        Some(&n) => n,
    };
    let samples = match word("input") {
        Some(path) => {
            let arrays = npz::read(Path::new(path))?;
            Samples::of(&firmware.program, &arrays, count).at(|| path.to_owned())?
        }
        None => Samples::random(&firmware.program, count.min(RANDOM)),
    };
    Ok(Some(Asked {
        board,
        compiler,
        optimize: word("optimize").unwrap_or("O2").to_owned(),
        sanitize,
        limit: Duration::from_secs(matches.get_one("limit").copied().unwrap_or(600)),
        samples,
    }))
}

impl Asked {
    /// Builds and runs the firmware.
    ///
    /// # Errors
    /// As [`prove`].
    pub fn run(self, firmware: &Firmware) -> Result<Ran> {
        let bar = ui::Bar::default();
        bar.start(self.board.name, 0);
        // Samples of a network that keeps a state follow each other.
        let jobs = match firmware.program.states.as_slice() {
            [] => std::thread::available_parallelism().map_or(1, usize::from),
            _ => 1,
        };
        let proof = prove(
            firmware,
            &self.samples,
            &Run {
                board: self.board,
                compiler: self.compiler,
                optimize: &self.optimize,
                sanitize: self.sanitize,
                by_layer: self.board.machine.is_some(),
                limit: self.limit,
                jobs,
                progress: &bar,
            },
        );
        bar.finish();
        Ok(Ran {
            board: self.board,
            compiler: self.compiler,
            optimize: self.optimize,
            proof: proof?,
        })
    }
}

/// A run and how it was asked for.
pub struct Ran {
    board: &'static Board,
    compiler: &'static Compiler,
    optimize: String,
    proof: Proof,
}

impl Ran {
    /// An error where an output is wrong.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<()> {
        match &self.proof.first {
            None => Ok(()),
            Some(first) => Err(Error::internal(format!(
                "{} of {} samples have a wrong output on {}: {first}",
                self.proof.wrong, self.proof.samples, self.board.name
            ))
            .into()),
        }
    }

    /// Tables and sentences.
    pub fn text(&self, firmware: &Firmware) -> String {
        let proof = &self.proof;
        let measured = &proof.measured;
        let mut text = format!(
            "\nboard   {}: {}\nbuilt   {} -{}\n",
            self.board.name, self.board.about, measured.compiler, self.optimize
        );
        if let Some(board) = &measured.board {
            text += &on_board(board, firmware);
        }
        text += &format!(
            "equal   {} of {} samples, bit by bit",
            proof.equal, proof.samples
        );
        if proof.equal + proof.wrong < proof.samples {
            let near = proof.samples - proof.equal - proof.wrong;
            text += &format!("; {near} in floats that are near");
        }
        if let Some(right) = proof.right {
            let share = right as f64 / proof.samples as f64;
            text += &format!(
                "\nright   {right} of {}, {}",
                proof.samples,
                format::percent(share)
            );
        }
        text += &format!("\ntook    {:.1} s on this machine\n", measured.seconds);
        text
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let proof = &self.proof;
        let board = proof.measured.board.as_ref().map(|b| {
            let functions = b.functions.iter().map(|(name, n)| json!({"name": name, "instructions": n}));
            json!({
                "instructions_min": b.instructions.0,
                "instructions_max": b.instructions.1,
                "layers": b.layers,
                "functions": functions.collect::<Vec<_>>(),
                "stack_bytes": b.stack,
                "ram_bytes": b.ram,
                "flash": {
                    "code": b.flash.code, "weights": b.flash.weights, "constants": b.flash.constants,
                    "data": b.flash.data, "support": b.flash.support,
                    "without_weights": b.flash.without_weights(), "total": b.flash.total(),
                },
            })
        });
        json!({
            "board": self.board.name,
            "compiler": self.compiler.name,
            "compiler_version": proof.measured.compiler,
            "optimize": self.optimize,
            "arena_bytes": proof.measured.arena,
            "samples": proof.samples,
            "equal": proof.equal,
            "wrong": proof.wrong,
            "right": proof.right,
            "seconds": proof.measured.seconds,
            "measured": board,
        })
    }
}

fn on_board(board: &OnBoard, firmware: &Firmware) -> String {
    let whole = board.instructions.1.max(1);
    let mut layers = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::right("MACs"),
        Column::right("instructions"),
        Column::right("each MAC"),
        Column::right("share"),
    ]);
    let each = |n: u64, macs: u64| match macs {
        0 => String::new(),
        macs => format!("{:.2}", n as f64 / macs as f64),
    };
    for (layer, &n) in firmware.layers.iter().zip(&board.layers) {
        layers.row([
            layer.name.clone(),
            layer.op.clone(),
            format::count(layer.macs),
            format::grouped(n),
            each(n, layer.macs),
            format!("{} %", format::percent(n as f64 / whole as f64)),
        ]);
    }
    let mut functions = Table::new([Column::left("function"), Column::right("instructions")]);
    for (name, n) in board.functions.iter().take(FUNCTIONS) {
        functions.row([name.clone(), format::grouped(*n)]);
    }
    let style = ui::style();
    let (least, most) = board.instructions;
    let counts = match least == most {
        true => format::grouped(most),
        false => format!("{} to {}", format::grouped(least), format::grouped(most)),
    };
    let macs: u64 = firmware.layers.iter().map(|l| l.macs).sum();
    let flash = board.flash;
    let bytes = [
        flash.total(),
        flash.code,
        flash.constants + flash.data,
        flash.support,
        flash.weights,
    ]
    .map(format::grouped);
    let [total, code, constants, support, weights] = &bytes;
    format!(
        "{}\n{}\ncounted {counts} instructions an inference, {} each MAC\n\
         flash   {total} bytes: code {code}, constants {constants}, arithmetic and memory {support}, \
         weights {weights}\nRAM     {} bytes of variables, the arena among them, and {} of stack\n",
        layers.to_text(&style),
        functions.to_text(&style),
        each(most, macs),
        format::grouped(board.ram),
        format::grouped(board.stack),
    )
}
