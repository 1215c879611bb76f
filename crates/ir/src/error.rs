//! Errors that say what is wrong, where, and what to do about it.

use std::fmt;

mod nearest;

use nearest::nearest;

/// The result of everything fallible in this workspace's libraries.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The model or the data is at fault.
    Invalid,
    /// The input is legal but this program does not do it.
    Unsupported,
    /// The operating system refused (file missing, disk full).
    Io,
    /// The caller asked for something that makes no sense.
    Usage,
    /// The user cancelled.
    Cancelled,
    /// An invariant of this program is broken.
    Internal,
}

/// An error with its place (file, node, value, recipe line) and a hint.
///
/// Displayed as `place: message`, then `hint: …` on its own line where there is one.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// What a caller may branch on.
    pub kind: Kind,
    /// Where: `Conv "stem.0"`, `model.onnx`; outermost first.
    pub place: Vec<String>,
    /// What is wrong: lower case, no full stop, the offending value shown.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl Error {
    /// An error of `kind` with no place yet.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            place: Vec::new(),
            message: message.into(),
            hint: None,
        }
    }

    /// The model or the data is at fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Legal, but not done by this program.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// The caller asked for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The operating system refused.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Kind::Io, message)
    }

    /// The user cancelled.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled")
    }

    /// A name that is not among those that there are: `unknown loss "kdd"`.
    pub fn unknown<'a>(what: &str, name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean \"{near}\""),
            None if names.is_empty() => "it takes none".into(),
            None => format!("there is {}", names.join(", ")),
        };
        Self::usage(format!("unknown {what} \"{name}\"")).hint(hint)
    }

    /// An invariant of this program is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Adds an outer place: `err.at("model.onnx")`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.insert(0, place.into());
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Adds the outer place to the error of a result.
pub trait At<T> {
    /// `result.at(|| "model.onnx")`: the place is made only when there is an error.
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_places_outermost_first_and_the_hint_on_its_own_line() {
        let e = Error::invalid("weight has 4 axes, input has 3")
            .at("Conv \"stem.0\"")
            .at("model.onnx")
            .hint("the model expects [batch, channels, h, w]");
        assert_eq!(
            e.to_string(),
            "model.onnx: Conv \"stem.0\": weight has 4 axes, input has 3\n\
             hint: the model expects [batch, channels, h, w]"
        );
    }

    #[test]
    fn a_name_that_is_not_there_is_told_with_those_that_are() {
        let told = |name| Error::unknown("loss", name, ["kd", "hint"]).to_string();
        assert_eq!(
            told("hnit"),
            "unknown loss \"hnit\"\nhint: did you mean \"hint\""
        );
        assert_eq!(
            told("crossentropy"),
            "unknown loss \"crossentropy\"\nhint: there is kd, hint"
        );
    }
}
