//! What the loss would change by, to first order, if the weights of a channel were zero (P. Molchanov
//! et al., 2019, equation 8): the sum of weight times gradient over a group, then its magnitude.

use edgesmith_ir::{Error, Result};

use super::{Criterion, Cx, Needs, add, by_class};
use crate::prune::groups::Group;

/// |Σ w·∂L/∂w|, averaged over batches.
pub static TAYLOR: Criterion = Criterion {
    name: "taylor",
    about: "|Σ w·∂L/∂w| over its weights, the mean over batches; of the cross entropy of labels, or of the model's own answers (Molchanov et al. 2019)",
    needs: Needs::Gradients,
    score,
};

fn score(cx: &Cx, group: &Group) -> Result<Vec<f64>> {
    let gradients = cx
        .seen
        .gradients
        .ok_or_else(|| Error::internal("there are no gradients"))?;
    let graph = &cx.groups.model.graph;
    let mut scores = vec![0.0; group.count()];
    for batch in &gradients.batches {
        let mut changes = vec![0.0; group.count()];
        // What reads the group says the same to first order as what makes it, with its biases and
        // scales: these are enough.
        for axis in group.axes() {
            let is_read = group.readers.iter().any(|(.., a)| *a == axis);
            if is_read && !group.makers.contains(&axis) {
                continue;
            }
            let name = graph.value(axis.value).name.clone();
            if let Some(of_index) = batch.get(&(name, axis.axis)) {
                add(&mut changes, &by_class(group, axis, of_index));
            }
        }
        let magnitudes: Vec<f64> = changes.iter().map(|x| x.abs()).collect();
        add(&mut scores, &magnitudes);
    }
    Ok(scores)
}
