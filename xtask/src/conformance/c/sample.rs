//! The first sample of a case that has several: code is made for one.

use edgesmith_ir::{Item, Model, Result, Tensor, ValueId};

use super::{DataSet, cases};

/// Where samples lie in inputs and outputs, by operator.
struct Batched {
    op: &'static str,
    inputs: &'static [Option<usize>],
    outputs: &'static [Option<usize>],
}

const fn images(op: &'static str) -> Batched {
    Batched {
        op,
        inputs: &[Some(0)],
        outputs: &[Some(0)],
    }
}

static BATCHED: &[Batched] = &[
    images("AveragePool"),
    images("Conv"),
    images("ConvTranspose"),
    images("MaxPool"),
    Batched {
        op: "GRU",
        inputs: &[Some(1), None, None, None, Some(0), Some(1)],
        outputs: &[Some(2), Some(1)],
    },
    Batched {
        op: "LSTM",
        inputs: &[Some(1), None, None, None, Some(0), Some(1), Some(1)],
        outputs: &[Some(2), Some(1), Some(1)],
    },
];

/// The first sample of a model's only operator; `None` where it is not known where samples lie.
///
/// # Errors
/// When a tensor cannot be cut.
pub fn first(model: &Model, ops: &[String], set: &DataSet) -> Result<Option<DataSet>> {
    let [op] = ops else { return Ok(None) };
    let Some(batched) = BATCHED.iter().find(|b| b.op == op) else {
        return Ok(None);
    };
    let graph = &model.graph;
    // Optional inputs and outputs of the node may be left out.
    let read = |v: &ValueId| graph.value(*v).consumers().first().map(|c| c.1);
    let made = |v: &ValueId| graph.value(*v).producer().map(|p| p.1);
    let axis = |axes: &[Option<usize>], at: Option<usize>| axes.get(at?).copied().flatten();
    let cut = |(item, axis): (&Item, Option<usize>)| match (item, axis) {
        (Item::Tensor(t), Some(axis)) => Ok(Item::Tensor(slice(t, axis)?)),
        _ => Ok(item.clone()),
    };
    let inputs = cases::inputs(model);
    let inputs = inputs.iter().map(|v| axis(batched.inputs, read(v)));
    let outputs = graph.outputs.iter().map(|v| axis(batched.outputs, made(v)));
    Ok(Some(DataSet {
        inputs: set
            .inputs
            .iter()
            .zip(inputs)
            .map(cut)
            .collect::<Result<_>>()?,
        outputs: set
            .outputs
            .iter()
            .zip(outputs)
            .map(cut)
            .collect::<Result<_>>()?,
    }))
}

/// The first slice along an axis.
fn slice(t: &Tensor, axis: usize) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let Some(&length) = dims.get(axis).filter(|&&n| n > 1) else {
        return Ok(t.clone());
    };
    let outer: usize = dims[..axis].iter().product();
    let size = t.byte_len() / outer;
    dims[axis] = 1;
    let each = t
        .bytes()
        .chunks(size)
        .flat_map(|part| &part[..size / length]);
    Tensor::from_bytes(t.dtype(), &dims, each.copied().collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_slice_is_cut_along_its_axis() {
        let t = Tensor::from_vec(&[2, 2, 1], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(&*slice(&t, 1).unwrap().data::<f32>().unwrap(), &[1.0, 3.0]);
        assert_eq!(&*slice(&t, 0).unwrap().data::<f32>().unwrap(), &[1.0, 2.0]);
        assert_eq!(slice(&t, 2).unwrap(), t);
    }
}
