//! Copies of many short rows: a call for each would take longer than the copy.

use crate::Isa;
use crate::simd::{Body, Simd, dispatch};

/// Copies rows of `columns` floats, `stride` apart in `from`, to rows of `width` in `to`, whose
/// rest becomes zeros.
pub(crate) fn copy(
    isa: Isa,
    from: &[f32],
    stride: usize,
    columns: usize,
    to: &mut [f32],
    width: usize,
) {
    let rows = to.len() / width.max(1);
    assert!(columns <= width, "rows fit");
    assert!(
        rows == 0 || (rows - 1) * stride + columns <= from.len(),
        "rows are there"
    );
    let body = Copy {
        from,
        stride,
        columns,
        to,
        width,
    };
    dispatch(isa, body);
}

struct Copy<'a> {
    from: &'a [f32],
    stride: usize,
    columns: usize,
    to: &'a mut [f32],
    width: usize,
}

impl Body for Copy<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, to) in self.to.chunks_exact_mut(self.width).enumerate() {
            let from = self.from.as_ptr().wrapping_add(row * self.stride);
            let mut c = 0;
            while c < self.width {
                let n = self.columns.saturating_sub(c).min(S::LANES);
                // SAFETY: the row has `n` floats from `c` on, and `to` those up to its width.
                unsafe {
                    let x = if n == 0 {
                        s.splat(0.0)
                    } else {
                        s.load_up_to(from.add(c), n)
                    };
                    let room = (self.width - c).min(S::LANES);
                    s.store_up_to(to.as_mut_ptr().add(c), x, room);
                }
                c += S::LANES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn rows_are_copied_and_filled_up() {
        let mut random = Random::new(121);
        for (columns, width, stride) in
            [(1, 1, 1), (3, 16, 5), (16, 16, 16), (17, 32, 40), (0, 8, 3)]
        {
            let from = random.floats(6 * stride + columns);
            for ctx in contexts() {
                let mut to = vec![9.0; 7 * width];
                copy(ctx.isa(), &from, stride, columns, &mut to, width);
                for (row, to) in to.chunks(width).enumerate() {
                    assert_eq!(to[..columns], from[row * stride..][..columns]);
                    assert!(to[columns..].iter().all(|x| *x == 0.0));
                }
            }
        }
    }
}
