//! Weights of which most are zero, as lists of those that are left.
//!
//! Outputs come in fours. A list belongs to four outputs (4x1 blocks) or to one (CSR), and names the
//! inputs, in order, of which a weight is not zero. In one buffer stand, each from a multiple of
//! [`ALIGNMENT`] bytes on: a header, where lists begin, the inputs as 16-bit numbers, and the weights.
//! A step is what a kernel multiplies at once: an input, or for bytes a few of them, where a last step
//! is filled up with weights of zero and the input before.

use std::ops::Range;

use crate::Ctx;
use crate::arena::{ALIGNMENT, Buffer};

/// Outputs that stand together.
pub(crate) const FOUR: usize = 4;

/// The most inputs: their numbers have 16 bits.
pub(crate) const MOST_INPUTS: usize = 1 << 16;

const MAGIC: [u32; 2] = [0x6572_6170, 0x3178_3473];

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
    /// Inputs of a step.
    pub taps: usize,
    /// Bytes of a weight.
    pub width: usize,
    /// Steps of all lists.
    pub steps: usize,
    /// Blocks, or weights, that are not zero.
    pub kept: usize,
}

impl Size {
    pub(crate) fn lists(&self) -> usize {
        self.n.div_ceil(FOUR) * (FOUR / self.rows)
    }

    /// Where starts, inputs and weights stand.
    fn places(&self) -> Option<[Range<usize>; 3]> {
        let mut at = HEADER * 4;
        let lengths = [
            self.lists().checked_add(1)?.checked_mul(4)?,
            self.steps.checked_mul(self.taps)?.checked_mul(2)?,
            self.steps.checked_mul(self.taps * self.rows * self.width)?,
        ];
        let mut places = [const { 0..0 }; 3];
        for (place, length) in places.iter_mut().zip(lengths) {
            at = at.checked_next_multiple_of(ALIGNMENT)?;
            *place = at..at.checked_add(length)?;
            at = place.end;
        }
        Some(places)
    }

    fn header(&self) -> [u32; HEADER] {
        let numbers = [
            self.k, self.n, self.rows, self.taps, self.width, self.steps, self.kept,
        ];
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&MAGIC);
        for (to, number) in header[2..].iter_mut().zip(numbers) {
            *to = number as u32;
        }
        header
    }

    fn of_header(header: &[u32]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk::<2>()?;
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
        (*magic == MAGIC).then_some(size)
    }
}

/// Where lists, inputs and weights begin, for a kernel.
#[derive(Clone, Copy)]
pub(crate) struct Ends<W> {
    starts: *const u32,
    pub inputs: *const u16,
    pub weights: *const W,
}

impl<W> Ends<W> {
    /// The steps of a list.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    pub(crate) unsafe fn list(&self, list: usize) -> Range<usize> {
        // SAFETY: the caller's promise.
        unsafe { *self.starts.add(list) as usize..*self.starts.add(list + 1) as usize }
    }
}

/// Lists of weights.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    size: Size,
    places: [Range<usize>; 3],
    data: Buffer,
}

impl Lists {
    /// The lists of the weights `at(output, input)` of `size`, whose steps are counted here; `put`
    /// writes a weight in its bytes.
    pub(crate) fn new<T: Copy + Default + PartialEq>(
        mut size: Size,
        at: impl Fn(usize, usize) -> T,
        put: impl Fn(&mut [u8], T),
    ) -> Self {
        assert!(size.k <= MOST_INPUTS, "inputs have numbers of 16 bits");
        let outputs = |list: usize| list * size.rows..size.n.min((list + 1) * size.rows);
        let (mut starts, mut inputs) = (vec![0u32], Vec::new());
        size.kept = 0;
        for list in 0..size.lists() {
            let first = inputs.len();
            for k in 0..size.k {
                if outputs(list).any(|n| at(n, k) != T::default()) {
                    inputs.push(k as u16);
                }
            }
            size.kept += inputs.len() - first;
            while inputs.len() % size.taps > 0 {
                inputs.push(inputs[inputs.len() - 1]);
            }
            starts.push((inputs.len() / size.taps) as u32);
        }
        size.steps = inputs.len() / size.taps;
        let places = size.places().expect("what is in memory has a size");
        let mut data = Buffer::zeroed(places[2].end);
        let bytes = data.bytes_mut();
        bytes[..HEADER * 4].copy_from_slice(bytemuck::cast_slice(&size.header()));
        bytes[places[0].clone()].copy_from_slice(bytemuck::cast_slice(&starts));
        bytes[places[1].clone()].copy_from_slice(bytemuck::cast_slice(&inputs));
        let weights = &mut bytes[places[2].clone()];
        for list in 0..size.lists() {
            let steps = starts[list] as usize * size.taps..starts[list + 1] as usize * size.taps;
            let mut before = None;
            for i in steps {
                let k = inputs[i];
                if before == Some(k) {
                    continue;
                }
                before = Some(k);
                let (step, tap) = (i / size.taps, i % size.taps);
                for (r, n) in outputs(list).enumerate() {
                    let element = (step * size.rows + r) * size.taps + tap;
                    let to = &mut weights[element * size.width..][..size.width];
                    put(to, at(n, usize::from(k)));
                }
            }
        }
        Self { size, places, data }
    }

    /// The next stored part, where it holds lists of these inputs and outputs, and of weights of this
    /// kind, that can be followed.
    pub(crate) fn stored(ctx: &Ctx, [k, n]: [usize; 2], taps: usize, width: usize) -> Option<Self> {
        let mut found = None;
        let data = ctx.stored_if(|part| {
            found = Self::check(part)
                .filter(|(size, _)| (size.k, size.n, size.taps, size.width) == (k, n, taps, width));
            found.is_some()
        })?;
        let (size, places) = found?;
        Some(Self { size, places, data })
    }

    /// What a buffer holds, if each list lies in it and names inputs that there are.
    fn check(data: &Buffer) -> Option<(Size, [Range<usize>; 3])> {
        let bytes = data.bytes();
        let size = Size::of_header(bytemuck::cast_slice(bytes.get(..HEADER * 4)?))?;
        let known = [1, FOUR].contains(&size.rows)
            && (1..=FOUR).contains(&size.taps)
            && (1..=4).contains(&size.width);
        if !known || size.k > MOST_INPUTS {
            return None;
        }
        let places = size.places()?;
        if places[2].end != bytes.len() {
            return None;
        }
        let lists = Self {
            size,
            places: places.clone(),
            data: data.clone(),
        };
        let starts = lists.starts();
        let in_order = starts.first() == Some(&0)
            && starts.windows(2).all(|w| w[0] <= w[1])
            && starts.last() == Some(&(size.steps as u32));
        let there = lists.inputs().iter().all(|k| usize::from(*k) < size.k);
        (in_order && there).then_some((size, places))
    }

    pub(crate) fn size(&self) -> &Size {
        &self.size
    }

    /// Steps before each list, and all.
    pub(crate) fn starts(&self) -> &[u32] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[0].clone()])
    }

    /// The inputs of each step.
    pub(crate) fn inputs(&self) -> &[u16] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[1].clone()])
    }

    /// The weights of each step: of one output after the other those of its inputs.
    pub(crate) fn weights<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(&self.data.bytes()[self.places[2].clone()])
    }

    /// All of them, for a kernel.
    pub(crate) fn ends<W: bytemuck::AnyBitPattern>(&self) -> Ends<W> {
        Ends {
            starts: self.starts().as_ptr(),
            inputs: self.inputs().as_ptr(),
            weights: self.weights().as_ptr(),
        }
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub(crate) fn part(&self) -> &Buffer {
        &self.data
    }

    /// The part of all blocks, or weights, that are not zero.
    pub(crate) fn share(&self) -> f64 {
        let size = &self.size;
        let lists = size.n.div_ceil(size.rows);
        size.kept as f64 / (lists * size.k).max(1) as f64
    }

    /// All weights, `[outputs, inputs]`, each added where it stands.
    pub(crate) fn each<T: bytemuck::AnyBitPattern>(&self, mut see: impl FnMut(usize, usize, T)) {
        let size = &self.size;
        let (inputs, weights) = (self.inputs(), self.weights::<T>());
        for (list, ends) in self.starts().windows(2).enumerate() {
            for step in ends[0] as usize..ends[1] as usize {
                for (r, tap) in (0..size.rows * size.taps).map(|i| (i / size.taps, i % size.taps)) {
                    let n = list * size.rows + r;
                    if n < size.n {
                        let k = usize::from(inputs[step * size.taps + tap]);
                        see(n, k, weights[(step * size.rows + r) * size.taps + tap]);
                    }
                }
            }
        }
    }
}
