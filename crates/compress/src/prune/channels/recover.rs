//! Recovery without training: what lost inputs is fitted anew to what it gave in the dense model, by
//! least squares on samples (Y. He et al., 2017, channel pruning, equation 3), statistics of norms
//! are taken anew, and depthwise filters get the mean and the spread that they had.

use std::collections::BTreeMap;

use edgesmith_ir::channels::{Axis, Read};
use edgesmith_ir::{Model, Node, NodeId, Progress, Result, Tensor, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};

use super::Pruned;
use crate::calibrate::Mask;
use crate::prune::groups::Groups;
use crate::samples::{Samples, named};

mod layer;
mod rows;
mod spread;

use rows::{Form, Rows, Site};

/// What recovery found of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// The node.
    pub node: String,
    /// The squared error of its output on samples that were not fitted, as a share of the signal, as
    /// it was cut.
    pub before: f64,
    /// The same after it was fitted; what is written has the smaller one.
    pub after: f64,
}

/// Settings of recovery.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Samples that are looked at.
    pub samples: usize,
    /// What is added to the diagonal of XᵀX, as a share of its mean.
    pub damping: f64,
    /// Threads; 0: one for each core.
    pub threads: usize,
    /// Of the rows that are looked at.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            samples: 64,
            damping: 1e-2,
            threads: 0,
            seed: 0,
        }
    }
}

/// What can be done to a layer.
enum Mend {
    /// It lost inputs: its weights are fitted.
    Fit,
    /// It takes each channel alone: scale and bias of each.
    Spread,
    /// It is a batch normalisation.
    Statistics,
}

/// Mends the pruned model, layer after layer, each on what the mended ones before it give.
///
/// # Errors
/// When a model does not run on the samples, or the user cancels.
pub fn recover(
    groups: &Groups,
    pruned: &mut Pruned,
    samples: &dyn Samples,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Vec<Recovery>> {
    let sites = sites(groups, pruned)?;
    let count = settings.samples.min(samples.count());
    let mut batches = Vec::new();
    for batch in samples.batches(1) {
        let (range, batch) = batch?;
        if range.start >= count {
            break;
        }
        batches.push(batch);
    }
    progress.start("recover", sites.len() as u64 + 1);
    let dense = wanted(groups, &sites, &batches, settings, progress)?;
    progress.advance(1);
    let mut found = Vec::new();
    for (site, mend) in &sites {
        progress.check()?;
        if let Some(dense) = dense.get(&site.node) {
            let own = seen(&pruned.model, site, &batches, settings)?;
            let place = pruned.model.graph.node(site.node).name.clone();
            let ends = match mend {
                Mend::Fit => layer::fit(&mut pruned.model, site, dense, &own, settings)?,
                Mend::Spread => spread::match_channels(&mut pruned.model, site, dense, &own)?,
                Mend::Statistics => spread::renew(&mut pruned.model, site, dense, &own)?,
            };
            if let Some((before, after)) = ends {
                found.push(Recovery {
                    node: place,
                    before,
                    after,
                });
            }
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(found)
}

/// The layers that can be mended, in order.
fn sites(groups: &Groups, pruned: &Pruned) -> Result<Vec<(Site, Mend)>> {
    let graph = &groups.model.graph;
    let mut sites = Vec::new();
    let mut changed = vec![false; graph.value_slots()];
    for id in graph.order()? {
        let node = graph.node(id);
        let touched = node.inputs().iter().flatten().any(|v| {
            changed[v.index()]
                || pruned
                    .kept
                    .range(Axis::of(*v, 0)..=Axis::of(*v, usize::MAX))
                    .next()
                    .is_some()
        });
        if !touched {
            continue;
        }
        for y in node.outputs().iter().flatten() {
            changed[y.index()] = true;
        }
        let lost = |read: Read| {
            let v = node.input(read.input);
            v.is_some_and(|v| pruned.kept.contains_key(&Axis::of(v, read.axis)))
        };
        let has_lost = groups.ties.reads().any(|r| r.node == id && lost(r));
        let found = site(groups, pruned, id, node);
        // What lost no input gives what it did, but for what the layers before it could not mend.
        sites.extend(found.filter(|(_, mend)| has_lost || !matches!(mend, Mend::Fit)));
    }
    Ok(sites)
}

fn site(groups: &Groups, pruned: &Pruned, id: NodeId, node: &Node) -> Option<(Site, Mend)> {
    let graph = &groups.model.graph;
    let (x, y) = (node.input(0)?, node.output(0)?);
    let stay = |axis: usize| pruned.kept.get(&Axis::of(y, axis)).cloned();
    if node.is("BatchNormalization") {
        let site = Site::new(id, (x, y), Form::Channels, stay(1));
        return Some((site, Mend::Statistics));
    }
    let w = node.input(1)?;
    let weight = graph.constant(w)?;
    let is_own =
        graph.value(w).consumers().len() == 1 && weight.dtype() == edgesmith_ir::DType::F32;
    if !is_own {
        return None;
    }
    let int = |name: &str| node.int(name).unwrap_or(0) != 0;
    match node.op.as_str() {
        "Conv" if weight.rank() > 2 && node.int("group").unwrap_or(1) == 1 => {
            let site = Site::new(
                id,
                (x, y),
                Form::Windows(Box::new(node.clone()), weight.dims()[2..].to_vec()),
                stay(1),
            );
            Some((site, Mend::Fit))
        }
        "Conv" if weight.rank() > 2 && weight.dims()[1] == 1 => {
            Some((Site::new(id, (x, y), Form::Channels, stay(1)), Mend::Spread))
        }
        "Gemm" if weight.rank() == 2 && !int("transA") && is_plain(node) => {
            let site = Site::new(id, (x, y), Form::Rows(int("transB")), stay(1));
            Some((site, Mend::Fit))
        }
        "MatMul" if weight.rank() == 2 => {
            let rank = groups.inferred.tensor(y)?.shape.as_ref()?.len();
            let site = Site::new(id, (x, y), Form::Rows(false), stay(rank.checked_sub(1)?));
            Some((site, Mend::Fit))
        }
        _ => None,
    }
}

/// True where a Gemm multiplies by nothing else.
fn is_plain(node: &Node) -> bool {
    ["alpha", "beta"]
        .iter()
        .all(|name| node.float(name).is_none_or(|x| x == 1.0))
}

/// What each layer gives in the dense model, of the channels that stay.
fn wanted(
    groups: &Groups,
    sites: &[(Site, Mend)],
    batches: &[Vec<(String, Tensor)>],
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<BTreeMap<NodeId, Rows>> {
    let mut session = session(&groups.model, settings)?;
    let mut watched: Vec<ValueId> = Vec::new();
    for (site, mend) in sites {
        watched.push(match mend {
            Mend::Statistics => site.x,
            Mend::Fit | Mend::Spread => site.y,
        });
    }
    watched.sort_unstable();
    watched.dedup();
    let mut found: BTreeMap<NodeId, Rows> = BTreeMap::new();
    for (number, batch) in batches.iter().enumerate() {
        progress.check()?;
        let mask = Mask::of(batch)?;
        let mut failed = None;
        session.run_watching(&named(batch), &watched, &mut |v, view| {
            let mut add = || -> Result<()> {
                let mut tensor = None;
                for (site, mend) in sites {
                    let value = match mend {
                        Mend::Statistics => site.x,
                        Mend::Fit | Mend::Spread => site.y,
                    };
                    if value != v {
                        continue;
                    }
                    if tensor.is_none() {
                        tensor = Some(view.tensor()?);
                    }
                    let Some(tensor) = &tensor else { continue };
                    let rows = found.entry(site.node).or_default();
                    rows.add_output(
                        site,
                        tensor,
                        (number, batches.len()),
                        mask.as_ref(),
                        settings.seed,
                    )?;
                }
                Ok(())
            };
            if let Err(e) = add() {
                failed.get_or_insert(e);
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
    }
    Ok(found)
}

/// What a layer of the pruned model reads, or, where it takes channels alone, gives.
fn seen(
    model: &Model,
    site: &Site,
    batches: &[Vec<(String, Tensor)>],
    settings: &Settings,
) -> Result<Rows> {
    let value = if site.is_window_or_row() || model.graph.node(site.node).is("BatchNormalization") {
        site.x
    } else {
        site.y
    };
    let part = until(model, value)?;
    let mut session = session(&part, settings)?;
    let mut rows = Rows::default();
    for (number, batch) in batches.iter().enumerate() {
        let given: Vec<(String, Tensor)> = batch
            .iter()
            .filter(|(n, _)| {
                part.graph
                    .inputs
                    .iter()
                    .any(|v| part.graph.value(*v).name == *n)
            })
            .cloned()
            .collect();
        let outputs = session.run(&named(&given))?;
        let mask = Mask::of(batch)?;
        if let Some(tensor) = outputs.first() {
            rows.add_own(
                site,
                tensor,
                (number, batches.len()),
                mask.as_ref(),
                settings.seed,
            )?;
        }
    }
    Ok(rows)
}

/// The part of a model that makes one value.
fn until(model: &Model, value: ValueId) -> Result<Model> {
    let mut part = model.clone();
    part.graph.outputs = vec![value];
    let only = ["remove_dead_nodes"];
    let run = RunOptions {
        only: &only,
        ..RunOptions::default()
    };
    optimize(&mut part, Level::Basic, &run)?;
    Ok(part)
}

fn session(model: &Model, settings: &Settings) -> Result<Session> {
    let options = Options {
        threads: settings.threads,
        integer: false,
        ..Options::default()
    };
    Session::prepare(model, &options)
}
