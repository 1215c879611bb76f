//! `edgesmith targets`: the device profiles.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::target::{Floats, Nibbles, PairSums, Scales, Sparsity, Target};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use serde_json::json;

use super::{Command, json_arg};
use crate::{targets, ui};

/// The command.
pub static TARGETS: Command = Command {
    name: "targets",
    about: "List the device profiles for --target",
    teach: "A target tells what the hardware means for each variant of a model, and which INT8 it wants.\n\
            Floats: yes (computed) or storage (converted to f32). int8: type of activations, sym (zero point 0),\n\
            tensor (one scale a weight), 2^n (scales), dot (product instruction), saturates (sums of pairs); --json adds the sources.\n\
            RAM, flash, clock and bandwidth are those of the device named; weights lie in RAM where there is no flash.",
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
        Column::left("f32"),
        Column::left("fp16"),
        Column::left("bf16"),
        Column::left("fp8"),
        Column::left("int8"),
        Column::left("int4"),
        Column::left("zeros"),
        Column::right("RAM"),
        Column::right("flash"),
        Column::right("MHz"),
        Column::right("GB/s"),
        Column::left("device"),
    ]);
    let size = |n: Option<u64>| n.map_or_else(|| format::MISSING.to_owned(), format::bytes);
    for t in &all {
        let rate = t.bandwidth_bytes_per_second;
        table.row([
            t.name.as_str(),
            floats(t.fp32),
            floats(t.fp16),
            floats(t.bf16),
            floats(t.fp8),
            &int8(t),
            nibbles(t.int4),
            if t.sparsity == Sparsity::TwoOfFour {
                "2:4"
            } else {
                format::MISSING
            },
            &size(t.ram_bytes),
            &size(t.flash_bytes),
            &t.clock_mhz.to_string(),
            &rate.map_or_else(
                || format::MISSING.to_owned(),
                |r| format::significant(r as f64 / 1e9, 3),
            ),
            &t.device,
        ]);
    }
    Ok(ui::print(&table.to_text(&ui::style()))?)
}

fn floats(f: Floats) -> &'static str {
    match f {
        Floats::None => format::MISSING,
        Floats::Convert => "storage",
        Floats::Compute => "yes",
    }
}

fn nibbles(n: Nibbles) -> &'static str {
    match n {
        Nibbles::None => format::MISSING,
        Nibbles::Unpack => "unpack",
        Nibbles::Hardware => "yes",
    }
}

/// The INT8 that a target wants, in words as short as a column.
fn int8(t: &Target) -> String {
    let i = &t.int8;
    let mut words = vec![i.activations.name()];
    words.extend(i.symmetric.then_some("sym"));
    words.extend((i.weights == Scales::PerTensor).then_some("tensor"));
    words.extend(i.power_of_two_scales.then_some("2^n"));
    words.extend(i.dot_product.then_some("dot"));
    words.extend((i.pair_sums == PairSums::Saturate).then_some("saturates"));
    words.join(" ")
}
