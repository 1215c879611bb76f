//! The evidence of a conversion that a command was asked for: a page, JSON, a measurement.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};
use edgesmith_compress::recipe::Recipe;
use edgesmith_compress::steps::StepDef;
use edgesmith_formats::write_file;
use edgesmith_report::evidence::Variant;
use edgesmith_report::format;
use serde_json::Value;

use super::{conversion, slower};
use crate::commands::{force_arg, json_arg, run};
use crate::measure::Effort;
use crate::recipes::{self, Outcome, Work};
use crate::{groups, lottery, sparsity, ui};

/// Runs of each model that count.
const ITERATIONS: usize = 100;

/// What commands take that make a model by one step: the settings of the step, those of [`args`],
/// `--recipe FILE`, `--json` and `--force`.
pub fn args_of(c: clap::Command, step: &'static StepDef) -> clap::Command {
    args(recipes::args(c, step))
        .arg(recipes::recipe_arg())
        .arg(json_arg())
        .arg(force_arg())
}

/// Refuses files that are there already, before anything is done.
///
/// # Errors
/// When there is one, and `--force` is not given.
pub fn check_free(matches: &ArgMatches) -> Result<()> {
    let files = ["recipe", "report", "output"];
    files
        .iter()
        .try_for_each(|file| recipes::check_free(matches, file))
}

/// Does the steps of a command and tells what came of them: the recipe that repeats it, and what was
/// asked for.
///
/// # Errors
/// When a file cannot be read or written, or a step fails.
pub fn carry_out(matches: &ArgMatches, recipe: Recipe, explain: bool) -> Result<()> {
    let here = Path::new("");
    let work = Work::open(recipe, here)?.cached(matches, here)?;
    let outcome = work.run(matches.get_flag("force"), explain)?;
    recipes::tell(&recipes::settled(&work.recipe, &outcome.done), matches)?;
    let plan = work.recipe.plan(&work.model, work.samples())?;
    tell(&work, &outcome, matches, recipes::as_json(&work, &plan))
}

/// `--report FILE`, `--measure` and `--threads N`.
pub fn args(c: clap::Command) -> clap::Command {
    c.arg(
        Arg::new("report")
            .long("report")
            .value_name("FILE.html")
            .help("Measure before and after, and write the evidence as a page: errors by layer, sizes, latency"),
    )
    .arg(
        Arg::new("measure")
            .long("measure")
            .action(ArgAction::SetTrue)
            .help("Measure the latency before and after, in turn"),
    )
    .arg(
        Arg::new("threads")
            .long("threads")
            .value_name("N")
            .value_parser(clap::value_parser!(usize))
            .default_value("1")
            .help("Threads of the latency measurement; 0 is one for each core"),
    )
}

/// Measures what was asked for and tells it. `recipe` is what JSON says of the steps.
///
/// # Errors
/// When a model does not run, or the page cannot be written.
pub fn tell(work: &Work, outcome: &Outcome, matches: &ArgMatches, recipe: Value) -> Result<()> {
    let report = matches.get_one::<String>("report");
    let json = matches.get_flag("json");
    let mut drawn = outcome
        .changes()
        .into_iter()
        .filter_map(|c| c.lottery.as_ref());
    if let Some(found) = drawn.next_back().filter(|_| !json) {
        ui::print(&lottery::table(found))?;
    }
    if report.is_none() && !json && !matches.get_flag("measure") {
        return Ok(());
    }
    let job = conversion::Job {
        work,
        outcome,
        runtime: run::options(matches)?,
        effort: Effort {
            iterations: ITERATIONS,
            budget: Duration::from_secs(5),
        },
    };
    let bar = ui::Bar::default();
    if report.is_none() && !json {
        tell_latency(&conversion::latency(&job, &bar)?);
        return Ok(());
    }
    let evidence = conversion::gather(&job, &bar)?;
    tell_latency(&evidence.variants);
    if let Some(file) = report {
        let page = evidence.to_html();
        write_file(Path::new(file), page.as_bytes(), matches.get_flag("force"))?;
        ui::say(&format!("written to {file}"));
    }
    if json {
        let mut object = serde_json::to_value(&evidence)?;
        object["recipe"] = recipe;
        let mut found = outcome
            .changes()
            .into_iter()
            .filter_map(|c| c.lottery.as_ref());
        if let Some(found) = found.next_back() {
            object["lottery"] = lottery::as_json(found);
        }
        let mut pruned = outcome
            .changes()
            .into_iter()
            .filter_map(|c| c.pruned.as_ref());
        let mut structured = outcome
            .done
            .iter()
            .filter_map(|d| d.changes.structured.as_ref());
        if let Some(of) = structured.next_back() {
            object["structured"] = groups::as_json(of);
        }
        if let Some(pruned) = pruned.next_back() {
            object["pruned"] = sparsity::as_json(pruned);
        }
        ui::print_json(&object)?;
    }
    Ok(())
}

fn tell_latency(variants: &[Variant]) {
    let [before, after] = variants else {
        return;
    };
    if let (Some(was), Some(is)) = (&before.latency, &after.latency) {
        ui::say(&format!(
            "latency: {} ms before, {} ms after, {} the speed (p50 of {} in turn, {})",
            format::ms(was.p50_ms),
            format::ms(is.p50_ms),
            format::times(was.p50_ms / is.p50_ms),
            format::plural(is.iterations, "run"),
            format::plural(is.threads.into(), "thread"),
        ));
    }
    if let Some(line) = slower(after, before) {
        ui::loud(&line);
    }
}
