//! Floats of 16 and 8 bits, from outside: what overflows, what is told, what is written.

use edgesmith_formats::npz;
use edgesmith_ir::Tensor;

use super::Folder;

/// Two products, of which the second multiplies numbers over 65504, and data for it.
fn with_large_numbers(test: &str) -> Folder {
    let folder = Folder::new(test);
    let list = |n: usize, most: f32| {
        let number = |i| format!("{:?}", ((i * 37 % n) as f32 - 31.5) / 32.0 * most);
        (0..n).map(number).collect::<Vec<_>>().join(",")
    };
    folder.write_text(
        "model.onnx",
        &format!(
            "opset 17\ngraph g(x: f32[batch,8]) -> (y: f32[batch,8], t: f32[batch,8]) {{\n  w: f32[8,8] = {{{}}}\n  \
             v: f32[8,8] = {{{}}}\n  h = MatMul(x, w) {{name=\"grows\"}}\n  \
             r = Relu(h) {{name=\"relu\"}}\n  y = MatMul(r, v) {{name=\"shrinks\"}}\n  \
             t = Tanh(x) {{name=\"bounded\"}}\n}}\n",
            list(64, 5e4),
            list(64, 1e-6),
        ),
    );
    let x = (0..40 * 8).map(|i| ((i * 7919) % 997) as f32 / 499.0 - 1.0);
    let x = Tensor::from_vec(&[40, 8], x.collect()).unwrap();
    npz::write(&folder.path("data.npz"), &[("x".into(), x)], false).unwrap();
    folder
}

/// What a command says on stderr and prints on stdout, where it succeeds.
fn done(folder: &Folder, words: &str) -> (String, String) {
    let output = folder.run(words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (said, String::from_utf8(output.stdout).unwrap())
}

/// The outputs of a model on the data.
fn answers(folder: &Folder, model: &str) -> Vec<f32> {
    done(
        folder,
        &format!("run {model} --input data.npz --output {model}.npz"),
    );
    let arrays = npz::read(&folder.path(&format!("{model}.npz"))).unwrap();
    let (_, y) = arrays.iter().find(|(name, _)| name == "y").unwrap();
    y.to_f32().unwrap().into_owned()
}

fn sqnr(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let noise: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    10.0 * (a.iter().map(|&x| square(x)).sum::<f64>() / noise).log10()
}

#[test]
fn activations_that_overflow_are_told_and_their_nodes_stay() {
    let folder = with_large_numbers("overflow");
    let words = "quantize model.onnx -o a.onnx --to fp16 --calibrate data.npz --explain";
    let (said, told) = done(&folder, words);
    let warning = "warning: fp16: numbers of \"h\", \"r\" are beyond 65504, kept in float: \
                   \"grows\", \"relu\", \"shrinks\"";
    assert!(said.contains(warning), "{said}\n{told}");
}

#[test]
fn without_data_only_constants_are_looked_at() {
    let folder = with_large_numbers("constants");
    let (said, told) = done(&folder, "quantize model.onnx -o a.onnx --to fp16 --explain");
    assert!(
        said.contains(
            "range of fp16: of 128 numbers in 2 constants 0 overflow, 2 become zero, 62 subnormal; \
                       activations were not looked at, which --calibrate does"
        ),
        "{said}"
    );
    let warning = "over 1 % of the numbers of \"v\" become zero: --exclude keeps \"shrinks\"";
    assert!(said.contains(warning), "{said}");
    let rows: Vec<&str> = told.lines().filter(|l| l.contains("constant")).collect();
    assert!(rows.len() == 2 && rows[0].contains("1.33x"), "{told}");
}

#[test]
fn fp8_is_written_read_and_run() {
    let folder = with_large_numbers("fp8");
    let expected = answers(&folder, "model.onnx");
    let (said, _) = done(&folder, "quantize model.onnx -o w.onnx --to fp8-weights");
    // A byte for each of 64 numbers and a scale of 4 bytes for each of 8 channels.
    let line = "weights only: 12.000 bits for each of 128 weights, activations stay float";
    assert!(said.contains(line), "{said}");
    assert!(
        said.contains("range of fp8 e4m3: of 128 numbers in 2 constants 0 overflow"),
        "{said}"
    );
    let words = "quantize model.onnx -o a.onnx --to fp8 --calibrate data.npz --float8 e5m2";
    let (said, _) = done(&folder, words);
    assert!(
        said.contains("warning: ONNX Runtime 1.31 on a CPU loads FP8"),
        "{said}"
    );
    let found = ["w.onnx", "a.onnx"].map(|model| sqnr(&expected, &answers(&folder, model)));
    assert!(found[0] > 25.0 && found[1] > 15.0, "{found:?}");
}

#[test]
fn full_fp8_needs_data() {
    let folder = with_large_numbers("fp8-data");
    let output = folder.run("quantize model.onnx -o a.onnx --to fp8");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.contains("needs data"),
        "{said}"
    );
}
