//! Boards on which generated code is proven: compilers, emulators and memory maps, and the C text that they need.

mod harness;
mod list;

use crate::kernels::Flavour;

pub use harness::{Interface, Port, harness};
pub use list::{BOARDS, PLUGIN_COMPILER};

/// A board, emulated by QEMU, or this machine.
pub struct Board {
    /// What the command line calls it.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The targets (`targets/NAME.toml`) whose code runs on it.
    pub targets: &'static [&'static str],
    /// The kernels whose instructions it has.
    pub flavours: &'static [Flavour],
    /// What runs its programs; `None` where they run by themselves.
    pub machine: Option<&'static Machine>,
    /// Compilers for it, best first.
    pub compilers: &'static [&'static Compiler],
}

/// An emulated machine.
pub struct Machine {
    /// The emulator.
    pub emulator: &'static Program,
    /// Its words that choose the machine.
    pub words: &'static [&'static str],
    /// How it starts.
    pub core: Core,
    /// Code, constants and first values of variables.
    pub flash: Memory,
    /// Variables and the stack.
    pub ram: Memory,
    /// Where weights are that flash has no room for; the same as flash where that is large.
    pub weights: Memory,
}

/// Words of QEMU for every machine: no windows, files of the host for the program, and time that counts
/// instructions, so that a run can be repeated exactly. `-kernel FILE` comes behind them.
pub static EMULATED: &[&str] = &[
    "-nographic",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-semihosting-config",
    "enable=on,target=native",
    "-icount",
    "shift=5",
];

/// Bytes at the end of RAM that are the stack's.
pub const STACK_BYTES: u64 = 32 << 10;

/// How a core starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// By a table of vectors.
    CortexM,
    /// At the first instruction of its flash.
    RiscV,
}

/// A region of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The first address.
    pub origin: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A compiler with its flags for one board.
pub struct Compiler {
    /// `gcc` or `clang`.
    pub name: &'static str,
    /// The program.
    pub program: &'static Program,
    /// Flags that choose the kind of processor, where the program knows several.
    pub target: &'static [&'static str],
    /// Flags that choose the core, for compiling and for linking.
    pub flags: &'static [&'static str],
    /// The compiler whose library of arithmetic is linked (`-print-libgcc-file-name`, asked with the same
    /// flags), where the program itself has none; code that calls no such functions does without.
    pub arithmetic: Option<&'static Program>,
}

/// A program that is to be installed, and how.
pub struct Program {
    /// Its names, best first.
    pub names: &'static [&'static str],
    /// The linker that it does not bring along.
    pub linker: Option<&'static str>,
    /// Packages of Debian and Ubuntu.
    pub apt: &'static str,
    /// What other systems call them.
    pub elsewhere: &'static str,
}

/// The board of that name.
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().copied().find(|b| b.name == name)
}

/// The board that runs the code of that target.
pub fn of_target(target: &str) -> Option<&'static Board> {
    BOARDS.iter().copied().find(|b| b.targets.contains(&target))
}

impl Board {
    /// The compiler of that name.
    pub fn compiler(&self, name: &str) -> Option<&'static Compiler> {
        self.compilers.iter().copied().find(|c| c.name == name)
    }
}

/// The names of the C files of a board that are compiled, in the order in which they are linked.
pub fn sources(board: &Board) -> &'static [&'static str] {
    match board.machine.map(|m| m.core) {
        None => &["board_host.c"],
        Some(_) => &["board_start.c", "board_calls.c", "board_memory.c"],
    }
}

/// The files of a board by their paths: C, headers (those in `include/` stand in for a C library) and the
/// linker script `board.ld`.
pub fn files(board: &Board) -> Vec<(&'static str, String)> {
    let header = ("board.h", include_str!("boards/board.h").to_owned());
    let Some(machine) = board.machine else {
        let host = include_str!("boards/host.c").to_owned();
        return vec![header, ("board_host.c", host)];
    };
    let start = match machine.core {
        Core::CortexM => include_str!("boards/start_arm.c"),
        Core::RiscV => include_str!("boards/start_riscv.c"),
    };
    let texts = [
        ("semihosting.h", include_str!("boards/semihosting.h")),
        ("include/stdint.h", include_str!("boards/stdint.h")),
        ("include/string.h", include_str!("boards/string.h")),
        ("board_start.c", start),
        ("board_calls.c", include_str!("boards/semihosting.c")),
        ("board_memory.c", include_str!("boards/memory.c")),
    ];
    let mut files = vec![header, ("board.ld", script(machine))];
    files.extend(texts.map(|(name, text)| (name, text.to_owned())));
    files
}

/// The plugin of QEMU that counts instructions: C for the machine on which QEMU runs, compiled with
/// `-DAPI=N` (see [`plugin_api`]).
pub fn plugin() -> &'static str {
    include_str!("boards/plugin.c")
}

/// The version of QEMU's interface of plugins that a release of QEMU takes.
pub fn plugin_api(major: u32) -> u32 {
    if major < 9 { 1 } else { 2 }
}

fn script(machine: &Machine) -> String {
    let (flash, ram, weights) = (machine.flash, machine.ram, machine.weights);
    let (more, alias) = match weights == flash {
        true => (String::new(), "REGION_ALIAS(\"WEIGHTS\", FLASH);\n"),
        false => {
            let Memory { origin, bytes } = weights;
            (
                format!("WEIGHTS (r) : ORIGIN = {origin:#x}, LENGTH = {bytes:#x}\n"),
                "",
            )
        }
    };
    format!(
        "ENTRY(board_reset)\n\
         MEMORY {{\n\
         FLASH (rx) : ORIGIN = {:#x}, LENGTH = {:#x}\n\
         RAM (rwx) : ORIGIN = {:#x}, LENGTH = {:#x}\n{more}\
         }}\n{alias}\
         board_stack_top = ORIGIN(RAM) + LENGTH(RAM);\n\
         board_stack_limit = board_stack_top - {:#x};\n{}",
        flash.origin,
        flash.bytes,
        ram.origin,
        ram.bytes,
        STACK_BYTES,
        include_str!("boards/sections.ld")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_have_names_of_their_own_and_each_target_one_board() {
        for (i, b) in BOARDS.iter().enumerate() {
            assert!(BOARDS[..i].iter().all(|o| o.name != b.name), "{}", b.name);
            for t in b.targets {
                assert_eq!(of_target(t).unwrap().name, b.name, "{t}");
            }
            assert!(!b.compilers.is_empty() && b.compiler("gcc").is_some());
        }
        assert!(find("z80").is_none());
    }

    #[test]
    fn every_source_of_a_board_is_among_its_files() {
        for b in BOARDS {
            let files = files(b);
            for s in sources(b) {
                assert!(files.iter().any(|(n, _)| n == s), "{}: {s}", b.name);
            }
        }
    }

    #[test]
    fn a_linker_script_has_the_map_of_its_machine() {
        let m33 = find("cortex-m33").unwrap();
        let (_, text) = files(m33).into_iter().find(|f| f.0 == "board.ld").unwrap();
        assert!(text.contains("FLASH (rx) : ORIGIN = 0x10000000, LENGTH = 0x400000"));
    }
}
