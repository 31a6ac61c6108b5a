//! Which server, and the requests for it.

use std::sync::Arc;

use rustls::ClientConfig;

use super::error::ClientError;
use crate::tools::wire::tls::Trust;
use crate::tools::wire::url::{BadUrl, Url};

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// For the `Host` header: as in the URL.
    authority: String,
    /// Host and port, to be resolved at every connect: addresses change.
    pub address: String,
    /// What the URL has before our paths, without a slash at its end.
    prefix: String,
    token: Option<String>,
    /// For `https`: how TLS is spoken, and to whom.
    pub tls: Option<(Arc<ClientConfig>, String)>,
}

impl Server {
    /// Requests to this URL, with its path before ours.
    pub fn parse(url: &str, token: Option<String>, trust: &Trust) -> Result<Self, ClientError> {
        let url = Url::parse(url).map_err(ClientError::Url)?;
        if url.path.contains(['?', '#']) {
            return Err(ClientError::Url(BadUrl::Malformed(url.path)));
        }
        let tls =
            url.is_secure.then(|| Ok::<_, ClientError>((trust.config()?, url.host().to_owned())));
        let tls = tls.transpose()?;
        let (address, prefix) = (url.address(), url.path.trim_end_matches('/').to_owned());
        Ok(Self { authority: url.authority, address, prefix, token, tls })
    }

    /// A request's head, with `lines` (whole, each with its CRLF) before the empty one. What goes
    /// into the target or the lines must be checked or encoded.
    pub fn request(&self, method: &str, target: &str, lines: &str) -> Vec<u8> {
        let Self { authority, prefix, .. } = self;
        let authorization = match &self.token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let agent = concat!("pushline/", env!("CARGO_PKG_VERSION"));
        format!(
            "{method} {prefix}{target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\n\
             {authorization}{lines}\r\n"
        )
        .into_bytes()
    }
}

/// Text as a query's value (and harmless in a header): every byte that could mean something is
/// percent-encoded.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_url_is_before_ours() {
        for (url, target) in [
            ("http://a/", "/sse"),
            ("http://a:8080", "/sse"),
            ("http://[::1]:9/push/", "/push/sse"),
        ] {
            let server = Server::parse(url, None, &Trust::default()).expect(url);
            let head = server.request("GET", "/sse", "");
            assert!(head.starts_with(format!("GET {target} HTTP/1.1\r\nHost: ").as_bytes()));
            assert!(head.ends_with(b"\r\n\r\n"));
        }
        assert!(Server::parse("http://a/?b", None, &Trust::default()).is_err());
    }

    #[test]
    fn what_could_mean_something_is_encoded() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode("a&b=c\r\n%é"), "a%26b%3Dc%0D%0A%25%C3%A9");
    }
}
