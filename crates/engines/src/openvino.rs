//! OpenVINO's CPU device through its C library.

use std::path::Path;

use edgesmith_ir::{DType, Error, Result, Tensor};
use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, PartialShape, RwPropertyKey, Shape,
};

use crate::{Compiled, Engine, Setup, Source};

/// The engine.
pub static OPENVINO: Engine = Engine {
    name: "openvino",
    about: "OpenVINO's CPU device, by its C library",
    install: "`pip install openvino` in the active Python environment, or name the folder of \
              libopenvino_c in EDGESMITH_LIBRARIES",
    library: "openvino_c",
    folder: "openvino/libs",
    open,
    compile,
};

fn open(path: &Path) -> Result<String> {
    openvino_sys::library::load_from(path.to_owned()).map_err(Error::io)?;
    let version = openvino::version();
    let short = version.build_number.split('-').next().unwrap_or_default();
    Ok(short.to_owned())
}

fn compile(source: Source, setup: &Setup) -> Result<Box<dyn Compiled>> {
    let mut core = Core::new().map_err(failed)?;
    let precision = if setup.narrow { "bf16" } else { "f32" };
    let threads = setup.threads.to_string();
    let properties = [
        (RwPropertyKey::InferenceNumThreads, threads.as_str()),
        (RwPropertyKey::NumStreams, "1"),
        (RwPropertyKey::HintPerformanceMode, "LATENCY"),
        (RwPropertyKey::HintInferencePrecision, precision),
        (RwPropertyKey::HintEnableCpuPinning, "NO"),
    ];
    core.set_properties(&DeviceType::CPU, properties)
        .map_err(failed)?;
    let mut model = match source {
        Source::File(path) => {
            let path = path.to_str().ok_or_else(|| Error::io("no UTF-8 path"))?;
            core.read_model_from_file(path, "")
        }
        Source::Bytes(bytes) => core.read_model_from_buffer(bytes, None),
    }
    .map_err(failed)?;
    if model.is_dynamic() {
        let shapes: Vec<(&str, PartialShape)> = setup
            .shapes
            .iter()
            .filter(|(_, dims)| !dims.is_empty())
            .map(|(name, dims)| Ok((name.as_str(), partial(dims)?)))
            .collect::<Result<_>>()?;
        let shapes: Vec<(&str, &PartialShape)> = shapes.iter().map(|(n, s)| (*n, s)).collect();
        model.reshape(&shapes).map_err(failed)?;
    }
    let mut compiled = core
        .compile_model(&model, DeviceType::CPU)
        .map_err(failed)?;
    let request = compiled.create_infer_request().map_err(failed)?;
    let inputs = compiled.get_input_size().map_err(failed)?;
    let name = |i| compiled.get_input_by_index(i)?.get_name();
    let names = (0..inputs).map(name).collect::<Result<_, _>>();
    let names: Vec<String> = names.map_err(failed)?;
    Ok(Box::new(Ready {
        outputs: compiled.get_output_size().map_err(failed)?,
        request,
        names,
        _model: compiled,
        _core: core,
    }))
}

struct Ready {
    request: InferRequest,
    outputs: usize,
    /// The names of the inputs, in order.
    names: Vec<String>,
    _model: CompiledModel,
    _core: Core,
}

impl Compiled for Ready {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        for (i, t) in inputs.iter().enumerate() {
            let name = self.names.get(i);
            let name =
                name.ok_or_else(|| Error::usage("there are more inputs than the model has"))?;
            let mut tensor = self.request.get_tensor(name).map_err(failed)?;
            if tensor.get_byte_size().map_err(failed)? != t.byte_len() {
                let shape = Shape::new(&lengths(t.dims())?).map_err(failed)?;
                tensor = openvino::Tensor::new(element(t.dtype())?, &shape).map_err(failed)?;
                self.request.set_tensor(name, &tensor).map_err(failed)?;
            }
            if t.byte_len() > 0 {
                let data = tensor.get_raw_data_mut().map_err(failed)?;
                data.copy_from_slice(t.bytes());
            }
        }
        self.request.infer().map_err(failed)?;
        (0..self.outputs).map(|i| self.output(i)).collect()
    }
}

impl Ready {
    fn output(&self, i: usize) -> Result<Tensor> {
        let tensor = self.request.get_output_tensor_by_index(i).map_err(failed)?;
        let dtype = dtype(tensor.get_element_type().map_err(failed)?)?;
        let shape = tensor.get_shape().map_err(failed)?;
        let dims = shape.get_dimensions().iter().map(|&d| usize::try_from(d));
        let dims: Vec<usize> = dims
            .collect::<Result<_, _>>()
            .map_err(|_| Error::invalid("an output has a negative length"))?;
        let bytes = if dims.contains(&0) {
            Vec::new()
        } else {
            tensor.get_raw_data().map_err(failed)?.to_vec()
        };
        Tensor::from_bytes(dtype, &dims, bytes.into())
    }
}

fn partial(dims: &[usize]) -> Result<PartialShape> {
    let lengths = lengths(dims)?;
    PartialShape::new_static(lengths.len() as i64, &lengths).map_err(failed)
}

fn lengths(dims: &[usize]) -> Result<Vec<i64>> {
    let each = dims.iter().map(|&d| i64::try_from(d));
    each.collect::<Result<_, _>>()
        .map_err(|_| Error::invalid("a length is too large"))
}

/// The element types that both know.
const TYPES: &[(DType, ElementType)] = &[
    (DType::F32, ElementType::F32),
    (DType::F64, ElementType::F64),
    (DType::F16, ElementType::F16),
    (DType::BF16, ElementType::Bf16),
    (DType::I8, ElementType::I8),
    (DType::I16, ElementType::I16),
    (DType::I32, ElementType::I32),
    (DType::I64, ElementType::I64),
    (DType::U8, ElementType::U8),
    (DType::U16, ElementType::U16),
    (DType::U32, ElementType::U32),
    (DType::U64, ElementType::U64),
    (DType::Bool, ElementType::Boolean),
];

fn element(dtype: DType) -> Result<ElementType> {
    let found = TYPES.iter().find(|t| t.0 == dtype);
    found
        .map(|t| t.1)
        .ok_or_else(|| Error::unsupported(format!("no tensors of {dtype}")))
}

fn dtype(element: ElementType) -> Result<DType> {
    let found = TYPES.iter().find(|t| t.1 == element);
    found
        .map(|t| t.0)
        .ok_or_else(|| Error::unsupported(format!("an output is of {element:?}")))
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::invalid(reason(&e.to_string()))
}

/// How lines begin that say where in OpenVINO something failed, or that something did.
const WITHOUT_REASON: &[&str] = &[
    "Exception from",
    "general error: Exception from",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "While validating",
    "Summary:",
    "-- ",
];

/// The lines of what OpenVINO says that tell why, in one; all of it where none does.
fn reason(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let tells = |l: &&str| !l.is_empty() && !WITHOUT_REASON.iter().any(|w| l.starts_with(w));
    let told: Vec<&str> = lines.filter(tells).collect();
    match told.is_empty() {
        true => text.trim().replace('\n', " "),
        false => told.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openvino_says_is_cut_to_its_reason() {
        let text = "general error: Exception from src/inference/src/cpp/core.cpp:105:\n\
                    Check 'false' failed at src/frontends/report.cpp:151:\n\
                    FrontEnd API failed with OpConversionFailure:\n\
                    Model wasn't fully converted. Failed operations detailed log:\n\
                    -- QLinearConv-17 with a message:\n\
                    While validating ONNX node '<Node(QLinearConv): y>': Check 'x' failed at y.cpp:119:\n\
                    FrontEnd API failed with GeneralFailure:\n\
                    The number of scales '16' must match '3'\n\nSummary:\n\
                    -- Conversion is failed for: QLinearConv-17\n\n";
        assert_eq!(reason(text), "The number of scales '16' must match '3'");
        assert_eq!(
            reason("Exception from a:\nCheck 'b'"),
            "Exception from a: Check 'b'"
        );
    }
}
