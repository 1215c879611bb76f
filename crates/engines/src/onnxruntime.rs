//! ONNX Runtime through its C library.

use std::path::Path;
use std::sync::OnceLock;

use edgesmith_ir::tensor::Element;
use edgesmith_ir::{DType, Error, Result, Tensor};
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use crate::{Compiled, Engine, Setup, Source};

/// The engine.
pub static ONNXRUNTIME: Engine = Engine {
    name: "onnxruntime",
    about: "ONNX Runtime's CPU provider, by its C library",
    install: "`pip install onnxruntime` in the active Python environment, or name the folder of \
              libonnxruntime in EDGESMITH_LIBRARIES",
    library: "onnxruntime",
    folder: "onnxruntime/capi",
    open,
    compile,
};

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

fn open(path: &Path) -> Result<String> {
    if ENVIRONMENT.get().is_none() {
        let builder = ort::init_from(path).map_err(|e| Error::io(e.to_string()))?;
        let environment = builder.with_telemetry(false).build().map_err(failed)?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        // A second thread that opens the library at the same time finds it open.
        let _ = ENVIRONMENT.set(environment);
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let version = name.split(".so.").nth(1).unwrap_or("of unknown version");
    Ok(version.to_owned())
}

fn compile(source: Source, setup: &Setup) -> Result<Box<dyn Compiled>> {
    let environment = ENVIRONMENT
        .get()
        .ok_or_else(|| Error::internal("the library is not open"))?;
    let mut builder = Session::builder(environment)
        .map_err(failed)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(failed)?
        .with_intra_threads(setup.threads)
        .map_err(failed)?
        .with_inter_threads(1)
        .map_err(failed)?
        // Its threads would go on spinning on the cores of whoever is measured next.
        .with_config_entry("session.force_spinning_stop", "1")
        .map_err(failed)?;
    if setup.exact {
        builder = builder
            .with_config_entry("session.x64quantprecision", "1")
            .map_err(failed)?;
    }
    let session = match source {
        Source::File(path) => builder.commit_from_file(path),
        Source::Bytes(bytes) => builder.commit_from_memory(bytes),
    };
    Ok(Box::new(Ready(session.map_err(failed)?)))
}

struct Ready(Session);

impl Compiled for Ready {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let values: Vec<SessionInputValue> = inputs.iter().map(view).collect::<Result<_>>()?;
        let outputs = self.0.run(values.as_slice()).map_err(failed)?;
        outputs.values().map(|v| tensor(&v)).collect()
    }
}

/// A tensor as ONNX Runtime reads it, in place.
fn view(t: &Tensor) -> Result<SessionInputValue<'_>> {
    match t.dtype() {
        DType::F32 => typed::<f32>(t),
        DType::F64 => typed::<f64>(t),
        DType::F16 => half::<half::f16>(t),
        DType::BF16 => half::<half::bf16>(t),
        DType::I8 => typed::<i8>(t),
        DType::I16 => typed::<i16>(t),
        DType::I32 => typed::<i32>(t),
        DType::I64 => typed::<i64>(t),
        DType::U8 => typed::<u8>(t),
        DType::U16 => typed::<u16>(t),
        DType::U32 => typed::<u32>(t),
        DType::U64 => typed::<u64>(t),
        DType::Bool => {
            let owned = ort::value::Tensor::from_array((t.dims(), t.bools()?));
            owned.map(SessionInputValue::from).map_err(failed)
        }
        other => Err(Error::unsupported(format!("no tensors of {other}"))),
    }
}

fn typed<T: Element + PrimitiveTensorElementType + std::fmt::Debug>(
    t: &Tensor,
) -> Result<SessionInputValue<'_>> {
    match t.data::<T>()? {
        std::borrow::Cow::Borrowed(data) => TensorRef::from_array_view((t.dims(), data))
            .map(SessionInputValue::from)
            .map_err(failed),
        std::borrow::Cow::Owned(data) => ort::value::Tensor::from_array((t.dims(), data))
            .map(SessionInputValue::from)
            .map_err(failed),
    }
}

fn half<T: bytemuck::Pod + PrimitiveTensorElementType + std::fmt::Debug>(
    t: &Tensor,
) -> Result<SessionInputValue<'_>> {
    let data: Vec<T> = bytemuck::pod_collect_to_vec(t.bytes());
    let owned = ort::value::Tensor::from_array((t.dims(), data));
    owned.map(SessionInputValue::from).map_err(failed)
}

/// What ONNX Runtime made, copied.
fn tensor(value: &DynValue) -> Result<Tensor> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(Error::unsupported("an output is no tensor"));
    };
    match ty {
        TensorElementType::Float32 => copied::<f32>(value, DType::F32),
        TensorElementType::Float64 => copied::<f64>(value, DType::F64),
        TensorElementType::Float16 => copied::<half::f16>(value, DType::F16),
        TensorElementType::Bfloat16 => copied::<half::bf16>(value, DType::BF16),
        TensorElementType::Int8 => copied::<i8>(value, DType::I8),
        TensorElementType::Int16 => copied::<i16>(value, DType::I16),
        TensorElementType::Int32 => copied::<i32>(value, DType::I32),
        TensorElementType::Int64 => copied::<i64>(value, DType::I64),
        TensorElementType::Uint8 => copied::<u8>(value, DType::U8),
        TensorElementType::Uint16 => copied::<u16>(value, DType::U16),
        TensorElementType::Uint32 => copied::<u32>(value, DType::U32),
        TensorElementType::Uint64 => copied::<u64>(value, DType::U64),
        TensorElementType::Bool => {
            let (shape, data) = value.try_extract_tensor::<bool>().map_err(failed)?;
            Tensor::from_bools(&dims(shape)?, data)
        }
        other => Err(Error::unsupported(format!("an output is of {other}"))),
    }
}

fn copied<T: bytemuck::Pod + PrimitiveTensorElementType>(
    value: &DynValue,
    dtype: DType,
) -> Result<Tensor> {
    let (shape, data) = value.try_extract_tensor::<T>().map_err(failed)?;
    let bytes: &[u8] = bytemuck::cast_slice(data);
    Tensor::from_bytes(dtype, &dims(shape)?, bytes.to_vec().into())
}

fn dims(shape: &[i64]) -> Result<Vec<usize>> {
    let each = shape.iter().map(|&d| usize::try_from(d));
    each.collect::<Result<_, _>>()
        .map_err(|_| Error::invalid("an output has a negative length"))
}

fn failed<R>(e: ort::Error<R>) -> Error {
    Error::invalid(e.message().trim().to_owned())
}
