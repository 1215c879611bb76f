//! The reference evaluation as a provider: runs every operator that the list evaluates.

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, NodeId, Result, ops};

use super::Provider;
use crate::plan::Planner;

/// The provider.
pub static REFERENCE: Provider = Provider::of_nodes(
    "reference",
    "plain evaluation of every operator in the list; the truth for all others",
    plan,
    |_, _| true,
);

fn plan(planner: &mut Planner, id: NodeId) -> Result<bool> {
    check(planner.model(), id)?;
    planner.evaluate(id)?;
    Ok(true)
}

/// Refuses a node that cannot be evaluated.
pub(crate) fn check(model: &Model, id: NodeId) -> Result<()> {
    let node = model.graph.node(id);
    let known = ops::find(&node.domain, &node.op).is_some_and(ops::OpDef::is_evaluated);
    if !known && model.function(node).is_none() {
        return Err(Error::unsupported("the operator is unknown")
            .hint("`edgesmith ops` lists what can be run; the model can still be inspected"))
        .at(|| node.place());
    }
    Ok(())
}
