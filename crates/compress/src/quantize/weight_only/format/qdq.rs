//! DequantizeLinear before the operator: by blocks, or by channel where a row is one block.

use edgesmith_ir::{Attribute, DType, Error, Node, Result, Tensor, packed};

use super::Writer;
use crate::quantize::weight_only::blocks::{Blocks, Zeros};
use crate::quantize::weight_only::matrix::{Lies, turned};
use crate::quantize::weight_only::method::Rounded;
use crate::quantize::weight_only::sites::Site;

/// Lets the node of a site read its weight dequantised.
///
/// # Errors
/// For codes of a table, zero points between codes, and codes of 2 bits.
pub fn write(writer: &mut Writer, site: &Site, rounded: &Rounded) -> Result<()> {
    let Rounded::Blocks(blocks) = rounded else {
        return Err(Error::unsupported(
            "DequantizeLinear has no codes of a table",
        ));
    };
    let rank = writer
        .model
        .graph
        .constant(site.weight)
        .map_or(2, Tensor::rank);
    let values = writer.constants(site, "qdq", |_| constants(rank, site.lies, blocks))?;
    let name = writer.model.graph.value(site.weight).name.clone();
    let mut node = Node::new("DequantizeLinear", &format!("{name}_dq"));
    let inputs_axis = i64::from(site.lies == Lies::OutputsFirst);
    if blocks.per_row() > 1 {
        node.set("axis", Attribute::Int(inputs_axis));
        node.set(
            "block_size",
            Attribute::Int(blocks.scheme.length(blocks.k) as i64),
        );
    } else {
        node.set("axis", Attribute::Int(1 - inputs_axis));
    }
    let key = (site.weight, site.lies, "dequantized");
    let dequantized = match writer.written.get(&key) {
        Some(values) => values[0],
        None => {
            let v = writer
                .model
                .graph
                .add_op(node, &values, &format!("{name}_dq"));
            writer.written.insert(key, vec![v]);
            v
        }
    };
    writer
        .model
        .graph
        .set_input(site.node, site.input, Some(dequantized));
    Ok(())
}

/// Codes, scales and zero points, in the axes of the weight.
fn constants(rank: usize, lies: Lies, blocks: &Blocks) -> Result<Vec<(String, Tensor)>> {
    let (n, k, per_row) = (blocks.n, blocks.k, blocks.per_row());
    let scheme = blocks.scheme;
    let dims = |rows: usize, columns: usize| {
        let mut dims = match lies {
            Lies::InputsFirst => vec![columns, rows],
            Lies::OutputsFirst => vec![rows, columns],
        };
        dims.resize(rank, 1);
        dims
    };
    let of_scales = match per_row {
        1 => vec![n],
        _ => dims(n, per_row),
    };
    let middle = i16::from(scheme.middle());
    let (dtype, from) = match (scheme.bits, &blocks.zeros) {
        (3 | 4, Zeros::Middle) => (DType::I4, middle),
        (3 | 4, Zeros::Codes(_)) => (DType::U4, 0),
        (8, Zeros::Middle) => (DType::I8, middle),
        (8, Zeros::Codes(_)) => (DType::U8, 0),
        (_, Zeros::Floats(_)) => {
            return Err(
                Error::unsupported("DequantizeLinear has whole zero points only")
                    .hint("write --format matmulnbits"),
            );
        }
        (bits, _) => {
            return Err(
                Error::unsupported(format!("{bits} bits have no type before opset 25"))
                    .hint("write --format matmulnbits"),
            );
        }
    };
    let laid = |data: &[u8], columns: usize| match lies {
        Lies::InputsFirst => turned(data, n, columns),
        Lies::OutputsFirst => data.to_vec(),
    };
    let integers = |dims: &[usize], data: Vec<u8>| {
        let values = data.into_iter().map(|c| i128::from(i16::from(c) - from));
        match dtype {
            DType::I8 => Tensor::from_vec(dims, values.map(|x| x as i8).collect()),
            DType::U8 => Tensor::from_vec(dims, values.map(|x| x as u8).collect()),
            _ => packed::encode_integers(dtype, dims, values),
        }
    };
    let scales = match lies {
        Lies::InputsFirst => turned(&blocks.scales, n, per_row),
        Lies::OutputsFirst => blocks.scales.clone(),
    };
    let mut made = vec![
        (
            "q".to_owned(),
            integers(&dims(n, k), laid(&blocks.codes, k))?,
        ),
        ("scale".to_owned(), Tensor::from_vec(&of_scales, scales)?),
    ];
    if let Zeros::Codes(zeros) = &blocks.zeros {
        let zeros = integers(&of_scales, laid(zeros, per_row))?;
        made.push(("zero".to_owned(), zeros));
    }
    Ok(made)
}
