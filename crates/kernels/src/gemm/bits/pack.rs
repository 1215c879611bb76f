//! How codes of a few bits are given, and how they are laid out for products.

use crate::arena::Buffer;
use crate::gemm::{Order, Panels, shape};
use crate::{Ctx, Isa};

/// A matrix of codes, one after another in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Codes<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// How rows lie.
    pub order: Order,
    /// Codes from one row to the next.
    pub stride: usize,
    /// Whether the first code of a byte is in its high bits.
    pub high_first: bool,
    /// Whether codes are signed (two's complement).
    pub signed: bool,
}

impl Codes<'_> {
    /// The code at (k, n); a signed one is moved up by half its range.
    #[inline(always)]
    pub(super) fn at(&self, k: usize, n: usize) -> u32 {
        let i = match self.order {
            Order::KN => k * self.stride + n,
            Order::NK => n * self.stride + k,
        };
        let (byte, shift) = (i * self.bits / 8, i * self.bits % 8);
        let shift = if self.high_first {
            8 - self.bits - shift
        } else {
            shift
        };
        let code = u32::from(self.bytes[byte] >> shift) & ((1 << self.bits) - 1);
        code ^ self.shift()
    }

    /// What signed codes are moved up by: half their range.
    #[inline(always)]
    pub(super) fn shift(&self) -> u32 {
        u32::from(self.signed) << (self.bits - 1)
    }
}

/// A matrix `[K, N]` of weights in blocks along K: `scale (code - zero)`, or `scale book[code]`.
#[derive(Clone, Copy, Debug)]
pub struct Blocked<'a> {
    /// The codes.
    pub codes: Codes<'a>,
    /// Weights along K that share a scale; K or more where a column has one.
    pub block: usize,
    /// A scale for each block, `[blocks, N]` or `[N, blocks]` as `order` says.
    pub scales: &'a [f32],
    /// Zero points: one for all, or laid out like the scales.
    pub zeros: &'a [f32],
    /// How scales and zero points lie.
    pub order: Order,
    /// What codes of 4 bits stand for, where they are no integers; zero points are then 0.
    pub book: Option<&'a [f32; 16]>,
}

/// A matrix of codes laid out for the micro-kernel of one instruction set, in panels of two
/// vectors of columns. A lane holds 32 bits of one column: code `4 i + b` of them at bit
/// `8 b + bits i`, so that four neighbours along K are a mask away from being bytes.
#[derive(Clone, Debug)]
pub struct PackedBits {
    pub(super) k: usize,
    pub(super) bits: usize,
    /// Weights along K in a block.
    pub(super) block: usize,
    pub(super) blocks: usize,
    /// Groups of a block, and of the last one.
    groups: [usize; 2],
    pub(super) panels: Panels,
    pub(super) isa: Isa,
    /// Products take rows of bytes.
    pub(super) bytes: bool,
    /// What codes stand for, less `middle`; the first numbers again where there are fewer.
    pub(super) table: [f32; 16],
    pub(super) is_book: bool,
    /// The zero point of all, or the one that others are given from.
    pub(super) middle: i32,
    pub(super) codes: Buffer,
    pub(super) scales: Buffer,
    pub(super) zeros: Zeros,
}

/// Zero points that differ.
#[derive(Clone, Debug)]
pub(super) enum Zeros {
    /// All are `middle`.
    Same,
    /// Bytes.
    Codes(Buffer),
    /// Floats.
    Floats(Buffer),
}

impl PackedBits {
    /// Packs a matrix of `k` rows and `n` columns. With `bytes`, products round rows of A to
    /// signed bytes by block where the instruction set multiplies them.
    pub fn new(ctx: &Ctx, b: &Blocked, [k, n]: [usize; 2], bytes: bool) -> Self {
        let bits = b.codes.bits;
        assert!(matches!(bits, 2 | 4 | 8), "codes have 2, 4 or 8 bits");
        let block = b.block.clamp(1, k.max(1));
        let blocks = k.div_ceil(block);
        let (isa, bytes) = match b.book {
            Some(_) => (ctx.isa(), false),
            None => isa_for(ctx.isa(), bits, bytes && block <= MOST),
        };
        let lanes = shape(isa).0;
        let panels = Panels { n, lanes };
        assert_eq!(b.scales.len(), blocks * n, "a scale for each block");
        assert!(
            b.zeros.len() == 1 || b.zeros.len() == blocks * n,
            "one zero point, or one for each block"
        );
        let shift = b.codes.shift() as i32;
        let kind = Kind::of(b.zeros, shift);
        let middle = match kind {
            Kind::Same(zero) => zero,
            _ => 1 << (bits - 1),
        };
        let mut packed = Self {
            k,
            bits,
            block,
            blocks,
            groups: [block, k - blocks.saturating_sub(1) * block].map(|n| n.div_ceil(32 / bits)),
            panels,
            isa,
            bytes,
            table: table(bits, middle, b.book),
            is_book: b.book.is_some(),
            middle: if b.book.is_some() { 0 } else { middle },
            codes: Buffer::default(),
            scales: Buffer::default(),
            zeros: Zeros::Same,
        };
        let columns = panels.count() * 2 * lanes;
        let sizes = [packed.groups() * columns * 4, blocks * columns * 4];
        let place = |c: usize, block: usize| match b.order {
            Order::NK => c * blocks + block,
            Order::KN => block * n + c,
        };
        let zero = |c: usize, block: usize| {
            let zero = match b.zeros {
                [zero] => zero,
                zeros => &zeros[place(c, block)],
            };
            zero + shift as f32
        };
        match kind {
            Kind::Same(_) => {
                let stored = ctx.stored(sizes);
                let [codes, scales] = stored.unwrap_or_else(|| packed.lay(b, sizes, &place));
                (packed.codes, packed.scales) = (codes, scales);
            }
            Kind::Codes | Kind::Floats => {
                let size = if kind == Kind::Codes { 1 } else { 4 };
                let stored = ctx.stored([sizes[0], sizes[1], blocks * columns * size]);
                let [codes, scales, zeros] = stored.unwrap_or_else(|| {
                    let [codes, scales] = packed.lay(b, sizes, &place);
                    let mut zeros = Buffer::zeroed(blocks * columns * size);
                    for (c, block, at) in packed.places() {
                        match kind {
                            Kind::Codes => zeros.bytes_mut()[at] = zero(c, block) as u8,
                            _ => zeros.typed_mut::<f32>()[at] = zero(c, block),
                        }
                    }
                    [codes, scales, zeros]
                });
                (packed.codes, packed.scales) = (codes, scales);
                packed.zeros = match kind {
                    Kind::Codes => Zeros::Codes(zeros),
                    _ => Zeros::Floats(zeros),
                };
            }
        }
        packed
    }

    /// Codes and scales as they are laid out.
    fn lay(
        &self,
        b: &Blocked,
        sizes: [usize; 2],
        place: &dyn Fn(usize, usize) -> usize,
    ) -> [Buffer; 2] {
        let [mut codes, mut scales] = sizes.map(Buffer::zeroed);
        let (width, group) = (2 * self.panels.lanes, self.group());
        let (rows, columns) = match b.codes.order {
            Order::KN => (self.k, self.panels.n),
            Order::NK => (self.panels.n, self.k),
        };
        let given = b.codes.bytes.len() * 8 / self.bits;
        assert!(
            crate::gemm::f32::fits(rows, columns, b.codes.stride, given),
            "the codes of K rows and N columns"
        );
        let words = codes.typed_mut::<u32>();
        for (p, words) in words
            .chunks_exact_mut((self.groups() * width).max(1))
            .enumerate()
        {
            let (first, columns, _) = self.panels.panel(p);
            let mut at = 0;
            for block in 0..self.blocks {
                let (start, len) = self.extent(block);
                for from in (0..len).step_by(group) {
                    let here = start + from..start + len.min(from + group);
                    for c in 0..columns {
                        let mut word = 0;
                        for (i, k) in here.clone().enumerate() {
                            let code = b.codes.at(k, first + c);
                            word |= code << (i % 4 * 8 + i / 4 * self.bits);
                        }
                        words[at + c] = word;
                    }
                    at += width;
                }
            }
        }
        let to = scales.typed_mut::<f32>();
        for (c, block, at) in self.places() {
            to[at] = b.scales[place(c, block)];
        }
        [codes, scales]
    }

    /// Column, block and place of each scale.
    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (width, blocks) = (2 * self.panels.lanes, self.blocks);
        (0..self.panels.n).flat_map(move |c| {
            let of_panel = c / width * blocks * width + c % width;
            (0..blocks).map(move |block| (c, block, of_panel + block * width))
        })
    }

    /// Codes along K in 32 bits.
    pub(super) fn group(&self) -> usize {
        32 / self.bits
    }

    /// The first weight of a block along K, and how many there are.
    pub(super) fn extent(&self, block: usize) -> (usize, usize) {
        let start = block * self.block;
        (start, self.block.min(self.k - start))
    }

    /// Groups that block `block` takes.
    #[inline(always)]
    pub(super) fn groups_of(&self, block: usize) -> usize {
        self.groups[usize::from(block + 1 == self.blocks)]
    }

    /// Groups of a column.
    pub(super) fn groups(&self) -> usize {
        self.blocks.saturating_sub(1) * self.groups[0] + self.groups[1]
    }

    /// Elements of a row of A whose blocks are whole groups.
    pub(super) fn row(&self) -> usize {
        self.groups() * self.group()
    }

    /// Whether a row of A is read as it is: all blocks are whole groups.
    pub(super) fn reads_as_is(&self) -> bool {
        self.row() == self.k
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        let zeros = match &self.zeros {
            Zeros::Same => None,
            Zeros::Codes(z) | Zeros::Floats(z) => Some(z),
        };
        [&self.codes, &self.scales].into_iter().chain(zeros)
    }

    /// Rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// Size of the packed matrix.
    pub fn bytes(&self) -> usize {
        self.parts().map(Buffer::len).sum()
    }
}

/// How zero points are kept.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Same(i32),
    Codes,
    Floats,
}

impl Kind {
    /// That of `zeros`, to which `shift` is added.
    fn of(zeros: &[f32], shift: i32) -> Self {
        let shifted = |z: f32| z + shift as f32;
        let whole = |z: &f32| {
            let z = shifted(*z);
            (0.0..=255.0).contains(&z) && z.fract() == 0.0
        };
        match zeros {
            [first, rest @ ..] if whole(first) && rest.iter().all(|z| z == first) => {
                Self::Same(shifted(*first) as i32)
            }
            _ if zeros.len() > 1 && zeros.iter().all(whole) => Self::Codes,
            _ => Self::Floats,
        }
    }
}

fn table(bits: usize, middle: i32, book: Option<&[f32; 16]>) -> [f32; 16] {
    match book {
        Some(book) => *book,
        None => std::array::from_fn(|i| (i & ((1 << bits) - 1)) as f32 - middle as f32),
    }
}

/// Products of so many bytes fit a sum of 32 bits.
const MOST: usize = 1 << 15;

/// The instruction set that codes are laid out for, and whether products take bytes.
fn isa_for(isa: Isa, bits: usize, bytes: bool) -> (Isa, bool) {
    match isa {
        Isa::Amx | Isa::Avx512Vnni | Isa::AvxVnni | Isa::NeonI8mm => (isa, bytes),
        // Pairs of products of codes of 4 bits do not saturate, and those codes are signed bytes.
        Isa::Avx2 | Isa::NeonDot => (isa, bytes && bits < 8),
        Isa::Avx512 if bytes && bits < 8 => (Isa::Avx2, true),
        _ => (isa, false),
    }
}
