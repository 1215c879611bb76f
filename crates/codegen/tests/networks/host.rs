//! Generated code on this machine, under sanitizers.

use std::fmt::Write as _;
use std::process::Command;

use edgesmith_codegen::Firmware;
use edgesmith_codegen::program::Element;

/// Code with what it is given and what it has to answer.
pub struct Case {
    pub name: String,
    pub firmware: Firmware,
    pub given: Vec<Vec<u8>>,
    pub expected: Vec<Vec<u8>>,
    /// How far floats may be apart, as part of 1 and of the number.
    pub near: f32,
}

const FLAGS: &[&str] = &[
    "-std=c99",
    "-O1",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wpedantic",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

/// The head of the program, with the comparison of floats.
const FAR: &str = "#include <stdio.h>
#include <string.h>
static int far(const void *a, const void *b, size_t bytes, float near)
{
    size_t i;
    for (i = 0u; i < bytes; i += sizeof(float)) {
        float x;
        float y;
        float apart;
        float size;
        memcpy(&x, (const char *)a + i, sizeof(x));
        memcpy(&y, (const char *)b + i, sizeof(y));
        apart = x < y ? y - x : x - y;
        size = y < 0.0f ? -y : y;
        if (!(apart <= near * (1.0f + size))) {
            return 1;
        }
    }
    return 0;
}
";

fn bytes(name: &str, all: &[Vec<u8>]) -> String {
    let numbers: Vec<String> = all.iter().flatten().map(u8::to_string).collect();
    format!(
        "static const unsigned char {name}[] = {{{}}};\n",
        numbers.join(",")
    )
}

/// The program that runs every case and prints the numbers of those that differ.
fn main_text(cases: &[Case]) -> String {
    let mut text = FAR.to_owned();
    for case in cases {
        let _ = writeln!(text, "#include \"{}.h\"", case.firmware.prefix);
    }
    for (i, case) in cases.iter().enumerate() {
        text += &bytes(&format!("given{i}"), &case.given);
        text += &bytes(&format!("expected{i}"), &case.expected);
    }
    text += "int main(void)\n{\n    unsigned int n;\n    (void)far;\n";
    for (i, case) in cases.iter().enumerate() {
        let p = &case.firmware.prefix;
        let input = &case.firmware.program.inputs[0].c_name;
        let output = &case.firmware.program.outputs[0].c_name;
        let (x, y) = (case.given[0].len(), case.expected[0].len());
        let floats = matches!(&case.firmware.program, p if p.buffers[p.outputs[0].buffer].element == Element::F32);
        let differ = if floats { "far" } else { "memcmp" };
        let near = match floats {
            true => format!(", {:?}f", case.near),
            false => String::new(),
        };
        let _ = write!(
            text,
            "    {p}_init();\n    for (n = 0u; n < {}u; n++) {{\n        \
             memcpy((void *){p}_input_{input}(), &given{i}[n * {x}u], {x}u);\n        {p}_invoke();\n        \
             if ({differ}((const void *){p}_output_{output}(), &expected{i}[n * {y}u], {y}u{near}) != 0) {{\n            \
             printf(\"{i} \");\n        }}\n    }}\n",
            case.given.len()
        );
    }
    text + "    return 0;\n}\n"
}

/// Compiles all cases into one program and runs it.
pub fn check(cases: &[Case]) {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("no C compiler called cc: the code was not run");
        return;
    }
    let name = format!(
        "edgesmith-{}-{}",
        cases[0].firmware.prefix,
        std::process::id()
    );
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut sources = vec!["main.c".to_owned()];
    for case in cases {
        for (name, text) in &case.firmware.files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        sources.push(format!("{}.c", case.firmware.prefix));
    }
    std::fs::write(folder.join("main.c"), main_text(cases)).unwrap();
    let cc = Command::new("cc")
        .current_dir(&folder)
        .args(FLAGS)
        .args(&sources)
        .args(["-o", "all"])
        .output()
        .unwrap();
    assert!(
        cc.status.success(),
        "{}",
        String::from_utf8_lossy(&cc.stderr)
    );
    let ran = Command::new(folder.join("all")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let wrong = said
        .split_whitespace()
        .filter_map(|n| n.parse::<usize>().ok());
    let mut wrong: Vec<&str> = wrong.map(|n| cases[n].name.as_str()).collect();
    wrong.dedup();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    assert!(wrong.is_empty(), "differ: {wrong:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}
