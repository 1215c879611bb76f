//! What tells one way of packing weights from another.

use crate::Ctx;
use crate::arena::Buffer;
use crate::conv::{ConvF32, ConvGeometry, ConvI8};
use crate::gemm::{Blocked, Bytes, Codes, Order, PackedBits, PackedF32, PackedI8};
use crate::recurrent::{self, Cell, Recurrent, Sizes};
use crate::sparse::{Form, SparseF32, SparseI8};

/// A number that is another one where weights are packed in another way, by this program or by
/// another version of it: a hash (FNV-1a, of words) of known weights, packed.
pub fn fingerprint(ctx: &Ctx) -> u64 {
    const FLOATS: usize = 80 * 96;
    let floats: Vec<f32> = (0..FLOATS).map(|i| i as f32).collect();
    let bytes: Vec<i8> = (0..FLOATS).map(|i| (i % 127) as i8).collect();
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for order in [Order::KN, Order::NK] {
        add(
            &mut hash,
            PackedF32::new(ctx, &floats, order, 96, 80).parts(),
        );
        let bytes = Bytes::I8(&bytes);
        let packed = PackedI8::new(ctx, bytes, order, 96, 80, &[]);
        add(&mut hash, packed.parts());
    }
    for form in Form::ALL {
        let floats = &floats[..16 * 24];
        let lists = SparseF32::in_form(ctx, floats, Order::KN, [16, 24], form);
        add(&mut hash, lists.parts());
        let bytes = Bytes::I8(&bytes[..16 * 24]);
        let lists = SparseI8::in_form(ctx, bytes, Order::KN, [16, 24], form);
        add(&mut hash, lists.parts());
    }
    let unsigned: &[u8] = bytemuck::cast_slice(&bytes);
    for (bits, take) in [(2, false), (4, true), (8, true)] {
        let codes = Codes {
            bytes: unsigned,
            bits,
            order: Order::NK,
            stride: 80,
            high_first: false,
            signed: false,
        };
        let weights = Blocked {
            codes,
            block: 32,
            scales: &floats[..3 * 60],
            zeros: &floats[..3 * 60],
            order: Order::NK,
            book: None,
        };
        let packed = PackedBits::new(ctx, &weights, [80, 60], take);
        add(&mut hash, packed.parts());
    }
    for (channels_in, channels_out, groups) in [(6, 40, 1), (6, 40, 2), (40, 40, 40), (16, 40, 1)] {
        let g = ConvGeometry {
            input: [9, 9],
            channels_in,
            channels_out,
            kernel: [3, 3],
            stride: [1, 1],
            pad_begin: [1, 1],
            pad_end: [1, 1],
            dilation: [1, 1],
            groups,
        };
        let count = channels_out * g.depth();
        if let Ok(conv) = ConvF32::prepare(ctx, g, &floats[..count]) {
            add(&mut hash, conv.parts());
        }
        if let Ok(conv) = ConvI8::prepare(ctx, g, Bytes::I8(&bytes[..count]), &[]) {
            add(&mut hash, conv.parts());
        }
    }
    let sizes = Sizes {
        input: 20,
        hidden: 9,
    };
    let gru = Cell::Gru {
        linear_before_reset: true,
    };
    for cell in [Cell::Lstm, gru] {
        let rows = 2 * cell.gates() * sizes.hidden;
        let form = recurrent::Form {
            cell,
            sizes,
            directions: &[false, true],
        };
        let w = &floats[..rows * sizes.input];
        let r = &floats[w.len()..][..rows * sizes.hidden];
        let recurrent = Recurrent::new(ctx, form, (w, r, None));
        add(&mut hash, recurrent.parts());
    }
    hash
}

fn add<'a>(hash: &mut u64, parts: impl IntoIterator<Item = &'a Buffer>) {
    for part in parts {
        let (words, rest) = part.bytes().as_chunks::<8>();
        let words = words.iter().map(|w| u64::from_le_bytes(*w));
        let rest = rest.iter().map(|b| u64::from(*b));
        for word in [part.len() as u64].into_iter().chain(words).chain(rest) {
            *hash = (*hash ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contexts;

    #[test]
    fn it_is_the_same_every_time_and_another_one_for_another_order_of_weights() {
        for ctx in contexts() {
            assert_eq!(fingerprint(&ctx), fingerprint(&ctx));
            let [mut a, mut b] = [0; 2];
            let matrix: Vec<f32> = (0..9).map(|i| i as f32).collect();
            for (hash, order) in [(&mut a, Order::KN), (&mut b, Order::NK)] {
                add(hash, PackedF32::new(&ctx, &matrix, order, 3, 3).parts());
            }
            assert_ne!(a, b);
        }
    }
}
