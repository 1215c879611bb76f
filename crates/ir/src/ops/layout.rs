//! Moving elements of any type: runs of elements copied from one or more tensors to a new one.

use smallvec::SmallVec;

use crate::tensor::checked_count;
use crate::{DType, Error, Result, Tensor, packed};

/// Lengths of axes.
pub type Dims = SmallVec<[usize; 6]>;

/// `len` neighbouring elements of source number `source`, from element `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The place of the tensor in the list of sources.
    pub source: usize,
    /// The first element.
    pub start: usize,
    /// How many elements.
    pub len: usize,
}

/// A tensor of the element type of the sources, filled by `runs` in order.
///
/// # Errors
/// When the sources differ in element type, a run is outside its source, or the runs do not fill
/// `dims` exactly.
pub fn assemble(
    sources: &[&Tensor],
    dims: &[usize],
    runs: impl Iterator<Item = Run>,
) -> Result<Tensor> {
    let first = *sources
        .first()
        .ok_or_else(|| Error::internal("nothing to copy from"))?;
    let dtype = first.dtype();
    if let Some(other) = sources.iter().find(|t| t.dtype() != dtype) {
        return Err(Error::invalid(format!(
            "the inputs should have one element type, found {dtype} and {}",
            other.dtype()
        )));
    }
    let count = checked_count(dims)?;
    if dtype == DType::String {
        let texts = sources
            .iter()
            .map(|t| t.strings())
            .collect::<Result<Vec<_>>>()?;
        return Tensor::from_strings(dims, gather(&texts, count, runs)?);
    }
    let bytes = match dtype.bits() {
        8 => wide::<1>(sources, count, runs)?,
        16 => wide::<2>(sources, count, runs)?,
        32 => wide::<4>(sources, count, runs)?,
        64 => wide::<8>(sources, count, runs)?,
        128 => wide::<16>(sources, count, runs)?,
        _ => {
            let unpacked: Vec<Vec<u8>> = sources.iter().map(|t| packed::codes(t)).collect();
            let slices: Vec<&[u8]> = unpacked.iter().map(Vec::as_slice).collect();
            return packed::from_codes(dtype, dims, &gather(&slices, count, runs)?);
        }
    };
    Tensor::from_bytes(dtype, dims, bytes.into())
}

fn wide<const N: usize>(
    sources: &[&Tensor],
    count: usize,
    runs: impl Iterator<Item = Run>,
) -> Result<Vec<u8>>
where
    [u8; N]: bytemuck::Pod,
{
    let slices: Vec<&[[u8; N]]> = sources
        .iter()
        .map(|t| bytemuck::cast_slice(t.bytes().as_ref()))
        .collect();
    let out = gather(&slices, count, runs)?;
    Ok(bytemuck::allocation::try_cast_vec(out)
        .unwrap_or_else(|(_, out)| bytemuck::cast_slice(&out).to_vec()))
}

fn gather<T: Clone>(
    sources: &[&[T]],
    count: usize,
    runs: impl Iterator<Item = Run>,
) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(count);
    for Run { source, start, len } in runs {
        let part = start
            .checked_add(len)
            .and_then(|end| sources.get(source)?.get(start..end))
            .ok_or_else(|| Error::internal("an element outside its tensor was asked for"))?;
        match part {
            [one] => out.push(one.clone()),
            _ => out.extend_from_slice(part),
        }
        if out.len() > count {
            break;
        }
    }
    if out.len() == count {
        return Ok(out);
    }
    Err(Error::internal(format!(
        "{} elements were copied to a tensor of {count}",
        out.len()
    )))
}

/// Elements of one tensor by their places.
///
/// # Errors
/// As [`assemble`].
pub fn pick(t: &Tensor, dims: &[usize], places: impl Iterator<Item = usize>) -> Result<Tensor> {
    let runs = places.map(|start| Run {
        source: 0,
        start,
        len: 1,
    });
    assemble(&[t], dims, runs)
}

/// Distances between neighbours along each axis of a row-major tensor.
pub fn strides(dims: &[usize]) -> SmallVec<[isize; 6]> {
    let mut out: SmallVec<[isize; 6]> = smallvec::smallvec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        let len = isize::try_from(dims[i]).unwrap_or(isize::MAX);
        out[i - 1] = out[i].saturating_mul(len);
    }
    out
}

/// Walks through an index space in row-major order.
pub struct Walk {
    dims: Dims,
    strides: SmallVec<[isize; 6]>,
    at: Dims,
    place: isize,
    left: usize,
}

/// The places `offset + Σ index·stride` for all indices under `dims`, row major.
///
/// # Errors
/// When there are too many.
pub fn walk(dims: &[usize], strides: &[isize], offset: usize) -> Result<Walk> {
    Ok(Walk {
        dims: dims.into(),
        strides: strides.into(),
        at: smallvec::smallvec![0; dims.len()],
        place: isize::try_from(offset).map_err(|_| Error::invalid("the offset is too large"))?,
        left: checked_count(dims)?,
    })
}

impl Walk {
    /// The index of the place that comes next.
    pub fn index(&self) -> &[usize] {
        &self.at
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // A negative place becomes one that is outside every tensor.
        let place = usize::try_from(self.place).unwrap_or(usize::MAX);
        for i in (0..self.dims.len()).rev() {
            self.at[i] += 1;
            self.place += self.strides[i];
            if self.at[i] < self.dims[i] {
                break;
            }
            let back = isize::try_from(self.at[i]).unwrap_or(isize::MAX);
            self.place -= self.strides[i].wrapping_mul(back);
            self.at[i] = 0;
        }
        Some(place)
    }
}

/// The tensor of `dims` whose element at an index is that of `t` at `offset + Σ index·stride`.
///
/// # Errors
/// As [`assemble`].
pub fn strided(t: &Tensor, dims: &[usize], strides: &[isize], offset: usize) -> Result<Tensor> {
    let (mut outer, mut len) = (dims.len(), 1usize);
    while outer > 0 && isize::try_from(len) == Ok(strides[outer - 1]) && dims[outer - 1] > 0 {
        outer -= 1;
        len *= dims[outer];
    }
    let runs = walk(&dims[..outer], &strides[..outer], offset)?.map(|start| Run {
        source: 0,
        start,
        len,
    });
    assemble(&[t], dims, runs)
}

/// `t` with two of its axes in each other's place.
///
/// # Errors
/// When the result is too large.
///
/// # Panics
/// When an axis is outside the rank: a broken invariant of the caller.
pub fn swapped(t: &Tensor, a: usize, b: usize) -> Result<Tensor> {
    let (mut dims, mut strides) = (Dims::from_slice(t.dims()), strides(t.dims()));
    dims.swap(a, b);
    strides.swap(a, b);
    strided(t, &dims, &strides, 0)
}

/// A tensor of zeros, of empty strings, or of false.
///
/// # Errors
/// When it would be too large.
pub fn zeros(dtype: DType, dims: &[usize]) -> Result<Tensor> {
    let count = checked_count(dims)?;
    if dtype == DType::String {
        return Tensor::from_strings(dims, vec![String::new(); count]);
    }
    let bytes = vec![0u8; dtype.bytes_of(count).unwrap_or(0)];
    Tensor::from_bytes(dtype, dims, bytes.into())
}

/// `t` repeated along axes of length 1 to the broadcast shape `dims`.
///
/// # Errors
/// When it does not broadcast so.
pub fn broadcast(t: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if t.dims() == dims {
        return Ok(t.clone());
    }
    strided(t, dims, &broadcast_strides(t.dims(), dims)?, 0)
}

/// The strides that repeat a tensor of `from` to the shape `to`.
///
/// # Errors
/// When it does not broadcast so.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Result<SmallVec<[isize; 6]>> {
    let fits = from.len() <= to.len()
        && from
            .iter()
            .rev()
            .zip(to.iter().rev())
            .all(|(f, t)| f == t || *f == 1);
    if !fits {
        return Err(Error::invalid(format!(
            "{} does not broadcast to {}",
            crate::Shape::fixed(from),
            crate::Shape::fixed(to)
        )));
    }
    let mut out: SmallVec<[isize; 6]> = smallvec::smallvec![0; to.len() - from.len()];
    let own = strides(from);
    out.extend(
        from.iter()
            .zip(own)
            .map(|(&d, s)| if d == 1 { 0 } else { s }),
    );
    Ok(out)
}

/// The common shape of `shapes` after broadcasting.
///
/// # Errors
/// When they do not broadcast.
pub fn broadcast_dims(shapes: &[&[usize]]) -> Result<Dims> {
    let shapes: Vec<crate::Shape> = shapes.iter().map(|d| crate::Shape::fixed(d)).collect();
    let shapes: Vec<Option<&crate::Shape>> = shapes.iter().map(Some).collect();
    crate::infer::broadcast(&shapes)?
        .and_then(|s| s.known())
        .ok_or_else(|| Error::internal("known shapes broadcast to a known shape"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn strides_read_a_transposed_matrix() {
        let t = Tensor::from_vec(&[2, 3], vec![1i16, 2, 3, 4, 5, 6]).unwrap();
        let u = strided(&t, &[3, 2], &[1, 3], 0).unwrap();
        assert_eq!(&*u.data::<i16>().unwrap(), &[1, 4, 2, 5, 3, 6]);
        let back = strided(&t, &[2, 3], &[3, -1], 2).unwrap();
        assert_eq!(&*back.data::<i16>().unwrap(), &[3, 2, 1, 6, 5, 4]);
    }

    #[test]
    fn four_bit_elements_and_texts_move_too() {
        let t = Tensor::from_bytes(DType::I4, &[3], Bytes::from(vec![0x21, 0x03])).unwrap();
        let u = pick(&t, &[3], [2usize, 0, 1].into_iter()).unwrap();
        assert_eq!(&u.bytes()[..], &[0x13, 0x02]);
        let s = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).unwrap();
        let r = pick(&s, &[3], [1usize, 1, 0].into_iter()).unwrap();
        assert_eq!(r.strings().unwrap(), ["b", "b", "a"]);
    }

    #[test]
    fn a_place_outside_is_an_error() {
        let t = Tensor::vector(vec![1u8, 2]);
        assert!(pick(&t, &[1], [2usize].into_iter()).is_err());
        assert!(pick(&t, &[3], [0usize].into_iter()).is_err());
        assert!(strided(&t, &[2], &[-1], 0).is_err());
    }

    #[test]
    fn a_column_is_repeated_along_its_axis() {
        let t = Tensor::from_vec(&[2, 1], vec![1u8, 2]).unwrap();
        let u = broadcast(&t, &[2, 2, 2]).unwrap();
        assert_eq!(&*u.data::<u8>().unwrap(), &[1, 1, 2, 2, 1, 1, 2, 2]);
        assert!(broadcast(&t, &[3, 1]).is_err());
    }
}
