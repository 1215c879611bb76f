//! MatMulNBits and GatherBlockQuantized of `com.microsoft`.
//!
//! A code of 3 bits takes 4. Rows that are one block are cut into blocks of a power of two, which
//! both operators ask for, with the same scale.

use std::borrow::Cow;

use edgesmith_ir::{Attribute, DType, Error, Node, Result, Tensor, packed};

use super::{Writer, qdq};
use crate::quantize::weight_only::blocks::{Blocks, Zeros};
use crate::quantize::weight_only::method::Rounded;
use crate::quantize::weight_only::sites::{Site, Use};

/// The blocks that ONNX Runtime has kernels for.
const LEAST: usize = 16;
const MOST: usize = 256;

/// Puts the operator that multiplies by the codes in the place of a node.
///
/// # Errors
/// For codes of a table, and tables whose zero points lie between codes.
pub fn write(writer: &mut Writer, site: &Site, rounded: &Rounded) -> Result<()> {
    let Rounded::Blocks(blocks) = rounded else {
        return Err(Error::unsupported("MatMulNBits has no codes of a table"));
    };
    match site.does {
        Use::Product => product(writer, site, blocks),
        Use::Table => table(writer, site, blocks),
        Use::Pointwise => qdq::write(writer, site, rounded),
    }
}

/// Bits that a code takes: 2, 4 or 8.
fn stored_bits(blocks: &Blocks) -> usize {
    blocks.scheme.bits.next_power_of_two()
}

/// A scheme of blocks of a power of two with the same numbers: what there is, or rows of one
/// block cut, with the fewest numbers of padding.
fn powers_of_two(blocks: &Blocks) -> (usize, Cow<'_, Blocks>) {
    let length = blocks.scheme.length(blocks.k);
    let is_fit = length.is_power_of_two() && (LEAST..=MOST).contains(&length);
    if is_fit || blocks.per_row() > 1 {
        return (length, Cow::Borrowed(blocks));
    }
    let divides = (1usize << blocks.k.trailing_zeros()).min(MOST);
    let group = match divides {
        d if d >= 2 * LEAST => d,
        _ => blocks.k.next_power_of_two().min(LEAST * 2),
    };
    let times = blocks.k.div_ceil(group);
    let mut cut = blocks.clone();
    cut.scheme.group = group;
    cut.scales = repeated(&blocks.scales, times);
    cut.zeros = match &blocks.zeros {
        Zeros::Middle => Zeros::Middle,
        Zeros::Codes(z) => Zeros::Codes(repeated(z, times)),
        Zeros::Floats(z) => Zeros::Floats(repeated(z, times)),
    };
    (group, Cow::Owned(cut))
}

fn repeated<T: Copy>(data: &[T], times: usize) -> Vec<T> {
    data.iter()
        .flat_map(|&x| std::iter::repeat_n(x, times))
        .collect()
}

/// Codes of `bits` bits in bytes, the first in the low bits; `fill` where the last byte has room.
fn in_bytes(codes: &[u8], bits: usize, fill: u8) -> Vec<u8> {
    let per_byte = 8 / bits;
    let byte = |part: &[u8]| {
        let all = part
            .iter()
            .copied()
            .chain(std::iter::repeat(fill))
            .take(per_byte);
        all.enumerate()
            .fold(0, |byte, (i, c)| byte | c << (i * bits))
    };
    codes.chunks(per_byte).map(byte).collect()
}

fn product(writer: &mut Writer, site: &Site, blocks: &Blocks) -> Result<()> {
    let (group, blocks) = powers_of_two(blocks);
    let bits = stored_bits(&blocks);
    let constants = writer.constants(site, "nbits", |_| packed_rows(&blocks, group, bits))?;
    let graph = &writer.model.graph;
    let old = graph.node(site.node);
    let bias = old.input(2).filter(|_| old.is("Gemm"));
    let mut inputs = vec![old.input(0)];
    inputs.extend(constants.iter().copied().map(Some));
    if bias.is_some() {
        inputs.resize(5, None);
        inputs.push(bias);
    }
    let int = |x: usize| Attribute::Int(x as i64);
    let node = Node::new("MatMulNBits", "")
        .in_domain("com.microsoft")
        .with("K", int(blocks.k))
        .with("N", int(blocks.n))
        .with("bits", int(bits))
        .with("block_size", int(group));
    writer.replace(site, node, &inputs)
}

/// `B` `[N, blocks, bytes]`, scales `[N, blocks]`, zero points `[N, bytes]` or `[N, blocks]`.
fn packed_rows(blocks: &Blocks, group: usize, bits: usize) -> Result<Vec<(String, Tensor)>> {
    let (n, k, per_row) = (blocks.n, blocks.k, blocks.per_row());
    let middle = 1u8 << (bits - 1);
    // A code of 3 bits is measured from 4, the middle of the 4 bits that it takes is 8.
    let shift = match blocks.zeros {
        Zeros::Middle => middle - blocks.scheme.middle(),
        _ => 0,
    };
    let mut bytes = Vec::with_capacity(n * per_row * group * bits / 8);
    for (row, codes) in blocks.codes.chunks_exact(k).enumerate() {
        for (block, codes) in codes.chunks(group).enumerate() {
            let zero = blocks.grid(row, block).zero.round_ties_even() as u8 + shift;
            let mut codes: Vec<u8> = codes.iter().map(|c| c + shift).collect();
            codes.resize(group, zero);
            bytes.extend(in_bytes(&codes, bits, 0));
        }
    }
    let mut made = vec![
        (
            "q".to_owned(),
            Tensor::from_vec(&[n, per_row, group * bits / 8], bytes)?,
        ),
        (
            "scale".to_owned(),
            Tensor::from_vec(&[n, per_row], blocks.scales.clone())?,
        ),
    ];
    match &blocks.zeros {
        Zeros::Middle => {}
        Zeros::Codes(zeros) => {
            let rows = zeros.chunks_exact(per_row);
            let zeros: Vec<u8> = rows.flat_map(|row| in_bytes(row, bits, 0)).collect();
            let dims = [n, (per_row * bits).div_ceil(8)];
            made.push(("zero".to_owned(), Tensor::from_vec(&dims, zeros)?));
        }
        Zeros::Floats(zeros) => {
            let zeros = Tensor::from_vec(&[n, per_row], zeros.clone())?;
            made.push(("zero".to_owned(), zeros));
        }
    }
    Ok(made)
}

fn table(writer: &mut Writer, site: &Site, blocks: &Blocks) -> Result<()> {
    let (group, blocks) = powers_of_two(blocks);
    if matches!(blocks.zeros, Zeros::Floats(_)) {
        return Err(Error::unsupported("a table has whole zero points only"));
    }
    let bits = stored_bits(&blocks);
    let constants = writer.constants(site, "table", |_| rows_of_table(&blocks, bits))?;
    let old = writer.model.graph.node(site.node);
    let mut inputs = vec![Some(constants[0]), old.input(1)];
    inputs.extend(constants[1..].iter().copied().map(Some));
    let int = |x: usize| Attribute::Int(x as i64);
    let node = Node::new("GatherBlockQuantized", "")
        .in_domain("com.microsoft")
        .with("bits", int(bits))
        .with("block_size", int(group))
        .with("gather_axis", int(0))
        .with("quantize_axis", int(1));
    writer.replace(site, node, &inputs)
}

/// Codes `[V, D]` of 4 bits, or in bytes; scales and zero points `[V, blocks]`.
fn rows_of_table(blocks: &Blocks, bits: usize) -> Result<Vec<(String, Tensor)>> {
    let (n, k, per_row) = (blocks.n, blocks.k, blocks.per_row());
    let middle = i128::from(blocks.scheme.middle());
    let scale = Tensor::from_vec(&[n, per_row], blocks.scales.clone())?;
    let codes = blocks.codes.iter().map(|&c| i128::from(c));
    let of = |dtype, width: usize, codes: &mut dyn Iterator<Item = i128>| {
        packed::encode_integers(dtype, &[n, width], codes)
    };
    let in_rows = |data: &[u8], width: usize| {
        let bytes = data
            .chunks_exact(width)
            .flat_map(|row| in_bytes(row, bits, 0))
            .collect();
        Tensor::from_vec(&[n, (width * bits).div_ceil(8)], bytes)
    };
    let (table, zero) = match (&blocks.zeros, bits) {
        (Zeros::Middle, 4) => (of(DType::I4, k, &mut codes.map(|c| c - middle))?, None),
        (Zeros::Codes(z), 4) => {
            let zeros = &mut z.iter().map(|&z| i128::from(z));
            (
                of(DType::U4, k, &mut codes.into_iter())?,
                Some(of(DType::U4, per_row, zeros)?),
            )
        }
        (Zeros::Codes(z), _) => (in_rows(&blocks.codes, k)?, Some(in_rows(z, per_row)?)),
        _ => (in_rows(&blocks.codes, k)?, None),
    };
    let mut made = vec![("q".to_owned(), table), ("scale".to_owned(), scale)];
    made.extend(zero.map(|z| ("zero".to_owned(), z)));
    Ok(made)
}
