//! URLs of servers: `http://host[:port][/path]`, or `https://`.

use std::fmt;

/// A server's URL, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `host[:port]` as in the URL, for the `Host` header.
    pub authority: String,
    /// Everything after the authority: empty, or beginning with a slash. May contain placeholders.
    pub path: String,
    /// Whether TLS is spoken.
    pub is_secure: bool,
}

/// Why a text is not a usable URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// Not of the right form.
    Malformed(String),
}

impl Url {
    /// Takes a URL apart.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let malformed = || BadUrl::Malformed(text.to_owned());
        let secure = text.strip_prefix("https://");
        let rest = secure.or_else(|| text.strip_prefix("http://")).ok_or_else(malformed)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let visible = authority.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '?', '#']) || !visible {
            return Err(malformed());
        }
        // A space or a line end would break the request line.
        if path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(malformed());
        }
        let (authority, path) = (authority.to_owned(), path.to_owned());
        Ok(Self { authority, path, is_secure: secure.is_some() })
    }

    /// Host and port, to resolve.
    pub fn address(&self) -> String {
        let authority = &self.authority;
        match (self.has_port(), self.is_secure) {
            (true, _) => authority.clone(),
            (false, false) => format!("{authority}:80"),
            (false, true) => format!("{authority}:443"),
        }
    }

    fn has_port(&self) -> bool {
        self.authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
    }

    /// The host alone, without the brackets of an IPv6 address: what a certificate is for.
    pub fn host(&self) -> &str {
        let authority = self.authority.as_str();
        let port_at = authority.rfind(':').filter(|_| self.has_port());
        authority[..port_at.unwrap_or(authority.len())].trim_matches(['[', ']'])
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
            ("https://[::1]", "[::1]", "[::1]:443", ""),
            ("https://localhost:8443/", "localhost:8443", "localhost:8443", "/"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((&*url.authority, &*url.address(), &*url.path), (authority, address, path));
        }
        for bad in ["a:1", "http://", "http:///x", "http://u@a", "http://a b", "http://a/\r\nX: y"]
        {
            assert!(matches!(Url::parse(bad), Err(BadUrl::Malformed(_))), "{bad}");
        }
        let host = |text| Url::parse(text).expect(text).host().to_owned();
        assert_eq!([host("https://[::1]:9"), host("https://a.example")], ["::1", "a.example"]);
    }
}
