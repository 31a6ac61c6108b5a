//! URLs of servers: `http://host[:port][/path]`.

use std::fmt;

/// A server's URL, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `host[:port]` as in the URL, for the `Host` header.
    pub authority: String,
    /// Everything after the authority: empty, or beginning with a slash. May contain placeholders.
    pub path: String,
}

/// Why a text is not a usable URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// TLS is not spoken.
    Tls(String),
    /// Not of the right form.
    Malformed(String),
}

impl Url {
    /// Takes a URL apart.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let malformed = || BadUrl::Malformed(text.to_owned());
        if text.starts_with("https://") {
            return Err(BadUrl::Tls(text.to_owned()));
        }
        let rest = text.strip_prefix("http://").ok_or_else(malformed)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let visible = authority.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '?', '#']) || !visible {
            return Err(malformed());
        }
        // A space or a line end would break the request line.
        if path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(malformed());
        }
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }

    /// Host and port, to resolve.
    pub fn address(&self) -> String {
        let authority = &self.authority;
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        if has_port { authority.clone() } else { format!("{authority}:80") }
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(url) => write!(
                f,
                "`{url}`: this command speaks plain HTTP; name the server behind the TLS proxy, as \
                 http://127.0.0.1:8080"
            ),
            Self::Malformed(url) => write!(f, "`{url}` is not a URL like http://127.0.0.1:8080"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, authority, address, path) in [
            ("http://localhost:8080", "localhost:8080", "localhost:8080", ""),
            ("http://example.com/", "example.com", "example.com:80", "/"),
            ("http://[::1]:9/push/{channel}", "[::1]:9", "[::1]:9", "/push/{channel}"),
            ("http://[::1]", "[::1]", "[::1]:80", ""),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((&*url.authority, &*url.address(), &*url.path), (authority, address, path));
        }
        for bad in ["a:1", "http://", "http:///x", "http://u@a", "http://a b", "http://a/\r\nX: y"]
        {
            assert!(matches!(Url::parse(bad), Err(BadUrl::Malformed(_))), "{bad}");
        }
        assert!(matches!(Url::parse("https://a"), Err(BadUrl::Tls(_))));
    }
}
