//! Compilers and emulators: where they are, and what to install where they are not.

use std::path::{Path, PathBuf};
use std::process::Command;

use edgesmith_codegen::boards::{self, Program};
use edgesmith_ir::{Error, Result};

/// The program, by the first of its names that the path knows.
///
/// # Errors
/// When it, or the linker that it needs, is not installed; the hint says what to install.
pub fn find(program: &Program) -> Result<PathBuf> {
    let found = program.names.iter().find_map(|name| on_path(name));
    let Some(found) = found else {
        return Err(missing(program.names[0], program));
    };
    if let Some(linker) = program.linker
        && !has_linker(&found, linker)
    {
        return Err(missing(linker, program));
    }
    Ok(found)
}

fn missing(name: &str, program: &Program) -> Error {
    Error::usage(format!("{name} is not installed, or not on the path")).hint(format!(
        "Debian and Ubuntu: apt-get install {}; {}",
        program.apt, program.elsewhere
    ))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = [
        name.to_owned(),
        format!("{name}{}", std::env::consts::EXE_SUFFIX),
    ];
    std::env::split_paths(&path)
        .flat_map(|folder| {
            names
                .iter()
                .map(move |n| folder.join(n))
                .collect::<Vec<_>>()
        })
        .find(|file| file.is_file())
}

/// A compiler answers the bare name where it knows no such program.
fn has_linker(compiler: &Path, linker: &str) -> bool {
    let answer = said(Command::new(compiler).arg(format!("-print-prog-name={linker}")));
    answer.is_some_and(|path| path != linker || on_path(linker).is_some())
}

/// The first line that a program says, where it ends well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|l| l.trim().to_owned())
}

/// The line in which a compiler or an emulator says its version.
pub fn version(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    said(Command::new(program).arg("--version"))
        .unwrap_or_else(|| name.to_string_lossy().into_owned())
}

/// The version of the interface of plugins that an emulator takes.
pub fn plugin_api(emulator: &Path) -> u32 {
    let line = version(emulator);
    let number = line
        .split(' ')
        .find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
    let major = number.and_then(|n| n.split('.').next()?.parse().ok());
    boards::plugin_api(major.unwrap_or(u32::MAX))
}

/// The library of arithmetic of a compiler, for `flags`, where it is installed.
pub fn arithmetic(program: &Program, flags: &[&str]) -> Option<PathBuf> {
    let compiler = find(program).ok()?;
    let path = said(
        Command::new(compiler)
            .args(flags)
            .arg("-print-libgcc-file-name"),
    )?;
    Some(PathBuf::from(path)).filter(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let program = Program {
            names: &["edgesmith-no-such-compiler"],
            linker: None,
            apt: "no-such-package",
            elsewhere: "elsewhere: nothing",
        };
        let said = find(&program).unwrap_err().to_string();
        assert!(
            said.starts_with("edgesmith-no-such-compiler is not installed"),
            "{said}"
        );
        assert!(said.contains("apt-get install no-such-package"), "{said}");
    }
}
