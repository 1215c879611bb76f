//! Students: smaller networks made of a teacher, with a part of its weights to begin with.

use edgesmith_ir::analysis::lengths::workable_inputs;
use edgesmith_ir::analysis::{Cost, model_cost};
use edgesmith_ir::{Error, Model, Result, infer, verify};
use edgesmith_passes::{Level, RunOptions, optimize};

pub mod blocks;
pub mod layers;
pub mod stream;
pub mod trial;
mod width;

pub use layers::Layers;

/// How a student is smaller than its teacher.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// The part of the channels that stays, over 0 and at most 1.
    pub width: Option<f64>,
    /// Channels that stay are a multiple of this, where there are as many; 0 is 1.
    pub round_to: usize,
    /// The blocks that stay.
    pub layers: Option<Layers>,
}

impl Options {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// When nothing is asked for, or the width is no part.
    pub fn check(&self) -> Result<()> {
        if self.width.is_none() && self.layers.is_none() {
            return Err(Error::usage("a student is smaller in width or in layers")
                .hint("--width 0.5, --layers alternate, or both"));
        }
        match self.width.filter(|w| !(*w > 0.0 && *w <= 1.0)) {
            None => Ok(()),
            Some(width) => {
                let what = format!("a width of {width} is no part of the whole");
                Err(Error::usage(what).hint("over 0 and at most 1"))
            }
        }
    }
}

/// Makes a student: first blocks are left out, then channels. What is left keeps its names and the
/// teacher's weights. Also what was cut, what was not and why, and what was saved, as sentences.
///
/// Channels are those of convolutions and of the layers inside a block of a transformer; the width
/// of a transformer itself stays, for its norms go over it.
///
/// # Errors
/// When nothing is asked for, nothing can be cut, or the student does not run.
pub fn student(teacher: &Model, options: &Options) -> Result<(Model, Vec<String>)> {
    options.check()?;
    let mut model = prepared(teacher)?;
    let before = cost(&model)?;
    let mut notes = Vec::new();
    if let Some(layers) = &options.layers {
        let (short, told) = layers::shorten(&model, layers)?;
        model = short;
        notes.extend(told);
    }
    if let Some(width) = options.width {
        let narrowed = width::narrow(&model, width, options.round_to)?;
        model = narrowed.model;
        notes.extend(narrowed.notes);
    }
    if let Err(faults) = verify::verify(&model) {
        let first = faults.into_iter().next();
        return Err(first.unwrap_or_else(|| Error::internal("the student is not sound")));
    }
    if !trial::compare(teacher, &model)? {
        notes.push("it was not run: no random numbers are made for its inputs".into());
    }
    let after = cost(&model)?;
    notes.push(saved(before, after));
    Ok((model, notes))
}

/// The teacher without what hides its form: weights in Constant nodes, calls of functions, shapes
/// that are computed.
pub fn prepared(teacher: &Model) -> Result<Model> {
    let mut model = teacher.clone();
    let only = [
        "inline_functions",
        "fold_constants",
        "settle_shapes",
        "drop_identity",
        "remove_dead_nodes",
    ];
    let run = RunOptions {
        only: &only,
        ..RunOptions::default()
    };
    optimize(&mut model, Level::Basic, &run)?;
    Ok(model)
}

/// The cost of a sample, where lengths that are open are as short as the model allows.
fn cost(model: &Model) -> Result<Cost> {
    let inputs = workable_inputs(model, &[])?;
    model_cost(model, &infer::infer(model, &inputs)?)
}

fn saved(before: Cost, after: Cost) -> String {
    let part = |a: u64, b: u64| 100.0 * b as f64 / a.max(1) as f64;
    format!(
        "parameters {} → {} ({:.1} %), multiplications {} → {} ({:.1} %)",
        before.params,
        after.params,
        part(before.params, after.params),
        before.macs,
        after.macs,
        part(before.macs, after.macs)
    )
}
