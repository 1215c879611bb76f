//! Names by pattern.

/// True where `pattern`, in which `*` stands for any text, is `name`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(head) else {
        return false;
    };
    tail.char_indices()
        .map(|(i, _)| i)
        .chain([tail.len()])
        .any(|i| matches(rest, &tail[i..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("a*c", "abc") && matches("*", "") && matches("*.w", "x.w"));
        assert!(!matches("a*c", "abd") && !matches("a", "ab"));
    }
}
