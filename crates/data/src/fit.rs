//! How a tensor of a sample becomes a part of a model's input.

use edgesmith_ir::error::At;
use edgesmith_ir::random::Random;
use edgesmith_ir::types::{Dim, TensorType};
use edgesmith_ir::{DType, Error, Graph, Result, Tensor};

use crate::augment::{Apply, Augment, Planes};
use crate::cast::cast;
use crate::dataset::sample_axis;
use crate::normalize::Normalize;
use crate::source::{Field, Holds};

/// Channels at most of what is taken for an image by its shape.
const MOST_CHANNELS: usize = 4;

/// An input of a model, and the field that fills it.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The name of the input.
    pub name: String,
    dtype: DType,
    /// Which field.
    pub field: usize,
    /// The axis of the input along which samples stand; `None` where all have the same tensor.
    pub axis: Option<usize>,
    /// The lengths of a sample in the input.
    dims: Vec<usize>,
    from: Kind,
    is_turned: bool,
}

/// What a sample is by its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Planes `[channels, height, width]`, or pixels with their channels last.
    Image {
        dims: [usize; 3],
        last: bool,
    },
    /// One row of floats.
    Row,
    Other,
}

/// The inputs of a graph that are to be filled, each with its field: by name, or the only one.
///
/// # Errors
/// When a field is missing or left over, or shapes do not go together.
pub fn fits(graph: &Graph, fields: &[Field]) -> Result<Vec<Fit>> {
    let fed = graph.inputs.iter().map(|&v| graph.value(v));
    let fed: Vec<_> = fed.filter(|v| v.constant.is_none()).collect();
    let batch = fed
        .iter()
        .find_map(|v| v.tensor_type()?.shape.as_ref()?.first().cloned());
    let needed = fields.iter().filter(|f| f.holds == Holds::Own).count();
    let mut found = Vec::new();
    for value in &fed {
        let by_name = fields.iter().position(|f| f.name == value.name);
        let only = || {
            let own = fields.iter().position(|f| f.holds == Holds::Own);
            own.filter(|_| fed.len() == 1 && needed == 1)
        };
        let field = by_name.or_else(only).ok_or_else(|| {
            let names: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
            Error::invalid(format!(
                "samples have nothing for the input \"{}\"",
                value.name
            ))
            .hint(format!("they have {}", names.join(", ")))
        })?;
        let ty = value.tensor_type().ok_or_else(|| {
            Error::unsupported("its type is no tensor").at(format!("input \"{}\"", value.name))
        })?;
        let fit = Fit::of(&value.name, ty, batch.as_ref(), field, &fields[field]);
        found.push(fit.at(|| format!("input \"{}\"", value.name))?);
    }
    let is_used = |i: usize| found.iter().any(|f: &Fit| f.field == i);
    let left = fields
        .iter()
        .enumerate()
        .find(|(i, f)| f.holds != Holds::Extra && !is_used(*i));
    match left {
        Some((_, field)) => Err(Error::invalid(format!(
            "samples have \"{}\", which is no input of the model",
            field.name
        ))),
        None => Ok(found),
    }
}

impl Fit {
    fn of(
        name: &str,
        ty: &TensorType,
        batch: Option<&Dim>,
        field: usize,
        of: &Field,
    ) -> Result<Self> {
        let plain = |axis: Option<usize>| Self {
            name: name.to_owned(),
            dtype: ty.dtype,
            field,
            axis,
            dims: of.dims.clone(),
            from: kind(of.dtype, &of.dims),
            is_turned: false,
        };
        if of.holds == Holds::Shared {
            return Ok(plain(None));
        }
        let Some(shape) = &ty.shape else {
            return Ok(plain(Some(0)));
        };
        let axis = sample_axis(Some(shape), batch, shape.rank())
            .ok_or_else(|| Error::invalid("it has no axis for samples"))?;
        let wanted = shape.iter().enumerate().filter(|(i, _)| *i != axis);
        let wanted: Vec<&Dim> = wanted.map(|(_, d)| d).collect();
        let mut fit = plain(Some(axis));
        if matches(&wanted, &of.dims) {
            return Ok(fit);
        }
        if let &[x, y, z] = &of.dims[..] {
            let planes = Kind::Image {
                dims: [x, y, z],
                last: false,
            };
            let pixels = Kind::Image {
                dims: [z, x, y],
                last: true,
            };
            for (from, channels, dims) in [(planes, x, [y, z, x]), (pixels, z, [z, x, y])] {
                if channels <= MOST_CHANNELS && matches(&wanted, &dims) {
                    (fit.from, fit.dims, fit.is_turned) = (from, dims.to_vec(), true);
                    return Ok(fit);
                }
            }
        }
        fit.dims = reshaped(&wanted, &of.dims).ok_or_else(|| {
            Error::invalid(format!(
                "the model expects {ty}, a sample is {}",
                edgesmith_ir::types::Shape::fixed(&of.dims)
            ))
            .hint("a sample has the model's shape without the batch; images may have their channels first or last")
        })?;
        Ok(fit)
    }

    /// True where samples are images of floats, or sounds, as an augmentation asks.
    pub fn takes(&self, augment: &Augment) -> bool {
        match (&augment.def.apply, self.from) {
            (Apply::Image(_), Kind::Image { .. }) | (Apply::Audio(_), Kind::Row) => {
                self.dtype.is_float() && self.axis.is_some()
            }
            (Apply::Batch(_), _) => self.dtype.is_float() && self.axis.is_some(),
            _ => false,
        }
    }

    /// True where samples are images that a normalization fits.
    pub fn normalizes(&self, way: &Normalize) -> bool {
        let fits = matches!(self.from, Kind::Image { dims, .. } if way.fits(dims[0]));
        fits && self.dtype.is_float() && self.axis.is_some()
    }

    /// A tensor of a sample as the input takes it: normalized, then augmented, then laid out.
    ///
    /// # Errors
    /// When a number does not go into the input's type.
    pub fn apply(
        &self,
        t: &Tensor,
        way: Option<&Normalize>,
        augments: &[Augment],
        random: &mut Random,
    ) -> Result<Tensor> {
        let way = way.filter(|way| self.normalizes(way));
        let augments = augments.iter().filter(|a| self.takes(a));
        let augments: Vec<&Augment> = augments
            .filter(|a| !matches!(a.def.apply, Apply::Batch(_)))
            .collect();
        if way.is_none() && augments.is_empty() {
            let laid_out = match (self.from, self.is_turned) {
                (Kind::Image { dims, last }, true) => {
                    let pixels = dims[1] * dims[2];
                    let (rows, columns) = if last {
                        (pixels, dims[0])
                    } else {
                        (dims[0], pixels)
                    };
                    let size = t.dtype().bits() / 8;
                    let bytes: Vec<&[u8]> = t.bytes().chunks_exact(size.max(1)).collect();
                    let bytes = turned(&bytes, rows, columns).concat();
                    Tensor::from_bytes(t.dtype(), &self.dims, bytes.into())?
                }
                _ => t.reshaped(&self.dims)?,
            };
            return cast(&laid_out, self.dtype);
        }
        let mut data = t.to_f32()?.into_owned();
        if let Kind::Image { dims, last } = self.from {
            let [c, h, w] = dims;
            if last {
                data = turned(&data, h * w, c);
            }
            if let Some(way) = way {
                way.apply(&mut data, c);
            }
            for augment in &augments {
                if let Apply::Image(f) = augment.def.apply {
                    f(
                        random,
                        augment.amount,
                        &mut Planes {
                            data: &mut data,
                            dims,
                        },
                    );
                }
            }
            if last != self.is_turned {
                data = turned(&data, c, h * w);
            }
        }
        for augment in &augments {
            if let Apply::Audio(f) = augment.def.apply {
                f(random, augment.amount, &mut data);
            }
        }
        cast(&Tensor::from_vec(&self.dims, data)?, self.dtype)
    }
}

fn kind(dtype: DType, dims: &[usize]) -> Kind {
    let image = |dims, last| Kind::Image { dims, last };
    match *dims {
        [n] if n > 0 && dtype.is_float() => Kind::Row,
        [h, w] if h > 1 && w > 1 => image([1, h, w], false),
        [c, h, w] if c <= MOST_CHANNELS => image([c, h, w], false),
        [h, w, c] if c <= MOST_CHANNELS => image([c, h, w], true),
        _ => Kind::Other,
    }
}

fn matches(wanted: &[&Dim], dims: &[usize]) -> bool {
    let same = |(w, &d): (&&Dim, &usize)| w.known().is_none_or(|k| k == d);
    wanted.len() == dims.len() && wanted.iter().zip(dims).all(same)
}

/// The lengths with axes of 1 added or left out, or as one row or from one, where that is wanted.
fn reshaped(wanted: &[&Dim], dims: &[usize]) -> Option<Vec<usize>> {
    let own: Vec<usize> = dims.iter().copied().filter(|&n| n != 1).collect();
    let open = |d: &&&Dim| d.known() != Some(1);
    let longer: Vec<&Dim> = wanted.iter().filter(open).copied().collect();
    if matches(&longer, &own) {
        let mut own = own.into_iter();
        let length = |d: &&Dim| if open(&d) { own.next() } else { Some(1) };
        return wanted.iter().map(length).collect();
    }
    let known: Vec<usize> = wanted.iter().map(|d| d.known()).collect::<Option<_>>()?;
    let count = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let is_row = known.len() == 1 || dims.len() == 1;
    (is_row && count(&known) == count(dims)).then_some(known)
}

/// Rows of a matrix as columns.
fn turned<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    let column = |c: usize| (0..rows).map(move |r| data[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::types::Shape;

    fn graph(dtype: DType, dims: &[usize]) -> Graph {
        let mut g = Graph::new("g");
        let dims = dims.iter().map(|&d| Dim::Known(d));
        let shape: Shape = std::iter::once(Dim::symbol("n")).chain(dims).collect();
        g.add_input("x", TensorType::new(dtype, shape));
        g
    }

    fn field(dtype: DType, dims: &[usize]) -> Field {
        Field {
            name: "image".into(),
            dtype,
            dims: dims.to_vec(),
            holds: Holds::Own,
        }
    }

    fn fit(model: &[usize], sample: &[usize]) -> Result<Fit> {
        let fields = [field(DType::U8, sample)];
        fits(&graph(DType::F32, model), &fields).map(|mut f| f.remove(0))
    }

    fn numbers(dims: &[usize]) -> Tensor {
        let count: usize = dims.iter().product();
        Tensor::from_vec(dims, (0..count).map(|i| i as u8).collect()).unwrap()
    }

    fn laid_out(model: &[usize], sample: &[usize]) -> Vec<f32> {
        let fit = fit(model, sample).unwrap();
        let t = fit
            .apply(&numbers(sample), None, &[], &mut Random::new(0))
            .unwrap();
        assert_eq!(t.dims(), model);
        t.to_f32().unwrap().into_owned()
    }

    #[test]
    fn channels_come_first_or_last_as_the_model_wants() {
        assert_eq!(
            laid_out(&[1, 2, 3], &[3, 1, 2]),
            [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
        );
        assert_eq!(
            laid_out(&[3, 1, 2], &[1, 2, 3]),
            [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
        );
        let plain: Vec<f32> = (0..8).map(|i| i as f32).collect();
        for (model, sample) in [
            (&[2, 2, 2][..], &[2, 2, 2][..]),
            (&[1, 4, 2], &[4, 2]),
            (&[4, 2, 1], &[4, 2]),
            (&[8], &[4, 2]),
            (&[4, 2], &[1, 4, 2]),
            (&[2, 4], &[8]),
        ] {
            assert_eq!(laid_out(model, sample), plain, "{model:?} {sample:?}");
        }
    }

    #[test]
    fn pixels_are_normalized_in_either_layout() {
        let way = Normalize::find("imagenet").unwrap();
        let (planes, pixels) = ([3, 5, 2], [5, 2, 3]);
        for (model, sample) in [
            (planes, planes),
            (planes, pixels),
            (pixels, planes),
            (pixels, pixels),
        ] {
            let fit = fit(&model, &sample).unwrap();
            let t = Tensor::from_vec(&sample, vec![255u8; 30]).unwrap();
            let t = fit.apply(&t, Some(&way), &[], &mut Random::new(0)).unwrap();
            for (i, x) in t.to_f32().unwrap().iter().enumerate() {
                let c = if model == planes { i / 10 } else { i % 3 };
                let expected = (1.0 - way.mean[c]) / way.deviation[c];
                assert!((x - expected).abs() < 1e-5, "{model:?} {sample:?} {i}");
            }
        }
    }

    #[test]
    fn images_of_either_layout_are_flipped_left_for_right() {
        let flip = [Augment::parse("flip=1").unwrap()];
        for sample in [&[3, 5, 2][..], &[5, 2, 3]] {
            let fit = fit(sample, sample).unwrap();
            let t = fit
                .apply(&numbers(sample), None, &flip, &mut Random::new(0))
                .unwrap();
            let found = t.to_f32().unwrap();
            let expected = if sample[0] == 3 {
                [1.0, 0.0]
            } else {
                [3.0, 4.0]
            };
            assert_eq!(found[..2], expected);
        }
    }

    #[test]
    fn whole_numbers_and_open_lengths_fit_too() {
        let fields = [field(DType::U8, &[2, 5, 3])];
        let fit = fits(&graph(DType::U8, &[3, 2, 5]), &fields)
            .unwrap()
            .remove(0);
        let t = fit
            .apply(&numbers(&[2, 5, 3]), None, &[], &mut Random::new(0))
            .unwrap();
        assert_eq!(
            (t.dtype(), t.dims(), t.bytes()[1]),
            (DType::U8, &[3, 2, 5][..], 3)
        );
        let open = Dim::Unknown;
        assert_eq!(reshaped(&[&Dim::Known(1), &open], &[7]), Some(vec![1, 7]));
        assert_eq!(reshaped(&[&open], &[7, 1]), Some(vec![7]));
        assert_eq!(reshaped(&[&open, &open], &[7]), None);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = |model: &[usize], sample: &[usize]| fit(model, sample).unwrap_err().to_string();
        let e = told(&[3, 4, 4], &[1, 4, 4]);
        assert!(
            e.contains("input \"x\": the model expects f32[n,3,4,4], a sample is [1,4,4]"),
            "{e}"
        );
        let two = [
            field(DType::U8, &[2]),
            Field {
                name: "more".into(),
                ..field(DType::U8, &[2])
            },
        ];
        let e = fits(&graph(DType::F32, &[2]), &two)
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("nothing for the input \"x\"") && e.contains("image, more"),
            "{e}"
        );
        let two = [
            Field {
                name: "x".into(),
                ..two[0].clone()
            },
            two[1].clone(),
        ];
        let e = fits(&graph(DType::F32, &[2]), &two)
            .unwrap_err()
            .to_string();
        assert!(e.contains("samples have \"more\""), "{e}");
    }
}
