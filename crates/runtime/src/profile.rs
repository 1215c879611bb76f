//! What runs cost: time by node, memory of a plan.

use std::time::Instant;

use crate::plan::{Plan, Step};

/// Time by node since the last reset, by the plan that ran last; empty unless [`crate::Options::profile`] asks for it.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Runs that were timed.
    pub runs: u64,
    /// Nanoseconds in all steps.
    pub total_ns: u64,
    /// One row a step, in the order of the plan, then those of graphs inside steps.
    pub nodes: Vec<NodeProfile>,
    /// The rows that are steps.
    steps: usize,
    /// The plan whose steps they are.
    plan: u64,
}

/// The time of one step.
#[derive(Debug, Clone, Default)]
pub struct NodeProfile {
    /// The name of its node.
    pub name: String,
    /// The operator, or `reorder`, `widen`, `narrow` for what the plan adds, `lines` for convolutions
    /// that go by lines together.
    pub op: String,
    /// The provider.
    pub provider: String,
    /// The kernel.
    pub kernel: String,
    /// True for integer arithmetic.
    pub integer: bool,
    /// Nanoseconds.
    pub ns: u64,
    /// How often it ran.
    pub calls: u64,
    /// Multiply-accumulates of one call.
    pub macs: u64,
    /// Bytes that one call reads and writes: values, and weights where they are packed.
    pub bytes: u64,
}

/// The memory of the current plan, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// The arena with all activations of known shape.
    pub arena_bytes: usize,
    /// The most that is alive at one time: no arena can be smaller.
    pub lower_bound: usize,
    /// Weights as packed for the kernels.
    pub weight_bytes: usize,
}

impl Profile {
    /// Makes the rows of a plan's steps, which come first. What ran by another plan is forgotten.
    pub(crate) fn start(&mut self, plan: &Plan) {
        if self.plan != plan.id {
            let row = |s: &Step| NodeProfile {
                name: s.row.name.clone(),
                op: s.row.op.clone(),
                provider: s.row.provider.into(),
                kernel: s.row.kernel.clone(),
                integer: s.row.integer,
                macs: s.row.macs,
                bytes: s.row.bytes,
                ..NodeProfile::default()
            };
            *self = Self {
                nodes: plan.steps.iter().map(row).collect(),
                steps: plan.steps.len(),
                plan: plan.id,
                ..Self::default()
            };
        }
        self.runs += 1;
    }

    /// Adds the time of step `i`, and what was spent in graphs inside it.
    pub(crate) fn add(&mut self, i: usize, started: Instant, inner: &Self) {
        let ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let own = ns.saturating_sub(inner.total_ns);
        self.nodes[i].ns += own;
        self.nodes[i].calls += 1;
        self.total_ns += own;
        self.merge(inner);
    }

    /// Adds the rows of graphs inside a step to those that are there.
    pub(crate) fn merge(&mut self, inner: &Self) {
        for row in &inner.nodes {
            let same = |n: &&mut NodeProfile| {
                n.name == row.name && n.op == row.op && n.kernel == row.kernel
            };
            match self.nodes[self.steps..].iter_mut().find(same) {
                Some(known) => {
                    known.ns += row.ns;
                    known.calls += row.calls;
                }
                None => self.nodes.push(row.clone()),
            }
        }
        self.total_ns += inner.total_ns;
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{Tensor, text};

    use crate::{Options, Session};

    #[test]
    fn another_plan_has_rows_of_its_own() {
        let source = "opset 17 graph g (x: f32[n,2]) -> (y: f32[n,2]) {
            w: f32[2,2] = {1,2,3,4} y = MatMul(x, w) {name=\"y\"}
        }";
        let model = text::parse(source).unwrap();
        let options = Options {
            profile: true,
            threads: 1,
            batch_bytes: usize::MAX,
            ..Options::default()
        };
        let mut session = Session::prepare(&model, &options).unwrap();
        for rows in [1, 5, 5, 3] {
            let x = Tensor::from_vec(&[rows, 2], vec![1f32; 2 * rows]).unwrap();
            session.run(&[("x", x)]).unwrap();
            let profile = session.profile();
            let row = profile.nodes.iter().find(|n| n.name == "y").unwrap();
            assert_eq!(row.macs, 4 * rows as u64);
            assert!(row.bytes >= 16 * rows as u64, "{row:?}");
            assert_eq!(row.calls, profile.runs);
        }
        assert_eq!(session.profile().runs, 1);
    }
}
