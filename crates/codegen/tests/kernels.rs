//! The kernels in C against plain loops in Rust: on the host under sanitizers, and under QEMU.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]
#![allow(clippy::print_stderr, reason = "a test that could not be run says so")]

#[path = "kernels/build.rs"]
mod build;
#[path = "kernels/cases.rs"]
mod cases;
#[path = "kernels/multiply.rs"]
mod multiply;
#[path = "kernels/plain.rs"]
mod plain;
#[path = "kernels/real.rs"]
mod real;
#[path = "kernels/recurrent.rs"]
mod recurrent;

use cases::blob;
use edgesmith_codegen::kernels::Flavour;

fn all(flavour: Flavour) -> Vec<cases::Case> {
    let mut all = multiply::cases(flavour);
    all.extend(plain::cases());
    all.extend(real::cases());
    all.extend(recurrent::cases());
    all
}

#[test]
fn the_portable_kernels_are_the_plain_loops_under_sanitizers() {
    let cases = blob(&all(Flavour::C));
    for defines in [&[][..], &["ES_NARROW", "ES_BY_FOUR"]] {
        let Some(output) = build::host(Flavour::C, defines, &cases) else {
            eprintln!("no C compiler called cc: the kernels were not run");
            return;
        };
        assert!(
            output.status.success(),
            "{defines:?}: {}",
            build::shown(&output)
        );
    }
}

#[test]
#[ignore = "needs arm-none-eabi-gcc and qemu-system-arm"]
fn the_kernels_of_cortex_m_are_the_plain_loops() {
    for board in build::BOARDS {
        for level in board.levels {
            let cases = blob(&all(board.flavour));
            let output = build::board(board, level, &cases);
            assert!(
                output.status.success(),
                "{} {level}: {}",
                board.name,
                build::shown(&output)
            );
        }
    }
}
