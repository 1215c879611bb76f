//! Examples to train on, out of a file.

use std::path::Path;

use anyhow::Result;
use edgesmith_compress::distill::Held;
use edgesmith_formats::npz;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model};
use edgesmith_train::architectures::{self, Architecture, Spec, Takes};

use crate::opened;

/// Arrays that are no input.
const LABELS: &str = "labels";
const TARGETS: &str = "targets";

/// Opens an npz with an array for each input, and `labels` or `targets` where there are any.
///
/// # Errors
/// When it cannot be read.
pub fn open(path: &Path) -> Result<Held> {
    let place = || path.display().to_string();
    let (mut arrays, mut labels, mut targets) = (Vec::new(), None, None);
    for (name, array) in npz::read(path)? {
        match name.as_str() {
            LABELS => {
                labels = Some(
                    array
                        .to_i64()
                        .at(|| format!("{}: array \"labels\"", place()))?,
                )
            }
            TARGETS => targets = Some(array),
            _ => arrays.push((name, array)),
        }
    }
    let digest = crate::kept::digest_of(path)?;
    Ok(Held::new(arrays, labels, targets, &digest).at(place)?)
}

/// Opens a model, or makes a new network of that name for these examples.
///
/// # Errors
/// When there is neither file nor network, or the examples do not fit the network.
pub fn model(path: &Path, examples: Option<&Held>) -> Result<Model> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let network = architectures::ARCHITECTURES.iter().find(|a| a.name == name);
    let (Some(network), false) = (network, path.exists()) else {
        return Ok(opened::open(path)?);
    };
    let examples = examples.ok_or_else(|| {
        Error::usage(format!("a new network \"{name}\" needs examples"))
            .hint("--data DATA, or train = \"DATA\"")
    })?;
    Ok(spec(network, examples)
        .and_then(|spec| (network.build)(&spec))
        .at(|| name)?)
}

/// What a network is made for that learns these examples.
fn spec(network: &Architecture, examples: &Held) -> edgesmith_ir::Result<Spec> {
    let (input, dims, vocabulary) = match network.takes {
        Takes::Numbers => {
            let (input, dims) = examples.only_input()?;
            (input, dims, None)
        }
        Takes::Words => {
            let (input, words, vocabulary) = examples.texts()?;
            (input, vec![words], Some(vocabulary))
        }
    };
    Ok(Spec {
        input,
        dims,
        vocabulary,
        classes: examples.classes()?,
        seed: 0,
    })
}
