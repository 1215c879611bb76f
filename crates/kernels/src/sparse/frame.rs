//! The buffer in which lists are kept: a header, and what is read of it that others stored.
//!
//! Behind the header stand, each from a multiple of [`ALIGNMENT`] bytes on: where groups of steps begin, the
//! numbers of each step, of 16 bits, and its bytes. A [`Kind`] says how many there are of each.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Ctx;
use crate::arena::{ALIGNMENT, Buffer};

/// Outputs that stand together.
pub(crate) const FOUR: usize = 4;

/// The most inputs: their numbers have 16 bits.
pub(crate) const MOST_INPUTS: usize = 1 << 16;

/// Words of a header.
const HEADER: usize = 16;

/// How many there are of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// Outputs of a list: 4 or 1.
    pub rows: usize,
    /// Inputs of a list in a step.
    pub taps: usize,
    /// Bytes of a weight.
    pub width: usize,
    /// Steps of all lists.
    pub steps: usize,
    /// Blocks, or weights, that are not zero.
    pub kept: usize,
}

impl Size {
    /// Of lists whose steps are not counted yet.
    pub(crate) fn new([k, n]: [usize; 2], rows: usize, taps: usize, width: usize) -> Self {
        assert!(k <= MOST_INPUTS, "inputs have numbers of 16 bits");
        Self {
            k,
            n,
            rows,
            taps,
            width,
            steps: 0,
            kept: 0,
        }
    }

    /// The part of all blocks, or weights, that are not zero.
    pub(crate) fn share(&self) -> f64 {
        let lists = self.n.div_ceil(self.rows);
        self.kept as f64 / (lists * self.k).max(1) as f64
    }

    fn header(&self, magic: [u32; 2]) -> [u32; HEADER] {
        let numbers = [
            self.k, self.n, self.rows, self.taps, self.width, self.steps, self.kept,
        ];
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&magic);
        for (to, number) in header[2..].iter_mut().zip(numbers) {
            *to = number as u32;
        }
        header
    }

    fn of_header(header: &[u32], magic: [u32; 2]) -> Option<Self> {
        let (first, rest) = header.split_first_chunk::<2>()?;
        let number = |i: usize| rest.get(i).map(|x| *x as usize);
        let size = Self {
            k: number(0)?,
            n: number(1)?,
            rows: number(2)?,
            taps: number(3)?,
            width: number(4)?,
            steps: number(5)?,
            kept: number(6)?,
        };
        (*first == magic && [1, FOUR].contains(&size.rows) && size.k <= MOST_INPUTS).then_some(size)
    }
}

/// How lists are laid out.
pub(crate) trait Kind {
    /// How a buffer of them begins.
    const MAGIC: [u32; 2];
    /// Whether there are such lists of inputs, and of weights, of these sizes.
    fn takes(size: &Size) -> bool;
    /// Groups of steps.
    fn groups(size: &Size) -> usize;
    /// Numbers and bytes of a step.
    fn step(size: &Size) -> [usize; 2];
    /// Numbers of steps are less than this, so that no input is read that there is not.
    fn bound(size: &Size) -> usize;
}

/// Lists in their buffer.
#[derive(Debug)]
pub(crate) struct Frame<K> {
    size: Size,
    places: [Range<usize>; 3],
    data: Buffer,
    kind: PhantomData<K>,
}

impl<K> Clone for Frame<K> {
    fn clone(&self) -> Self {
        Self {
            size: self.size,
            places: self.places.clone(),
            data: self.data.clone(),
            kind: PhantomData,
        }
    }
}

/// Where starts, numbers and bytes stand.
fn places<K: Kind>(size: &Size) -> Option<[Range<usize>; 3]> {
    let mut at = HEADER * 4;
    let [numbers, bytes] = K::step(size);
    let lengths = [
        K::groups(size).checked_add(1)?.checked_mul(4)?,
        size.steps.checked_mul(numbers)?.checked_mul(2)?,
        size.steps.checked_mul(bytes)?,
    ];
    let mut places = [const { 0..0 }; 3];
    for (place, length) in places.iter_mut().zip(lengths) {
        at = at.checked_next_multiple_of(ALIGNMENT)?;
        *place = at..at.checked_add(length)?;
        at = place.end;
    }
    Some(places)
}

impl<K: Kind> Frame<K> {
    /// Lists of which `starts` are the steps before each group, and all.
    pub(crate) fn new(mut size: Size, starts: &[u32], numbers: &[u16], bytes: &[u8]) -> Self {
        size.steps = starts.last().map_or(0, |steps| *steps as usize);
        let places = places::<K>(&size).expect("what is in memory has a size");
        let mut data = Buffer::zeroed(places[2].end);
        let to = data.bytes_mut();
        to[..HEADER * 4].copy_from_slice(bytemuck::cast_slice(&size.header(K::MAGIC)));
        to[places[0].clone()].copy_from_slice(bytemuck::cast_slice(starts));
        to[places[1].clone()].copy_from_slice(bytemuck::cast_slice(numbers));
        to[places[2].clone()].copy_from_slice(bytes);
        Self {
            size,
            places,
            data,
            kind: PhantomData,
        }
    }

    /// The next stored part, where it holds such lists that can be followed and whose size is `wanted`
    /// but for steps and what is kept of each list.
    pub(crate) fn stored(ctx: &Ctx, wanted: impl Fn(&Size) -> bool) -> Option<Self> {
        let mut found = None;
        ctx.stored_if(|part| {
            found = Self::read(part).filter(|frame| wanted(&frame.size));
            found.is_some()
        })?;
        found
    }

    /// The lists of a buffer, if each group lies in it and names inputs that there are.
    fn read(data: &Buffer) -> Option<Self> {
        let bytes = data.bytes();
        let header = bytemuck::cast_slice(bytes.get(..HEADER * 4)?);
        let size = Size::of_header(header, K::MAGIC).filter(K::takes)?;
        let places = places::<K>(&size).filter(|places| places[2].end == bytes.len())?;
        let frame = Self {
            size,
            places,
            data: data.clone(),
            kind: PhantomData,
        };
        let starts = frame.starts();
        let in_order = starts.first() == Some(&0)
            && starts.windows(2).all(|w| w[0] <= w[1])
            && starts.last() == Some(&(size.steps as u32));
        let bound = K::bound(&size);
        let there = frame.numbers().iter().all(|k| usize::from(*k) < bound);
        (in_order && there).then_some(frame)
    }

    pub(crate) fn size(&self) -> &Size {
        &self.size
    }

    /// Steps before each group, and all.
    pub(crate) fn starts(&self) -> &[u32] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[0].clone()])
    }

    /// The numbers of each step.
    pub(crate) fn numbers(&self) -> &[u16] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[1].clone()])
    }

    /// The bytes of each step.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data.bytes()[self.places[2].clone()]
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub(crate) fn part(&self) -> &Buffer {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::super::lists::{Columns, Lists};
    use super::super::windows::{Picks, Windows};
    use super::*;
    use crate::testing::Random;

    fn weight(o: usize, i: usize) -> i8 {
        [0, 0, 1 + ((o + i) % 50) as i8][(o / FOUR + i) % 3]
    }

    /// Whether all that a kernel follows stays in the lists and the inputs, as it is written here again.
    fn is_sound<K: Kind>(frame: &Frame<K>) -> bool {
        let size = frame.size();
        let [numbers, bytes] = K::step(size);
        let ends = frame.starts().windows(2).all(|w| w[0] <= w[1]);
        ends && frame.starts().len() == K::groups(size) + 1
            && frame.starts().iter().all(|s| *s as usize <= size.steps)
            && frame.numbers().len() == size.steps * numbers
            && frame.bytes().len() == size.steps * bytes
            && frame
                .numbers()
                .iter()
                .all(|k| usize::from(*k) < K::bound(size))
    }

    /// Reads `part` with each byte before the steps' bytes changed, cut off, and at random.
    fn no_change_leads_out<K: Kind>(part: &Buffer) {
        let mut random = Random::new(47);
        let whole = Frame::<K>::read(part).expect("nothing was changed");
        let before = whole.places[2].start;
        let (mut read, mut refused) = (0, 0);
        let mut check = |part: &Buffer| match Frame::<K>::read(part) {
            Some(frame) => {
                assert!(is_sound(&frame));
                read += 1;
            }
            None => refused += 1,
        };
        for at in 0..before {
            for byte in [0, 1, 127, 200, 255, random.next() as u8] {
                let mut part = part.clone();
                part.bytes_mut()[at] = byte;
                check(&part);
            }
        }
        for length in (0..part.len()).step_by(7) {
            let mut cut = Buffer::zeroed(length);
            cut.bytes_mut().copy_from_slice(&part.bytes()[..length]);
            check(&cut);
        }
        for _ in 0..2000 {
            let mut part = part.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(before / 4) * 4;
                let any = random.next() as u32;
                let word = random.pick(&[0, 1, 3, u32::MAX, 1 << 31, 1 << 16, any]);
                part.bytes_mut()[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            check(&part);
        }
        assert!(read > 0 && refused > 0);
    }

    #[test]
    fn no_change_of_stored_lists_leads_out_of_them_or_of_the_inputs() {
        for (rows, [k, n]) in [(4, [150, 70]), (1, [150, 20]), (4, [40, 9]), (1, [3, 1])] {
            for (taps, width) in [(4, 1), (2, 2), (1, 4)] {
                let size = Size::new([k, n], rows, taps, width);
                let put = |to: &mut [u8], w: i8| to[0] = w as u8;
                let lists = Lists::new(size, weight, put);
                no_change_leads_out::<Columns>(lists.part());
                assert!(Frame::<Picks>::read(lists.part()).is_none());
            }
            let windows = Windows::new([k, n], rows, weight);
            no_change_leads_out::<Picks>(windows.part());
            assert!(Frame::<Columns>::read(windows.part()).is_none());
        }
    }
}
