//! Where in a TOML text a fault lies.

use std::ops::Range;

use edgesmith_ir::Error;
use serde::de::DeserializeOwned;

/// A TOML text and the name that errors call it by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Written<'_> {
    /// The place of a byte, as `NAME:LINE`.
    pub fn place(&self, at: usize) -> String {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        format!("{}:{line}", self.name)
    }

    /// A fault at a place of the text.
    pub fn fault(&self, span: Range<usize>, message: impl Into<String>) -> Error {
        Error::usage(message).at(self.place(span.start))
    }

    /// What the parser found, with its line.
    pub fn refused(&self, e: &toml::de::Error) -> Error {
        let message = e.message().lines().next().unwrap_or_default();
        let message = message.replace('`', "\"");
        self.fault(e.span().unwrap_or(0..0), message)
    }

    /// Reads a struct that refuses keys which it does not know.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|e| self.refused(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let w = Written {
            name: "f",
            text: "a\nb\n",
        };
        assert_eq!(w.place(0), "f:1");
        assert_eq!(w.place(2), "f:2");
        assert_eq!(w.place(99), "f:3");
    }
}
