//! Weights of which most are zero, as lists of those that are left.
//!
//! Outputs come in fours. A list belongs to four outputs (4x1 blocks) or to one (CSR), and names the
//! inputs, in order, of which a weight is not zero. A step is what a kernel multiplies at once: an input, or
//! for bytes a few of them, where a last step is filled up with weights of zero and the input before.

use std::ops::Range;

pub(crate) use super::frame::{FOUR, MOST_INPUTS, Size};
use super::frame::{Frame, Kind};
use crate::Ctx;
use crate::arena::Buffer;

/// Lists one by one: a step has the numbers of its inputs and, of one output after the other, their weights.
#[derive(Debug)]
pub(crate) enum Columns {}

impl Kind for Columns {
    const MAGIC: [u32; 2] = [0x6572_6170, 0x3178_3473];

    fn takes(size: &Size) -> bool {
        (1..=FOUR).contains(&size.taps) && (1..=4).contains(&size.width)
    }

    fn groups(size: &Size) -> usize {
        size.n.div_ceil(FOUR) * (FOUR / size.rows)
    }

    fn step(size: &Size) -> [usize; 2] {
        [size.taps, size.taps * size.rows * size.width]
    }

    fn bound(size: &Size) -> usize {
        size.k
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
pub(crate) struct Lists(Frame<Columns>);

impl Lists {
    /// The lists of the weights `at(output, input)` of `size`, whose steps are counted here; `put`
    /// writes a weight in its bytes.
    pub(crate) fn new<T: Copy + Default + PartialEq>(
        mut size: Size,
        at: impl Fn(usize, usize) -> T,
        put: impl Fn(&mut [u8], T),
    ) -> Self {
        let outputs = |list: usize| list * size.rows..size.n.min((list + 1) * size.rows);
        let (mut starts, mut inputs) = (vec![0u32], Vec::new());
        size.kept = 0;
        for list in 0..Columns::groups(&size) {
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
        let steps = inputs.len() / size.taps;
        let mut weights = vec![0; steps * Columns::step(&size)[1]];
        for list in 0..Columns::groups(&size) {
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
        Self(Frame::new(size, &starts, &inputs, &weights))
    }

    /// The next stored part, where it holds lists of these inputs and outputs, and of weights of this
    /// kind, that can be followed.
    pub(crate) fn stored(ctx: &Ctx, [k, n]: [usize; 2], taps: usize, width: usize) -> Option<Self> {
        let wanted = |size: &Size| (size.k, size.n, size.taps, size.width) == (k, n, taps, width);
        Frame::stored(ctx, wanted).map(Self)
    }

    pub(crate) fn size(&self) -> &Size {
        self.0.size()
    }

    /// Steps before each list, and all.
    pub(crate) fn starts(&self) -> &[u32] {
        self.0.starts()
    }

    /// The inputs of each step.
    pub(crate) fn inputs(&self) -> &[u16] {
        self.0.numbers()
    }

    /// The weights of each step: of one output after the other those of its inputs.
    pub(crate) fn weights<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(self.0.bytes())
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
        self.0.part()
    }

    /// All weights, `[outputs, inputs]`, each added where it stands.
    pub(crate) fn each<T: bytemuck::AnyBitPattern>(&self, mut see: impl FnMut(usize, usize, T)) {
        let size = self.size();
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
