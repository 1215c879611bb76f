//! Names that are written alike.

/// The name that is written most like `name`, where one is near.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let near = names.iter().map(|n| (distance(name, n), *n)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}

/// Letters to add, drop, change or swap with their neighbour to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_written_alike_are_near() {
        assert_eq!(nearest("grop", &["group", "to"]), Some("group"));
        assert_eq!(nearest("obsever", &["observer", "to"]), Some("observer"));
        assert_eq!(nearest("ot", &["to", "symmetric"]), Some("to"));
        assert_eq!(nearest("colour", &["observer", "to"]), None);
    }
}
