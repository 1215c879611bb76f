//! A square of 0 anywhere in the image.

use super::{Apply, AugmentDef, Planes};

/// The augmentation (DeVries and Taylor 2017).
pub static CUTOUT: AugmentDef = AugmentDef {
    name: "cutout",
    about: "Put 0 into a square of so many pixels a side, whose middle is anywhere",
    amount: 8.0,
    apply: Apply::Image(|random, amount, image| {
        let [_, height, width] = image.dims;
        if height > 0 && width > 0 {
            let middle = [random.below(height), random.below(width)];
            cut(image, middle, amount as usize);
        }
    }),
};

/// Puts 0 into a square around a middle, as far as it is in the image.
pub fn cut(image: &mut Planes, middle: [usize; 2], side: usize) {
    let [channels, height, width] = image.dims;
    let range = |middle: usize, length: usize| {
        let start = middle.saturating_sub(side / 2);
        let end = middle.saturating_add(side - side / 2).min(length);
        start..end.max(start)
    };
    for c in 0..channels {
        for y in range(middle[0], height) {
            let row = &mut image.data[(c * height + y) * width..][..width];
            row[range(middle[1], width)].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(middle: [usize; 2], side: usize) -> Vec<usize> {
        let mut data = [1.0; 16];
        let mut image = Planes {
            data: &mut data,
            dims: [1, 4, 4],
        };
        cut(&mut image, middle, side);
        let rows = data.chunks(4);
        rows.map(|r| r.iter().filter(|x| **x == 1.0).count())
            .collect()
    }

    #[test]
    fn the_square_ends_with_the_image() {
        assert_eq!(left([1, 1], 2), [2, 2, 4, 4]);
        assert_eq!(left([3, 3], 3), [4, 4, 2, 2]);
        assert_eq!(left([0, 0], 0), [4, 4, 4, 4]);
        assert_eq!(left([2, 2], usize::MAX), [0, 0, 0, 0]);
    }
}
