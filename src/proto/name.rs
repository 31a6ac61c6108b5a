//! Names of channels, and patterns over them.

use std::fmt;

use serde::Deserialize;

use super::http::query::next_byte;
use super::reject::Reject;

/// Longest channel name, decoded, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Why a channel name is refused; 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameError {
    /// A byte other than `A-Za-z0-9-._~:@!$`.
    Byte,
    /// `.` or `..`: clients resolve these away before they send a path.
    Dots,
    /// There is no name.
    Empty,
    /// A `%` that is not followed by two hexadecimal digits.
    Percent,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
}

impl From<NameError> for Reject {
    fn from(error: NameError) -> Self {
        let message = match error {
            NameError::Byte => "a channel name may only contain A-Z a-z 0-9 - . _ ~ : @ ! $",
            NameError::Dots => "a channel can't be named . or ..",
            NameError::Empty => "the channel name is empty",
            NameError::Percent => "a % in the channel name is not followed by two hex digits",
            NameError::TooLong => "the channel name exceeds 200 bytes",
        };
        Self::bad_request("channel_name_invalid", message)
    }
}

/// Checks a channel name that is already decoded.
///
/// # Errors
/// The first rule it breaks.
pub fn channel_name(decoded: &[u8]) -> Result<&str, NameError> {
    check(decoded)?;
    // All of it is ASCII.
    std::str::from_utf8(decoded).map_err(|_| NameError::Byte)
}

fn check(decoded: &[u8]) -> Result<(), NameError> {
    match decoded {
        [] => Err(NameError::Empty),
        b"." | b".." => Err(NameError::Dots),
        _ if decoded.len() > NAME_BYTES_MAX => Err(NameError::TooLong),
        _ if !decoded.iter().all(|&byte| NAME_BYTES[usize::from(byte)]) => Err(NameError::Byte),
        _ => Ok(()),
    }
}

/// Decodes and checks a channel name that is a segment of a path (where `+` is not a space).
/// `buffer` is only used if something is percent-encoded.
///
/// # Errors
/// The first rule it breaks.
pub(crate) fn channel_segment<'a>(
    segment: &'a str,
    buffer: &'a mut [u8; NAME_BYTES_MAX],
) -> Result<&'a str, NameError> {
    let mut rest = segment.as_bytes();
    if memchr::memchr(b'%', rest).is_none() {
        return check(rest).map(|()| segment);
    }
    let mut length = 0;
    while let Some((byte, after)) = next_byte(rest).map_err(|_| NameError::Percent)? {
        *buffer.get_mut(length).ok_or(NameError::TooLong)? = byte;
        length += 1;
        rest = after;
    }
    channel_name(&buffer[..length])
}

const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
                | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'!' | b'$'
        );
        byte += 1;
    }
    table
};

/// Why a pattern is refused: a mistake of the operator or the token's issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternError {
    /// The part without the star is not a channel name.
    Name(NameError),
    /// A `*` that is neither the whole pattern nor at its end after a `:`.
    Star,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => f.write_str(&Reject::from(*error).message),
            Self::Star => f.write_str("a * must be the whole pattern or its end, after a :"),
        }
    }
}

impl std::error::Error for PatternError {}

/// Which channels something applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// Every name: `*`.
    All,
    /// `user:42:*`, kept as `user:42:`.
    Below(Box<str>),
    /// A single name.
    Exact(Box<str>),
}

impl Pattern {
    /// Reads a name, `*` (every channel), or a prefix that ends in `:*` (every channel below it:
    /// `user:42:*` matches `user:42:x` and `user:42:x:y`, not `user:42`).
    ///
    /// # Errors
    /// A `*` anywhere else, or a rest that is not a channel name.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self(Form::All));
        }
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with(':') => (prefix, true),
            Some(_) => return Err(PatternError::Star),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(PatternError::Star);
        }
        let name = channel_name(name.as_bytes()).map_err(PatternError::Name)?;
        Ok(Self(if is_prefix { Form::Below(name.into()) } else { Form::Exact(name.into()) }))
    }

    /// Whether it matches this channel.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Form::All => true,
            Form::Below(prefix) => name.len() > prefix.len() && name.starts_with(&**prefix),
            Form::Exact(exact) => name == &**exact,
        }
    }
}

/// The index of the first rule that matches this name, or the number of rules if none does.
pub(crate) fn first_match<T>(rules: &[(Pattern, T)], name: &str) -> usize {
    rules.iter().position(|(pattern, _)| pattern.matches(name)).unwrap_or(rules.len())
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::All => f.write_str("*"),
            Form::Below(prefix) => write!(f, "{prefix}*"),
            Form::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_only_its_alphabet_and_its_length() {
        const ALPHABET: &[u8] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:@!$";
        for byte in 0..=u8::MAX {
            let expected = ALPHABET.contains(&byte);
            assert_eq!(channel_name(&[b'a', byte]).is_ok(), expected, "{byte:#x}");
        }
        assert_eq!(channel_name(b""), Err(NameError::Empty));
        assert!(channel_name(&[b'a'; NAME_BYTES_MAX]).is_ok());
        assert_eq!(channel_name(&[b'a'; NAME_BYTES_MAX + 1]), Err(NameError::TooLong));
    }

    #[test]
    fn names_that_clients_resolve_away_are_refused() {
        assert_eq!(channel_name(b"."), Err(NameError::Dots));
        assert_eq!(channel_name(b".."), Err(NameError::Dots));
        assert_eq!(channel_name(b"..."), Ok("..."));
        assert_eq!(channel_segment("%2e%2E", &mut [0; NAME_BYTES_MAX]), Err(NameError::Dots));
    }

    #[test]
    fn a_segment_is_decoded_once() {
        for (segment, expected) in [
            ("news", Ok("news")),
            ("user%3A42", Ok("user:42")),
            ("%6e%65ws", Ok("news")),
            ("%2541", Err(NameError::Byte)),
            ("a%2Fb", Err(NameError::Byte)),
            ("a+b", Err(NameError::Byte)),
            ("a%", Err(NameError::Percent)),
            ("a%4", Err(NameError::Percent)),
            ("a%4x", Err(NameError::Percent)),
            ("%00", Err(NameError::Byte)),
            ("", Err(NameError::Empty)),
        ] {
            assert_eq!(channel_segment(segment, &mut [0; NAME_BYTES_MAX]), expected, "{segment}");
        }
        let longest = "%61".repeat(NAME_BYTES_MAX);
        assert!(channel_segment(&longest, &mut [0; NAME_BYTES_MAX]).is_ok());
        let longer = longest + "a";
        let mut buffer = [0; NAME_BYTES_MAX];
        assert_eq!(channel_segment(&longer, &mut buffer), Err(NameError::TooLong));
    }

    #[test]
    fn a_pattern_holds_for_what_lies_below_it() {
        for (pattern, inside, outside) in [
            ("*", &["a", "user:42", ":"][..], &[][..]),
            ("news", &["news"], &["new", "news2", "news:a", "News"]),
            (
                "user:42:*",
                &["user:42:x", "user:42:x:y", "user:42::"],
                &["user:42", "user:42:", "user:4", "user:43:x", "user:421:x", "xuser:42:x"],
            ),
            (":*", &[":a", "::"], &["a", ":"]),
        ] {
            let parsed = Pattern::parse(pattern).expect("a pattern");
            assert_eq!(parsed.to_string(), pattern);
            for name in inside {
                assert!(parsed.matches(name), "{pattern} {name}");
            }
            for name in outside {
                assert!(!parsed.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_star_elsewhere_is_an_error() {
        for pattern in ["**", "a*", "a:**", "*:a", "a:*:b", "*a", "a*:*", "a.*"] {
            assert_eq!(Pattern::parse(pattern), Err(PatternError::Star), "{pattern}");
        }
        assert_eq!(Pattern::parse(""), Err(PatternError::Name(NameError::Empty)));
        assert_eq!(Pattern::parse("a b"), Err(PatternError::Name(NameError::Byte)));
        let long = "a".repeat(NAME_BYTES_MAX) + ":*";
        assert_eq!(Pattern::parse(&long), Err(PatternError::Name(NameError::TooLong)));
    }

    #[test]
    fn a_pattern_is_read_from_json_text() {
        assert!(serde_json::from_str::<Pattern>("\"a:*\"").is_ok_and(|it| it.matches("a:b")));
        let error = serde_json::from_str::<Pattern>("\"a*\"").expect_err("a stray star");
        assert!(error.to_string().contains("after a :"), "{error}");
    }
}
