//! Sounds a little earlier or later.

use super::{Apply, AugmentDef};

/// The augmentation.
pub static SHIFT: AugmentDef = AugmentDef {
    name: "shift",
    about: "Move sounds by up to so many numbers each way; 0 comes in",
    amount: 1600.0,
    apply: Apply::Audio(|random, amount, sound| {
        let most = (amount as usize).min(sound.len());
        let by = random.below(2 * most + 1) as isize - most as isize;
        shifted(sound, by);
    }),
};

/// Moves a sound by so many numbers: later where that is positive.
pub fn shifted(sound: &mut [f32], by: isize) {
    let length = sound.len();
    let distance = by.unsigned_abs().min(length);
    if by >= 0 {
        sound.copy_within(..length - distance, distance);
        sound[..distance].fill(0.0);
    } else {
        sound.copy_within(distance.., 0);
        sound[length - distance..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_moves_and_silence_comes_in() {
        let after = |by| {
            let mut sound = [1.0, 2.0, 3.0];
            shifted(&mut sound, by);
            sound
        };
        assert_eq!(after(1), [0.0, 1.0, 2.0]);
        assert_eq!(after(-2), [3.0, 0.0, 0.0]);
        assert_eq!(after(0), [1.0, 2.0, 3.0]);
        assert_eq!((after(9), after(isize::MIN)), ([0.0; 3], [0.0; 3]));
    }
}
