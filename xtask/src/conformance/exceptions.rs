//! The reviewed list of cases that may fail, each with its reason.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// A case that may fail.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The case's name.
    pub name: String,
    /// Why it cannot pass.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    case: Vec<Exception>,
}

/// Every exception, in the order of the list.
///
/// # Errors
/// When the list is damaged, names a case twice or gives no reason.
pub fn all() -> Result<Vec<Exception>> {
    read(include_str!("exceptions.toml"))
}

fn read(text: &str) -> Result<Vec<Exception>> {
    let list: List = toml::from_str(text)?;
    for (i, e) in list.case.iter().enumerate() {
        ensure!(!e.reason.is_empty(), "\"{}\" has no reason", e.name);
        let twice = list.case[..i].iter().any(|o| o.name == e.name);
        ensure!(!twice, "\"{}\" is listed twice", e.name);
    }
    Ok(list.case)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read() {
        all().unwrap();
    }

    #[test]
    fn an_exception_needs_a_reason() {
        assert!(read("[[case]]\nname = \"a\"\nreason = \"\"").is_err());
        assert!(read("[[case]]\nname = \"a\"").is_err());
    }
}
