//! The share of a channel in what is left when all smaller ones are gone, which compares layers (J.
//! Lee et al., 2021, LAMP, equation 3, of channels in the place of weights).

use edgesmith_ir::Result;

use super::{Criterion, Cx, Needs, norm};
use crate::prune::groups::Group;

/// n² / Σ_{m ≥ n} m² of the L2 norms.
pub static LAMP: Criterion = Criterion {
    name: "lamp",
    about: "its squared L2 norm over the sum of those that are not smaller (Lee et al. 2021)",
    needs: Needs::Nothing,
    score,
};

fn score(cx: &Cx, group: &Group) -> Result<Vec<f64>> {
    let lengths = norm::lengths(cx, group, 2)?;
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]).then(b.cmp(&a)));
    let mut scores = vec![0.0; lengths.len()];
    let mut rest = 0.0;
    for i in order {
        let square = lengths[i] * lengths[i];
        rest += square;
        scores[i] = if rest > 0.0 { square / rest } else { 0.0 };
    }
    Ok(scores)
}
