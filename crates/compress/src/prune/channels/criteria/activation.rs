//! How large a channel is on samples, alone and with the weights that read it.

use edgesmith_ir::channels::Axis;
use edgesmith_ir::{Error, NodeId, Result};

use super::{Criterion, Cx, Needs, add, by_class, sums};
use crate::prune::groups::Group;

/// √E\[x²\].
pub static ACTIVATION: Criterion = Criterion {
    name: "activation",
    about: "the root of the mean square of what is read of it on samples (as Minitron ranks, 2024)",
    needs: Needs::Samples,
    score: |cx, group| score(cx, group, false),
};

/// √E\[x²\] · ‖w‖₂.
pub static WANDA: Criterion = Criterion {
    name: "wanda",
    about: "the root of the mean square of what is read of it times the length of the weights that read it (Sun et al. 2024, by channel)",
    needs: Needs::Samples,
    score: |cx, group| score(cx, group, true),
};

fn score(cx: &Cx, group: &Group, with_weights: bool) -> Result<Vec<f64>> {
    let mut scores = vec![0.0; group.count()];
    let mut found = false;
    for &(node, input, axis) in &group.readers {
        let Some(squares) = mean_squares(cx, node)? else {
            continue;
        };
        let lengths = match cx.weight(axis.value).filter(|_| with_weights && input == 1) {
            Some(w) => sums(&w, axis.axis, |_, x| f64::from(x).powi(2))?,
            None => vec![1.0; squares.len()],
        };
        let of_index: Vec<f64> = squares
            .iter()
            .zip(&lengths)
            .map(|(a, b)| (a * b).sqrt())
            .collect();
        add(&mut scores, &by_class(group, axis, &of_index));
        found = true;
    }
    if found {
        return Ok(scores);
    }
    let what = format!("nothing was seen of what reads {}", group.name);
    Err(Error::unsupported(what).hint("l1, l2 or taylor need no statistics of it"))
}

/// The mean square of each channel that a product with a weight reads.
fn mean_squares(cx: &Cx, node: NodeId) -> Result<Option<Vec<f64>>> {
    let graph = &cx.groups.model.graph;
    let statistics = cx
        .seen
        .statistics
        .ok_or_else(|| Error::internal("there are no statistics"))?;
    let Some(x) = graph.node(node).input(0) else {
        return Ok(None);
    };
    let seen = statistics.of(&graph.value(x).name);
    let channels = seen.and_then(|s| s.channels.as_ref());
    Ok(channels
        .filter(|c| c.count > 0)
        .map(crate::calibrate::Channels::mean_squares))
}

/// The values of which statistics are needed: what products with weights read of groups.
pub fn values(groups: &crate::prune::groups::Groups) -> Vec<String> {
    let graph = &groups.model.graph;
    let readers = groups.groups.iter().flat_map(|g| &g.readers);
    let value = |(id, _, _): &(NodeId, usize, Axis)| {
        let x = graph.node(*id).input(0)?;
        Some(graph.value(x).name.clone())
    };
    readers.filter_map(value).collect()
}
