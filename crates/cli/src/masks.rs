//! Files of masks and of packed weights: safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use edgesmith_compress::prune::weights::Sparsity;
use edgesmith_compress::prune::weights::masks::{Mask, Masks};
use edgesmith_compress::prune::weights::packed::pack;
use edgesmith_compress::prune::weights::sites::{Choice, Sites};
use edgesmith_compress::recipe::Done;
use edgesmith_formats::safetensors::Tensors;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Tensor};
use edgesmith_report::format;

use crate::{opened, ui};

/// What a file of masks says of itself.
const FORMAT: &str = "edgesmith masks 1";

/// Reads masks.
///
/// # Errors
/// When the file cannot be read, or holds no masks.
pub fn read(path: &Path) -> edgesmith_ir::Result<Masks> {
    masks(&Tensors::read(path)?).at(|| opened::name_of(path))
}

fn masks(file: &Tensors) -> edgesmith_ir::Result<Masks> {
    let none = || Error::invalid("the file holds no masks").hint("`edgesmith prune --save-masks`");
    let text = |key: &str| file.metadata.get(key).ok_or_else(none);
    if text("format")? != FORMAT {
        return Err(none());
    }
    let lengths = serde_json::from_str(text("shapes")?);
    let mut lengths: BTreeMap<String, Vec<usize>> = lengths.map_err(|_| none())?;
    let mut all = BTreeMap::new();
    for (name, tensor) in &file.all {
        let mask = Mask {
            dims: lengths.remove(name).ok_or_else(none)?,
            bits: tensor.data::<u8>()?.into_owned(),
        };
        mask.check().at(|| format!("mask \"{name}\""))?;
        all.insert(name.clone(), mask);
    }
    Ok(Masks {
        pattern: text("pattern")?.parse()?,
        model: text("model")?.clone(),
        all,
    })
}

/// Checks the zeros of a model that was read back, and writes what a step was asked for beside it: masks,
/// packed weights.
///
/// # Errors
/// When the model does not have its zeros, a file cannot be written, or does not hold what was to be in it.
pub fn write(done: &Done, model: &Model, base: &Path, force: bool) -> Result<()> {
    let Some(sparsity) = &done.changes.pruned else {
        return Ok(());
    };
    sparsity.hold(model)?;
    if let Some(path) = done.settled.text("save-masks") {
        let path = base.join(path);
        as_tensors(sparsity)?.write(&path, force)?;
        if read(&path)? != sparsity.masks {
            let e = Error::internal("the file does not hold the masks that were made");
            return Err(e.at(opened::name_of(&path)).into());
        }
        ui::say(&format!("masks are in {}", path.display()));
    }
    if let Some(path) = done.settled.text("packed") {
        let path = base.join(path);
        let (tensors, [dense, packed]) = packed(sparsity, model)?;
        tensors.write(&path, force)?;
        ui::say(&format!(
            "packed weights are in {}: {} in the place of {}",
            path.display(),
            format::bytes(packed as u64),
            format::bytes(dense as u64)
        ));
    }
    Ok(())
}

fn as_tensors(sparsity: &Sparsity) -> Result<Tensors> {
    let masks = &sparsity.masks;
    let shapes: BTreeMap<&String, &Vec<usize>> =
        masks.all.iter().map(|(n, m)| (n, &m.dims)).collect();
    let [gone, of] = sparsity.counts();
    let texts = [
        ("format", FORMAT.to_owned()),
        ("pattern", masks.pattern.to_string()),
        ("sparsity", (gone as f64 / of.max(1) as f64).to_string()),
        ("model", masks.model.clone()),
        ("shapes", serde_json::to_string(&shapes)?),
    ];
    let tensor = |(name, mask): (&String, &Mask)| (name.clone(), Tensor::vector(mask.bits.clone()));
    Ok(Tensors {
        all: masks.all.iter().map(tensor).collect(),
        metadata: texts.map(|(k, v)| (k.to_owned(), v)).into(),
    })
}

/// The pruned weights of a model packed, and the bytes of both forms.
fn packed(sparsity: &Sparsity, model: &Model) -> Result<(Tensors, [usize; 2])> {
    let everything = Choice {
        everything: true,
        ..Choice::default()
    };
    let sites = Sites::of(model, &everything)?;
    let (mut tensors, mut bytes) = (Tensors::default(), [0, 0]);
    let mut forms = BTreeMap::new();
    for (name, mask) in &sparsity.masks.all {
        let site = sites.all.iter().find(|s| s.name == *name).ok_or_else(|| {
            let what = format!("\"{name}\" is no float weight of a product any more");
            Error::unsupported(what).hint("--packed is of floats: leave --quantize out")
        })?;
        let matrix = site.matrix(&model.graph)?;
        let kept = site.by_rows(mask.kept());
        let made = pack(&matrix.data, &kept, site.lengths, sparsity.masks.pattern)?;
        forms.insert(name.clone(), (made.form.name(), mask.dims.clone()));
        bytes[0] += matrix.data.len() * size_of::<f32>();
        bytes[1] += made.values.len() * size_of::<f32>() + made.places.len();
        let values = Tensor::vector(made.values);
        tensors.all.insert(format!("{name}.values"), values);
        let places = Tensor::vector(made.places);
        tensors.all.insert(format!("{name}.places"), places);
    }
    let texts = [
        ("format", "edgesmith packed 1".to_owned()),
        ("weights", serde_json::to_string(&forms)?),
    ];
    tensors.metadata = texts.map(|(k, v)| (k.to_owned(), v)).into();
    Ok((tensors, bytes))
}
