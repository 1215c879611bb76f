//! What weights multiply: samples go through the model part by part, and a part is pruned before the
//! next one runs, so that weights see what the pruned model will give them.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Model, NodeId, Progress, Result, Tensor, ValueId};

use edgesmith_runtime::View;

use super::sites::Site;
use crate::calibrate::segments::{Aim, Limits, Pass, Product, Segments};
use crate::calibrate::{Mask, Reading, Settings, Shelf, Sums};
use crate::samples::Samples;

/// Where inputs come from.
pub struct Calibration<'a> {
    /// The samples.
    pub samples: &'a dyn Samples,
    /// Which of them, and on how many threads.
    pub settings: Settings,
    /// Inputs are those of the model that is not pruned, for all weights.
    pub dense: bool,
}

/// Bytes of weights and sums of a part.
const PART: usize = 1 << 30;

/// Prunes one weight, by its number, of what it multiplies; its new tensor.
pub(super) type One<'o> = dyn FnMut(usize, &Sums) -> Result<Tensor> + 'o;

/// Runs the samples through the model and lets `one` prune each weight when its inputs were seen;
/// what is to be said of the data. A weight that several products read is pruned by those that read
/// it first.
///
/// # Errors
/// When there are no samples, the model does not run, `one` fails, or the user cancels.
pub(super) fn in_order(
    model: &Model,
    sites: &[Site],
    from: &Calibration,
    one: &mut One,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let readings: Vec<(usize, Reading)> = (sites.iter().enumerate())
        .flat_map(|(number, site)| site.nodes.iter().map(move |&id| (number, id)))
        .filter_map(|(number, id)| Some((number, Reading::of(model, id)?)))
        .collect();
    let product = |(_, r): &(usize, Reading)| {
        let product = Product {
            reads: r.value,
            axis: -1,
            k: r.k,
        };
        (r.node, product)
    };
    let products: BTreeMap<NodeId, Product> = readings.iter().map(product).collect();
    let limits = Limits {
        bytes: PART,
        sequential: !from.dense,
    };
    let segments = Segments::of(model, from.samples, &from.settings, &products, limits)?;
    let shelf = Shelf::new(None, String::new);
    let mut run = Run {
        segments: &segments,
        readings: &readings,
        sites,
        shelf: &shelf,
        done: BTreeMap::new(),
        parts: 0,
        samples: 0,
        dense: from.dense,
        progress,
    };
    for at in 0..segments.all.len() {
        run.segment(at, one)?;
    }
    Ok(segments.warnings(run.samples))
}

struct Run<'a> {
    segments: &'a Segments<'a>,
    readings: &'a [(usize, Reading)],
    sites: &'a [Site],
    shelf: &'a Shelf<'a>,
    /// Pruned weights, by number.
    done: BTreeMap<usize, Tensor>,
    /// Parts of the shelf that hold what the next segment reads.
    parts: usize,
    samples: u64,
    dense: bool,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    fn segment(&mut self, at: usize, one: &mut One) -> Result<()> {
        let mut part = self.segments.part(at);
        let is_last = at + 1 == self.segments.all.len();
        if !self.dense {
            self.put(&mut part);
        }
        let due = |r: &&(usize, Reading)| {
            self.segments.all[at].sees(r.1.value) && !self.done.contains_key(&r.0)
        };
        let due: Vec<&(usize, Reading)> = self.readings.iter().filter(due).collect();
        let aim = if self.dense { Aim::Both } else { Aim::Look };
        let (sums, mut parts) = self.look(at, &part, &due, aim)?;
        for (number, sums) in sums {
            self.progress.check()?;
            let pruned = one(number, &sums)?;
            self.done.insert(number, pruned);
        }
        if !self.dense && !is_last {
            self.put(&mut part);
            let pass = Pass {
                part: &part,
                aim: Aim::Carry,
                wanted: &[],
            };
            let see = &mut |_: ValueId, _: &View, _: Option<&Mask>| Ok(());
            let watched = self
                .segments
                .watch(at, &pass, see, self.shelf, self.progress)?;
            parts = watched.parts;
        }
        let before = std::mem::replace(&mut self.parts, parts);
        if let Some(cut) = at.checked_sub(1) {
            self.shelf.forget_values(cut, before);
        }
        Ok(())
    }

    /// The sums of what these products read, by the number of the weight.
    fn look(
        &mut self,
        at: usize,
        part: &Model,
        due: &[&(usize, Reading)],
        aim: Aim,
    ) -> Result<(BTreeMap<usize, Sums>, usize)> {
        let mut wanted: Vec<ValueId> = due.iter().map(|r| r.1.value).collect();
        wanted.sort_unstable();
        wanted.dedup();
        // Products that read the same rows share the sums.
        let mut sums: Vec<(Vec<usize>, &Reading, Sums)> = Vec::new();
        for (number, reading) in due {
            let like = |s: &&mut (Vec<usize>, &Reading, Sums)| s.1.is_like(reading);
            match sums.iter_mut().find(like) {
                Some((numbers, ..)) => numbers.push(*number),
                None => sums.push((vec![*number], reading, reading.sums())),
            }
        }
        let pass = Pass {
            part,
            aim,
            wanted: &wanted,
        };
        let see = &mut |v: ValueId, view: &View, mask: Option<&Mask>| {
            let tensor = view.tensor()?;
            for (_, reading, sums) in sums.iter_mut().filter(|s| s.1.value == v) {
                sums.add(view.ctx(), &tensor, &reading.reads, mask)?;
            }
            Ok(())
        };
        let watched = self
            .segments
            .watch(at, &pass, see, self.shelf, self.progress)?;
        self.samples = watched.samples;
        let mut by_number: BTreeMap<usize, Sums> = BTreeMap::new();
        for (numbers, _, sums) in sums {
            for number in numbers {
                match by_number.get_mut(&number) {
                    Some(own) if own.like(&sums) => own.merge(&sums),
                    Some(_) => return Err(Error::internal("rows of one weight differ")),
                    None => _ = by_number.insert(number, sums.clone()),
                }
            }
        }
        Ok((by_number, watched.parts))
    }

    /// Puts pruned weights into a part.
    fn put(&self, part: &mut Model) {
        for (&number, tensor) in &self.done {
            let value = part.graph.value_mut(self.sites[number].weight);
            if value.constant.is_some() {
                value.constant = Some(tensor.clone());
            }
        }
    }
}
