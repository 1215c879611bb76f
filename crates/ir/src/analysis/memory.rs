//! Where activations stand in one arena, how large it is, and how small it could be at best.

use std::cmp::Reverse;

use super::liveness::{Range, liveness};
use crate::graph::{Graph, Model, NodeId};
use crate::infer::Inferred;
use crate::{Error, Result};

/// Offsets are multiples of so many bytes: a cache line.
pub const ALIGNMENT: usize = 64;

/// A buffer to be placed: its size in bytes and the steps during which it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Bytes.
    pub size: usize,
    /// The steps, both included.
    pub range: Range,
    /// The place in the list of an interval whose buffer this one may take over, ending at the
    /// step where this one begins (an in-place operator): the two are placed as one where they
    /// meet in that one step only and the other is at least as large.
    pub reuse: Option<usize>,
}

/// Offsets of intervals in one arena, so that those alive together do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The offset of each interval, in bytes.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub peak: usize,
    /// The most bytes alive at one step, aligned: no plan of these intervals is smaller.
    pub lower_bound: usize,
    /// The name of the strategy that gave the smallest arena.
    pub strategy: &'static str,
}

/// Buffers with smaller keys are placed first.
type Key = (Reverse<usize>, Reverse<usize>, usize);

/// The order in which a strategy places the buffers, and how it chooses among gaps.
struct Strategy {
    name: &'static str,
    key: fn(&Interval, crowd: usize) -> Key,
    best_fit: bool,
}

/// Every strategy; the first with the smallest arena wins.
static STRATEGIES: &[Strategy] = &[
    Strategy {
        name: "by size",
        key: |i, _| (Reverse(i.size), Reverse(length(i)), i.range.first),
        best_fit: false,
    },
    Strategy {
        name: "by size, best fit",
        key: |i, _| (Reverse(i.size), Reverse(length(i)), i.range.first),
        best_fit: true,
    },
    Strategy {
        name: "by crowded step",
        key: |i, crowd| (Reverse(crowd), Reverse(i.size), i.range.first),
        best_fit: true,
    },
    Strategy {
        name: "by first use",
        key: |i, _| (Reverse(usize::MAX - i.range.first), Reverse(i.size), 0),
        best_fit: true,
    },
    Strategy {
        name: "by area",
        key: |i, _| {
            let area = i.size.saturating_mul(length(i) + 1);
            (Reverse(area), Reverse(i.size), i.range.first)
        },
        best_fit: false,
    },
];

fn length(i: &Interval) -> usize {
    i.range.last - i.range.first
}

fn aligned(size: usize) -> usize {
    size.checked_next_multiple_of(ALIGNMENT)
        .unwrap_or(usize::MAX - usize::MAX % ALIGNMENT)
}

impl MemoryPlan {
    /// The smallest plan of all strategies.
    ///
    /// Greedy placement as in Pisarchyk and Lee, "Efficient memory management for deep neural net
    /// inference" (2020): buffers in the strategy's order, each into a gap among those already
    /// placed that are alive with it.
    pub fn new(intervals: &[Interval]) -> Self {
        let (merged, owner) = merge_reused(intervals);
        let live = live_bytes(&merged);
        let lower_bound = live.iter().copied().max().unwrap_or(0);
        let mut best: Option<(usize, Vec<usize>, &'static str)> = None;
        for strategy in STRATEGIES {
            let offsets = place(&merged, &live, strategy);
            let peak = merged
                .iter()
                .zip(&offsets)
                .map(|(i, &o)| o.saturating_add(aligned(i.size)))
                .max()
                .unwrap_or(0);
            if best.as_ref().is_none_or(|(p, _, _)| peak < *p) {
                best = Some((peak, offsets, strategy.name));
            }
            if peak == lower_bound {
                break;
            }
        }
        let (peak, offsets, strategy) = best.unwrap_or_default();
        Self {
            offsets: owner.iter().map(|&o| offsets[o]).collect(),
            peak,
            lower_bound,
            strategy,
        }
    }
}

/// Joins intervals with those whose buffers they may reuse; the joined ones, and for each
/// original its place among them.
fn merge_reused(intervals: &[Interval]) -> (Vec<Interval>, Vec<usize>) {
    let mut by_first: Vec<usize> = (0..intervals.len()).collect();
    by_first.sort_by_key(|&i| (intervals[i].range.first, i));
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    let mut owner: Vec<Option<usize>> = vec![None; intervals.len()];
    for i in by_first {
        let this = intervals[i];
        let host = this.reuse.and_then(|r| owner.get(r).copied().flatten());
        let fits = host.filter(|&h| {
            merged[h].range.last == this.range.first && aligned(merged[h].size) >= this.size
        });
        owner[i] = Some(match fits {
            Some(h) => {
                merged[h].range.last = this.range.last;
                h
            }
            None => {
                merged.push(Interval {
                    reuse: None,
                    ..this
                });
                merged.len() - 1
            }
        });
    }
    let owner = owner.into_iter().flatten().collect();
    (merged, owner)
}

/// Aligned bytes alive at each step.
fn live_bytes(intervals: &[Interval]) -> Vec<usize> {
    let steps = intervals
        .iter()
        .map(|i| i.range.last + 1)
        .max()
        .unwrap_or(0);
    let mut change = vec![(0usize, 0usize); steps + 1];
    for i in intervals {
        let size = aligned(i.size);
        let up = &mut change[i.range.first].0;
        *up = up.saturating_add(size);
        let down = &mut change[i.range.last + 1].1;
        *down = down.saturating_add(size);
    }
    let mut now = 0usize;
    let mut live = Vec::with_capacity(steps);
    for (up, down) in change.into_iter().take(steps) {
        now = now.saturating_sub(down).saturating_add(up);
        live.push(now);
    }
    live
}

fn place(intervals: &[Interval], live: &[usize], strategy: &Strategy) -> Vec<usize> {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_cached_key(|&n| {
        let i = &intervals[n];
        let crowd = live[i.range.first..=i.range.last].iter().copied().max();
        ((strategy.key)(i, crowd.unwrap_or(0)), n)
    });
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    for n in order {
        let this = &intervals[n];
        let size = aligned(this.size);
        if size > 0 {
            offsets[n] = find_gap(intervals, &offsets, &placed, this, strategy.best_fit);
            let at = placed.partition_point(|&p| offsets[p] <= offsets[n]);
            placed.insert(at, n);
        }
    }
    offsets
}

/// The lowest gap (or the tightest one) among the `placed`, sorted by offset, that live with
/// `this`; the end of them all where there is none.
fn find_gap(
    intervals: &[Interval],
    offsets: &[usize],
    placed: &[usize],
    this: &Interval,
    best_fit: bool,
) -> usize {
    let size = aligned(this.size);
    let mut free = 0usize;
    let mut best: Option<(usize, usize)> = None;
    for &p in placed {
        let other = &intervals[p];
        if !other.range.overlaps(this.range) {
            continue;
        }
        let gap = offsets[p].saturating_sub(free);
        if gap >= size {
            if !best_fit {
                return free;
            }
            if best.is_none_or(|(g, _)| gap < g) {
                best = Some((gap, free));
            }
        }
        free = free.max(offsets[p].saturating_add(aligned(other.size)));
    }
    best.map_or(free, |(_, at)| at)
}

/// Activation memory of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activations {
    /// Bytes of the arena of the best plan.
    pub peak_planned: usize,
    /// The most bytes alive at one step.
    pub lower_bound: usize,
}

/// Activation memory of the main graph, graph inputs and outputs included, subgraphs left out;
/// values of unknown size count nothing, nor do values made of constants alone (dequantised
/// weights), which a runtime makes once. Infer with [`concrete_inputs`] first.
///
/// # Errors
/// When the graph has a cycle, or `inferred` is that of another graph.
pub fn peak_activations(model: &Model, inferred: &Inferred) -> Result<Activations> {
    let graph = &model.graph;
    if inferred.types.len() != graph.value_slots() {
        return Err(Error::internal("the types are those of another graph"));
    }
    let order = graph.order()?;
    let fixed = made_of_constants(graph, &order);
    let intervals: Vec<Interval> = liveness(graph, &order)
        .iter()
        .zip(&inferred.types)
        .zip(&fixed)
        .filter(|(_, fixed)| !**fixed)
        .filter_map(|((range, ty), _)| {
            Some(Interval {
                size: ty.as_ref()?.tensor()?.bytes()?,
                range: (*range)?,
                reuse: None,
            })
        })
        .collect();
    let plan = MemoryPlan::new(&intervals);
    Ok(Activations {
        peak_planned: plan.peak,
        lower_bound: plan.lower_bound,
    })
}

/// For each value, whether constants alone decide it and no input of the graph does.
fn made_of_constants(graph: &Graph, order: &[NodeId]) -> Vec<bool> {
    let mut fixed = vec![false; graph.value_slots()];
    for (v, value) in graph.values() {
        fixed[v.index()] = value.constant.is_some();
    }
    for &id in order {
        let node = graph.node(id);
        let mut read = node.inputs().iter().flatten().peekable();
        if read.peek().is_some()
            && read.all(|v| fixed[v.index()])
            && node.subgraphs().next().is_none()
        {
            for v in node.outputs().iter().flatten() {
                fixed[v.index()] = true;
            }
        }
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(size: usize, first: usize, last: usize) -> Interval {
        Interval {
            size,
            range: Range { first, last },
            reuse: None,
        }
    }

    fn assert_disjoint(intervals: &[Interval], plan: &MemoryPlan) {
        for (a, i) in intervals.iter().enumerate() {
            for (b, j) in intervals.iter().enumerate().skip(a + 1) {
                let (x, y) = (plan.offsets[a], plan.offsets[b]);
                let apart = x + i.size <= y || y + j.size <= x;
                assert!(apart || !i.range.overlaps(j.range), "{a} and {b} overlap");
            }
        }
    }

    #[test]
    fn dequantised_weights_are_no_activations() {
        let model = crate::text::parse(
            r#"
opset 17
graph net(x: f32[1,2]) -> (y: f32[1,1]) {
  q: i8[2,1] = {1,-2}
  s: f32[] = {0.5}
  w = DequantizeLinear(q, s) {name="d"}
  y = MatMul(x, w) {name="m"}
}
"#,
        );
        let model = model.unwrap();
        let inferred = crate::infer::infer(&model, &[]).unwrap();
        let bytes = peak_activations(&model, &inferred).unwrap().peak_planned;
        assert_eq!(bytes, 2 * ALIGNMENT);
    }

    #[test]
    fn a_chain_takes_two_buffers() {
        let chain: Vec<_> = (0..10).map(|i| interval(64, i, i + 1)).collect();
        let plan = MemoryPlan::new(&chain);
        assert_eq!((plan.peak, plan.lower_bound), (128, 128));
        assert_disjoint(&chain, &plan);
    }

    #[test]
    fn an_in_place_chain_takes_one_buffer() {
        let mut chain: Vec<_> = (0..10).map(|i| interval(100, i, i + 1)).collect();
        for (i, x) in chain.iter_mut().enumerate().skip(1) {
            x.reuse = Some(i - 1);
        }
        let plan = MemoryPlan::new(&chain);
        assert_eq!((plan.peak, plan.lower_bound), (128, 128));
        assert!(plan.offsets.iter().all(|&o| o == 0));
    }

    #[test]
    fn a_buffer_still_read_is_not_reused() {
        let mut both = [interval(64, 0, 3), interval(64, 1, 2)];
        both[1].reuse = Some(0);
        let plan = MemoryPlan::new(&both);
        assert_eq!(plan.peak, 128);
        assert_disjoint(&both, &plan);
    }

    #[test]
    fn random_plans_hold_apart_what_lives_together() {
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from((state >> 33) % n).unwrap()
        };
        for _ in 0..50 {
            let intervals: Vec<_> = (0..40)
                .map(|_| {
                    let first = next(30);
                    interval(next(1000), first, first + next(6))
                })
                .collect();
            let plan = MemoryPlan::new(&intervals);
            assert_disjoint(&intervals, &plan);
            assert!(plan.offsets.iter().all(|o| o % ALIGNMENT == 0));
            assert!(plan.lower_bound <= plan.peak);
            assert!(plan.peak <= plan.lower_bound * 3 / 2);
        }
    }

    #[test]
    fn no_intervals_take_no_memory() {
        let plan = MemoryPlan::new(&[]);
        assert_eq!((plan.peak, plan.lower_bound), (0, 0));
    }
}
