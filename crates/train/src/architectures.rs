//! Small networks that a user with data alone can start from, with random weights.

use edgesmith_ir::{Error, Model, Result};

mod builder;
mod encoders;
mod images;
mod residual;
mod separable;

/// What a network is made for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spec {
    /// The name of its input; those of texts have `attention_mask` beside.
    pub input: String,
    /// The lengths of one sample: [channels, height, width] of an image, [features] of a vector,
    /// [words] of a text.
    pub dims: Vec<usize>,
    /// Where samples are texts: words are numbers below this.
    pub vocabulary: Option<usize>,
    /// The number of classes.
    pub classes: usize,
    /// Of its random weights.
    pub seed: u64,
}

/// What samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Images, or vectors where the network says so.
    Numbers,
    /// Texts: numbers of words, and which places have one.
    Words,
}

/// A row of the list of networks.
pub struct Architecture {
    /// Its name.
    pub name: &'static str,
    /// One sentence with its source.
    pub about: &'static str,
    /// What its samples are.
    pub takes: Takes,
    /// Makes it; an error where the samples do not fit it.
    pub build: fn(&Spec) -> Result<Model>,
}

/// Every network: for vectors and images, then for texts.
pub static ARCHITECTURES: &[&Architecture] = &[
    &images::LENET_300_100,
    &images::LENET_5,
    &images::SMALL_CNN,
    &images::CNN_100K,
    &separable::DS_CNN,
    &separable::MOBILENET_025,
    &residual::RESNET_8,
    &residual::RESNET_20,
    &encoders::ENCODER_2,
    &encoders::ENCODER_4,
];

/// The network of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Architecture> {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
    ARCHITECTURES
        .iter()
        .copied()
        .find(|a| a.name == name)
        .ok_or_else(|| {
            Error::usage(format!("unknown network \"{name}\""))
                .hint(format!("there is {}", names.join(", ")))
        })
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::eval::evaluate;
    use edgesmith_ir::{Tensor, infer};

    use super::*;

    fn images(dims: &[usize], classes: usize) -> Spec {
        Spec {
            input: "x".into(),
            dims: dims.to_vec(),
            classes,
            seed: 1,
            ..Spec::default()
        }
    }

    fn texts(words: usize, classes: usize) -> Spec {
        Spec {
            input: "input_ids".into(),
            dims: vec![words],
            vocabulary: Some(50),
            classes,
            seed: 1,
        }
    }

    fn parameters(name: &str, spec: &Spec) -> u64 {
        let model = (find(name).unwrap().build)(spec).unwrap();
        let inferred = infer::infer(&model, &[]).unwrap();
        let cost = edgesmith_ir::analysis::cost::model_cost(&model, &inferred).unwrap();
        cost.params
    }

    #[test]
    fn every_network_is_sound_and_has_a_score_for_each_class() {
        for a in ARCHITECTURES {
            let spec = match a.takes {
                Takes::Numbers => images(&[1, 28, 28], 7),
                Takes::Words => texts(12, 7),
            };
            let model = (a.build)(&spec).unwrap();
            edgesmith_testkit::check(&model);
            let inferred = infer::infer(&model, &[]).unwrap();
            let output = inferred.tensor(model.graph.outputs[0]).unwrap();
            let classes = output.shape.as_ref().unwrap()[1].known();
            assert_eq!(classes, Some(7), "{}", a.name);
        }
    }

    #[test]
    fn a_network_refuses_samples_of_the_other_kind() {
        for a in ARCHITECTURES {
            let spec = match a.takes {
                Takes::Numbers => texts(12, 7),
                Takes::Words => images(&[1, 28, 28], 7),
            };
            assert!((a.build)(&spec).is_err(), "{}", a.name);
        }
    }

    #[test]
    fn networks_have_as_many_parameters_as_their_sources_say() {
        let color = images(&[3, 32, 32], 10);
        // Each has biases of convolutions and statistics less than MLPerf Tiny's 78,666.
        assert_eq!(parameters("resnet-8", &color), 78_666 - 480 - 240);
        assert_eq!(parameters("resnet-20", &color), 272_474);
        let speech = images(&[1, 49, 10], 12);
        assert_eq!(parameters("ds-cnn", &speech), 24_908 - 1152 - 576);
        let people = images(&[3, 96, 96], 2);
        assert_eq!(parameters("mobilenet-0.25", &people), 213_072 + 514);
        assert!(parameters("cnn-100k", &images(&[1, 28, 28], 10)) < 100_000);
    }

    #[test]
    fn encoders_have_a_table_of_words_one_of_places_layers_and_a_head() {
        let layer = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128;
        let of = |layers: u64| 50 * 128 + 12 * 128 + layers * layer + 2 * 128 + 128 * 7 + 7;
        assert_eq!(parameters("encoder-2", &texts(12, 7)), of(2));
        assert_eq!(parameters("encoder-4", &texts(12, 7)), of(4));
    }

    #[test]
    fn small_images_keep_four_pixels_a_side_through_a_mobilenet() {
        let model = (separable::MOBILENET_025.build)(&images(&[1, 28, 28], 7)).unwrap();
        let inferred = infer::infer(&model, &[]).unwrap();
        let pool = model.graph.nodes().find(|(_, n)| n.is("GlobalAveragePool"));
        let shape = inferred.tensor(pool.unwrap().1.input(0).unwrap()).unwrap();
        assert_eq!(shape.to_string(), "f32[batch,256,4,4]");
    }

    #[test]
    fn what_stands_in_places_without_a_word_changes_nothing() {
        let model = (encoders::ENCODER_2.build)(&texts(4, 3)).unwrap();
        let scores = |ids: Vec<i64>| {
            let mask = Tensor::from_vec(&[1, 4], vec![1i64, 1, 0, 0]).unwrap();
            let ids = Tensor::from_vec(&[1, 4], ids).unwrap();
            let given = [("input_ids", ids), (encoders::MASK, mask)];
            evaluate(&model, &given).unwrap()[0].clone()
        };
        assert_eq!(scores(vec![3, 4, 5, 6]), scores(vec![3, 4, 7, 8]));
        assert_ne!(scores(vec![3, 4, 5, 6]), scores(vec![4, 3, 5, 6]));
    }
}
