//! What a pass is, and the runner that repeats the list until nothing changes.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use edgesmith_ir::analysis::{cost, workable_inputs};

use edgesmith_ir::error::{At, Kind};
use edgesmith_ir::infer::{Inferred, infer};
use edgesmith_ir::verify::{structure, verify};
use edgesmith_ir::{Error, Graph, Model, NoProgress, Progress, Result};

use crate::pipeline::PASSES;
use crate::rewrite::Names;

/// How much is changed; each level contains those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    None,
    /// What every runtime gains from: folding, cleaning, merging, BatchNormalization into weights.
    Basic,
    /// Nodes are joined into larger operators, of ONNX and of ONNX Runtime.
    Extended,
    /// Room for changes of data layout; has no passes of its own, because the runtime chooses the
    /// layout of its kernels itself.
    Layout,
}

impl Level {
    /// Every level, rising.
    pub const ALL: [Self; 4] = [Self::None, Self::Basic, Self::Extended, Self::Layout];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::Layout => "layout",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|l| l.name() == s)
            .ok_or_else(|| {
                Error::usage(format!("there is no level \"{s}\""))
                    .hint("the levels are none, basic, extended and layout")
            })
    }
}

/// A row of the list of passes.
pub struct Pass {
    /// The name of its file.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The first level that runs it.
    pub level: Level,
    /// Changes the model; how many changes it made.
    pub run: fn(&mut Model, &PassCx) -> Result<usize>,
}

/// What a pass may use beside the model.
pub struct PassCx<'a> {
    /// Told of the work; asked whether to stop.
    pub progress: &'a dyn Progress,
    /// Types of the main graph, as long as nothing has changed since they were found.
    pub(crate) types: RefCell<Option<Rc<Inferred>>>,
    /// Names in use, kept from pass to pass: they only become more.
    pub(crate) names: RefCell<Option<Names>>,
}

impl<'a> PassCx<'a> {
    /// A context for passes on one model, which nobody else changes in between.
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            types: RefCell::new(None),
            names: RefCell::new(None),
        }
    }
}

/// How [`optimize`] runs.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// Verify the model before the first and after every pass.
    pub verify: bool,
    /// Stop after so many runs of passes that changed something: to find the one at fault.
    pub stop_after: Option<usize>,
    /// Run these passes, whatever their level, and no others; all of the level where empty.
    pub only: &'a [&'a str],
    /// Leave these passes out.
    pub skip: &'a [&'a str],
    /// Measure bytes of constants and multiply-accumulates around each pass that changed
    /// something; symbolic dimensions are 1.
    pub measure: bool,
    /// Told of the work; asked whether to stop.
    pub progress: &'a dyn Progress,
}

impl Default for RunOptions<'_> {
    /// Verifies in debug builds, runs every pass to the end, measures nothing, reports to nobody.
    fn default() -> Self {
        Self {
            verify: cfg!(debug_assertions),
            stop_after: None,
            only: &[],
            skip: &[],
            measure: false,
            progress: &NoProgress,
        }
    }
}

impl RunOptions<'_> {
    /// The passes that these options choose, in the order of the list.
    fn passes(&self, level: Level) -> Result<Vec<&'static Pass>> {
        for name in self.only.iter().chain(self.skip) {
            if PASSES.iter().all(|p| p.name != *name) {
                let names: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
                return Err(Error::usage(format!("there is no pass \"{name}\""))
                    .hint(format!("the passes are {}", names.join(", "))));
            }
        }
        let chosen = |p: &&Pass| {
            let named = self.only.contains(&p.name);
            (named || (self.only.is_empty() && p.level <= level)) && !self.skip.contains(&p.name)
        };
        Ok(PASSES.iter().copied().filter(chosen).collect())
    }
}

/// What a model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Nodes of the main graph and of all graphs in it.
    pub nodes: usize,
    /// Bytes of their constants; 0 where they were not measured.
    pub constant_bytes: u64,
    /// Multiply-accumulates of one run; 0 where they were not measured or are not known.
    pub macs: u64,
}

impl Size {
    /// The number of nodes, and where `measure` the rest.
    pub fn of(model: &Model, measure: bool) -> Self {
        let mut size = Self::default();
        size.add(&model.graph, measure);
        if measure {
            let types = workable_inputs(model, &[]).and_then(|inputs| infer(model, &inputs));
            let cost = types.and_then(|t| cost::model_cost(model, &t));
            size.macs = cost.map_or(0, |c| c.macs);
        }
        size
    }

    fn add(&mut self, graph: &Graph, measure: bool) {
        for (_, node) in graph.nodes() {
            self.nodes += 1;
            for inner in node.subgraphs() {
                self.add(inner, measure);
            }
        }
        if measure {
            let bytes = graph.values().filter_map(|(_, v)| v.constant.as_ref());
            self.constant_bytes += bytes.map(|t| t.byte_len() as u64).sum::<u64>();
        }
    }
}

/// One run of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The pass.
    pub name: &'static str,
    /// Rounds through the list before this one.
    pub round: usize,
    /// Changes that it made.
    pub changes: usize,
    /// The model before it.
    pub before: Size,
    /// The model after it.
    pub after: Size,
}

/// What [`optimize`] did, in order; runs that changed nothing are among it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// The runs.
    pub steps: Vec<Step>,
}

impl Trace {
    /// The sum of all changes.
    pub fn changes(&self) -> usize {
        self.steps.iter().map(|s| s.changes).sum()
    }
}

/// The list is gone through at most so often.
const MAX_ROUNDS: usize = 50;

/// Runs the passes up to `level` again and again until none of them changes anything.
///
/// Names, order and types of the main graph's inputs and outputs stay. The answers stay equal;
/// where a pass changes rounding, its documentation says how much.
///
/// # Errors
/// When the options name a pass that does not exist, when the model is not sound, when a pass
/// leaves it so (the error names the pass), or when the user cancels.
pub fn optimize(model: &mut Model, level: Level, options: &RunOptions) -> Result<Trace> {
    let passes = options.passes(level)?;
    let mut trace = Trace::default();
    if options.verify && !passes.is_empty() {
        verified(model, Kind::Invalid)?;
    }
    let cx = PassCx::new(options.progress);
    options.progress.start("optimize", 0);
    let (mut idle, mut effective) = (0, 0);
    let basic = passes.iter().filter(|p| p.level <= Level::Basic).count();
    let mut settled = basic == 0;
    let mut before = Size::of(model, options.measure);
    for (i, pass) in passes.iter().cycle().enumerate() {
        let round = i / passes.len();
        let stop = options.stop_after.is_some_and(|n| effective >= n);
        if idle == passes.len() || round == MAX_ROUNDS || stop {
            break;
        }
        if !settled && idle >= basic {
            (settled, idle) = (true, 0);
        }
        if !settled && pass.level > Level::Basic {
            continue;
        }
        options.progress.check()?;
        let changes = (pass.run)(model, &cx).at(|| format!("pass \"{}\"", pass.name))?;
        let mut after = before;
        if changes > 0 {
            cx.types.take();
            after = Size::of(model, options.measure);
            (idle, effective) = (0, effective + 1);
            if options.verify {
                verified(model, Kind::Internal).at(|| format!("after pass \"{}\"", pass.name))?;
            }
        } else {
            idle += 1;
        }
        trace.steps.push(Step {
            name: pass.name,
            round,
            changes,
            before,
            after,
        });
        before = after;
        options.progress.advance(1);
    }
    options.progress.finish();
    Ok(trace)
}

/// The first fault of the model, with the number of the others.
fn verified(model: &Model, kind: Kind) -> Result<()> {
    let Err(mut faults) = verify(model) else {
        return Ok(());
    };
    let more = faults.len() - 1;
    let mut first = faults.swap_remove(0);
    // A pass may bring types to light that no rule saw through an operator that is not known.
    if !structure(model).is_empty() {
        first.kind = kind;
    }
    if more > 0 {
        first.message = format!("{} (and {more} more)", first.message);
    }
    Err(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_name() {
        for level in Level::ALL {
            assert_eq!(level.name().parse::<Level>().unwrap(), level);
        }
        assert!("fast".parse::<Level>().is_err());
    }

    const TEXT: &str = "opset 17
        graph g(x: f32[2]) -> (y: f32[2]) {
          a = Identity(x)
          b = Relu(a)
          y = Relu(b)
        }";

    #[test]
    fn only_and_skip_choose_passes_and_unknown_names_are_refused() {
        let with = |only, skip| {
            let mut model = edgesmith_ir::text::parse(TEXT).unwrap();
            let options = RunOptions {
                only,
                skip,
                ..RunOptions::default()
            };
            let trace = optimize(&mut model, Level::Basic, &options)?;
            Ok((trace, model.graph.nodes().count()))
        };
        let result: Result<_> = with(&["drop_identity"], &[]);
        let (trace, nodes) = result.unwrap();
        assert!(trace.steps.iter().all(|s| s.name == "drop_identity"));
        assert_eq!(nodes, 2);
        let (trace, _) = with(&[], &["drop_identity"]).unwrap();
        assert!(trace.steps.iter().all(|s| s.name != "drop_identity"));
        let error = with(&["drop_all"], &[]).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
    }

    #[test]
    fn it_stops_after_runs_that_changed_something() {
        let mut model = edgesmith_ir::text::parse(TEXT).unwrap();
        let options = RunOptions {
            stop_after: Some(0),
            measure: true,
            ..RunOptions::default()
        };
        let trace = optimize(&mut model, Level::Basic, &options).unwrap();
        assert!(trace.steps.is_empty());
        assert_eq!(model.graph.nodes().count(), 3);
    }
}
