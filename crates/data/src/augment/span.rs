//! A part of a text.

use super::{Apply, AugmentDef};

/// The augmentation (sampled n-grams; R. Tang et al., 2019).
pub static SPAN: AugmentDef = AugmentDef {
    name: "span",
    about: "Half of the time, keep a span of the words of a text, at least this share; the first and the last token stay",
    amount: 0.3,
    apply: Apply::Words(|random, amount, words| {
        let inner = words.saturating_sub(2);
        if inner == 0 || random.unit() < 0.5 {
            return (0..words).collect();
        }
        let least = (f64::from(amount).min(1.0) * inner as f64).ceil().max(1.0) as usize;
        let length = least + random.below(inner - least + 1);
        let first = 1 + random.below(inner - length + 1);
        let mut kept = vec![0];
        kept.extend(first..first + length);
        kept.push(words - 1);
        kept
    }),
};

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::random::Random;

    #[test]
    fn a_span_is_whole_and_long_enough() {
        let Apply::Words(kept) = SPAN.apply else {
            panic!("it is of words");
        };
        let mut random = Random::of(&[3]);
        let mut whole = 0;
        for _ in 0..1000 {
            let kept = kept(&mut random, 0.5, 10);
            let inner = &kept[1..kept.len() - 1];
            assert!(inner.len() >= 4 && inner.windows(2).all(|w| w[1] == w[0] + 1));
            whole += usize::from(inner.len() == 8);
        }
        assert!((500..700).contains(&whole), "{whole}");
        assert_eq!(kept(&mut random, 0.5, 2), [0, 1]);
    }
}
