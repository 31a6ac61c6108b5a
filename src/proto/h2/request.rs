//! A request's head (RFC 9113 sections 8.2 and 8.3), rewritten as one of HTTP/1.1. What only HTTP/2
//! forbids is checked here; the rest is left to the parser that reads both versions.

use std::ops::Range;

use super::hpack::{ENTRY_OVERHEAD, HpackError};
use crate::proto::http::scan::is_token;

/// Most bytes of a head, each field charged as in the table. It is far more than `http::head` takes,
/// so that a large head gets an answer. A block that names one entry again and again ends the
/// connection before it has cost much.
pub const LIST_BYTES_MAX: usize = 64 * 1024;

/// Why reading the fields of a block stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The block can't be decoded.
    Hpack(HpackError),
    /// Its fields are more than [`LIST_BYTES_MAX`].
    TooLarge,
}

impl From<HpackError> for BlockError {
    fn from(error: HpackError) -> Self {
        Self::Hpack(error)
    }
}

/// What follows a head on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: the head ends the stream.
    None,
    /// This many bytes.
    Length(u64),
    /// Bytes until the stream ends; HTTP/1.1 is given them as chunks.
    Chunked,
    /// Another protocol's bytes, in both directions (RFC 8441).
    Tunnel,
}

/// Room for a pseudo-header field's name in tables.
#[derive(Clone, Copy)]
enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
}

const PSEUDOS: [(&[u8], Pseudo); 5] = [
    (b":method", Pseudo::Method),
    (b":scheme", Pseudo::Scheme),
    (b":authority", Pseudo::Authority),
    (b":path", Pseudo::Path),
    (b":protocol", Pseudo::Protocol),
];

/// A head that is being read, field by field: one per worker, used again for every request.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// Where each value is in `values`.
    pseudos: [Option<Range<usize>>; PSEUDOS.len()],
    host: Option<Range<usize>>,
    values: Vec<u8>,
    cookies: Vec<u8>,
    content_length: Option<u64>,
    /// All other fields, as lines.
    lines: Vec<u8>,
    has_fields: bool,
    list_bytes: usize,
    is_malformed: bool,
}

impl RequestHead {
    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        let Self { values, cookies, lines, .. } = std::mem::take(self);
        *self = Self { values, cookies, lines, ..Self::default() };
        for buffer in [&mut self.values, &mut self.cookies, &mut self.lines] {
            buffer.clear();
        }
    }

    /// Takes the next field.
    ///
    /// # Errors
    /// The head is larger than [`LIST_BYTES_MAX`].
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), BlockError> {
        self.list_bytes += name.len() + value.len() + ENTRY_OVERHEAD;
        if self.list_bytes > LIST_BYTES_MAX {
            return Err(BlockError::TooLarge);
        }
        let is_well_formed = is_value(value)
            && match name.first() {
                Some(b':') => self.pseudo(name, value),
                _ => self.regular(name, value),
            };
        self.is_malformed |= !is_well_formed;
        Ok(())
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        let known = PSEUDOS.iter().find(|(known, _)| *known == name);
        let Some((_, pseudo)) = known.filter(|_| !self.has_fields) else { return false };
        let place = self.keep(value);
        self.pseudos[*pseudo as usize].replace(place).is_none()
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.has_fields = true;
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => return false,
            b"te" => return value.eq_ignore_ascii_case(b"trailers"),
            b"host" => {
                let place = self.keep(value);
                return self.host.replace(place).is_none();
            }
            // One field may come as several (RFC 9113 section 8.2.3).
            b"cookie" => {
                let separator: &[u8] = if self.cookies.is_empty() { b"" } else { b"; " };
                self.cookies.extend_from_slice(separator);
                self.cookies.extend_from_slice(value);
                return true;
            }
            b"content-length" => {
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.content_length = length;
                if !is_number || length.is_none() {
                    return false;
                }
            }
            // `write` adds a key of our own.
            b"sec-websocket-key" if self.get(Pseudo::Protocol).is_some() => return true,
            _ => {}
        }
        write_line(&mut self.lines, name, value);
        is_name(name)
    }

    fn keep(&mut self, value: &[u8]) -> Range<usize> {
        let from = self.values.len();
        self.values.extend_from_slice(value);
        from..self.values.len()
    }

    fn get(&self, pseudo: Pseudo) -> Option<&[u8]> {
        self.pseudos[pseudo as usize].clone().map(|place| &self.values[place])
    }

    /// Whether the fields may follow a body (RFC 9113 section 8.1).
    pub(crate) fn is_trailer(&self) -> bool {
        !self.is_malformed && self.pseudos.iter().all(Option::is_none)
    }

    /// Appends the head in the form of HTTP/1.1, and returns what follows it; `None` if it is malformed
    /// (RFC 9113 section 8.1.1). `ended`: the stream ends with it.
    pub fn write(&self, ended: bool, out: &mut Vec<u8>) -> Option<Body> {
        let host = self.host()?;
        let (method, target) = self.request_line(host)?;
        let body = self.body(ended)?;
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if !host.is_empty() {
            write_line(out, b"host", host);
        }
        out.extend_from_slice(&self.lines);
        if !self.cookies.is_empty() {
            write_line(out, b"cookie", &self.cookies);
        }
        let framing: &[u8] = match body {
            Body::None if self.content_length.is_none() => b"content-length: 0\r\n",
            Body::Chunked => b"transfer-encoding: chunked\r\n",
            Body::None | Body::Length(_) | Body::Tunnel => b"",
        };
        out.extend_from_slice(framing);
        // A stream has one request.
        let connection: &[u8] = match self.get(Pseudo::Protocol) {
            Some(b"websocket") => {
                b"connection: upgrade, close\r\nupgrade: websocket\r\n\
                  sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            }
            _ => b"connection: close\r\n\r\n",
        };
        out.extend_from_slice(connection);
        Some(body)
    }

    /// The host the request is for. If two fields say it, they must agree (RFC 9113 section 8.3.1).
    fn host(&self) -> Option<&[u8]> {
        let host = self.host.clone().map(|place| &self.values[place]);
        match (self.get(Pseudo::Authority), host) {
            (Some(authority), Some(host)) => {
                authority.eq_ignore_ascii_case(host).then_some(authority)
            }
            (authority, host) => Some(authority.or(host).unwrap_or_default()),
        }
    }

    /// Method and target (RFC 9113 sections 8.3.1 and 8.5, RFC 8441 section 4).
    fn request_line<'h>(&'h self, host: &'h [u8]) -> Option<(&'h [u8], &'h [u8])> {
        let method = self.get(Pseudo::Method)?;
        if self.is_malformed || !method.iter().all(|&byte| is_token(byte)) || method.is_empty() {
            return None;
        }
        let (scheme, path) = (self.get(Pseudo::Scheme), self.get(Pseudo::Path));
        let protocol = self.get(Pseudo::Protocol);
        if method == b"CONNECT" && protocol.is_none() {
            let is_well_formed = scheme.is_none() && path.is_none() && is_target(host);
            return is_well_formed.then_some((method, host));
        }
        let (_, path) = (scheme?, path.filter(|path| is_target(path))?);
        let has_form = path.starts_with(b"/") || path == b"*" && method == b"OPTIONS";
        let method = match protocol {
            Some(_) if method != b"CONNECT" => return None,
            Some(b"websocket") => b"GET",
            _ => method,
        };
        has_form.then_some((method, path))
    }

    fn body(&self, ended: bool) -> Option<Body> {
        match self.content_length {
            _ if self.get(Pseudo::Protocol).is_some() => Some(Body::Tunnel),
            Some(1..) if ended => None,
            _ if ended => Some(Body::None),
            Some(length) => Some(Body::Length(length)),
            None => Some(Body::Chunked),
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9113 section 8.2.1. The parser finds other bytes that no field may have.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_line_end = value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
    !has_line_end && !is_blank(value.first()) && !is_blank(value.last())
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token(byte) && !byte.is_ascii_uppercase())
}

/// Whether it has no byte that would end it in a request line.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|&byte| byte > b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/sse?c=1"),
    ];

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            head.field(name.as_bytes(), value.as_bytes()).expect("a small head");
        }
        head
    }

    fn written(fields: &[(&str, &str)], ended: bool) -> Option<(String, Body)> {
        let mut out = Vec::new();
        let body = head(fields).write(ended, &mut out)?;
        Some((String::from_utf8(out).expect("text"), body))
    }

    fn with<'f>(
        base: &[(&'f str, &'f str)],
        more: &[(&'f str, &'f str)],
    ) -> Vec<(&'f str, &'f str)> {
        [base, more].concat()
    }

    #[test]
    fn a_head_becomes_one_of_http_1() {
        let fields = with(
            &GET,
            &[("accept", "*/*"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")],
        );
        let expected = "GET /sse?c=1 HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\n\
                        cookie: a=1; b=2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert_eq!(written(&fields, true), Some((expected.into(), Body::None)));
    }

    #[test]
    fn a_body_is_counted_or_comes_in_chunks() {
        let post = [(":method", "POST"), (":scheme", "http"), (":path", "/publish"), ("host", "a")];
        let (text, body) = written(&post, false).expect("a head");
        assert_eq!(body, Body::Chunked);
        assert!(text.contains("\r\ntransfer-encoding: chunked\r\n"), "{text}");
        let sized = with(&post, &[("content-length", "5")]);
        let (text, body) = written(&sized, false).expect("a head");
        assert_eq!(body, Body::Length(5));
        assert!(text.contains("\r\ncontent-length: 5\r\n"), "{text}");
        assert!(!text.contains("chunked"), "{text}");
        assert_eq!(written(&sized, true), None, "a body that was announced does not come");
    }

    #[test]
    fn a_websocket_becomes_an_upgrade() {
        let fields = with(&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]);
        let fields = with(&fields, &[("sec-websocket-version", "13"), ("sec-websocket-key", "x")]);
        let (text, body) = written(&fields, false).expect("a head");
        assert_eq!(body, Body::Tunnel);
        assert!(text.starts_with("GET /sse?c=1 HTTP/1.1\r\nhost: a.example\r\n"), "{text}");
        assert_eq!(text.matches("sec-websocket-key").count(), 1, "{text}");
        let other = with(&[(":method", "CONNECT"), (":protocol", "x")], &GET[1..]);
        assert!(written(&other, false).expect("a head").0.starts_with("CONNECT /sse?c=1 HTTP"));
        let get = with(&[(":protocol", "websocket")], &GET);
        assert_eq!(written(&get, false), None);
    }

    #[test]
    fn a_malformed_head_is_none() {
        for more in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("Accept", "*/*"),
            ("", "x"),
            ("a b", "x"),
            ("a", " x"),
            ("a", "x\t"),
            ("a", "x\r\ny: z"),
            ("a", "x\0"),
            ("host", "other.example"),
            (":path", "/again"),
            (":status", "200"),
            ("content-length", "x"),
            ("content-length", "+1"),
        ] {
            assert_eq!(written(&with(&GET, &[more]), false), None, "{more:?}");
        }
        let behind_a_field = with(&[("accept", "*/*")], &GET);
        assert_eq!(written(&behind_a_field, true), None);
        for left_out in [0, 1, 3] {
            let mut fields = GET.to_vec();
            fields.remove(left_out);
            assert_eq!(written(&fields, true), None, "without {:?}", GET[left_out]);
        }
        for path in ["", "x", "*", "/a b", "/a HTTP/1.1", "/\u{7f}", "http://b.example/"] {
            let fields = with(&GET[..3], &[(":path", path)]);
            assert_eq!(written(&fields, true), None, "{path:?}");
        }
        for method in ["", "G ET", "GET / HTTP/1.1\r\nx:"] {
            let fields = with(&GET[1..], &[(":method", method)]);
            assert_eq!(written(&fields, true), None, "{method:?}");
        }
    }

    #[test]
    fn trailers_have_fields_alone() {
        assert!(head(&[("x", "y")]).is_trailer());
        assert!(!head(&GET[..1]).is_trailer());
        assert!(!head(&[("X", "y")]).is_trailer());
    }

    #[test]
    fn fields_without_end_are_refused_and_what_they_cost_is_counted_whole() {
        let mut head = RequestHead::default();
        let taken = (0..).take_while(|_| head.field(b"a", b"").is_ok()).count();
        assert_eq!(taken, LIST_BYTES_MAX / (1 + ENTRY_OVERHEAD));
    }
}
