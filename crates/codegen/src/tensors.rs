//! Tensors of a graph as what a program's ports hold, and back.

use edgesmith_ir::{DType, Error, Result, Tensor};
use half::f16;

use crate::emit::moves::steps;
use crate::program::{Data, Element, Port, Program};

/// For each element in memory, its place in the row-major tensor.
fn places(port: &Port) -> Vec<usize> {
    let strides = steps(&port.dims);
    let mut all = vec![0];
    for &axis in &port.order {
        let (length, stride) = (port.dims[axis], strides[axis] as usize);
        all = all
            .iter()
            .flat_map(|&at| (0..length).map(move |i| at + i * stride))
            .collect();
    }
    all
}

impl Program {
    /// What input `i` holds for a tensor of the graph: floats are quantised where the program takes
    /// integers.
    ///
    /// # Errors
    /// When the tensor does not fit.
    pub fn input(&self, i: usize, tensor: &Tensor) -> Result<Data> {
        let port = &self.inputs[i];
        let buffer = &self.buffers[port.buffer];
        if tensor.count() != buffer.count {
            return Err(Error::invalid(format!(
                "input \"{}\" has {:?}, the code takes {:?}",
                port.name,
                tensor.dims(),
                port.dims
            )));
        }
        let places = places(port);
        let ints = || -> Result<Vec<i64>> {
            let all = tensor.to_i64()?;
            Ok(places.iter().map(|&p| all[p]).collect())
        };
        Ok(match buffer.element {
            Element::I8 if tensor.dtype().is_float() => {
                let grid = buffer.grid.ok_or_else(|| {
                    Error::invalid(format!("input \"{}\" takes integers", port.name))
                })?;
                let all = tensor.to_f32()?;
                Data::I8(places.iter().map(|&p| grid.integer(all[p])).collect())
            }
            Element::I8 => {
                let shift = if tensor.dtype() == DType::U8 { 128 } else { 0 };
                Data::I8(ints()?.iter().map(|&n| (n - shift) as i8).collect())
            }
            Element::I16 => Data::I16(ints()?.iter().map(|&n| n as i16).collect()),
            Element::I32 => Data::I32(ints()?.iter().map(|&n| n as i32).collect()),
            Element::F32 => {
                let all = tensor.to_f32()?;
                Data::F32(places.iter().map(|&p| all[p]).collect())
            }
            Element::F16 => {
                let all = tensor.to_f32()?;
                Data::F16(places.iter().map(|&p| f16::from_f32(all[p])).collect())
            }
        })
    }

    /// The tensor of type `dtype` that output `i` stands for: integers are dequantised where the graph
    /// has floats.
    ///
    /// # Errors
    /// When the type has no numbers like these.
    pub fn output(&self, i: usize, data: &Data, dtype: DType) -> Result<Tensor> {
        let port = &self.outputs[i];
        let grid = self.buffers[port.buffer].grid;
        let places = places(port);
        match data {
            Data::I8(v) if dtype == DType::F32 => {
                let grid = grid.ok_or_else(|| {
                    Error::internal(format!("output \"{}\" has no scale", port.name))
                })?;
                let numbers: Vec<f32> = v.iter().map(|&q| grid.number(q)).collect();
                Tensor::from_vec(&port.dims, turned(&numbers, &places))
            }
            Data::I8(v) if dtype == DType::U8 => {
                let bytes: Vec<u8> = v.iter().map(|&q| (i32::from(q) + 128) as u8).collect();
                Tensor::from_vec(&port.dims, turned(&bytes, &places))
            }
            Data::I16(v) if dtype == DType::F32 => {
                let scale = grid.map_or(1.0, |g| g.scale);
                let numbers: Vec<f32> = v.iter().map(|&q| f32::from(q) * scale).collect();
                Tensor::from_vec(&port.dims, turned(&numbers, &places))
            }
            Data::I8(v) => Tensor::from_vec(&port.dims, turned(v, &places)),
            Data::I16(v) => Tensor::from_vec(&port.dims, turned(v, &places)),
            Data::I32(v) => Tensor::from_vec(&port.dims, turned(v, &places)),
            Data::F32(v) if dtype == DType::F16 => {
                let v: Vec<f16> = v.iter().map(|&x| f16::from_f32(x)).collect();
                Tensor::from_vec(&port.dims, turned(&v, &places))
            }
            Data::F32(v) => Tensor::from_vec(&port.dims, turned(v, &places)),
            Data::F16(v) if dtype == DType::F32 => {
                let v: Vec<f32> = v.iter().map(|x| x.to_f32()).collect();
                Tensor::from_vec(&port.dims, turned(&v, &places))
            }
            Data::F16(v) => Tensor::from_vec(&port.dims, turned(v, &places)),
        }
    }

    /// The elements of output `i` from bytes as a device writes them, little end first.
    ///
    /// # Errors
    /// When there are more or fewer.
    pub fn output_of_bytes(&self, i: usize, bytes: &[u8]) -> Result<Data> {
        let port = &self.outputs[i];
        let buffer = &self.buffers[port.buffer];
        if bytes.len() != buffer.bytes() {
            return Err(Error::invalid(format!(
                "output \"{}\" has {} bytes, not {}",
                port.name,
                bytes.len(),
                buffer.bytes()
            )));
        }
        Ok(match buffer.element {
            Element::I8 => Data::I8(bytes.iter().map(|&b| b as i8).collect()),
            Element::I16 => Data::I16(numbers(bytes, i16::from_le_bytes)),
            Element::I32 => Data::I32(numbers(bytes, i32::from_le_bytes)),
            Element::F32 => Data::F32(numbers(bytes, f32::from_le_bytes)),
            Element::F16 => Data::F16(numbers(bytes, f16::from_le_bytes)),
        })
    }
}

/// Numbers of `N` bytes each.
fn numbers<T, const N: usize>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    let chunks = bytes.chunks_exact(N);
    chunks.filter_map(|c| c.try_into().ok()).map(of).collect()
}

/// Elements in memory as they stand in the row-major tensor.
fn turned<T: Copy + Default>(data: &[T], places: &[usize]) -> Vec<T> {
    let mut made = vec![T::default(); data.len()];
    for (&x, &p) in data.iter().zip(places) {
        made[p] = x;
    }
    made
}
