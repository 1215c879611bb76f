//! Generated code that is built and run: on this machine, and what is said where tools are missing.

use super::*;

/// A small INT8 model, and samples for it.
fn quantised(test: &str) -> Folder {
    let folder = Folder::new(test);
    first_samples(&folder, "calib.npz", 32);
    first_samples(&folder, "test.npz", 5);
    std::fs::copy(example("model.onnx"), folder.path("model.onnx")).unwrap();
    let words = "quantize model.onnx --to int8 --target rv32imc --calibrate calib.npz -o int8.onnx";
    let output = folder.run(words);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

fn command(board: &str) -> String {
    format!(
        "codegen int8.onnx --name net --target rv32imc -o firmware --force --json --run {board} --input \
         test.npz --samples 0"
    )
}

#[test]
#[cfg(unix)]
fn generated_code_on_this_machine_gives_the_outputs_of_rust() {
    let folder = quantised("host");
    let output = folder.run(&command("--board host --optimize Os"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &all["run"];
    assert_eq!(
        (&run["samples"], &run["equal"], &run["wrong"]),
        (&5.into(), &5.into(), &0.into())
    );
    assert_eq!(run["arena_bytes"], all["arena_bytes"]);
    assert!(run["right"].as_u64().unwrap() >= 3, "{run}");
}

#[test]
#[ignore = "needs riscv64-unknown-elf-gcc and qemu-system-riscv32"]
fn generated_code_on_a_board_gives_the_outputs_of_rust_and_is_measured() {
    let folder = quantised("board");
    let output = folder.run(&command(""));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &all["run"];
    assert_eq!((&run["board"], &run["equal"]), (&"rv32".into(), &5.into()));
    let measured = &run["measured"];
    let layers = measured["layers"].as_array().unwrap();
    assert_eq!(layers.len(), all["layers"].as_array().unwrap().len());
    let sum: u64 = layers.iter().map(|l| l.as_u64().unwrap()).sum();
    let most = measured["instructions_max"].as_u64().unwrap();
    assert!(sum > most / 2 && sum < most * 11 / 10, "{sum} of {most}");
    assert!(measured["stack_bytes"].as_u64().unwrap() < 2048);
}

#[test]
#[cfg(unix)]
fn a_compiler_that_is_missing_is_named_with_its_package() {
    let folder = quantised("tools");
    let output = Command::new(env!("CARGO_BIN_EXE_edgesmith"))
        .args(command("").split_whitespace())
        .current_dir(&folder.0)
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("riscv64-unknown-elf-gcc is not installed"),
        "{said}"
    );
    assert!(
        said.contains("apt-get install gcc-riscv64-unknown-elf"),
        "{said}"
    );
}

#[test]
fn code_that_a_board_cannot_run_is_refused() {
    let folder = quantised("flavour");
    let words = command("--board cortex-m3").replace("rv32imc", "cortex-m4");
    let output = folder.run(&words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("cortex-m3 has no instructions for the kernels"),
        "{said}"
    );
}
