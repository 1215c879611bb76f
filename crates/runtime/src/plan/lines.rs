//! Convolutions and pools one after another that are done a few lines of an image at a time, and products a
//! few rows at a time, so that what lies between them stays in the cache, and on each thread a part of the
//! lines.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use edgesmith_kernels::Ctx;
use edgesmith_kernels::conv::{ConvGeometry, Strip};

use super::{Arg, Kernel, Planner, SlotId, Step, StepRow, Work};

/// Work on a strip of an image that is read, and a residual; or on all images.
pub(crate) type OfStrip = Arc<dyn Fn(&Ctx, Option<Strip>, &[&[u8]], &mut [u8]) + Send + Sync>;

/// Bytes that lie between the steps at a time: they stay in the L2 cache.
const MOST: usize = 384 * 1024;

/// Pixels of the last image that a strip has at least.
const PIXELS: usize = 128;

/// The most steps that are joined.
const STEPS: usize = 8;

/// A step whose output lines each come from a few lines of its input.
pub(crate) struct ByLines {
    pub geometry: ConvGeometry,
    pub batch: usize,
    /// Bytes of a line of the input and of the output.
    pub line: [usize; 2],
    pub work: OfStrip,
}

impl ByLines {
    /// The step of a convolution; `sizes` are the bytes of an element that it reads and writes.
    pub fn new(geometry: ConvGeometry, batch: usize, sizes: [usize; 2], work: OfStrip) -> Self {
        let from = geometry.input[1] * geometry.channels_in;
        let to = geometry.output()[1] * geometry.channels_out;
        Self {
            geometry,
            batch,
            line: [from * sizes[0], to * sizes[1]],
            work,
        }
    }

    /// The step of a product of `m` rows, each of which is a line.
    pub fn of_rows(sizes: [usize; 3], bytes: [usize; 2], work: OfStrip) -> Self {
        Self::new(rows(sizes), 1, bytes, work)
    }

    /// A step that goes element by element through rows along the last axis of `dims`.
    pub fn of_elements(dims: &[usize], bytes: [usize; 2], work: OfStrip) -> Option<Self> {
        let (&width, outer) = dims.split_last()?;
        let count: usize = outer.iter().product();
        (count * width > 0).then(|| Self::of_rows([count, width, width], bytes, work))
    }

    fn height(&self) -> usize {
        self.geometry.output()[0]
    }
}

/// The rows of a product as lines of an image.
pub(crate) fn rows([m, k, n]: [usize; 3]) -> ConvGeometry {
    ConvGeometry {
        kernel: [1; 2],
        stride: [1; 2],
        pad_begin: [0; 2],
        pad_end: [0; 2],
        dilation: [1; 2],
        groups: 1,
        input: [m, 1],
        channels_in: k,
        channels_out: n,
    }
}

/// One call: lines of a stage, from lines of the stage before it or of the image.
struct Job {
    stage: usize,
    /// The first line of the stage that is still needed.
    keep: usize,
    makes: Range<usize>,
    reads: Range<usize>,
    strip: Strip,
}

/// Steps that are joined.
struct Chain {
    stages: Vec<ByLines>,
    /// Where in what the chain reads the residual of a stage is.
    residuals: Vec<Option<usize>>,
    /// The work of each part of an image.
    parts: Vec<Vec<Job>>,
    /// Lines of the last image in a part.
    part: usize,
    /// Lines that lie between a stage and the next at most.
    rooms: Vec<usize>,
}

/// Lines of a stage that are there.
#[derive(Clone, Default)]
struct There(Range<usize>);

impl There {
    /// Drops the lines before `keep`; which lines stay, counted from the first that was there.
    fn drop_until(&mut self, keep: usize) -> Range<usize> {
        let first = keep.clamp(self.0.start, self.0.end);
        let stay = first - self.0.start..self.0.len();
        self.0.start = if first == self.0.end { keep } else { first };
        self.0.end = self.0.end.max(keep);
        stay
    }
}

/// The calls that make lines `part` of the last stage, `lines` at a time.
fn jobs(stages: &[ByLines], part: Range<usize>, lines: usize) -> Vec<Job> {
    let mut made = vec![0; stages.len()];
    let mut jobs = Vec::new();
    for start in part.clone().step_by(lines) {
        let mut wanted = start..part.end.min(start + lines);
        let mut calls = Vec::new();
        for stage in (0..stages.len()).rev() {
            let makes = wanted.start.max(made[stage])..wanted.end;
            if makes.is_empty() {
                break;
            }
            let (reads, strip) = stages[stage].geometry.lines_for(&makes);
            made[stage] = makes.end;
            calls.push(Job {
                stage,
                keep: wanted.start,
                makes,
                reads: reads.clone(),
                strip,
            });
            wanted = reads;
        }
        jobs.extend(calls.into_iter().rev());
    }
    jobs
}

/// The most lines of each stage but the last that are there at a time.
fn rooms(stages: usize, parts: &[Vec<Job>]) -> Vec<usize> {
    let mut rooms = vec![0; stages - 1];
    for part in parts {
        let mut there = vec![There::default(); stages];
        for job in part {
            let lines = &mut there[job.stage];
            lines.drop_until(job.keep);
            lines.0.end = job.makes.end;
            if let Some(room) = rooms.get_mut(job.stage) {
                *room = lines.0.len().max(*room);
            }
        }
    }
    rooms
}

/// The bytes of each room: whole cache lines, so that the next one is aligned for its elements.
fn sizes(rooms: &[usize], stages: &[ByLines]) -> impl Iterator<Item = usize> {
    let bytes = rooms.iter().zip(stages).map(|(n, s)| n * s.line[1]);
    bytes.map(|bytes| bytes.next_multiple_of(64))
}

impl Chain {
    fn new(stages: Vec<ByLines>, residuals: Vec<Option<usize>>, threads: usize) -> Option<Self> {
        let last = stages.last()?;
        let (height, width) = (last.height(), last.geometry.output()[1]);
        // One part for each thread: lines at borders of parts are made twice.
        let part = height.div_ceil(threads.min(height).max(1));
        let cut = |lines: usize| {
            let parts = (0..height).step_by(part);
            let parts = parts.map(|p| jobs(&stages, p..height.min(p + part), lines));
            let parts: Vec<_> = parts.collect();
            let rooms = rooms(stages.len(), &parts);
            (parts, rooms)
        };
        let size = |rooms: &[usize]| -> usize { sizes(rooms, &stages).sum() };
        let mut lines = PIXELS.div_ceil(width.max(1)).clamp(1, part);
        let (mut parts, mut rooms) = cut(lines);
        while lines < part {
            let more = (lines + lines.div_ceil(2)).min(part);
            let (next, larger) = cut(more);
            if size(&larger) > MOST {
                break;
            }
            (lines, parts, rooms) = (more, next, larger);
        }
        Some(Self {
            stages,
            residuals,
            parts,
            part,
            rooms,
        })
    }

    /// Bytes that lie between the stages of one part.
    fn room(&self) -> usize {
        sizes(&self.rooms, &self.stages).sum()
    }

    /// Makes the images `y` in the room of all parts.
    fn run(&self, ctx: &Ctx, reads: &[&[u8]], y: &mut [u8], room: &mut [u8]) {
        let (Some(first), Some(last)) = (self.stages.first(), self.stages.last()) else {
            return;
        };
        let input = first.geometry.input[0] * first.line[0];
        let output = last.height() * last.line[1];
        let alone = ctx.on_one_thread();
        for (i, y) in y.chunks_exact_mut(output).enumerate() {
            let image = &reads[0][i * input..][..input];
            let outputs = y.chunks_mut(self.part * last.line[1]);
            let rooms = room.chunks_mut(self.room().max(1));
            let own: Vec<_> = outputs.zip(rooms).map(Mutex::new).collect();
            ctx.threads().parallel_for(own.len(), |p| {
                let mut own = own[p].lock().unwrap_or_else(PoisonError::into_inner);
                let (y, room) = &mut *own;
                self.part(&alone, p, i, (image, reads), y, room);
            });
        }
    }

    /// Makes part `p` of image `i`.
    fn part(
        &self,
        ctx: &Ctx,
        p: usize,
        i: usize,
        (image, reads): (&[u8], &[&[u8]]),
        y: &mut [u8],
        mut room: &mut [u8],
    ) {
        let mut between = Vec::with_capacity(self.rooms.len());
        for size in sizes(&self.rooms, &self.stages) {
            let (own, rest) = room.split_at_mut(size);
            between.push(own);
            room = rest;
        }
        let mut there = vec![There::default(); self.stages.len()];
        for job in &self.parts[p] {
            let stage = &self.stages[job.stage];
            let [from, to] = stage.line;
            let stay = there[job.stage].drop_until(job.keep);
            let (before, own) = between.split_at_mut(job.stage);
            let x = match before.last() {
                None => &image[job.reads.start * from..][..job.reads.len() * from],
                Some(lines) => {
                    let first = job.reads.start - there[job.stage - 1].0.start;
                    &lines[first * from..][..job.reads.len() * from]
                }
            };
            let y = match own.first_mut() {
                None => &mut y[(job.makes.start - p * self.part) * to..],
                Some(lines) => {
                    lines.copy_within(stay.start * to..stay.end * to, 0);
                    &mut lines[stay.len() * to..]
                }
            };
            there[job.stage].0.end = job.makes.end;
            let y = &mut y[..job.makes.len() * to];
            let image = i * stage.height() * to;
            let residual = self.residuals[job.stage]
                .map(|r| &reads[r][image + job.makes.start * to..][..job.makes.len() * to]);
            match residual {
                Some(r) => (stage.work)(ctx, Some(job.strip), &[x, r], y),
                None => (stage.work)(ctx, Some(job.strip), &[x], y),
            }
        }
    }
}

impl Planner<'_> {
    /// Says that the step added last goes by lines.
    pub fn by_lines(&mut self, lines: ByLines) {
        if let Some(step) = self.steps.last_mut() {
            step.lines = Some(lines);
        }
    }

    /// Whether slot `a` is written after slot `b`.
    pub fn is_later(&self, a: SlotId, b: SlotId) -> bool {
        self.slots[a].first > self.slots[b].first
    }

    /// Joins steps that go by lines where what lies between them is large.
    pub(super) fn join_lines(&mut self, outputs: &[Arg]) {
        let mut readers = vec![0usize; self.slots.len()];
        for step in &self.steps {
            step.reads.iter().for_each(|&s| readers[s] += 1);
        }
        for slot in outputs.iter().filter_map(Arg::slot) {
            readers[slot] += 1;
        }
        let mut left = std::mem::take(&mut self.steps).into_iter().peekable();
        // The step that does the work of each, counted from 1.
        let mut moved = vec![0];
        let mut rooms = Vec::new();
        while let Some(step) = left.next() {
            let mut chain = vec![step];
            while let (Some(a), Some(b)) = (chain.last(), left.peek())
                && chain.len() < STEPS
                && self.joins(a, b, &readers)
            {
                chain.extend(left.next());
            }
            let count = chain.len();
            rooms.extend(self.add_chain(chain));
            moved.extend(std::iter::repeat_n(self.steps.len(), count));
        }
        for slot in &mut self.slots {
            let of = |at: usize| moved.get(at).copied().unwrap_or(at);
            (slot.first, slot.last) = (of(slot.first), of(slot.last));
        }
        for (slot, step) in rooms {
            (self.slots[slot].first, self.slots[slot].last) = (step, step);
        }
    }

    /// Whether `b` alone goes on with what `a` makes, which is large.
    fn joins(&self, a: &Step, b: &Step, readers: &[usize]) -> bool {
        let (Some(x), Some(y)) = (&a.lines, &b.lines) else {
            return false;
        };
        let &[slot] = a.writes.as_slice() else {
            return false;
        };
        b.reads[0] == slot
            && readers[slot] == 1
            && !a.makes.iter().any(|(v, ..)| self.wanted.contains(v))
            && (x.batch, x.height(), x.line[1]) == (y.batch, y.geometry.input[0], y.line[0])
            && x.height() * x.line[1] >= self.maker.line_bytes
            && y.height() > 1
    }

    /// Adds the step of a chain, or its one step; the slot of what lies between, and its step.
    fn add_chain(&mut self, mut chain: Vec<Step>) -> Option<(SlotId, usize)> {
        if chain.len() < 2 {
            self.steps.append(&mut chain);
            return None;
        }
        let names = [0, chain.len() - 1].map(|i| chain[i].row.name.clone());
        let row = StepRow {
            name: format!("{} to {}", names[0], names[1]),
            op: "lines".into(),
            provider: "cpu",
            kernel: kernels(&chain),
            integer: chain.iter().all(|s| s.row.integer),
            macs: chain.iter().map(|s| s.row.macs).sum(),
            bytes: chain.iter().map(|s| s.row.bytes).sum(),
        };
        let mut reads = vec![chain[0].reads[0]];
        let (mut stages, mut residuals) = (Vec::new(), Vec::new());
        for step in &mut chain {
            stages.extend(step.lines.take());
            residuals.push(step.reads.get(1).map(|&slot| {
                reads.push(slot);
                reads.len() - 1
            }));
        }
        let last = chain.pop()?;
        for step in &chain {
            self.slots[step.writes[0]].bytes = 0;
        }
        let threads = self.maker.ctx.threads().count();
        let chain = Chain::new(stages, residuals, threads)?;
        let room = self.slot(chain.room() * chain.parts.len());
        let work: Kernel = Box::new(move |ctx, x, y| {
            if let [y, room] = y {
                chain.run(ctx, x, y, room);
            }
        });
        self.steps.push(Step {
            work: Work::Kernel(work),
            reads,
            writes: vec![last.writes[0], room],
            row,
            makes: last.makes,
            lines: None,
        });
        Some((room, self.steps.len()))
    }
}

/// The kernels of some steps, each once.
fn kernels(steps: &[Step]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for step in steps {
        if !names.contains(&step.row.kernel.as_str()) {
            names.push(&step.row.kernel);
        }
    }
    names.join(", ")
}
