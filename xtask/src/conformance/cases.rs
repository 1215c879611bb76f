//! The cases on disk: where they are, what goes in, what comes out, and how near it must be.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use edgesmith_ir::{Item, Model, Tensor, Type, ValueId};
use serde::Deserialize;

/// A folder of cases.
pub struct Folder {
    /// Its name.
    pub name: &'static str,
    /// Seconds that one case may take.
    pub seconds: u64,
}

/// The folders, in the order of the table.
pub static FOLDERS: &[Folder] = &[
    folder("node", 30),
    folder("light", 600),
    folder("simple", 30),
    folder("pytorch-converted", 60),
    folder("pytorch-operator", 30),
];

const fn folder(name: &'static str, seconds: u64) -> Folder {
    Folder { name, seconds }
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// The folder's name.
    pub folder: &'static str,
    /// Seconds that it may take.
    pub seconds: u64,
    /// The case's name.
    pub name: String,
    /// The model.
    pub model: PathBuf,
    tolerance: Tolerance,
}

/// How far a value may be from the expected one: `absolute + relative · |expected|`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub struct Tolerance {
    /// Part of the expected value.
    #[serde(rename = "rtol")]
    pub relative: f64,
    /// In the unit of the data.
    #[serde(rename = "atol")]
    pub absolute: f64,
}

impl Default for Tolerance {
    /// That of ONNX's runner.
    fn default() -> Self {
        Self {
            relative: 1e-3,
            absolute: 1e-7,
        }
    }
}

/// What goes in and what should come out.
pub struct DataSet {
    /// By position among the model's inputs that have no default.
    pub inputs: Vec<Item>,
    /// In the order of the model's outputs.
    pub outputs: Vec<Item>,
}

/// Every case, by folder, then by name.
///
/// # Errors
/// When a folder is missing or cannot be read.
pub fn all(root: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for folder in FOLDERS {
        let mut names: Vec<String> = fs::read_dir(root.join(folder.name))
            .with_context(|| format!("no cases in {}", root.join(folder.name).display()))?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter_map(|name| case_name(folder, &name))
            .collect();
        names.sort();
        for name in names {
            cases.push(case(root, folder, name)?);
        }
    }
    Ok(cases)
}

fn case_name(folder: &Folder, file: &str) -> Option<String> {
    match folder.name {
        "light" => file.strip_suffix(".onnx").map(str::to_owned),
        _ => file.starts_with("test_").then(|| file.to_owned()),
    }
}

/// The case of that name.
///
/// # Errors
/// When its tolerances cannot be read.
pub fn case(root: &Path, folder: &Folder, name: String) -> Result<Case> {
    let base = root.join(folder.name);
    let (model, data) = if folder.name == "light" {
        let real = name.replacen("light_", "test_", 1);
        (
            base.join(format!("{name}.onnx")),
            root.join("real").join(real),
        )
    } else {
        (base.join(&name).join("model.onnx"), base.join(&name))
    };
    let tolerance = match fs::read(data.join("data.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Tolerance::default(),
    };
    Ok(Case {
        folder: folder.name,
        seconds: folder.seconds,
        name,
        model,
        tolerance,
    })
}

impl Case {
    /// How near the outputs must be.
    pub fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// The data of the case.
    ///
    /// # Errors
    /// When a file is damaged.
    pub fn data(&self, model: &Model) -> Result<Vec<DataSet>> {
        let folder = self.model.parent().context("a model stands in a folder")?;
        if self.folder == "light" {
            let prefix = folder.join(format!("{}_output", self.name));
            return Ok(vec![DataSet {
                inputs: inputs(model)
                    .iter()
                    .map(|&v| ramp(model, v))
                    .collect::<Result<_>>()?,
                outputs: items(&prefix, model, &model.graph.outputs)?,
            }]);
        }
        let mut sets = Vec::new();
        loop {
            let set = folder.join(format!("test_data_set_{}", sets.len()));
            if !set.is_dir() {
                ensure!(!sets.is_empty(), "the case has no data");
                return Ok(sets);
            }
            sets.push(DataSet {
                inputs: items(&set.join("input"), model, &inputs(model))?,
                outputs: items(&set.join("output"), model, &model.graph.outputs)?,
            });
        }
    }
}

/// The inputs that have no default.
pub fn inputs(model: &Model) -> Vec<ValueId> {
    let graph = &model.graph;
    let free = |v: &&ValueId| graph.value(**v).constant.is_none();
    graph.inputs.iter().filter(free).copied().collect()
}

/// The files `PREFIX_0.pb`, `PREFIX_1.pb`, …
fn items(prefix: &Path, model: &Model, values: &[ValueId]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    loop {
        let mut name = prefix.as_os_str().to_owned();
        name.push(format!("_{}.pb", items.len()));
        let Ok(bytes) = fs::read(&name) else {
            return Ok(items);
        };
        let Some(&v) = values.get(items.len()) else {
            bail!("{} belongs to no value", Path::new(&name).display());
        };
        let ty = model.graph.value(v).ty.as_ref();
        let ty = ty.with_context(|| format!("\"{}\" has no type", model.graph.value(v).name))?;
        items.push(edgesmith_formats::onnx::decode_item(bytes.into(), ty)?);
    }
}

/// What ONNX's runner feeds to models without data: `i / n` for element `i` of `n`.
fn ramp(model: &Model, v: ValueId) -> Result<Item> {
    let ty = model.graph.value(v).ty.as_ref().and_then(Type::tensor);
    let shape = ty
        .and_then(|t| t.shape.as_ref())
        .context("an input has no shape")?;
    let dims: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(1)).collect();
    let n: usize = dims.iter().product();
    let data = (0..n).map(|i| (i as f64 / n as f64) as f32).collect();
    Ok(Tensor::from_vec::<f32>(&dims, data)?.into())
}
