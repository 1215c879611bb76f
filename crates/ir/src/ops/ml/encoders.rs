//! Categories as numbers and back: LabelEncoder, CategoryMapper, OneHotEncoder.

use std::collections::BTreeMap;

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::any;
use crate::ops::layout::{self, Run};
use crate::ops::{AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Node, Result, Tensor};

/// `ai.onnx.ml.LabelEncoder`: in version 1 between strings and their places, since 2 from keys to
/// values.
pub static LABEL_ENCODER: OpDef = OpDef {
    name: "LabelEncoder",
    since: &[1, 2, 4],
    attrs: &[
        attr("classes_strings", AttrKind::Strings),
        attr("default_float", AttrKind::Float(Some(-0.0))),
        attr("default_int64", AttrKind::Int(Some(-1))),
        attr("default_string", AttrKind::String(Some("_Unused"))),
        attr("default_tensor", AttrKind::Tensor),
        attr("keys_floats", AttrKind::Floats),
        attr("keys_int64s", AttrKind::Ints),
        attr("keys_strings", AttrKind::Strings),
        attr("keys_tensor", AttrKind::Tensor),
        attr("values_floats", AttrKind::Floats),
        attr("values_int64s", AttrKind::Ints),
        attr("values_strings", AttrKind::Strings),
        attr("values_tensor", AttrKind::Tensor),
    ],
    infer: |cx| {
        let dtype = match cx.node.strings("classes_strings") {
            Some(_) => cx.dtype(0).map(other),
            None => Some(list(cx.node, "values")?.dtype()),
        };
        let shape = cx.shape(0).cloned();
        cx.set_tensor(0, dtype, shape);
        Ok(())
    },
    eval: Some(encode),
    examples: &[
        "ai.onnx.ml.LabelEncoder@2(string[4]{\"b\",\"a\",\"c\",\"b\"}) \
         {keys_strings=[\"a\",\"b\"], values_int64s=[5,6], default_int64=-7}",
        "ai.onnx.ml.LabelEncoder@2(f32[3]{1,nan,2}) {keys_floats=[1.0,2.5], values_strings=[\"x\",\"y\"]}",
        "ai.onnx.ml.LabelEncoder@1(i64[3]{1,0,9}) {classes_strings=[\"a\",\"b\"]}",
        "ai.onnx.ml.LabelEncoder@4(i16[2,2]) \
         {keys_tensor=i16[2]{1,2}, values_tensor=f64[2]{0.5,1.5}, default_tensor=f64[1]{9}}",
    ],
    ..BASE
};

/// `ai.onnx.ml.CategoryMapper`.
pub static CATEGORY_MAPPER: OpDef = OpDef {
    name: "CategoryMapper",
    attrs: &[
        attr("cats_int64s", AttrKind::Ints),
        attr("cats_strings", AttrKind::Strings),
        attr("default_int64", AttrKind::Int(Some(-1))),
        attr("default_string", AttrKind::String(Some("_Unused"))),
    ],
    infer: |cx| {
        let shape = cx.shape(0).cloned();
        cx.set_tensor(0, cx.dtype(0).map(other), shape);
        Ok(())
    },
    eval: Some(|cx| {
        let x = cx.input(0)?;
        let ints = ints_tensor(cx.node.ints("cats_int64s").unwrap_or_default());
        let strings = strings_tensor(cx.node.strings("cats_strings").unwrap_or_default())?;
        let (keys, values) = match x.dtype() {
            DType::String => (&strings, &ints),
            _ => (&ints, &strings),
        };
        Ok(vec![mapped(
            x,
            keys,
            values,
            &default(cx.node, values.dtype())?,
            true,
        )?])
    }),
    examples: &[
        "ai.onnx.ml.CategoryMapper(string[3]{\"b\",\"a\",\"c\"}) \
         {cats_int64s=[1,2], cats_strings=[\"a\",\"b\"]}",
        "ai.onnx.ml.CategoryMapper(i64[2]{2,7}) {cats_int64s=[1,2], cats_strings=[\"a\",\"b\"]}",
    ],
    ..BASE
};

/// `ai.onnx.ml.OneHotEncoder`: a further axis with a 1 at the place of the category.
pub static ONE_HOT_ENCODER: OpDef = OpDef {
    name: "OneHotEncoder",
    attrs: &[
        attr("cats_int64s", AttrKind::Ints),
        attr("cats_strings", AttrKind::Strings),
        attr("zeros", AttrKind::Int(Some(1))),
    ],
    infer: infer_one_hot,
    eval: Some(one_hot),
    examples: &[
        "ai.onnx.ml.OneHotEncoder(i64[2,2]) {cats_int64s=[0,1,2]}",
        "ai.onnx.ml.OneHotEncoder(string[2]{\"b\",\"z\"}) {cats_strings=[\"a\",\"b\"]}",
    ],
    ..BASE
};

/// What strings become, and what else becomes strings.
fn other(dtype: DType) -> DType {
    match dtype {
        DType::String => DType::I64,
        _ => DType::String,
    }
}

fn ints_tensor(ints: &[i64]) -> Tensor {
    Tensor::vector(ints.to_vec())
}

fn strings_tensor(strings: Vec<String>) -> Result<Tensor> {
    Tensor::from_strings(&[strings.len()], strings)
}

/// The list that one of the attributes `name_tensor`, `name_strings`, … gives.
fn list(node: &Node, name: &str) -> Result<Tensor> {
    if let Some(t) = node.tensor(&format!("{name}_tensor")) {
        return t.reshaped(&[t.count()]);
    }
    if let Some(s) = node.strings(&format!("{name}_strings")) {
        return strings_tensor(s);
    }
    if let Some(i) = node.ints(&format!("{name}_int64s")) {
        return Ok(ints_tensor(i));
    }
    match node.floats(&format!("{name}_floats")) {
        Some(f) => Ok(Tensor::vector(f.to_vec())),
        None => Err(Error::invalid(format!("no attribute gives {name}"))),
    }
}

/// What stands for keys that are not there, of type `dtype`.
fn default(node: &Node, dtype: DType) -> Result<Tensor> {
    if let Some(t) = node.tensor("default_tensor").filter(|t| t.count() == 1) {
        return t.reshaped(&[]);
    }
    match dtype {
        DType::String => {
            let text = node.string("default_string").unwrap_or("_Unused");
            Tensor::from_strings(&[], vec![text.to_owned()])
        }
        d if d.is_float() => {
            let value = f64::from(node.float("default_float").unwrap_or(-0.0));
            crate::ops::arith::from_floats(d, &[], vec![value])
        }
        d => {
            let value = i128::from(node.int("default_int64").unwrap_or(-1));
            crate::ops::arith::from_integers(d, &[], &[value])
        }
    }
}

/// Something that keys are compared by: text, or the bits of a number of which all that are no
/// numbers are one, as are both zeros.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Number(u64),
}

fn keys(t: &Tensor) -> Result<Vec<Key>> {
    if t.dtype() == DType::String {
        return Ok(t.strings()?.iter().cloned().map(Key::Text).collect());
    }
    if t.dtype() == DType::I64 {
        let all = t.to_i64()?.into_iter();
        return Ok(all.map(|i| Key::Number(i as u64)).collect());
    }
    let bits = |v: f64| match v {
        _ if v.is_nan() => f64::NAN.to_bits(),
        _ => (v + 0.0).to_bits(),
    };
    Ok(any(t)?.into_iter().map(|v| Key::Number(bits(v))).collect())
}

/// The value of each element of `x`: that of the last of equal keys, or of the first.
fn mapped(
    x: &Tensor,
    of: &Tensor,
    values: &Tensor,
    default: &Tensor,
    last: bool,
) -> Result<Tensor> {
    if of.count() != values.count() || of.dtype() != x.dtype() {
        return Err(Error::invalid(format!(
            "keys {} and values {} do not fit {}",
            of.ty(),
            values.ty(),
            x.ty()
        )));
    }
    let mut places = BTreeMap::new();
    for (i, key) in keys(of)?.into_iter().enumerate() {
        let place = places.entry(key).or_insert(i);
        if last {
            *place = i;
        }
    }
    let found = keys(x)?.into_iter().map(|key| places.get(&key).copied());
    let runs = found.map(|place| Run {
        source: usize::from(place.is_none()),
        start: place.unwrap_or(0),
        len: 1,
    });
    layout::assemble(&[values, default], x.dims(), runs)
}

fn encode(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (keys, values) = match cx.node.strings("classes_strings") {
        Some(classes) => {
            let places = Tensor::vector((0..classes.len() as i64).collect());
            let classes = strings_tensor(classes)?;
            match x.dtype() {
                DType::String => (classes, places),
                _ => (places, classes),
            }
        }
        None => (list(cx.node, "keys")?, list(cx.node, "values")?),
    };
    let default = default(cx.node, values.dtype())?;
    Ok(vec![mapped(x, &keys, &values, &default, cx.version >= 4)?])
}

/// How many categories there are.
fn categories(node: &Node) -> Result<usize> {
    let ints = node.ints("cats_int64s").unwrap_or_default().len();
    let strings = node.strings("cats_strings").unwrap_or_default().len();
    match (ints, strings) {
        (n, 0) | (0, n) if n > 0 => Ok(n),
        _ => Err(Error::invalid("one list of categories is needed")),
    }
}

fn infer_one_hot(cx: &mut InferCx) -> Result<()> {
    let count = categories(cx.node)?;
    let shape = cx.shape(0).cloned().map(|mut s| {
        s.0.push(Dim::Known(count));
        s
    });
    cx.set_tensor(0, Some(DType::F32), shape);
    Ok(())
}

fn one_hot(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let count = categories(cx.node)?;
    let (found, known) = match x.dtype() {
        DType::String => (
            keys(x)?,
            keys(&strings_tensor(
                cx.node.strings("cats_strings").unwrap_or_default(),
            )?)?,
        ),
        _ => {
            let whole = any(x)?.into_iter().map(|v| v as i64).collect();
            let ints = cx.node.ints("cats_int64s").unwrap_or_default();
            (keys(&Tensor::vector(whole))?, keys(&ints_tensor(ints))?)
        }
    };
    let dims = [x.dims(), &[count]].concat();
    let mut y = vec![0f32; crate::checked_count(&dims)?];
    for (key, row) in found.iter().zip(y.chunks_mut(count)) {
        match known.iter().position(|k| k == key) {
            Some(at) => row[at] = 1.0,
            None if cx.int("zeros", 1) != 0 => {}
            None => return Err(Error::invalid("an element is none of the categories")),
        }
    }
    Ok(vec![Tensor::from_vec(&dims, y)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_no_number_is_one_key_and_large_integers_stay_apart() {
        let odd = Tensor::vector(vec![f32::NAN, -f32::NAN, 0.0, -0.0]);
        let k = keys(&odd).unwrap();
        assert!(k[0] == k[1] && k[2] == k[3] && k[0] != k[2]);
        let large = keys(&Tensor::vector(vec![i64::MAX, i64::MAX - 1])).unwrap();
        assert!(large[0] != large[1]);
    }

    #[test]
    fn the_last_of_equal_keys_counts_since_version_4() {
        let (keys, values) = (Tensor::vector(vec![1i64, 1]), Tensor::vector(vec![5i64, 6]));
        let (x, none) = (Tensor::vector(vec![1i64, 2]), Tensor::scalar(-1i64));
        for (last, expected) in [(true, [6, -1]), (false, [5, -1])] {
            let y = mapped(&x, &keys, &values, &none, last).unwrap();
            assert_eq!(y.to_i64().unwrap(), expected);
        }
    }
}
