//! Several cases in one program, built and run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use edgesmith_codegen::boards::{self, Board, Compiler, EMULATED, Program};
use edgesmith_codegen::program::{self, Data};

use super::Made;

/// Seconds that a program may take.
const PATIENCE: &str = "120";

/// The outputs of each case.
///
/// # Errors
/// When the program does not compile, or does not end well.
pub fn run(cases: &[Made], board: &Board) -> Result<Vec<Vec<Vec<u8>>>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("edgesmith-conformance-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(folder.join("include"))?;
    let result = in_folder(cases, board, &folder);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn in_folder(cases: &[Made], board: &Board, folder: &Path) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut samples = Vec::new();
    for case in cases {
        for (name, text) in &case.firmware.files {
            std::fs::write(folder.join(name), text)?;
        }
        samples.extend(case.inputs.iter().flat_map(Data::to_bytes));
    }
    std::fs::write(folder.join("samples.bin"), &samples)?;
    std::fs::write(folder.join("main.c"), main(cases))?;
    for (name, text) in boards::files(board) {
        std::fs::write(folder.join(name), text)?;
    }
    build(cases, board, folder)?;
    let mut command = Command::new("timeout");
    command.arg(PATIENCE);
    match board.machine {
        None => {
            command.arg(folder.join("program"));
        }
        Some(machine) => {
            command.arg(found(machine.emulator)?);
            command
                .args(machine.words)
                .args(EMULATED)
                .args(["-kernel", "program"]);
        }
    }
    let output = command.current_dir(folder).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|l| l.contains("rror")).unwrap_or(&said);
    ensure!(
        output.status.success(),
        "it ends with {}: {first}",
        output.status
    );
    let bytes = std::fs::read(folder.join("outputs.bin"))?;
    let mut rest = &bytes[..];
    let mut all = Vec::new();
    for case in cases {
        let program = &case.firmware.program;
        let mut outputs = Vec::new();
        for port in &program.outputs {
            let part = rest.split_at_checked(program.buffers[port.buffer].bytes());
            let (part, more) = part.context("the program gave too few bytes")?;
            outputs.push(part.to_vec());
            rest = more;
        }
        all.push(outputs);
    }
    ensure!(rest.is_empty(), "the program gave too many bytes");
    Ok(all)
}

/// A program that reads the inputs of one case after those of another, and writes the outputs so.
fn main(cases: &[Made]) -> String {
    let mut text = String::from("#include \"board.h\"\n");
    let mut body = String::new();
    for case in cases {
        let p = &case.firmware.prefix;
        let program = &case.firmware.program;
        let bytes = |port: &program::Port| program.buffers[port.buffer].bytes();
        let _ = writeln!(text, "#include \"{p}.h\"");
        let _ = writeln!(body, "    {p}_init();");
        for port in &program.inputs {
            let (n, c) = (bytes(port), &port.c_name);
            let _ = writeln!(
                body,
                "    ok = ok && (board_read(in, {p}_input_{c}(), {n}u) == {n}u);"
            );
        }
        let _ = writeln!(body, "    {p}_invoke();");
        for port in &program.outputs {
            let (n, c) = (bytes(port), &port.c_name);
            let _ = writeln!(
                body,
                "    ok = ok && (board_write(out, {p}_output_{c}(), {n}u) == {n}u);"
            );
        }
    }
    let _ = write!(
        text,
        "int main(void) {{\n    int ok = 1;\n    int32_t in = board_open(\"samples.bin\", 0);\n    \
         int32_t out = board_open(\"outputs.bin\", 1);\n{body}    board_close(in);\n    board_close(out);\n    \
         return ok ? 0 : 3;\n}}\n"
    );
    text
}

/// Compiles the networks as one file, since each would take as long as all.
fn build(cases: &[Made], board: &Board, folder: &Path) -> Result<()> {
    let compiler = board.compilers.first().context("a board has a compiler")?;
    let program = found(compiler.program)?;
    let includes = cases
        .iter()
        .map(|c| format!("#include \"{}.c\"\n", c.firmware.prefix));
    std::fs::write(folder.join("networks.c"), includes.collect::<String>())?;
    let cc = || compile(board, compiler, &program, folder);
    let mut strict = cc();
    strict.args([
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-c",
        "networks.c",
    ]);
    succeed(&mut strict)?;
    let mut link = cc();
    link.args(boards::sources(board)).args([
        "-fno-builtin",
        "main.c",
        "networks.o",
        "-o",
        "program",
    ]);
    if board.machine.is_some() {
        link.args(["-nostdlib", "-T", "board.ld", "-Wl,--gc-sections"]);
        if compiler.name == "gcc" {
            link.arg("-fno-tree-loop-distribute-patterns").arg("-lgcc");
        } else {
            link.arg("-fuse-ld=lld");
        }
    }
    if let Some(other) = compiler.arithmetic {
        let asked = Command::new(found(other)?)
            .args(compiler.flags)
            .arg("-print-libgcc-file-name")
            .output()?;
        link.arg(String::from_utf8_lossy(&asked.stdout).trim());
    }
    succeed(&mut link)
}

/// The compiler in the folder, with what all that it compiles and links there has in common.
fn compile(board: &Board, compiler: &Compiler, program: &Path, folder: &Path) -> Command {
    let Compiler { target, flags, .. } = compiler;
    let mut command = Command::new(program);
    command.current_dir(folder).args(*target).args(*flags);
    command.args([
        "-std=c99",
        "-O1",
        "-I.",
        "-fno-unwind-tables",
        "-fno-asynchronous-unwind-tables",
    ]);
    match board.machine {
        None => command.args([
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]),
        Some(_) => command.args([
            "-isystem",
            "include",
            "-ffunction-sections",
            "-fdata-sections",
        ]),
    };
    command
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|l| l.contains("error")).unwrap_or(&said);
    ensure!(output.status.success(), "{first}");
    Ok(())
}

fn found(program: &Program) -> Result<PathBuf> {
    for name in program.names {
        if Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
        {
            return Ok(PathBuf::from(name));
        }
    }
    bail!(
        "{} is missing: `apt-get install {}`",
        program.names[0],
        program.apt
    )
}
