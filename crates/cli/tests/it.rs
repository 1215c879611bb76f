//! The program from outside: what it prints, writes and answers to bad input.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use edgesmith_formats::{WriteOptions, npz};
use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{DType, Graph, Model, Node, Tensor};
use expect_test::{Expect, expect, expect_file};

#[path = "it/boards.rs"]
mod boards;
#[path = "it/devices.rs"]
mod devices;
#[path = "it/evidence.rs"]
mod evidence;
#[path = "it/floats.rs"]
mod floats;
#[path = "it/narrowed.rs"]
mod narrowed;
#[path = "it/optimized.rs"]
mod optimized;
#[path = "it/resumed.rs"]
mod resumed;
#[path = "it/smaller.rs"]
mod smaller;
#[path = "it/trained.rs"]
mod trained;
#[path = "it/untrainable.rs"]
mod untrainable;
#[path = "it/zeros.rs"]
mod zeros;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgesmith-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn run(&self, words: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_edgesmith"))
            .args(words.split_whitespace())
            .current_dir(&self.0)
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    }

    /// Exit code and stderr of a command that should fail and leave nothing behind.
    fn fails(&self, words: &str, expected: Expect) {
        let files = self.files();
        let output = self.run(words);
        let error = String::from_utf8(output.stderr).unwrap();
        expected.assert_eq(&format!("exit {}\n{error}", output.status.code().unwrap()));
        assert_eq!(self.files(), files, "a failing command leaves no file");
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// x f32[batch,4] → OP → y, written as model.onnx.
    fn with_model(self, op: &str) -> Self {
        let mut graph = Graph::new("main");
        let shape: Shape = [Dim::symbol("batch"), Dim::Known(4)].into_iter().collect();
        let x = graph.add_input("x", TensorType::new(DType::F32, shape.clone()));
        let y = graph.add_op(Node::new(op, "only"), &[x], "y");
        graph.value_mut(y).ty = Some(TensorType::new(DType::F32, shape).into());
        graph.outputs.push(y);
        let model = Model::new(graph, 17);
        edgesmith_formats::write(&model, &self.path("model.onnx"), &WriteOptions::default())
            .unwrap();
        self
    }

    /// A model in its text form, written as a file.
    fn write_text(&self, name: &str, source: &str) {
        let model = edgesmith_ir::text::parse(source).unwrap();
        edgesmith_formats::write(&model, &self.path(name), &WriteOptions::default()).unwrap();
    }

    fn with_data(self, name: &str, dims: &[usize], labels: &[i64]) -> Self {
        let x = Tensor::from_vec(dims, vec![0.5f32; dims.iter().product()]).unwrap();
        let labels = Tensor::vector(labels.to_vec());
        npz::write(
            &self.path(name),
            &[("x".into(), x), ("labels".into(), labels)],
            false,
        )
        .unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/fashion_mnist")
        .join(name)
}

#[test]
fn a_missing_file() {
    Folder::new("missing").fails(
        "inspect nothing.onnx",
        expect![[r#"
        exit 1
        error: nothing.onnx: there is no such file or folder
    "#]],
    );
}

#[test]
fn a_truncated_file() {
    let folder = Folder::new("truncated");
    let bytes = std::fs::read(example("model.onnx")).unwrap();
    std::fs::write(folder.path("cut.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    folder.fails(
        "inspect cut.onnx",
        expect![[r#"
        exit 1
        error: cut.onnx: the file is no ONNX model or is damaged
        hint: it may be cut off: compare its size with that of the original
    "#]],
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_batch_for_which_there_is_no_memory() {
    let folder = Folder::new("memory").with_model("Relu");
    let command =
        "ulimit -v 4000000 && exec \"$0\" bench model.onnx --dim batch=1000000000 --threads 1";
    let output = Command::new("bash")
        .args(["-c", command, env!("CARGO_BIN_EXE_edgesmith")])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    expect![[r#"
        exit 1
        error: out of memory: the system gave no 16000000000 bytes more
        hint: allow more memory, or use smaller batches; `quantize` of weights alone has --segment
    "#]]
    .assert_eq(&format!("exit {}\n{error}", output.status.code().unwrap()));
}

#[test]
fn data_of_a_wrong_shape() {
    let folder = Folder::new("shape")
        .with_model("Relu")
        .with_data("data.npz", &[3, 5], &[0, 1, 2]);
    folder.fails(
        "run model.onnx --input data.npz --output out.npz",
        expect![[r#"
            exit 1
            error: input "x": expected f32[batch,4], found f32[3,5]
            hint: the data must have the model's types and shapes; names in the shape are free
        "#]],
    );
    folder.fails(
        "compare model.onnx --data data.npz --calibrate data.npz --out out",
        expect![[r#"
            exit 1
            error: data.npz: array "x": the model expects f32[batch,4], the array is [3,5]
            hint: the array has the model's shape, with the samples on the batch axis
        "#]],
    );
}

#[test]
fn labels_out_of_range() {
    let folder =
        Folder::new("labels")
            .with_model("Relu")
            .with_data("data.npz", &[3, 4], &[0, 1, 4]);
    folder.fails(
        "compare model.onnx --data data.npz --calibrate data.npz --out out",
        expect![[r#"
            exit 1
            error: data.npz: sample 2 has the label 4, the model has 4 classes
            hint: labels run from 0 to 3
        "#]],
    );
}

#[test]
fn an_operator_that_is_unknown() {
    let folder = Folder::new("op")
        .with_model("Frobnicate")
        .with_data("data.npz", &[3, 4], &[0]);
    folder.fails(
        "run model.onnx --input data.npz --output out.npz",
        expect![[r#"
            exit 1
            error: Frobnicate "only": the operator is unknown
            hint: `edgesmith ops` lists what can be run; the model can still be inspected
        "#]],
    );
    assert!(
        folder.run("inspect model.onnx").status.success(),
        "it can still be inspected"
    );
}

#[test]
fn around_an_unknown_operator_everything_but_running_is_done() {
    let folder = Folder::new("around").with_data("x.npz", &[3, 2], &[0, 1, 0]);
    folder.write_text(
        "model.onnx",
        "opset 17\nopset \"my.ops\" 1\ngraph g(x: f32[batch,2]) -> (y: f32[batch,2]) {\n\
         w: f32[2,2] = {0.5,-0.25,1.0,0.75}\n\
         a = MatMul(x, w) {name=\"first\"}\n\
         b = my.ops.Frobnicate(a) {name=\"between\", strength=3}\n\
         y = MatMul(b, w) {name=\"last\"}\n}\n",
    );
    for words in [
        "optimize model.onnx -o extended.onnx",
        "quantize model.onnx --to int8 --calibrate x.npz -o int8.onnx",
        "quantize model.onnx --to fp16 -o fp16.onnx",
        "convert model.onnx --opset 21 -o newer.onnx",
    ] {
        let output = folder.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {error}");
    }
    for (file, op) in [("extended.onnx", "MatMul"), ("int8.onnx", "QuantizeLinear")] {
        let model = edgesmith_formats::read(&folder.path(file)).unwrap();
        let ops: Vec<&str> = model.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
        assert!(ops.contains(&"Frobnicate") && ops.contains(&op), "{ops:?}");
    }
    folder.fails(
        "run int8.onnx --input x.npz --output out.npz",
        expect![[r#"
            exit 1
            error: my.ops.Frobnicate "between": the operator is unknown
            hint: `edgesmith ops` lists what can be run; the model can still be inspected
        "#]],
    );
}

#[test]
fn sequences_come_and_go_as_numbered_arrays() {
    let folder = Folder::new("sequences").with_data("in.npz", &[2, 2], &[0]);
    folder.write_text(
        "split.onnx",
        "opset 17\ngraph g(x: f32[batch,2]) -> (s: seq<f32[batch,1]>) {\n\
         s = SplitToSequence(x) {name=\"split\", axis=1}\n}\n",
    );
    folder.write_text(
        "join.onnx",
        "opset 17\ngraph g(s: seq<f32[batch,1]>) -> (y: f32[batch,2]) {\n\
         y = ConcatFromSequence(s) {name=\"join\", axis=1}\n}\n",
    );
    for words in [
        "run split.onnx --input in.npz --output parts.npz",
        "run join.onnx --input parts.npz --output out.npz",
    ] {
        let output = folder.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {error}");
    }
    let names = npz::read(&folder.path("parts.npz")).unwrap();
    let names: Vec<&str> = names.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["s.length", "s.0", "s.1"]);
    let out = npz::read(&folder.path("out.npz")).unwrap();
    assert_eq!(out[0].1.dims(), [2, 2]);
}

#[test]
fn an_output_that_exists() {
    let folder = Folder::new("exists")
        .with_model("Relu")
        .with_data("data.npz", &[3, 4], &[0]);
    folder.fails(
        "run model.onnx --input data.npz --output data.npz",
        expect![[r#"
            exit 2
            error: data.npz: the file exists already
            hint: give another name, or --force to overwrite it
        "#]],
    );
    folder.fails(
        "optimize model.onnx -o model.onnx",
        expect![[r#"
        exit 2
        error: model.onnx: the file exists already
        hint: give another name, or --force to overwrite it
    "#]],
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    let folder = Folder::new("full").with_model("Relu");
    folder.fails(
        "optimize model.onnx -o /dev/full --force",
        expect![[r#"
        exit 1
        error: /dev/full: the disk is full
        hint: free some space or choose another folder, and run again
    "#]],
    );
}

#[test]
fn a_word_that_is_no_command() {
    Folder::new("word").fails(
        "compres",
        expect![[r#"
        exit 2
        error: unrecognized subcommand 'compres'

          tip: some similar subcommands exist: 'completions', 'compare'

        Usage: edgesmith <COMMAND>

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn run_writes_what_the_model_computes() {
    let folder = Folder::new("run")
        .with_model("Neg")
        .with_data("in.npz", &[2, 4], &[0, 1]);
    let output = folder.run("run model.onnx --input in.npz --output out.npz");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let arrays = npz::read(&folder.path("out.npz")).unwrap();
    assert_eq!(arrays[0].0, "y");
    assert_eq!(&*arrays[0].1.data::<f32>().unwrap(), &[-0.5; 8]);
}

#[test]
fn convert_raises_the_opset_and_keeps_the_answers() {
    let folder = Folder::new("convert")
        .with_model("Neg")
        .with_data("in.npz", &[2, 4], &[0, 1]);
    let output = folder.run("convert model.onnx -o new.onnx --opset 21 --external always");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let raised = edgesmith_formats::read(&folder.path("new.onnx")).unwrap();
    assert_eq!(raised.opset(), 21);
    assert!(
        folder
            .run("run new.onnx --input in.npz --output out.npz")
            .status
            .success()
    );
    let arrays = npz::read(&folder.path("out.npz")).unwrap();
    assert_eq!(&*arrays[0].1.data::<f32>().unwrap(), &[-0.5; 8]);
}

#[test]
fn an_opset_that_cannot_be_reached() {
    let folder = Folder::new("opset").with_model("Neg");
    folder.fails(
        "convert model.onnx -o new.onnx --opset 9",
        expect![[r#"
        exit 1
        error: opset 17 cannot be lowered to 9
    "#]],
    );
}

/// The first `count` samples of an npz of the example.
fn first_samples(folder: &Folder, name: &str, count: usize) {
    let cut = |(name, t): (String, Tensor)| {
        let mut dims = t.dims().to_vec();
        let bytes = t.byte_len() / dims[0] * count;
        dims[0] = count;
        let t = Tensor::from_bytes(t.dtype(), &dims, t.bytes().slice(..bytes)).unwrap();
        (name, t)
    };
    let arrays = npz::read(&example(name)).unwrap();
    let few: Vec<_> = arrays.into_iter().map(cut).collect();
    npz::write(&folder.path(name), &few, false).unwrap();
}

#[test]
fn compare_sets_a_student_as_it_is_and_quantised_beside_its_teacher() {
    let folder = Folder::new("compare-with");
    first_samples(&folder, "calib.npz", 64);
    first_samples(&folder, "test.npz", 32);
    std::fs::copy(example("model.onnx"), folder.path("model.onnx")).unwrap();
    let made = folder.run("student model.onnx -o narrow.onnx --width 0.5");
    assert!(made.status.success());
    let words = "compare model.onnx --with narrow.onnx --data test.npz --calibrate calib.npz --out out --iterations 3 --json";
    let output = folder.run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let evidence: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let variants = evidence["variants"].as_array().unwrap();
    let names: Vec<&str> = variants.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["fp32", "fp16", "int8", "narrow", "narrow-int8"]);
    let number = |i: usize, name: &str| variants[i][name].as_u64().unwrap();
    assert!(number(3, "macs") * 10 < number(0, "macs") * 4);
    assert!(number(4, "bytes") < number(3, "bytes") && number(4, "bytes") < number(2, "bytes"));
    assert!(
        variants[4]["accuracy"]["correct"].is_u64() && folder.path("out/narrow-int8.onnx").exists()
    );
    for (words, what) in [
        (
            "--with model.onnx --with out/../model.onnx",
            "two variants would be named model",
        ),
        ("--with int8.onnx", "two variants would be named int8"),
    ] {
        let words =
            format!("compare model.onnx {words} --data test.npz --calibrate calib.npz --out other");
        let output = folder.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(what) && !folder.path("other").exists(),
            "{said}"
        );
    }
}

#[test]
fn compare_writes_three_models_and_the_evidence() {
    let folder = Folder::new("compare");
    first_samples(&folder, "calib.npz", 64);
    first_samples(&folder, "test.npz", 100);
    std::fs::copy(example("model.onnx"), folder.path("model.onnx")).unwrap();
    let words =
        "compare model.onnx --data test.npz --calibrate calib.npz --out out --iterations 3 --json";
    let output = folder.run(words);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let evidence: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let variants = evidence["variants"].as_array().unwrap();
    let names: Vec<&str> = variants.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["fp32", "fp16", "int8"]);
    let correct = |i: usize| variants[i]["accuracy"]["correct"].as_i64().unwrap();
    assert!(correct(0) >= 85, "{} of 100 are right", correct(0));
    assert!((correct(2) - correct(0)).abs() <= 3, "{}", correct(2));
    let bytes = |i: usize| variants[i]["bytes"].as_u64().unwrap();
    assert!(
        bytes(2) * 10 <= bytes(0) * 3,
        "{} of {}",
        bytes(2),
        bytes(0)
    );
    for file in [
        "fp32.onnx",
        "fp16.onnx",
        "int8.onnx",
        "report.json",
        "report.html",
    ] {
        assert!(folder.path("out").join(file).exists(), "{file}");
    }
    let again = folder.run(words);
    assert_eq!(again.status.code(), Some(2), "it overwrites nothing");
}

#[test]
fn json_of_every_list_is_one_object() {
    let folder = Folder::new("lists");
    for list in ["ops", "formats", "targets", "providers"] {
        let output = folder.run(&format!("{list} --json"));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(value.is_object(), "{list}");
    }
}

/// `docs/reference/commands.md` is made by running this test with `UPDATE_EXPECT=1`.
#[test]
fn the_reference_of_the_commands_is_their_help() {
    let folder = Folder::new("reference");
    let help = |words: &str| {
        let output = folder.run(words);
        assert!(output.status.success(), "{words}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .fold(String::new(), |all, line| all + line.trim_end() + "\n")
    };
    let program = help("--help");
    let commands = program.lines().skip_while(|l| *l != "Commands:").skip(1);
    let mut page = format!("# Commands\n\n```\n{program}```\n");
    for line in commands.take_while(|l| !l.is_empty()) {
        let name = line.trim_start().split(' ').next().unwrap();
        let wrapped = line.starts_with("   ");
        if !wrapped && name != "help" {
            let text = help(&format!("{name} --help"));
            page += &format!("\n## {name}\n\n```\n{text}```\n");
        }
    }
    expect_file!["../../../docs/reference/commands.md"].assert_eq(&page);
}

/// `docs/reference/operators.md` is made by running this test with `UPDATE_EXPECT=1`.
#[test]
fn the_reference_of_the_operators_is_their_list() {
    let output = Folder::new("operators").run("ops --json");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let yes = |value: &serde_json::Value| if *value == true { "yes" } else { "" };
    let mut domain = String::from("none");
    let mut page = String::from(
        "# Operators\n\nWhat `edgesmith ops` lists: the versions that are known (a model may ask for \
         any later\nopset, where the newest one holds), whether the reference provider evaluates the \
         operator, and\nwhether the cpu provider has a kernel for it; it leaves the others, and forms \
         that its kernels do\nnot take, to the reference.\n",
    );
    for op in list["ops"].as_array().unwrap() {
        let here = op["domain"].as_str().unwrap();
        if here != domain {
            domain = here.to_owned();
            let title = if here.is_empty() { "ai.onnx" } else { here };
            page += &format!(
                "\n## {title}\n\n| operator | versions | reference | cpu |\n|---|---|---|---|\n"
            );
        }
        let since = op["since"].as_array().unwrap().iter();
        let since: Vec<String> = since.map(ToString::to_string).collect();
        let (name, since) = (op["name"].as_str().unwrap(), since.join(", "));
        let (reference, cpu) = (yes(&op["evaluated"]), yes(&op["cpu"]));
        page += &format!("| {name} | {since} | {reference} | {cpu} |\n");
    }
    expect_file!["../../../docs/reference/operators.md"].assert_eq(&page);
}

#[test]
fn help_teaches_every_command() {
    let folder = Folder::new("help");
    for command in [
        "compare", "inspect", "run", "bench", "optimize", "quantize", "convert", "prepare",
    ] {
        let output = folder.run(&format!("{command} --help"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Example: edgesmith"), "{command}:\n{text}");
    }
}
