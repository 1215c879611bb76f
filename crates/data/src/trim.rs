//! Texts of a batch end where the longest of them does.

use edgesmith_ir::types::Dim;
use edgesmith_ir::{Model, Result, Tensor, infer};

use crate::fit::Fit;
use crate::source::Sample;

/// The input that says which places of a text have a word.
const MASK: &str = "attention_mask";
/// Batches have lengths that are multiples of this, so that there are few.
const STEP: usize = 8;

/// The inputs of a model that have a number for each word, where the model takes any count of words.
#[derive(Debug, Clone)]
pub struct Trim {
    /// Places in the list of inputs.
    inputs: Vec<usize>,
    mask: usize,
}

impl Trim {
    /// `None` where the graph has no mask, fixes the count of words, or gives something for each word.
    pub fn of(model: &Model, fits: &[Fit]) -> Option<Self> {
        let graph = &model.graph;
        let shape = |name: &str| {
            graph
                .value(graph.find_value(name)?)
                .tensor_type()?
                .shape
                .clone()
        };
        let mask = fits.iter().position(|f| f.name == MASK)?;
        let words = match &shape(MASK)?.0[..] {
            [_, words @ Dim::Symbol(_)] => words.clone(),
            _ => return None,
        };
        let inferred = infer::infer(model, &[]).ok()?;
        for &output in &graph.outputs {
            let shape = inferred.tensor(output)?.shape.as_ref()?;
            if shape.iter().any(|d| *d == words || *d == Dim::Unknown) {
                return None;
            }
        }
        let mut inputs = Vec::new();
        for (i, fit) in fits.iter().enumerate() {
            let shape = shape(&fit.name)?;
            if shape.contains(&words) {
                let is_row = shape.rank() == 2 && shape.0[1] == words && fit.axis == Some(0);
                is_row.then(|| inputs.push(i))?;
            }
        }
        Some(Self { inputs, mask })
    }

    /// The words of a sample.
    ///
    /// # Errors
    /// When its mask is not of numbers.
    pub fn length(&self, fits: &[Fit], sample: &Sample) -> Result<usize> {
        let mask = sample.tensors.get(fits[self.mask].field);
        mask.map_or(Ok(0), |t| Ok(end(&t.to_f32()?)))
    }

    /// Cuts the tensors of a batch, in the order of the inputs, behind their longest text.
    ///
    /// # Errors
    /// When they are not as the model says.
    pub fn cut(&self, inputs: &mut [(String, Tensor)]) -> Result<()> {
        let mask = &inputs[self.mask].1;
        let &[_, words] = mask.dims() else {
            return Ok(());
        };
        let numbers = mask.to_f32()?;
        let longest = numbers.chunks(words.max(1)).map(end).max().unwrap_or(0);
        let kept = longest.max(1).next_multiple_of(STEP);
        let all = |i: &usize| matches!(inputs[*i].1.dims(), &[_, w] if w == words);
        if kept >= words || !self.inputs.iter().all(all) {
            return Ok(());
        }
        for &i in &self.inputs {
            let t = &mut inputs[i].1;
            *t = columns(t, kept)?;
        }
        Ok(())
    }
}

/// Behind the last number that is not 0.
fn end(mask: &[f32]) -> usize {
    mask.iter().rposition(|x| *x != 0.0).map_or(0, |i| i + 1)
}

/// The first `kept` columns of a matrix.
fn columns(t: &Tensor, kept: usize) -> Result<Tensor> {
    let (rows, words) = (t.dims()[0], t.dims()[1]);
    let row = t.byte_len() / rows.max(1);
    let part = row / words.max(1) * kept;
    let mut data = Vec::with_capacity(rows * part);
    for r in t.bytes().chunks(row.max(1)) {
        data.extend_from_slice(&r[..part]);
    }
    Tensor::from_bytes(t.dtype(), &[rows, kept], data.into()).map(|t| t.detached())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use edgesmith_ir::types::{Shape, TensorType};
    use edgesmith_ir::{DType, Graph};

    use super::*;
    use crate::source::{Field, Holds, Source, Target};
    use crate::{Loader, Preparation};

    /// Texts of 20 places, the first `index + 1` of which have words.
    struct Texts([Field; 2]);

    impl Source for Texts {
        fn path(&self) -> &Path {
            Path::new("texts")
        }

        fn len(&self) -> usize {
            20
        }

        fn fields(&self) -> &[Field] {
            &self.0
        }

        fn read(&self, index: usize) -> Result<Sample> {
            let words: Vec<i64> = (0..20).map(|i| i64::from(i <= index)).collect();
            let mask = Tensor::from_vec(&[20], words.clone())?;
            let ids = words
                .iter()
                .enumerate()
                .map(|(i, w)| w * i as i64)
                .collect();
            Ok(Sample {
                tensors: vec![Tensor::from_vec(&[20], ids)?, mask],
                target: Target::Unknown,
            })
        }
    }

    fn loader(words: Dim, output: Dim) -> Loader {
        let field = |name: &str| Field {
            name: name.into(),
            dtype: DType::I64,
            dims: vec![20],
            holds: Holds::Own,
        };
        let mut g = Graph::new("g");
        for name in ["input_ids", MASK] {
            let shape: Shape = [Dim::symbol("n"), words.clone()].into_iter().collect();
            g.add_input(name, TensorType::new(DType::I64, shape));
        }
        let shape: Shape = [Dim::symbol("n"), output].into_iter().collect();
        let output = g.add_value("y", Some(TensorType::new(DType::F32, shape).into()));
        g.outputs.push(output);
        let source = Texts(["input_ids", MASK].map(field));
        Loader::new(Arc::new(source), &Model::new(g, 17), Preparation::default()).unwrap()
    }

    fn dims(loader: &Loader, indices: &[usize]) -> Vec<usize> {
        let feed = loader.feed(indices, None).unwrap();
        assert_eq!(feed.inputs[0].1.dims(), feed.inputs[1].1.dims());
        feed.inputs[0].1.dims().to_vec()
    }

    #[test]
    fn a_batch_of_texts_ends_where_its_longest_does() {
        let loader = loader(Dim::symbol("words"), Dim::Known(2));
        assert_eq!(dims(&loader, &[0, 3]), [2, 8]);
        assert_eq!(dims(&loader, &[8, 1, 2]), [3, 16]);
        assert_eq!(dims(&loader, &[0, 16]), [2, 20]);
        assert_eq!(loader.lengths().unwrap().unwrap()[..3], [1, 2, 3]);
        let ids = loader.feed(&[0, 3], None).unwrap().inputs.remove(0).1;
        let expected = [[0i64; 8], [0, 1, 2, 3, 0, 0, 0, 0]].concat();
        assert_eq!(ids, Tensor::from_vec(&[2, 8], expected).unwrap());
    }

    #[test]
    fn texts_stay_whole_where_the_model_has_a_length_or_answers_for_each_word() {
        let whole = |words: Dim, output| {
            let loader = loader(words, output);
            assert_eq!(dims(&loader, &[0, 3]), [2, 20]);
            assert_eq!(loader.lengths().unwrap(), None);
        };
        whole(Dim::Known(20), Dim::Known(2));
        whole(Dim::symbol("words"), Dim::symbol("words"));
        whole(Dim::symbol("words"), Dim::Unknown);
    }
}
