//! Models by path, and new networks by name.

use std::path::Path;

use anyhow::Result;
use edgesmith_compress::distill::Examples;
use edgesmith_compress::steps::Given;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model};
use edgesmith_train::architectures::ARCHITECTURES;

use crate::opened;

/// Opens a model, or makes a new network of that name for the examples of the first step, whose
/// paths start at `base`.
///
/// # Errors
/// When there is neither file nor network, or the examples do not fit the network.
pub fn open(path: &Path, steps: &[Given], base: &Path) -> Result<Model> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let network = ARCHITECTURES.iter().find(|a| a.name == name);
    let step = steps
        .iter()
        .find(|s| ["train", "lottery"].contains(&s.step.name));
    let (Some(network), false) = (network, path.exists()) else {
        if step.is_some() && !path.exists() && path.extension().is_none() {
            let names = ARCHITECTURES.iter().map(|a| a.name);
            return Err(Error::unknown("file or network", name, names).into());
        }
        return Ok(opened::open(path)?);
    };
    let step = step.ok_or_else(|| {
        Error::usage(format!(
            "a new network \"{name}\" needs a step that trains it"
        ))
    })?;
    let seed = step.count("train-seed").unwrap_or(0) as u64;
    let examples = Examples::open(step, base, seed)?;
    let spec = examples.spec(seed);
    Ok(spec.and_then(|spec| (network.build)(&spec)).at(|| name)?)
}
