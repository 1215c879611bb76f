//! A part of the image with a border of 0, of the size of the image.

use super::{Apply, AugmentDef, Planes};

/// The augmentation (He et al. 2016, section 4.2).
pub static CROP: AugmentDef = AugmentDef {
    name: "crop",
    about: "Move images up to so many pixels each way; 0 comes in from outside",
    amount: 4.0,
    apply: Apply::Image(|random, amount, image| {
        let [_, height, width] = image.dims;
        let most = |length: usize| (amount as usize).min(length);
        let mut by = |length: usize| {
            let most = most(length);
            random.below(2 * most + 1) as isize - most as isize
        };
        let (down, right) = (by(height), by(width));
        moved(image, down, right);
    }),
};

/// Moves an image by so many rows and columns.
pub fn moved(image: &mut Planes, down: isize, right: isize) {
    let [channels, height, width] = image.dims;
    let before = image.data.to_vec();
    let from = |at: usize, by: isize, length: usize| {
        at.checked_add_signed(by.checked_neg()?)
            .filter(|&i| i < length)
    };
    for c in 0..channels {
        for y in 0..height {
            for x in 0..width {
                let source = from(y, down, height).zip(from(x, right, width));
                image.data[(c * height + y) * width + x] =
                    source.map_or(0.0, |(y, x)| before[(c * height + y) * width + x]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_in_is_zero() {
        let mut data = [1.0, 2.0, 3.0, 4.0];
        let mut image = Planes {
            data: &mut data,
            dims: [1, 2, 2],
        };
        moved(&mut image, 1, 0);
        assert_eq!(image.data, [0.0, 0.0, 1.0, 2.0]);
        moved(&mut image, 0, -1);
        assert_eq!(image.data, [0.0, 0.0, 2.0, 0.0]);
        moved(&mut image, isize::MIN, isize::MAX);
        assert_eq!(image.data, [0.0; 4]);
    }
}
