//! `edgesmith providers`: the execution providers.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_kernels::cpu::CpuInfo;
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::Provider;
use edgesmith_runtime::device::Asked;
use serde_json::json;

use super::{Command, json_arg};
use crate::measure::peers;
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
        let rows: Vec<_> = list()
            .map(|(p, missing)| {
                json!({"name": p.name, "about": p.about, "available": missing.is_none(),
                    "missing": missing})
            })
            .collect();
        return ui::print_json(&json!({ "providers": rows, "isa": super::run::isa()?.name() }));
    }
    let mut table = Table::new([
        Column::left("provider"),
        Column::left("available"),
        Column::left("about"),
    ]);
    let mut notes = String::new();
    for (provider, missing) in list() {
        let available = if missing.is_none() { "yes" } else { "no" };
        table.row([provider.name, available, provider.about]);
        if let Some(missing) = missing {
            notes += &format!("\n{missing}");
        }
    }
    ui::print(&table.to_text(&ui::style()))?;
    Ok(ui::print(&format!(
        "\n{}: {}{notes}",
        cpu.brand,
        super::run::isa()?.name()
    ))?)
}

/// Every provider, and what keeps it from running here.
fn list() -> impl Iterator<Item = (&'static Provider, Option<String>)> {
    let asked = Asked {
        libraries: peers::folders(),
        ..Asked::default()
    };
    let all = edgesmith_runtime::PROVIDERS.iter();
    let all = all.chain(super::run::MORE.iter()).copied();
    all.map(move |p| (p, p.check(&asked).err().map(|e| e.to_string())))
}
