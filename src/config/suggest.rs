//! The name that was probably meant.

/// The nearest of these names, if it is near enough to be what was meant: one slip in three
/// letters, and hyphens are as good as underscores.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    // Longer than any name: not worth the arithmetic.
    if written.len() > NAME_BYTES_MAX {
        return None;
    }
    let measured = names.into_iter().map(|name| (distance(&written, name), name));
    let (slips, name) = measured.min_by_key(|(slips, _)| *slips)?;
    (slips <= 1 + written.len().min(name.len()) / 3).then_some(name)
}

/// No key comes near this.
const NAME_BYTES_MAX: usize = 100;

/// How many letters to insert, delete, replace or swap with their neighbour turn one into the
/// other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted_once() {
        for (a, b, slips) in [
            ("", "", 0),
            ("", "abc", 3),
            ("listen", "listen", 0),
            ("listn", "listen", 1),
            ("lsiten", "listen", 1),
            ("histroy", "history", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
            assert_eq!(distance(b, a), slips, "{b} {a}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["listen", "history_count", "history_age"];
        assert_eq!(nearest("histroy_count", names), Some("history_count"));
        assert_eq!(nearest("history-age", names), Some("history_age"));
        assert_eq!(nearest("LISTEN", names), Some("listen"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest(&"x".repeat(1000), names), None);
    }
}
