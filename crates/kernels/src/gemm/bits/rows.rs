//! Rows of a table of codes as floats, for embeddings.

use super::pack::{Blocked, Codes};
use crate::Ctx;
use crate::arena::with_scratch;
use crate::gemm::Order;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Rows that are worth a task of their own.
const GRAIN: usize = 16;

/// The rows at `places` of a table of `n` rows of `k` weights, one after another in `y`; zeros
/// where there is no place. Rows of codes, and of scales, lie as [`Order::NK`] says.
///
/// # Panics
/// When a place is `n` or more.
pub fn take_rows(
    ctx: &Ctx,
    table: &Blocked,
    [n, k]: [usize; 2],
    places: &[Option<usize>],
    y: &mut [f32],
) {
    let blocks = k.div_ceil(table.block.max(1));
    assert_eq!(y.len(), places.len() * k, "output size");
    assert_eq!(
        (table.codes.order, table.order, table.scales.len()),
        (Order::NK, Order::NK, n * blocks),
        "rows of codes and of scales"
    );
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(places.len(), GRAIN, |range| {
        with_scratch::<u8, _>(k, |codes| {
            for i in range {
                // SAFETY: every row belongs to one task.
                let y = unsafe { shared.slice(i * k..(i + 1) * k) };
                let Some(row) = places[i] else {
                    y.fill(0.0);
                    continue;
                };
                assert!(row < n, "places lie in the table");
                let of_row = Row {
                    table,
                    row,
                    blocks,
                    codes,
                    y,
                };
                dispatch(ctx.isa(), of_row);
            }
        });
    });
}

struct Row<'a> {
    table: &'a Blocked<'a>,
    row: usize,
    blocks: usize,
    codes: &'a mut [u8],
    y: &'a mut [f32],
}

impl Body for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let t = self.table;
        unpack(&t.codes, self.row, self.codes);
        let shift = t.codes.shift() as f32;
        for block in 0..self.blocks {
            let (start, at) = (block * t.block, self.row * self.blocks + block);
            let end = self.y.len().min(start + t.block);
            let (y, codes) = (&mut self.y[start..end], &self.codes[start..end]);
            let scale = t.scales[at];
            let zero = t.zeros[if t.zeros.len() == 1 { 0 } else { at }] + shift;
            for (y, &code) in y.iter_mut().zip(codes) {
                *y = (f32::from(code) - zero) * scale;
            }
        }
    }
}

/// The codes of a row, signed ones moved up by half their range.
#[inline(always)]
fn unpack(codes: &Codes, row: usize, to: &mut [u8]) {
    let (per_byte, start) = (8 / codes.bits, row * codes.stride);
    if codes.high_first || !start.is_multiple_of(per_byte) || !to.len().is_multiple_of(per_byte) {
        for (k, to) in to.iter_mut().enumerate() {
            *to = codes.at(k, row) as u8;
        }
        return;
    }
    let bytes = &codes.bytes[start / per_byte..][..to.len() / per_byte];
    match codes.bits {
        2 => unpack_bytes::<4>(bytes, to, codes.shift() as u8),
        4 => unpack_bytes::<2>(bytes, to, codes.shift() as u8),
        _ => unpack_bytes::<1>(bytes, to, codes.shift() as u8),
    }
}

/// The `N` codes of each byte, the first one in its low bits, with `flip` changed.
#[inline(always)]
fn unpack_bytes<const N: usize>(bytes: &[u8], to: &mut [u8], flip: u8) {
    let mask = (0xff_u16 >> (8 - 8 / N)) as u8;
    for (&byte, to) in bytes.iter().zip(to.as_chunks_mut::<N>().0) {
        for i in 0..N {
            to[i] = ((byte >> (i * 8 / N)) & mask) ^ flip;
        }
    }
}
