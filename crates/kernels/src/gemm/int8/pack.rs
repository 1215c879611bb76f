//! Lays out weights of bytes, and what of them would saturate.

use super::groups;
use crate::Isa;
use crate::arena::Buffer;
use crate::gemm::{Order, Panels};

/// How bytes are laid out.
pub(super) struct Pack<'a> {
    pub isa: Isa,
    pub panels: Panels,
    pub order: Order,
    pub k: usize,
    /// Makes them signed.
    pub flip: u8,
    pub b: &'a [u8],
}

impl Pack<'_> {
    /// In groups of so many, with the sum of each column.
    pub fn by(&self, group: usize) -> (Buffer, Buffer) {
        let (panels, k) = (self.panels, self.k);
        let groups = groups(self.isa, k, group);
        let mut data = Buffer::zeroed(groups * group * panels.padded());
        let mut all = Buffer::zeroed(panels.padded() * 4);
        if k == 0 {
            return (data, all);
        }
        let (out, sums) = (data.typed_mut::<i8>(), all.typed_mut::<i32>());
        for p in 0..panels.count() {
            let (first, columns, vectors) = panels.panel(p);
            let width = vectors * panels.lanes;
            let out = &mut out[first * groups * group..][..width * groups * group];
            let sums = &mut sums[first..][..columns];
            match (self.order, group) {
                (Order::NK, 4) => self.columns::<4>(out, sums, first, width),
                (Order::NK, _) => self.columns::<2>(out, sums, first, width),
                (Order::KN, 4) => self.rows::<4>(out, sums, first, width),
                (Order::KN, _) => self.rows::<2>(out, sums, first, width),
            }
        }
        (data, all)
    }

    /// Columns from `first` on that lie one after another, as a panel of `width`.
    fn columns<const G: usize>(
        &self,
        out: &mut [i8],
        sums: &mut [i32],
        first: usize,
        width: usize,
    ) {
        let mut own = vec![0; self.k.next_multiple_of(G)];
        let out = out.as_chunks_mut::<G>().0;
        for (column, sum) in sums.iter_mut().enumerate() {
            let from = &self.b[(first + column) * self.k..][..self.k];
            for (to, from) in own.iter_mut().zip(from) {
                *to = (from ^ self.flip) as i8;
            }
            *sum = own.iter().map(|&w| i32::from(w)).sum();
            let places = out[column..].iter_mut().step_by(width);
            for (to, from) in places.zip(own.as_chunks::<G>().0) {
                *to = *from;
            }
        }
    }

    /// As [`Pack::columns`], where the rows lie one after another.
    fn rows<const G: usize>(&self, out: &mut [i8], sums: &mut [i32], first: usize, width: usize) {
        let out = out.as_chunks_mut::<G>().0;
        for row in 0..self.k {
            let from = &self.b[row * self.panels.n + first..][..sums.len()];
            let to = &mut out[row / G * width..][..sums.len()];
            for ((to, from), sum) in to.iter_mut().zip(from).zip(&mut *sums) {
                let weight = (from ^ self.flip) as i8;
                to[row % G] = weight;
                *sum += i32::from(weight);
            }
        }
    }
}

/// The second halves of pairs of weights whose products with two unsigned bytes may pass 16 bits.
/// The panel has the first halves, so that neither saturates.
#[derive(Clone, Debug, Default)]
pub(super) struct Spill {
    /// The groups along K with such pairs.
    pub groups: Vec<u32>,
    /// A group of every column for each of them.
    pub data: Vec<i8>,
}

impl Spill {
    /// Of a hundred groups of a panel, how many may spill. Beyond, a product of widened pairs is
    /// less work: 14 cycles for four rows of K, where this takes 12, and 12 for a spill.
    const MOST: usize = 15;

    /// Halves what is too large in `data`, and keeps the second halves of each panel; `None`
    /// where that is not worth it.
    pub fn of_panels(panels: Panels, data: &mut [i8]) -> Option<Vec<Self>> {
        let groups = data.len() / (4 * panels.padded()).max(1);
        let mut rest = data;
        let mut spills = Vec::new();
        for p in 0..panels.count() {
            let width = panels.panel(p).2 * panels.lanes;
            let panel = rest.split_off_mut(..4 * width * groups)?;
            spills.push(Self::of(panel, width));
        }
        let spilt: usize = spills.iter().map(|s| s.groups.len()).sum();
        (spilt * 100 <= Self::MOST * groups * spills.len()).then_some(spills)
    }

    fn of(panel: &mut [i8], width: usize) -> Self {
        let mut spill = Self::default();
        for (g, group) in panel.chunks_exact_mut(4 * width).enumerate() {
            let at = spill.data.len();
            for (i, pair) in group.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let [a, b] = pair.map(i32::from);
                if a.max(0) + b.max(0) <= 128 && a.min(0) + b.min(0) >= -128 {
                    continue;
                }
                spill.data.resize(at + 4 * width, 0);
                let half = pair.map(|w| w / 2);
                let rest = [pair[0] - half[0], pair[1] - half[1]];
                spill.data[at + 2 * i..][..2].copy_from_slice(&rest);
                *pair = half;
            }
            if spill.data.len() > at {
                spill.groups.push(g as u32);
            }
        }
        spill
    }
}
