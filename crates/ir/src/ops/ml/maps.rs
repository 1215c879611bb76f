//! Maps: ZipMap makes them of rows of scores, CastMap and DictVectorizer make tensors of them.

use super::BASE;
use crate::eval::EvalCx;
use crate::graph::{Attribute, Node};
use crate::infer::InferCx;
use crate::ops::numbers::Numbers;
use crate::ops::{AttrKind, OpDef, attr};
use crate::types::{Dim, Shape, TensorType, Type};
use crate::{DType, Error, Item, Map, Result, Tensor};

/// ONNX ZipMap: one map for each row.
pub static ZIP_MAP: OpDef = OpDef {
    name: "ZipMap",
    attrs: &[
        attr("classlabels_int64s", AttrKind::Ints),
        attr("classlabels_strings", AttrKind::Strings),
    ],
    infer: |cx| {
        let key = match keys(cx.node, ["classlabels_strings", "classlabels_int64s"])? {
            Some(keys) => keys.dtype(),
            None => return Ok(()),
        };
        let value = TensorType::fixed(cx.dtype(0).unwrap_or(DType::F32), &[]);
        let map = Type::Map(key, Box::new(value.into()));
        cx.set(0, Type::Sequence(Box::new(map)));
        Ok(())
    },
    eval_items: Some(zip_map),
    ..BASE
};

/// ONNX DictVectorizer: `[1, n]`, the value of each of the `n` words of the vocabulary, 0 or the
/// empty string where the map has none.
pub static DICT_VECTORIZER: OpDef = OpDef {
    name: "DictVectorizer",
    attrs: &[
        attr("int64_vocabulary", AttrKind::Ints),
        attr("string_vocabulary", AttrKind::Strings),
    ],
    infer: |cx| {
        let vocabulary = keys(cx.node, ["string_vocabulary", "int64_vocabulary"])?;
        row_of_values(
            cx,
            vocabulary.map_or(Dim::Unknown, |v| v.count().into()),
            None,
        );
        Ok(())
    },
    eval_items: Some(dict_vectorizer),
    ..BASE
};

/// ONNX CastMap: `[1, n]`, the values by rising key; in sparse form every value at its key, of
/// `max_map` places.
pub static CAST_MAP: OpDef = OpDef {
    name: "CastMap",
    attrs: &[
        attr("cast_to", AttrKind::String(Some("TO_FLOAT"))),
        attr("map_form", AttrKind::String(Some("DENSE"))),
        attr("max_map", AttrKind::Int(Some(1))),
    ],
    infer: |cx| {
        let dtype = cast_to(cx.node)?;
        row_of_values(cx, Dim::Unknown, Some(dtype));
        Ok(())
    },
    eval_items: Some(cast_map),
    ..BASE
};

/// The strings or integers in one of two attributes; `None` where neither is there.
fn keys(node: &Node, [strings, ints]: [&str; 2]) -> Result<Option<Tensor>> {
    if let Some(Attribute::Strings(texts)) = node.attribute(strings)
        && !texts.is_empty()
    {
        let text = |b: &bytes::Bytes| {
            let text = String::from_utf8(b.to_vec());
            text.map_err(|_| Error::invalid(format!("\"{strings}\" is not UTF-8")))
        };
        let texts: Vec<String> = texts.iter().map(text).collect::<Result<_>>()?;
        return Tensor::from_strings(&[texts.len()], texts).map(Some);
    }
    Ok(node.ints(ints).map(|v| Tensor::vector(v.to_vec())))
}

/// Says that output 0 is `[1, length]`, of `dtype` or of the type of the map's values.
fn row_of_values(cx: &mut InferCx, length: Dim, dtype: Option<DType>) {
    let of_map = match cx.ty(0) {
        Some(Type::Map(_, value)) => value.tensor().map(|t| t.dtype),
        _ => None,
    };
    let shape = Shape::from_iter([Dim::Known(1), length]);
    cx.set_tensor(0, dtype.or(of_map), Some(shape));
}

fn zip_map(cx: &EvalCx) -> Result<Vec<Item>> {
    let x = cx.input(0)?;
    let keys = keys(cx.node, ["classlabels_strings", "classlabels_int64s"])?
        .ok_or_else(|| Error::invalid("the node names no classes"))?;
    let (rows, width) = match x.dims() {
        [n] => (1, *n),
        [rows, n] => (*rows, *n),
        _ => {
            let message = format!("expected rows of scores, found {}", x.ty());
            return Err(Error::invalid(message));
        }
    };
    if width != keys.count() {
        let classes = keys.count();
        return Err(Error::invalid(format!(
            "{classes} classes have {width} scores"
        )));
    }
    let step = x.dtype().bits() / 8 * width;
    let row = |r: usize| {
        let bytes = x.bytes().slice(r * step..(r + 1) * step);
        let values = Tensor::from_bytes(x.dtype(), &[width], bytes)?;
        Ok(Map::new(keys.clone(), values)?.into())
    };
    if x.dtype().bits() < 8 {
        return Err(Error::unsupported(format!("maps of {}", x.dtype())));
    }
    let maps = (0..rows).map(row).collect::<Result<_>>()?;
    Ok(vec![Item::sequence(maps)])
}

fn map_of<'a>(cx: &EvalCx<'a>) -> Result<&'a Map> {
    match cx.get(0)? {
        Item::Map(map) => Ok(map),
        other => Err(Error::invalid(format!("expected a map, found {other}"))),
    }
}

/// `[1, places.len()]`: the value at each place, 0 or the empty string where there is none.
fn picked(values: &Tensor, places: &[Option<usize>], dtype: DType) -> Result<Tensor> {
    let dims = [1, places.len()];
    if let Ok(texts) = values.strings() {
        if dtype == DType::String {
            let text = |p: &Option<usize>| p.map(|p| texts[p].clone()).unwrap_or_default();
            return Tensor::from_strings(&dims, places.iter().map(text).collect());
        }
        let number = |p: &Option<usize>| match p {
            Some(p) => texts[*p]
                .trim()
                .parse::<f64>()
                .map_err(|_| Error::invalid(format!("\"{}\" is no number", texts[*p]))),
            None => Ok(0.0),
        };
        let numbers = places.iter().map(number).collect::<Result<_>>()?;
        return Numbers::Float(numbers).tensor(dtype, &dims);
    }
    if dtype == DType::String {
        let all = Numbers::of(values)?;
        let text = |p: &Option<usize>| match (p, &all) {
            (Some(p), Numbers::Int(v)) => v[*p].to_string(),
            (Some(p), Numbers::Float(v)) => (v[*p] as f32).to_string(),
            (None, _) => String::new(),
        };
        return Tensor::from_strings(&dims, places.iter().map(text).collect());
    }
    let numbers = match Numbers::of(values)? {
        Numbers::Int(v) => Numbers::Int(places.iter().map(|p| p.map_or(0, |p| v[p])).collect()),
        Numbers::Float(v) => {
            Numbers::Float(places.iter().map(|p| p.map_or(0.0, |p| v[p])).collect())
        }
    };
    numbers.tensor(dtype, &dims)
}

fn dict_vectorizer(cx: &EvalCx) -> Result<Vec<Item>> {
    let map = map_of(cx)?;
    let vocabulary = keys(cx.node, ["string_vocabulary", "int64_vocabulary"])?
        .ok_or_else(|| Error::invalid("the node has no vocabulary"))?;
    let places: Vec<Option<usize>> = match (vocabulary.strings(), map.keys.strings()) {
        (Ok(words), Ok(keys)) => words
            .iter()
            .map(|w| keys.iter().position(|k| k == w))
            .collect(),
        (Err(_), Err(_)) => {
            let keys = map.keys.to_i64()?;
            let words = vocabulary.to_i64()?;
            let of = |w| keys.iter().position(|k| *k == w);
            words.into_iter().map(of).collect()
        }
        _ => return Err(Error::invalid("the keys are not of the vocabulary's type")),
    };
    let row = picked(&map.values, &places, map.values.dtype())?;
    Ok(vec![row.into()])
}

fn cast_to(node: &Node) -> Result<DType> {
    match node.string("cast_to").unwrap_or("TO_FLOAT") {
        "TO_FLOAT" => Ok(DType::F32),
        "TO_INT64" => Ok(DType::I64),
        "TO_STRING" => Ok(DType::String),
        other => Err(Error::invalid(format!("\"{other}\" is no type to cast to"))),
    }
}

/// A sparse row has at most so many places.
const MAX_PLACES: usize = 1 << 24;

fn cast_map(cx: &EvalCx) -> Result<Vec<Item>> {
    let map = map_of(cx)?;
    let keys = map.keys.to_i64()?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| keys[i]);
    let places: Vec<Option<usize>> = match cx.node.string("map_form").unwrap_or("DENSE") {
        "DENSE" => order.into_iter().map(Some).collect(),
        "SPARSE" => {
            let max = usize::try_from(cx.int("max_map", 1)).ok();
            let max = max
                .filter(|m| *m <= MAX_PLACES)
                .ok_or_else(|| Error::invalid("\"max_map\" is out of range"))?;
            let mut places = vec![None; max];
            for i in order {
                let at = usize::try_from(keys[i])
                    .ok()
                    .and_then(|k| places.get_mut(k));
                *at.ok_or_else(|| Error::invalid(format!("key {} is over {max}", keys[i])))? =
                    Some(i);
            }
            places
        }
        other => return Err(Error::invalid(format!("\"{other}\" is no form of a map"))),
    };
    Ok(vec![
        picked(&map.values, &places, cast_to(cx.node)?)?.into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate_items;
    use crate::text::parse;

    fn out(body: &str, input: Option<Item>) -> Result<Item> {
        let has = if input.is_some() { "m" } else { "" };
        let text = format!("opset 17 opset \"ai.onnx.ml\" 1 graph g({has}) -> (y) {{ {body} }}");
        let model = parse(&text)?;
        crate::infer::infer(&model, &[])?;
        let inputs: Vec<(&str, Item)> = input.into_iter().map(|m| ("m", m)).collect();
        Ok(evaluate_items(&model, &inputs)?.remove(0))
    }

    #[test]
    fn each_row_becomes_a_map() {
        let zip = "x: f32[2,2] = {1,2,3,4} y = ai.onnx.ml.ZipMap(x) ";
        let y = out(&format!("{zip} {{classlabels_int64s=[7,9]}}"), None).unwrap();
        let Item::Map(second) = &y.as_sequence().unwrap()[1] else {
            panic!("{y} holds no maps");
        };
        assert_eq!(second.keys, Tensor::vector(vec![7i64, 9]));
        assert_eq!(second.values, Tensor::vector(vec![3f32, 4.0]));
        assert!(out(&format!("{zip} {{classlabels_int64s=[7]}}"), None).is_err());
    }

    #[test]
    fn maps_become_rows_by_vocabulary_and_by_key() {
        let map = || {
            let keys = Tensor::vector(vec![4i64, 1]);
            Some(
                Map::new(keys, Tensor::vector(vec![40f32, 10.0]))
                    .unwrap()
                    .into(),
            )
        };
        let row = |v: &[f32]| Item::from(Tensor::from_vec(&[1, v.len()], v.to_vec()).unwrap());
        let y = out(
            "y = ai.onnx.ml.DictVectorizer(m) {int64_vocabulary=[1,2,4]}",
            map(),
        );
        assert_eq!(y.unwrap(), row(&[10.0, 0.0, 40.0]));
        let y = out("y = ai.onnx.ml.CastMap(m)", map());
        assert_eq!(y.unwrap(), row(&[10.0, 40.0]));
        let sparse = "y = ai.onnx.ml.CastMap(m) {map_form=\"SPARSE\",max_map=";
        assert_eq!(
            out(&format!("{sparse}5}}"), map()).unwrap(),
            row(&[0.0, 10.0, 0.0, 0.0, 40.0])
        );
        assert!(out(&format!("{sparse}4}}"), map()).is_err());
    }
}
