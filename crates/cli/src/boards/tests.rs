//! A network written by hand, on every board.

use super::*;
use edgesmith_codegen::boards::{self, Port};
use edgesmith_ir::NoProgress;

const NETWORK: &str = include_str!("../../tests/data/tiny.c");

fn firmware(network: &str) -> Vec<(String, String)> {
    let header = include_str!("../../tests/data/tiny.h");
    vec![
        ("tiny.h".into(), header.into()),
        ("tiny.c".into(), network.into()),
    ]
}

fn interface() -> Interface {
    let port = |name: &str, bytes| Port {
        name: name.into(),
        c_name: name.into(),
        bytes,
    };
    Interface {
        prefix: "tiny".into(),
        inputs: vec![port("x", 8)],
        outputs: vec![port("sums", 16), port("copy", 8)],
        layers: 2,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let sample = |s: i32| (0..8).map(|i| (s * 37 + i * 11 - 90) as i8 as u8).collect();
    (0..5).map(sample).collect()
}

fn expected(sample: &[u8]) -> Vec<u8> {
    let rows: [[i32; 8]; 4] = [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [-1, 2, -3, 4, -5, 6, -7, 8],
        [0, 0, 0, 0, 0, 0, 0, 127],
        [-128, 0, 0, 0, 0, 0, 0, 0],
    ];
    let sum = |row: &[i32; 8]| -> i32 {
        let products = row.iter().zip(sample).map(|(w, &x)| w * i32::from(x as i8));
        2 * products.sum::<i32>()
    };
    let sums = rows.iter().flat_map(|row| sum(row).to_le_bytes());
    sums.chain(sample.iter().copied()).collect()
}

fn settings(board: &'static Board, compiler: &'static Compiler) -> Run<'static> {
    Run {
        board,
        compiler,
        optimize: "O2",
        sanitize: false,
        by_layer: true,
        limit: Duration::from_secs(60),
        jobs: 2,
        progress: &NoProgress,
    }
}

fn host() -> Run<'static> {
    let board = boards::find("host").unwrap();
    settings(board, board.compiler("gcc").unwrap())
}

fn error(network: &str, settings: &Run) -> String {
    let result = run(&firmware(network), &interface(), &samples(), settings);
    result.err().unwrap().to_string()
}

fn expect(settings: &Run) -> Measured {
    let measured = run(&firmware(NETWORK), &interface(), &samples(), settings).unwrap();
    let all: Vec<Vec<u8>> = samples().iter().map(|s| expected(s)).collect();
    assert_eq!(measured.outputs, all, "{}", settings.board.name);
    assert_eq!(measured.arena, 24);
    measured
}

#[test]
fn the_host_gives_the_outputs_of_every_sample() {
    assert!(expect(&host()).board.is_none());
}

#[test]
#[ignore = "needs the sanitizers of gcc"]
fn the_sanitizers_find_what_is_not_sound() {
    let sanitized = Run {
        sanitize: true,
        ..host()
    };
    expect(&sanitized);
    let beyond = NETWORK.replace("tiny_arena.words[2U + i] =", "tiny_arena.words[3U + i] =");
    let said = error(&beyond, &sanitized);
    assert!(said.contains("the generated code is not sound"), "{said}");
}

#[test]
fn code_with_a_warning_or_a_call_of_the_library_is_refused() {
    let said = error(
        &NETWORK.replace("uint32_t j;", "uint32_t j;\n int unused;"),
        &host(),
    );
    assert!(
        said.contains("does not compile") && said.contains("unused"),
        "{said}"
    );
    if cfg!(target_os = "linux") {
        let calls = NETWORK.replace("2 * sums[i]", "2 * abs(sums[i])");
        let calls = calls.replace("void tiny_init", "int labs_(int);\nvoid tiny_init");
        let said = error(&calls.replace("abs(", "labs_("), &host());
        assert!(said.contains("the generated code calls labs_"), "{said}");
    }
}

#[test]
#[ignore = "needs a compiler of C++"]
fn a_header_that_is_no_cpp_is_refused() {
    let mut files = firmware(NETWORK);
    files[0].1 = files[0].1.replace(
        "void tiny_init(void);",
        "void tiny_init(void);\nextern int class;",
    );
    let result = run(&files, &interface(), &samples(), &host());
    let said = result.err().unwrap().to_string();
    assert!(said.contains("the generated header is no C++"), "{said}");
}

#[test]
fn samples_of_another_size_and_no_samples_are_refused() {
    let run = |samples: &[Vec<u8>]| run(&firmware(NETWORK), &interface(), samples, &host());
    assert!(run(&[]).is_err() && run(&[vec![0; 7]]).is_err());
}

#[test]
#[cfg(unix)]
fn a_network_that_hangs_is_ended() {
    let hangs = NETWORK.replace("LAYER(0U);", "for (;;) { sums[0] = 1; }");
    let short = Run {
        limit: Duration::from_millis(300),
        ..host()
    };
    let said = error(&hangs, &short);
    assert!(said.contains("it took more than"), "{said}");
}

#[test]
#[ignore = "needs the compilers and emulators of every board"]
fn every_board_and_compiler_gives_the_outputs_and_exact_counts() {
    for board in boards::BOARDS.iter().filter(|b| b.machine.is_some()) {
        for compiler in board.compilers {
            let mut run = settings(board, compiler);
            run.optimize = if compiler.name == "gcc" { "O2" } else { "Os" };
            let name = format!("{} {} {}", board.name, compiler.name, run.optimize);
            let found = expect(&run).board.unwrap();
            let (least, most) = found.instructions;
            let layers: u64 = found.layers.iter().sum();
            assert_eq!(least, most, "{name}");
            assert_eq!(found.layers.len(), 2, "{name}");
            assert!(
                layers >= 32 && layers < most + 20,
                "{name}: {layers} of {most}"
            );
            assert!(
                found.stack >= 16 && found.stack < 128,
                "{name}: {}",
                found.stack
            );
            let flash = found.flash;
            assert_eq!(
                (flash.weights, flash.data, found.ram),
                (32, 4, 28),
                "{name}"
            );
            assert!(
                flash.code > 50 && flash.code < 600,
                "{name}: {}",
                flash.code
            );
            let own = found.functions.iter().find(|f| f.0 == "tiny_invoke");
            assert!(own.is_some_and(|f| f.1 >= layers), "{name}");
        }
    }
}

#[test]
#[ignore = "needs the compilers and emulators of every board"]
fn a_fault_on_a_board_is_told() {
    let faults = NETWORK.replace("LAYER(0U);", "__builtin_trap();");
    for name in ["cortex-m4", "cortex-m33", "cortex-m55", "rv32"] {
        let board = boards::find(name).unwrap();
        let said = error(&faults, &settings(board, board.compilers[0]));
        assert!(
            said.contains("the board faults in tiny_invoke"),
            "{name}: {said}"
        );
    }
    let hangs = NETWORK.replace("LAYER(0U);", "for (;;) { sums[0] = 1; }");
    let board = boards::find("cortex-m4").unwrap();
    let mut short = settings(board, board.compilers[0]);
    short.limit = Duration::from_millis(500);
    assert!(error(&hangs, &short).contains("it took more than"));
}

#[test]
#[ignore = "needs the compilers and emulators of every board"]
fn what_is_larger_than_the_memory_of_a_board_is_told() {
    let board = boards::find("cortex-m55").unwrap();
    let settings = settings(board, board.compiler("gcc").unwrap());
    let array = "static const volatile int8_t tiny_large[600000] = {1};\n\nstatic union {";
    let large = NETWORK.replace("static union {", array);
    let large = large.replace("LAYER(0U);", "sums[0] = tiny_large[7];\n    LAYER(0U);");
    let said = error(&large, &settings);
    assert!(
        said.contains("larger than the memory of this board"),
        "{said}"
    );
    let array = "volatile int8_t large[40000];\n    volatile int32_t sums[4];";
    let deep = NETWORK.replace("volatile int32_t sums[4];", array);
    let deep = deep.replace(
        "LAYER(0U);",
        "for (i = 0U; i < 40000U; i++) { large[i] = 0; }\n    sums[0] = large[9];\n    LAYER(0U);",
    );
    let said = error(&deep, &settings);
    assert!(
        said.contains("the stack of 32768 bytes does not suffice"),
        "{said}"
    );
}

#[test]
#[ignore = "needs the compilers and emulators of every board"]
fn a_loop_of_two_instructions_is_counted_exactly_and_in_its_layer() {
    for (name, code) in [
        (
            "cortex-m0plus",
            ".syntax unified\\n ldr r3, =@\\n 1: subs r3, r3, #1\\n bne 1b\" ::: \"r3\", \"cc\"",
        ),
        (
            "cortex-m55",
            ".syntax unified\\n ldr r3, =@\\n 1: subs r3, r3, #1\\n bne 1b\" ::: \"r3\", \"cc\"",
        ),
        (
            "rv32",
            "li t0, @\\n 1: addi t0, t0, -1\\n bnez t0, 1b\" ::: \"t0\"",
        ),
    ] {
        let board = boards::find(name).unwrap();
        let settings = settings(board, board.compilers[0]);
        let counts = |times: &str| {
            let line = format!("LAYER(1U);\n    __asm__ volatile(\"{code});").replace('@', times);
            let network = NETWORK.replace("LAYER(1U);", &line);
            let measured = run(
                &firmware(&network),
                &interface(),
                &samples()[..1],
                &settings,
            );
            let board = measured.unwrap().board.unwrap();
            (board.instructions.1, board.layers)
        };
        // Both take as many instructions to load.
        let (few, few_layers) = counts("100000");
        let (many, many_layers) = counts("1100000");
        assert_eq!(many - few, 2_000_000, "{name}");
        assert_eq!(many_layers[1] - few_layers[1], 2_000_000, "{name}");
        assert_eq!(many_layers[0], few_layers[0], "{name}");
    }
}
