//! Where a forward pass is best cut.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Model, ValueId};

use super::super::View;
use super::of_constants;

/// Sizes of segments that are tried.
const TRIES: u32 = 24;

/// A place behind a node.
struct Place {
    /// Bytes of what the node makes.
    made: u64,
    /// What the node makes of which a gradient is computed, and which later nodes read.
    end: Option<ValueId>,
    /// What is read behind the place and made before it.
    crossing: BTreeSet<ValueId>,
}

/// The forward pass by places.
struct Passage {
    places: Vec<Place>,
    bytes: BTreeMap<ValueId, u64>,
}

/// The values behind which the forward pass is cut.
pub(super) fn chosen(model: &Model, view: &View) -> Vec<ValueId> {
    let passage = Passage::of(model, view);
    let total = passage.places.iter().map(|p| p.made).sum::<u64>();
    let mut best = (total, Vec::new());
    for step in 1..TRIES {
        // From the whole down to a few thousandths of it.
        let segment = (total as f64 * 0.75f64.powi(step as i32)) as u64;
        let cuts = passage.cuts(segment.max(1));
        let cost = passage.cost(&cuts);
        if cost < best.0 {
            best = (cost, cuts);
        }
    }
    let ends = best.1.into_iter().filter_map(|i| passage.places[i].end);
    ends.collect()
}

impl Passage {
    fn of(model: &Model, view: &View) -> Self {
        let graph = &model.graph;
        let fixed = of_constants(model, &view.order);
        let mut bytes = BTreeMap::new();
        let mut readers: BTreeMap<ValueId, usize> = BTreeMap::new();
        for &id in &view.order {
            let node = graph.node(id);
            for v in node
                .outputs()
                .iter()
                .flatten()
                .filter(|v| !fixed.contains(v))
            {
                bytes.insert(*v, size(view, *v));
            }
            for v in node.inputs().iter().flatten() {
                *readers.entry(*v).or_insert(0) += 1;
            }
        }
        let mut places = Vec::with_capacity(view.order.len());
        let mut crossing: BTreeSet<ValueId> = BTreeSet::new();
        for &id in &view.order {
            let node = graph.node(id);
            for v in node.inputs().iter().flatten() {
                let left = readers.entry(*v).or_insert(1);
                *left -= 1;
                if *left == 0 {
                    crossing.remove(v);
                }
            }
            let made = node.outputs().iter().flatten();
            let read = |v: &&ValueId| readers.contains_key(v) && bytes.contains_key(v);
            let made: Vec<ValueId> = made.filter(read).copied().collect();
            crossing.extend(&made);
            let all = node.outputs().iter().flatten();
            places.push(Place {
                made: all.filter_map(|v| bytes.get(v)).sum(),
                end: made.into_iter().find(|v| view.depends.contains(v)),
                crossing: crossing.clone(),
            });
        }
        Self { places, bytes }
    }

    fn held(&self, values: &BTreeSet<ValueId>) -> u64 {
        values.iter().filter_map(|v| self.bytes.get(v)).sum()
    }

    /// Places that end segments of about so many bytes, where little crosses them.
    fn cuts(&self, segment: u64) -> Vec<usize> {
        let mut cuts = Vec::new();
        let (mut now, mut best): (u64, Option<(u64, usize)>) = (0, None);
        let mut since_best = 0;
        for (i, place) in self.places.iter().enumerate() {
            now += place.made;
            since_best += place.made;
            // Places in the second half of a segment are good enough to look at.
            if now >= segment / 2 && place.end.is_some() {
                let held = self.held(&place.crossing);
                if best.is_none_or(|(least, _)| held <= least) {
                    (best, since_best) = (Some((held, i)), 0);
                }
            }
            if now > segment
                && let Some((_, at)) = best.take()
            {
                cuts.push(at);
                now = since_best;
            }
        }
        cuts
    }

    /// Bytes of what is kept, and of the largest segment.
    fn cost(&self, cuts: &[usize]) -> u64 {
        let mut kept = BTreeSet::new();
        for &i in cuts {
            kept.extend(&self.places[i].crossing);
        }
        let (mut largest, mut now) = (0, 0);
        for (i, place) in self.places.iter().enumerate() {
            now += place.made;
            largest = largest.max(now);
            if cuts.contains(&i) {
                now = 0;
            }
        }
        self.held(&kept) + largest
    }
}

/// Bytes of a value, where lengths that are not known count as 1.
fn size(view: &View, v: ValueId) -> u64 {
    let Some(ty) = view.inferred.tensor(v) else {
        return 0;
    };
    let lengths = ty.shape.iter().flat_map(|s| s.iter());
    let count = lengths.fold(1u64, |n, d| n.saturating_mul(d.known().unwrap_or(1) as u64));
    count.saturating_mul(ty.dtype.bits() as u64) / 8
}
