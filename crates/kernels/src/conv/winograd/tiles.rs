//! Tiles of images at the points, and sums at the points to tiles of images.

use std::ops::Range;

use super::{IN, OUT, PLACES, POINTS};
use crate::conv::ConvGeometry;
use crate::conv::gather::inside;
use crate::gemm::f32::{Put, Store, Target};
use crate::simd::{Body, Simd};

/// The tiles of a task.
pub(super) struct Part<'a> {
    pub g: &'a ConvGeometry,
    /// Tiles of an image, down and across.
    pub across: [usize; 2],
    pub tiles: Range<usize>,
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
pub(super) struct Input<'a> {
    pub part: &'a Part<'a>,
    pub x: &'a [f32],
    /// A pixel outside of the image.
    pub outside: &'a [f32],
    pub v: *mut f32,
    /// Elements from one place to the next.
    pub place: usize,
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
pub(super) struct Output<'a> {
    pub part: &'a Part<'a>,
    pub m: &'a [f32],
    /// Elements from one place to the next.
    pub place: usize,
    pub target: &'a Target<'a>,
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
