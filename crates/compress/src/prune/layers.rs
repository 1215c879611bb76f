//! Whole blocks are left out: those whose result is the most like what they take.

use std::collections::BTreeSet;

use edgesmith_ir::analysis::Cost;
use edgesmith_ir::pattern::matches;
use edgesmith_ir::{Error, Model, Progress, Result, Tensor, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::student::{self, blocks, layers::pass_by, stream, trial};

use super::channels::cost_of;
use crate::samples::{Samples, named};

/// A block: what it takes and what it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    from: ValueId,
    to: ValueId,
}

/// A block and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockOf {
    /// What it takes, by name.
    pub from: String,
    /// What it gives, by name.
    pub to: String,
    /// 1 − cos of both, the mean over samples (X. Men et al., 2024, ShortGPT, equation 1); `None`
    /// where nothing was looked at.
    pub change: Option<f64>,
    /// It is left out.
    pub is_gone: bool,
}

/// A model with fewer blocks.
pub struct Shortened {
    /// The model.
    pub model: Model,
    /// Each block, in order.
    pub blocks: Vec<BlockOf>,
    /// The cost of a sample before and after.
    pub cost: (Cost, Cost),
    /// What was found, as sentences.
    pub notes: Vec<String>,
}

/// The blocks that a model could do without: `exclude` names values or nodes of those that stay.
///
/// # Errors
/// When the graph cannot be taken apart.
pub fn explain(model: &Model) -> Result<Vec<BlockOf>> {
    let model = student::prepared(model)?;
    let name = |v: ValueId| model.graph.value(v).name.clone();
    let blocks = found(&model)?.into_iter();
    let row = |b: Block| BlockOf {
        from: name(b.from),
        to: name(b.to),
        change: None,
        is_gone: false,
    };
    Ok(blocks.map(row).collect())
}

/// Leaves out the part `amount` of the blocks, one at least where it is not 0: those that change
/// samples the least.
///
/// # Errors
/// When there are no blocks, the model does not run on the samples, or the user cancels.
pub fn shorten(
    model: &Model,
    amount: f64,
    exclude: &[String],
    samples: &dyn Samples,
    count: usize,
    progress: &dyn Progress,
) -> Result<Shortened> {
    let model = student::prepared(model)?;
    let all = found(&model)?;
    if all.is_empty() {
        return Err(
            Error::unsupported("the model has no blocks that could be left out")
                .hint("a block adds to what it takes, and gives the same shape"),
        );
    }
    let changes = changes(&model, &all, samples, count, progress)?;
    let name = |v: ValueId| model.graph.value(v).name.clone();
    let stays = |b: &Block| {
        let names = [name(b.from), name(b.to)];
        names.iter().any(|n| exclude.iter().any(|p| matches(p, n)))
    };
    let free: Vec<usize> = (0..all.len()).filter(|&i| !stays(&all[i])).collect();
    let wanted = match amount > 0.0 {
        true => ((amount * all.len() as f64).round() as usize).clamp(1, free.len()),
        false => 0,
    };
    let mut order = free;
    order.sort_by(|&a, &b| changes[a].total_cmp(&changes[b]).then(a.cmp(&b)));
    let gone: BTreeSet<usize> = order.into_iter().take(wanted).collect();
    let mut out = model.clone();
    // From the last on, so that what reads a block's result is known when it goes.
    for &i in gone.iter().rev() {
        pass_by(&mut out, all[i].from, all[i].to);
    }
    let run = RunOptions {
        only: &["remove_dead_nodes"],
        ..RunOptions::default()
    };
    optimize(&mut out, Level::Basic, &run)?;
    let mut notes = Vec::new();
    if !trial::compare(&model, &out)? {
        notes.push("it was not run: no random numbers are made for its inputs".into());
    }
    let row = |(i, b): (usize, &Block)| BlockOf {
        from: name(b.from),
        to: name(b.to),
        change: Some(changes[i]),
        is_gone: gone.contains(&i),
    };
    Ok(Shortened {
        blocks: all.iter().enumerate().map(row).collect(),
        cost: (cost_of(&model)?, cost_of(&out)?),
        model: out,
        notes,
    })
}

/// Blocks that repeat as wholes, and residual ones beside them, in order.
fn found(model: &Model) -> Result<Vec<Block>> {
    let graph = &model.graph;
    let mut taken = BTreeSet::new();
    let mut blocks = Vec::new();
    let cuts = stream::cuts(model)?;
    let place = |v: ValueId| cuts.iter().position(|c| *c == v);
    for run in blocks::runs(model)? {
        for pair in run.values.windows(2) {
            if let (Some(a), Some(b)) = (place(pair[0]), place(pair[1])) {
                taken.extend(a..b);
                blocks.push(Block {
                    from: pair[0],
                    to: pair[1],
                });
            }
        }
    }
    for (i, pair) in cuts.windows(2).enumerate() {
        let add = graph.producer_is(pair[1], "Add");
        let is_residual = add.is_some_and(|id| graph.node(id).inputs().contains(&Some(pair[0])));
        if is_residual && !taken.contains(&i) {
            blocks.push(Block {
                from: pair[0],
                to: pair[1],
            });
        }
    }
    blocks.sort_by_key(|b| place(b.from));
    Ok(blocks)
}

/// 1 − cos of what each block takes and gives, the mean over samples.
fn changes(
    model: &Model,
    all: &[Block],
    samples: &dyn Samples,
    count: usize,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let options = Options {
        integer: false,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options)?;
    let mut watched: Vec<ValueId> = all.iter().flat_map(|b| [b.from, b.to]).collect();
    watched.sort_unstable();
    watched.dedup();
    let mut sums = vec![0.0; all.len()];
    let mut seen = 0usize;
    progress.start("compare blocks", count.min(samples.count()) as u64);
    for batch in samples.batches(1) {
        progress.check()?;
        let (range, batch) = batch?;
        if range.start >= count {
            break;
        }
        let mut values: Vec<(ValueId, Tensor)> = Vec::new();
        let mut failed = None;
        session.run_watching(
            &named(&batch),
            &watched,
            &mut |v, view| match view.tensor() {
                Ok(t) => values.push((v, t.detached())),
                Err(e) => {
                    failed.get_or_insert(e);
                }
            },
        )?;
        if let Some(e) = failed {
            return Err(e);
        }
        let of = |v: ValueId| values.iter().find(|(w, _)| *w == v).map(|(_, t)| t);
        for (sum, block) in sums.iter_mut().zip(all) {
            if let (Some(a), Some(b)) = (of(block.from), of(block.to)) {
                *sum += 1.0 - cosine(a, b)?;
            }
        }
        seen += 1;
        progress.advance(range.len() as u64);
    }
    progress.finish();
    if seen == 0 {
        return Err(Error::invalid("there are no samples to compare blocks on"));
    }
    Ok(sums.into_iter().map(|s| s / seen as f64).collect())
}

fn cosine(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_f32()?, b.to_f32()?);
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        let pairs = x.iter().zip(y);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(&a, &a) * dot(&b, &b)).sqrt();
    Ok(match lengths > 0.0 {
        true => dot(&a, &b) / lengths,
        false => 0.0,
    })
}
