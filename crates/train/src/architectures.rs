//! Small networks that a user with data alone can start from, with random weights.

use edgesmith_ir::{Error, Model, Result};

mod builder;
mod images;

use builder::Builder;

/// What a network is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The name of its input.
    pub input: String,
    /// The lengths of one sample: [channels, height, width] of an image, [features] of a vector.
    pub dims: Vec<usize>,
    /// The number of classes.
    pub classes: usize,
    /// Of its random weights.
    pub seed: u64,
}

/// A row of the list of networks.
pub struct Architecture {
    /// Its name.
    pub name: &'static str,
    /// One sentence with its source.
    pub about: &'static str,
    /// Makes it; an error where the samples do not fit it.
    pub build: fn(&Spec) -> Result<Model>,
}

/// Every network, from small to large.
pub static ARCHITECTURES: &[&Architecture] =
    &[&images::LENET_300_100, &images::LENET_5, &images::SMALL_CNN];

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
    use super::*;

    #[test]
    fn every_network_is_sound_and_has_a_score_for_each_class() {
        for a in ARCHITECTURES {
            let spec = Spec {
                input: "x".into(),
                dims: vec![1, 28, 28],
                classes: 7,
                seed: 1,
            };
            let model = (a.build)(&spec).unwrap();
            edgesmith_testkit::check(&model);
            let inferred = edgesmith_ir::infer::infer(&model, &[]).unwrap();
            let shape = inferred
                .tensor(model.graph.outputs[0])
                .unwrap()
                .shape
                .clone();
            assert_eq!(shape.unwrap()[1].known(), Some(7), "{}", a.name);
        }
    }
}
