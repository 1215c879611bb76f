//! `optimize` and `prepare`, from outside: what passes did, what a prepared file holds and refuses.

use super::*;

#[test]
fn optimize_says_what_each_pass_did_and_checks_the_answers() {
    let folder = Folder::new("optimize").with_model("Identity");
    let output = folder.run("optimize model.onnx -o out.onnx --check --dim batch=3 --json");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("largest difference 0.00e0"), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["before"]["nodes"], 1);
    assert!(found["passes"].as_array().unwrap().len() > 5);

    let output = folder.run("optimize model.onnx -o one.onnx --only drop_identity --explain");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("drop_identity"), "{table}");
    assert!(!table.contains("fold_constants"), "{table}");
}

#[test]
fn optimize_names_a_pass_that_does_not_exist() {
    let folder = Folder::new("nopass").with_model("Relu");
    let output = folder.run("optimize model.onnx -o out.onnx --skip fold_everything");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("there is no pass \"fold_everything\""),
        "{said}"
    );
    assert!(said.contains("fold_constants"), "{said}");
    assert!(!folder.path("out.onnx").exists());
}

#[test]
fn a_prepared_model_runs_as_the_model_does() {
    let folder = Folder::new("prepared");
    for name in ["model.onnx", "test.npz"] {
        std::fs::copy(example(name), folder.path(name)).unwrap();
    }
    for words in [
        "prepare model.onnx -o ready",
        "run model.onnx --input test.npz --output a.npz --threads 1",
        "run ready --input test.npz --output b.npz --threads 1",
        "bench ready --iterations 3 --cold-starts 1",
        "inspect ready",
    ] {
        let output = folder.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {error}");
        assert!(!error.contains("packed anew"), "{words}: {error}");
    }
    let [a, b] = ["a.npz", "b.npz"].map(|name| npz::read(&folder.path(name)).unwrap());
    assert_eq!(a, b);
    let whole = std::fs::read(folder.path("ready")).unwrap();
    std::fs::write(folder.path("cut"), &whole[..whole.len() / 2]).unwrap();
    let output = folder.run("run cut --input test.npz --output c.npz");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("the prepared file is damaged") && error.contains("edgesmith prepare"),
        "{error}"
    );
}

#[test]
fn a_prepared_file_that_exists() {
    let folder = Folder::new("prepared-exists").with_model("Relu");
    assert!(folder.run("prepare model.onnx -o ready").status.success());
    folder.fails(
        "prepare model.onnx -o ready",
        expect![[r#"
        exit 2
        error: ready: the file exists already
        hint: give another name, or --force to overwrite it
    "#]],
    );
}

#[test]
fn a_length_that_the_model_does_not_have() {
    let folder = Folder::new("lengths").with_model("Relu");
    folder.fails(
        "bench model.onnx --dim sequence=3",
        expect![[r#"
        exit 2
        error: --dim: no input has an open length "sequence"
        hint: they are called batch, x:0
    "#]],
    );
}
