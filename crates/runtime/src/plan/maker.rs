//! What every plan of a session is made with, and the making of one.

use std::collections::BTreeSet;

use edgesmith_ir::analysis::{cost, samples};
use edgesmith_ir::types::Type;
use edgesmith_ir::{Budget, Limits, Model, Result, ValueId, infer};
use edgesmith_kernels::Ctx;

use super::{Placement, Plan, Planner, Setting, Shelf, fold, signs};
use crate::providers::Chosen;

/// Graphs that are planned inside each other at most; deeper ones are evaluated.
pub(super) const MAX_DEPTH: usize = 24;

/// Instructions and threads, providers, and what a run may do and use.
#[derive(Clone)]
pub(crate) struct Maker {
    pub ctx: Ctx,
    pub providers: Vec<Chosen>,
    /// Q/DQ groups may become integer kernels.
    pub integer: bool,
    /// Steps are timed.
    pub profile: bool,
    pub limits: Limits,
    /// The most that the values of one piece of a batch take.
    pub batch_bytes: usize,
    /// The least between two convolutions that go by lines.
    pub line_bytes: usize,
    /// Told of weights that are packed.
    pub packed: Option<fn(&[u8])>,
    /// How many plans stand around this one.
    pub depth: usize,
}

impl Maker {
    /// The maker of plans that are steps of a plan; `None` where that would be too deep.
    pub fn inner(&self) -> Option<Self> {
        let depth = self.depth + 1;
        (depth < MAX_DEPTH).then(|| Self {
            depth,
            ..self.clone()
        })
    }

    /// Whether bytes may be of the other sign than the file says: devices take them as they are.
    fn turns_signs(&self) -> bool {
        self.integer && self.providers.iter().all(|p| p.device.is_none())
    }

    /// The plan of `model` for inputs of these types, in which `wanted` are made.
    ///
    /// # Errors
    /// When a shape rule fails, a node cannot be run, or a limit is passed.
    pub fn plan(
        &self,
        model: &Model,
        types: &[(ValueId, Type)],
        wanted: &BTreeSet<ValueId>,
        shelf: &Shelf,
    ) -> Result<Plan> {
        let inferred = infer::infer(model, types)?;
        let costs = cost::node_costs(model, &inferred)?;
        let budget = Budget::new(self.limits);
        let mut concrete = fold::concrete(model, types, self.integer, &budget)?;
        let (graph, known) = (&mut concrete.model.graph, &concrete.inferred);
        if self.turns_signs() && signs::turn(graph, known, wanted, self.ctx.takes_signed()) {
            concrete.inferred = infer::infer(&concrete.model, types)?;
        }
        let planner = Planner::new(Setting {
            model: &concrete.model,
            inferred: &concrete.inferred,
            maker: self,
            wanted,
            macs: costs.iter().map(|c| (c.node, c.cost.macs)).collect(),
            shelf,
        });
        let order = concrete.model.graph.order()?;
        let mut plan = planner.finish(&order)?;
        plan.check(&self.limits)?;
        for id in concrete.folded {
            let node = model.graph.node(id);
            plan.placements[id.index()] = Placement {
                node: node.name.clone(),
                op: node.op.clone(),
                note: Some("computed once, when the input shapes are known".into()),
                ..Placement::default()
            };
        }
        plan.model = concrete.model;
        if self.depth == 0 {
            let samples = samples::independent(model, &inferred);
            plan.samples = samples.filter(|s| s.count > 1);
        }
        Ok(plan)
    }
}
