//! `edgesmith formats`: the model formats.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::FORMATS as LIST;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::{Command, json_arg};
use crate::ui;

/// The command.
pub static FORMATS: Command = Command {
    name: "formats",
    about: "List the model formats that are read and written",
    teach: "The format of a file is found by its extension; a file with another is read as ONNX.",
    args: |c| c.arg(json_arg()),
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    if matches.get_flag("json") {
        let rows: Vec<_> = LIST
            .iter()
            .map(|f| json!({"name": f.name, "about": f.about, "extensions": f.extensions}))
            .collect();
        return ui::print_json(&json!({ "formats": rows }));
    }
    let mut table = Table::new([
        Column::left("format"),
        Column::left("extensions"),
        Column::left("about"),
    ]);
    for format in LIST {
        table.row([format.name, &format.extensions.join(" "), format.about]);
    }
    Ok(ui::print(&table.to_text(&ui::style()))?)
}
