//! What makes a model smaller, from outside: recipes, targets, weights alone.

use edgesmith_formats::npz;
use edgesmith_ir::Tensor;
use expect_test::expect;

use super::Folder;

/// A small classifier with large weights of one sign, and data for it.
fn with_classifier(test: &str) -> Folder {
    let folder = Folder::new(test);
    let weights: Vec<String> = (0..32)
        .map(|i| {
            format!(
                "{}",
                if i % 5 == 0 {
                    -0.9
                } else {
                    0.8 + 0.01 * f64::from(i % 7)
                }
            )
        })
        .collect();
    folder.write_text(
        "model.onnx",
        &format!(
            "opset 17\ngraph g(x: f32[batch,8]) -> (y: f32[batch,4]) {{\n  w: f32[8,4] = {{{}}}\n  \
             h = Identity(x) {{name=\"i\"}}\n  y = MatMul(h, w) {{name=\"m\"}}\n}}\n",
            weights.join(",")
        ),
    );
    let x = (0..40 * 8)
        .map(|i| ((i * 7919) % 997) as f32 / 997.0)
        .collect();
    let x = Tensor::from_vec(&[40, 8], x).unwrap();
    let labels = Tensor::vector((0..40).map(|i| i % 4).collect::<Vec<i64>>());
    let arrays = [("x".into(), x), ("labels".into(), labels)];
    npz::write(&folder.path("data.npz"), &arrays, false).unwrap();
    folder
}

#[test]
fn a_recipe_repeats_the_command_that_told_it() {
    let folder = with_classifier("recipe");
    let words =
        "quantize model.onnx -o a.onnx --target npu-int8 --calibrate data.npz --recipe r.toml";
    let output = folder.run(words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("target npu-int8"), "{said}");
    let recipe = std::fs::read_to_string(folder.path("r.toml")).unwrap();
    assert!(recipe.contains("power-of-two = true"), "{recipe}");
    assert!(folder.run("apply r.toml -o b.onnx").status.success());
    let bytes = |name: &str| std::fs::read(folder.path(name)).unwrap();
    assert!(bytes("a.onnx") == bytes("b.onnx"));
    let before = folder.files();
    let plan = folder.run("apply r.toml --dry-run --force");
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("1 pass over the data"), "{plan}");
    assert_eq!(folder.files(), before);
}

#[test]
fn a_goal_is_searched_for_and_the_recipe_gives_what_was_found() {
    let folder = with_product("goal");
    let words = "quantize model.onnx -o a.onnx --to int3 --group 16 --size 5kB --recipe r.toml";
    let output = folder.run(words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("taken: "), "{said}");
    let recipe = std::fs::read_to_string(folder.path("r.toml")).unwrap();
    assert!(!recipe.contains("size ="), "{recipe}");
    assert!(folder.run("apply r.toml -o b.onnx").status.success());
    let bytes = |name: &str| std::fs::read(folder.path(name)).unwrap();
    assert!(bytes("a.onnx") == bytes("b.onnx"));
    let missed = folder.run("quantize model.onnx -o c.onnx --to int4 --group 16 --size 10B");
    let said = String::from_utf8(missed.stderr).unwrap();
    assert!(said.contains("the goal is missed: the file has"), "{said}");
}

#[test]
fn a_fault_in_a_recipe_is_told_with_its_line() {
    let folder = with_classifier("fault");
    let recipe = "model = \"model.onnx\"\noutput = \"a.onnx\"\n\n[[step]]\ndo = \"quantize\"\nto = \
                  \"int4\"\ngrop = \"32\"\n";
    std::fs::write(folder.path("recipe.toml"), recipe).unwrap();
    folder.fails(
        "apply recipe.toml",
        expect![[r#"
            exit 2
            error: recipe.toml:7: unknown key "grop"
            hint: did you mean "group"
        "#]],
    );
}

#[test]
fn targets_are_compared_from_one_calibration() {
    let folder = with_classifier("each");
    let output = folder.run(
        "compare model.onnx --data data.npz --calibrate data.npz --targets all --json --out out",
    );
    let said = String::from_utf8(output.stderr).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(found["calibration_passes"], 1);
    let rows = found["targets"].as_array().unwrap();
    let of = |name: &str| -> Vec<&serde_json::Value> {
        rows.iter().filter(|r| r["target"] == name).collect()
    };
    let [careless, cured] = of("x86-64-avx2")[..] else {
        panic!("AVX2 has two rows");
    };
    assert!(careless["saturated_sums"].as_u64().unwrap() > 0);
    assert_eq!(cured["saturated_sums"], 0);
    let db = |row: &serde_json::Value| row["sqnr_db"].as_f64().unwrap();
    assert!(db(cured) > db(careless) + 10.0);
    assert!(db(of("cortex-a76")[0]) > db(of("npu-int8")[0]));
    assert_eq!(of("cortex-m4")[0]["fits"], true);
    assert!(folder.path("out/int8-u8-reduce-range.onnx").exists());
}

/// A product of 16 inputs, and data for it.
pub fn with_product(test: &str) -> Folder {
    let folder = Folder::new(test);
    let weights = (0..64).map(|i| format!("{:?}", ((i * 37 % 64) as f32 - 31.5) / 32.0));
    let weights = weights.collect::<Vec<_>>().join(",");
    folder.write_text(
        "model.onnx",
        &format!(
            "opset 17\ngraph g(x: f32[batch,16]) -> (y: f32[batch,4]) {{\n  w: f32[16,4] = {{{weights}}}\n  \
             y = MatMul(x, w) {{name=\"m\"}}\n}}\n"
        ),
    );
    let x = (0..40 * 16)
        .map(|i| ((i * 7919) % 997) as f32 / 997.0)
        .collect();
    let x = Tensor::from_vec(&[40, 16], x).unwrap();
    npz::write(&folder.path("data.npz"), &[("x".into(), x)], false).unwrap();
    folder
}

#[test]
fn weights_alone_are_told_with_their_true_bits() {
    let folder = with_product("bits");
    let words = "quantize model.onnx -o a.onnx --to int4 --group 16";
    let said = String::from_utf8(folder.run(words).stderr).unwrap();
    // A scale of 32 bits for 16 weights, and a zero point that takes a whole byte of its row.
    assert!(
        said.contains("weights only: 6.500 bits for each of 64 weights"),
        "{said}"
    );
}

#[test]
fn what_calibration_found_is_read_again_unless_it_is_damaged() {
    let folder = with_product("kept");
    let run = |out: &str| {
        let words = "quantize model.onnx --to int4 --group 16 --calibrate data.npz --cache kept";
        assert!(folder.run(&format!("{words} -o {out}")).status.success());
        std::fs::read(folder.path(out)).unwrap()
    };
    let first = run("a.onnx");
    let mut kept = std::fs::read_dir(folder.path("kept")).unwrap();
    let kept = kept.next().unwrap().unwrap().path();
    let found = std::fs::read(&kept).unwrap();
    assert!(run("b.onnx") == first);
    std::fs::write(&kept, &found[..found.len() / 2]).unwrap();
    assert!(run("c.onnx") == first);
    assert!(std::fs::read(&kept).unwrap() == found);
}
