//! Which elements of windows fall on a place of an axis.

/// Windows along one axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub kernel: usize,
    pub stride: usize,
    pub pad_begin: usize,
    pub dilation: usize,
    pub input: usize,
    pub output: usize,
}

impl Axis {
    /// For each input place, the elements of windows that read it, in order, and the outputs that
    /// they are of.
    pub(crate) fn readers(self) -> Vec<Vec<(usize, usize)>> {
        let of = |at: usize| {
            let from = |k: usize| {
                let from = (at + self.pad_begin).checked_sub(k * self.dilation)?;
                let output = from / self.stride;
                let meets = from.is_multiple_of(self.stride) && output < self.output;
                meets.then_some((k, output))
            };
            (0..self.kernel).filter_map(from).collect()
        };
        (0..self.input).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_by_the_windows_that_cover_it() {
        let axis = Axis {
            kernel: 3,
            stride: 2,
            pad_begin: 1,
            dilation: 1,
            input: 4,
            output: 2,
        };
        let readers = axis.readers();
        assert_eq!(readers[0], [(1, 0)]);
        assert_eq!(readers[1], [(0, 1), (2, 0)]);
        assert_eq!(readers[3], [(2, 1)]);
    }
}
