//! Builds the driver of the tests for the host and for boards under QEMU, and runs it.

use edgesmith_codegen::kernels::{Flavour, KERNELS, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A core under QEMU, and the compiler for it.
pub struct Board {
    /// What it is called here.
    pub name: &'static str,
    /// QEMU's machine.
    pub machine: &'static str,
    /// The compiler.
    pub compiler: &'static str,
    /// What tells the compiler the core.
    pub core: &'static [&'static str],
    /// Which text it takes.
    pub flavour: Flavour,
    /// Levels of optimisation.
    pub levels: &'static [&'static str],
}

const LEVELS: &[&str] = &["-O2", "-Os", "-O0"];
const M4: &[&str] = &["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"];
const M55: &[&str] = &["-mcpu=cortex-m55", "-mfloat-abi=hard"];
const CLANG: &[&str] = &[
    "--target=arm-none-eabi",
    "-mcpu=cortex-m55",
    "-mfloat-abi=hard",
];

/// The boards that the tests run on.
pub static BOARDS: &[Board] = &[
    Board {
        name: "m3",
        machine: "mps2-an385",
        compiler: "arm-none-eabi-gcc",
        core: &["-mcpu=cortex-m3"],
        flavour: Flavour::C,
        levels: &["-O2"],
    },
    Board {
        name: "m4",
        machine: "mps2-an386",
        compiler: "arm-none-eabi-gcc",
        core: M4,
        flavour: Flavour::Dsp,
        levels: LEVELS,
    },
    Board {
        name: "m4-soft",
        machine: "mps2-an386",
        compiler: "arm-none-eabi-gcc",
        core: &["-mcpu=cortex-m4", "-mfloat-abi=soft"],
        flavour: Flavour::Dsp,
        levels: &["-O2"],
    },
    Board {
        name: "m7",
        machine: "mps2-an500",
        compiler: "arm-none-eabi-gcc",
        core: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"],
        flavour: Flavour::Dsp,
        levels: &["-O2"],
    },
    Board {
        name: "m4-clang",
        machine: "mps2-an386",
        compiler: "clang-22",
        core: &[
            "--target=arm-none-eabi",
            "-mcpu=cortex-m4",
            "-mfloat-abi=hard",
        ],
        flavour: Flavour::Dsp,
        levels: LEVELS,
    },
    Board {
        name: "m55",
        machine: "mps3-an547",
        compiler: "arm-none-eabi-gcc",
        core: M55,
        flavour: Flavour::Mve,
        levels: LEVELS,
    },
    Board {
        name: "m55-clang",
        machine: "mps3-an547",
        compiler: "clang-22",
        core: CLANG,
        flavour: Flavour::Mve,
        levels: LEVELS,
    },
];

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernels-{name}"));
    fs::create_dir_all(&path).unwrap();
    path
}

/// What a program wrote.
pub fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    all.lines().take(40).collect::<Vec<_>>().join("\n")
}

/// Whether a kernel is on f16, which not every core here knows and no case of the driver calls.
fn halves(name: &str) -> bool {
    name.ends_with("_f16") || name.ends_with("half")
}

/// Writes the kernels beside the program that it returns.
fn source(folder: &Path, flavour: Flavour, head: &str, main: &str) -> String {
    let names: Vec<&str> = KERNELS
        .iter()
        .map(|k| k.name)
        .filter(|n| !halves(n))
        .collect();
    fs::write(folder.join("kernels.h"), text(flavour, &names, "es")).unwrap();
    let driver =
        include_str!("driver.c").replace("#include \"calls.inc\"", include_str!("calls.inc"));
    ["#include \"kernels.h\"", head, &driver, main].join("\n")
}

/// Runs the cases on this machine, with words defined; nothing where there is no compiler.
pub fn host(flavour: Flavour, defines: &[&str], blob: &[u8]) -> Option<Output> {
    let folder = folder(&["host", &defines.join("-")].concat());
    let (c, cases, program) = (folder.join("t.c"), folder.join("t.bin"), folder.join("t"));
    fs::write(
        &c,
        source(
            &folder,
            flavour,
            include_str!("host.c"),
            include_str!("host_main.c"),
        ),
    )
    .unwrap();
    fs::write(&cases, blob).unwrap();
    let built = Command::new("cc")
        .args([
            "-std=c99",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wpedantic",
            "-Wno-unused-function",
        ])
        .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        .args(defines.iter().map(|d| format!("-D{d}")))
        .arg("-o")
        .arg(&program)
        .arg(&c)
        .arg("-lm")
        .output()
        .ok()?;
    assert!(built.status.success(), "{}", shown(&built));
    Some(Command::new(&program).arg(&cases).output().unwrap())
}

/// Runs the cases on a board.
pub fn board(board: &Board, level: &str, blob: &[u8]) -> Output {
    let folder = folder(board.name);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/board");
    let (c, cases, program) = (
        folder.join("t.c"),
        folder.join("t.bin"),
        folder.join("t.elf"),
    );
    let text = source(
        &folder,
        board.flavour,
        include_str!("board_head.c"),
        include_str!("board_main.c"),
    );
    fs::write(&c, text).unwrap();
    fs::write(&cases, blob).unwrap();
    let object = folder.join("t.o");
    let built = Command::new(board.compiler)
        .args(board.core)
        .args([
            level,
            "-std=c99",
            "-mthumb",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wpedantic",
            "-Wno-unused-function",
        ])
        .args(["-ffreestanding", "-c", "-isystem"])
        .arg(&here)
        .arg(format!("-DBLOB=\"{}\"", cases.display()))
        .args([Path::new("-o"), &object, &c])
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{} {level}: {}",
        board.name,
        shown(&built)
    );
    let core = match (board.compiler, board.flavour) {
        ("arm-none-eabi-gcc", _) => board.core,
        (_, Flavour::Mve) => M55,
        _ => M4,
    };
    let linked = Command::new("arm-none-eabi-gcc")
        .args(core)
        .args([
            "-O2",
            "-ffreestanding",
            "-fno-tree-loop-distribute-patterns",
            "-mthumb",
            "-nostdlib",
        ])
        .args(["-Wl,--no-warn-rwx-segments", "-T"])
        .arg(here.join("link.ld"))
        .args([Path::new("-o"), &program, &object, &here.join("start.c")])
        .arg("-lgcc")
        .output()
        .unwrap();
    assert!(
        linked.status.success(),
        "{} {level}: {}",
        board.name,
        shown(&linked)
    );
    Command::new("timeout")
        .args(["120", "qemu-system-arm", "-M", board.machine])
        .args(["-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(&program)
        .output()
        .unwrap()
}
