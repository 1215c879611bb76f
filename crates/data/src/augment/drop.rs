//! Texts without some of their words.

use super::{Apply, AugmentDef};

/// The augmentation (word dropout; M. Iyyer et al., 2015).
pub static DROP: AugmentDef = AugmentDef {
    name: "drop",
    about: "Leave out words of a text, each with this probability; the first and the last token stay",
    amount: 0.1,
    apply: Apply::Words(|random, amount, words| {
        let last = words.saturating_sub(1);
        let mut stays = |w: &usize| random.unit() >= f64::from(amount) || *w == 0 || *w == last;
        (0..words).filter(|w| stays(w)).collect()
    }),
};

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::random::Random;

    #[test]
    fn about_as_many_words_go_as_the_probability_says() {
        let Apply::Words(kept) = DROP.apply else {
            panic!("it is of words");
        };
        let mut random = Random::of(&[3]);
        let count = (0..100).map(|_| kept(&mut random, 0.25, 102).len() - 2);
        let share = count.sum::<usize>() as f64 / 1e4;
        assert!((share - 0.75).abs() < 0.02, "{share}");
        assert_eq!(kept(&mut random, 0.0, 4), [0, 1, 2, 3]);
        assert_eq!(kept(&mut random, 1.0, 4), [0, 3]);
    }
}
