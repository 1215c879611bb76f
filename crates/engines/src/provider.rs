//! Engines as providers of a session: each takes parts of a graph, written as ONNX.

use std::sync::{Arc, Mutex, PoisonError};

use edgesmith_formats::onnx;
use edgesmith_ir::{DType, Model, Result, Tensor};
use edgesmith_runtime::Provider;
use edgesmith_runtime::device::{Asked, Device, Part, Unit};

use crate::{Compiled, Engine, Opened, Setup, Source, groups, onnxruntime, openvino};

/// The engines as rows for a session's list of providers.
pub static PROVIDERS: &[&Provider] = &[&ONNXRUNTIME, &OPENVINO];

static ONNXRUNTIME: Provider = Provider::of_parts(
    onnxruntime::ONNXRUNTIME.name,
    onnxruntime::ONNXRUNTIME.about,
    |asked| open(&onnxruntime::ONNXRUNTIME, asked),
);

static OPENVINO: Provider =
    Provider::of_parts(openvino::OPENVINO.name, openvino::OPENVINO.about, |asked| {
        open(&openvino::OPENVINO, asked)
    });

/// Element types that both engines and this crate exchange.
const TYPES: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
];

struct Peer {
    opened: Opened,
    threads: usize,
    narrow: bool,
}

fn open(engine: &'static Engine, asked: &Asked) -> Result<Arc<dyn Device>> {
    if let Some((key, _)) = asked.settings.first() {
        let message = format!("{} has no setting \"{key}\"", engine.name);
        return Err(edgesmith_ir::Error::usage(message));
    }
    Ok(Arc::new(Peer {
        opened: engine.open(&asked.libraries)?,
        threads: asked.threads,
        narrow: asked.bf16,
    }))
}

impl Device for Peer {
    fn verdict(&self, unit: &Unit) -> Result<(), String> {
        let domain = unit.node().domain.as_str();
        if !matches!(domain, "" | "com.microsoft" | "ai.onnx.ml") {
            return Err(format!("{} is not known there", unit.full_op()));
        }
        let values = unit.inputs().into_iter().chain(unit.outputs());
        let types = values.filter_map(|v| unit.typed(v));
        let mut unknown = types.map(|t| t.0).filter(|t| !TYPES.contains(t));
        match unknown.next() {
            Some(dtype) => Err(format!("no tensors of {dtype} can be handed over")),
            None => Ok(()),
        }
    }

    /// A user who names an engine means it: it is thought to be twice as fast.
    fn speed(&self) -> f64 {
        2.0
    }

    fn launch_ns(&self) -> f64 {
        5_000.0
    }

    fn compile(&self, part: &Model) -> Result<Box<dyn Part>> {
        let bytes = written(part)?;
        let setup = Setup {
            threads: self.threads,
            exact: saturates(),
            narrow: self.narrow,
            ..Setup::default()
        };
        let compiled = self.opened.compile(Source::Bytes(&bytes), &setup)?;
        Ok(Box::new(Ready(Mutex::new(compiled))))
    }
}

/// A part in ONNX, as engines read it.
fn written(part: &Model) -> Result<Vec<u8>> {
    let mut part = part.clone();
    groups::expand(&mut part);
    if saturates() {
        groups::separate_zeros(&mut part);
    }
    // OpenVINO takes a file for none of ONNX where the versions of two domains are among the first
    // three fields.
    if part.producer_name.is_empty() {
        part.producer_name = "edgesmith".into();
    }
    onnx::encode(&part)
}

/// True where products of unsigned and signed bytes are added in pairs of 16 bits, which are too
/// few: on x86-64 without VNNI. What avoids it halves the rate elsewhere.
fn saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

struct Ready(Mutex<Box<dyn Compiled>>);

impl Part for Ready {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.run(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_fields_stand_before_the_version_of_a_second_domain() {
        let text = "opset 17\nopset \"com.microsoft\" 1\ngraph g (x: f32[1]) -> (y: f32[1]) {
            y = com.microsoft.Gelu(x) }";
        let model = edgesmith_ir::text::parse(text).expect("it is a model");
        let bytes = written(&model).expect("it can be written");
        // The fields `ir_version`, 10, and `producer_name`.
        assert_eq!(bytes[..4], [8, 10, 0x12, 9]);
    }
}
