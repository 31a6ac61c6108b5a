//! Redirects requests without TLS, if the operator wants pages to be loaded with TLS.

use super::Cx;
use super::answer::Content;
use crate::proto::http::head::{Method, Request};
use crate::proto::http::response::Status;

/// The port of an `https` URL without one.
const HTTPS_PORT: u16 = 443;

/// Redirects a GET to the same URL with TLS, if that is wanted. Returns whether it has.
pub(super) fn to_tls(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    let port = cx.shared.settings.listen_tls.map(|address| address.port());
    let is_get = matches!(request.method(), Method::Get | Method::Head);
    let (Some(port), true, false) = (port, is_get, cx.session.is_secure()) else {
        return false;
    };
    let Some(host) = request.host().filter(|_| cx.shared.settings.tls.redirect) else {
        return false;
    };
    let location = location(host, port, request.path(), request.query());
    let content = Content { content_type: "text/plain", bytes: b"" };
    let headers = [("Location", location.as_slice())];
    cx.respond(Status::PermanentRedirect, &content, &headers);
    true
}

fn location(host: &[u8], port: u16, path: &str, query: &str) -> Vec<u8> {
    let mut location = [b"https://", without_port(host)].concat();
    if port != HTTPS_PORT {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(path.as_bytes());
    if !query.is_empty() {
        location.push(b'?');
        location.extend_from_slice(query.as_bytes());
    }
    location
}

/// A host may be an IPv6 address in brackets.
fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_the_same_place_at_the_other_port() {
        for (host, port, query, expected) in [
            ("a.example:8080", 8443, "channel=news", "https://a.example:8443/sse?channel=news"),
            ("a.example", 443, "", "https://a.example/sse"),
            ("[::1]:8080", 443, "", "https://[::1]/sse"),
            ("[::1]", 1, "", "https://[::1]:1/sse"),
        ] {
            assert_eq!(location(host.as_bytes(), port, "/sse", query), expected.as_bytes());
        }
    }
}
