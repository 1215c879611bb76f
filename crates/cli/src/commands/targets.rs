//! `edgesmith targets`: the device profiles.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::{Command, json_arg};
use crate::{targets, ui};

/// The command.
pub static TARGETS: Command = Command {
    name: "targets",
    about: "List the device profiles for --target",
    teach: "A target tells what the hardware means for each variant of a model.",
    args: |c| c.arg(json_arg()),
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let all = targets::all()?;
    if matches.get_flag("json") {
        return ui::print_json(&json!({ "targets": all }));
    }
    let mut table = Table::new([
        Column::left("target"),
        Column::left("fp16"),
        Column::left("int8 dot"),
        Column::left("about"),
    ]);
    let yes = |b: bool| if b { "yes" } else { "-" };
    for t in &all {
        table.row([t.name.as_str(), yes(t.fp16), yes(t.int8_dot), &t.about]);
    }
    Ok(ui::print(&table.to_text(&ui::style()))?)
}
