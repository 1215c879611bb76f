//! A target of time: layers are timed on this machine at the widths that they could have, and what
//! costs the least importance for the most time goes first (T.-J. Yang et al., 2018, NetAdapt, with
//! a table of layers).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgesmith_ir::analysis::lengths::workable_inputs;
use edgesmith_ir::channels::Axis;
use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::types::TensorType;
use edgesmith_ir::{
    Attribute, DType, Error, Graph, Model, Node, NodeId, Progress, Result, Tensor, ValueId,
};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::student::trial;

use super::plan::{Plan, cut_of};
use super::{Settings, plan::Step};
use crate::prune::groups::{Group, Groups};
use crate::samples::named;

/// Operators whose time depends on channels, and that are timed.
const TIMED: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GRU",
    "LSTM",
    "MatMul",
    "RNN",
];

/// How long a layer or a model is run to be timed, at least, and how often.
const LONG: Duration = Duration::from_millis(4);
const TIMES: usize = 5;

/// Pairs of runs of the whole, at least, and how long they go on.
const PAIRS: usize = 15;
const BOTH: Duration = Duration::from_millis(400);

/// Steps of a group that are weighed together: one alone may save nothing.
const AHEAD: usize = 4;

/// How often the whole is measured and the target of the table corrected.
const ROUNDS: usize = 5;

/// Milliseconds of layers, by what they are and how wide.
pub struct Table<'a> {
    groups: &'a Groups,
    inferred: Inferred,
    threads: usize,
    known: BTreeMap<String, f64>,
    /// By axis, how many of its indices go with one of a group.
    widths: BTreeMap<Axis, Vec<(usize, usize)>>,
    /// The layers that a group makes wider or narrower.
    touched: Vec<Vec<NodeId>>,
}

impl<'a> Table<'a> {
    /// The layers of a model, none of which was timed.
    ///
    /// # Errors
    /// When shapes of a sample cannot be found.
    pub fn new(groups: &'a Groups, threads: usize) -> Result<Self> {
        let model = &groups.model;
        let inferred = infer::infer(model, &workable_inputs(model, &[])?)?;
        let mut widths: BTreeMap<Axis, Vec<(usize, usize)>> = BTreeMap::new();
        for (g, group) in groups.groups.iter().enumerate() {
            for (axis, indices) in group.dimension.classes.first().into_iter().flatten() {
                widths.entry(*axis).or_default().push((g, indices.len()));
            }
        }
        let mut touched = vec![Vec::new(); groups.groups.len()];
        for (id, node) in model.graph.nodes() {
            if !TIMED.iter().any(|op| node.is(op)) {
                continue;
            }
            let edges = node.inputs().iter().chain(node.outputs()).flatten();
            let mut own: Vec<usize> = edges
                .flat_map(|v| widths.range(Axis::of(*v, 0)..=Axis::of(*v, usize::MAX)))
                .flat_map(|(_, list)| list.iter().map(|(g, _)| *g))
                .collect();
            own.sort_unstable();
            own.dedup();
            own.into_iter().for_each(|g| touched[g].push(id));
        }
        Ok(Self {
            groups,
            inferred,
            threads,
            known: BTreeMap::new(),
            widths,
            touched,
        })
    }

    /// The layers that were timed, at so many widths in all.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True before the first.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The lengths of a value where so many of each group stay.
    fn dims(&self, v: ValueId, stay: &[usize]) -> Option<Vec<usize>> {
        let constant = self.groups.model.graph.value(v).constant.as_ref();
        let mut dims: Vec<usize> = match constant {
            Some(data) => data.dims().to_vec(),
            None => self.inferred.dims(v)?.to_vec(),
        };
        for (a, length) in dims.iter_mut().enumerate() {
            for &(g, each) in self.widths.get(&Axis::of(v, a)).into_iter().flatten() {
                *length -= (self.groups.groups[g].count() - stay[g]) * each;
            }
        }
        Some(dims)
    }

    /// The time of all layers of a group.
    fn of_group(&mut self, group: usize, stay: &[usize]) -> Result<f64> {
        let mut sum = 0.0;
        for id in self.touched[group].clone() {
            sum += self.of_layer(id, stay)?;
        }
        Ok(sum)
    }

    /// The time of all layers.
    fn of_all(&mut self, stay: &[usize]) -> Result<f64> {
        let nodes = self.groups.model.graph.nodes();
        let timed: Vec<NodeId> = nodes
            .filter(|(_, n)| TIMED.iter().any(|op| n.is(op)))
            .map(|(id, _)| id)
            .collect();
        let mut sum = 0.0;
        for id in timed {
            sum += self.of_layer(id, stay)?;
        }
        Ok(sum)
    }

    /// The time of a layer.
    fn of_layer(&mut self, id: NodeId, stay: &[usize]) -> Result<f64> {
        let model = &self.groups.model;
        let mut node = model.graph.node(id).clone();
        node.name.clear();
        let mut dims = Vec::new();
        for v in node.inputs() {
            // A layer that reads other numbers is not timed alone.
            if v.is_some_and(|v| {
                self.inferred
                    .tensor(v)
                    .is_some_and(|t| t.dtype != DType::F32)
            }) {
                return Ok(0.0);
            }
            let own = v.map(|v| (v, self.dims(v, stay)));
            match own {
                None => dims.push(None),
                Some((v, Some(d))) => dims.push(Some((v, d))),
                // A layer whose shapes are not known has no time.
                Some((_, None)) => return Ok(0.0),
            }
        }
        let group = node.int("group").unwrap_or(1);
        if let Some(Some((x, now))) = dims.first().filter(|_| group > 1) {
            let before = self.inferred.dims(*x).and_then(|d| d.get(1).copied());
            if before == Some(group as usize) {
                node.set("group", Attribute::Int(now[1] as i64));
            }
        }
        if let (Some(_), Some(Some((_, r)))) = (node.int("hidden_size"), dims.get(2)) {
            node.set("hidden_size", Attribute::Int(r[2] as i64));
        }
        let key = format!("{} {:?} {:?}", node.op, node.attributes, lengths(&dims));
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let took = time_of(model, &node, &dims, self.threads)?;
        self.known.insert(key, took);
        Ok(took)
    }
}

type Dims = Option<(ValueId, Vec<usize>)>;

fn lengths(dims: &[Dims]) -> Vec<Option<&Vec<usize>>> {
    dims.iter().map(|d| d.as_ref().map(|(_, d)| d)).collect()
}

/// The time of a node alone, on numbers that are all one.
fn time_of(model: &Model, node: &Node, dims: &[Dims], threads: usize) -> Result<f64> {
    let mut graph = Graph::new("layer");
    let (mut inputs, mut given) = (Vec::new(), Vec::new());
    for (i, dims) in dims.iter().enumerate() {
        let Some((v, dims)) = dims else {
            inputs.push(None);
            continue;
        };
        let count = edgesmith_ir::checked_count(dims)?;
        let name = format!("i{i}");
        let ones = Tensor::from_vec(dims, vec![1.0f32; count])?;
        if model.graph.constant(*v).is_some() {
            inputs.push(Some(graph.add_constant(&name, ones)));
        } else {
            let ty = TensorType::fixed(DType::F32, dims);
            inputs.push(Some(graph.add_input(&name, ty)));
            given.push((name, ones));
        }
    }
    let y = graph.add_value("y", None);
    graph.add_node(Node::clone(node), &inputs, &[Some(y)]);
    graph.outputs.push(y);
    let mut alone = Model::new(graph, 17);
    alone.opsets = model.opsets.clone();
    measure(&alone, &given, threads)
}

/// Milliseconds of a run: the shortest of several, which is what others on the machine took the
/// least of.
fn measure(model: &Model, given: &[(String, Tensor)], threads: usize) -> Result<f64> {
    let mut session = session(model, threads)?;
    let given = named(given);
    session.run(&given)?;
    let started = Instant::now();
    let (mut least, mut times) = (f64::INFINITY, 0);
    while times < TIMES || started.elapsed() < LONG {
        least = least.min(time(&mut session, &given)?);
        times += 1;
    }
    Ok(least)
}

fn session(model: &Model, threads: usize) -> Result<Session> {
    let options = Options {
        threads,
        ..Options::default()
    };
    Session::prepare(model, &options)
}

fn time(session: &mut Session, given: &[(&str, Tensor)]) -> Result<f64> {
    let before = Instant::now();
    session.run(given)?;
    Ok(before.elapsed().as_secs_f64() * 1e3)
}

/// Two models run in turn: the median time of the first, and the median of what the second takes of
/// it.
fn in_turn(
    first: &mut Session,
    second: &mut Session,
    given: &[(&str, Tensor)],
) -> Result<(f64, f64)> {
    let (mut times, mut parts) = (Vec::new(), Vec::new());
    let started = Instant::now();
    second.run(given)?;
    while times.len() < PAIRS || (started.elapsed() < BOTH && times.len() < 20 * PAIRS) {
        let one = time(first, given)?;
        let other = time(second, given)?;
        times.push(one);
        parts.push(other / one.max(1e-9));
    }
    times.sort_by(f64::total_cmp);
    parts.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], parts[parts.len() / 2]))
}

/// How many of each group stay so that a sample takes the time that is asked for, and what was
/// measured, as sentences.
///
/// # Errors
/// When the model does not run on random inputs, or the user cancels.
pub(super) fn choose(
    groups: &Groups,
    plan: &Plan,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<(Vec<usize>, Vec<String>)> {
    let inputs = trial::inputs(&groups.model)?.ok_or_else(|| {
        Error::unsupported("the model cannot be timed: no random numbers are made for its inputs")
            .hint("--of macs is a target that needs no run")
    })?;
    let mut table = Table::new(groups, settings.threads)?;
    let all: Vec<usize> = groups.groups.iter().map(Group::count).collect();
    let mut dense = session(&groups.model, settings.threads)?;
    dense.run(&named(&inputs))?;
    let of_table = table.of_all(&all)?;
    let wanted = 1.0 - settings.amount;
    let mut budget = of_table * wanted;
    progress.start("time layers", ROUNDS as u64);
    let mut best: Option<(f64, Vec<usize>)> = None;
    let (mut rounds, mut before) = (0, 0.0);
    for _ in 0..ROUNDS {
        progress.check()?;
        let stay = shrink(&mut table, groups, plan, budget, progress)?;
        let model = cut_of(groups, &plan.kept(groups, &stay))?;
        let mut small = session(&model, settings.threads)?;
        let (took, now) = in_turn(&mut dense, &mut small, &named(&inputs))?;
        before = took;
        rounds += 1;
        progress.advance(1);
        let is_full = now <= wanted;
        let is_better = best
            .as_ref()
            .is_none_or(|(b, _)| match (*b <= wanted, is_full) {
                (true, true) => now > *b,
                (false, true) => true,
                (false, false) => now < *b,
                (true, false) => false,
            });
        if is_better {
            best = Some((now, stay));
        }
        // Near enough below the target.
        if is_full && now > 0.97 * wanted {
            break;
        }
        budget -= (now - wanted * 0.985) * of_table;
        if budget <= 0.0 {
            break;
        }
    }
    progress.finish();
    let (now, stay) = best.ok_or_else(|| Error::internal("a round was measured"))?;
    let mut notes = vec![format!(
        "timed {} layers alone and the whole {rounds} times, in turn with the dense model: {before:.3} ms before, now {:.1} % of that, {:.1} % were asked for",
        table.len(),
        100.0 * now,
        100.0 * wanted
    )];
    if now > wanted {
        notes.push(
            "the time that was asked for was not reached: what is left cannot go, or costs no time"
                .into(),
        );
    }
    Ok((stay, notes))
}

/// Takes steps until the table says that the layers take no longer than `budget`.
fn shrink(
    table: &mut Table,
    groups: &Groups,
    plan: &Plan,
    budget: f64,
    progress: &dyn Progress,
) -> Result<Vec<usize>> {
    let mut stay: Vec<usize> = groups.groups.iter().map(Group::count).collect();
    let mut next = vec![0usize; stay.len()];
    // What each group is worth that is left: its channels, as their mean is one.
    let mut worth: Vec<f64> = stay.iter().map(|n| *n as f64).collect();
    let mut total = table.of_all(&stay)?;
    while total > budget {
        progress.check()?;
        let mut best: Option<(f64, usize, usize, f64)> = None;
        for g in 0..stay.len() {
            let own: &[Step] = &plan.steps[g][next[g]..];
            if own.is_empty() {
                continue;
            }
            let before = table.of_group(g, &stay)?;
            let full = stay[g];
            let mut lost = 0.0;
            for (i, step) in own.iter().take(AHEAD).enumerate() {
                stay[g] -= step.count;
                lost += step.score * step.count as f64;
                let saved = before - table.of_group(g, &stay)?;
                let rest = (worth[g] - lost).max(worth[g] * 1e-3);
                let price = (worth[g] / rest).ln().max(1e-9);
                let gain = saved / price;
                if saved > 0.0 && best.is_none_or(|(b, ..)| gain > b) {
                    best = Some((gain, g, i + 1, saved));
                }
            }
            stay[g] = full;
        }
        let Some((_, g, steps, saved)) = best else {
            break;
        };
        for step in &plan.steps[g][next[g]..][..steps] {
            stay[g] -= step.count;
            worth[g] = (worth[g] - step.score * step.count as f64).max(worth[g] * 1e-3);
        }
        next[g] += steps;
        total -= saved;
    }
    Ok(stay)
}
