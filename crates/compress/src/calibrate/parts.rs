//! A tensor cut into parts that threads look at, and what they find.

use std::borrow::Cow;
use std::ops::Range;

use edgesmith_ir::Result;
use edgesmith_kernels::Ctx;
use edgesmith_kernels::survey::{Bins, Columns};
use edgesmith_runtime::View;

use super::histogram::{HALF, Histogram, Scale};

/// The most numbers of a part, about: they stay in the cache between two looks.
const PART: usize = 1 << 15;

/// The parts of a sample are a multiple of so many, for threads to have equal shares.
const SHARES: usize = 4;

/// Squares that sum up to less may have lost their parts in f32.
const TINY: f64 = 1e-32;

/// Fewer numbers are counted one by one.
const FEW: usize = 4 * HALF;

/// The numbers of a tensor, cut where samples and channels end.
pub(super) struct Parts<'a> {
    ctx: &'a Ctx,
    data: Cow<'a, [f32]>,
    samples: usize,
    channels: usize,
    parts: Vec<Part>,
}

/// Numbers of one sample that lie side by side.
#[derive(Debug)]
struct Part {
    sample: usize,
    range: Range<usize>,
    /// The channel of the first number, and after how many numbers it comes again.
    first: usize,
    columns: usize,
}

/// What a sample holds.
#[derive(Clone)]
pub(super) struct Sample {
    /// By channel, of the finite numbers; one channel where none are asked for.
    pub facts: Columns,
    /// NaN and infinities.
    pub not_finite: u64,
}

impl<'a> Parts<'a> {
    /// Cuts a tensor into samples along its first axis, where it has another one, and channels along
    /// `axis`; negative ones count from the back.
    ///
    /// # Errors
    /// When its numbers cannot be read as f32.
    pub fn of(view: &View<'a>, axis: Option<i64>) -> Result<Self> {
        let (dims, last) = (view.dims(), view.is_channels_last());
        let axis = axis.map(|a| if a < 0 { a + dims.len() as i64 } else { a });
        let axis = axis.and_then(|a| usize::try_from(a).ok());
        let axis = axis.filter(|&a| a < dims.len());
        let data = match axis {
            Some(a) if last && a != 1 => Cow::Owned(view.tensor()?.to_f32()?.into_owned()),
            _ => view.floats()?,
        };
        let inner = match axis {
            Some(a) if !(last && a == 1) => dims[a + 1..].iter().product(),
            _ => 1,
        };
        let mut parts = Self {
            ctx: view.ctx(),
            data,
            samples: if dims.len() > 1 { dims[0] } else { 1 },
            channels: axis.map_or(1, |a| dims[a]),
            parts: Vec::new(),
        };
        if !parts.data.is_empty() {
            parts.cut(inner);
        }
        Ok(parts)
    }

    /// Cuts each sample, of which `inner` numbers of a channel lie side by side.
    fn cut(&mut self, inner: usize) {
        let length = self.sample_len();
        let (columns, size) = match inner {
            1 => {
                let parts = length.div_ceil(PART).next_multiple_of(SHARES);
                let rows = (length / self.channels).div_ceil(parts).max(1);
                (self.channels, rows * self.channels)
            }
            _ => (1, inner),
        };
        for sample in 0..self.samples {
            let (start, end) = (sample * length, (sample + 1) * length);
            self.parts.extend((start..end).step_by(size).map(|at| Part {
                sample,
                range: at..end.min(at + size),
                first: (at - start) / inner % self.channels,
                columns,
            }));
        }
    }

    /// Numbers of a sample.
    pub fn sample_len(&self) -> usize {
        self.data.len() / self.samples.max(1)
    }

    /// What each sample holds; the histogram takes all finite numbers. `tables` is room to count in.
    pub fn survey(&self, histogram: &mut Histogram, tables: &mut Tables) -> Vec<Sample> {
        let threads = self.ctx.threads();
        let is_long = self.data.len() >= FEW;
        let lots = if is_long { threads.count() } else { 1 };
        let size = self.parts.len().div_ceil(lots).max(1);
        if is_long && tables.0.len() < lots {
            tables.0.resize_with(lots, || Bins::new(HALF));
        }
        let bins = tables.0.iter_mut().map(Some).filter(|_| is_long);
        let bins = bins.chain(std::iter::repeat_with(|| None));
        let lots = self.parts.chunks(size).zip(bins);
        let mut lots: Vec<Lot> = lots.map(|(parts, b)| Lot::new(self, parts, b)).collect();
        let scale = histogram.scale().filter(|_| is_long);
        threads.parallel_chunks(&mut lots, 1, |_, lot| lot[0].look(scale));
        self.count(&mut lots, histogram, is_long);
        let empty = Sample {
            facts: Columns::new(self.channels),
            not_finite: 0,
        };
        let mut samples = vec![empty; self.samples];
        for (part, found) in lots.iter().flat_map(|l| l.parts.iter().zip(&l.found)) {
            let sample = &mut samples[part.sample];
            sample.facts.merge(&found.facts, part.first);
            sample.not_finite += found.not_finite;
        }
        samples
    }

    /// Puts into the histogram what was counted, and counts what was not.
    fn count(&self, lots: &mut [Lot], histogram: &mut Histogram, is_long: bool) {
        self.take(lots, histogram, true);
        let (min, max) = ends(lots, false);
        if min > max {
            return;
        }
        histogram.fit(min, max);
        match histogram.scale().filter(|_| is_long) {
            Some(scale) => {
                let threads = self.ctx.threads();
                threads.parallel_chunks(lots, 1, |_, lot| lot[0].count(scale));
                self.take(lots, histogram, false);
            }
            None => lots.iter().for_each(|lot| lot.count_few(histogram)),
        }
    }

    /// Takes over the counts of parts that were counted at first, or later.
    fn take(&self, lots: &mut [Lot], histogram: &mut Histogram, at_first: bool) {
        let ends = ends(lots, at_first);
        if ends.0 <= ends.1 {
            for bins in lots.iter_mut().filter_map(|l| l.bins.as_deref_mut()) {
                histogram.take(bins, ends);
            }
        }
    }
}

/// The ends of the parts that were counted at first, or of the others.
fn ends(lots: &[Lot], at_first: bool) -> (f32, f32) {
    ends_of(lots.iter().flat_map(|l| &l.found), at_first)
}

fn ends_of<'a>(found: impl Iterator<Item = &'a Found>, at_first: bool) -> (f32, f32) {
    let found = found.filter(|f| f.counted == at_first);
    found.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), f| {
        (lo.min(f.ends.0), hi.max(f.ends.1))
    })
}

/// Room to count in, one part for each thread; empty between two uses.
#[derive(Default)]
pub(super) struct Tables(Vec<Bins>);

/// The parts of one thread.
struct Lot<'a> {
    ctx: &'a Ctx,
    data: &'a [f32],
    parts: &'a [Part],
    found: Vec<Found>,
    /// Where its numbers are counted, where they are many.
    bins: Option<&'a mut Bins>,
}

/// What was found in a part.
struct Found {
    facts: Columns,
    /// The smallest and the largest number.
    ends: (f32, f32),
    not_finite: u64,
    /// Its numbers were counted at first sight.
    counted: bool,
}

impl Found {
    fn of(ctx: &Ctx, data: &[f32], columns: usize) -> Self {
        let mut facts = Columns::of(ctx, data, columns);
        let mut not_finite = 0;
        let is_small = |(s, (lo, hi)): (&f64, (&f32, &f32))| *s < TINY && *lo < *hi;
        let ends = || facts.min.iter().zip(&facts.max);
        if facts.squares.iter().any(|s| !s.is_finite())
            || facts.squares.iter().zip(ends()).any(is_small)
        {
            facts = Columns::of_finite(data, columns);
            not_finite = data.iter().filter(|x| !x.is_finite()).count() as u64;
        }
        let min = facts.min.iter().copied().fold(f32::INFINITY, f32::min);
        let max = facts.max.iter().copied();
        Self {
            ends: (min, max.fold(f32::NEG_INFINITY, f32::max)),
            facts,
            not_finite,
            counted: false,
        }
    }
}

impl<'a> Lot<'a> {
    fn new(all: &'a Parts, parts: &'a [Part], bins: Option<&'a mut Bins>) -> Self {
        Self {
            ctx: all.ctx,
            data: &all.data,
            parts,
            found: Vec::with_capacity(parts.len()),
            bins,
        }
    }

    /// Finds the facts of each part, and counts those that lie within the bins while they are at hand.
    fn look(&mut self, scale: Option<Scale>) {
        for part in self.parts {
            let data = &self.data[part.range.clone()];
            let mut found = Found::of(self.ctx, data, part.columns);
            if let (Some(scale), Some(bins)) = (scale, &mut self.bins)
                && found.not_finite == 0
                && scale.holds(found.ends)
            {
                bins.add(self.ctx, data, scale.inverse);
                found.counted = true;
            }
            self.found.push(found);
        }
        if let Some(scale) = scale {
            self.join(scale, true);
        }
    }

    /// Brings together what was counted at first, or later.
    fn join(&mut self, scale: Scale, at_first: bool) {
        let ends = ends_of(self.found.iter(), at_first);
        if let Some(bins) = self.bins.as_deref_mut().filter(|_| ends.0 <= ends.1) {
            bins.join(self.ctx, ends, scale.inverse);
        }
    }

    /// Calls `f` with the finite numbers of each part that is not counted yet.
    fn uncounted(parts: &[Part], found: &[Found], data: &[f32], mut f: impl FnMut(&[f32])) {
        for (part, found) in parts.iter().zip(found).filter(|(_, f)| !f.counted) {
            let data = &data[part.range.clone()];
            if found.not_finite == 0 {
                f(data);
            } else {
                f(&data
                    .iter()
                    .copied()
                    .filter(|x| x.is_finite())
                    .collect::<Vec<_>>());
            }
        }
    }

    fn count(&mut self, scale: Scale) {
        if let Some(bins) = &mut self.bins {
            Self::uncounted(self.parts, &self.found, self.data, |data| {
                bins.add(self.ctx, data, scale.inverse);
            });
        }
        self.join(scale, false);
    }

    fn count_few(&self, histogram: &mut Histogram) {
        Self::uncounted(self.parts, &self.found, self.data, |data| {
            histogram.add_few(data);
        });
    }
}
