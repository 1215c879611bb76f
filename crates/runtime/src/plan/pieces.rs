//! Parts of a batch: cut out of the inputs, and put together to the outputs.

use std::ops::Range;

use edgesmith_ir::{Item, Result, Tensor};

/// The samples `range` of each input that has samples along an axis.
pub(super) fn cut(fed: &[Item], axes: &[Option<usize>], range: Range<usize>) -> Result<Vec<Item>> {
    let one = |(item, axis): (&Item, &Option<usize>)| match (item, axis) {
        (Item::Tensor(t), Some(axis)) => Ok(Item::Tensor(slice(t, *axis, range.clone())?)),
        (item, _) => Ok(item.clone()),
    };
    fed.iter().zip(axes).map(one).collect()
}

fn slice(t: &Tensor, axis: usize, range: Range<usize>) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let outer: usize = dims[..axis].iter().product();
    let length = std::mem::replace(&mut dims[axis], range.len());
    let block = t.byte_len() / (outer * length).max(1);
    let bytes = t.bytes();
    let part = |o: usize| (o * length + range.start) * block..(o * length + range.end) * block;
    let data = match outer {
        1 => bytes.slice(part(0)),
        _ => {
            let each = (0..outer).flat_map(|o| &bytes[part(o)]);
            each.copied().collect::<Vec<u8>>().into()
        }
    };
    Tensor::from_bytes(t.dtype(), &dims, data)
}

/// The outputs of all pieces, each joined along its axis; those without samples are the first
/// piece's.
pub(super) fn join(made: Vec<Vec<Item>>, axes: &[Option<usize>]) -> Result<Vec<Item>> {
    let mut joined = Vec::new();
    for (i, axis) in axes.iter().enumerate() {
        let parts = made.iter().map(|outputs| outputs[i].as_tensor());
        let parts: Vec<&Tensor> = parts.collect::<Result<_>>()?;
        let (first, Some(axis)) = (parts[0], *axis) else {
            joined.push(made[0][i].clone());
            continue;
        };
        let mut dims = first.dims().to_vec();
        let outer: usize = dims[..axis].iter().product();
        dims[axis] = parts.iter().map(|t| t.dims()[axis]).sum();
        let mut data = Vec::with_capacity(parts.iter().map(|t| t.byte_len()).sum());
        for o in 0..outer {
            for t in &parts {
                let size = t.byte_len() / outer;
                data.extend_from_slice(&t.bytes()[o * size..(o + 1) * size]);
            }
        }
        joined.push(Item::Tensor(Tensor::from_bytes(
            first.dtype(),
            &dims,
            data.into(),
        )?));
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_axis_join_to_the_whole() {
        let t = Tensor::from_vec(&[2, 3, 2], (0..12i32).collect()).expect("12 elements");
        let whole = vec![Item::Tensor(t)];
        for axis in 0..3 {
            let axes = [Some(axis)];
            let n = [2, 3, 2][axis];
            let parts = (0..n).map(|i| cut(&whole, &axes, i..i + 1));
            let parts: Vec<Vec<Item>> = parts.collect::<Result<_>>().expect("within the axis");
            let joined = join(parts, &axes).expect("of one type");
            assert_eq!(joined[0].as_tensor().ok(), whole[0].as_tensor().ok());
        }
    }
}
