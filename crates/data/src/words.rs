//! Texts as a model takes them: some inputs have a number for each word, and a mask tells where words are.

use edgesmith_ir::random::Random;
use edgesmith_ir::types::Dim;
use edgesmith_ir::{Model, Result, Tensor, infer};

use crate::augment::{Apply, Augment};
use crate::fit::Fit;
use crate::source::Sample;

/// The input that says which places of a text have a word.
const MASK: &str = "attention_mask";
/// Batches have lengths that are multiples of this, so that there are few.
const STEP: usize = 8;

/// The inputs of a model that have a number for each word.
#[derive(Debug, Clone)]
pub struct Words {
    /// Places in the list of inputs.
    inputs: Vec<usize>,
    mask: usize,
    /// The model takes any count of words, and gives nothing for each.
    is_open: bool,
}

impl Words {
    /// `None` where the graph has no mask `[samples, words]`.
    pub fn of(model: &Model, fits: &[Fit]) -> Option<Self> {
        let graph = &model.graph;
        let shape = |name: &str| {
            let value = graph.value(graph.find_value(name)?);
            value.tensor_type()?.shape.clone()
        };
        let mask = fits.iter().position(|f| f.name == MASK)?;
        let words = match &shape(MASK)?.0[..] {
            [_, words] => words.clone(),
            _ => return None,
        };
        let (mut inputs, mut all_rows) = (Vec::new(), true);
        for (i, fit) in fits.iter().enumerate() {
            let shape = shape(&fit.name)?;
            let is_row = shape.rank() == 2 && shape.0[1] == words && fit.axis == Some(0);
            if is_row {
                inputs.push(i);
            } else {
                all_rows &= !shape.contains(&words);
            }
        }
        let inferred = infer::infer(model, &[]).ok()?;
        let is_whole = |v| {
            let shape = inferred.tensor(v)?.shape.as_ref()?;
            Some(!shape.contains(&words) && !shape.contains(&Dim::Unknown))
        };
        let is_symbol = matches!(words, Dim::Symbol(_));
        let is_open =
            is_symbol && all_rows && graph.outputs.iter().all(|&v| is_whole(v).unwrap_or(false));
        Some(Self {
            inputs,
            mask,
            is_open,
        })
    }

    /// True where batches may end with their longest text.
    pub fn are_cut(&self) -> bool {
        self.is_open
    }

    /// The words of a sample.
    ///
    /// # Errors
    /// When its mask is not of numbers.
    pub fn length(&self, fits: &[Fit], sample: &Sample) -> Result<usize> {
        let mask = sample.tensors.get(fits[self.mask].field);
        mask.map_or(Ok(0), |t| Ok(end(&t.to_f32()?)))
    }

    /// Does to a sample, one tensor for each input, what augmentations of words do.
    ///
    /// # Errors
    /// When its mask is not of numbers.
    pub fn augment(
        &self,
        augments: &[Augment],
        random: &mut Random,
        sample: &mut [&mut Tensor],
    ) -> Result<()> {
        for augment in augments {
            let Apply::Words(kept) = augment.def.apply else {
                continue;
            };
            let mask = &sample[self.mask];
            let (words, places) = (end(&mask.to_f32()?), mask.count());
            let kept = kept(random, augment.amount, words);
            for &i in &self.inputs {
                if sample[i].count() == places {
                    *sample[i] = chosen(sample[i], &kept)?;
                }
            }
        }
        Ok(())
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
        if !self.is_open || kept >= words || !self.inputs.iter().all(all) {
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

/// The elements at these places of a row, and zeros behind them.
fn chosen(t: &Tensor, places: &[usize]) -> Result<Tensor> {
    let size = t.byte_len() / t.count().max(1);
    let mut data = Vec::with_capacity(t.byte_len());
    for &p in places {
        data.extend_from_slice(&t.bytes()[p * size..(p + 1) * size]);
    }
    data.resize(t.byte_len(), 0);
    Tensor::from_bytes(t.dtype(), t.dims(), data.into()).map(|t| t.detached())
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
        augmented(words, output, "").unwrap()
    }

    fn augmented(words: Dim, output: Dim, augment: &str) -> Result<Loader> {
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
        let augment = augment.split_whitespace().map(Augment::parse);
        let preparation = Preparation {
            augment: augment.collect::<Result<_>>()?,
            ..Preparation::default()
        };
        Loader::new(Arc::new(source), &Model::new(g, 17), preparation)
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

    #[test]
    fn words_are_left_out_of_all_inputs_alike_and_the_ends_stay() {
        for augment in ["drop=0.5", "span=0.3"] {
            let loader = augmented(Dim::Known(20), Dim::Known(2), augment).unwrap();
            let mut shorter = 0;
            for epoch in 0..100 {
                let feed = loader.feed(&[11], Some(epoch)).unwrap();
                let [ids, mask] = [0, 1].map(|i| feed.inputs[i].1.to_i64().unwrap());
                let words = mask.iter().sum::<i64>() as usize;
                assert!(mask[..words].iter().all(|m| *m == 1), "{mask:?}");
                assert!(ids[..words].is_sorted_by(|a, b| a < b), "{ids:?}");
                assert_eq!((ids[0], ids[words - 1]), (0, 11), "{ids:?}");
                assert!(ids[words..].iter().all(|i| *i == 0));
                shorter += usize::from(words < 12);
            }
            assert!(shorter > 30, "{augment} {shorter}");
            assert_eq!(
                loader.feed(&[11], None).unwrap().inputs[1]
                    .1
                    .to_i64()
                    .unwrap()[11],
                1
            );
        }
    }
}
