//! Where the libraries of engines lie.

use std::path::{Path, PathBuf};

use crate::Engine;

/// The library of an engine: the first in `folders` or, below each, in the folder that its Python
/// package uses.
pub fn locate(engine: &Engine, folders: &[PathBuf]) -> Option<PathBuf> {
    let places = folders
        .iter()
        .flat_map(|f| [f.clone(), f.join(engine.folder)]);
    places.into_iter().find_map(|f| library_in(engine, &f))
}

/// The package folders of the Python environment whose programs lie in `bin`.
pub fn site_packages(bin: &Path) -> Vec<PathBuf> {
    let Some(lib) = bin.parent().map(|p| p.join("lib")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries(&lib)
        .into_iter()
        .filter(|p| named(p).is_some_and(|n| n.starts_with("python3")))
        .flat_map(|p| [p.join("site-packages"), p.join("dist-packages")])
        .filter(|p| p.is_dir())
        .collect();
    found.sort();
    found
}

/// The name of an engine's library, without a version.
pub(crate) fn file_name(engine: &Engine) -> String {
    use std::env::consts::{DLL_EXTENSION, DLL_PREFIX};
    format!("{DLL_PREFIX}{}.{DLL_EXTENSION}", engine.library)
}

fn library_in(engine: &Engine, folder: &Path) -> Option<PathBuf> {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let start = format!("{DLL_PREFIX}{}.", engine.library);
    let is_library = |p: &PathBuf| {
        named(p).is_some_and(|n| n.starts_with(&start) && n.contains(DLL_SUFFIX)) && p.is_file()
    };
    let mut found: Vec<PathBuf> = entries(folder).into_iter().filter(is_library).collect();
    found.sort();
    found.pop()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten();
    read.flatten().map(|e| e.path()).collect()
}

fn named(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ENGINES;

    #[test]
    fn a_library_is_found_in_a_folder_and_in_its_package() {
        let root = std::env::temp_dir().join(format!("edgesmith-engines-{}", std::process::id()));
        for engine in ENGINES {
            let package = root.join(engine.folder);
            std::fs::create_dir_all(&package).expect("a folder in the temporary folder");
            let file = package.join(format!("{}.9", file_name(engine)));
            std::fs::write(&file, b"").expect("a file in it");
            assert_eq!(
                locate(engine, std::slice::from_ref(&root)),
                Some(file.clone())
            );
            assert_eq!(locate(engine, std::slice::from_ref(&package)), Some(file));
            assert_eq!(locate(engine, &[root.join("none")]), None);
        }
        std::fs::remove_dir_all(&root).expect("the folder is ours");
    }
}
