//! The name that was probably meant.

use strsim::osa_distance;

/// The nearest of these names, if near enough to be what was meant: one slip in three letters.
/// Hyphens count as underscores.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    // Longer than any name, and not worth the arithmetic.
    if written.len() > NAME_BYTES_MAX {
        return None;
    }
    let measured = names.into_iter().map(|name| (osa_distance(&written, name), name));
    let (slips, name) = measured.min_by_key(|(slips, _)| *slips)?;
    (slips <= 1 + written.len().min(name.len()) / 3).then_some(name)
}

/// No key is nearly as long.
const NAME_BYTES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["listen", "history_count", "history_age"];
        assert_eq!(nearest("histroy_count", names), Some("history_count"));
        assert_eq!(nearest("history-age", names), Some("history_age"));
        assert_eq!(nearest("lsiten", names), Some("listen"), "two letters swapped are one slip");
        assert_eq!(nearest("LISTEN", names), Some("listen"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest(&"x".repeat(1000), names), None);
    }
}
