//! `edgesmith codegen`: a model as plain C99 for a microcontroller.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_codegen::emit::EMITTERS;
use edgesmith_codegen::expand::operators;
use edgesmith_codegen::{Firmware, lower};
use edgesmith_compress::target::Target;
use edgesmith_ir::Error;
use edgesmith_ir::error::At;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::{Command, dim_arg, dims, flag, force_arg, json_arg, option, text};
use crate::boards::asked::{self, Ran};
use crate::{firmware, opened, targets, ui};

/// The command.
pub static CODEGEN: Command = Command {
    name: "codegen",
    about: "Write a model as plain C99 for a microcontroller: no heap, no interpreter, only its kernels",
    teach: "Quantise first: `edgesmith quantize --to int8 --target cortex-m4`. Files of two models lie in one \
            firmware under two names (--name).\n\
            With --run the code is built and run on an emulated board: outputs are compared bit by bit, and \
            instructions,\nflash and stack are measured. What is not installed is named.\n\
            Example: edgesmith codegen model.onnx --target cortex-m4 -o firmware/ --run --input test.npz",
    args: |c| {
        let c = c
            .arg(
                clap::Arg::new("model")
                    .value_name("MODEL")
                    .required_unless_present("list")
                    .help("The ONNX model to read"),
            )
            .arg(
                option(
                    "target",
                    "T",
                    "The microcontroller; see `edgesmith targets`",
                )
                .required_unless_present("list"),
            )
            .arg(
                option("output", "FOLDER", "Where the files go")
                    .short('o')
                    .required_unless_present("list"),
            )
            .arg(option(
                "name",
                "NAME",
                "What files and names in C begin with [default: the model's file name]",
            ))
            .arg(dim_arg())
        .arg(
                option(
                    "split",
                    "WHEN",
                    "Do layers by bands of rows where that makes the arena smaller, though some rows are \
                     computed twice: never, where it costs at most 1 % more MACs, or always",
                )
                .value_parser(["never", "cheap", "always"])
                .default_value("cheap"),
            )
            .arg(
                option(
                    "state",
                    "INPUT=OUTPUT",
                    "Keep an output for the next run, which finds it in this input; for streaming models",
                )
                .action(clap::ArgAction::Append)
                .value_parser(parse_state),
            )
            .arg(flag(
                "emulate-fp16",
                "Make code of FP16 models for a core that converts halves but does not compute with them: \
                 half the flash and RAM of f32, and slower",
            ))
            .arg(flag("list", "List the operators that have an emitter"))
            .arg(json_arg())
            .arg(force_arg());
        asked::args(c)
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    if matches.get_flag("list") {
        return list(matches);
    }
    let path = Path::new(text(matches, "model"));
    let target = targets::find(text(matches, "target"))?;
    let firmware = made(matches, path, &target)?;
    let lacks = firmware::lacks(&firmware, &target);
    if !lacks.is_empty() {
        return Err(
            Error::invalid(format!("it does not fit: {}", lacks.join("; ")))
                .at(path.display().to_string())
                .hint(firmware::remedy(&firmware))
                .into(),
        );
    }
    let asked = asked::read(matches, &firmware, &target.name)?;
    let folder = Path::new(text(matches, "output"));
    write(&firmware, folder, matches.get_flag("force"))?;
    let ran = asked.map(|a| a.run(&firmware)).transpose()?;
    if matches.get_flag("json") {
        let mut all = as_json(&firmware);
        all["run"] = json!(ran.as_ref().map(Ran::json));
        ui::print_json(&all)?;
        return ran.map_or(Ok(()), |ran| ran.check());
    }
    ui::print(&firmware::table(&firmware))?;
    ui::print(&firmware::summary(&firmware, Some(&target)))?;
    for note in &firmware.program.notes {
        ui::print(&format!("note: {note}"))?;
    }
    let Some(ran) = ran else { return Ok(()) };
    ui::print(&ran.text(&firmware))?;
    ran.check()
}

fn parse_state(text: &str) -> Result<(String, String), String> {
    let parts = text
        .split_once('=')
        .filter(|(i, o)| !i.is_empty() && !o.is_empty());
    let owned = parts.map(|(i, o)| (i.to_owned(), o.to_owned()));
    owned.ok_or_else(|| "expected INPUT=OUTPUT, such as h_in=h_out".into())
}

/// The operators that have an emitter.
fn list(matches: &ArgMatches) -> Result<()> {
    let name = |(domain, op): (&str, &str)| match domain {
        "" => op.to_owned(),
        domain => format!("{domain}.{op}"),
    };
    let emitted = EMITTERS.iter().map(|e| (e.domain, e.op));
    let names: Vec<String> = emitted.chain(operators()).map(name).collect();
    if matches.get_flag("json") {
        return ui::print_json(&names);
    }
    let mut table = Table::new([Column::left("operator")]);
    for name in names {
        table.row([name]);
    }
    Ok(ui::print(&table.to_text(&ui::style()))?)
}

/// The files of the model at `path`.
fn made(matches: &ArgMatches, path: &Path, target: &Target) -> Result<Firmware> {
    let flavour = firmware::flavour(target)?;
    let model = opened::open(path)?;
    let model = firmware::fixed(&model, &dims(matches, &model)?)?;
    let source = opened::name_of(path);
    let prefix = match matches.get_one::<String>("name") {
        Some(name) => name.clone(),
        None => prefix(path),
    };
    let mut program = lower(&model).at(|| path.display().to_string())?;
    for pair in matches
        .get_many::<(String, String)>("state")
        .into_iter()
        .flatten()
    {
        program.keep(&pair.0, &pair.1).at(|| "--state")?;
    }
    firmware::check_halves(&program, target, matches.get_flag("emulate-fp16"))?;
    firmware::make_fit(&mut program, flavour, target, text(matches, "split"));
    Ok(Firmware::new(program, &prefix, flavour, &source)?)
}

/// A name in C from that of a file.
fn prefix(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut name: String = stem
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(32)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "m_");
        name.truncate(32);
    }
    name
}

/// Writes all files, or none where one is there already.
fn write(firmware: &Firmware, folder: &Path, force: bool) -> Result<()> {
    let there = firmware
        .files
        .iter()
        .find(|(name, _)| folder.join(name).exists());
    if let (Some((name, _)), false) = (there, force) {
        return Err(Error::usage("the file exists already")
            .at(folder.join(name).display().to_string())
            .hint("give another folder or --name, or --force to overwrite it")
            .into());
    }
    std::fs::create_dir_all(folder)
        .map_err(|e| edgesmith_formats::io_error(&e, "made").at(folder.display().to_string()))?;
    for (name, text) in &firmware.files {
        edgesmith_formats::write_file(&folder.join(name), text.as_bytes(), force)?;
    }
    Ok(())
}

fn as_json(firmware: &Firmware) -> serde_json::Value {
    let layers = firmware.layers.iter().map(|l| {
        json!({"name": l.name, "op": l.op, "kernel": l.kernel, "macs": l.macs, "flash_bytes": l.weights,
            "output_bytes": l.bytes, "alive_bytes": l.alive})
    });
    let arena = &firmware.memory.arena;
    json!({
        "name": firmware.prefix,
        "files": firmware.files.iter().map(|f| &f.0).collect::<Vec<_>>(),
        "arena_bytes": arena.bytes,
        "arena_bound": arena.bound,
        "arena_without_overlap": arena.apart,
        "strategy": arena.strategy,
        "weight_bytes": firmware.weights,
        "layers": layers.collect::<Vec<_>>(),
        "notes": firmware.program.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_in_c() {
        let of = |p: &str| prefix(Path::new(p));
        assert_eq!(of("dir/ds-cnn_KWS.int8.onnx"), "ds_cnn_kws_int8");
        assert_eq!(of("8bit.onnx"), "m_8bit");
    }
}
