//! Float convolution of channels-last images.

#[cfg(target_arch = "x86_64")]
use std::cell::Cell;
#[cfg(target_arch = "x86_64")]
use std::ops::Range;
use std::sync::Arc;

use super::depthwise::DepthwiseF32;
use super::gather::{Run, gather};
use super::grouped::GroupedF32;
use super::winograd::Winograd;
use super::{ConvGeometry, Tasks, windows};
use crate::arena::{Buffer, with_scratch};
use crate::floats::{Floats, FloatsMut};
use crate::gemm::Order;
#[cfg(target_arch = "x86_64")]
use crate::gemm::Pixels;
#[cfg(target_arch = "x86_64")]
use crate::gemm::f32::bf16;
use crate::gemm::f32::{Epilogue, PackedF32, Target, rows_in_cache};
use crate::sparse::SparseF32;
use crate::{Ctx, Unsupported};

/// A convolution with packed weights.
#[derive(Clone, Debug)]
pub struct ConvF32 {
    geometry: ConvGeometry,
    weights: Weights,
    /// Numbers of BF16 that lines of windows are packed in, up to whole steps.
    line: Option<usize>,
}

#[derive(Clone, Debug)]
enum Weights {
    Depthwise(Arc<DepthwiseF32>),
    Grouped(Arc<GroupedF32>),
    Winograd(Winograd),
    Sparse(Arc<SparseF32>),
    Groups(Arc<[PackedF32]>),
}

impl ConvF32 {
    /// Packs `weights`, which are laid out as in ONNX: `[out, in / groups, height, width]`.
    pub fn prepare(
        ctx: &Ctx,
        geometry: ConvGeometry,
        weights: &[f32],
    ) -> Result<Self, Unsupported> {
        geometry.check_weights(weights.len())?;
        let weights = if geometry.is_depthwise() {
            Weights::Depthwise(Arc::new(DepthwiseF32::new(ctx, &geometry, weights)))
        } else if GroupedF32::suits(&geometry) {
            Weights::Grouped(Arc::new(GroupedF32::new(ctx, &geometry, weights)))
        } else if Winograd::suits(&geometry) && !ctx.bf16() {
            Weights::Winograd(Winograd::new(ctx, &geometry, weights))
        } else if let Some(lists) = Self::lists(ctx, &geometry, weights) {
            Weights::Sparse(Arc::new(lists))
        } else {
            return Ok(Self::windows(ctx, geometry, weights));
        };
        Ok(Self {
            geometry,
            weights,
            line: None,
        })
    }

    /// The weights of a convolution of pixels as lists, where most of them are zero.
    fn lists(ctx: &Ctx, g: &ConvGeometry, weights: &[f32]) -> Option<SparseF32> {
        let [height, width] = g.output();
        let size = [height * width, g.channels_in, g.channels_out];
        let one = g.is_pointwise() && g.groups == 1;
        one.then(|| SparseF32::of(ctx, Order::NK, size, || weights.into()))?
    }

    /// Packs weights for products with the windows of the output pixels.
    pub(super) fn windows(ctx: &Ctx, geometry: ConvGeometry, weights: &[f32]) -> Self {
        let line = bf16_line(ctx, &geometry);
        let pack = |g| {
            let (k, n) = (geometry.depth(), geometry.group_out());
            let own = || geometry.group_weights(weights, g);
            let Some(whole) = line else {
                return PackedF32::of(ctx, Order::NK, [k, n], own);
            };
            let lines = || geometry.whole_lines(&own(), whole).into();
            PackedF32::of(ctx, Order::NK, [geometry.kernel[0] * whole, n], lines)
        };
        Self {
            geometry,
            weights: Weights::Groups((0..geometry.groups).map(pack).collect()),
            line,
        }
    }

    /// The same weights for another input size, padding, stride or dilation.
    pub fn resized(&self, geometry: ConvGeometry) -> Result<Self, Unsupported> {
        self.geometry.check_resized(&geometry)?;
        if self.line.is_some() && (!windows::suit(&geometry) || geometry.is_pointwise()) {
            return Err(Unsupported(
                "weights are packed for windows without dilation".to_string(),
            ));
        }
        if self.sparse().is_some() && !geometry.is_pointwise() {
            return Err(Unsupported("weights are lists, for pixels".to_string()));
        }
        if self.is_winograd() && !Winograd::fits(&geometry) {
            return Err(Unsupported(
                "weights are packed for windows one apart".to_string(),
            ));
        }
        Ok(self.with_geometry(geometry))
    }

    /// The same weights where they fit as well.
    pub(super) fn with_geometry(&self, geometry: ConvGeometry) -> Self {
        Self {
            geometry,
            weights: self.weights.clone(),
            line: self.line,
        }
    }

    pub(super) fn is_winograd(&self) -> bool {
        matches!(self.weights, Weights::Winograd(_))
    }

    /// The lists that weights are kept as, where most of them are zero.
    pub fn sparse(&self) -> Option<&SparseF32> {
        match &self.weights {
            Weights::Sparse(lists) => Some(lists),
            _ => None,
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
            Weights::Grouped(weights) => weights.bytes(),
            Weights::Winograd(weights) => weights.bytes(),
            Weights::Sparse(lists) => lists.bytes(),
            Weights::Groups(groups) => groups.iter().map(PackedF32::bytes).sum(),
        }
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> Vec<&Buffer> {
        match &self.weights {
            Weights::Depthwise(weights) => weights.parts().collect(),
            Weights::Grouped(weights) => weights.parts().collect(),
            Weights::Winograd(weights) => weights.parts().collect(),
            Weights::Sparse(lists) => lists.parts().collect(),
            Weights::Groups(groups) => groups.iter().flat_map(PackedF32::parts).collect(),
        }
    }

    /// The name of the micro-kernel that does the work.
    pub fn kernel_name(&self) -> &'static str {
        match &self.weights {
            Weights::Depthwise(weights) => weights.kernel_name(),
            Weights::Grouped(weights) => weights.kernel_name(),
            Weights::Winograd(weights) => weights.kernel_name(),
            Weights::Sparse(lists) => lists.kernel_name(),
            Weights::Groups(groups) => groups[0].kernel_name(),
        }
    }

    /// Whether images may be rounded to BF16: all that a convolution by channel reads and writes,
    /// or any of what others do.
    pub fn rounds(&self) -> bool {
        match &self.weights {
            Weights::Depthwise(weights) => weights.rounds(),
            Weights::Grouped(_) | Weights::Winograd(_) | Weights::Sparse(_) => false,
            Weights::Groups(groups) => {
                let reads = self.geometry.is_pointwise() || self.line.is_some();
                reads && groups[0].rounded()
            }
        }
    }

    /// Convolves `x`, `[batch, height, width, in]`, to `y`, `[batch, height, width, out]`. A
    /// residual of the epilogue is laid out like `y`.
    pub fn run(&self, ctx: &Ctx, batch: usize, x: &[f32], y: &mut [f32], epilogue: &Epilogue) {
        self.run_mixed(ctx, batch, x.into(), y.into(), epilogue);
    }

    /// As [`ConvF32::run`], of images that may be rounded where [`ConvF32::rounds`].
    pub fn run_mixed(&self, ctx: &Ctx, batch: usize, x: Floats, y: FloatsMut, epilogue: &Epilogue) {
        let g = &self.geometry;
        let (input, output) = g.sizes(batch);
        assert_eq!(
            (x.len(), y.len()),
            (input, output),
            "slices hold the images"
        );
        let groups = match &self.weights {
            Weights::Depthwise(weights) => return weights.run(ctx, g, batch, (x, y), epilogue),
            Weights::Grouped(weights) => {
                if output > 0 {
                    let pixels = output / g.channels_out;
                    let target = Target::new(pixels, g.channels_out, y, g.channels_out, epilogue);
                    weights.run(ctx, g, batch, x.f32(), &target);
                }
                return;
            }
            Weights::Winograd(weights) => {
                let (x, y) = (x.f32(), y.f32());
                if output > 0 && !weights.run(ctx, g, batch, x, y, epilogue) {
                    let windows = Self::windows(ctx, self.geometry, &weights.weights());
                    windows.run(ctx, batch, x, y, epilogue);
                }
                return;
            }
            Weights::Sparse(lists) => {
                let (m, x, y) = (output / g.channels_out.max(1), x.f32(), y.f32());
                return lists.run(ctx, m, x, g.channels_in, y, g.channels_out, epilogue);
            }
            Weights::Groups(groups) => groups,
        };
        let Some(pixels) = output.checked_div(g.channels_out) else {
            return;
        };
        let target = Target::new(pixels, g.channels_out, y, g.channels_out, epilogue);
        let depth = g.depth();
        let tile_rows = groups[0].tile_rows();
        let by_windows = !g.is_pointwise() && windows::suit(g);
        let most = if by_windows {
            windows::MOST
        } else {
            rows_in_cache([depth, g.group_out()], tile_rows)
        };
        let panels = groups[0].panel_count();
        let size = if groups[0].rounded() { 2 } else { 4 };
        let bytes = depth * g.group_out() * size;
        let of = (g, batch, by_windows);
        let tasks = Tasks::new(ctx, of, (panels, bytes), (tile_rows, most));
        ctx.threads().parallel_for(tasks.count(), |i| {
            let (group, rows, panels) = tasks.task(i);
            let (b, offset) = (&groups[group], group * g.group_out());
            if g.is_pointwise() {
                let a = (x, rows.start * g.channels_in + group * g.group_in());
                // SAFETY: the lengths of `x` and `y` cover all pixels; tasks are disjoint.
                unsafe { target.multiply_floats(rows, a, g.channels_in, b, panels, offset) };
                return;
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(whole) = self.line {
                let to = Rounded {
                    target: &target,
                    b,
                    panels,
                    offset,
                };
                // SAFETY: lines of BF16 are packed only where the CPU has it; the output as above.
                unsafe { to.windows(g, x, whole, rows) };
                return;
            }
            let x = x.f32();
            if by_windows {
                let images = windows::Images {
                    x,
                    as_is: Some(x),
                    outside: 0.0,
                    copy: &<[f32]>::copy_from_slice,
                    run: g.line(),
                };
                windows::each_part(g, images, rows, |rows, a, steps| {
                    let panels = panels.clone();
                    // SAFETY: windows are readable; the output as above.
                    unsafe {
                        if !target.multiply_few(rows.clone(), a, steps, b, panels.clone(), offset) {
                            target.multiply_windows(rows, a, steps, b, panels, offset);
                        }
                    }
                });
                return;
            }
            with_scratch(rows.len() * depth, |panel: &mut [f32]| {
                gather(g, x, group, rows.clone(), |row, k, run| match run {
                    Run::Data(data) => panel[row * depth + k..][..data.len()].copy_from_slice(data),
                    Run::Outside(n) => panel[row * depth + k..][..n].fill(0.0),
                });
                // SAFETY: the panel has these rows; the output as above.
                unsafe { target.multiply(rows, panel.as_ptr(), depth, b, panels, offset) };
            });
        });
    }
}

/// A product of windows with weights of BF16.
#[cfg(target_arch = "x86_64")]
struct Rounded<'a> {
    target: &'a Target<'a>,
    b: &'a PackedF32,
    panels: Range<usize>,
    offset: usize,
}

#[cfg(target_arch = "x86_64")]
impl Rounded<'_> {
    /// Multiplies the windows of output pixels `rows`, whose lines are read in `whole` numbers.
    ///
    /// # Safety
    /// The CPU has BF16; the pixels lie in the target, and no other thread writes them.
    unsafe fn windows(self, g: &ConvGeometry, x: Floats, whole: usize, rows: Range<usize>) {
        let finite = Cell::new(true);
        let work = |rows: Range<usize>, a: Pixels, steps| {
            let (line, panels) = ((g.line(), finite.get()), self.panels.clone());
            // SAFETY: windows are readable; the output by the caller's promise.
            unsafe {
                let (target, b) = (self.target, self.b);
                target.multiply_bf16_windows(rows, (a, steps), line, b, panels, self.offset);
            }
        };
        match x {
            Floats::F32(x) => {
                let copy = |to: &mut [u16], x: &[f32]| {
                    // SAFETY: the caller's promise.
                    finite.set(unsafe { bf16::narrow(to, x) } & finite.get());
                };
                let (as_is, outside, copy) = (None, 0, &copy);
                let images = windows::Images {
                    x,
                    as_is,
                    outside,
                    copy,
                    run: whole,
                };
                windows::each_image(g, images, rows, work);
            }
            Floats::Bf16(x) => {
                let x: &[u16] = bytemuck::cast_slice(x);
                // Then nothing stands behind a line, and what it holds does not matter.
                let fits = whole == g.line();
                let copy = |to: &mut [u16], x: &[u16]| {
                    to.copy_from_slice(x);
                    finite.set(finite.get() && (fits || bf16::all_finite(x)));
                };
                let (as_is, outside, copy) = (fits.then_some(x), 0, &copy);
                let images = windows::Images {
                    x,
                    as_is,
                    outside,
                    copy,
                    run: whole,
                };
                windows::each_image(g, images, rows, work);
            }
        }
    }
}

/// Numbers of BF16 that a line of a window is packed in, where windows are read as BF16.
fn bf16_line(ctx: &Ctx, g: &ConvGeometry) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if ctx.bf16() && bf16::suits(g.depth()) && windows::suit(g) && !g.is_pointwise() {
        return Some(g.line().next_multiple_of(bf16::STEP));
    }
    let _ = (ctx, g);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::conv::tests::{plain, some_geometry};
    use crate::testing::{Random, close, contexts};

    #[test]
    fn equals_the_plain_sum_for_any_geometry() {
        let mut random = Random::new(5);
        for round in 0..250 {
            let (g, batch) = (some_geometry(&mut random), 1 + random.below(2));
            let (input, output) = g.sizes(batch);
            let x = random.floats(input);
            let w = random.floats(g.channels_out * g.depth());
            let (bias, residual) = (random.floats(g.channels_out), random.floats(output));
            let ep = Epilogue {
                bias: Some(&bias),
                residual: (round % 2 == 0).then_some(residual[..].into()),
                activation: random.pick(&[
                    Activation::None,
                    Activation::Clip {
                        min: -0.5,
                        max: 0.5,
                    },
                    Activation::LeakyRelu { alpha: 0.1 },
                ]),
            };
            let mut want: Vec<f32> = plain(&g, batch, &x, &w, 0.0);
            for (i, y) in want.iter_mut().enumerate() {
                *y += bias[i % g.channels_out] + ep.residual.map_or(0.0, |r| r.f32()[i]);
                *y = match ep.activation {
                    Activation::Clip { min, max } => y.clamp(min, max),
                    Activation::LeakyRelu { alpha } if *y < 0.0 => *y * alpha,
                    _ => *y,
                };
            }
            let mut last: Option<Vec<f32>> = None;
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                let mut y = vec![f32::NAN; output];
                conv.run(&ctx, batch, &x, &mut y, &ep);
                close(&y, &want, 1e-4, &format!("{g:?} {:?}", ctx.isa()));
                if ctx.threads().count() > 1 {
                    assert_eq!(last.as_ref(), Some(&y), "threads change nothing");
                }
                last = Some(y);
            }
        }
    }

    #[test]
    fn windows_of_nine_elements_equal_the_plain_sum() {
        let mut random = Random::new(7);
        for (round, outputs) in [1, 5, 8, 16, 17, 24, 32, 40].into_iter().enumerate() {
            let g = ConvGeometry {
                kernel: [3, 3],
                stride: [1 + round % 2, 1],
                pad_begin: [1, round % 3],
                pad_end: [1, 1],
                dilation: [1 + round / 4, 1],
                groups: 1,
                input: [9, 11],
                channels_in: 1,
                channels_out: outputs,
            };
            let (input, output) = g.sizes(2);
            let (x, w) = (random.floats(input), random.floats(outputs * 9));
            let (bias, residual) = (random.floats(outputs), random.floats(output));
            let ep = Epilogue {
                bias: Some(&bias),
                residual: Some(residual[..].into()),
                activation: Activation::Relu,
            };
            let mut want = plain(&g, 2, &x, &w, 0.0);
            for (i, y) in want.iter_mut().enumerate() {
                *y = (*y + bias[i % outputs] + residual[i]).max(0.0);
            }
            for ctx in contexts() {
                let mut y = vec![f32::NAN; output];
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                conv.run(&ctx, 2, &x, &mut y, &ep);
                close(&y, &want, 1e-5, &format!("{g:?} {:?}", ctx.isa()));
            }
        }
    }

    #[test]
    fn images_of_few_pixels_and_many_weights_do_not_depend_on_each_other() {
        let mut random = Random::new(8);
        let g = ConvGeometry {
            kernel: [3, 3],
            stride: [2, 1],
            pad_begin: [1, 1],
            pad_end: [1, 0],
            dilation: [1, 1],
            groups: 1,
            input: [9, 5],
            channels_in: 232,
            channels_out: 264,
        };
        let (input, output) = g.sizes(3);
        let (x, w) = (random.floats(input), random.floats(264 * g.depth()));
        let has_bf16 = |ctx: &Ctx| ctx.isa().multiplies_bf16();
        let rounded = contexts().into_iter().filter(has_bf16);
        let rounded = rounded.map(|ctx| ctx.with_bf16(true));
        for ctx in contexts().into_iter().chain(rounded) {
            let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
            let [mut whole, mut each] = [(); 2].map(|()| vec![f32::NAN; output]);
            conv.run(&ctx, 3, &x, &mut whole, &Epilogue::default());
            let outputs = each.chunks_mut(output / 3);
            for (x, y) in x.chunks(input / 3).zip(outputs) {
                conv.run(&ctx, 1, x, y, &Epilogue::default());
            }
            assert_eq!(whole, each, "{}", conv.kernel_name());
        }
    }

    #[test]
    fn weights_serve_another_input_size() {
        let mut random = Random::new(6);
        let mut g = some_geometry(&mut random);
        let ctx = Ctx::serial();
        let w = random.floats(g.channels_out * g.depth());
        let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
        g.input = [9, 14];
        let (input, output) = g.sizes(1);
        let (x, mut y) = (random.floats(input), vec![0.0; output]);
        conv.resized(g)
            .unwrap()
            .run(&ctx, 1, &x, &mut y, &Epilogue::default());
        close(&y, &plain(&g, 1, &x, &w, 0.0), 1e-4, "resized");
        g.channels_out += g.groups;
        assert!(conv.resized(g).is_err());
    }
}
