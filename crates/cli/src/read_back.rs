//! Whether a file that was written holds what was made: it is read again, its weights are dequantised
//! and compared with what they were.

use std::path::Path;

use edgesmith_compress::quantize::changes::Changes;
use edgesmith_compress::quantize::sources::{self, Compared};
use edgesmith_ir::analysis::difference;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Model, Result};

use crate::opened;

/// A file as it was read again.
pub struct ReadBack {
    pub model: Model,
    /// Weights that were compared with what they were.
    pub weights: Vec<Compared>,
}

/// Reads a file and compares it: nodes, attributes, edges and the bytes of constants with those of
/// `made`, dequantised weights with what the steps made them from. What a step before the last one
/// made may have another form since; then its bytes alone are compared.
///
/// # Errors
/// When the file cannot be read; an internal error when it does not hold what was made, or a weight
/// is further than half a step from what it was.
pub fn check(made: &Model, steps: &[&Changes], file: &Path) -> Result<ReadBack> {
    let place = || opened::name_of(file);
    let model = opened::open(file)?;
    difference(made, &model).at(place)?;
    let mut weights = Vec::new();
    for (i, changes) in steps.iter().enumerate() {
        let found = sources::compare(&model.graph, &changes.sources).at(place)?;
        let missing = changes.sources.len() - found.len();
        if missing > 0 && i + 1 == steps.len() {
            let what = format!("{missing} of the weights that were made are not in the file");
            return Err(Error::internal(what).at(place()));
        }
        weights.extend(found);
    }
    Ok(ReadBack { model, weights })
}

#[cfg(test)]
mod tests {
    use edgesmith_compress::quantize::half;
    use edgesmith_formats::WriteOptions;
    use edgesmith_ir::error::Kind;
    use edgesmith_ir::{DType, Tensor, text};

    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("edgesmith-{name}-{}.onnx", std::process::id()))
    }

    #[test]
    fn nodes_that_get_names_of_their_own_in_the_file_are_the_same() {
        let source = "opset 17 graph g(x: f32[n]) -> (y: f32[n]) {
            a = Relu(x) {name=\"one\"} y = Neg(a) {name=\"one\"} }";
        let made = text::parse(source).expect("it is a model");
        let file = file("names");
        let options = WriteOptions {
            force: true,
            ..WriteOptions::default()
        };
        edgesmith_formats::write(&made, &file, &options).expect("the folder takes files");
        let found = check(&made, &[], &file).expect("it is what was made");
        let names: Vec<&str> = (found.model.graph.nodes())
            .map(|(_, n)| n.name.as_str())
            .collect();
        assert_eq!(names, ["one", "one_1"]);
        std::fs::remove_file(&file).expect("the file is ours");
    }

    #[test]
    fn a_file_of_other_numbers_is_our_bug() {
        let weights = ["0.3"; 16].join(",");
        let source = format!(
            "opset 17\ngraph g(x: f32[n,4]) -> (y: f32[n,4]) {{\n  w: f32[4,4] = {{{weights}}}\n  \
             y = MatMul(x, w) {{name=\"m\"}}\n}}\n"
        );
        let float = text::parse(&source).expect("it is a model");
        let (made, changes) =
            half::to_bf16(&float, &half::Settings::default()).expect("it has a weight");
        let file = file("back");
        let options = WriteOptions {
            force: true,
            ..WriteOptions::default()
        };
        let write = |model: &Model| {
            edgesmith_formats::write(model, &file, &options).expect("the folder takes files");
        };
        write(&made);
        let found = check(&made, &[&changes], &file).expect("it is what was made");
        assert_eq!(found.weights[0].nodes, ["m"]);
        let mut other = made.clone();
        let w = other.graph.find_value("w_bf16").expect("it was narrowed");
        let bytes = [0x9e, 0x3e].repeat(16).into();
        let numbers = Tensor::from_bytes(DType::BF16, &[4, 4], bytes).expect("16 numbers");
        other.graph.value_mut(w).constant = Some(numbers);
        write(&other);
        let fault = |made: &Model| {
            let found = check(made, &[&changes], &file);
            found.err().expect("the file is another")
        };
        for (made, what) in [(&made, "its numbers are others"), (&other, "half a step")] {
            let error = fault(made);
            assert_eq!(error.kind, Kind::Internal);
            assert!(error.to_string().contains(what), "{error}");
        }
        std::fs::remove_file(&file).expect("the file is ours");
    }
}
