//! `edgesmith completions`: scripts for the shell.

use anyhow::Result;
use clap::{Arg, ArgMatches};
use clap_complete::Shell;

use super::Command;
use crate::ui;

/// The command.
pub static COMPLETIONS: Command = Command {
    name: "completions",
    about: "Print the completion script of a shell",
    teach: "For instance: edgesmith completions bash > /etc/bash_completion.d/edgesmith",
    args: |c| {
        let shell = Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .help("The shell");
        c.arg(shell.value_parser(clap::value_parser!(Shell)))
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let mut script = Vec::new();
    if let Some(&shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(shell, &mut super::cli(), "edgesmith", &mut script);
    }
    Ok(ui::print(&String::from_utf8_lossy(&script))?)
}
