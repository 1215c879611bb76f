//! A model that was read and checked, with the facts every command tells of it.

use std::path::Path;

use edgesmith_formats::prepared;
use edgesmith_ir::analysis::{cost, lengths, memory};
use edgesmith_ir::error::At;
use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::types::{Dim, Type};
use edgesmith_ir::{Error, Graph, Model, Result, ValueId, verify};
use edgesmith_kernels::Isa;
use edgesmith_passes::{Level, RunOptions};
use edgesmith_report::evidence::{ModelFacts, Port};
use edgesmith_runtime::{Options, Session, stored};
use sha2::{Digest, Sha256};

use crate::ui;

/// Reads a model and checks it.
///
/// # Errors
/// When the file cannot be read or the graph breaks a rule; every fault is listed.
pub fn open(path: &Path) -> Result<Model> {
    Ok(Opened::open(path)?.model)
}

/// A model, and its packed weights where the file is a prepared one.
pub struct Opened {
    /// The model as it is in the file.
    pub model: Model,
    packed: Option<(prepared::Settings, stored::Kept)>,
}

impl Opened {
    /// Reads a file and checks the model.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: &Path) -> Result<Self> {
        let opened = match prepared::read(path)? {
            Some(file) => Self {
                model: file.model,
                packed: Some((file.settings, file.weights)),
            },
            None => Self {
                model: edgesmith_formats::read(path)?,
                packed: None,
            },
        };
        check(&opened.model).at(|| name_of(path))?;
        Ok(opened)
    }

    /// Whether the file is a prepared one.
    pub fn is_prepared(&self) -> bool {
        self.packed.is_some()
    }

    /// The model that runs, optimised to `level` where it is not a prepared one, and a session of
    /// it. Weights that are packed for something else are packed anew.
    ///
    /// # Errors
    /// As [`optimized`] and [`Session::prepare`].
    pub fn session(&self, level: &str, options: &Options) -> Result<(Model, Session)> {
        let (model, kept) = match &self.packed {
            None => {
                let model = optimized(&self.model, level)?;
                // What passes read to make other weights of it is not read again.
                edgesmith_formats::release_all();
                (model, Vec::new())
            }
            Some((found, kept)) => {
                let own = settings(options);
                let apart = |s: &prepared::Settings, other: &prepared::Settings| {
                    let apart = s.iter().filter(|(k, v)| other.get(*k) != Some(v));
                    apart.map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" ")
                };
                if *found == own {
                    (self.model.clone(), kept.clone())
                } else {
                    ui::say(&format!(
                        "the file was prepared for {}, not for {}: its weights are packed anew",
                        apart(found, &own),
                        apart(&own, found)
                    ));
                    (self.model.clone(), Vec::new())
                }
            }
        };
        let session = Session::prepare_stored(&model, options, kept)?;
        Ok((model, session))
    }
}

/// What packed weights depend on.
pub fn settings(options: &Options) -> prepared::Settings {
    let isa = Isa::detect_capped(options.isa).name();
    let precision = if options.bf16 { "bf16" } else { "f32" };
    let arithmetic = if options.integer { "integer" } else { "float" };
    let layout = format!("layout {:016x}", stored::layout(options));
    let providers = options.providers.join(",");
    [
        ("instructions", isa),
        ("precision", precision),
        ("arithmetic", arithmetic),
        ("layout", &layout),
        ("providers", &providers),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into()
}

/// Checks a model; all faults come as one error.
fn check(model: &Model) -> Result<()> {
    verify::verify(model).map_err(|faults| {
        let lines: Vec<String> = faults.iter().take(10).map(Error::to_string).collect();
        Error::invalid(lines.join("\n"))
    })
}

/// Optimises a copy of a model to a level named on the command line.
///
/// # Errors
/// When the level is unknown or a pass fails.
pub fn optimized(model: &Model, level: &str) -> Result<Model> {
    let mut model = model.clone();
    edgesmith_passes::optimize(&mut model, level.parse::<Level>()?, &RunOptions::default())?;
    Ok(model)
}

/// What the report says of a file: its last path component.
pub fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |n| n.to_string_lossy().into_owned(),
    )
}

/// Bytes of a file and of its external data beside it.
///
/// # Errors
/// When the file is not there.
pub fn size_on_disk(path: &Path) -> Result<u64> {
    let size = |p: &Path| std::fs::metadata(p).map(|m| m.len());
    let main = size(path).map_err(|e| Error::io(e.to_string()).at(name_of(path)))?;
    let mut data = path.as_os_str().to_owned();
    data.push(".data");
    Ok(main + size(Path::new(&data)).unwrap_or(0))
}

/// Bytes of a file and of external data beside it, whatever that file is called: constants that the
/// file has no room for count as they are. A new network has no file: its bytes are those that it
/// would take.
///
/// # Errors
/// When the file cannot be looked at.
pub fn size_of(path: &Path, model: &Model) -> Result<u64> {
    if !path.exists() {
        return edgesmith_formats::onnx::size(model);
    }
    let found = size_on_disk(path)?;
    let constants = model
        .graph
        .values()
        .filter_map(|(_, v)| v.constant.as_ref());
    let weights: u64 = constants.map(|t| t.byte_len() as u64).sum();
    Ok(if found < weights {
        found + weights
    } else {
        found
    })
}

/// The figures of a model for concrete inputs: open lengths are as small as the model allows where
/// `dims` does not set them, and stay open where none is found.
pub struct Figures {
    /// Types of all values.
    pub inferred: Inferred,
    /// The cost of each node, in order.
    pub costs: Vec<cost::NodeCost>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Weights, quantised or not.
    pub parameters: u64,
    /// Bytes of all constants.
    pub weight_bytes: u64,
    /// Planned activation memory, where all shapes are known.
    pub activations: Option<memory::Activations>,
    /// What stands for each open length, by its name in `--dim`.
    pub lengths: Vec<(String, usize)>,
}

/// Counts a model for concrete inputs.
///
/// # Errors
/// When inference fails.
pub fn figures(model: &Model, dims: &[(String, usize)]) -> Result<Figures> {
    let dims: Vec<(&str, usize)> = dims.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let inputs = match lengths::workable_inputs(model, &dims) {
        Err(_) if dims.is_empty() => Vec::new(),
        inputs => inputs?,
    };
    let inferred = infer::infer(model, &inputs)?;
    let costs = cost::node_costs(model, &inferred)?;
    let total = cost::model_cost(model, &inferred)?;
    Ok(Figures {
        macs: total.macs,
        parameters: total.params,
        weight_bytes: total.weight_bytes,
        activations: memory::peak_activations(model, &inferred).ok(),
        lengths: lengths(model, &inputs),
        inferred,
        costs,
    })
}

/// The open lengths of the inputs, each once, and what `inputs` says they are.
fn lengths(model: &Model, inputs: &[(ValueId, Type)]) -> Vec<(String, usize)> {
    let mut lengths: Vec<(String, usize)> = Vec::new();
    for (v, ty) in inputs {
        let value = model.graph.value(*v);
        let declared = value.tensor_type().and_then(|t| t.shape.as_ref());
        let concrete = ty.tensor().and_then(|t| t.shape.as_ref());
        let pairs = declared.into_iter().flat_map(|s| s.iter());
        let pairs = pairs.zip(concrete.into_iter().flat_map(|s| s.iter()));
        for (axis, (dim, n)) in pairs.enumerate() {
            let name = match dim {
                Dim::Known(_) => continue,
                Dim::Symbol(s) => s.to_string(),
                Dim::Unknown => lengths::axis_name(&value.name, axis),
            };
            if !lengths.iter().any(|(known, _)| *known == name) {
                lengths.extend(n.known().map(|n| (name, n)));
            }
        }
    }
    lengths
}

/// What the evidence says of the model that was given. A new network has no file to take a hash of.
///
/// # Errors
/// When the file cannot be read again.
pub fn facts(path: &Path, model: &Model, figures: &Figures) -> Result<ModelFacts> {
    let mut sha256 = String::new();
    if path.exists() {
        let bytes = std::fs::read(path).map_err(|e| Error::io(e.to_string()).at(name_of(path)))?;
        let hash = Sha256::digest(&bytes);
        sha256 = hash.iter().map(|b| format!("{b:02x}")).collect();
    }
    Ok(ModelFacts {
        name: path
            .file_stem()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        file: name_of(path),
        bytes: match sha256.is_empty() {
            true => size_of(path, model)?,
            false => size_on_disk(path)?,
        },
        sha256,
        opset: model.opset().unsigned_abs(),
        ir_version: model.ir_version.unsigned_abs(),
        producer: format!("{} {}", model.producer_name, model.producer_version)
            .trim()
            .into(),
        inputs: ports(&model.graph, &model.graph.inputs),
        outputs: ports(&model.graph, &model.graph.outputs),
        parameters: figures.parameters,
        macs: figures.macs,
        dynamic_dims: dynamic_dims(model),
    })
}

fn ports(graph: &Graph, values: &[ValueId]) -> Vec<Port> {
    let port = |&v: &ValueId| {
        let value = graph.value(v);
        let tensor = value.tensor_type();
        let shape = tensor.and_then(|t| t.shape.as_ref());
        Port {
            name: value.name.clone(),
            dtype: tensor.map_or_else(String::new, |t| t.dtype.to_string()),
            shape: shape.map_or_else(|| "[…]".into(), ToString::to_string),
        }
    };
    values.iter().map(port).collect()
}

/// The names by which `--dim` sets the open lengths of the inputs, each once: their own, and
/// `INPUT:AXIS`.
pub fn open_axes(model: &Model) -> Vec<String> {
    let mut names = Vec::new();
    for &v in &model.graph.inputs {
        let value = model.graph.value(v);
        let shape = value.tensor_type().and_then(|t| t.shape.as_ref());
        for (axis, dim) in shape.into_iter().flat_map(|s| s.iter()).enumerate() {
            match dim {
                Dim::Known(_) => continue,
                Dim::Symbol(name) => names.push(name.to_string()),
                Dim::Unknown => {}
            }
            names.push(lengths::axis_name(&value.name, axis));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// The symbolic and unknown dimensions of the inputs, each once.
pub fn dynamic_dims(model: &Model) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for &v in &model.graph.inputs {
        let shape = model
            .graph
            .value(v)
            .tensor_type()
            .and_then(|t| t.shape.as_ref());
        for dim in shape.into_iter().flat_map(|s| s.iter()) {
            let name = dim.to_string();
            if dim.known().is_none() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}
