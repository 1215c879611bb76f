//! `edgesmith apply`: the steps of a recipe.

use std::path::Path;

use anyhow::Result;
use clap::{Arg, ArgMatches};
use edgesmith_compress::recipe::{Planned, Recipe};
use edgesmith_ir::Error;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use super::{Command, flag, force_arg, json_arg, option, text};
use crate::evidence::asked;
use crate::recipes::{Work, as_json, check_free};
use crate::{opened, ui};

/// The command.
pub static APPLY: Command = Command {
    name: "apply",
    about: "Do the steps of a recipe: optimize, quantize, in their order, with their settings",
    teach: "docs/recipes.md says what may stand in a recipe; commands that change a model print theirs.\n\
            Paths in a recipe start at its folder.\n\
            Example: edgesmith apply recipe.toml --dry-run",
    args: |c| {
        asked::args(c)
            .arg(
                Arg::new("recipe")
                    .value_name("RECIPE.toml")
                    .required(true)
                    .help("The recipe to read"),
            )
            .arg(option(
                "model",
                "MODEL",
                "The model to read, instead of the recipe's",
            ))
            .arg(
                option(
                    "output",
                    "FILE",
                    "Where the result goes, instead of where the recipe says",
                )
                .short('o'),
            )
            .arg(option(
                "calibrate",
                "CALIB.npz",
                "Samples to look at, instead of the recipe's",
            ))
            .arg(flag(
                "dry-run",
                "Print the steps and what they take, and do nothing",
            ))
            .arg(
                flag("explain", "Print what happened to each node, and why").conflicts_with("json"),
            )
            .arg(crate::recipes::cache_arg())
            .arg(json_arg())
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    check_free(matches, "report")?;
    let path = Path::new(text(matches, "recipe"));
    let source = std::fs::read_to_string(path).map_err(|e| {
        let found = match e.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".into(),
            _ => e.to_string(),
        };
        Error::io(found).at(path.display().to_string())
    })?;
    let mut recipe = Recipe::parse(&opened::name_of(path), &source)?;
    // Paths of the command line start at the folder that it is given in.
    let replaced = |name: &str, own: Option<String>| -> Result<Option<String>> {
        match matches.get_one::<String>(name) {
            Some(given) => Ok(Some(std::path::absolute(given)?.display().to_string())),
            None => Ok(own),
        }
    };
    recipe.model = replaced("model", recipe.model)?;
    recipe.output = replaced("output", recipe.output)?;
    recipe.calibrate = replaced("calibrate", recipe.calibrate)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let work = Work::open(recipe, base)?.cached(matches, base)?;
    let plan = work.recipe.plan(&work.model, work.samples())?;
    if matches.get_flag("dry-run") {
        return tell(&work, &plan, matches.get_flag("json"));
    }
    let outcome = work.run(matches.get_flag("force"), matches.get_flag("explain"))?;
    asked::tell(&work, &outcome, matches, as_json(&work, &plan))
}

fn tell(work: &Work, plan: &[Planned], json: bool) -> Result<()> {
    if json {
        return ui::print_json(&as_json(work, plan));
    }
    let mut table = Table::new([
        Column::left("step"),
        Column::right("samples"),
        Column::right("MACs"),
        Column::right("weights"),
        Column::right("after, about"),
    ]);
    let missing = || format::MISSING.to_owned();
    for p in plan {
        table.row([
            p.step.as_str(),
            &format::grouped(p.samples as u64),
            &p.macs.map_or_else(missing, format::count),
            &format::bytes(p.weight_bytes),
            &p.bytes_after.map_or_else(missing, format::bytes),
        ]);
    }
    ui::print(&table.to_text(&ui::style()))?;
    let passes = plan.iter().filter(|p| p.samples > 0).count() as u64;
    Ok(ui::print(&format!(
        "{} over the data; the result goes to {}",
        match passes {
            1 => "1 pass".to_owned(),
            n => format!("{n} passes"),
        },
        work.output.display()
    ))?)
}
