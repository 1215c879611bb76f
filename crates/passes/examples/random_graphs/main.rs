//! Optimises random models by seed and compares: `cargo run --release -p edgesmith-passes
//! --example random_graphs -- COUNT [FIRST_SEED]`.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

mod property;

use std::process::ExitCode;

use edgesmith_testkit::property::counterexamples;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    let mut words = std::env::args().skip(1).map(|w| w.parse().unwrap_or(0));
    let (count, first): (u64, u64) = (words.next().unwrap_or(1000), words.next().unwrap_or(0));
    let faults = counterexamples(
        first..first.saturating_add(count),
        10,
        &property::optimising_keeps_meaning,
    );
    for fault in &faults {
        println!("{fault}");
    }
    println!("{count} models from seed {first}: {} faults", faults.len());
    ExitCode::from(u8::from(!faults.is_empty()))
}
