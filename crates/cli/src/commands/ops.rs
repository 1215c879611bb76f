//! `edgesmith ops`: the operators and what can be done with each.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_ir::ops::OPS as LIST;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::{Command, json_arg};
use crate::ui;

/// The command.
pub static OPS: Command = Command {
    name: "ops",
    about: "List the operators: which are inferred, evaluated, run by fast kernels",
    teach: "Operators that are not in this list are kept and written again unchanged.",
    args: |c| c.arg(json_arg()),
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let rows = LIST.iter().map(|op| {
        let versions: Vec<String> = op.since.iter().map(ToString::to_string).collect();
        let cpu = edgesmith_runtime::providers::cpu::has_kernel(op.domain, op.name);
        (op, versions.join(" "), cpu)
    });
    if matches.get_flag("json") {
        let ops: Vec<_> = rows
            .map(|(op, _, cpu)| {
                json!({"name": op.name, "domain": op.domain, "since": op.since,
                    "evaluated": op.is_evaluated(), "cpu": cpu})
            })
            .collect();
        return ui::print_json(&json!({ "ops": ops }));
    }
    let mut table = Table::new([
        Column::left("op"),
        Column::left("domain"),
        Column::left("versions"),
        Column::left("reference"),
        Column::left("cpu"),
    ]);
    let yes = |b: bool| if b { "yes" } else { "-" };
    for (op, versions, cpu) in rows {
        table.row([
            op.name,
            op.domain,
            &versions,
            yes(op.is_evaluated()),
            yes(cpu),
        ]);
    }
    Ok(ui::print(&table.to_text(&ui::style()))?)
}
