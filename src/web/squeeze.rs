//! Makes a script smaller by removing what only its readers need. The source keeps to some rules so
//! that this needs no JavaScript parser: no string spans a line end or contains ` // ` or `#`, no line
//! of code begins like a comment, every statement ends in `;` or `}`, and no regular expression
//! contains a quote, a `#` or a space.

/// Removes comments, indentation, spaces and line ends that separate nothing, and shortens names that
/// nothing outside the file can see.
pub(super) fn squeeze(source: &str) -> String {
    let is_code = |line: &&str| {
        !line.is_empty() && !["//", "/*", "* ", "*/"].iter().any(|mark| line.starts_with(mark))
    };
    let lines = source.lines().map(str::trim).filter(is_code);
    let codes = lines.map(|line| line.split_once(" // ").map_or(line, |(code, _)| code));
    with_short_names(&codes.map(without_spaces).map(without_line_end).collect::<String>())
}

/// Adds a line end where the line does not end in a sign that does without.
fn without_line_end(mut line: String) -> String {
    if !line.ends_with([';', ',', '{', '}', '(', '[']) {
        line.push('\n');
    }
    line
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
    let is_word = |c: Option<char>| c.is_some_and(is_of_word);
    let is_sign = |c: Option<char>| c.is_some_and(|c| "+-/".contains(c));
    (is_word(last) && is_word(first)) || (is_sign(last) && last == first)
}

/// Shortens private names (`#cursors`) and constants (`BEAT_MS`) to one letter behind a sign.
fn with_short_names(code: &str) -> String {
    let mut short = String::new();
    let mut known = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_of_word) {
        let (between, from) = rest.split_at(start);
        let end = from.find(|c| !is_of_word(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        short.push_str(between);
        match word.strip_prefix('#') {
            Some(_) => short.extend(['#', letter_of(word, &mut known)]),
            None if is_constant(word) => short.extend(['$', letter_of(word, &mut known)]),
            None => short.push_str(word),
        }
        rest = after;
    }
    short + rest
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_$#".contains(c)
}

fn is_constant(word: &str) -> bool {
    word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The same one for the same word; there are 77.
fn letter_of<'a>(word: &'a str, known: &mut Vec<&'a str>) -> char {
    let place = known.iter().position(|one| *one == word).unwrap_or_else(|| {
        known.push(word);
        known.len() - 1
    });
    let mut letters = ('a'..='z').chain('A'..='Z').chain('α'..='ω');
    letters.nth(place).expect("a letter is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_readers_alone_is_left_out() {
        let source =
            "/** Why. */\nlet a = 1; // One.\n\n  // Why.\n  f(\"//\")\n/**\n * More.\n */\n";
        assert_eq!(squeeze(source), "let a=1;f(\"//\")\n");
    }

    #[test]
    fn what_spaces_separate_stays_apart() {
        let source = "const a = `b ${c + d}` + +e; return typeof a in { \"x y\": '\\' z' };";
        let short = "const a=`b ${c + d}`+ +e;return typeof a in{\"x y\":'\\' z'};";
        assert_eq!(squeeze(source), short);
    }

    #[test]
    fn names_that_no_page_can_see_are_short_and_the_same_everywhere() {
        let source =
            "#held; #door; get held() { return this.#held + BEAT_MS * this.#door(BEAT_MS); }";
        assert_eq!(squeeze(source), "#a;#b;get held(){return this.#a+$c*this.#b($c);}");
    }
}
