//! Devices and other engines from outside: what they take, what is said where they do not, and what
//! `bench` tells of a run.

use serde_json::Value;

use super::*;

/// A Q/DQ group over 16 channels that npu-sim takes, and one over 5 that it does not.
fn groups(folder: &Folder) {
    let text = "opset 17 graph g (x: u8[1,16]) -> (z: u8[1,5]) {
        s: f32[] = {0.1} p: u8[] = {8} v: i8[] = {0} w: i8[16,16] = {W16} u: i8[16,5] = {W5}
        xd = DequantizeLinear(x, s, p) {name=\"xd\"} wd = DequantizeLinear(w, s, v) {name=\"wd\"}
        y = MatMul(xd, wd) {name=\"y\"} yq = QuantizeLinear(y, s, p) {name=\"yq\"}
        yd = DequantizeLinear(yq, s, p) {name=\"yd\"} ud = DequantizeLinear(u, s, v) {name=\"ud\"}
        m = MatMul(yd, ud) {name=\"m\"} z = QuantizeLinear(m, s, p) {name=\"z\"} }";
    let numbers = |n: usize| {
        let each = (0..n).map(|i| ((i * 7) % 11).to_string());
        each.collect::<Vec<_>>().join(", ")
    };
    let text = text
        .replace("W16", &numbers(256))
        .replace("W5", &numbers(80));
    folder.write_text("groups.onnx", &text);
    let x = Tensor::from_vec(&[1, 16], (0..16u8).collect()).unwrap();
    npz::write(&folder.path("x.npz"), &[("x".into(), x)], false).unwrap();
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn object(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// True where an engine's library is not here; the test then has nothing to look at.
fn is_absent(output: &Output) -> bool {
    let error = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && error.contains("is not available")
}

#[test]
fn what_a_device_cannot_make_ready_is_said() {
    let folder = Folder::new("devices-fail");
    groups(&folder);
    let failing = "--providers npu-sim:launch=0;fail-compile=1,cpu";
    let run = format!("run groups.onnx --input x.npz --output y.npz {failing}");
    let bench = format!("bench groups.onnx --iterations 1 --cold-starts 0 {failing}");
    for words in [run, bench] {
        let said = said(&folder.run(&words));
        let expected = "warning: npu-sim could not make 1 node ready: the script lets this \
                        compilation fail; the providers after it run it";
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("took no node"), "{said}");
    }
}

#[test]
fn a_named_device_without_a_node_is_said() {
    let folder = Folder::new("devices-none").with_model("Relu");
    let bench = "bench model.onnx --iterations 1 --cold-starts 0 --providers";
    let none = said(&folder.run(&format!("{bench} npu-sim,cpu")));
    assert!(none.contains("warning: npu-sim took no node"), "{none}");
    assert!(none.contains("--providers npu-sim,cpu"), "{none}");
    let plain = said(&folder.run(&format!("{bench} cpu")));
    assert!(!plain.contains("warning"), "{plain}");
}

#[test]
fn inspect_tells_parts_and_a_reason_for_every_node() {
    let folder = Folder::new("devices-inspect");
    groups(&folder);
    let words = "inspect groups.onnx --providers npu-sim:launch=0,cpu";
    let text = String::from_utf8(folder.run(words).stdout).unwrap();
    assert!(text.contains("saves us"), "{text}");
    assert!(text.contains("npu-sim takes it"), "{text}");
    assert!(text.contains("5 channels are no multiple of 16"), "{text}");
    let json = object(&folder.run(&format!("{words} --json")));
    let parts = json["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "{json}");
    assert_eq!(parts[0]["provider"], "npu-sim");
    assert!(parts[0]["saves_us"].as_f64().unwrap() > 0.0);
    let nodes = json["placements"].as_array().unwrap();
    for node in nodes {
        assert!(!node["reason"].as_str().unwrap().is_empty(), "{node}");
    }
    let target = folder.run(&format!("{words} --target cortex-m7"));
    let target = String::from_utf8(target.stdout).unwrap();
    assert!(
        target.contains("cortex-m7"),
        "the notes of the target stay: {target}"
    );
}

/// An If whose branches hold a product each, of an open length.
fn branches(folder: &Folder) {
    folder.write_text(
        "branches.onnx",
        "opset 17 graph g (c: bool[], x: f32[n,3]) -> (y: f32[n,2]) {
            y = If(c) {then_branch = graph t () -> (a: f32[n,2]) { capture i = x
                           w: f32[3,2] = {1,2,3,4,5,6} a = MatMul(i, w) {name=\"a\"} },
                       else_branch = graph e () -> (b: f32[n,2]) { capture j = x
                           u: f32[3,2] = {6,5,4,3,2,1} b = MatMul(j, u) {name=\"b\"} }, name=\"if\"}
        }",
    );
}

#[test]
fn nodes_inside_of_branches_are_told_and_their_weights_are_packed() {
    let folder = Folder::new("devices-branches");
    branches(&folder);
    let json = object(&folder.run("inspect branches.onnx --providers npu-sim,cpu --json"));
    let nodes = json["placements"].as_array().unwrap();
    let found = |name: &str| nodes.iter().find(|n| n["node"] == name).cloned();
    let inside = found("if/then_branch/a").unwrap();
    assert_eq!(inside["provider"], "cpu");
    assert!(
        inside["reason"].as_str().unwrap().contains("npu-sim"),
        "{inside}"
    );
    assert!(found("if/else_branch/b").is_some(), "{json}");
    let said = said(&folder.run("prepare branches.onnx -o branches.prepared"));
    assert!(said.starts_with("2 nodes with"), "{said}");
}

#[test]
fn weights_that_wait_for_a_run_are_said() {
    let folder = Folder::new("devices-wait");
    folder.write_text(
        "wait.onnx",
        "opset 17 graph g (x: f32[3]) -> (y: f32[k,2]) {
            i = NonZero(x) {name=\"i\"} t = Transpose(i) {name=\"t\"}
            f = Cast(t) {to=1, name=\"f\"} w: f32[1,2] = {1,2} y = MatMul(f, w) {name=\"y\"} }",
    );
    let x = Tensor::vector(vec![0f32, 1.0, 2.0]);
    npz::write(&folder.path("x.npz"), &[("x".into(), x)], false).unwrap();
    let none = said(&folder.run("prepare wait.onnx -o none.prepared"));
    assert!(
        none.contains("warning: weights of") && none.contains("--input"),
        "{none}"
    );
    let all = said(&folder.run("prepare wait.onnx -o all.prepared --input x.npz"));
    assert!(all.starts_with("1 node with"), "{all}");
}

#[test]
fn a_length_that_does_not_fit_is_told_with_what_sets_it() {
    let folder = Folder::new("devices-lengths");
    folder.write_text(
        "short.onnx",
        "opset 17 graph g (x: f32[1,1,n]) -> (y: f32[1,1,m]) {
            w: f32[1,1,3] = {1,2,3} y = Conv(x, w) {name=\"y\"} }",
    );
    let output = folder.run("bench short.onnx --dim n=2 --cold-starts 0");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("Conv \"y\""), "{error}");
    assert!(error.contains("--dim NAME=N (n, x:2)"), "{error}");
}

#[test]
fn rounds_and_times_out_of_range_are_refused() {
    let folder = Folder::new("devices-range").with_model("Relu");
    for words in [
        "--iterations 0",
        "--sustained 0s",
        "--sustained 1.5s",
        "--sustained 2d",
    ] {
        let output = folder.run(&format!("bench model.onnx --cold-starts 0 {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}");
    }
}

#[test]
fn a_sustained_load_tells_each_second() {
    let folder = Folder::new("devices-sustained").with_model("Relu");
    let words = "bench model.onnx --cold-starts 0 --iterations 1 --sustained 2s --json";
    let seconds = object(&folder.run(words))["sustained"].clone();
    let seconds = seconds.as_array().unwrap();
    assert_eq!(seconds.len(), 2);
    assert!(seconds.iter().all(|s| s["rate"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_profile_sets_every_step_against_a_peak() {
    let folder = Folder::new("devices-profile");
    groups(&folder);
    let words = "bench groups.onnx --cold-starts 0 --iterations 1 --profile";
    let json = object(&folder.run(&format!("{words} --json")));
    let nodes = json["nodes"].as_array().unwrap();
    assert!(!nodes.is_empty());
    for node in nodes {
        assert!(node["bytes"].as_u64().unwrap() > 0, "{node}");
        assert!(node["of_peak"].as_f64().unwrap() > 0.0, "{node}");
    }
    let peaks = json["peaks"].as_array().unwrap();
    assert!(peaks.iter().all(|p| p["bytes"].as_f64().unwrap() > 0.0));
    let text = String::from_utf8(folder.run(words).stdout).unwrap();
    assert!(
        text.contains("GB/s") && text.contains("peak of one thread"),
        "{text}"
    );
}

#[test]
fn engines_run_beside_ours_and_answer_alike() {
    let folder = Folder::new("devices-vs").with_model("Relu");
    for engine in ["onnxruntime", "openvino"] {
        let words = "bench model.onnx --cold-starts 1 --iterations 2 --json --vs";
        let output = folder.run(&format!("{words} {engine}"));
        if is_absent(&output) {
            continue;
        }
        let json = object(&output);
        assert_eq!(json["vs"][0]["engine"], engine);
        assert!(json["vs"][0]["cpu_ratio"].as_f64().unwrap() > 0.0);
        assert_eq!(json["vs"][0]["difference"], 0.0, "{json}");
    }
}

#[test]
fn engines_take_groups_that_passes_have_joined() {
    let folder = Folder::new("devices-joined");
    groups(&folder);
    let wanted =
        said(&folder.run("run groups.onnx --input x.npz --output y.npz --providers reference"));
    assert!(wanted.is_empty());
    let wanted = npz::read(&folder.path("y.npz")).unwrap();
    for engine in ["onnxruntime", "openvino"] {
        let providers = format!("--providers {engine},cpu");
        let output = folder.run(&format!("inspect groups.onnx {providers} --json"));
        if is_absent(&output) {
            continue;
        }
        let json = object(&output);
        let nodes = json["placements"].as_array().unwrap();
        let products = nodes.iter().filter(|n| n["op"] == "QLinearMatMul");
        assert_eq!(products.clone().count(), 2, "the passes join them: {json}");
        for node in products {
            assert_eq!(node["provider"], engine, "{node}");
        }
        let run = format!("run groups.onnx --input x.npz --output {engine}.npz {providers}");
        assert_eq!(said(&folder.run(&run)), "");
        let found = npz::read(&folder.path(&format!("{engine}.npz"))).unwrap();
        let bytes = |arrays: &[(String, Tensor)]| arrays[0].1.to_i64().unwrap().to_vec();
        let apart = bytes(&found).into_iter().zip(bytes(&wanted));
        assert!(
            apart.clone().all(|(a, b)| (a - b).abs() <= 1),
            "{engine}: {apart:?}"
        );
    }
}
