//! The evidence of a conversion, from outside: pages, JSON, loud lines, files read back.

use std::process::Output;

use serde_json::Value;

use super::smaller::with_product;
use super::{Folder, example};

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn object(output: &Output) -> Value {
    let said = said(output);
    serde_json::from_slice(&output.stdout).expect(&said)
}

const TO_INT8: &str = "quantize model.onnx -o a.onnx --to int8 --calibrate data.npz";

#[test]
fn a_conversion_is_told_as_a_page_and_as_one_object() {
    let folder = with_product("report");
    let output = folder.run(&format!("{TO_INT8} --report r.html --json"));
    let found = object(&output);
    let [before, after] = &found["variants"].as_array().unwrap()[..] else {
        panic!("there is a model before and one after");
    };
    assert_eq!(before["bytes"], folder.size("model.onnx"));
    assert_eq!(after["bytes"], folder.size("a.onnx"));
    assert!(after["latency"]["speedup"].as_f64().unwrap() > 0.0);
    assert!(after["fidelity"]["sqnr_db"].as_f64().unwrap() > 30.0);
    let account = &after["account"][0];
    assert_eq!(
        (&account["name"], &account["fate"]),
        (&"m".into(), &"converted".into())
    );
    let nodes = after["nodes"].as_array().unwrap();
    let product = nodes
        .iter()
        .find(|n| n["name"] == account["ran_as"])
        .unwrap();
    for error in ["weight_sqnr_db", "sqnr_db"] {
        assert!(product[error].as_f64().unwrap() > 30.0, "{product}");
    }
    let weight = &after["tensors"][0];
    assert_eq!(
        (&weight["name"], &weight["node"]),
        (&"w".into(), &"m".into())
    );
    let bytes = |when: &str| weight[when]["bytes"].as_u64();
    assert_eq!((bytes("before"), bytes("after")), (Some(256), Some(64)));
    assert_eq!(found["recipe"]["steps"][1]["step"], "quantize to=int8");
    let page = std::fs::read_to_string(folder.path("r.html")).unwrap();
    for part in ["What became of each layer", "Size by tensor", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn what_was_chosen_by_measuring_is_told() {
    let folder = with_product("chosen");
    let found = object(&folder.run(&format!(
        "{TO_INT8} --observer best --adaptive-rounding 4 --json"
    )));
    let [observer, rounding] = &found["choices"].as_array().unwrap()[..] else {
        panic!("an observer and a rounding are chosen: {found}");
    };
    assert_eq!(observer["what"], "observer");
    assert_eq!(observer["taken"], observer["candidates"][0]["name"]);
    assert!(observer["candidates"].as_array().unwrap().len() > 2);
    assert_eq!(rounding["candidates"][1]["name"], "to nearest");
    assert!(rounding["candidates"][0]["sqnr_db"].as_f64().unwrap() > 0.0);
    assert!(rounding["samples"].as_u64().unwrap() > 0);
}

#[test]
fn a_page_that_is_there_is_not_overwritten() {
    let folder = with_product("there");
    std::fs::write(folder.path("r.html"), "mine").unwrap();
    folder.fails(
        &format!("{TO_INT8} --report r.html"),
        expect_test::expect![[r#"
            exit 2
            error: r.html: the file exists already
            hint: give another name, or --force to overwrite it
        "#]],
    );
    let page = std::fs::read_to_string(folder.path("r.html")).unwrap();
    assert_eq!(page, "mine");
}

#[test]
fn a_file_that_grows_is_told_loudly_and_another_is_not() {
    let folder = with_product("loud");
    let said_of = |words: &str| said(&folder.run(words));
    let grown = said_of(TO_INT8);
    let line = format!("!!! LARGER: a.onnx has {} bytes", folder.size("a.onnx"));
    assert!(folder.size("a.onnx") > folder.size("model.onnx"));
    assert!(grown.replace(',', "").contains(&line), "{grown}");
    std::fs::copy(example("model.onnx"), folder.path("large.onnx")).unwrap();
    let shrunk = said_of("quantize large.onnx -o b.onnx --to bf16");
    assert!(!shrunk.contains("!!!"), "{shrunk}");
}

#[test]
fn latency_alone_is_measured_where_that_is_asked_for() {
    let folder = with_product("measure");
    let files = folder.files().len();
    let output = folder.run("quantize model.onnx -o a.onnx --to bf16 --measure");
    let said = said(&output);
    assert!(
        output.stdout.is_empty() && said.contains("the speed (p50 of"),
        "{said}"
    );
    assert_eq!(folder.files().len(), files + 1);
    let quick = folder.run("quantize model.onnx -o b.onnx --to bf16");
    assert!(!String::from_utf8(quick.stderr).unwrap().contains("latency"));
}

#[test]
fn a_recipe_gives_the_same_evidence() {
    let folder = with_product("apply");
    let recipe = "model = \"model.onnx\"\noutput = \"a.onnx\"\ncalibrate = \"data.npz\"\n\n[[step]]\n\
                  do = \"quantize\"\nto = \"int8\"\n\n[[step]]\ndo = \"optimize\"\nlevel = \"extended\"\n";
    std::fs::write(folder.path("r.toml"), recipe).unwrap();
    let found = object(&folder.run("apply r.toml --json --report r.html"));
    assert_eq!(found["variants"][1]["account"][0]["fate"], "converted");
    assert_eq!(found["recipe"]["output"], "a.onnx");
    assert!(folder.path("r.html").exists());
}

#[test]
fn operators_on_integers_have_errors_by_layer_too() {
    let folder = with_product("operators");
    let found = object(&folder.run(&format!("{TO_INT8} --format qoperator --json")));
    let nodes = found["variants"][1]["nodes"].as_array().unwrap();
    let product = nodes.iter().find(|n| n["name"] == "m").unwrap();
    assert!(
        product["weight_sqnr_db"].as_f64().unwrap() > 30.0,
        "{product}"
    );
    assert!(product["sqnr_db"].as_f64().unwrap() > 30.0, "{product}");
}

impl Folder {
    fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.path(name)).unwrap().len()
    }
}
