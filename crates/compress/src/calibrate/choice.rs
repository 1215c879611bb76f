//! Which samples are used, where not all.

use std::collections::BTreeSet;

/// `count` of the numbers below `all`, the same for the same seed: a partial shuffle by Fisher and
/// Yates with numbers of SplitMix64.
pub fn chosen(count: usize, all: usize, seed: u64) -> BTreeSet<usize> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..all).collect();
    let count = count.min(all);
    for i in 0..count {
        let rest = (all - i) as u128;
        let j = i + ((u128::from(next()) * rest) >> 64) as usize;
        order.swap(i, j);
    }
    order.into_iter().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn as_many_as_asked_for_are_chosen_and_another_seed_chooses_others() {
        assert_eq!(chosen(10, 100, 1).len(), 10);
        assert_eq!(chosen(10, 100, 1), chosen(10, 100, 1));
        assert_ne!(chosen(10, 100, 1), chosen(10, 100, 2));
        assert_eq!(
            chosen(9, 5, 3).into_iter().collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert!(chosen(0, 5, 3).is_empty() && chosen(3, 0, 3).is_empty());
    }

    #[test]
    fn every_sample_is_chosen_as_often() {
        let mut counts = [0usize; 20];
        for seed in 0..4000 {
            chosen(5, 20, seed).into_iter().for_each(|i| counts[i] += 1);
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
    }
}
