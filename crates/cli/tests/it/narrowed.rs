//! Channels, heads and blocks that are removed, from outside.

use expect_test::expect;

use super::{Folder, example, first_samples};

/// The example and some of its samples.
fn with_example(test: &str) -> Folder {
    let folder = Folder::new(test);
    std::fs::copy(example("model.onnx"), folder.path("model.onnx")).unwrap();
    first_samples(&folder, "test.npz", 96);
    folder
}

fn said(folder: &Folder, words: &str) -> String {
    let output = folder.run(words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn what_could_go_is_told_and_nothing_is_written() {
    let folder = with_example("explain");
    let files = folder.files();
    let output = folder.run("prune model.onnx --structure channel --explain");
    let told = String::from_utf8(output.stdout).unwrap();
    expect![[r#"
        made by             has  ties together                   kind
        ───────────────────────────────────────────────────────────────
        stem.conv            32  3 weights, 8 lists, 6 values    inner
        pw0.conv, pw1.conv   64  6 weights, 16 lists, 13 values  stream
        pw2.conv, pw3.conv  128  6 weights, 16 lists, 13 values  stream
        pw4.conv, pw5.conv  256  5 weights, 12 lists, 12 values  stream
        stays whole  because of
        ───────────────────────────────────────────────
        head         an input or an output of the model
    "#]]
    .assert_eq(&told);
    assert_eq!(folder.files(), files);
}

#[test]
fn channels_go_and_the_same_command_gives_the_same_bytes() {
    let folder = with_example("channels");
    let words =
        "--structure channel --amount 0.3 --ranking global --criterion lamp --calibrate test.npz";
    let told = said(&folder, &format!("prune model.onnx -o a.onnx {words}"));
    assert!(
        told.contains("equal to the dense model with zeros"),
        "{told}"
    );
    assert!(told.contains("fitted to what they gave before"), "{told}");
    said(&folder, &format!("prune model.onnx -o b.onnx {words}"));
    let bytes = |name: &str| std::fs::read(folder.path(name)).unwrap();
    assert!(bytes("a.onnx") == bytes("b.onnx"));
    assert!(2 * bytes("a.onnx").len() < bytes("model.onnx").len() * 3 / 2);
}

#[test]
fn what_is_pruned_learns_from_what_it_was() {
    let folder = with_example("self");
    let recipe = r#"
model = "model.onnx"
output = "out.onnx"

[[step]]
do = "prune"
structure = "channel"
amount = 0.5

[[step]]
do = "prune"
structure = "4x1"
amount = 0.5

[[step]]
do = "train"
teacher = "self"
loss = ["kd 1"]
data = "test.npz"
epochs = 1
batch = 32
"#;
    std::fs::write(folder.path("r.toml"), recipe).unwrap();
    let told = said(&folder, "apply r.toml");
    assert!(told.contains("train"), "{told}");
    let model = edgesmith_formats::read(&folder.path("out.onnx")).unwrap();
    let pruned = edgesmith_ir::analysis::pruned(&model);
    assert!(!pruned.is_empty());
    for name in pruned.keys() {
        let v = model.graph.find_value(name).unwrap();
        let data = model.graph.constant(v).unwrap().to_f32().unwrap().to_vec();
        let zeros = data.iter().filter(|x| **x == 0.0).count();
        assert_eq!(2 * zeros, data.len(), "{name}");
    }
}

#[test]
fn compare_has_pruned_variants_and_their_integers() {
    let folder = with_example("compared");
    let words = "compare model.onnx --data test.npz --calibrate test.npz --out out --iterations 2";
    said(&folder, &format!("{words} --prune channel=0.3 --prune 2:4"));
    let names = ["c30", "c30-int8", "2of4", "2of4-int8"];
    for name in names {
        assert!(folder.path(&format!("out/{name}.onnx")).exists(), "{name}");
    }
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let folder = with_example("refused");
    for words in [
        "--structure channel",
        "--structure channel --amount 1.5",
        "--structure chanel --amount 0.3",
        "--structure channel --amount 0.3 --criterion wanda",
        "--structure channel --amount 0.3 --criterion sparsegpt",
        "--structure channel --amount 0.3 --scope global",
        "--structure channel --amount 0.3 --most 2",
        "--structure layer --amount 0.5",
    ] {
        let output = folder.run(&format!("prune model.onnx -o x.onnx {words}"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: "), "{words}: {error}");
        assert_eq!(output.status.code(), Some(2), "{words}: {error}");
    }
    folder.fails(
        "prune model.onnx -o x.onnx --structure head --amount 0.5",
        expect![[r#"
        exit 1
        error: prune: the model has no head that could be removed
        hint: head: an input or an output of the model
    "#]],
    );
    folder.fails("compare model.onnx --data test.npz --calibrate test.npz --out o --prune chan=0.5", expect![[r#"
        exit 2
        error: --prune: "chan" is no structure
        hint: channel, head, head-width, width or layer, which are removed; unstructured, N:M such as 2:4, or blocks RxC such as 4x1, which become zero
    "#]]);
}
