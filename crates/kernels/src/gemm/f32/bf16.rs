//! Products of floats that are rounded to BF16 on both sides and added in f32, by tiles.

use std::ops::Range;

use super::mixed::{AnyStore, Read};
use super::store::Put;
use super::{PackedF32, Target};
use crate::arena::{Buffer, with_scratch};
use crate::floats::Floats;
use crate::gemm::amx::{Right, Runs, Sums, multiply, multiply_tiles};
use crate::gemm::left::{Even, Pixels, Steps};
use crate::gemm::{Order, Panels};
use crate::simd::Simd;
use crate::simd::amx::{BYTES, Bf16, ROWS};
use crate::simd::avx512::{Avx512, copy_bf16, to_bf16};

/// Numbers of a step along K.
pub(crate) const STEP: usize = BYTES / 2;

/// Rows of a matrix for which tiles are not worth it.
const FEW: usize = 16;

/// Whether a matrix of `k` rows is worth rounding.
pub(crate) fn suits(k: usize) -> bool {
    k >= FEW
}

/// Bytes of a matrix of `k` rows as it is laid out.
pub(super) fn bytes(k: usize, panels: Panels) -> usize {
    k.next_multiple_of(STEP) * panels.padded() * 2
}

/// Lays out a matrix in whole steps of pairs along K.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack(
    b: Floats,
    stride: usize,
    order: Order,
    k: usize,
    panels: Panels,
) -> Buffer {
    let rows = k.next_multiple_of(STEP);
    let mut data = Buffer::zeroed(bytes(k, panels));
    let out = data.typed_mut::<u32>();
    let width = 2 * panels.lanes;
    let mut two = vec![0; 2 * width.max(rows)];
    for p in 0..panels.count() {
        let (first, columns, vectors) = panels.panel(p);
        let width = vectors * panels.lanes;
        let out = &mut out[first * rows / 2..][..width * rows / 2];
        match order {
            Order::KN => {
                let groups = out.chunks_exact_mut(width);
                let (low, high) = two.split_at_mut(width);
                for (group, out) in groups.enumerate().take(k.div_ceil(2)) {
                    let row = b.skip(2 * group * stride + first);
                    // SAFETY: the caller's promise.
                    unsafe { lay(low, row, columns) };
                    if 2 * group + 1 < k {
                        let row = b.skip((2 * group + 1) * stride + first);
                        // SAFETY: as above.
                        unsafe { lay(high, row, columns) };
                    } else {
                        high.fill(0);
                    }
                    let pairs = low.iter().zip(&*high).take(columns);
                    for (to, (&x, &y)) in out.iter_mut().zip(pairs) {
                        *to = u32::from(x) | u32::from(y) << 16;
                    }
                }
            }
            Order::NK => {
                for c in 0..columns {
                    // SAFETY: the caller's promise.
                    unsafe { lay(&mut two, b.skip((first + c) * stride), k) };
                    two[k..].first_mut().into_iter().for_each(|next| *next = 0);
                    let (pairs, _) = two[..k.next_multiple_of(2)].as_chunks::<2>();
                    for (to, &[x, y]) in out[c..].iter_mut().step_by(width).zip(pairs) {
                        *to = u32::from(x) | u32::from(y) << 16;
                    }
                }
            }
        }
    }
    data
}

/// Lays out the first `n` of `from`, rounded.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16.
unsafe fn lay(to: &mut [u16], from: Floats, n: usize) {
    match from {
        Floats::F32(x) => {
            // SAFETY: the caller's promise.
            unsafe { narrow(to, &x[..n]) };
        }
        Floats::Bf16(x) => to[..n].copy_from_slice(bytemuck::cast_slice(&x[..n])),
    }
}

/// Rounds `from` to BF16; whether all are finite.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16.
pub(crate) unsafe fn narrow(to: &mut [u16], from: &[f32]) -> bool {
    assert!(to.len() >= from.len(), "numbers fit");
    // SAFETY: the slices have these lengths; the caller's promise.
    unsafe { to_bf16::<true>(from.as_ptr(), from.len(), to.as_mut_ptr(), from.len(), 32) }
}

/// Whether no number of BF16 is NaN or infinite.
pub(crate) fn all_finite(x: &[u16]) -> bool {
    let magnitude = |most: i16, &x: &u16| most.max((x & 0x7fff) as i16);
    x.iter().fold(0, magnitude) < 0x7f80
}

impl Target<'_> {
    /// [`Target::multiply`] for a matrix of BF16.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn multiply_rounded(
        &self,
        rows: Range<usize>,
        (a, a_stride): (Read, usize),
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        if let (Read::Bf16(a), 0) = (a, b.k % STEP) {
            let left = Even {
                a: a.cast::<u8>(),
                a_stride: a_stride * 2,
            };
            // SAFETY: the caller's promise.
            unsafe { self.multiply_bf16(rows, left, (1, b.k, 0), b, panels, offset) };
            return;
        }
        let Some(sums) = self.sums(&rows, &panels, offset) else {
            return;
        };
        let count = rows.len();
        let (height, pitch) = (count.min(ROWS), b.k.next_multiple_of(STEP));
        let size = height * pitch;
        with_scratch(count.div_ceil(height) * size, |all: &mut [u16]| {
            // SAFETY: the caller's promise; the scratch has room for every tile.
            unsafe {
                round_tiles((a, a_stride, count), (b.k, pitch), height, all.as_mut_ptr());
                let tiles = (all.as_ptr().cast(), size * 2);
                multiply_tiles::<Bf16>((count, height), tiles, b.right(pitch), panels, &sums);
            }
        });
    }

    /// As [`Target::multiply_windows`], for rows of BF16 whose runs of `line` numbers are
    /// followed by others up to `steps.run`, where the matrix has zeros; `finite`: those are finite.
    ///
    /// # Safety
    /// As there; runs are readable to their end.
    pub(crate) unsafe fn multiply_bf16_windows(
        &self,
        rows: Range<usize>,
        (a, steps): (Pixels, Steps),
        (line, finite): (usize, bool),
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        assert_eq!(
            (steps.lines * steps.run, steps.run % STEP),
            (b.k, 0),
            "rows of windows"
        );
        let (lines, run) = (steps.lines, steps.run);
        if line == run || finite {
            // SAFETY: the caller's promise.
            unsafe { self.multiply_bf16(rows, a, (lines, run, steps.stride), b, panels, offset) };
            return;
        }
        with_scratch(rows.len() * b.k, |all: &mut [u16]| {
            all.fill(0);
            for (row, to) in all.chunks_exact_mut(b.k).enumerate() {
                let from = a.window(row).cast::<u16>();
                for (i, to) in to.chunks_exact_mut(run).enumerate() {
                    // SAFETY: the caller's promise; a line fits its run.
                    unsafe {
                        let from = from.add(i * steps.stride);
                        to.as_mut_ptr().copy_from_nonoverlapping(from, line);
                    }
                }
            }
            let left = Even {
                a: all.as_ptr().cast(),
                a_stride: b.k * 2,
            };
            // SAFETY: the scratch has these rows; the output by the caller's promise.
            unsafe { self.multiply_bf16(rows, left, (1, b.k, 0), b, panels, offset) };
        });
    }

    /// # Safety
    /// As for [`Target::multiply_windows`], for rows of BF16 in whole steps.
    unsafe fn multiply_bf16<L: Runs>(
        &self,
        rows: Range<usize>,
        left: L,
        (lines, run, stride): (usize, usize, usize),
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        let Some(sums) = self.sums(&rows, &panels, offset) else {
            return;
        };
        let steps = Steps {
            lines,
            run: run * 2,
            stride: stride * 2,
        };
        let right = b.right(lines * run);
        // SAFETY: a matrix is packed so only where the CPU has AMX; the caller's promise.
        unsafe { multiply::<Bf16, L>((rows.len(), left, steps), right, panels, &sums) };
    }

    /// Where sums go; `None` where there are none.
    fn sums(&self, rows: &Range<usize>, panels: &Range<usize>, offset: usize) -> Option<Sink> {
        if rows.is_empty() || panels.is_empty() {
            return None;
        }
        Some(Sink {
            to: self.any_store(rows.start * self.stride + offset, offset),
            stride: self.stride,
        })
    }
}

impl PackedF32 {
    /// The matrix of BF16, `k` rows with what fills the last step.
    fn right(&self, k: usize) -> Right<'_> {
        Right {
            panels: self.panels,
            data: self.data.bytes(),
            bytes: k * 2,
        }
    }
}

/// Lays `count` rows of `k` floats, `stride` apart at `a`, rounded in tiles of `height` rows, each step
/// of a tile behind the one before. A last tile of fewer rows begins earlier.
///
/// # Safety
/// The CPU has BF16; the rows are readable, and the tiles are writable at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn round_tiles(
    (a, stride, count): (Read, usize, usize),
    (k, pitch): (usize, usize),
    height: usize,
    to: *mut u16,
) {
    for tile in 0..count.div_ceil(height) {
        let first = (tile * height).min(count - height);
        for i in 0..height {
            // SAFETY: the caller's promise.
            unsafe {
                let to = to.add(tile * height * pitch + i * STEP);
                let row = (first + i) * stride;
                match a {
                    Read::F32(a) => {
                        to_bf16::<false>(a.add(row), k, to, pitch, height * STEP);
                    }
                    Read::Bf16(a) => copy_bf16(a.add(row), k, to, pitch, height * STEP),
                }
            }
        }
    }
}

/// Where sums go.
struct Sink {
    to: AnyStore,
    stride: usize,
}

impl Sums for Sink {
    #[inline(always)]
    unsafe fn prepare<const V: usize>(
        &self,
        s: Avx512,
        sums: *mut i32,
        (row, height, first, columns): (usize, usize, usize, usize),
    ) {
        let sums = sums.cast::<f32>();
        let last = columns - (V - 1) * Avx512::LANES;
        let at = row * self.stride + first;
        // SAFETY: the caller's promise.
        unsafe {
            self.to
                .prepare::<V>(s, sums, height, at, self.stride, first, last)
        };
    }

    #[inline(always)]
    unsafe fn put<const M: usize, const V: usize>(
        &self,
        s: Avx512,
        sums: *const i32,
        row: usize,
        first: usize,
        columns: usize,
    ) {
        let mut all = [[s.splat(0.0); V]; M];
        let last = columns - (V - 1) * Avx512::LANES;
        let at = row * self.stride + first;
        // SAFETY: the caller's promise.
        unsafe {
            for (i, all) in all.iter_mut().enumerate() {
                *all = s.load_all(sums.add(i * V * Avx512::LANES).cast());
            }
            self.to.prepared().put(s, all, at, self.stride, first, last);
        }
    }

    #[inline(always)]
    fn finish(&self, _: Avx512) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::conv::ConvF32;
    use crate::conv::grouped::GroupedF32;
    use crate::conv::tests::{plain, some_geometry};
    use crate::floats::FloatsMut;
    use crate::gemm::{Epilogue, gemm, gemm_mixed, matmul};
    use crate::testing::{Random, close};
    use crate::{Ctx, Isa, Threads};

    /// On one thread and on two, where this CPU multiplies BF16.
    fn contexts() -> Vec<Ctx> {
        let of = |n| Ctx::new(Isa::Amx, Threads::new(n)).with_bf16(true);
        [1, 2].map(of).into_iter().filter(Ctx::bf16).collect()
    }

    /// The BF16 number next to `x`, ties to even; 0 where `x` is below the normal range.
    fn rounded(x: f32) -> u32 {
        let near = u32::from(half::bf16::from_f32(x).to_bits());
        let sign = near & 0x8000;
        if x.is_subnormal() { sign } else { near }
    }

    fn round(x: &[f32]) -> Vec<f32> {
        x.iter()
            .map(|&x| f32::from_bits(rounded(x) << 16))
            .collect()
    }

    #[test]
    fn slices_are_rounded_like_single_numbers() {
        let mut random = Random::new(2);
        for n in [0, 1, 15, 16, 17, 31, 32, 33, 70, 5000] {
            let any = |random: &mut Random| f32::from_bits(random.next() as u32 & 0xbfff_ffff);
            let x: Vec<f32> = (0..n).map(|_| any(&mut random)).collect();
            for _ in contexts() {
                let mut x = x.clone();
                let mut y = vec![7; n];
                // SAFETY: contexts are of CPUs with BF16.
                assert!(unsafe { narrow(&mut y, &x) });
                assert!(x.iter().zip(&y).all(|(&x, &y)| rounded(x) == u32::from(y)));
                for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
                    if let Some(last) = x.last_mut() {
                        *last = bad;
                        // SAFETY: as above.
                        assert!(!unsafe { narrow(&mut y, &x) }, "{bad} among {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_equal_those_of_rounded_numbers() {
        let mut random = Random::new(3);
        let sizes = [1, 2, 5, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 130];
        for round_of in 0..150 {
            let [m, k, n] = [(); 3].map(|()| random.pick(&sizes));
            let k = if round_of % 10 == 0 { k + 700 } else { k };
            let (a, b) = (random.floats(m * k), random.floats(k * n));
            let (bias, residual) = (random.floats(n), random.floats(m * n));
            let epilogue = Epilogue {
                bias: (round_of % 2 == 0).then_some(&bias[..]),
                residual: (round_of % 3 == 0).then_some(residual[..].into()),
                activation: random.pick(&[Activation::None, Activation::Relu, Activation::Sigmoid]),
            };
            let (ra, rb) = if suits(k) {
                (round(&a), round(&b))
            } else {
                (a.clone(), b.clone())
            };
            let exact = Ctx::new(Isa::Generic, Threads::new(1));
            let mut want = vec![0.0; m * n];
            matmul(&exact, [m, k, n], &ra, &rb, Order::KN, &mut want, &epilogue);
            let transposed: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
            let mut first: Option<Vec<f32>> = None;
            for ctx in contexts() {
                let mut c = vec![f32::NAN; m * n];
                matmul(&ctx, [m, k, n], &a, &b, Order::KN, &mut c, &epilogue);
                let tolerance = 2e-5 * (k as f32).sqrt();
                close(&c, &want, tolerance, &format!("{m} {k} {n}"));
                let mut d = vec![f32::NAN; m * n];
                matmul(
                    &ctx,
                    [m, k, n],
                    &a,
                    &transposed,
                    Order::NK,
                    &mut d,
                    &epilogue,
                );
                assert_eq!(c, d, "both orders of B give the same");
                assert_eq!(first.get_or_insert(c.clone()), &c, "threads change nothing");
            }
        }
    }

    #[test]
    fn convolutions_equal_those_of_rounded_numbers() {
        let mut random = Random::new(4);
        for _ in 0..200 {
            let (g, batch) = (some_geometry(&mut random), 1 + random.below(2));
            let (input, output) = g.sizes(batch);
            let (x, w) = (
                random.floats(input),
                random.floats(g.channels_out * g.depth()),
            );
            let by_channel = g.is_depthwise() || GroupedF32::suits(&g);
            let narrow = !by_channel && suits(g.depth());
            let want = if narrow {
                plain(&g, batch, &round(&x), &round(&w), 0.0)
            } else {
                plain(&g, batch, &x, &w, 0.0)
            };
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                let mut y = vec![f32::NAN; output];
                conv.run(&ctx, batch, &x, &mut y, &Epilogue::default());
                close(&y, &want, 1e-4, &format!("{g:?}"));
            }
        }
    }

    #[test]
    fn images_of_several_parts_equal_those_of_rounded_numbers() {
        let mut random = Random::new(9);
        for (input, channels) in [
            ([22, 15], 32),
            ([70, 7], 64),
            ([60, 9], 40),
            ([300, 1], 64),
            ([20, 33], 16),
        ] {
            let mut g = some_geometry(&mut random);
            (g.kernel, g.stride, g.dilation, g.groups) = ([3, 3], [1, 1], [1, 1], 1);
            (g.pad_begin, g.pad_end, g.input) = ([1, 1], [1, 1], input);
            (g.channels_in, g.channels_out) = (channels, 35);
            let (input, output) = g.sizes(2);
            let (x, w) = (random.floats(input), random.floats(35 * g.depth()));
            let want = plain(&g, 2, &round(&x), &round(&w), 0.0);
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                let mut y = vec![f32::NAN; output];
                conv.run(&ctx, 2, &x, &mut y, &Epilogue::default());
                close(&y, &want, 1e-4, &format!("{g:?}"));
            }
        }
    }

    fn halves(x: &[f32]) -> Vec<half::bf16> {
        let of = |&x: &f32| half::bf16::from_bits(rounded(x) as u16);
        x.iter().map(of).collect()
    }

    #[test]
    fn products_of_rounded_rows_to_rounded_rows_are_the_same() {
        let mut random = Random::new(7);
        let sizes = [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 130];
        for round_of in 0..100 {
            let [m, k, n] = [(); 3].map(|()| random.pick(&sizes));
            let k = k.max(FEW);
            let (a, b) = (random.floats(m * k), random.floats(k * n));
            let (bias, r) = (random.floats(n), round(&random.floats(m * n)));
            let r16 = halves(&r);
            let activation = random.pick(&[Activation::None, Activation::Relu, Activation::Gelu]);
            let epilogue = |residual| Epilogue {
                bias: (round_of % 2 == 0).then_some(&bias[..]),
                residual,
                activation,
            };
            for ctx in contexts() {
                let packed = PackedF32::new(&ctx, &b, Order::KN, k, n);
                assert!(packed.rounded());
                let mut want = vec![0.0; m * n];
                let with = epilogue((round_of % 3 == 0).then_some(r[..].into()));
                gemm(&ctx, m, &a, k, &packed, &mut want, n, &with);
                let with = epilogue((round_of % 3 == 0).then_some(Floats::Bf16(&r16)));
                let a = halves(&a);
                let mut c = vec![f32::NAN; m * n];
                let (x, y) = (Floats::Bf16(&a), FloatsMut::F32(&mut c));
                gemm_mixed(&ctx, m, x, k, &packed, y, n, &with);
                assert_eq!(c, want, "{m} {k} {n}");
                let mut c = vec![half::bf16::NAN; m * n];
                gemm_mixed(&ctx, m, x, k, &packed, FloatsMut::Bf16(&mut c), n, &with);
                assert_eq!(c, halves(&want), "{m} {k} {n}");
            }
        }
    }

    #[test]
    fn convolutions_of_rounded_images_to_rounded_images_are_the_same() {
        let mut random = Random::new(8);
        let mut seen = 0;
        for _ in 0..300 {
            let (g, batch) = (some_geometry(&mut random), 1 + random.below(2));
            let (input, output) = g.sizes(batch);
            let x = round(&random.floats(input));
            let w = random.floats(g.channels_out * g.depth());
            let x16 = halves(&x);
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                if !conv.rounds() {
                    continue;
                }
                seen += 1;
                let mut want = vec![0.0; output];
                conv.run(&ctx, batch, &x, &mut want, &Epilogue::default());
                let mut y = vec![half::bf16::NAN; output];
                let (from, to) = (Floats::Bf16(&x16), FloatsMut::Bf16(&mut y));
                conv.run_mixed(&ctx, batch, from, to, &Epilogue::default());
                assert_eq!(y, halves(&want), "{g:?}");
            }
        }
        assert!(seen > 100 || contexts().is_empty());
    }

    #[test]
    fn what_is_not_finite_reaches_no_window_but_its_own() {
        let mut g = some_geometry(&mut Random::new(5));
        (g.kernel, g.stride, g.dilation, g.groups) = ([3, 3], [1, 1], [1, 1], 1);
        (g.pad_begin, g.pad_end, g.input) = ([1, 1], [1, 1], [8, 20]);
        (g.channels_in, g.channels_out) = (5, 7);
        let mut x = vec![1.0; 8 * 20 * 5];
        x[(3 * 20 + 6) * 5 + 2] = f32::NAN;
        for ctx in contexts() {
            let conv = ConvF32::prepare(&ctx, g, &vec![0.5; 7 * g.depth()]).unwrap();
            let mut y = vec![0.0; 8 * 20 * 7];
            conv.run(&ctx, 1, &x, &mut y, &Epilogue::default());
            let mut z = vec![half::bf16::ZERO; 8 * 20 * 7];
            let x: Vec<_> = x.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let to = FloatsMut::Bf16(&mut z);
            conv.run_mixed(&ctx, 1, Floats::Bf16(&x), to, &Epilogue::default());
            for (pixel, (y, z)) in y.chunks(7).zip(z.chunks(7)).enumerate() {
                let near = (pixel / 20).abs_diff(3) < 2 && (pixel % 20).abs_diff(6) < 2;
                assert!(y.iter().all(|y| y.is_nan() == near), "pixel {pixel}");
                assert!(z.iter().all(|z| z.is_nan() == near), "pixel {pixel}");
            }
        }
    }

    #[test]
    fn strides_leave_the_gaps_alone() {
        let mut random = Random::new(6);
        let (a, b) = (random.floats(40 * 25), random.floats(20 * 21));
        for ctx in contexts() {
            let packed = PackedF32::new(&ctx, &b, Order::KN, 20, 21);
            let mut c = vec![7.0; 40 * 24];
            gemm(&ctx, 40, &a, 25, &packed, &mut c, 24, &Epilogue::default());
            let gaps = c.chunks(24).all(|row| row[21..].iter().all(|x| *x == 7.0));
            assert!(gaps && c.chunks(24).all(|row| row[..21].iter().all(|x| *x != 7.0)));
        }
    }
}
