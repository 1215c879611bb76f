//! The mirror image, left for right.

use super::{Apply, AugmentDef, Planes};

/// The augmentation.
pub static FLIP: AugmentDef = AugmentDef {
    name: "flip",
    about: "Mirror images left for right; the amount is how often, from 0 to 1",
    amount: 0.5,
    apply: Apply::Image(|random, amount, image| {
        if random.unit() < f64::from(amount) {
            flipped(image);
        }
    }),
};

/// Mirrors an image.
pub fn flipped(image: &mut Planes) {
    let width = image.dims[2];
    if width > 0 {
        image
            .data
            .chunks_exact_mut(width)
            .for_each(<[f32]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_turned_around() {
        let mut data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        flipped(&mut Planes {
            data: &mut data,
            dims: [2, 2, 2],
        });
        assert_eq!(data, [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0]);
    }
}
