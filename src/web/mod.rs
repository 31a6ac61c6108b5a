//! What browsers load from the server. The sources are written to be read and copied; they are
//! served without their comments, which would be a third of the client.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file that browsers load.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is served.
    pub body: String,
    /// `ETag`, with its quotes.
    pub etag: String,
}

impl Asset {
    fn new(content_type: &'static str, body: String) -> Self {
        let digest = Sha256::digest(&body);
        let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { content_type, body, etag: format!("\"{hex}\"") }
    }
}

static CLIENT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("text/javascript; charset=utf-8", without_comments(include_str!("pushline.js")))
});

/// The file at this path.
pub fn find(path: &str) -> Option<&'static Asset> {
    match path {
        "/pushline.js" => Some(&CLIENT),
        _ => None,
    }
}

/// Leaves out comments and what lines are indented by. In the sources no text goes over a line end,
/// no line of code begins as a comment does, and no text has ` // ` in it.
fn without_comments(source: &str) -> String {
    let is_code = |line: &&str| {
        !line.is_empty() && !["//", "/*", "* ", "*/"].iter().any(|mark| line.starts_with(mark))
    };
    let lines = source.lines().map(str::trim).filter(is_code);
    let codes = lines.map(|line| line.split_once(" // ").map_or(line, |(code, _)| code));
    codes.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_for_readers_of_the_source() {
        let source =
            "/** Why. */\nlet a = 1; // One.\n\n  // Why.\n  f(\"//\");\n/**\n * More.\n */\n";
        assert_eq!(without_comments(source), "let a = 1;\nf(\"//\");\n");
    }
}
