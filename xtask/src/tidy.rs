//! The rules of the house that a program can check; a test runs it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;

use crate::Task;

/// The task.
pub static TASK: Task = Task {
    name: "tidy",
    about: "Check the rules of the house that a program can check",
    args: |c| c,
    run,
};

/// A file longer than this, tests left out, has a second idea in it.
const MAX_PRODUCTION_LINES: usize = 600;

/// Crates of ours that a crate may depend on outside of tests; those not named may use any.
static MAY_KNOW: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("kernels", &[]),
    ("report", &[]),
    ("formats", &["ir"]),
    ("passes", &["ir"]),
    ("testkit", &["ir"]),
    ("data", &["ir", "formats"]),
    ("engines", &["ir", "formats", "runtime"]),
    ("runtime", &["ir", "kernels"]),
    ("codegen", &["ir", "runtime"]),
    ("train", &["ir", "passes", "runtime"]),
    (
        "compress",
        &["ir", "kernels", "passes", "runtime", "data", "train"],
    ),
];

/// The only places with `unsafe`.
static UNSAFE_HOMES: &[&str] = &["crates/kernels/src/", "crates/formats/src/map.rs"];

/// Files that own a list, with the folder whose every file they must name.
static LISTS: &[(&str, &str)] = &[
    ("crates/ir/src/ops.rs", "crates/ir/src/ops"),
    ("crates/cli/src/commands.rs", "crates/cli/src/commands"),
    ("crates/data/src/source.rs", "crates/data/src/source"),
    ("crates/data/src/augment.rs", "crates/data/src/augment"),
    ("crates/cli/src/targets.rs", "targets"),
];

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Checks everything and lists all faults.
///
/// # Errors
/// When a rule is broken or a file cannot be read.
fn run(_: &ArgMatches) -> Result<()> {
    let faults = faults(&root())?;
    ensure!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
    Ok(())
}

fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for top in ["crates", "xtask"] {
        for path in rust_files(&root.join(top))? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .display()
                .to_string();
            faults.extend(file_faults(&name, &text));
        }
    }
    for (owner, folder) in LISTS {
        let Ok(text) = fs::read_to_string(root.join(owner)) else {
            continue;
        };
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_file() && !text.contains(&stem) {
                faults.push(format!("{owner} does not name {folder}/{stem}"));
            }
        }
    }
    for (name, allowed) in MAY_KNOW {
        let Ok(text) = fs::read_to_string(root.join(format!("crates/{name}/Cargo.toml"))) else {
            continue;
        };
        faults.extend(unknown_neighbours(name, allowed, &text));
    }
    Ok(faults)
}

fn file_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let production: Vec<&str> = text
        .lines()
        .take_while(|l| !l.starts_with("#[cfg(test)]"))
        .collect();
    if !text.starts_with("//! ") {
        faults.push(format!("{name} does not open with `//!` and a sentence"));
    }
    if production.len() > MAX_PRODUCTION_LINES && !name.contains("/tests/") {
        faults.push(format!("{name} has {} production lines", production.len()));
    }
    if name.ends_with("/mod.rs") {
        faults.push(format!("{name} should be named after its folder"));
    }
    let code = production
        .iter()
        .filter(|l| !l.trim_start().starts_with("//"));
    let uses_unsafe = code
        .clone()
        .any(|l| l.contains("unsafe {") || l.contains("unsafe fn"));
    let at_home = UNSAFE_HOMES.iter().any(|home| name.starts_with(home));
    if uses_unsafe && !at_home && !name.contains("/tests/") && !name.starts_with("xtask/") {
        faults.push(format!("{name} has unsafe code"));
    }
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        if text.contains(mark) {
            faults.push(format!("{name} has a {mark}: finish it or file it"));
        }
    }
    if text.lines().any(|l| l.ends_with(' ') || l.ends_with('\t')) {
        faults.push(format!("{name} has white space at the end of a line"));
    }
    faults
}

/// Dependencies of ours, outside of tests, that a crate must not have.
fn unknown_neighbours(name: &str, allowed: &[&str], manifest: &str) -> Vec<String> {
    let mut section = "";
    let mut faults = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let neighbour = line
            .strip_prefix("edgesmith-")
            .and_then(|l| l.split(['.', ' ']).next());
        if let Some(neighbour) = neighbour
            && section == "[dependencies]"
            && !allowed.contains(&neighbour)
        {
            faults.push(format!("crates/{name} must not know {neighbour}"));
        }
    }
    faults
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let faults = faults(&root()).unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn faults_are_found() {
        let text = format!(
            "fn main() {{}} // {}\nunsafe {{ x }}\n",
            concat!("TO", "DO")
        );
        assert_eq!(file_faults("crates/ir/src/x.rs", &text).len(), 3);
        let manifest = "[dependencies]\nedgesmith-runtime.workspace = true\n";
        assert_eq!(unknown_neighbours("ir", &[], manifest).len(), 1);
    }
}
