//! Query strings as `key=value` pairs, in the sense of `application/x-www-form-urlencoded` (WHATWG
//! URL), which is what browsers' `URLSearchParams` and `curl --data-urlencode` write. So `+` is a
//! space here, in keys and values; in a path it is a plus.

use std::borrow::Cow;

use crate::proto::reject::Reject;

/// A `%` that is not followed by two hexadecimal digits. The client's fault; 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentError;

impl From<PercentError> for Reject {
    fn from(_: PercentError) -> Self {
        Self::bad_request("query", "a % without two digits")
    }
}

/// A decoded key and its value.
pub type Pair<'q> = (Cow<'q, [u8]>, Cow<'q, [u8]>);

/// The pairs of a query, in order, decoded. A key without `=` has an empty value; empty pairs
/// (`a&&b`) are skipped. Allocates only for what is encoded.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<Pair<'_>, PercentError>> {
    query.as_bytes().split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or(&[]);
        Ok((decode_form(&pair[..equals])?, decode_form(value)?))
    })
}

fn decode_form(text: &[u8]) -> Result<Cow<'_, [u8]>, PercentError> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = next_byte(rest)? {
        // A space that was sent as `+`; a plus is sent as `%2B`.
        decoded.push(if rest[0] == b'+' { b' ' } else { byte });
        rest = after;
    }
    Ok(Cow::Owned(decoded))
}

/// The first byte of percent-encoded text (RFC 3986 section 2.1), decoded, and the text after it.
pub(crate) fn next_byte(text: &[u8]) -> Result<Option<(u8, &[u8])>, PercentError> {
    match text {
        [] => Ok(None),
        [b'%', high, low, rest @ ..] => Ok(Some((digit(*high)? << 4 | digit(*low)?, rest))),
        [b'%', ..] => Err(PercentError),
        [byte, rest @ ..] => Ok(Some((*byte, rest))),
    }
}

fn digit(byte: u8) -> Result<u8, PercentError> {
    char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(PercentError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(query: &str) -> Result<Vec<(String, String)>, PercentError> {
        pairs(query)
            .map(|pair| {
                let (key, value) = pair?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Ok((text(&key), text(&value)))
            })
            .collect()
    }

    #[test]
    fn pairs_are_decoded_as_a_form_is() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=1&a=2&&b", &[("a", "1"), ("a", "2"), ("b", "")]),
            ("a+b=c+d", &[("a b", "c d")]),
            ("a%2Bb=%26%3d%25", &[("a+b", "&=%")]),
            ("channel=user%3A42", &[("channel", "user:42")]),
            ("a=%e2%82%AC", &[("a", "€")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            assert_eq!(decoded(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_broken_percent_is_an_error() {
        for query in ["%", "a=%", "a=%4", "a=%4g", "a=%g4", "a=1&b=%%41", "%zz=1", "a=%+1"] {
            assert_eq!(decoded(query), Err(PercentError), "{query}");
        }
    }

    #[test]
    fn what_is_not_encoded_is_not_copied() {
        let (key, value) = pairs("channel=news").next().expect("one pair").expect("plain");
        assert!(matches!((key, value), (Cow::Borrowed(_), Cow::Borrowed(_))));
    }
}
