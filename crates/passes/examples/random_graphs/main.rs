//! Optimises random models by seed and compares: `cargo run --release -p edgesmith-passes
//! --example random_graphs -- COUNT [FIRST_SEED]`.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

mod property;

use std::process::ExitCode;

use edgesmith_testkit::property::holds;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    let mut words = std::env::args().skip(1).map(|w| w.parse().unwrap_or(0));
    let (count, first): (u64, u64) = (words.next().unwrap_or(1000), words.next().unwrap_or(0));
    let mut faults = 0;
    let mut seed = first;
    while seed < first.saturating_add(count) {
        let end = first.saturating_add(count);
        match holds(seed..end, &property::optimising_keeps_meaning) {
            Ok(()) => break,
            Err(fault) => {
                println!("seed {}: {}\n{}", fault.seed, fault.message, fault.text);
                faults += 1;
                seed = fault.seed + 1;
            }
        }
        if faults == 10 {
            println!("stopped at seed {seed}");
            break;
        }
    }
    println!("{count} models from seed {first}: {faults} faults");
    ExitCode::from(u8::from(faults > 0))
}
