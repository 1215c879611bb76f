//! Weights packed in blocks of 2, 4 or 8 bits, each with a scale: MatMulNBits, MatMulBnb4,
//! GatherBlockQuantized.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::ops::arith::{expand, floats, from_floats, integers};
use crate::ops::matmul::Product;
use crate::ops::numbers::Numbers;
use crate::ops::{Arity, AttrKind, OpDef, attr, gather, layout};
use crate::{DType, Dim, Error, Node, Result, Shape, Tensor, checked_count};

/// `com.microsoft.MatMulNBits`.
pub static MAT_MUL_N_BITS: OpDef = OpDef {
    name: "MatMulNBits",
    inputs: Arity(3, 6),
    attrs: &[
        attr("K", AttrKind::Int(None)),
        attr("N", AttrKind::Int(None)),
        attr("accuracy_level", AttrKind::Int(Some(0))),
        attr("bits", AttrKind::Int(Some(4))),
        attr("block_size", AttrKind::Int(None)),
        attr("weight_prepacked", AttrKind::Int(Some(0))),
    ],
    infer: |cx| infer_product(cx, true),
    eval: Some(eval_n_bits),
    examples: &[
        "com.microsoft.MatMulNBits(f32[2,16], u8[3,1,8], f32[3]{0.5,1,2}) {K=16,N=3,block_size=16}",
        "com.microsoft.MatMulNBits(f32[2,20], u8[3,2,16], f32[3,2]{0.5,1,2,1,3,1}, u8[3,2]{1,2,3,4,5,6}, \
         _, f32[3]) {K=20,N=3,bits=8,block_size=16}",
    ],
    ..BASE
};

/// `com.microsoft.MatMulBnb4`.
pub static MAT_MUL_BNB4: OpDef = OpDef {
    name: "MatMulBnb4",
    inputs: Arity(3, 3),
    attrs: &[
        attr("K", AttrKind::Int(None)),
        attr("N", AttrKind::Int(None)),
        attr("block_size", AttrKind::Int(None)),
        attr("quant_type", AttrKind::Int(None)),
        attr("training_mode", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(1))),
    ],
    infer: |cx| infer_product(cx, cx.node.int("transB").unwrap_or(1) != 0),
    eval: Some(eval_bnb4),
    examples: &[
        "com.microsoft.MatMulBnb4(f32[2,16], u8[24], f32[3]{0.5,1,2}) \
         {K=16,N=3,block_size=16,quant_type=1}",
        "com.microsoft.MatMulBnb4(f32[2,3], u8[24], f32[3]{0.5,1,2}) \
         {K=16,N=3,block_size=16,quant_type=0,transB=0}",
    ],
    ..BASE
};

/// `com.microsoft.GatherBlockQuantized`.
pub static GATHER_BLOCK_QUANTIZED: OpDef = OpDef {
    name: "GatherBlockQuantized",
    inputs: Arity(3, 4),
    attrs: &[
        attr("bits", AttrKind::Int(Some(4))),
        attr("block_size", AttrKind::Int(Some(128))),
        attr("gather_axis", AttrKind::Int(Some(0))),
        attr("quantize_axis", AttrKind::Int(Some(1))),
    ],
    infer: infer_gather,
    eval: Some(eval_gather),
    examples: &[
        "com.microsoft.GatherBlockQuantized(u4[3,32], i64[2]{2,0}, f32[3,2], u4[3,2]) {block_size=16}",
        "com.microsoft.GatherBlockQuantized(u8[3,16], i32[1,2]{-1,1}, f32[3,2]) {block_size=16}",
        "com.microsoft.GatherBlockQuantized(i4[3,32], i64[4], f32[3,2]) {block_size=16}",
    ],
    ..BASE
};

/// A positive INT attribute.
fn positive(node: &Node, name: &str, default: Option<i64>) -> Result<usize> {
    let Some(value) = node.int(name).or(default) else {
        return Err(Error::invalid(format!("attribute \"{name}\" is missing")));
    };
    usize::try_from(value)
        .ok()
        .filter(|&v| v > 0 && v <= 1 << 40)
        .ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is {value}")))
}

fn bits(node: &Node) -> Result<usize> {
    match positive(node, "bits", Some(4))? {
        b @ (2 | 4 | 8) => Ok(b),
        other => Err(Error::unsupported(format!(
            "weights of {other} bits are not done"
        ))),
    }
}

/// The codes of `bits` bits, the first one in the low bits of a byte.
fn unpacked(bytes: &[u8], bits: usize) -> Vec<u8> {
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    bytes
        .iter()
        .flat_map(|&b| (0..8 / bits).map(move |i| (b >> (i * bits)) & mask))
        .collect()
}

/// Checks the number of elements of an operand.
fn expect_count(what: &str, t: &Tensor, count: usize) -> Result<()> {
    if t.count() == count {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} should have {count} elements, found {}",
        t.ty()
    )))
}

/// Zero points: given by block as floats or packed codes, else the middle of the range.
fn zeros(cx: &EvalCx, rows: usize, blocks: usize, bits: usize) -> Result<Vec<f64>> {
    let Some(t) = cx.optional(3) else {
        return Ok(vec![f64::from(1u32 << (bits - 1)); rows * blocks]);
    };
    if t.dtype().is_float() {
        expect_count("the zero points", t, rows * blocks)?;
        return floats(t);
    }
    let row = (blocks * bits).div_ceil(8);
    expect_count("the zero points", t, rows * row)?;
    let codes = unpacked(&t.data::<u8>()?, bits);
    let per_row = row * 8 / bits;
    Ok(codes
        .chunks(per_row)
        .flat_map(|r| r[..blocks].iter().map(|&c| f64::from(c)))
        .collect())
}

/// The weight of MatMulNBits, `n` rows of `k` numbers.
fn n_bits_weight(cx: &EvalCx, n: usize, k: usize) -> Result<Vec<f64>> {
    let block = positive(cx.node, "block_size", None)?;
    let bits = bits(cx.node)?;
    if !(block * bits).is_multiple_of(8) {
        return Err(Error::invalid(format!("block_size is {block}")));
    }
    let (b, scales) = (cx.input(1)?, cx.input(2)?);
    let blocks = k.div_ceil(block);
    expect_count("the weight", b, n * blocks * (block * bits / 8))?;
    expect_count("the scales", scales, n * blocks)?;
    let (scales, zeros) = (floats(scales)?, zeros(cx, n, blocks, bits)?);
    let codes = unpacked(&b.data::<u8>()?, bits);
    let groups = match cx.optional(4) {
        None => None,
        Some(t) => Some(t.to_i64()?),
    };
    let group = |i: usize| match &groups {
        None => Ok(i / block),
        Some(g) => usize::try_from(g.get(i).copied().unwrap_or(-1))
            .ok()
            .filter(|&g| g < blocks)
            .ok_or_else(|| Error::invalid(format!("g_idx names no block for element {i}"))),
    };
    let group = (0..k).map(group).collect::<Result<Vec<_>>>()?;
    let mut w = Vec::with_capacity(n * k);
    for row in 0..n {
        let codes = &codes[row * blocks * block..];
        w.extend(group.iter().zip(codes).map(|(g, &code)| {
            let at = row * blocks + g;
            (f64::from(code) - zeros[at]) * scales[at]
        }));
    }
    Ok(w)
}

fn eval_n_bits(cx: &EvalCx) -> Result<Vec<Tensor>> {
    if cx.int("weight_prepacked", 0) != 0 {
        return Err(Error::unsupported(
            "weights packed for one kernel are not read",
        ));
    }
    let (n, k) = weight_dims(cx.node)?;
    let w = transposed(&n_bits_weight(cx, n, k)?, n, k);
    let (dims, mut y) = multiplied(cx.input(0)?, &w, [k, n])?;
    if let Some(bias) = cx.optional(5) {
        expect_count("the bias", bias, n)?;
        let bias = expand(&floats(bias)?, &[n], &dims)?;
        y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    Ok(vec![from_floats(cx.input(0)?.dtype(), &dims, y)?])
}

/// Output and input features of a weight.
fn weight_dims(node: &Node) -> Result<(usize, usize)> {
    let (n, k) = (positive(node, "N", None)?, positive(node, "K", None)?);
    checked_count(&[n, k])?;
    Ok((n, k))
}

fn transposed(w: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let at = |i: usize| w[i % rows * columns + i / rows];
    (0..rows * columns).map(at).collect()
}

/// Lengths and elements of `a` times the matrix `w`.
fn multiplied(a: &Tensor, w: &[f64], dims: [usize; 2]) -> Result<(Vec<usize>, Vec<f64>)> {
    let product = Product::of(a.dims(), &dims)?;
    let y = product.multiply(&floats(a)?, w)?;
    Ok((product.dims, y))
}

/// The codes of a 4-bit float of bitsandbytes: a sign, two bits of exponent and one of mantissa,
/// over the largest number 12 (Dettmers et al., "QLoRA", 2023).
static FP4: [f64; 8] = [
    0.0,
    0.062_5 / 12.0,
    8.0 / 12.0,
    1.0,
    4.0 / 12.0,
    6.0 / 12.0,
    2.0 / 12.0,
    3.0 / 12.0,
];

/// The codes of NF4: quantiles of the normal distribution (QLoRA, appendix E).
static NF4: [f64; 16] = [
    -1.0,
    -0.696_192_800_998_687_7,
    -0.525_073_051_452_636_7,
    -0.394_917_488_098_144_53,
    -0.284_441_381_692_886_35,
    -0.184_773_430_228_233_34,
    -0.091_050_036_251_544_95,
    0.0,
    0.079_580_299_556_255_34,
    0.160_930_201_411_247_25,
    0.246_112_301_945_686_34,
    0.337_915_241_718_292_24,
    0.440_709_829_330_444_34,
    0.562_617_003_917_694_1,
    0.722_956_836_223_602_3,
    1.0,
];

/// What the sixteen codes of MatMulBnb4 stand for: NF4 where `normal`, else FP4.
pub fn code_book(normal: bool) -> [f32; 16] {
    std::array::from_fn(|code| bnb4(code as u8, normal) as f32)
}

fn bnb4(code: u8, normal: bool) -> f64 {
    let code = usize::from(code);
    match normal {
        true => NF4[code],
        false if code < 8 => FP4[code],
        false => -FP4[code - 8],
    }
}

fn eval_bnb4(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (n, k) = weight_dims(cx.node)?;
    let block = positive(cx.node, "block_size", None)?;
    let normal = match cx.node.int("quant_type") {
        Some(0) => false,
        Some(1) => true,
        other => {
            return Err(Error::invalid(format!(
                "quant_type {other:?} is neither 0 (FP4) nor 1 (NF4)"
            )));
        }
    };
    let (a, b, largest) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    expect_count("the weight", b, (n * k).div_ceil(2))?;
    expect_count("the largest numbers", largest, (n * k).div_ceil(block))?;
    let (bytes, largest) = (b.data::<u8>()?, floats(largest)?);
    // The first element of a pair is in the high bits.
    let number = |i: usize| {
        let code = bytes[i / 2] >> (4 * (1 - i % 2)) & 0xf;
        bnb4(code, normal) * largest[i / block]
    };
    let w: Vec<f64> = (0..n * k).map(number).collect();
    let (dims, y) = match cx.int("transB", 1) {
        0 => multiplied(a, &w, [n, k])?,
        _ => multiplied(a, &transposed(&w, n, k), [k, n])?,
    };
    Ok(vec![from_floats(a.dtype(), &dims, y)?])
}

/// The first operand's shape with the features of the weight at its end.
fn infer_product(cx: &mut InferCx, to_n: bool) -> Result<()> {
    let (n, k) = weight_dims(cx.node)?;
    let (from, to) = if to_n { (k, n) } else { (n, k) };
    let shape = match cx.shape(0) {
        None => None,
        Some(s) => {
            let last = s.last().and_then(Dim::known);
            if s.rank() == 0 || last.is_some_and(|l| l != from) {
                return Err(Error::invalid(format!(
                    "{s} does not end in the {from} features of the weight"
                )));
            }
            let mut s = s.clone();
            s.0.pop();
            s.0.push(Dim::Known(to));
            Some(s)
        }
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// How the elements of a quantised table lie.
struct Table {
    /// Lengths in elements.
    dims: Vec<usize>,
    gather: usize,
    quantize: usize,
    block: usize,
    /// Bits of a code that bytes hold; `None` where the element type says it.
    packed: Option<usize>,
}

impl Table {
    fn of(node: &Node, dtype: DType, dims: &[usize]) -> Result<Self> {
        let packed = match dtype {
            DType::U8 => Some(bits(node)?),
            _ => None,
        };
        let mut dims = dims.to_vec();
        let gather = infer::axis(node.int("gather_axis").unwrap_or(0), dims.len())?;
        let quantize = infer::axis(node.int("quantize_axis").unwrap_or(1), dims.len())?;
        if let (Some(bits), Some(last)) = (packed, dims.last_mut()) {
            *last = last.saturating_mul(8 / bits);
        }
        let block = match node.int("block_size") {
            Some(0) if dtype.is_float() => dims[quantize].max(1),
            _ => positive(node, "block_size", Some(128))?,
        };
        Ok(Self {
            dims,
            gather,
            quantize,
            block,
            packed,
        })
    }

    fn numbers(&self, t: &Tensor) -> Result<Vec<f64>> {
        match self.packed {
            Some(bits) => Ok(unpacked(&t.data::<u8>()?, bits)
                .into_iter()
                .map(f64::from)
                .collect()),
            None => Ok(Numbers::of(t)?.into_floats()),
        }
    }

    /// Zero points of `blocks` blocks, whose rows are padded to whole bytes.
    fn zeros(&self, zeros: Option<&Tensor>, scales: &[usize]) -> Result<Vec<f64>> {
        let blocks = checked_count(scales)?;
        let Some(zeros) = zeros else {
            let middle = self.packed.map_or(0, |b| 1u32 << (b - 1));
            return Ok(vec![f64::from(middle); blocks]);
        };
        let last = scales.last().copied().unwrap_or(1).max(1);
        let row = match self.packed {
            Some(bits) => (last * bits).div_ceil(8) * 8 / bits,
            None => last,
        };
        let numbers = self.numbers(zeros)?;
        if numbers.len() != blocks / last * row {
            return Err(Error::invalid(format!(
                "zero points {} do not fit scales of {}",
                zeros.ty(),
                Shape::fixed(scales)
            )));
        }
        Ok(numbers
            .chunks(row)
            .flat_map(|r| r[..last].to_vec())
            .collect())
    }

    /// Lengths of the scales: one for each block, or one for all along another axis.
    fn check_scales(&self, scales: &Tensor) -> Result<()> {
        let fits = scales.rank() == self.dims.len()
            && (0..scales.rank()).all(|a| {
                let (found, length) = (scales.dims()[a], self.dims[a]);
                match a == self.quantize {
                    true => found == length.div_ceil(self.block),
                    false => found == length || found == 1,
                }
            });
        if fits {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "scales {} do not fit a table of {} in blocks of {}",
            scales.ty(),
            Shape::fixed(&self.dims),
            self.block
        )))
    }
}

fn eval_gather(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (data, indices, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let table = Table::of(cx.node, data.dtype(), data.dims())?;
    table.check_scales(scales)?;
    let values = table.numbers(data)?;
    let zeros = table.zeros(cx.optional(3), scales.dims())?;
    let factors = floats(scales)?;
    let (outer, inner) = (&table.dims[..table.gather], &table.dims[table.gather + 1..]);
    let dims = [outer, indices.dims(), inner].concat();
    let rows: usize = outer.iter().product();
    let run: usize = inner.iter().product();
    let length = table.dims[table.gather];
    let (own, of_scales) = (layout::strides(&table.dims), layout::strides(scales.dims()));
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    let indices: Vec<i128> = integers(indices)?;
    for row in 0..rows {
        for &index in &indices {
            let place = i64::try_from(index).ok();
            let place = place.and_then(|i| gather::place(i, length).ok());
            let Some(place) = place else {
                y.resize(y.len() + run, 0.0);
                continue;
            };
            for i in 0..run {
                let at = (row * length + place) * run + i;
                let block: usize = (0..table.dims.len())
                    .map(|a| {
                        let k = at / own[a].unsigned_abs() % table.dims[a];
                        let k = if a == table.quantize {
                            k / table.block
                        } else {
                            k
                        };
                        k.min(scales.dims()[a] - 1) * of_scales[a].unsigned_abs()
                    })
                    .sum();
                y.push((values[at] - zeros[block]) * factors[block]);
            }
        }
    }
    Ok(vec![from_floats(scales.dtype(), &dims, y)?])
}

fn infer_gather(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.shape(0), cx.shape(1), cx.dtype(0)) {
        (Some(data), Some(indices), Some(dtype)) => {
            let gather = infer::axis(cx.node.int("gather_axis").unwrap_or(0), data.rank())?;
            let mut dims = data.to_vec();
            if let (DType::U8, Some(last)) = (dtype, dims.last_mut()) {
                let per_byte = 8 / bits(cx.node)?;
                *last = match last {
                    Dim::Known(n) => Dim::Known(n.saturating_mul(per_byte)),
                    _ if per_byte == 1 => last.clone(),
                    _ => Dim::Unknown,
                };
            }
            let dims = [&dims[..gather], indices, &dims[gather + 1..]].concat();
            Some(dims.into_iter().collect::<Shape>())
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(2), shape);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lie_low_bits_first() {
        assert_eq!(unpacked(&[0x21, 0x43], 4), [1, 2, 3, 4]);
        assert_eq!(unpacked(&[0b1110_0100], 2), [0, 1, 2, 3]);
    }

    #[test]
    fn both_code_books_have_a_largest_number_of_one() {
        for normal in [false, true] {
            let largest = (0..16).map(|c| bnb4(c, normal)).fold(0.0, f64::max);
            assert_eq!(largest, 1.0);
        }
        assert_eq!(bnb4(11, false), -1.0);
    }
}
