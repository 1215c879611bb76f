//! The length of the weights that make and read a channel: L1 (H. Li et al., 2017, section 3.1) and
//! L2, summed over all weights of a group (G. Fang et al., 2023, equation 4).

use edgesmith_ir::Result;

use super::{Criterion, Cx, Needs, add, by_class, sums};
use crate::prune::groups::Group;

/// Σ|w|.
pub static L1: Criterion = Criterion {
    name: "l1",
    about: "the sum of |w| over all weights that make or read it (Li et al. 2017)",
    needs: Needs::Nothing,
    score: |cx, group| lengths(cx, group, 1),
};

/// √Σw².
pub static L2: Criterion = Criterion {
    name: "l2",
    about: "the root of the sum of w², summed over the weights that make or read it",
    needs: Needs::Nothing,
    score: |cx, group| lengths(cx, group, 2),
};

/// The p-norm of each class in each weight, added up over the weights.
pub(super) fn lengths(cx: &Cx, group: &Group, p: i32) -> Result<Vec<f64>> {
    let mut scores = vec![0.0; group.count()];
    for (axis, weight) in cx.weights(group) {
        let of_index = sums(&weight, axis.axis, |_, x| f64::from(x.abs()).powi(p))?;
        let of_class = by_class(group, axis, &of_index);
        let of_class: Vec<f64> = of_class
            .iter()
            .map(|s| if p == 2 { s.sqrt() } else { *s })
            .collect();
        add(&mut scores, &of_class);
    }
    Ok(scores)
}
