//! Steps on the command line: their settings as arguments, and the recipe that a command amounts to.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use edgesmith_compress::Samples;
use edgesmith_compress::calibrate::Stores;
use edgesmith_compress::mixed::{Search, Tried};
use edgesmith_compress::quantize::changes::{Changes, Fate, NodeChange};
use edgesmith_compress::recipe::{Done, Planned, Recipe, Supplies};
use edgesmith_compress::steps::{Given, Key, Kind, Setting, StepDef, optimize};
use edgesmith_data::Dataset;
use edgesmith_formats::{External, WriteOptions, io_error, write_file};
use edgesmith_ir::error::Kind as Fault;
use edgesmith_ir::{Error, Model};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use serde_json::{Value, json};

use crate::evidence::training::{self, within_chance};
use crate::follow::Follow;
use crate::kept::Kept;
use crate::read_back::ReadBack;
use crate::{
    evidence, groups, interrupt, masks, networks, opened, ranges, read_back, sparsity, ui, weights,
};

/// An argument for each setting of a step.
pub fn args(c: clap::Command, step: &StepDef) -> clap::Command {
    step.keys().fold(c, |c, key| c.arg(arg(key)))
}

fn arg(key: &Key) -> Arg {
    let arg = Arg::new(key.name).long(key.name).help(key.about);
    let valued = |arg: Arg| arg.value_name(key.value);
    match key.kind {
        Kind::Flag => arg.action(ArgAction::SetTrue),
        Kind::Count => valued(arg).value_parser(clap::value_parser!(usize)),
        Kind::Number => valued(arg).value_parser(clap::value_parser!(f64)),
        Kind::Text => valued(arg),
        Kind::OneOf(list) => valued(arg).value_parser(list()),
        Kind::Texts => valued(arg).action(ArgAction::Append),
    }
}

/// `--recipe FILE`.
pub fn recipe_arg() -> Arg {
    Arg::new("recipe")
        .long("recipe")
        .value_name("FILE")
        .help("Write the recipe that repeats this into FILE, not to stderr")
}

/// `--cache DIR`.
pub fn cache_arg() -> Arg {
    Arg::new("cache")
        .long("cache")
        .value_name("DIR")
        .help("Keep in DIR what calibration finds; the same again is read, a run that was broken off goes on")
}

/// The step with the settings that stand on the command line.
///
/// # Errors
/// When a setting is not what its key takes.
pub fn given(step: &'static StepDef, matches: &ArgMatches) -> Result<Given> {
    let mut given = Given::new(step, step.name);
    for key in step.keys() {
        if matches.value_source(key.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let text = || matches.get_one::<String>(key.name).cloned();
        let setting = match key.kind {
            Kind::Flag => Some(Setting::Flag(matches.get_flag(key.name))),
            Kind::Count => matches.get_one(key.name).copied().map(Setting::Count),
            Kind::Number => matches.get_one(key.name).copied().map(Setting::Number),
            Kind::Text | Kind::OneOf(_) => text().map(Setting::Text),
            Kind::Texts => matches
                .get_many::<String>(key.name)
                .map(|all| Setting::Texts(all.cloned().collect())),
        };
        if let Some(setting) = setting {
            given.set(key.name, setting, &format!("--{}", key.name))?;
        }
    }
    Ok(given)
}

/// The step `optimize` to a level.
///
/// # Errors
/// When there is no such level.
pub fn optimized_to(level: &str) -> Result<Given> {
    let mut given = Given::new(&optimize::OPTIMIZE, "optimize");
    given.set("level", Setting::Text(level.into()), "--level")?;
    Ok(given)
}

/// The recipe of a command with MODEL, `-o`, and `--calibrate` and `--samples` where it has them.
pub fn of_command(matches: &ArgMatches, steps: Vec<Given>) -> Recipe {
    let text = |name: &str| {
        let found = matches.try_get_one::<String>(name).ok().flatten();
        found.cloned()
    };
    Recipe {
        model: text("model"),
        output: text("output"),
        calibrate: text("calibrate"),
        evaluate: text("evaluate"),
        samples: matches.try_get_one("samples").ok().flatten().copied(),
        seed: matches.try_get_one("seed").ok().flatten().copied(),
        external: text("external").filter(|when| when != "auto"),
        steps,
    }
}

/// Refuses a file that an argument names and that is there already or cannot be written, before
/// anything is done.
///
/// # Errors
/// When it is there and `--force` is not given, or its folder is not there or takes no files.
pub fn check_free(matches: &ArgMatches, argument: &str) -> Result<()> {
    let file = matches.get_one::<String>(argument);
    match file.filter(|f| Path::new(f).exists() && !matches.get_flag("force")) {
        None => file.map_or(Ok(()), |f| check_place(Path::new(f))),
        Some(file) => Err(Error::usage("the file exists already")
            .at(file.as_str())
            .hint("give another name, or --force to overwrite it")
            .into()),
    }
}

/// Refuses a file that could not be written later: its folder is not there, or takes no files.
///
/// # Errors
/// When that is so.
pub fn check_place(file: &Path) -> Result<()> {
    let place = file.display().to_string();
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = format!("there is no folder {} to write it into", folder.display());
        return Err(Error::usage(what).at(place).into());
    }
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => {
            return Err(Error::usage("it is a folder, and no file").at(place).into());
        }
        // A device or a pipe takes what is written.
        Ok(found) if !found.is_file() => return Ok(()),
        _ => {}
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = folder.join(name);
    let made = std::fs::File::create(&beside).and_then(|_| std::fs::remove_file(&beside));
    Ok(made.map_err(|e| io_error(&e, "written").at(place))?)
}

/// Writes the recipe that repeats a command into the file that `--recipe` names, or tells it on
/// stderr.
///
/// # Errors
/// When the file cannot be written.
pub fn tell(recipe: &Recipe, matches: &ArgMatches) -> Result<()> {
    match matches.get_one::<String>("recipe") {
        Some(file) => {
            let file = Path::new(file);
            let recipe = from_folder(recipe, file.parent())?;
            write_file(file, recipe.to_toml().as_bytes(), matches.get_flag("force"))?;
        }
        None => ui::say(&format!(
            "# edgesmith apply FILE repeats this, where FILE is\n{}",
            recipe.to_toml().trim_end()
        )),
    }
    Ok(())
}

/// The recipe with paths that mean the same from another folder.
fn from_folder(recipe: &Recipe, folder: Option<&Path>) -> Result<Recipe> {
    if folder.is_none_or(|f| f.as_os_str().is_empty() || f == Path::new(".")) {
        return Ok(recipe.clone());
    }
    let absolute = |path: &Option<String>| -> Result<Option<String>> {
        let Some(path) = path else { return Ok(None) };
        Ok(Some(std::path::absolute(path)?.display().to_string()))
    };
    Ok(Recipe {
        model: absolute(&recipe.model)?,
        output: absolute(&recipe.output)?,
        calibrate: absolute(&recipe.calibrate)?,
        evaluate: absolute(&recipe.evaluate)?,
        ..recipe.clone()
    })
}

/// What became of a recipe: its steps, and the file that was read again.
pub struct Outcome {
    pub done: Vec<Done>,
    pub read: ReadBack,
    /// Bytes of the model's file, and of external data beside it, before it was perhaps overwritten.
    pub bytes_before: u64,
}

impl Outcome {
    /// What each step did.
    pub fn changes(&self) -> Vec<&Changes> {
        self.done.iter().map(|d| &d.changes).collect()
    }
}

/// A recipe with its files: the model, the samples and where the result goes.
pub struct Work {
    pub recipe: Recipe,
    /// The file of the model.
    pub source: PathBuf,
    pub model: Model,
    pub samples: Option<Dataset>,
    /// Samples that goals are judged by.
    pub evaluate: Option<Dataset>,
    pub output: PathBuf,
    base: PathBuf,
    kept: Option<Kept>,
}

impl Work {
    /// Opens what a recipe names; its paths start at `base`.
    ///
    /// # Errors
    /// When it names no model or no output, or a file cannot be read.
    pub fn open(recipe: Recipe, base: &Path) -> Result<Self> {
        let needed = |path: &Option<String>, what: &str| {
            let path = path.as_ref().map(|p| base.join(p));
            path.ok_or_else(|| Error::usage(what))
        };
        let path = needed(&recipe.model, "no model is named: model = \"MODEL\"")?;
        let output = needed(&recipe.output, "no output is named: output = \"FILE\"")?;
        let model = networks::open(&path, &recipe.steps, base)?;
        let data = |path: &Option<String>| -> Result<Option<Dataset>> {
            let Some(path) = path else { return Ok(None) };
            Ok(Some(Dataset::open(&base.join(path), &model)?))
        };
        let (samples, evaluate) = (data(&recipe.calibrate)?, data(&recipe.evaluate)?);
        Ok(Self {
            recipe,
            source: path,
            model,
            samples,
            evaluate,
            output,
            base: base.to_owned(),
            kept: None,
        })
    }

    /// Keeps in the folder of `--cache`, where a command has that and it is given, what calibration finds.
    ///
    /// # Errors
    /// When the folder cannot be made or the samples cannot be read.
    pub fn cached(mut self, matches: &ArgMatches, base: &Path) -> Result<Self> {
        let folder = matches.try_get_one::<String>("cache").ok().flatten();
        if let Some(folder) = folder {
            let data = self.recipe.calibrate.as_ref().map(|p| base.join(p));
            self.kept = Some(Kept::open(Path::new(folder), data.as_deref())?);
        }
        Ok(self)
    }

    /// The samples, as steps take them.
    pub fn samples(&self) -> Option<&dyn Samples> {
        self.samples.as_ref().map(|s| s as &dyn Samples)
    }

    /// Refuses files that could not be written after the work.
    fn check_places(&self) -> Result<()> {
        let keys = ["save-masks", "packed"];
        let beside = self.recipe.steps.iter();
        let beside = beside.flat_map(|s| keys.iter().filter_map(|key| s.text(key)));
        let beside = beside.map(|file| self.base.join(file));
        let mut all = std::iter::once(self.output.clone()).chain(beside);
        all.try_for_each(|file| check_place(&file))
    }

    /// The error of steps; where the user broke them off, with how they go on.
    fn stopped(&self, e: Error) -> Error {
        let trains = |s: &Given| ["train", "lottery"].contains(&s.step.name);
        if e.kind != Fault::Cancelled || !self.recipe.steps.iter().any(trains) {
            return e;
        }
        e.hint(match &self.kept {
            Some(_) => "the same command goes on from here",
            None => "nothing was kept; begun with --cache DIR, the same command goes on where it was stopped",
        })
    }

    /// Does the steps, writes the result, reads it again and says what became of the model.
    ///
    /// # Errors
    /// When a step fails, the file is there and `force` is not given, or what is read is not what was
    /// made.
    pub fn run(&self, force: bool, explain: bool) -> Result<Outcome> {
        self.check_places()?;
        let bar = ui::Bar::default();
        let stores = self.kept.as_ref().map(|k| k as &dyn Stores);
        // The result may take the place of the model.
        let bytes_before = opened::size_of(&self.source, &self.model)?;
        let follow = Follow::default();
        let open = |path: &str| {
            let model = edgesmith_formats::read(&self.base.join(path))?;
            Ok(model)
        };
        let read_masks = |path: &str| masks::read(&self.base.join(path));
        let size = |model: &Model| edgesmith_formats::onnx::size(model);
        let supplies = Supplies {
            samples: self.samples(),
            evaluate: self.evaluate.as_ref().map(|s| s as &dyn Samples),
            stores,
            size: Some(&size),
            base: Some(&self.base),
            open: Some(&open),
            read_masks: Some(&read_masks),
            follow: Some(&follow),
        };
        let listening = interrupt::Listening::begin();
        let made = self.recipe.run(&self.model, &supplies, &bar);
        drop(listening);
        let (model, done) = made.map_err(|e| self.stopped(e))?;
        let options = WriteOptions {
            force,
            external: external(self.recipe.external.as_deref()),
        };
        edgesmith_formats::write(&model, &self.output, &options)?;
        // Training moves the weights that were rounded before it.
        let trained = done.iter().rposition(|d| d.changes.training.is_some());
        let since = trained.map_or(0, |i| i + 1);
        let steps: Vec<&Changes> = done[since..].iter().map(|d| &d.changes).collect();
        let read = read_back::check(&model, &steps, &self.output)?;
        for step in &done {
            say(step);
            masks::write(step, &read.model, &self.base, force)?;
            if explain && !step.changes.nodes.is_empty() {
                ui::print(&explained(&step.changes))?;
            }
            if let Some(pruned) = step.changes.pruned.as_ref().filter(|_| explain) {
                ui::print(&sparsity::table(pruned))?;
            }
            if let Some(of) = step.changes.structured.as_ref().filter(|_| explain) {
                ui::print(&groups::tables(of))?;
            }
            if explain && !step.changes.weights.is_empty() {
                ui::print(&weights::table(&step.changes.weights))?;
            }
            let told = step.changes.ranges.as_ref().and_then(ranges::table);
            if let Some(table) = told.filter(|_| explain) {
                ui::print(&table)?;
            }
        }
        let after = opened::size_of(&self.output, &read.model)?;
        let names = [&self.output, &self.source].map(|p| opened::name_of(p));
        if let Some(line) = evidence::larger((&names[0], after), (&names[1], bytes_before)) {
            ui::loud(&line);
        }
        Ok(Outcome {
            done,
            read,
            bytes_before,
        })
    }
}

/// The files and the plan of a recipe as JSON.
pub fn as_json(work: &Work, plan: &[Planned]) -> Value {
    let step = |p: &Planned| {
        json!({"step": p.step, "samples": p.samples, "macs": p.macs,
            "weight_bytes": p.weight_bytes, "bytes_after": p.bytes_after})
    };
    json!({
        "model": work.recipe.model,
        "output": work.output.display().to_string(),
        "calibrate": work.recipe.calibrate,
        "calibration_samples": work.samples().map(Samples::count),
        "steps": plan.iter().map(step).collect::<Vec<_>>(),
    })
}

/// When weights lie beside the model.
pub fn external(when: Option<&str>) -> External {
    match when {
        Some("always") => External::Over(0),
        Some("never") => External::Never,
        _ => External::Auto,
    }
}

/// The recipe with what its steps found in the place of their goals.
pub fn settled(recipe: &Recipe, done: &[Done]) -> Recipe {
    Recipe {
        evaluate: None,
        steps: done.iter().map(|d| d.settled.clone()).collect(),
        ..recipe.clone()
    }
}

/// The plans that a search tried, one in a line, and what it missed.
fn say_search(search: &Search) {
    let figures = |t: &Tried| {
        let optional = |x: Option<f64>, unit: &str, digits: usize| {
            x.map_or(String::new(), |x| format!(", {x:.digits$} {unit}"))
        };
        format!(
            "{}{}{}{}",
            format::bytes(t.bytes),
            optional(t.drop, "points lost", 2),
            optional(t.sqnr_db, "dB", 1),
            optional(t.latency_ms, "ms", 3)
        )
    };
    for (i, tried) in search.tried.iter().enumerate() {
        let verdict = if tried.meets {
            "keeps the goal"
        } else {
            "misses it"
        };
        let (at, moves) = (i + 1, tried.moves);
        ui::say(&format!(
            "plan {at}: {moves} raised, {}: {verdict}",
            figures(tried)
        ));
    }
    if let Some(taken) = &search.taken {
        let (raised, of) = (taken.moves, search.moves);
        ui::say(&format!(
            "taken: {raised} of {of} layers raised, {}",
            figures(taken)
        ));
    }
    for missed in &search.missed {
        ui::loud(&format!("the goal is missed: {missed}"));
    }
}

fn say(done: &Done) {
    for warning in done.warnings.iter().chain(&done.changes.warnings) {
        ui::say(&format!("warning: {warning}"));
    }
    let changes = &done.changes;
    if changes.nodes.is_empty() {
        let (before, after) = done.nodes;
        ui::say(&format!("{}: {before} nodes, now {after}", done.step));
        if let Some(learned) = &changes.training {
            ui::say(&training::summary(learned));
        }
        if let Some(pruned) = &changes.pruned {
            ui::say(&sparsity::summary(pruned));
        }
        if let Some(of) = &changes.structured {
            ui::say(&groups::summary(of));
        }
        return;
    }
    ui::say(&format!(
        "{}: {} of {} nodes converted, weights {} → {}",
        done.step,
        changes.converted(),
        changes.nodes.len(),
        format::bytes(changes.weight_bytes_before as u64),
        format::bytes(changes.weight_bytes_after as u64)
    ));
    if !changes.observers.is_empty() {
        let told = changes
            .observers
            .iter()
            .map(|(n, db)| format!("{n} {db:.1} dB"));
        let told: Vec<String> = told.collect();
        ui::say(&format!(
            "observers, the first is taken: {}",
            told.join(", ")
        ));
    }
    if let Some(rounding) = &changes.rounding {
        let taken = match (rounding.is_adaptive, within_chance(rounding)) {
            (true, Some(why)) => format!("is kept, {why}"),
            (true, None) => "is kept".into(),
            (false, _) => "is taken back".into(),
        };
        ui::say(&format!(
            "adaptive rounding {taken}: {:.1} dB with it, {:.1} dB without, on {} samples",
            rounding.adaptive_db, rounding.nearest_db, rounding.samples
        ));
    }
    if !changes.blocks.is_empty() {
        let closer = changes.blocks.iter().filter(|b| b.after < b.before);
        let ratios: Vec<f64> = closer.map(|b| (b.after / b.before).ln()).collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        ui::say(&format!(
            "rounding by blocks is kept in {} of {} blocks: there their squared error is {:.2} of that of \
             rounding by layers (geometric mean)",
            ratios.len(),
            changes.blocks.len(),
            mean.exp()
        ));
    }
    if let Some(search) = &changes.search {
        say_search(search);
    }
    if let Some(line) = weights::summary(changes) {
        ui::say(&line);
    }
    if let Some(ranges) = &changes.ranges {
        ui::say(&ranges::summary(ranges));
    }
}

fn explained(changes: &Changes) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("what"),
    ]);
    let is_noteworthy = |n: &&NodeChange| changes.weights.is_empty() || n.is_noteworthy();
    for node in changes.nodes.iter().filter(is_noteworthy) {
        let what = match &node.fate {
            Fate::Converted => "converted".to_owned(),
            Fate::Absorbed(into) => format!("in {into}"),
            Fate::Left(why) => format!("left: {why}"),
        };
        table.row([node.name.as_str(), &node.op, &what]);
    }
    table.to_text(&ui::style())
}
