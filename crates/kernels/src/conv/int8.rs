//! Byte convolution of channels-last images, with exact sums.

mod runs;

use std::sync::Arc;

use super::depthwise::DepthwiseI8;
use super::gather::{Run, gather};
use super::{ConvGeometry, Tasks, windows};
use crate::arena::{Buffer, with_scratch};
use crate::gemm::int8::{
    Bytes, Input8, Output8, PackedI8, Row8, Target8, isa_for, rows_in_cache, takes_any_bytes,
};
use crate::gemm::{Order, step_bytes, tasks_of};
use crate::sparse::SparseI8;
use crate::{Ctx, Isa, Unsupported};

/// A convolution with packed signed weights.
#[derive(Clone, Debug)]
pub struct ConvI8 {
    geometry: ConvGeometry,
    weights: Weights,
    /// Whether lines of windows are packed with zeros up to whole groups.
    padded: bool,
}

#[derive(Clone, Debug)]
enum Weights {
    Depthwise(Arc<DepthwiseI8>),
    Sparse(Arc<SparseI8>),
    Groups(Arc<[PackedI8]>),
}

impl ConvI8 {
    /// Packs `weights`, which are laid out as in ONNX: `[out, in / groups, height, width]`.
    /// `zeros` is their zero point: nothing for 0, one number, or one for each output channel.
    pub fn prepare(
        ctx: &Ctx,
        geometry: ConvGeometry,
        weights: Bytes,
        zeros: &[i32],
    ) -> Result<Self, Unsupported> {
        let (raw, signed) = weights.raw();
        geometry.check_weights(raw.len())?;
        let channels = geometry.channels_out;
        let steps = match geometry.kernel[0] {
            1 => geometry.depth(),
            lines => lines * whole_line(ctx.isa(), &geometry),
        };
        let lists = Self::lists(ctx, &geometry, weights, zeros);
        let ctx = &ctx.with_isa(isa_for(ctx.isa(), geometry.depth(), steps));
        if !(zeros.len() < 2 || zeros.len() == channels) {
            return Err(Unsupported(format!(
                "{} zero points, {channels} channels",
                zeros.len()
            )));
        }
        let is_plain = signed && zeros.iter().all(|z| *z == 0);
        let padded = is_plain
            && takes_any_bytes(ctx.isa())
            && windows::suit(&geometry)
            && geometry.kernel[0] > 1
            && !geometry.line().is_multiple_of(step_bytes(ctx.isa()));
        let weights = if geometry.is_depthwise() {
            Weights::Depthwise(Arc::new(DepthwiseI8::new(ctx, &geometry, weights, zeros)))
        } else if let Some(lists) = lists {
            Weights::Sparse(Arc::new(lists))
        } else {
            let pack = |g| {
                let size = geometry.group_out();
                let zeros = if zeros.len() > 1 {
                    &zeros[g * size..][..size]
                } else {
                    zeros
                };
                let own = || geometry.group_weights(raw, g);
                if !padded {
                    let sizes = [geometry.depth(), size];
                    return PackedI8::of(ctx, signed, Order::NK, sizes, zeros, own);
                }
                let whole = whole_line(ctx.isa(), &geometry);
                let sizes = [geometry.kernel[0] * whole, size];
                let lines = || geometry.whole_lines(&own(), whole).into();
                PackedI8::of(ctx, true, Order::NK, sizes, &[], lines)
            };
            Weights::Groups((0..geometry.groups).map(pack).collect())
        };
        Ok(Self {
            geometry,
            weights,
            padded,
        })
    }

    /// The weights of a convolution of pixels as lists, where most of them are zero.
    fn lists(ctx: &Ctx, g: &ConvGeometry, weights: Bytes, zeros: &[i32]) -> Option<SparseI8> {
        let ([height, width], k, n) = (g.output(), g.channels_in, g.channels_out);
        let one = g.is_pointwise() && g.groups == 1;
        let of = || SparseI8::new(ctx, height * width, weights, Order::NK, k, n, zeros);
        if one { of() } else { None }
    }

    /// The lists that weights are kept as, where most of them are zero.
    pub fn sparse(&self) -> Option<&SparseI8> {
        match &self.weights {
            Weights::Sparse(lists) => Some(lists),
            _ => None,
        }
    }

    /// The same weights for another input size, padding, stride or dilation.
    pub fn resized(&self, geometry: ConvGeometry) -> Result<Self, Unsupported> {
        self.geometry.check_resized(&geometry)?;
        if self.sparse().is_some() && !geometry.is_pointwise() {
            return Err(Unsupported("weights are lists, for pixels".to_string()));
        }
        if self.padded && !windows::suit(&geometry) {
            return Err(Unsupported(
                "weights are packed for kernels without dilation".to_string(),
            ));
        }
        Ok(self.with_geometry(geometry))
    }

    /// The same weights where they fit as well.
    pub(super) fn with_geometry(&self, geometry: ConvGeometry) -> Self {
        Self {
            geometry,
            weights: self.weights.clone(),
            padded: self.padded,
        }
    }

    /// What it computes.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// Size of the packed weights.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Depthwise(weights) => weights.bytes(),
            Weights::Sparse(lists) => lists.bytes(),
            Weights::Groups(groups) => groups.iter().map(PackedI8::bytes).sum(),
        }
    }

    /// What is packed, for [`Ctx::with_stored`]; weights of a depthwise convolution are few, and
    /// not stored.
    pub fn parts(&self) -> Vec<&Buffer> {
        match &self.weights {
            Weights::Depthwise(_) => Vec::new(),
            Weights::Sparse(lists) => lists.parts().collect(),
            Weights::Groups(groups) => groups.iter().flat_map(PackedI8::parts).collect(),
        }
    }

    /// The name of the micro-kernel that does the work.
    pub fn kernel_name(&self) -> &'static str {
        match &self.weights {
            Weights::Depthwise(weights) => weights.kernel_name(),
            Weights::Sparse(lists) => lists.kernel_name(),
            Weights::Groups(groups) => groups[0].kernel_name(),
        }
    }

    /// Whether windows are read where they lie.
    fn by_windows(&self, b: &PackedI8) -> bool {
        let g = &self.geometry;
        let whole = g.kernel[0] == 1 || g.line().is_multiple_of(step_bytes(b.isa()));
        !g.is_pointwise() && windows::suit(g) && b.takes_bytes() && (whole || self.padded)
    }

    /// Convolves `x`, `[batch, height, width, in]`, to `[batch, height, width, out]`. What lies
    /// outside of the image is the zero point of `x`.
    pub fn run(&self, ctx: &Ctx, batch: usize, x: Input8, bias: Option<&[i32]>, out: Output8) {
        let g = &self.geometry;
        let (input, output) = g.sizes(batch);
        assert_eq!(x.data.raw().0.len(), input, "the slice holds the images");
        assert!(
            bias.is_none_or(|b| b.len() == g.channels_out),
            "a bias for each channel"
        );
        let Some(pixels) = output.checked_div(g.channels_out) else {
            return;
        };
        if let Weights::Sparse(lists) = &self.weights {
            let (from, to) = (g.channels_in, g.channels_out);
            lists.run(ctx, pixels, x, from, bias, out, to);
        } else {
            self.run_dense(ctx, batch, x, bias, (out, pixels));
        }
    }

    /// As [`ConvI8::run`] to `pixels` pixels, where weights are no lists.
    fn run_dense(
        &self,
        ctx: &Ctx,
        batch: usize,
        x: Input8,
        bias: Option<&[i32]>,
        (out, pixels): (Output8, usize),
    ) {
        let g = &self.geometry;
        let (data, signed) = x.data.raw();
        let target = Target8::new(pixels, g.channels_out, out, g.channels_out);
        let groups = match &self.weights {
            Weights::Depthwise(weights) => return weights.run(ctx, g, batch, x, bias, &target),
            Weights::Groups(groups) => groups,
            Weights::Sparse(_) => unreachable!("they were run"),
        };
        let depth = g.depth();
        let bias_of = |group| bias.map(|b: &[i32]| &b[group * g.group_out()..][..g.group_out()]);
        let starts: Vec<Vec<i32>> = groups
            .iter()
            .enumerate()
            .map(|(i, b)| b.start(bias_of(i), &Row8::new(b, signed, x.zero)))
            .collect();
        let tile_rows = tasks_of(groups[0].isa());
        let by_windows = self.by_windows(&groups[0]);
        let most = if by_windows {
            windows::most_of_bytes(g)
        } else {
            rows_in_cache(groups[0].row_bytes(), tile_rows)
        };
        let (panels, bytes) = (groups[0].panel_count(), depth * g.group_out());
        let of = (g, batch, by_windows);
        let tasks = Tasks::new(ctx, of, (panels, bytes), (tile_rows, most));
        let in_runs = runs::serve(g);
        ctx.threads().parallel_for(tasks.count(), |i| {
            let (group, rows, panels) = tasks.task(i);
            let (b, offset) = (&groups[group], group * g.group_out());
            let (row8, pitch) = (Row8::new(b, signed, x.zero), b.row_bytes());
            let start = rows.start * g.channels_in + group * g.group_in();
            let a = &data[start.min(data.len())..];
            if g.is_pointwise() && b.reads_as_is(row8, rows.len(), g.channels_in, a) {
                let a = (a.as_ptr(), g.channels_in);
                // SAFETY: the lengths of input and output cover all pixels; tasks are disjoint.
                unsafe { target.multiply(rows, a, b, &starts[group], &[], panels, offset) };
                return;
            }
            if by_windows {
                let put = |to: &mut [u8], from: &[u8]| row8.lay_out(from, to);
                let images = windows::Images {
                    x: data,
                    outside: row8.zero as u8,
                    as_is: row8.is_plain().then_some(data),
                    copy: &put,
                    run: whole_line(b.isa(), g),
                };
                windows::each_image(g, images, rows, |rows, a, steps| {
                    let panels = panels.clone();
                    // SAFETY: windows are readable; the output as above.
                    unsafe {
                        target.multiply_windows(rows, (a, steps), b, &starts[0], panels, offset);
                    }
                });
                return;
            }
            let size = rows.len() * pitch;
            let lines = if in_runs { runs::scratch(g) } else { 0 };
            with_scratch(size + lines, |scratch: &mut [u8]| {
                if in_runs {
                    let outside = x.zero as u8;
                    runs::lay_out(g, row8, data, outside, rows.clone(), (scratch, pitch));
                }
                let panel = &mut scratch[..size];
                if g.is_pointwise() {
                    let data = &data[group * g.group_in()..];
                    row8.copy(panel, pitch, data, rows.clone(), g.channels_in, depth);
                } else if !in_runs {
                    gather(g, data, group, rows.clone(), |row, k, run| {
                        let to = &mut panel[row * pitch..][..pitch];
                        match run {
                            Run::Data(data) => row8.put(to, k, data),
                            Run::Outside(n) => row8.pad(to, k, n),
                        }
                    });
                    panel
                        .chunks_exact_mut(pitch.max(1))
                        .for_each(|row| row8.finish(row, depth));
                }
                let sums = b.row_sums(rows.len(), panel);
                let a = (panel.as_ptr(), pitch);
                // SAFETY: the panel has these rows; the output as above.
                unsafe { target.multiply(rows, a, b, &starts[group], &sums, panels, offset) };
            });
        });
    }
}

/// Bytes of a line of a window, up to whole steps of the instruction set.
fn whole_line(isa: Isa, g: &ConvGeometry) -> usize {
    g.line().next_multiple_of(step_bytes(isa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::{plain, some_geometry};
    use crate::gemm::Requant;
    use crate::testing::{Random, contexts};

    #[test]
    fn equals_the_exact_sum_for_any_geometry() {
        let mut random = Random::new(7);
        for round in 0..300 {
            let (g, batch) = (some_geometry(&mut random), 1 + random.below(2));
            let (input, output) = g.sizes(batch);
            let (x, w) = (
                random.bytes(input),
                random.bytes(g.channels_out * g.depth()),
            );
            let bias: Vec<i32> = (0..g.channels_out).map(|c| c as i32 * 37 - 100).collect();
            let (x_signed, w_signed) = (round % 2 == 0, round % 3 != 0);
            let value = |signed, byte: u8| {
                if signed {
                    f32::from(byte as i8)
                } else {
                    f32::from(byte)
                }
            };
            let zeros: Vec<i32> = match round % 4 {
                0 | 1 if w_signed => vec![],
                0 | 1 => vec![128],
                2 => vec![3],
                _ => (0..g.channels_out)
                    .map(|_| random.below(9) as i32)
                    .collect(),
            };
            let zero_of = |c: usize| match zeros.len() {
                0 => 0,
                1 => zeros[0],
                _ => zeros[c],
            };
            let zero = if x_signed { -5 } else { 120 };
            let fx: Vec<f32> = x
                .iter()
                .map(|b| value(x_signed, *b) - zero as f32)
                .collect();
            let per = g.depth();
            let fw: Vec<f32> = w
                .iter()
                .enumerate()
                .map(|(i, b)| value(w_signed, *b) - zero_of(i / per) as f32)
                .collect();
            let sums: Vec<i32> = plain(&g, batch, &fx, &fw, 0.0)
                .iter()
                .enumerate()
                .map(|(i, y)| *y as i32 + bias[i % g.channels_out])
                .collect();
            let mult: Vec<f32> = (0..g.channels_out)
                .map(|c| 0.002 + c as f32 * 1e-4)
                .collect();
            let bytes: Vec<u8> = sums
                .iter()
                .enumerate()
                .map(|(i, s)| (*s as f32 * mult[i % g.channels_out]).round_ties_even() as i32 + 10)
                .map(|y| y.clamp(10, 200) as u8)
                .collect();
            let pick = |signed: bool, data| {
                if signed {
                    Bytes::I8(bytemuck::cast_slice(data))
                } else {
                    Bytes::U8(data)
                }
            };
            for ctx in contexts() {
                let conv = ConvI8::prepare(&ctx, g, pick(w_signed, &w), &zeros).unwrap();
                let input = Input8 {
                    data: pick(x_signed, &x),
                    zero,
                };
                let mut y = vec![1; output];
                conv.run(&ctx, batch, input, Some(&bias), Output8::I32(&mut y));
                assert_eq!(y, sums, "{g:?} {:?}", ctx.isa());
                let mut y = vec![1; output];
                let to = Requant {
                    mult: &mult,
                    zero: 10,
                    lo: 10,
                    hi: 200,
                };
                conv.run(&ctx, batch, input, Some(&bias), Output8::Bytes(&mut y, to));
                assert_eq!(y, bytes, "{g:?} {:?}", ctx.isa());
            }
        }
    }

    #[test]
    fn images_of_several_parts_equal_the_generic_kernel() {
        let mut random = Random::new(9);
        for (channels, stride, signed, input) in [
            (16, 1, true, [41, 37]),
            (16, 2, false, [41, 37]),
            (5, 1, false, [41, 37]),
            (64, 1, true, [41, 37]),
            (32, 1, false, [22, 15]),
            (64, 1, true, [70, 7]),
            (64, 1, true, [60, 9]),
            (128, 1, false, [300, 1]),
        ] {
            let g = ConvGeometry {
                kernel: [3, 3],
                stride: [stride; 2],
                pad_begin: [1, 1],
                pad_end: [1, 1],
                dilation: [1, 1],
                groups: 1,
                input,
                channels_in: channels,
                channels_out: 16,
            };
            let (input, output) = g.sizes(2);
            let (x, w) = (random.bytes(input), random.mild(16 * g.depth()));
            let data = if signed {
                Bytes::I8(bytemuck::cast_slice(&x))
            } else {
                Bytes::U8(&x)
            };
            let run = |ctx: &Ctx| {
                let conv = ConvI8::prepare(ctx, g, Bytes::I8(&w), &[]).unwrap();
                let mut sums = vec![1; output];
                let x = Input8 { data, zero: 3 };
                conv.run(ctx, 2, x, None, Output8::I32(&mut sums));
                sums
            };
            let want = run(&Ctx::new(crate::Isa::Generic, crate::Threads::new(1)));
            for ctx in contexts() {
                assert_eq!(run(&ctx), want, "{g:?} {:?}", ctx.isa());
            }
        }
    }

    /// Bytes of all values, or only the least and the largest.
    fn some_bytes(random: &mut Random, n: usize, extreme: bool) -> Vec<u8> {
        let mut bytes = random.bytes(n);
        if extreme {
            let ends = [0, 0x7f, 0x80, 0xff];
            bytes
                .iter_mut()
                .for_each(|b| *b = ends[usize::from(*b) % 4]);
        }
        bytes
    }

    #[test]
    fn lines_of_every_width_equal_the_generic_kernel() {
        let mut random = Random::new(8);
        for round in 0..120 {
            let kernel = random.pick(&[1, 3, 3, 5]);
            let channels = random.pick(&[1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 48]);
            let depthwise = round % 2 == 0 && channels > 1;
            let g = ConvGeometry {
                kernel: [random.pick(&[1, 2, 3, 4, 5]), kernel],
                stride: [1 + random.below(2), 1 + random.below(2)],
                pad_begin: [random.below(3), random.below(kernel)],
                pad_end: [random.below(3), random.below(kernel)],
                dilation: [1 + random.below(2), 1],
                groups: if depthwise { channels } else { 1 },
                input: [5 + random.below(5), 5 + random.below(20)],
                channels_in: channels,
                channels_out: if depthwise { channels } else { 16 },
            };
            let (batch, extreme) = (1 + random.below(2), round % 3 == 0);
            let (input, output) = g.sizes(batch);
            let x = some_bytes(&mut random, input, extreme);
            let weights = g.channels_out * g.depth();
            let w = match round % 5 {
                0 | 1 => random.mild(weights),
                _ => bytemuck::cast_slice(&some_bytes(&mut random, weights, extreme)).to_vec(),
            };
            let w = &w;
            let (signed, low) = (round % 4 < 2, random.below(2) == 0);
            let (lo, hi) = if signed { (-128, 127) } else { (0, 255) };
            let zero = if low { lo } else { hi };
            let input = Input8 {
                data: if signed {
                    Bytes::I8(bytemuck::cast_slice(&x))
                } else {
                    Bytes::U8(&x)
                },
                zero,
            };
            let mult = vec![0.01; g.channels_out];
            let to = Requant {
                mult: &mult,
                zero,
                lo: lo + random.below(30) as i32,
                hi: hi - random.below(30) as i32,
            };
            let run = |ctx: &Ctx| {
                let conv = ConvI8::prepare(ctx, g, Bytes::I8(w), &[]).unwrap();
                let (mut sums, mut y) = (vec![1; output], vec![1; output]);
                conv.run(ctx, batch, input, None, Output8::I32(&mut sums));
                conv.run(ctx, batch, input, None, Output8::Bytes(&mut y, to));
                (sums, y)
            };
            let want = run(&Ctx::new(crate::Isa::Generic, crate::Threads::new(1)));
            for ctx in contexts() {
                assert_eq!(run(&ctx), want, "{g:?} {:?}", ctx.isa());
            }
        }
    }
}
