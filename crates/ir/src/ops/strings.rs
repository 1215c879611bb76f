//! Operators on text: StringConcat, StringNormalizer, StringSplit, RegexFullMatch.

use regex_lite::Regex;

use super::arith::{broadcast_dims, broadcast_indices};
use super::{Arity, AttrKind, OpDef, attr, axes, elementwise};
use crate::eval::EvalCx;
use crate::graph::{Attribute, Node};
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

/// ONNX StringConcat.
pub static STRING_CONCAT: OpDef = OpDef {
    name: "StringConcat",
    since: &[20],
    inputs: Arity(2, 2),
    infer: elementwise::infer_broadcast,
    eval: Some(eval_concat),
    examples: &["StringConcat(string[2,1]{\"a\",\"b\"}, string[2]{\".c\",\"\"})"],
    ..OpDef::BASE
};

/// ONNX StringNormalizer. Cases change by the rules of Unicode, whatever the locale.
pub static STRING_NORMALIZER: OpDef = OpDef {
    name: "StringNormalizer",
    since: &[10],
    attrs: &[
        attr("case_change_action", AttrKind::String(Some("NONE"))),
        attr("is_case_sensitive", AttrKind::Int(Some(0))),
        attr("locale", AttrKind::String(None)),
        attr("stopwords", AttrKind::Strings),
    ],
    infer: infer_normalizer,
    eval: Some(eval_normalizer),
    examples: &[
        "StringNormalizer(string[3]{\"Monday\",\"a\",\"tuesday\"}) \
         {case_change_action=\"UPPER\",stopwords=[\"monday\"]}",
        "StringNormalizer(string[1,2]{\"a\",\"a\"}) {is_case_sensitive=1,stopwords=[\"a\"]}",
    ],
    ..OpDef::BASE
};

/// ONNX StringSplit.
pub static STRING_SPLIT: OpDef = OpDef {
    name: "StringSplit",
    since: &[20],
    outputs: Arity(2, 2),
    attrs: &[
        attr("delimiter", AttrKind::String(None)),
        attr("maxsplit", AttrKind::Int(None)),
    ],
    infer: infer_split,
    eval: Some(eval_split),
    examples: &[
        "StringSplit(string[2]{\"a.b\",\"c\"}) {delimiter=\".\",maxsplit=1}",
        "StringSplit(string[2,1]{\" a  b \",\"\"})",
    ],
    ..OpDef::BASE
};

/// ONNX RegexFullMatch. Of RE2's syntax, classes of Unicode (`\pL`) and `\Q…\E` are not there,
/// and `(?i)` knows ASCII only.
pub static REGEX_FULL_MATCH: OpDef = OpDef {
    name: "RegexFullMatch",
    since: &[20],
    attrs: &[attr("pattern", AttrKind::String(None))],
    infer: elementwise::infer_predicate,
    eval: Some(eval_regex),
    examples: &["RegexFullMatch(string[2]{\"www.a.com\",\"a.com\"}) {pattern=\"www\\\\.[a-z.]+\"}"],
    ..OpDef::BASE
};

fn eval_concat(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let dims = broadcast_dims(&[a.dims(), b.dims()])?;
    let (from_a, from_b) = (a.strings()?, b.strings()?);
    let left = broadcast_indices(a.dims(), &dims)?;
    let right = broadcast_indices(b.dims(), &dims)?;
    let pairs = left.into_iter().zip(right);
    let joined = pairs.map(|(i, j)| format!("{}{}", from_a[i], from_b[j]));
    Ok(vec![Tensor::from_strings(&dims, joined.collect())?])
}

fn infer_normalizer(cx: &mut InferCx) -> Result<()> {
    let shape = match cx.shape(0).map(Shape::rank) {
        Some(1) => Some(Shape::unknown(1)),
        Some(2) => Some(Shape::from_iter([Dim::Known(1), Dim::Unknown])),
        Some(_) => return Err(Error::invalid("expected one row of strings")),
        None => None,
    };
    cx.set_tensor(0, Some(DType::String), shape);
    Ok(())
}

/// The strings in a STRINGS attribute; none where it is left out.
///
/// # Errors
/// When one is not UTF-8.
pub fn attribute(node: &Node, name: &str) -> Result<Vec<String>> {
    let Some(Attribute::Strings(all)) = node.attribute(name) else {
        return Ok(Vec::new());
    };
    let text = |s: &bytes::Bytes| String::from_utf8(s.to_vec()).ok();
    let all: Option<Vec<String>> = all.iter().map(text).collect();
    all.ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is no UTF-8 text")))
}

fn eval_normalizer(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    if !matches!(x.dims(), [_] | [1, _]) {
        return Err(Error::invalid(format!(
            "expected one row of strings, found {}",
            x.ty()
        )));
    }
    let sensitive = cx.int("is_case_sensitive", 0) != 0;
    let key = |s: &str| match sensitive {
        true => s.to_owned(),
        false => s.to_lowercase(),
    };
    let stop: Vec<String> = attribute(cx.node, "stopwords")?
        .iter()
        .map(|s| key(s))
        .collect();
    let change = match cx.node.string("case_change_action").unwrap_or("NONE") {
        "NONE" => |s: &str| s.to_owned(),
        "LOWER" => |s: &str| s.to_lowercase(),
        "UPPER" => |s: &str| s.to_uppercase(),
        other => {
            return Err(Error::unsupported(format!(
                "the case_change_action \"{other}\" is unknown"
            )));
        }
    };
    let kept = x.strings()?.iter().filter(|s| !stop.contains(&key(s)));
    let mut kept: Vec<String> = kept.map(|s| change(s)).collect();
    if kept.is_empty() {
        kept.push(String::new());
    }
    let mut dims = x.dims().to_vec();
    dims[x.rank() - 1] = kept.len();
    Ok(vec![Tensor::from_strings(&dims, kept)?])
}

fn infer_split(cx: &mut InferCx) -> Result<()> {
    let shape = cx.shape(0).cloned();
    let parts = shape.clone().map(|mut s| {
        s.0.push(Dim::Unknown);
        s
    });
    cx.set_tensor(0, Some(DType::String), parts);
    cx.set_tensor(1, Some(DType::I64), shape);
    Ok(())
}

fn eval_split(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let limit = match cx.node.int("maxsplit") {
        Some(n) => axes::length(n, "maxsplit")?,
        None => usize::MAX,
    };
    let delimiter = cx.node.string("delimiter").unwrap_or("");
    let texts = x.strings()?.iter();
    let all: Vec<Vec<&str>> = texts.map(|s| split(s, delimiter, limit)).collect();
    let width = all.iter().map(Vec::len).max().unwrap_or(0);
    let dims = [x.dims(), &[width]].concat();
    let mut parts = Vec::with_capacity(checked_count(&dims)?);
    for row in &all {
        parts.extend(row.iter().map(|s| (*s).to_owned()));
        parts.extend(std::iter::repeat_n(String::new(), width - row.len()));
    }
    let counts = all.iter().map(|row| row.len() as i64).collect();
    Ok(vec![
        Tensor::from_strings(&dims, parts)?,
        Tensor::from_vec(x.dims(), counts)?,
    ])
}

/// The parts of `text` after at most `limit` splits: at each delimiter, or at runs of white space
/// where there is none.
fn split<'a>(text: &'a str, delimiter: &str, limit: usize) -> Vec<&'a str> {
    if !delimiter.is_empty() {
        return text.splitn(limit.saturating_add(1), delimiter).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest
            .find(char::is_whitespace)
            .filter(|_| parts.len() < limit);
        let end = end.unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    parts
}

fn eval_regex(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let pattern = cx.node.string("pattern");
    let pattern = pattern.ok_or_else(|| Error::invalid("attribute \"pattern\" is missing"))?;
    let refuse = |e: regex_lite::Error| {
        Error::unsupported(format!("the pattern \"{pattern}\" is not understood: {e}"))
    };
    // The pattern by itself: brackets that it leaves open must not close those around it.
    Regex::new(pattern).map_err(refuse)?;
    let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(refuse)?;
    let found: Vec<bool> = x.strings()?.iter().map(|s| whole.is_match(s)).collect();
    Ok(vec![Tensor::from_bools(x.dims(), &found)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval;
    use crate::text::example;

    #[test]
    fn splits_are_those_of_python() {
        assert_eq!(split("a.b..c", ".", usize::MAX), ["a", "b", "", "c"]);
        assert_eq!(split("a.b.c", ".", 1), ["a", "b.c"]);
        assert_eq!(split("", ".", usize::MAX), [""]);
        assert_eq!(split("  a b   c ", "", 1), ["a", "b   c"]);
        assert_eq!(split("   ", "", usize::MAX), [""; 0]);
        assert_eq!(split(" a ", "", 0), ["a"]);
    }

    #[test]
    fn a_pattern_matches_whole_strings_only() {
        let matches = |pattern: &str| {
            let text = format!(
                "RegexFullMatch(string[3]{{\"ab\",\"abc\",\"ab\\n\"}}) {{pattern=\"{pattern}\"}}"
            );
            let (model, _) = example(&text)?;
            eval::evaluate(&model, &[])?[0].bools()
        };
        assert_eq!(matches("a|ab").unwrap(), [true, false, false]);
        assert_eq!(matches("(?m)ab$").unwrap(), [true, false, false]);
        assert!(matches("a)(b").is_err());
    }
}
