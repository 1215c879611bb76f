//! `edgesmith providers`: the execution providers.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_kernels::cpu::CpuInfo;
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::PROVIDERS as LIST;
use serde_json::json;

use super::{Command, json_arg};
use crate::ui;

/// The command.
pub static PROVIDERS: Command = Command {
    name: "providers",
    about: "List the execution providers and this machine's instruction sets",
    teach: "The variable EDGESMITH_ISA caps the instruction set that the cpu provider uses, \
            for instance EDGESMITH_ISA=generic.",
    args: |c| c.arg(json_arg()),
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let cpu = CpuInfo::read();
    if matches.get_flag("json") {
        let rows: Vec<_> = LIST
            .iter()
            .map(|p| json!({"name": p.name, "about": p.about}))
            .collect();
        return ui::print_json(&json!({ "providers": rows, "isa": super::run::isa()?.name() }));
    }
    let mut table = Table::new([Column::left("provider"), Column::left("about")]);
    for provider in LIST {
        table.row([provider.name, provider.about]);
    }
    ui::print(&table.to_text(&ui::style()))?;
    Ok(ui::print(&format!(
        "\n{}: {}",
        cpu.brand,
        super::run::isa()?.name()
    ))?)
}
