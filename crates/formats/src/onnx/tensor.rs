//! Tensors: ONNX's `TensorProto` and `SparseTensorProto` to ours, and ours to `TensorProto`.

use std::cell::Cell;

use bytes::Bytes;
use edgesmith_ir::{DType, Error, Result, Tensor, checked_count};
use half::{bf16, f16};

use super::external::ExternalFiles;
use super::proto::{EXTERNAL, SparseTensorProto, TensorProto};
use super::types::dtype;

/// Sparse initializers of one model become at most so many bytes of dense data.
pub const MAX_DENSE: usize = 16 << 20;

/// Reads tensors of one model.
pub struct TensorReader {
    files: ExternalFiles,
    dense: Cell<usize>,
}

impl TensorReader {
    /// A reader that finds external data in `files`.
    pub fn new(files: ExternalFiles) -> Self {
        Self {
            files,
            dense: Cell::new(0),
        }
    }

    /// The tensor, its data shared with the message where it stands there as raw bytes.
    ///
    /// # Errors
    /// When the data does not fit element type and shape, or external data cannot be read.
    pub fn read(&self, proto: &TensorProto) -> Result<Tensor> {
        let dims = dims(&proto.dims)?;
        let dtype = dtype(proto.data_type.unwrap_or(0))?;
        let count = checked_count(&dims)?;
        if proto.segment.is_some() {
            return Err(Error::unsupported("tensors in segments are not supported"));
        }
        if dtype == DType::String {
            let text = proto.string_data.iter().map(|s| {
                String::from_utf8(s.to_vec()).map_err(|_| Error::invalid("a string is not UTF-8"))
            });
            return Tensor::from_strings(&dims, text.collect::<Result<_>>()?);
        }
        let needed = dtype
            .bytes_of(count)
            .ok_or_else(|| Error::invalid("the tensor is too large"))?;
        if proto.data_location == Some(EXTERNAL) {
            let data = self.files.load(&proto.external_data, needed)?;
            return Tensor::from_bytes(dtype, &dims, data);
        }
        match &proto.raw_data {
            Some(raw) if !raw.is_empty() || !has_typed(proto) => {
                Tensor::from_bytes(dtype, &dims, raw.clone())
            }
            _ => typed(proto, dtype, &dims, count),
        }
    }

    /// The dense form of a sparse tensor.
    ///
    /// # Errors
    /// When indices lie outside, or the dense data of the model would be over [`MAX_DENSE`].
    pub fn read_sparse(&self, proto: &SparseTensorProto) -> Result<Tensor> {
        let part = |p: &Option<TensorProto>, what: &str| {
            let p = p
                .as_ref()
                .ok_or_else(|| Error::invalid(format!("the sparse tensor has no {what}")))?;
            self.read(p)
        };
        let (values, indices) = (
            part(&proto.values, "values")?,
            part(&proto.indices, "indices")?,
        );
        let dims = dims(&proto.dims)?;
        let (count, width) = (checked_count(&dims)?, values.dtype().bits() / 8);
        let size = count.saturating_mul(width);
        if width == 0 || size.saturating_add(self.dense.get()) > MAX_DENSE {
            return Err(Error::unsupported(format!(
                "the sparse initializer would take {size} bytes as a dense {}",
                values.ty().dtype
            )));
        }
        self.dense.set(self.dense.get() + size);
        let indices = flat_indices(&indices, &dims, values.count())?;
        let mut data = vec![0u8; size];
        for (value, at) in values.bytes().chunks_exact(width).zip(indices) {
            data[at * width..(at + 1) * width].copy_from_slice(value);
        }
        Tensor::from_bytes(values.dtype(), &dims, data.into())
    }
}

fn dims(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter()
        .map(|&d| {
            usize::try_from(d).map_err(|_| Error::invalid(format!("an axis has the length {d}")))
        })
        .collect()
}

/// Positions in row-major order; indices are `[n]` of those, or `[n, rank]` of coordinates.
fn flat_indices(indices: &Tensor, dims: &[usize], n: usize) -> Result<Vec<usize>> {
    let columns = match indices.dims() {
        [rows] if *rows == n => 1,
        [rows, columns] if *rows == n && *columns == dims.len() => *columns,
        _ => {
            return Err(Error::invalid(format!(
                "{n} sparse values have indices of {}",
                indices.ty()
            )));
        }
    };
    let flat = dims.to_vec();
    let bounds = if indices.rank() == 1 {
        vec![flat.iter().product()]
    } else {
        flat
    };
    let numbers = indices.to_i64()?;
    (0..n)
        .map(|row| {
            (0..columns).try_fold(0usize, |at, c| {
                let i = usize::try_from(numbers[row * columns + c]).ok();
                match i.filter(|&i| i < bounds[c]) {
                    Some(i) => Ok(at * bounds[c] + i),
                    None => Err(Error::invalid("a sparse index lies outside the tensor")),
                }
            })
        })
        .collect()
}

fn has_typed(p: &TensorProto) -> bool {
    !(p.float_data.is_empty()
        && p.int32_data.is_empty()
        && p.int64_data.is_empty()
        && p.double_data.is_empty()
        && p.uint64_data.is_empty())
}

/// A tensor from the typed fields, by the table in the comments of `TensorProto`.
fn typed(p: &TensorProto, dtype: DType, dims: &[usize], count: usize) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_vec(dims, p.float_data.clone()),
        DType::F64 => Tensor::from_vec(dims, p.double_data.clone()),
        DType::I64 => Tensor::from_vec(dims, p.int64_data.clone()),
        DType::U64 => Tensor::from_vec(dims, p.uint64_data.clone()),
        DType::I32 => Tensor::from_vec(dims, p.int32_data.clone()),
        DType::U32 => Tensor::from_vec(dims, narrow::<u64, u32>(&p.uint64_data)?),
        DType::I16 => Tensor::from_vec(dims, narrow::<i32, i16>(&p.int32_data)?),
        DType::U16 => Tensor::from_vec(dims, narrow::<i32, u16>(&p.int32_data)?),
        DType::I8 => Tensor::from_vec(dims, narrow::<i32, i8>(&p.int32_data)?),
        DType::F16 => {
            let bits = narrow::<i32, u16>(&p.int32_data)?;
            Tensor::from_vec(dims, bits.into_iter().map(f16::from_bits).collect())
        }
        DType::BF16 => {
            let bits = narrow::<i32, u16>(&p.int32_data)?;
            Tensor::from_vec(dims, bits.into_iter().map(bf16::from_bits).collect())
        }
        DType::C64 => {
            let bytes = p.float_data.iter().flat_map(|x| x.to_le_bytes());
            Tensor::from_bytes(dtype, dims, bytes.collect())
        }
        DType::C128 => {
            let bytes = p.double_data.iter().flat_map(|x| x.to_le_bytes());
            Tensor::from_bytes(dtype, dims, bytes.collect())
        }
        _ if dtype.bits() < 8 => packed(p, dtype, dims, count),
        _ => {
            let bytes = narrow::<i32, u8>(&p.int32_data)?;
            Tensor::from_bytes(dtype, dims, Bytes::from(bytes))
        }
    }
}

/// Elements under 8 bits: each number is one byte of packed elements.
fn packed(p: &TensorProto, dtype: DType, dims: &[usize], count: usize) -> Result<Tensor> {
    let bytes = p.int32_data.iter().map(|&i| {
        u8::try_from(i)
            .or_else(|_| i8::try_from(i).map(|i| i as u8))
            .map_err(|_| Error::invalid(format!("{i} is no byte of packed {dtype}")))
    });
    let bytes: Vec<u8> = bytes.collect::<Result<_>>()?;
    let tensor = Tensor::from_bytes(dtype, dims, bytes.into());
    tensor.map_err(|e| e.hint(format!("{count} elements of {dtype} share bytes")))
}

fn narrow<A, B>(data: &[A]) -> Result<Vec<B>>
where
    A: Copy + std::fmt::Display,
    B: TryFrom<A>,
{
    data.iter()
        .map(|&x| {
            B::try_from(x).map_err(|_| Error::invalid(format!("{x} is outside the element type")))
        })
        .collect()
}

/// The message that holds a tensor as raw bytes, shared with it.
pub fn to_proto(tensor: &Tensor, name: &str) -> TensorProto {
    let mut proto = TensorProto {
        dims: tensor.dims().iter().map(|&d| d as i64).collect(),
        data_type: Some(tensor.dtype().onnx()),
        name: (!name.is_empty()).then(|| name.to_owned()),
        ..TensorProto::default()
    };
    match tensor.strings() {
        Ok(strings) => {
            proto.string_data = strings
                .iter()
                .map(|s| Bytes::copy_from_slice(s.as_bytes()))
                .collect();
        }
        Err(_) => proto.raw_data = Some(tensor.bytes().clone()),
    }
    proto
}
