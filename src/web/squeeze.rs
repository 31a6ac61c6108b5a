//! Makes a script smaller by removing what only its readers need. The source keeps to some rules so
//! that this needs no JavaScript parser: no string spans a line end or contains ` // ` or `#`, no line
//! of code begins like a comment, and no regular expression contains a quote, a `#` or a space.

/// Removes comments, indentation and spaces that separate nothing, and shortens private names.
pub(super) fn squeeze(source: &str) -> String {
    let is_code = |line: &&str| {
        !line.is_empty() && !["//", "/*", "* ", "*/"].iter().any(|mark| line.starts_with(mark))
    };
    let lines = source.lines().map(str::trim).filter(is_code);
    let codes = lines.map(|line| line.split_once(" // ").map_or(line, |(code, _)| code));
    with_short_private_names(
        &codes.flat_map(|line| [without_spaces(line), "\n".into()]).collect::<String>(),
    )
}

/// Removes spaces, except inside strings and where they keep two words apart.
fn without_spaces(line: &str) -> String {
    let mut short = String::new();
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(end) if c == end && !short.ends_with('\\') => quote = None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if c == ' ' && !separates(&short, &line[at + 1..]) => continue,
            _ => {}
        }
        short.push(c);
    }
    short
}

/// Whether two words, or two operators, would merge without the space between them.
fn separates(before: &str, after: &str) -> bool {
    let (last, first) = (before.chars().next_back(), after.chars().next());
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "_$#".contains(c));
    let is_sign = |c: Option<char>| c.is_some_and(|c| "+-/".contains(c));
    (is_word(last) && is_word(first)) || (is_sign(last) && last == first)
}

/// Shortens private names (`#cursors`), which nothing outside the file can see, to one letter.
fn with_short_private_names(code: &str) -> String {
    let mut pieces = code.split('#');
    let mut short = String::from(pieces.next().unwrap_or_default());
    let mut known = Vec::new();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        let place = known.iter().position(|one| *one == name).unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        });
        let letters = ('a'..='z').chain('A'..='Z').chain('α'..='ω');
        short.push('#');
        short.extend(letters.skip(place).take(1));
        short.push_str(rest);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_readers_alone_is_left_out() {
        let source =
            "/** Why. */\nlet a = 1; // One.\n\n  // Why.\n  f(\"//\");\n/**\n * More.\n */\n";
        assert_eq!(squeeze(source), "let a=1;\nf(\"//\");\n");
    }

    #[test]
    fn what_spaces_separate_stays_apart() {
        let source = "const a = `b ${c + d}` + +e; return typeof a in { \"x y\": '\\' z' };";
        let short = "const a=`b ${c + d}`+ +e;return typeof a in{\"x y\":'\\' z'};\n";
        assert_eq!(squeeze(source), short);
    }

    #[test]
    fn private_names_are_short_and_stay_what_they_are() {
        let source = "#held; #door; get held() { return this.#held + this.#door(2); }";
        assert_eq!(squeeze(source), "#a;#b;get held(){return this.#a+this.#b(2);}\n");
    }
}
