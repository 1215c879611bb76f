//! MatMulBnb4 of `com.microsoft`: NF4 codes over the largest magnitude of each block.
//!
//! Where those magnitudes are codes themselves, nodes before the product decode them.

use edgesmith_ir::{Attribute, Error, Node, Result, Tensor, ValueId};

use super::Writer;
use crate::quantize::weight_only::method::Rounded;
use crate::quantize::weight_only::nf4::{self, NESTED, Nested, Nf4};
use crate::quantize::weight_only::sites::{Site, Use};

/// Puts MatMulBnb4 in the place of a product.
///
/// # Errors
/// For codes at even distances, and for anything but products.
pub fn write(writer: &mut Writer, site: &Site, rounded: &Rounded) -> Result<()> {
    let Rounded::Nf4(weight) = rounded else {
        return Err(Error::unsupported("MatMulBnb4 has codes of a table only"));
    };
    if site.does != Use::Product {
        return Err(Error::unsupported(
            "NF4 has no form for tables and convolutions",
        ));
    }
    let codes = writer.constants(site, "nf4", |_| {
        let byte = |pair: &[u8]| pair[0] << 4 | pair.get(1).copied().unwrap_or(0);
        let bytes: Vec<u8> = weight.codes.chunks(2).map(byte).collect();
        Ok(vec![("q".to_owned(), Tensor::vector(bytes))])
    })?;
    let largest = magnitudes(writer, site, weight)?;
    let graph = &writer.model.graph;
    let old = graph.node(site.node);
    let (a, bias) = (old.input(0), old.input(2).filter(|_| old.is("Gemm")));
    let int = |x: usize| Attribute::Int(x as i64);
    let product = format!("{}_product", old.name);
    let node = Node::new("MatMulBnb4", &product)
        .in_domain("com.microsoft")
        .with("K", int(weight.k))
        .with("N", int(weight.n))
        .with("block_size", int(weight.block))
        .with("quant_type", int(1));
    let inputs = [a, Some(codes[0]), Some(largest)];
    match bias {
        None => writer.replace(site, node, &inputs),
        Some(bias) => {
            let graph = &mut writer.model.graph;
            let sum = graph.fresh_name(&product);
            let sum = graph.add_value(&sum, None);
            graph.add_node(node, &inputs, &[Some(sum)]);
            writer.replace(site, Node::new("Add", ""), &[Some(sum), Some(bias)])
        }
    }
}

/// The largest magnitudes of the blocks, as a constant or decoded.
fn magnitudes(writer: &mut Writer, site: &Site, weight: &Nf4) -> Result<ValueId> {
    let Some(nested) = &weight.nested else {
        let make = |_: &str| {
            Ok(vec![(
                "absmax".to_owned(),
                Tensor::vector(weight.largest.clone()),
            )])
        };
        return Ok(writer.constants(site, "absmax", make)?[0]);
    };
    let key = (site.weight, site.lies, "decoded absmax");
    if let Some(values) = writer.written.get(&key) {
        return Ok(values[0]);
    }
    let constants = writer.constants(site, "nested", |_| nested_constants(nested))?;
    let map = match writer.model.graph.find_value("nf4_map") {
        Some(map) => map,
        None => writer.add("nf4_map", Tensor::vector(nf4::dynamic_map())),
    };
    let shape = writer.add("nf4_flat", Tensor::vector(vec![-1i64]));
    let name = writer.model.graph.value(site.weight).name.clone();
    let graph = &mut writer.model.graph;
    let mut op = |op: &str, inputs: &[ValueId]| {
        let name = format!("{name}_absmax_{}", op.to_lowercase());
        graph.add_op(cast_to_i32(Node::new(op, &name)), inputs, &name)
    };
    let indices = op("Cast", &[constants[0]]);
    let mapped = op("Gather", &[map, indices]);
    let scaled = op("Mul", &[mapped, constants[1]]);
    let moved = op("Add", &[scaled, constants[2]]);
    let mut flat = op("Reshape", &[moved, shape]);
    if nested.codes.len() % NESTED != 0 {
        let zero = writer.add("nf4_first", Tensor::vector(vec![0i64]));
        let end = writer.add("nf4_count", Tensor::vector(vec![nested.codes.len() as i64]));
        let name = format!("{name}_absmax_slice");
        let slice = Node::new("Slice", &name);
        flat = writer.model.graph.add_op(slice, &[flat, zero, end], &name);
    }
    writer.written.insert(key, vec![flat]);
    Ok(flat)
}

fn cast_to_i32(node: Node) -> Node {
    const I32: i64 = 6;
    match node.is("Cast") {
        true => node.with("to", Attribute::Int(I32)),
        false => node,
    }
}

/// Codes `[rows, 256]`, a scale for each row, and the offset.
fn nested_constants(nested: &Nested) -> Result<Vec<(String, Tensor)>> {
    let rows = nested.scales.len();
    let width = NESTED.min(nested.codes.len());
    let mut codes = nested.codes.clone();
    codes.resize(rows * width, 0);
    Ok(vec![
        (
            "absmax_q".to_owned(),
            Tensor::from_vec(&[rows, width], codes)?,
        ),
        (
            "absmax_scale".to_owned(),
            Tensor::from_vec(&[rows, 1], nested.scales.clone())?,
        ),
        ("absmax_offset".to_owned(), Tensor::scalar(nested.offset)),
    ])
}
