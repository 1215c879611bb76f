//! The device profiles that the program holds.

use edgesmith_compress::target::Target;
use edgesmith_ir::{Error, Result};

/// The embedded files, by name.
static FILES: &[(&str, &str)] = &[
    (
        "cortex-a53.toml",
        include_str!("../../../targets/cortex-a53.toml"),
    ),
    (
        "cortex-a55.toml",
        include_str!("../../../targets/cortex-a55.toml"),
    ),
    (
        "cortex-a710.toml",
        include_str!("../../../targets/cortex-a710.toml"),
    ),
    (
        "cortex-a76.toml",
        include_str!("../../../targets/cortex-a76.toml"),
    ),
    (
        "cortex-m0plus.toml",
        include_str!("../../../targets/cortex-m0plus.toml"),
    ),
    (
        "cortex-m3.toml",
        include_str!("../../../targets/cortex-m3.toml"),
    ),
    (
        "cortex-m33.toml",
        include_str!("../../../targets/cortex-m33.toml"),
    ),
    (
        "cortex-m4.toml",
        include_str!("../../../targets/cortex-m4.toml"),
    ),
    (
        "cortex-m55.toml",
        include_str!("../../../targets/cortex-m55.toml"),
    ),
    (
        "cortex-m7.toml",
        include_str!("../../../targets/cortex-m7.toml"),
    ),
    (
        "cortex-m85.toml",
        include_str!("../../../targets/cortex-m85.toml"),
    ),
    (
        "esp32-s3.toml",
        include_str!("../../../targets/esp32-s3.toml"),
    ),
    (
        "gpu-a100.toml",
        include_str!("../../../targets/gpu-a100.toml"),
    ),
    (
        "gpu-h100.toml",
        include_str!("../../../targets/gpu-h100.toml"),
    ),
    (
        "npu-int8.toml",
        include_str!("../../../targets/npu-int8.toml"),
    ),
    (
        "rv32imc.toml",
        include_str!("../../../targets/rv32imc.toml"),
    ),
    (
        "x86-64-avx2.toml",
        include_str!("../../../targets/x86-64-avx2.toml"),
    ),
    (
        "x86-64-vnni.toml",
        include_str!("../../../targets/x86-64-vnni.toml"),
    ),
];

/// Every target, by name.
///
/// # Errors
/// When an embedded file is damaged: a bug of ours.
pub fn all() -> Result<Vec<Target>> {
    let parse = |(name, text): &(&str, &str)| {
        Target::parse(name, text).map_err(|e| Error::internal(e.to_string()))
    };
    FILES.iter().map(parse).collect()
}

/// The target of that name.
///
/// # Errors
/// When there is none; the hint lists those there are.
pub fn find(name: &str) -> Result<Target> {
    let targets = all()?;
    let names: Vec<&str> = targets.iter().map(|t| t.name.as_str()).collect();
    let hint = format!("the targets are {}", names.join(", "));
    targets
        .iter()
        .find(|t| t.name == name)
        .cloned()
        .ok_or_else(|| Error::usage(format!("there is no target \"{name}\"")).hint(hint))
}

/// The targets of those names, each once, or every one for `all`.
///
/// # Errors
/// As [`find`].
pub fn chosen<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Target>> {
    let mut chosen: Vec<Target> = Vec::new();
    for name in names {
        let more = match name {
            "all" => all()?,
            name => vec![find(name)?],
        };
        for t in more {
            if chosen.iter().all(|c| c.name != t.name) {
                chosen.push(t);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_target_parses_is_called_as_its_file_and_they_stand_by_name() {
        let targets = all().unwrap();
        for (t, (file, _)) in targets.iter().zip(FILES) {
            assert_eq!(format!("{}.toml", t.name), *file);
        }
        assert!(targets.windows(2).all(|w| w[0].name < w[1].name));
    }

    #[test]
    fn an_unknown_target_lists_those_there_are() {
        assert!(find("z80").unwrap_err().to_string().contains("cortex-m4"));
    }

    #[test]
    fn a_target_named_twice_is_taken_once() {
        let names = |list: &[&str]| chosen(list.iter().copied()).unwrap().len();
        assert_eq!(names(&["cortex-m4", "cortex-m7", "cortex-m4"]), 2);
        assert_eq!(names(&["all", "cortex-m4"]), FILES.len());
    }
}
