//! The distance of a filter to all others: what is nearest to the geometric median is what others
//! can stand for (Y. He et al., 2019, FPGM, equation 7).

use edgesmith_ir::{Result, Tensor};

use super::{Criterion, Cx, Needs, add, by_class};
use crate::prune::groups::Group;

/// Σ_j ‖w_c − w_j‖₂.
pub static GEOMETRIC_MEDIAN: Criterion = Criterion {
    name: "fpgm",
    about: "the sum of the distances of its filter to all others of the layer (He et al. 2019)",
    needs: Needs::Nothing,
    score,
};

fn score(cx: &Cx, group: &Group) -> Result<Vec<f64>> {
    let mut scores = vec![0.0; group.count()];
    for (axis, weight) in cx.makers(group) {
        let distances = distances(&weight, axis.axis)?;
        add(&mut scores, &by_class(group, axis, &distances));
    }
    Ok(scores)
}

/// The sum of the distances of each slice to all others.
fn distances(t: &Tensor, axis: usize) -> Result<Vec<f64>> {
    let data = t.to_f32()?;
    let (count, inner) = (
        t.dims()[axis],
        t.dims()[axis + 1..].iter().product::<usize>(),
    );
    let outer: usize = t.dims()[..axis].iter().product();
    let slice = |c: usize| {
        let lines = (0..outer).map(move |o| (o * count + c) * inner);
        lines.flat_map(|first| data[first..first + inner].iter().copied())
    };
    let slices: Vec<Vec<f32>> = (0..count).map(|c| slice(c).collect()).collect();
    let mut sums = vec![0.0; count];
    for a in 0..count {
        for b in 0..a {
            let square = |(x, y): (&f32, &f32)| f64::from(x - y).powi(2);
            let distance = slices[a].iter().zip(&slices[b]).map(square).sum::<f64>();
            let distance = distance.sqrt();
            sums[a] += distance;
            sums[b] += distance;
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_in_the_middle_is_the_nearest_to_all() {
        let t = Tensor::from_vec(&[3, 2], vec![0.0f32, 0.0, 1.0, 0.0, 3.0, 0.0]).unwrap();
        assert_eq!(distances(&t, 0).unwrap(), [4.0, 3.0, 5.0]);
        let turned = Tensor::from_vec(&[2, 3], vec![0.0f32, 1.0, 3.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(distances(&turned, 1).unwrap(), [4.0, 3.0, 5.0]);
    }
}
