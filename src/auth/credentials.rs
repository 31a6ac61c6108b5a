//! Finds the one credential that counts among those in a request.

use std::fmt;

use super::{Denied, QueryToken, TOKEN_BYTES_MAX};

/// Everything in a request that can carry a token or key, as received.
///
/// The first of these that is present counts; the others are not even looked at, and if it is
/// refused, so is the request:
///
/// 1. `Authorization: Bearer`, a token or a publish key (another scheme is not ours: passed over),
/// 2. `X-API-Key`, a publish key,
/// 3. the WebSocket subprotocol entry `bearer.<token>`,
/// 4. `?access_token=`, if enabled,
/// 5. the cookie, if one is configured.
///
/// What a client sets on purpose comes before what a browser adds by itself. A repeated header must
/// be refused before this (`Cookie` and `Authorization` are not lists).
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a [u8]>,
    /// The `X-API-Key` header.
    pub api_key: Option<&'a [u8]>,
    /// What [`bearer_entry`] found in `Sec-WebSocket-Protocol`.
    pub subprotocol_token: Option<&'a str>,
    /// The `access_token` parameter of the query, percent-decoded.
    pub query_token: Option<&'a str>,
    /// The `Cookie` header.
    pub cookie: Option<&'a [u8]>,
    /// Whether the connection has shown a certificate, which was verified. It counts last.
    pub certified: bool,
}

impl fmt::Debug for Credentials<'_> {
    /// Shows which are present, never what they contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("authorization", &self.authorization.is_some())
            .field("api_key", &self.api_key.is_some())
            .field("subprotocol_token", &self.subprotocol_token.is_some())
            .field("query_token", &self.query_token.is_some())
            .field("cookie", &self.cookie.is_some())
            .finish()
    }
}

/// The token in an entry of `Sec-WebSocket-Protocol`, if the entry carries one. Browsers cannot
/// set headers on a WebSocket, but they can offer subprotocols; the server must never choose
/// this one, as that would echo the token.
pub fn bearer_entry(subprotocol: &str) -> Option<&str> {
    subprotocol.strip_prefix("bearer.")
}

/// The credential that counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    Nothing,
    /// A certificate, shown with the TLS handshake.
    Certificate,
    /// From `Authorization`, which may carry either.
    TokenOrPublishKey(&'a str),
    PublishKey(&'a str),
    Token(&'a str),
}

impl<'a> Credentials<'a> {
    /// Picks one in the order above.
    pub(super) fn pick(
        &self,
        cookie_name: Option<&str>,
        query_token: QueryToken,
    ) -> Result<Presented<'a>, Denied> {
        if let Some(bearer) = self.authorization.and_then(bearer_value) {
            return checked(bearer).map(Presented::TokenOrPublishKey);
        }
        if let Some(key) = self.api_key {
            return checked(key.trim_ascii()).map(Presented::PublishKey);
        }
        if let Some(token) = self.subprotocol_token {
            return checked(token.as_bytes()).map(Presented::Token);
        }
        if let Some(token) = self.query_token {
            return match query_token {
                QueryToken::Enabled => checked(token.as_bytes()).map(Presented::Token),
                QueryToken::Disabled => Err(Denied::QueryTokenDisabled),
            };
        }
        match (self.cookie, cookie_name) {
            (Some(header), Some(name)) => match cookie_value(header, name)? {
                Some(value) => checked(value).map(Presented::Token),
                None => Ok(self.nothing()),
            },
            (_, _) => Ok(self.nothing()),
        }
    }

    /// The credential of a request that sends none.
    fn nothing(&self) -> Presented<'a> {
        if self.certified { Presented::Certificate } else { Presented::Nothing }
    }
}

/// What follows the scheme `Bearer`, which is case-insensitive (RFC 9110 section 11.1). `None` if
/// the scheme is another, such as that of a proxy in front of us.
fn bearer_value(authorization: &[u8]) -> Option<&[u8]> {
    let authorization = authorization.trim_ascii();
    let scheme_end = authorization.iter().position(u8::is_ascii_whitespace);
    let (scheme, value) = authorization.split_at(scheme_end.unwrap_or(authorization.len()));
    scheme.eq_ignore_ascii_case(b"Bearer").then(|| value.trim_ascii_start())
}

/// Checks that a credential is one run of visible ASCII and not too long, before anything is
/// computed from it.
fn checked(credential: &[u8]) -> Result<&str, Denied> {
    if credential.len() > TOKEN_BYTES_MAX {
        return Err(Denied::CredentialsTooLong);
    }
    if credential.is_empty() || !credential.iter().all(u8::is_ascii_graphic) {
        return Err(Denied::MalformedCredentials);
    }
    std::str::from_utf8(credential).map_err(|_| Denied::MalformedCredentials)
}

/// The value of the cookie of this name (RFC 6265 section 4.2.1), without surrounding quotes.
/// Signing out leaves an empty one behind, which counts as none.
fn cookie_value<'a>(header: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, Denied> {
    let mut values = header.split(|byte| *byte == b';').filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let is_ours = pair[..equals].trim_ascii() == name.as_bytes();
        is_ours.then(|| unquoted(pair[equals + 1..].trim_ascii()))
    });
    let value = values.next();
    if values.next().is_some() {
        return Err(Denied::AmbiguousCookie);
    }
    Ok(value.filter(|value| !value.is_empty()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Whether the text can be a cookie's name (RFC 6265 section 4.1.1: a token).
pub(super) fn is_cookie_name(name: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(credentials: Credentials<'_>) -> Result<Presented<'_>, Denied> {
        credentials.pick(Some("session"), QueryToken::Enabled)
    }

    fn of_cookie(header: &str) -> Result<Option<&str>, Denied> {
        let cookie = Some(header.as_bytes());
        match pick(Credentials { cookie, ..Credentials::default() })? {
            Presented::Token(value) => Ok(Some(value)),
            Presented::Nothing => Ok(None),
            _ => unreachable!(),
        }
    }

    fn of_authorization(header: &str) -> Result<Option<&str>, Denied> {
        let authorization = Some(header.as_bytes());
        match pick(Credentials { authorization, ..Credentials::default() })? {
            Presented::TokenOrPublishKey(value) => Ok(Some(value)),
            Presented::Nothing => Ok(None),
            _ => unreachable!(),
        }
    }

    /// Takes the sources away one by one, from the strongest to the weakest.
    #[test]
    fn the_first_source_in_the_documented_order_counts() {
        let mut all = Credentials {
            authorization: Some(b"Bearer one"),
            api_key: Some(b"two"),
            subprotocol_token: Some("three"),
            query_token: Some("four"),
            cookie: Some(b"session=five"),
            certified: false,
        };
        assert!(pick(all) == Ok(Presented::TokenOrPublishKey("one")));
        all.authorization = Some(b"Basic cHJveHk6cHJveHk=");
        assert!(pick(all) == Ok(Presented::PublishKey("two")));
        all.api_key = None;
        assert!(pick(all) == Ok(Presented::Token("three")));
        all.subprotocol_token = None;
        assert!(pick(all) == Ok(Presented::Token("four")));
        all.query_token = None;
        assert!(pick(all) == Ok(Presented::Token("five")));
        all.cookie = None;
        assert!(pick(all) == Ok(Presented::Nothing));
    }

    #[test]
    fn a_bad_first_source_is_not_healed_by_a_good_second() {
        let credentials = Credentials {
            authorization: Some(b"Bearer "),
            cookie: Some(b"session=good"),
            ..Credentials::default()
        };
        assert!(pick(credentials) == Err(Denied::MalformedCredentials));
    }

    #[test]
    fn a_token_in_the_url_is_refused_unless_enabled() {
        let credentials = Credentials { query_token: Some("t"), ..Credentials::default() };
        assert!(credentials.pick(None, QueryToken::Enabled) == Ok(Presented::Token("t")));
        assert!(credentials.pick(None, QueryToken::Disabled) == Err(Denied::QueryTokenDisabled));
    }

    #[test]
    fn a_cookie_is_only_read_when_one_is_named() {
        let credentials = Credentials { cookie: Some(b"session=x"), ..Credentials::default() };
        assert!(credentials.pick(None, QueryToken::Enabled) == Ok(Presented::Nothing));
    }

    #[test]
    fn cookies_are_found_by_their_exact_name() {
        for (header, value) in [
            ("session=abc", Some("abc")),
            ("a=1; session=abc; b=2", Some("abc")),
            ("a=1;session=abc;b=2", Some("abc")),
            (" session = abc ", Some("abc")),
            ("session=\"abc\"", Some("abc")),
            ("session=\"abc", Some("\"abc")),
            ("session=a=b==", Some("a=b==")),
            ("xsession=abc; sessions=abc; Session=abc; session", None),
            ("a=session=abc", None),
            ("session=", None),
            ("session=\"\"", None),
            ("", None),
            (";;;=;", None),
        ] {
            assert_eq!(of_cookie(header), Ok(value), "{header}");
        }
    }

    #[test]
    fn a_cookie_sent_twice_is_refused() {
        for header in ["session=a; session=b", "session=a; x=1; session=a", "session=; session=b"] {
            assert_eq!(of_cookie(header), Err(Denied::AmbiguousCookie), "{header}");
        }
    }

    #[test]
    fn the_bearer_scheme_is_read_as_rfc_9110_has_it() {
        for (header, expected) in [
            ("Bearer abc", Ok(Some("abc"))),
            ("bEARER   abc ", Ok(Some("abc"))),
            ("Basic abc", Ok(None)),
            ("Bearerabc", Ok(None)),
            ("", Ok(None)),
            ("Bearer", Err(Denied::MalformedCredentials)),
            ("Bearer a b", Err(Denied::MalformedCredentials)),
            ("Bearer \u{e9}", Err(Denied::MalformedCredentials)),
        ] {
            assert_eq!(of_authorization(header), expected, "{header}");
        }
    }

    #[test]
    fn every_source_has_the_same_longest_length() {
        let fits = "t".repeat(TOKEN_BYTES_MAX);
        assert_eq!(of_authorization(&format!("Bearer {fits}")), Ok(Some(&*fits)));
        let long = format!("{fits}t");
        let (bearer, cookie) = (format!("Bearer {long}"), format!("session={long}"));
        let none = Credentials::default();
        for credentials in [
            Credentials { authorization: Some(bearer.as_bytes()), ..none },
            Credentials { api_key: Some(long.as_bytes()), ..none },
            Credentials { subprotocol_token: Some(&long), ..none },
            Credentials { query_token: Some(&long), ..none },
            Credentials { cookie: Some(cookie.as_bytes()), ..none },
        ] {
            assert!(pick(credentials) == Err(Denied::CredentialsTooLong), "{credentials:?}");
        }
    }

    #[test]
    fn printing_credentials_shows_none() {
        let credentials = Credentials {
            authorization: Some(b"Bearer hush"),
            api_key: Some(b"hush"),
            subprotocol_token: Some("hush"),
            query_token: Some("hush"),
            cookie: Some(b"session=hush"),
            certified: false,
        };
        let hush: Vec<String> = b"hush".iter().map(u8::to_string).collect();
        let printed = format!("{credentials:?}{credentials:#?}");
        assert!(!printed.contains("hush") && !printed.contains(&hush.join(", ")));
    }

    #[test]
    fn the_subprotocol_entry_is_recognised() {
        assert_eq!(bearer_entry("bearer.a.b.c"), Some("a.b.c"));
        assert_eq!(bearer_entry("pushline.v1"), None);
        assert_eq!(bearer_entry("bearer"), None);
    }
}
