//! The `edgesmith` program: parse the words, run the command, say what went wrong.

mod arrays;
mod boards;
mod commands;
mod evidence;
mod exit;
mod firmware;
mod follow;
mod groups;
mod interrupt;
mod kept;
mod lottery;
mod masks;
mod measure;
mod networks;
mod opened;
mod ranges;
mod read_back;
mod recipes;
mod sparsity;
mod targets;
mod ui;
mod weights;

use std::process::ExitCode;

use edgesmith_kernels::memory::Told;

#[global_allocator]
static MEMORY: Told = Told {
    exhausted: exit::out_of_memory,
};

fn main() -> ExitCode {
    exit::catch_bugs(|| {
        let matches = commands::cli().get_matches();
        let (name, matches) = matches.subcommand().expect("clap asks for a command");
        let command = commands::find(name).expect("clap knows only the commands of the list");
        (command.run)(matches)
    })
}
