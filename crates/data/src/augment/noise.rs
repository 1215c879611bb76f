//! Noise of the normal distribution on sounds.

use edgesmith_ir::random::Random;

use super::{Apply, AugmentDef};

/// The augmentation.
pub static NOISE: AugmentDef = AugmentDef {
    name: "noise",
    about: "Add normal noise to sounds, up to so much of their root mean square",
    amount: 0.1,
    apply: Apply::Audio(|random, amount, sound| {
        let share = random.unit() as f32;
        add_noise(random, sound, share * amount);
    }),
};

/// Adds noise whose deviation is this share of the root mean square of the sound.
pub fn add_noise(random: &mut Random, sound: &mut [f32], share: f32) {
    let square: f64 = sound.iter().map(|x| f64::from(*x).powi(2)).sum();
    let deviation = (square / sound.len().max(1) as f64).sqrt() * f64::from(share);
    for x in sound {
        *x += (random.normal() * deviation) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_share_of_the_sound() {
        let mut sound = vec![2.0f32; 20_000];
        add_noise(&mut Random::new(5), &mut sound, 0.1);
        let square = sound
            .iter()
            .map(|x| (f64::from(*x) - 2.0).powi(2))
            .sum::<f64>();
        let deviation = (square / sound.len() as f64).sqrt();
        assert!((deviation - 0.2).abs() < 0.01, "{deviation}");
        let mut silence = [0.0f32; 4];
        add_noise(&mut Random::new(5), &mut silence, 0.1);
        assert_eq!(silence, [0.0; 4]);
    }
}
