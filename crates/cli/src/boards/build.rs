//! Compiling and linking generated code, and what may be in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use edgesmith_codegen::boards::{self, Board, Compiler, Interface, Machine};
use edgesmith_ir::{Error, Progress, Result};

use super::elf::Elf;
use super::process::{self, refused};
use super::{Flash, Run, tools, write};

/// How long a compiler may take for one file.
const PATIENCE: Duration = Duration::from_secs(600);

/// Flags of every file. Each function and constant is in a section of its own, so that what is not called is
/// left out; C needs no tables for unwinding.
const FLAGS: &[&str] = &[
    "-std=c99",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
];

/// Generated code is clean of warnings.
const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

const SANITIZE: &[&str] = &[
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-g",
];

/// Stems of the names of functions that compilers call for arithmetic that a core does not have.
const ARITHMETIC: &[&str] = &[
    "__aeabi_",
    "__gnu_",
    "__mul",
    "__div",
    "__mod",
    "__udiv",
    "__umod",
    "__ash",
    "__lsh",
    "__add",
    "__sub",
    "__neg",
    "__cmp",
    "__eq",
    "__ne",
    "__ge",
    "__gt",
    "__le",
    "__lt",
    "__unord",
    "__fix",
    "__float",
    "__extend",
    "__trunc",
    "__clz",
    "__ctz",
    "__popcount",
    "__bswap",
    "__riscv_save",
    "__riscv_restore",
];

/// What compilers of hosts add.
const OF_HOSTS: &[&str] = &[
    "_GLOBAL_OFFSET_TABLE_",
    "__stack_chk_",
    "__asan_",
    "__ubsan_",
    "__x86_",
    "__fentry__",
];

/// A firmware in a folder, and the tools for it.
pub struct Build<'a> {
    settings: &'a Run<'a>,
    folder: &'a Path,
    interface: &'a Interface,
    /// Files of C of the network.
    networks: Vec<&'a str>,
    compiler: PathBuf,
    /// The emulator and its plugin.
    pub emulator: Option<(PathBuf, PathBuf)>,
}

/// A linked program.
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it; `None` where this machine's programs are not ELF.
    pub elf: Option<Elf>,
}

impl<'a> Build<'a> {
    /// Finds the tools, and writes the files of the board to `folder`, where those of the firmware are.
    ///
    /// # Errors
    /// When a tool is missing, or a file cannot be written.
    pub fn new(
        settings: &'a Run<'a>,
        folder: &'a Path,
        interface: &'a Interface,
        files: &'a [(String, String)],
    ) -> Result<Self> {
        let compiler = tools::find(settings.compiler.program)?;
        let names = files.iter().map(|(name, _)| name.as_str());
        let mut build = Self {
            settings,
            folder,
            interface,
            networks: names.filter(|n| n.ends_with(".c")).collect(),
            compiler,
            emulator: None,
        };
        for (name, text) in boards::files(settings.board) {
            write(folder, name, text.as_bytes())?;
        }
        if let Some(machine) = settings.board.machine {
            build.emulator = Some(build.plugin(machine)?);
        }
        Ok(build)
    }

    fn plugin(&self, machine: &Machine) -> Result<(PathBuf, PathBuf)> {
        let emulator = tools::find(machine.emulator)?;
        let cc = tools::find(boards::PLUGIN_COMPILER)?;
        write(self.folder, "plugin.c", boards::plugin().as_bytes())?;
        let mut command = Command::new(cc);
        let api = tools::plugin_api(&emulator);
        command.args(["-O2", "-shared", "-fPIC", &format!("-DAPI={api}")]);
        if cfg!(target_os = "macos") {
            command.args(["-undefined", "dynamic_lookup"]);
        }
        command.args(["plugin.c", "-o", "plugin.so"]);
        self.succeed(&mut command, "plugin.c", &|said| {
            Error::internal(format!("the plugin of QEMU does not compile: {said}"))
        })?;
        Ok((emulator, self.folder.join("plugin.so")))
    }

    /// The board.
    pub fn board(&self) -> &'static Board {
        self.settings.board
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        self.folder
    }

    /// Who learns that the work should stop.
    pub fn progress(&self) -> &dyn Progress {
        self.settings.progress
    }

    /// What the compiler says of its version.
    pub fn version(&self) -> String {
        tools::version(&self.compiler)
    }

    /// Bytes of the outputs of one sample.
    pub fn answer_bytes(&self) -> usize {
        self.interface.answer_bytes()
    }

    /// The function that is called between layers.
    pub fn mark(&self) -> String {
        format!("{}_mark", self.interface.prefix)
    }

    /// Compiles everything, with marks between layers where `marks`, and links it.
    ///
    /// # Errors
    /// When the code has a warning, calls what it may not, or is larger than the board.
    pub fn program(&self, marks: bool) -> Result<Program> {
        let upper = self.interface.macro_prefix();
        let mut macros = vec![format!("-D{upper}_WEIGHTS_SECTION=\".rodata.weights\"")];
        if marks {
            macros.push(format!("-D{upper}_PROFILE={}", self.mark()));
        }
        if self.settings.board.machine.is_none() {
            // Sections of other systems have names of other forms.
            macros.remove(0);
        }
        let macros: Vec<&str> = macros.iter().map(String::as_str).collect();
        let strict = [STRICT, &macros].concat();
        let optimize = format!("-{}", self.settings.optimize);
        let mut objects = Vec::new();
        for (i, source) in self.networks.iter().enumerate() {
            let object = format!("network_{i}.o");
            self.compile(source, &object, &optimize, &strict)?;
            objects.push(object);
        }
        self.check_calls(&objects, marks)?;
        self.check_header()?;
        let mut no_loops = vec!["-fno-builtin"];
        if self.settings.compiler.name == "gcc" {
            // The loop of a memcpy is no call of memcpy.
            no_loops.push("-fno-tree-loop-distribute-patterns");
        }
        for source in boards::sources(self.settings.board) {
            let object = source.replace(".c", ".o");
            self.compile(source, &object, "-O2", &no_loops)?;
            objects.push(object);
        }
        self.compile("main.c", "main.o", "-O2", &macros)?;
        objects.push("main.o".into());
        self.link(&objects, if marks { "marked.elf" } else { "plain.elf" })
    }

    fn cc(&self) -> Command {
        let Compiler { target, flags, .. } = self.settings.compiler;
        let mut command = Command::new(&self.compiler);
        command.args(*target).args(*flags);
        if self.settings.sanitize {
            command.args(SANITIZE);
        }
        command
    }

    fn compile(&self, source: &str, object: &str, optimize: &str, more: &[&str]) -> Result<()> {
        let mut command = self.cc();
        command.args(FLAGS).arg(optimize).args(more).arg("-I.");
        if self.settings.board.machine.is_some() {
            command.args(["-isystem", "include"]);
        }
        command.args(["-c", source, "-o", object]);
        self.succeed(&mut command, source, &|said| {
            Error::internal(format!("the generated code does not compile: {said}")).at(source)
        })
    }

    /// The header is C++ too. A compiler of C alone cannot say.
    fn check_header(&self) -> Result<()> {
        let header = format!("{}.h", self.interface.prefix);
        let mut command = self.cc();
        if self.settings.board.machine.is_some() {
            command.args(["-isystem", "include"]);
        }
        command.args(["-x", "c++", "-std=c++11", "-fsyntax-only"]);
        command
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .arg(&header);
        if self.settings.compiler.name == "clang" {
            command.arg("-Wno-pragma-once-outside-header");
        }
        let ended = process::run(
            &mut command,
            self.folder,
            "header",
            PATIENCE,
            self.settings.progress,
        )?;
        let has_no_cpp = ended.said.contains("cc1plus");
        match ended.status.success() || has_no_cpp {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "the generated header is no C++: {}",
                complaints(&ended.said)
            ))
            .at(header)),
        }
    }

    /// Generated code calls nothing but what it has to.
    fn check_calls(&self, objects: &[String], marks: bool) -> Result<()> {
        let elves: Vec<Elf> = objects
            .iter()
            .filter_map(|o| Elf::read(&std::fs::read(self.folder.join(o)).ok()?))
            .collect();
        let is_on_host = self.settings.board.machine.is_none();
        let mark = self.mark();
        for elf in &elves {
            for name in elf.undefined() {
                let is_known = elves.iter().any(|e| e.find(name).is_some())
                    || ["memcpy", "memset"].contains(&name)
                    || marks && name == mark
                    || ARITHMETIC.iter().any(|stem| name.starts_with(stem))
                        && !name.contains("memmove")
                    || is_on_host && OF_HOSTS.iter().any(|stem| name.starts_with(stem));
                if !is_known {
                    return Err(Error::internal(format!(
                        "the generated code calls {name}: it may call memcpy and memset only"
                    )));
                }
            }
        }
        Ok(())
    }

    fn link(&self, objects: &[String], output: &str) -> Result<Program> {
        let mut command = self.cc();
        if self.settings.board.machine.is_some() {
            command.args(["-nostdlib", "-T", "board.ld", "-Wl,--gc-sections"]);
            if self.settings.compiler.program.linker.is_some() {
                command.arg("-fuse-ld=lld");
            }
        }
        command.args(objects).args(["-o", output]);
        match self.settings.compiler.arithmetic {
            Some(other) => {
                command.args(tools::arithmetic(other, self.settings.compiler.flags));
            }
            None if self.settings.board.machine.is_some() => {
                command.arg("-lgcc");
            }
            None => {}
        }
        self.succeed(&mut command, "link", &|said| {
            let error = Error::invalid(format!("the program cannot be linked: {said}"));
            match said.contains("overflowed") || said.contains("do not fit") {
                true => error.hint("the network is larger than the memory of this board"),
                false => error,
            }
        })?;
        let path = self.folder.join(output);
        let bytes = std::fs::read(&path).map_err(|e| refused(&e, &path))?;
        Ok(Program {
            elf: Elf::read(&bytes),
            path,
        })
    }

    /// Runs a tool, of which an error has the first complaints.
    fn succeed(
        &self,
        command: &mut Command,
        name: &str,
        error: &dyn Fn(&str) -> Error,
    ) -> Result<()> {
        let ended = process::run(command, self.folder, name, PATIENCE, self.settings.progress)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(error(&complaints(&ended.said))),
        }
    }
}

/// The first lines with an error, or else the first lines. That a linker has failed is no reason.
fn complaints(said: &str) -> String {
    let is_one = |l: &&str| {
        let words = [
            "error",
            "undefined",
            "overflow",
            "will not fit",
            "do not fit",
        ];
        words.iter().any(|w| l.contains(w)) && !l.contains("exit")
    };
    let mut lines: Vec<&str> = said.lines().filter(is_one).take(4).collect();
    if lines.is_empty() {
        lines = said.lines().take(4).collect();
    }
    lines.join("\n")
}

impl Program {
    fn section(&self, name: &str) -> u64 {
        let sections = self.elf.iter().flat_map(|e| &e.sections);
        sections.filter(|s| s.name == name).map(|s| s.bytes).sum()
    }

    /// Bytes of flash of the network.
    pub fn flash(&self) -> Flash {
        Flash {
            code: self.section(".network.text"),
            weights: self.section(".network.weights"),
            constants: self.section(".network.rodata"),
            data: self.section(".network.data"),
            support: self.section(".support"),
        }
    }

    /// Bytes of variables of the network.
    pub fn ram(&self) -> u64 {
        self.section(".network.data") + self.section(".network.bss")
    }

    /// `START+BYTES` of a function, in hexadecimal.
    pub fn place(&self, function: &str) -> Option<String> {
        let symbol = self.elf.as_ref()?.find(function)?;
        Some(format!("{:x}+{:x}", symbol.address, symbol.bytes))
    }

    /// The function that an address is in, and whether it is one of the network, or called by it.
    pub fn function(&self, address: u64) -> Option<(&str, bool)> {
        let (symbol, section) = self.elf.as_ref()?.function(address)?;
        Some((
            &symbol.name,
            [".network.text", ".support"].contains(&section),
        ))
    }
}
