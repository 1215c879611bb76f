//! The gradient of weights and bias: sums over all pixels of all images.

use std::ops::Range;

use super::channels::channel_gradient;
use super::tile::Strip;
use super::{ConvGeometry, Strips, runs};
use crate::arena::with_scratch;
use crate::conv::windows;
use crate::gemm::{Panels, shape};
use crate::parts::add_to;
use crate::simd::dispatch;
use crate::threads::Shared;
use crate::{Ctx, rows};

/// `dW[m, c, ky, kx] = Σ dY x` over all pixels of `batch` images, in ONNX's order of weights, and
/// `dB[m] = Σ dY`. Of `images`, the first is the input of the convolution and the second the
/// gradient of its output, both channels-last. Sums are taken in parts that depend on the
/// geometry alone.
pub fn weight_gradient(
    ctx: &Ctx,
    g: &ConvGeometry,
    batch: usize,
    images: [&[f32]; 2],
    dw: &mut [f32],
    mut db: Option<&mut [f32]>,
) {
    let (input, output) = g.sizes(batch);
    assert_eq!(
        images.map(<[f32]>::len),
        [input, output],
        "slices hold the images"
    );
    assert_eq!(
        dw.len(),
        g.channels_out * g.depth(),
        "a place for each weight"
    );
    let fits = db.as_ref().is_none_or(|b| b.len() == g.channels_out);
    assert!(fits, "a place for the bias of each channel");
    if output == 0 || dw.is_empty() {
        dw.fill(0.0);
        if let Some(db) = db {
            db.fill(0.0);
        }
        return;
    }
    if g.is_depthwise() {
        return channel_gradient(ctx, g, batch, images, dw, db);
    }
    for group in 0..g.groups {
        let size = dw.len() / g.groups;
        let own = group * size..(group + 1) * size;
        let channels = group * g.group_out()..(group + 1) * g.group_out();
        let db = db.as_deref_mut().map(|db| &mut db[channels]);
        let sums = Sums::new(ctx, g, batch, group);
        sums.run(ctx, images, &mut dw[own], db);
    }
}

/// Window elements for which the gradients of a panel are not copied together.
const FEW: usize = 64;

/// The sums of one group: in each part, for each panel of output channels, a row of lanes for each
/// window element and one for the bias.
struct Sums<'a> {
    g: &'a ConvGeometry,
    group: usize,
    strips: Strips,
    panels: Panels,
    /// Rows of a panel.
    rows: usize,
}

impl<'a> Sums<'a> {
    fn new(ctx: &Ctx, g: &'a ConvGeometry, batch: usize, group: usize) -> Self {
        let panels = Panels {
            n: g.group_out(),
            lanes: shape(ctx.isa()).0,
        };
        let rows = g.depth() + 1;
        Self {
            g,
            group,
            strips: Strips::new(g, batch, rows * panels.padded()),
            panels,
            rows,
        }
    }

    /// Sums of a part.
    fn size(&self) -> usize {
        self.rows * self.panels.padded()
    }

    /// Where the sums of panel `p` stand in a part.
    fn of_panel(&self, p: usize) -> Range<usize> {
        self.panels.part(p, self.rows, 0..self.rows)
    }

    fn run(&self, ctx: &Ctx, images: [&[f32]; 2], dw: &mut [f32], db: Option<&mut [f32]>) {
        let (parts, panels) = (self.strips.parts, self.panels.count());
        let threads = ctx.threads().count();
        // Each block of panels reads all images.
        let blocks = match threads {
            1 => 1,
            _ => (3 * threads).div_ceil(parts).min(panels),
        };
        with_scratch(parts * self.size(), |all: &mut [f32]| {
            let shared = Shared::new(all);
            ctx.threads().parallel_for(parts * blocks, |task| {
                let (part, block) = (task / blocks, task % blocks);
                let panels = panels * block / blocks..panels * (block + 1) / blocks;
                if panels.is_empty() {
                    return;
                }
                let (first, last) = (self.of_panel(panels.start), self.of_panel(panels.end - 1));
                let at = part * self.size();
                // SAFETY: every panel of a part belongs to one task.
                let sums = unsafe { shared.slice(at + first.start..at + last.end) };
                sums.fill(0.0);
                for pixels in self.strips.of_part(part) {
                    self.strip(ctx, images, pixels, panels.clone(), sums, db.is_some());
                }
            });
            let (first, others) = all.split_at_mut(self.size());
            for other in others.chunks_exact(self.size()) {
                add_to(ctx, first, other);
            }
            self.store(ctx, first, dw, db);
        });
    }

    /// Adds the products of a strip of pixels to the sums of some panels.
    fn strip(
        &self,
        ctx: &Ctx,
        [x, dy]: [&[f32]; 2],
        pixels: Range<usize>,
        panels: Range<usize>,
        sums: &mut [f32],
        with_bias: bool,
    ) {
        let g = self.g;
        let images = windows::Images {
            x,
            as_is: Some(x),
            outside: 0.0,
            copy: &<[f32]>::copy_from_slice,
            run: g.line(),
        };
        let start = self.of_panel(panels.start).start;
        windows::each_part(g, images, pixels, |pixels, windows, steps| {
            let runs = runs(g, self.group, steps.stride);
            for p in panels.clone() {
                let (first, columns, vectors) = self.panels.panel(p);
                let width = vectors * self.panels.lanes;
                let sums = &mut sums[self.of_panel(p).start - start..][..self.rows * width];
                let (sums, bias) = sums.split_at_mut(g.depth() * width);
                let channels = self.group * g.group_out() + first;
                let dy = &dy[pixels.start * g.channels_out + channels..];
                let mut work = |dy: &[f32], stride: usize| {
                    assert!((windows.len() - 1) * stride + width <= dy.len());
                    let strip = Strip {
                        windows,
                        runs: &runs,
                        dy: dy.as_ptr(),
                        stride,
                        vectors,
                        sums: sums.as_mut_ptr(),
                        bias: with_bias.then_some(bias.as_mut_ptr()),
                    };
                    dispatch(ctx.isa(), strip);
                };
                // Whole panels are read as they lie, where they are not read so often that their
                // lines, which are far apart, would be in each other's way in a cache.
                let is_far = self.panels.count() > 1 && g.depth() > FEW;
                if columns == width && !is_far {
                    work(dy, g.channels_out);
                    continue;
                }
                with_scratch(windows.len() * width, |packed: &mut [f32]| {
                    rows::copy(ctx.isa(), dy, g.channels_out, columns, packed, width);
                    work(packed, width);
                });
            }
        });
    }

    /// Brings the sums to ONNX's order.
    fn store(&self, ctx: &Ctx, sums: &[f32], dw: &mut [f32], db: Option<&mut [f32]>) {
        let (depth, inputs) = (self.g.depth(), self.g.group_in());
        let taps = depth / inputs;
        let (shared, bias) = (Shared::new(dw), db.map(Shared::new));
        ctx.threads().parallel_for(self.panels.count(), |p| {
            let (first, columns, vectors) = self.panels.panel(p);
            let width = vectors * self.panels.lanes;
            let sums = &sums[self.of_panel(p)];
            // SAFETY: the output channels of a panel belong to one task.
            let dw = unsafe { shared.slice(first * depth..(first + columns) * depth) };
            for (j, dw) in dw.chunks_exact_mut(depth).enumerate() {
                for (c, dw) in dw.chunks_exact_mut(taps).enumerate() {
                    for (tap, dw) in dw.iter_mut().enumerate() {
                        *dw = sums[(tap * inputs + c) * width + j];
                    }
                }
            }
            if let Some(bias) = &bias {
                // SAFETY: as above.
                let db = unsafe { bias.slice(first..first + columns) };
                db.copy_from_slice(&sums[depth * width..][..columns]);
            }
        });
    }
}
