//! Convolution of 3x3 by Winograd's minimal filtering F(4x4, 3x3): a quarter of the
//! multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
//! arXiv:1509.09308, section 4).
//!
//! Tiles of 4x4 output pixels read 6x6 input pixels. Both sides are changed to values at the
//! points 0, ±3/4, ±3/2 and infinity, where a convolution is a product for each of 36 places:
//! a matrix product of tiles x channels each. With these points errors are about twice those of
//! a plain sum; those of the usual 0, ±1, ±2 are five times as large.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ConvGeometry;
use super::gather::inside;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::{Epilogue, PackedF32, Store, Target};
use crate::gemm::{Panels, shape};
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// Output pixels of a side of a tile.
const OUT: usize = 4;
/// Input pixels of a side of a tile.
const IN: usize = 6;
/// Places of a tile, each with a matrix of weights.
const PLACES: usize = IN * IN;
/// The points other than 0 and infinity are these and their negatives; all their powers here are
/// exact.
const POINTS: [f32; 2] = [0.75, 1.5];

/// Weights at the points: for each place a matrix of input x output channels.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    isa: Isa,
    places: Arc<[PackedF32]>,
}

impl Winograd {
    /// Whether it is faster than a product of windows.
    pub fn suits(g: &ConvGeometry) -> bool {
        let [height, width] = g.output();
        let weights = PLACES * 4 * g.channels_in * g.channels_out;
        Self::fits(g)
            && g.channels_in.min(g.channels_out) >= 16
            && height.min(width) >= OUT
            // All weights are read for each block of tiles: few pixels are not worth four times
            // the bytes, unless those stay in a cache.
            && (height * width >= 100 || weights <= 1 << 20)
    }

    /// Whether it can do it.
    pub fn fits(g: &ConvGeometry) -> bool {
        g.groups == 1 && g.kernel == [3, 3] && g.stride == [1, 1] && g.dilation == [1, 1]
    }

    /// Packs weights `[out, in, 3, 3]`.
    pub fn new(ctx: &Ctx, g: &ConvGeometry, weights: &[f32]) -> Self {
        let size = [g.channels_in, g.channels_out];
        let empty = PackedF32::empty(ctx, size);
        let places = match ctx.stored([empty.bytes(); PLACES]) {
            Some(stored) => stored
                .map(|data| PackedF32::of_data(ctx, size, data))
                .into(),
            None => {
                let mut places = vec![empty; PLACES];
                let to = places.iter_mut().map(PackedF32::data_mut).collect();
                let panels = Panels {
                    n: size[1],
                    lanes: shape(ctx.isa()).0,
                };
                let body = AtPoints {
                    weights,
                    inputs: size[0],
                    panels,
                    to,
                };
                dispatch(ctx.isa(), body);
                places.into()
            }
        };
        Self {
            isa: ctx.isa(),
            places,
        }
    }

    pub fn bytes(&self) -> usize {
        self.places.iter().map(PackedF32::bytes).sum()
    }

    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        self.places.iter().flat_map(PackedF32::parts)
    }

    pub fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => "x86_64-avx512-winograd-f32-12x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-winograd-f32-6x16",
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => "aarch64-neon-winograd-f32-8x8",
            Isa::Generic => "generic-winograd-f32-4x8",
        }
    }

    /// Convolves as [`super::ConvF32::run`]. `false` where a sum came out as no number or
    /// infinite: a tile then holds too many of them, and `y` is to be written anew.
    pub fn run(
        &self,
        ctx: &Ctx,
        g: &ConvGeometry,
        batch: usize,
        x: &[f32],
        y: &mut [f32],
        epilogue: &Epilogue,
    ) -> bool {
        let [height, width] = g.output();
        let (inputs, outputs) = (g.channels_in, g.channels_out);
        let across = [height.div_ceil(OUT), width.div_ceil(OUT)];
        let tiles = batch * across[0] * across[1];
        let target = Target::new(batch * height * width, outputs, y, outputs, epilogue);
        let finite = AtomicBool::new(true);
        let most = self.most_tiles(ctx, g, tiles);
        let outside = vec![0.0; inputs];
        ctx.threads().parallel_for(tiles.div_ceil(most), |i| {
            let tiles = i * most..tiles.min((i + 1) * most);
            // A line between the places keeps them out of the same sets of a cache.
            let [v_place, m_place] = [inputs, outputs].map(|n| tiles.len() * n + 16);
            with_scratch(PLACES * (v_place + m_place), |scratch: &mut [f32]| {
                let (v, m) = scratch.split_at_mut(PLACES * v_place);
                let part = Part {
                    g,
                    across,
                    tiles: tiles.clone(),
                };
                let input = Input {
                    part: &part,
                    x,
                    outside: &outside,
                    v: Shared::new(v).pointer(0),
                    place: v_place,
                };
                dispatch(self.isa, input);
                for (place, b) in self.places.iter().enumerate() {
                    let (a, c) = (&v[place * v_place..], &mut m[place * m_place..]);
                    let sums = Target::new(tiles.len(), outputs, c, outputs, &Epilogue::default());
                    let rows = 0..tiles.len();
                    // SAFETY: the places hold a row of `inputs` for each tile, and C as many of
                    // `outputs`, which are this task's.
                    unsafe { sums.multiply(rows, a.as_ptr(), inputs, b, 0..b.panel_count(), 0) };
                }
                let output = Output {
                    part: &part,
                    m,
                    place: m_place,
                    target: &target,
                };
                if !dispatch(self.isa, output) {
                    finite.store(false, Ordering::Relaxed);
                }
            });
        });
        finite.into_inner()
    }

    /// Tiles of a block: as many as pay for reading all weights, and leave the caches room.
    fn most_tiles(&self, ctx: &Ctx, g: &ConvGeometry, tiles: usize) -> usize {
        let bytes = PLACES * 4 * (g.channels_in + g.channels_out);
        let room = (1 << 20).max(self.bytes() / 2);
        let rows = self.places[0].tile_rows();
        let whole = |tiles: usize| tiles.div_ceil(rows) * rows;
        let most = whole((room / bytes).clamp(1, 96));
        match ctx.threads().count() {
            1 => most,
            threads => most.min(tiles.div_ceil(threads)).max(1),
        }
    }

    /// The weights that were packed, `[out, in, 3, 3]`, up to a rounding or two.
    pub fn weights(&self) -> Vec<f32> {
        let (inputs, outputs) = (self.places[0].k(), self.places[0].n());
        let [a, _] = POINTS.map(f64::from);
        let [zero, first, _] = scales();
        let mut weights = Vec::with_capacity(9 * inputs * outputs);
        // The line of three weights with these values at the points 0, ±3/4 and infinity.
        let line = |u: [f64; 4]| [u[0] / zero, (u[1] - u[2]) / (2.0 * a * first), u[3]];
        for o in 0..outputs {
            for i in 0..inputs {
                let at = |y: usize, x: usize| f64::from(self.places[y * IN + x].element(i, o));
                let rows = [0, 1, 2, 5].map(|y| line([0, 1, 2, 5].map(|x| at(y, x))));
                let columns = [0, 1, 2].map(|x| line([0, 1, 2, 3].map(|y| rows[y][x])));
                for y in 0..3 {
                    weights.extend(columns.map(|column| column[y] as f32));
                }
            }
        }
        weights
    }
}

/// One over the products of the distances from the points 0, ±3/4 and ±3/2 to the other ones.
fn scales() -> [f64; 3] {
    let [a, b] = POINTS.map(|p| f64::from(p * p));
    [a * b, 2.0 * a * (a - b), 2.0 * b * (b - a)].map(f64::recip)
}

/// Weights of this many output channels that are worked on together.
const TOGETHER: usize = 8;

/// One number for each of a few output channels.
type Few = [f64; TOGETHER];

/// Weights `[out, in, 3, 3]` to those at the points, in double precision, rounded once.
struct AtPoints<'a> {
    weights: &'a [f32],
    inputs: usize,
    panels: Panels,
    /// For each place a packed matrix of input x output channels.
    to: Vec<&'a mut [f32]>,
}

impl Body for AtPoints<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let inputs = self.inputs;
        for p in 0..self.panels.count() {
            let (first, columns, vectors) = self.panels.panel(p);
            let width = vectors * self.panels.lanes;
            for o in (0..columns).step_by(TOGETHER) {
                let n = (columns - o).min(TOGETHER);
                let kernels = &self.weights[(first + o) * inputs * 9..];
                for i in 0..inputs {
                    let mut rows = [[[0.0; TOGETHER]; 3]; 3];
                    for j in 0..n {
                        let kernel = &kernels[(j * inputs + i) * 9..][..9];
                        for y in 0..3 {
                            for x in 0..3 {
                                rows[y][x][j] = f64::from(kernel[y * 3 + x]);
                            }
                        }
                    }
                    let at = first * inputs + i * width + o;
                    let rows = [
                        weight_line(rows[0]),
                        weight_line(rows[1]),
                        weight_line(rows[2]),
                    ];
                    for x in 0..IN {
                        let column = weight_line([rows[0][x], rows[1][x], rows[2][x]]);
                        for y in 0..IN {
                            let mut few = [0.0; TOGETHER];
                            for j in 0..TOGETHER {
                                few[j] = column[y][j] as f32;
                            }
                            self.to[y * IN + x][at..][..n].copy_from_slice(&few[..n]);
                        }
                    }
                }
            }
        }
    }
}

/// Three weights in a line at the points.
#[inline(always)]
fn weight_line(g: [Few; 3]) -> [Few; IN] {
    let ([a, b], [zero, first, second]) = (POINTS.map(f64::from), scales());
    let mut all = [[0.0; TOGETHER]; IN];
    for j in 0..TOGETHER {
        let (even, odd) = (g[0][j] + a * a * g[2][j], a * g[1][j]);
        all[0][j] = g[0][j] * zero;
        all[1][j] = (even + odd) * first;
        all[2][j] = (even - odd) * first;
        let (even, odd) = (g[0][j] + b * b * g[2][j], b * g[1][j]);
        all[3][j] = (even + odd) * second;
        all[4][j] = (even - odd) * second;
        all[5][j] = g[2][j];
    }
    all
}

/// The tiles of a task.
struct Part<'a> {
    g: &'a ConvGeometry,
    /// Tiles of an image, down and across.
    across: [usize; 2],
    tiles: Range<usize>,
}

impl Part<'_> {
    /// Image, and line and column of the first output pixel, of a tile.
    #[inline(always)]
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let [down, across] = self.across;
        let line = tile / across;
        (line / down, line % down * OUT, tile % across * OUT)
    }
}

/// `s.load` of all lanes, or of the first `n`.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load<S: Simd, const PART: bool>(s: S, p: *const f32, n: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { if PART { s.load_n(p, n) } else { s.load(p) } }
}

/// `s.store` of all lanes, or of the first `n`.
///
/// # Safety
/// They are writable.
#[inline(always)]
unsafe fn store<S: Simd, const PART: bool>(s: S, p: *mut f32, x: S::F, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if PART {
            s.store_n(p, x, n)
        } else {
            s.store(p, x)
        }
    }
}

/// Input pixels at the points: for each place a row of channels for each tile.
struct Input<'a> {
    part: &'a Part<'a>,
    x: &'a [f32],
    /// A pixel outside of the image.
    outside: &'a [f32],
    v: *mut f32,
    /// Elements from one place to the next.
    place: usize,
}

impl Body for Input<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let g = self.part.g;
        let channels = g.channels_in;
        let line = g.input[1] * channels;
        let mut v = self.v;
        let mut pixels = [self.outside.as_ptr(); PLACES];
        for tile in self.part.tiles.clone() {
            let (image, oy, ox) = self.part.corner(tile);
            let inner = oy >= g.pad_begin[0]
                && ox >= g.pad_begin[1]
                && oy + IN <= g.pad_begin[0] + g.input[0]
                && ox + IN <= g.pad_begin[1] + g.input[1];
            let corner = if inner {
                let at = (image * g.input[0] + oy - g.pad_begin[0]) * line;
                self.x[at + (ox - g.pad_begin[1]) * channels..].as_ptr()
            } else {
                self.pixels(&mut pixels, image, oy, ox);
                pixels[0]
            };
            let mut c = 0;
            while c < channels {
                let left = channels - c;
                // SAFETY: each pixel has these channels, and each place a row of them for each
                // tile.
                unsafe {
                    let at = Inner {
                        corner: corner.add(c),
                        line,
                        pixel: channels,
                    };
                    let to = v.add(c);
                    match (left >= S::LANES, inner) {
                        (true, true) => self.vector::<S, false>(s, at, to, left),
                        (true, false) => {
                            self.vector::<S, false>(s, Anywhere { pixels: &pixels, c }, to, left)
                        }
                        (false, true) => self.vector::<S, true>(s, at, to, left),
                        (false, false) => {
                            self.vector::<S, true>(s, Anywhere { pixels: &pixels, c }, to, left)
                        }
                    }
                }
                c += S::LANES;
            }
            v = v.wrapping_add(channels);
        }
    }
}

/// Where the pixels of a tile stand.
trait Pixels: Copy {
    /// # Safety
    /// The pixels are there.
    unsafe fn at(self, y: usize, x: usize) -> *const f32;
}

/// In the image, all of them.
#[derive(Clone, Copy)]
struct Inner {
    corner: *const f32,
    line: usize,
    pixel: usize,
}

impl Pixels for Inner {
    #[inline(always)]
    unsafe fn at(self, y: usize, x: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.corner.add(y * self.line + x * self.pixel) }
    }
}

/// Each at its address, from channel `c` on.
#[derive(Clone, Copy)]
struct Anywhere<'a> {
    pixels: &'a [*const f32; PLACES],
    c: usize,
}

impl Pixels for Anywhere<'_> {
    #[inline(always)]
    unsafe fn at(self, y: usize, x: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.pixels[y * IN + x].add(self.c) }
    }
}

impl Input<'_> {
    /// The addresses of the pixels of a tile.
    fn pixels(&self, pixels: &mut [*const f32; PLACES], image: usize, oy: usize, ox: usize) {
        let g = self.part.g;
        for (i, line) in pixels.chunks_exact_mut(IN).enumerate() {
            line.fill(self.outside.as_ptr());
            let Some(y) = inside(oy + i, g.pad_begin[0], g.input[0]) else {
                continue;
            };
            let line_at = (image * g.input[0] + y) * g.input[1];
            for (j, pixel) in line.iter_mut().enumerate() {
                if let Some(x) = inside(ox + j, g.pad_begin[1], g.input[1]) {
                    *pixel = self.x[(line_at + x) * g.channels_in..].as_ptr();
                }
            }
        }
    }

    /// # Safety
    /// A vector of channels (`left` where `PART`) is readable at each pixel, and writable in each
    /// place from `to` on.
    #[inline(always)]
    unsafe fn vector<S: Simd, const PART: bool>(
        &self,
        s: S,
        from: impl Pixels,
        to: *mut f32,
        left: usize,
    ) {
        let mut lines = [[s.splat(0.0); IN]; IN];
        // SAFETY: the caller's promise.
        unsafe {
            for (i, line) in lines.iter_mut().enumerate() {
                let mut d = [s.splat(0.0); IN];
                for (j, d) in d.iter_mut().enumerate() {
                    *d = load::<S, PART>(s, from.at(i, j), left);
                }
                *line = input_line(s, d);
            }
            for x in 0..IN {
                let mut d = [s.splat(0.0); IN];
                for y in 0..IN {
                    d[y] = lines[y][x];
                }
                let v = input_line(s, d);
                for (y, v) in v.iter().enumerate() {
                    store::<S, PART>(s, to.add((y * IN + x) * self.place), *v, left);
                }
            }
        }
    }
}

/// Six numbers in a line at the points.
#[inline(always)]
fn input_line<S: Simd>(s: S, d: [S::F; IN]) -> [S::F; IN] {
    let [a, b] = POINTS;
    let [aa, bb] = [a * a, b * b];
    // With A = a², B = b²: the ends are AB d0 - (A + B) d2 + d4 and the same one further on.
    let ends = [s.splat(aa * bb), s.splat(-(aa + bb))];
    let zero = s.fma(ends[0], d[0], s.fma(ends[1], d[2], d[4]));
    let infinity = s.fma(ends[0], d[1], s.fma(ends[1], d[3], d[5]));
    let (even, odd) = (
        s.fma(s.splat(-bb), d[2], d[4]),
        s.fma(s.splat(-bb), d[1], d[3]),
    );
    let first = [s.fma(s.splat(a), odd, even), s.fma(s.splat(-a), odd, even)];
    let (even, odd) = (
        s.fma(s.splat(-aa), d[2], d[4]),
        s.fma(s.splat(-aa), d[1], d[3]),
    );
    let second = [s.fma(s.splat(b), odd, even), s.fma(s.splat(-b), odd, even)];
    [zero, first[0], first[1], second[0], second[1], infinity]
}

/// Four sums in a line from their values at the points.
#[inline(always)]
fn output_line<S: Simd>(s: S, m: [S::F; IN]) -> [S::F; OUT] {
    let [a, b] = POINTS;
    let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(even_a, even_b)),
        s.fma(s.splat(a), odd_a, s.mul(s.splat(b), odd_b)),
        s.fma(s.splat(a * a), even_a, s.mul(s.splat(b * b), even_b)),
        s.add(
            m[5],
            s.fma(s.splat(a * a * a), odd_a, s.mul(s.splat(b * b * b), odd_b)),
        ),
    ]
}

/// Sums at the points to output pixels.
struct Output<'a> {
    part: &'a Part<'a>,
    m: &'a [f32],
    /// Elements from one place to the next.
    place: usize,
    target: &'a Target<'a>,
}

impl Body for Output<'_> {
    /// Whether all sums are finite.
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let channels = self.part.g.channels_out;
        let [height, width] = self.part.g.output();
        let to = self.target.store(0, 0);
        let mut rest = s.splat(0.0);
        let mut m = self.m.as_ptr();
        for tile in self.part.tiles.clone() {
            let (image, oy, ox) = self.part.corner(tile);
            let spot = Spot {
                first: ((image * height + oy) * width + ox) * channels,
                line: width * channels,
                there: [(height - oy).min(OUT), (width - ox).min(OUT)],
            };
            let mut c = 0;
            // SAFETY: each place has a row of channels for each tile, and tasks write different
            // pixels, which `Target::new` checked.
            unsafe {
                while c < channels {
                    rest = if channels - c >= S::LANES {
                        self.vector::<S, false>(s, m.add(c), &to, &spot, c, rest)
                    } else {
                        self.vector::<S, true>(s, m.add(c), &to, &spot, c, rest)
                    };
                    c += S::LANES;
                }
                if let Some(activation) = self.target.then() {
                    let [height, width] = spot.there;
                    for i in 0..height {
                        let at = spot.first + i * spot.line;
                        to.finish(s, activation, at, width * channels);
                    }
                }
            }
            m = m.wrapping_add(channels);
        }
        s.sum(rest) == 0.0
    }
}

/// Where the output of a tile goes.
struct Spot {
    first: usize,
    /// Elements from one line to the next.
    line: usize,
    /// Lines and columns that lie in the image.
    there: [usize; 2],
}

impl Output<'_> {
    /// Stores what lies in the image; `rest`, or NaN where a sum is no number or infinite.
    ///
    /// # Safety
    /// A vector of channels (in part where `PART`) from `c` on is readable in each place from `m`
    /// on, and those of the pixels of the tile belong to this task.
    #[inline(always)]
    unsafe fn vector<S: Simd, const PART: bool>(
        &self,
        s: S,
        m: *const f32,
        to: &Store,
        spot: &Spot,
        c: usize,
        mut rest: S::F,
    ) -> S::F {
        let channels = self.part.g.channels_out;
        let last = if PART { channels - c } else { S::LANES };
        let mut lines = [[s.splat(0.0); OUT]; IN];
        for (i, line) in lines.iter_mut().enumerate() {
            let mut values = [s.splat(0.0); IN];
            for (j, value) in values.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *value = unsafe { load::<S, PART>(s, m.add((i * IN + j) * self.place), last) };
            }
            *line = output_line(s, values);
        }
        let mut sums = [[[s.splat(0.0)]; OUT]; OUT];
        for x in 0..OUT {
            let mut values = [s.splat(0.0); IN];
            for y in 0..IN {
                values[y] = lines[y][x];
            }
            let column = output_line(s, values);
            for (y, sum) in column.iter().enumerate() {
                sums[y][x] = [*sum];
                rest = s.fma(*sum, s.splat(0.0), rest);
            }
        }
        let [height, width] = spot.there;
        for (i, line) in sums.iter().enumerate().take(height) {
            let at = spot.first + i * spot.line + c;
            // SAFETY: the caller's promise.
            unsafe {
                if width == OUT {
                    to.put(s, *line, at, channels, c, last);
                } else {
                    for (j, sum) in line.iter().enumerate().take(width) {
                        to.put(s, [*sum], at + j * channels, channels, c, last);
                    }
                }
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::conv::ConvF32;
    use crate::conv::tests::plain;
    use crate::testing::{Random, contexts};

    fn geometry(input: [usize; 2], pads: [usize; 4], channels: [usize; 2]) -> ConvGeometry {
        ConvGeometry {
            kernel: [3, 3],
            stride: [1, 1],
            pad_begin: [pads[0], pads[1]],
            pad_end: [pads[2], pads[3]],
            dilation: [1, 1],
            groups: 1,
            input,
            channels_in: channels[0],
            channels_out: channels[1],
        }
    }

    #[test]
    fn errors_are_about_twice_those_of_a_plain_sum() {
        let mut random = Random::new(94);
        let g = geometry([16, 16], [1; 4], [64, 32]);
        let (n, count) = g.sizes(1);
        let (x, w) = (random.floats(n), random.floats(32 * g.depth()));
        let want = plain(&g, 1, &x, &w, 0.0);
        let error = |y: &[f32]| {
            let pairs = y.iter().zip(&want);
            let squares = pairs.map(|(y, want)| f64::from(y - want).powi(2));
            (squares.sum::<f64>() / count as f64).sqrt()
        };
        for ctx in contexts() {
            let (mut windows, mut tiles) = (vec![0.0; count], vec![0.0; count]);
            let ep = Epilogue::default();
            ConvF32::windows(&ctx, g, &w).run(&ctx, 1, &x, &mut windows, &ep);
            assert!(Winograd::new(&ctx, &g, &w).run(&ctx, &g, 1, &x, &mut tiles, &ep));
            let [windows, tiles] = [error(&windows), error(&tiles)];
            assert!(tiles < 3.0 * windows, "{:?}: {tiles} {windows}", ctx.isa());
        }
    }

    #[test]
    fn equals_the_plain_sum() {
        let mut random = Random::new(91);
        let mut sizes = vec![([8, 8], [1, 1, 1, 1], [64, 32]), ([3, 3], [0; 4], [3, 2])];
        for _ in 0..60 {
            let side = |random: &mut Random| random.pick(&[1, 2, 4, 5, 6, 7, 13]);
            let input = [side(&mut random), side(&mut random)];
            let pads = [0; 4].map(|_| 1 + random.below(3));
            let channels = [0; 2].map(|_| random.pick(&[1, 3, 8, 15, 16, 17, 33]));
            sizes.push((input, pads, channels));
        }
        for (i, (input, pads, channels)) in sizes.into_iter().enumerate() {
            let g = geometry(input, pads, channels);
            let batch = i % 3;
            let (n, count) = g.sizes(batch);
            let (x, w) = (random.floats(n), random.floats(channels[1] * g.depth()));
            let (bias, residual) = (random.floats(channels[1]), random.floats(count));
            let ep = Epilogue {
                bias: (i % 2 == 0).then_some(&bias[..]),
                residual: (i % 3 != 0).then_some(&residual[..]),
                activation: random.pick(&[Activation::None, Activation::Relu, Activation::Tanh]),
            };
            let want = plain(&g, batch, &x, &w, 0.0);
            // Twelve roundings of the largest sum that numbers of at most 1 may have.
            let most = 12.0 * f32::EPSILON / 2.0 * g.depth() as f32 + 1e-6;
            let mut last: Option<(Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let conv = Winograd::new(&ctx, &g, &w);
                let mut y = vec![f32::NAN; count];
                assert!(conv.run(&ctx, &g, batch, &x, &mut y, &ep));
                for (j, y) in y.iter().enumerate() {
                    let mut sum = want[j] + ep.bias.map_or(0.0, |b| b[j % channels[1]]);
                    sum += ep.residual.map_or(0.0, |r| r[j]);
                    let sum = match ep.activation {
                        Activation::Relu => sum.max(0.0),
                        Activation::Tanh => sum.tanh(),
                        _ => sum,
                    };
                    let error = (y - sum).abs();
                    assert!(error <= most, "{g:?} {:?}: {y}, not {sum}", ctx.isa());
                }
                match &last {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&y, one, "threads"),
                    _ => last = Some((ctx.isa(), y)),
                }
            }
        }
    }

    #[test]
    fn weights_come_back() {
        let mut random = Random::new(92);
        let ctx = Ctx::serial();
        let g = geometry([9, 9], [1; 4], [35, 41]);
        let w = random.floats(41 * g.depth());
        let back = Winograd::new(&ctx, &g, &w).weights();
        assert_eq!(w.len(), back.len());
        assert!(w.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn nan_infinity_and_the_largest_numbers_reach_only_their_windows() {
        let mut random = Random::new(93);
        let g = geometry([12, 12], [1; 4], [16, 16]);
        assert!(Winograd::suits(&g));
        let (n, count) = g.sizes(1);
        let w = random.floats(16 * g.depth());
        for value in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut x = random.floats(n);
            let at = (5 * 12 + 6) * 16 + 3;
            x[at] = value;
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                let mut y = vec![0.0; count];
                conv.run(&ctx, 1, &x, &mut y, &Epilogue::default());
                let want = plain(&g, 1, &x, &w, 0.0);
                for (i, (y, want)) in y.iter().zip(&want).enumerate() {
                    let (line, column) = (i / 16 / 12, i / 16 % 12);
                    if (4..=6).contains(&line) && (5..=7).contains(&column) {
                        assert!(y.abs() > 1e30 || y.is_nan(), "{value} {y}");
                    } else {
                        assert!((y - want).abs() < 1e-4, "{value} {line} {column}: {y}");
                    }
                }
            }
        }
    }
}
