//! The cursor over the text: words, quoted strings, numbers, and errors with line and column.

use crate::{Error, Result};

/// A place in the text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A number as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

pub(super) fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if !self.rest().starts_with('#') {
                return;
            }
            let line = self.rest().find('\n').unwrap_or(self.rest().len());
            self.at += line;
        }
    }

    /// An error at the cursor.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        Error::invalid(message).at(format!("line {line}, column {column}"))
    }

    /// An error that says what should stand here.
    pub(super) fn expected(&mut self, what: &str) -> Error {
        self.skip();
        let found: String = self.rest().chars().take(12).collect();
        match found.split_whitespace().next() {
            Some(found) => self.error(format!("expected {what}, found `{found}`")),
            None => self.error(format!("expected {what}, found the end")),
        }
    }

    /// Places an error that has no place yet.
    pub(super) fn place(&self, e: Error) -> Error {
        let here = self.error("");
        e.at(here.place.into_iter().next().unwrap_or_default())
    }

    /// True, and stepped over, where `token` comes next; a word must end there.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let Some(after) = self.rest().strip_prefix(token) else {
            return false;
        };
        if token.chars().all(in_word) && after.starts_with(in_word) {
            return false;
        }
        self.at += token.len();
        true
    }

    /// As [`Self::eat`], an error where something else comes.
    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            return Ok(());
        }
        Err(self.expected(&format!("`{token}`")))
    }

    /// True where `token` comes next; it stays there.
    pub(super) fn sees(&mut self, token: &str) -> bool {
        let at = {
            self.skip();
            self.at
        };
        let seen = self.eat(token);
        self.at = at;
        seen
    }

    /// True where nothing is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// The word that comes next, which stays there.
    pub(super) fn peek_word(&mut self) -> Option<&'a str> {
        self.skip();
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !in_word(c)).unwrap_or(rest.len())];
        super::is_word(word).then_some(word)
    }

    /// A word: letters, digits, `_` and `.`, no digit first.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        let word = self.peek_word().ok_or_else(|| self.expected(what))?;
        self.at += word.len();
        Ok(word)
    }

    /// A word or a quoted string.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        self.skip();
        if self.rest().starts_with('"') {
            return self.string();
        }
        self.word(what).map(str::to_owned)
    }

    /// A quoted string with `\"`, `\\`, `\n`, `\r`, `\t` and `\u{…}`.
    pub(super) fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let end = rest
                .find(['"', '\\'])
                .ok_or_else(|| self.error("the string has no end"))?;
            out.push_str(&rest[..end]);
            self.at += end + 1;
            if rest[end..].starts_with('"') {
                return Ok(out);
            }
            let c = self.rest().chars().next();
            let c = c.ok_or_else(|| self.error("the string has no end"))?;
            self.at += c.len_utf8();
            out.push(match c {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '"' | '\\' => c,
                'u' => self.escaped()?,
                _ => return Err(self.error(format!("`\\{c}` means nothing in a string"))),
            });
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let code = self
            .rest()
            .strip_prefix('{')
            .and_then(|r| r.split_once('}'))
            .map(|(code, _)| code);
        let c = code
            .and_then(|code| u32::from_str_radix(code, 16).ok())
            .and_then(char::from_u32)
            .ok_or_else(|| self.error("expected a code such as `{1f}` after `\\u`"))?;
        self.at += code.map_or(0, |c| c.len() + 2);
        Ok(c)
    }

    /// The bytes of `hex"…"`, after the word.
    pub(super) fn hex(&mut self) -> Result<Vec<u8>> {
        let digits = self.string()?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        digits
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| self.error("expected pairs of hexadecimal digits"))
    }

    /// A number, where one comes next.
    pub(super) fn number(&mut self) -> Result<Option<Number>> {
        self.skip();
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['-', '+']));
        let body = &rest[sign..];
        if !body.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(self.special(rest, body, sign));
        }
        let mut last = ' ';
        let end = body.find(|c: char| {
            let inside = in_word(c) || (matches!(c, '-' | '+') && matches!(last, 'e' | 'E'));
            last = c;
            !inside
        });
        let text = &rest[..sign + end.unwrap_or(body.len())];
        let number = match text.parse::<i128>() {
            Ok(i) => Some(Number::Int(i)),
            Err(_) => text.parse::<f64>().ok().map(Number::Float),
        };
        let number = number.ok_or_else(|| self.error(format!("`{text}` is no number")))?;
        self.at += text.len();
        Ok(Some(number))
    }

    fn special(&mut self, rest: &str, body: &str, sign: usize) -> Option<Number> {
        let word = &body[..body.find(|c| !in_word(c)).unwrap_or(body.len())];
        let value = match word {
            "inf" => f64::INFINITY,
            "nan" => f64::NAN,
            _ => return None,
        };
        self.at += sign + word.len();
        let negative = rest.starts_with('-');
        Some(Number::Float(if negative { -value } else { value }))
    }

    /// An integer that fits `T`.
    pub(super) fn int<T: TryFrom<i128>>(&mut self, what: &str) -> Result<T> {
        let before = self.at;
        if let Some(Number::Int(i)) = self.number()? {
            if let Ok(i) = T::try_from(i) {
                return Ok(i);
            }
            return Err(self.error(format!("{what} {i} is out of range")));
        }
        self.at = before;
        Err(self.expected(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_are_told_apart() {
        let mut c = Cursor::new("1 -2 1.0 1e-5 -inf nan 9223372036854775808 x");
        let mut next = || c.number().unwrap();
        assert_eq!(next(), Some(Number::Int(1)));
        assert_eq!(next(), Some(Number::Int(-2)));
        assert_eq!(next(), Some(Number::Float(1.0)));
        assert_eq!(next(), Some(Number::Float(1e-5)));
        assert_eq!(next(), Some(Number::Float(f64::NEG_INFINITY)));
        assert!(matches!(next(), Some(Number::Float(x)) if x.is_nan()));
        assert_eq!(next(), Some(Number::Int(1 << 63)));
        assert_eq!(next(), None);
    }

    #[test]
    fn errors_say_line_and_column() {
        let mut c = Cursor::new("graph # a comment\n  ü;");
        c.expect("graph").unwrap();
        let e = c.expect("(").unwrap_err();
        assert_eq!(e.to_string(), "line 2, column 3: expected `(`, found `ü;`");
    }

    #[test]
    fn strings_know_their_escapes() {
        let mut c = Cursor::new(r#""a\"b\\\n\u{e9}" "open"#);
        assert_eq!(c.string().unwrap(), "a\"b\\\n\u{e9}");
        assert!(c.string().is_err());
    }
}
