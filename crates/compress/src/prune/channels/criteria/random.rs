//! Chance, to compare other criteria with.

use edgesmith_ir::Result;
use edgesmith_ir::random::Random;

use super::{Criterion, Cx, Needs};
use crate::prune::groups::Group;

/// The control.
pub static RANDOM: Criterion = Criterion {
    name: "random",
    about: "chance, by --seed: the control of all others",
    needs: Needs::Nothing,
    score,
};

fn score(cx: &Cx, group: &Group) -> Result<Vec<f64>> {
    let place = group.makers.first().map_or(0, |a| a.value.index());
    let mut random = Random::of(&[cx.seed, 41, place as u64]);
    Ok((0..group.count()).map(|_| random.unit()).collect())
}
