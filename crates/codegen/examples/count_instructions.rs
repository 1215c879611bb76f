//! Instructions of the kernels in C on Cortex-M4 and Cortex-M55 under QEMU, one layer a line.
//!
//! `cargo run --release -p edgesmith-codegen --example count_instructions [WORD]...`: only the lines that hold
//! every word. Needs `arm-none-eabi-gcc` and `qemu-system-arm`; lines of clang need `clang-22`.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "count_instructions/layers.rs"]
mod layers;

use edgesmith_codegen::kernels::{Flavour, text};
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

/// A core, its compiler and the level of optimisation.
struct Core {
    name: &'static str,
    machine: &'static str,
    flavour: Flavour,
    compiler: &'static str,
    options: &'static [&'static str],
    /// Instructions of a tick of SysTick where an instruction takes a nanosecond.
    tick: f64,
}

const M4: &[&str] = &["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"];
const M3: &[&str] = &["-mcpu=cortex-m3"];
const M55: &[&str] = &["-mcpu=cortex-m55", "-mfloat-abi=hard"];
const M55_CLANG: &[&str] = &[
    "--target=arm-none-eabi",
    "-mcpu=cortex-m55",
    "-mfloat-abi=hard",
];

static CORES: &[Core] = &[
    Core {
        name: "m3",
        machine: "mps2-an385",
        flavour: Flavour::C,
        compiler: "arm-none-eabi-gcc",
        options: M3,
        tick: 40.0,
    },
    Core {
        name: "m4",
        machine: "mps2-an386",
        flavour: Flavour::Dsp,
        compiler: "arm-none-eabi-gcc",
        options: M4,
        tick: 40.0,
    },
    Core {
        name: "m55",
        machine: "mps3-an547",
        flavour: Flavour::Mve,
        compiler: "arm-none-eabi-gcc",
        options: M55,
        tick: 31.25,
    },
    Core {
        name: "m55-clang",
        machine: "mps3-an547",
        flavour: Flavour::Mve,
        compiler: "clang-22",
        options: M55_CLANG,
        tick: 31.25,
    },
];

fn done(output: &Output, what: &str) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout) + &text(&output.stderr))
    } else {
        let all = text(&output.stdout) + &text(&output.stderr);
        Err(format!("{what}: {all}"))
    }
}

fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(words).output();
    done(&output.map_err(|e| format!("{program}: {e}"))?, program)
}

/// Ticks of each layer, and bytes of code of the kernels.
fn measure(core: &Core, level: &str, chosen: &[&layers::Layer]) -> Result<Vec<f64>, String> {
    let folder = env::temp_dir().join(format!("edgesmith-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let board = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/board");
    let path = |name: &str| folder.join(name).display().to_string();
    let names: Vec<&str> = chosen.iter().map(|l| l.kernel).collect();
    let c = text(core.flavour, &names, "es") + &layers::program(core.flavour, chosen);
    fs::write(path("b.c"), c).map_err(|e| e.to_string())?;
    let include = board.display().to_string();
    let mut words = core.options.to_vec();
    let (source, object, elf) = (path("b.c"), path("b.o"), path("b.elf"));
    words.extend([
        level,
        "-std=c99",
        "-mthumb",
        "-ffreestanding",
        "-Wall",
        "-Wextra",
    ]);
    words.extend(["-isystem", &include, "-c", "-o", &object, &source]);
    run(core.compiler, &words)?;
    let (map, start) = (include.clone() + "/link.ld", include.clone() + "/start.c");
    let mut words = if core.flavour == Flavour::Mve {
        M55
    } else {
        core.options
    }
    .to_vec();
    words.extend([
        "-O2",
        "-ffreestanding",
        "-fno-tree-loop-distribute-patterns",
        "-mthumb",
    ]);
    words.extend([
        "-nostdlib",
        "-Wl,--no-warn-rwx-segments",
        "-T",
        &map,
        "-o",
        &elf,
    ]);
    words.extend([object.as_str(), &start, "-lgcc"]);
    run("arm-none-eabi-gcc", &words)?;
    let out = run(
        "qemu-system-arm",
        &[
            "-M",
            core.machine,
            "-nographic",
            "-monitor",
            "none",
            "-serial",
            "none",
            "-icount",
            "shift=0",
            "-semihosting-config",
            "enable=on,target=native",
            "-kernel",
            &elf,
        ],
    )?;
    if env::var_os("EDGESMITH_KEEP").is_none() {
        let _ = fs::remove_dir_all(&folder);
    }
    let ticks = out.lines().filter_map(|l| l.parse::<f64>().ok());
    Ok(ticks.map(|t| t * core.tick).collect())
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    println!("core level layer instructions multiplications each");
    for core in CORES {
        for level in ["-O2", "-Os"] {
            let chosen: Vec<&layers::Layer> = layers::LAYERS
                .iter()
                .filter(|l| {
                    let line = format!("{} {level} {} {}", core.name, l.kernel, l.name);
                    words.iter().all(|w| line.split(' ').any(|part| part == w))
                })
                .collect();
            if chosen.is_empty() {
                continue;
            }
            match measure(core, level, &chosen) {
                Ok(counts) => {
                    for (layer, count) in chosen.iter().zip(counts) {
                        let each = count / layer.work() as f64;
                        println!(
                            "{:9} {level} {:16} {:22} {count:>10.0} {:>9} {each:.3}",
                            core.name,
                            layer.kernel,
                            layer.name,
                            layer.work()
                        );
                    }
                }
                Err(text) => println!("{} {level}: {text}", core.name),
            }
        }
    }
}
