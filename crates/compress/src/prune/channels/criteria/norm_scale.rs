//! The scale of the batch normalisation behind a channel (Z. Liu et al., 2017, network slimming).

use edgesmith_ir::{Error, Result};

use super::{Criterion, Cx, Needs, add, by_class};
use crate::prune::groups::Group;

/// |γ|.
pub static NORM_SCALE: Criterion = Criterion {
    name: "bn-scale",
    about: "|γ| of the batch normalisations of it (Liu et al. 2017); not where they are folded away",
    needs: Needs::Nothing,
    score,
};

fn score(cx: &Cx, group: &Group) -> Result<Vec<f64>> {
    let graph = &cx.groups.model.graph;
    let mut scores = vec![0.0; group.count()];
    let mut found = false;
    for axis in group.axes() {
        let consumers = graph.value(axis.value).consumers();
        let is_scale = consumers
            .iter()
            .any(|(id, i)| *i == 1 && graph.node(*id).is("BatchNormalization"));
        let data = graph.constant(axis.value).filter(|_| is_scale);
        if let Some(data) = data {
            let scales: Vec<f64> = data.to_f32()?.iter().map(|&x| f64::from(x.abs())).collect();
            add(&mut scores, &by_class(group, axis, &scales));
            found = true;
        }
    }
    if found {
        return Ok(scores);
    }
    let what = format!(
        "no batch normalisation goes over the channels of {}",
        group.name
    );
    Err(Error::unsupported(what).hint(
        "it was folded into a convolution, or there never was one; l1, l2 or taylor need none",
    ))
}
