//! Layers one after another, a few rows of the last at a time: what lies between them never exists
//! whole.
//!
//! Lin et al., "MCUNetV2: Memory-efficient patch-based inference for tiny deep learning" (2021), section
//! 3.1, with bands of rows for patches. Rows at the borders of bands are computed twice, which is what it
//! costs.

use crate::arena::{Arena, Block, Overlap, Pair};
use crate::emit::Call;
use crate::firmware::{ALIGN, Memory, Needs};
use crate::kernels::{Flavour, Geometry};
use crate::program::{Cost, Data, Layer, Program, Step};

/// The longest chain that is tried.
const LONGEST: usize = 8;

/// Rows of the last layer that are made at a time.
const ROWS: &[usize] = &[1, 2, 4, 8, 16];

/// Orders of blocks that are tried for each chain.
const TRIES: usize = 30;

/// Rows of a layer in a band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    first: usize,
    /// One past the last.
    end: usize,
}

/// A layer of a chain in one band.
struct Part {
    layer: Box<dyn Layer>,
    /// The first rows that it reads and makes, in the whole images.
    reads: usize,
    writes: usize,
}

/// A chain of layers that is done by bands.
struct Bands {
    /// The layers whole.
    stages: Vec<Box<dyn Layer>>,
    geometries: Vec<Geometry>,
    /// Of each band, each layer.
    parts: Vec<Vec<Part>>,
    flavour: Flavour,
    /// Where the images between the layers and what kernels need lie in the scratch memory.
    between: Vec<usize>,
    scratch: Vec<usize>,
    /// Bytes of scratch memory.
    bytes: usize,
    /// Products that are added, those that are computed again among them.
    macs: u64,
}

/// For a band of the last layer, the rows that each layer makes, and behind them those that the first
/// reads.
fn rows(chain: &[&Geometry], last: Rows) -> Vec<Rows> {
    let mut all = vec![last];
    let mut now = last;
    for g in chain.iter().rev() {
        let span = (g.kernel[0] - 1) * g.dilation[0] + 1;
        let first = (now.first * g.stride[0]).saturating_sub(g.pad[0]);
        let end = ((now.end - 1) * g.stride[0] + span).saturating_sub(g.pad[0]);
        // A window may lie in the padding whole: a row is read all the same.
        let first = first.min(g.in_h - 1);
        now = Rows {
            first,
            end: end.clamp(first + 1, g.in_h),
        };
        all.push(now);
    }
    all
}

/// The windows of a layer for a part of its rows.
fn cut(g: &Geometry, reads: Rows, makes: Rows) -> Geometry {
    let mut part = g.clone();
    part.in_h = reads.end - reads.first;
    part.out_h = makes.end - makes.first;
    part.pad[0] = (reads.first + g.pad[0]).saturating_sub(makes.first * g.stride[0]);
    part
}

/// Bytes of a row that is read, and of one that is made.
fn row_bytes(g: &Geometry) -> [usize; 2] {
    [g.in_w * g.in_c, g.out_w * g.out_c]
}

impl Bands {
    /// The chain `steps`, `height` rows of the last at a time; nothing where a layer cannot be cut.
    fn new(steps: &[&Step], height: usize, flavour: Flavour) -> Option<Self> {
        let chain: Option<Vec<&Geometry>> = steps.iter().map(|s| s.layer.windows()).collect();
        let chain = chain?;
        let out_h = chain.last()?.out_h;
        let mut parts = Vec::new();
        let mut macs = 0;
        for first in (0..out_h).step_by(height) {
            let end = (first + height).min(out_h);
            let mut rows = rows(&chain, Rows { first, end });
            rows.reverse();
            let mut band = Vec::with_capacity(chain.len());
            for (i, (g, step)) in chain.iter().zip(steps).enumerate() {
                let part = cut(g, rows[i], rows[i + 1]);
                let layer = step.layer.band(part)?;
                macs += layer.cost().macs;
                band.push(Part {
                    layer,
                    reads: rows[i].first,
                    writes: rows[i + 1].first,
                });
            }
            parts.push(band);
        }
        let stages: Option<Vec<_>> = steps
            .iter()
            .zip(&chain)
            .map(|(s, g)| s.layer.band((*g).clone()))
            .collect();
        let mut made = Self {
            stages: stages?,
            geometries: chain.into_iter().cloned().collect(),
            parts,
            flavour,
            between: Vec::new(),
            scratch: Vec::new(),
            bytes: 0,
            macs,
        };
        made.place();
        Some(made)
    }

    /// Places the images between the layers and the memory of kernels.
    fn place(&mut self) {
        let n = self.stages.len();
        let of = |i: usize| self.parts.iter().map(move |band| &band[i].layer);
        let image = |i: usize| {
            let bytes = |l: &dyn Layer| l.windows().map_or(0, |g| g.out_h * g.out_w * g.out_c);
            of(i).map(|l| bytes(l.as_ref())).max().unwrap_or(0)
        };
        let mut blocks = Vec::new();
        let mut pairs = Vec::new();
        for i in 0..n - 1 {
            blocks.push(Block {
                size: image(i).next_multiple_of(ALIGN),
                live: (i, i + 1),
                align: ALIGN,
            });
        }
        for i in 1..n - 1 {
            let worst = of(i)
                .map(|l| l.overlap(self.flavour, 0))
                .reduce(wider)
                .flatten();
            pairs.extend(worst.map(|overlap| Pair {
                read: i - 1,
                write: i,
                overlap,
            }));
        }
        for i in 0..n {
            let bytes = of(i).map(|l| l.scratch(self.flavour)).max().unwrap_or(0);
            blocks.push(Block {
                size: bytes.next_multiple_of(ALIGN),
                live: (i, i),
                align: 8,
            });
        }
        let arena = Arena::with(&blocks, &pairs, TRIES);
        self.between = arena.offsets[..n - 1].to_vec();
        self.scratch = arena.offsets[n - 1..].to_vec();
        self.bytes = arena.bytes;
    }
}

/// What holds for both.
fn wider(a: Option<Overlap>, b: Option<Overlap>) -> Option<Overlap> {
    match (a?, b?) {
        (Overlap::Behind(a), Overlap::Behind(b)) => Some(Overlap::Behind(a.max(b))),
        (Overlap::Same, Overlap::Same) => Some(Overlap::Same),
        _ => None,
    }
}

impl Layer for Bands {
    fn kernel(&self) -> &'static str {
        "by rows"
    }

    fn emit(&self, call: &mut Call) -> String {
        let n = self.stages.len();
        let (x, y, scratch) = (
            call.reads[0].clone(),
            call.write.clone(),
            call.scratch.clone(),
        );
        let inside = |at: usize| format!("&((int8_t *){scratch})[{at}]");
        let mut text = Vec::new();
        for (b, band) in self.parts.iter().enumerate() {
            for (i, part) in band.iter().enumerate() {
                let [read, made] = row_bytes(&self.geometries[i]);
                let from = match i {
                    0 => format!("({x} + {})", part.reads * read),
                    i => inside(self.between[i - 1]),
                };
                let to = match i + 1 == n {
                    true => format!("({y} + {})", part.writes * made),
                    false => inside(self.between[i]),
                };
                let mut inner = Call {
                    unit: &mut *call.unit,
                    step: call.step,
                    part: 1 + b * n + i,
                    reads: vec![from],
                    write: to,
                    count: call.count,
                    scratch: format!("(void *){}", inside(self.scratch[i])),
                };
                text.push(part.layer.emit(&mut inner));
            }
        }
        text.join("\n")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let mut now = reads[0].clone();
        for (stage, g) in self.stages.iter().zip(&self.geometries) {
            let mut made = Data::I8(vec![0; g.out_h * g.out_w * g.out_c]);
            stage.eval(&[&now], &mut made);
            now = made;
        }
        *write = now;
    }

    fn scratch(&self, _: Flavour) -> usize {
        self.bytes
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        let (first, last) = (self.geometries.first()?, self.geometries.last()?);
        let (read, made) = (row_bytes(first)[0], row_bytes(last)[1]);
        let ends = self.parts.iter().map(|band| {
            let part = band.last();
            part.map_or(0, |p| {
                let rows = p.layer.windows().map_or(0, |g| g.out_h);
                (p.writes + rows) * made
            })
        });
        let starts = self
            .parts
            .iter()
            .skip(1)
            .map(|band| band.first().map_or(0, |p| p.reads * read));
        // Bands go down: what a later one reads does not begin before what the next one does.
        let distance = ends
            .zip(starts)
            .map(|(end, start)| end.saturating_sub(start))
            .max();
        Some(Overlap::Behind(distance.unwrap_or(0)))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: self.macs,
            weights: self.stages.iter().map(|s| s.cost().weights).sum(),
        }
    }
}

/// Steps that could be done by bands, first and last.
fn chain(program: &Program, first: usize, last: usize) -> Option<Vec<&Step>> {
    let steps = program.steps.get(first..=last)?;
    let readers = |b: usize| {
        let read = program
            .steps
            .iter()
            .filter(|s| s.reads.contains(&b))
            .count();
        read + program.outputs.iter().filter(|p| p.buffer == b).count()
    };
    let linked = steps
        .windows(2)
        .all(|w| w[1].reads == [w[0].write] && readers(w[0].write) == 1);
    let cut = steps
        .iter()
        .all(|s| s.layer.windows().is_some() && s.reads.len() == 1);
    (linked && cut).then(|| steps.iter().collect())
}

/// Splits layers by rows, chain by chain, as long as that makes the arena smaller and it is larger than
/// `goal` bytes, while no more than the share `again` of all products is computed again; what was done is
/// told in the program's notes.
pub fn split(program: &mut Program, flavour: Flavour, goal: usize, again: f64) {
    let all: u64 = program.steps.iter().map(|s| s.layer.cost().macs).sum();
    for _ in 0..LONGEST {
        let now = Memory::plan(program, flavour).arena;
        if now.bytes <= goal {
            return;
        }
        let spent: u64 = program.steps.iter().map(|s| s.layer.cost().macs).sum();
        let most = (all as f64 * (1.0 + again)) as u64;
        let room = most.saturating_sub(spent);
        let Some((first, last, bands, bytes)) = best(program, flavour, now.peak, room) else {
            return;
        };
        if bytes + bytes / 50 >= now.bytes {
            return;
        }
        let before: u64 = program.steps[first..=last]
            .iter()
            .map(|s| s.layer.cost().macs)
            .sum();
        let heights = bands.parts.len();
        program.notes.push(format!(
            "\"{}\" to \"{}\" are done in {heights} bands of rows: the arena falls from {} to {bytes} bytes, and {:.1} % \
             of all MACs are computed again",
            program.steps[first].name,
            program.steps[last].name,
            now.bytes,
            100.0 * (bands.macs - before) as f64 / all.max(1) as f64,
        ));
        replace(program, first, last, bands);
    }
}

/// The chain around step `peak` that makes the arena smallest, the bands, and the arena.
fn best(
    program: &Program,
    flavour: Flavour,
    peak: usize,
    room: u64,
) -> Option<(usize, usize, Bands, usize)> {
    let needs = Needs::of(program, flavour);
    let mut found: Option<(usize, usize, Bands, usize)> = None;
    for first in peak.saturating_sub(LONGEST)..=peak + 1 {
        for last in first + 1..first + LONGEST {
            let Some(steps) = chain(program, first, last) else {
                continue;
            };
            let before: u64 = steps.iter().map(|s| s.layer.cost().macs).sum();
            for &height in ROWS {
                let Some(bands) = Bands::new(&steps, height, flavour) else {
                    continue;
                };
                if bands.parts.len() < 2 || bands.macs.saturating_sub(before) > room {
                    continue;
                }
                let mut tried = needs[..first].to_vec();
                tried.push(Needs {
                    reads: steps[0].reads.clone(),
                    write: steps[steps.len() - 1].write,
                    scratch: bands.bytes,
                    overlaps: vec![bands.overlap(flavour, 0)],
                });
                tried.extend_from_slice(&needs[last + 1..]);
                let bytes = Memory::of(program, &tried, TRIES).arena.bytes;
                let better = found.as_ref().is_none_or(|f| {
                    // A little memory is not worth many products.
                    (bytes, bands.macs) < (f.3, f.2.macs) && bytes + f.3 / 100 < f.3
                        || bytes <= f.3 && bands.macs < f.2.macs
                });
                if better {
                    found = Some((first, last, bands, bytes));
                }
            }
        }
    }
    found
}

/// Puts bands in the place of the steps from `first` to `last`.
fn replace(program: &mut Program, first: usize, last: usize, bands: Bands) {
    let chain: Vec<Step> = program.steps.splice(first..=last, []).collect();
    let names: Vec<&str> = chain.iter().map(|s| s.name.as_str()).collect();
    let step = Step {
        name: names.join(" + "),
        op: chain.first().map_or_else(String::new, |s| s.op.clone()),
        reads: chain.first().map_or_else(Vec::new, |s| s.reads.clone()),
        write: chain.last().map_or(0, |s| s.write),
        layer: Box::new(bands),
    };
    program.steps.insert(first, step);
}
