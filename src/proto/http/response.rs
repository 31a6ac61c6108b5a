//! Responses, written straight into the connection's output.

use super::scan;

/// Statuses we send (RFC 9110 section 15).
#[allow(missing_docs, reason = "they have the names of RFC 9110; `code` has their numbers")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    SwitchingProtocols,
    Ok,
    NoContent,
    NotModified,
    PermanentRedirect,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    Gone,
    LengthRequired,
    ContentTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    ExpectationFailed,
    UpgradeRequired,
    TooManyRequests,
    HeaderFieldsTooLarge,
    InternalServerError,
    NotImplemented,
    ServiceUnavailable,
    VersionNotSupported,
}

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        // The status line is the one place that knows the numbers.
        self.line().as_bytes()[9..12].iter().fold(0, |sum, d| sum * 10 + u16::from(d - b'0'))
    }

    /// The status line, including its CRLF.
    fn line(self) -> &'static str {
        match self {
            Self::SwitchingProtocols => "HTTP/1.1 101 Switching Protocols\r\n",
            Self::Ok => "HTTP/1.1 200 OK\r\n",
            Self::NoContent => "HTTP/1.1 204 No Content\r\n",
            Self::NotModified => "HTTP/1.1 304 Not Modified\r\n",
            Self::PermanentRedirect => "HTTP/1.1 308 Permanent Redirect\r\n",
            Self::BadRequest => "HTTP/1.1 400 Bad Request\r\n",
            Self::Unauthorized => "HTTP/1.1 401 Unauthorized\r\n",
            Self::Forbidden => "HTTP/1.1 403 Forbidden\r\n",
            Self::NotFound => "HTTP/1.1 404 Not Found\r\n",
            Self::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed\r\n",
            Self::RequestTimeout => "HTTP/1.1 408 Request Timeout\r\n",
            Self::Conflict => "HTTP/1.1 409 Conflict\r\n",
            Self::Gone => "HTTP/1.1 410 Gone\r\n",
            Self::LengthRequired => "HTTP/1.1 411 Length Required\r\n",
            Self::ContentTooLarge => "HTTP/1.1 413 Content Too Large\r\n",
            Self::UriTooLong => "HTTP/1.1 414 URI Too Long\r\n",
            Self::UnsupportedMediaType => "HTTP/1.1 415 Unsupported Media Type\r\n",
            Self::ExpectationFailed => "HTTP/1.1 417 Expectation Failed\r\n",
            Self::UpgradeRequired => "HTTP/1.1 426 Upgrade Required\r\n",
            Self::TooManyRequests => "HTTP/1.1 429 Too Many Requests\r\n",
            Self::HeaderFieldsTooLarge => "HTTP/1.1 431 Request Header Fields Too Large\r\n",
            Self::InternalServerError => "HTTP/1.1 500 Internal Server Error\r\n",
            Self::NotImplemented => "HTTP/1.1 501 Not Implemented\r\n",
            Self::ServiceUnavailable => "HTTP/1.1 503 Service Unavailable\r\n",
            Self::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported\r\n",
        }
    }

    /// Whether a response of this status never has content (RFC 9110 section 6.4.1).
    fn is_bodiless(self) -> bool {
        matches!(self, Self::SwitchingProtocols | Self::NoContent | Self::NotModified)
    }
}

/// Whether the connection is kept after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It closes, and the response says so.
    Close,
    /// It is kept, which HTTP/1.1 need not say.
    KeepAlive,
    /// It is kept, which an HTTP/1.0 client must be told.
    KeepAliveHttp10,
}

/// Whether the client sees the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    /// The answer to `HEAD`: the length the body would have, and no body.
    HeadOnly,
    /// Head and body.
    Whole,
}

/// A `Date` value as RFC 9110 section 5.6.7 writes it.
pub type Date = [u8; 29];

/// What is in a response's head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What the status line says.
    pub status: Status,
    /// Whether the connection is kept. A 101 names its own `Connection` among `headers`.
    pub connection: Connection,
    /// `Content-Type`, if there is content.
    pub content_type: Option<&'a str>,
    /// `Date`, kept by the caller.
    pub date: Option<&'a Date>,
    /// Further fields. Bytes that can't be in a field value become spaces (RFC 9110 section 5.5).
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Complete lines, each with its CRLF, written unchanged: CORS fields, prepared once.
    pub prepared: &'a [u8],
}

impl Head<'_> {
    /// A head with nothing else.
    pub fn new(status: Status, connection: Connection) -> Self {
        Self { status, connection, content_type: None, date: None, headers: &[], prepared: &[] }
    }
}

/// Writes a response with its whole body and `Content-Length`.
#[inline]
pub fn write_response(out: &mut Vec<u8>, head: &Head<'_>, body: &[u8], mode: BodyMode) {
    out.reserve(HEAD_BYTES_TYPICAL + head.prepared.len() + body.len());
    write_head_with_length(out, head, body.len());
    if mode == BodyMode::Whole && !head.status.is_bodiless() {
        out.extend_from_slice(body);
    }
}

/// Appends the head of a response whose body is a stream: it has no length and ends with the
/// connection, because chunks would cost every event a header and its copy. `content` says what it is;
/// that and `extra_headers` are whole lines, each with its CRLF.
pub fn write_stream_head(out: &mut Vec<u8>, content: &[u8], date: &Date, extra_headers: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    out.extend_from_slice(content);
    out.extend_from_slice(
        b"Cache-Control: no-cache, no-transform\r\n\
          X-Accel-Buffering: no\r\n\
          X-Content-Type-Options: nosniff\r\n\
          Connection: close\r\n\
          Date: ",
    );
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(extra_headers);
    out.extend_from_slice(b"\r\n");
}

/// Writes `100 Continue`.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Reserved at once: heads without CORS fields are smaller than this.
const HEAD_BYTES_TYPICAL: usize = 256;

#[inline]
fn write_head_with_length(out: &mut Vec<u8>, head: &Head<'_>, body_len: usize) {
    write_fields(out, head);
    if !head.status.is_bodiless() {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body_len).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn write_fields(out: &mut Vec<u8>, head: &Head<'_>) {
    out.extend_from_slice(head.status.line().as_bytes());
    out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
    if let Some(date) = head.date {
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    match head.connection {
        _ if head.status == Status::SwitchingProtocols => {}
        Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Connection::KeepAlive => {}
        Connection::KeepAliveHttp10 => out.extend_from_slice(b"Connection: keep-alive\r\n"),
    }
    if let Some(content_type) = head.content_type {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(content_type.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in head.headers {
        debug_assert!(!name.is_empty() && name.bytes().all(scan::is_token));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        write_value(out, value);
        out.extend_from_slice(b"\r\n");
    }
    debug_assert!(head.prepared.is_empty() || head.prepared.ends_with(b"\r\n"));
    out.extend_from_slice(head.prepared);
}

fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    loop {
        let (clean, tail) = rest.split_at(scan::value_end(rest, 0));
        out.extend_from_slice(clean);
        let Some((_, after)) = tail.split_first() else {
            return;
        };
        out.push(b' ');
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &Date = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_whole_response_is_head_length_and_body() {
        let head = Head {
            content_type: Some("text/plain"),
            date: Some(DATE),
            headers: &[("Allow", b"GET"), ("Retry-After", b"1")],
            prepared: b"Access-Control-Allow-Origin: *\r\n",
            ..Head::new(Status::Ok, Connection::KeepAlive)
        };
        let expected = "HTTP/1.1 200 OK\r\n\
            X-Content-Type-Options: nosniff\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Content-Type: text/plain\r\n\
            Allow: GET\r\n\
            Retry-After: 1\r\n\
            Access-Control-Allow-Origin: *\r\n\
            Content-Length: 5\r\n\r\n";
        let whole = written(|out| write_response(out, &head, b"hello", BodyMode::Whole));
        assert_eq!(whole, format!("{expected}hello"));
        let head_only = written(|out| write_response(out, &head, b"hello", BodyMode::HeadOnly));
        assert_eq!(head_only, expected);
    }

    #[test]
    fn the_connection_is_named_where_the_client_would_not_know() {
        for (connection, line) in [
            (Connection::Close, Some("Connection: close\r\n")),
            (Connection::KeepAlive, None),
            (Connection::KeepAliveHttp10, Some("Connection: keep-alive\r\n")),
        ] {
            let head = Head::new(Status::Ok, connection);
            let text = written(|out| write_response(out, &head, b"", BodyMode::Whole));
            match line {
                Some(line) => assert!(text.contains(line), "{text}"),
                None => assert!(!text.contains("Connection"), "{text}"),
            }
        }
    }

    #[test]
    fn what_has_no_content_has_no_length() {
        for status in [Status::SwitchingProtocols, Status::NoContent] {
            let head = Head::new(status, Connection::KeepAlive);
            let text = written(|out| write_response(out, &head, b"", BodyMode::Whole));
            assert!(!text.contains("Content-Length"), "{text}");
        }
    }

    #[test]
    fn a_value_can_not_break_out_of_its_line() {
        let head = Head {
            headers: &[("X-Echo", b"a\r\nSet-Cookie: b\0c\td")],
            ..Head::new(Status::Ok, Connection::KeepAlive)
        };
        let text = written(|out| write_response(out, &head, b"", BodyMode::Whole));
        assert!(text.contains("\r\nX-Echo: a  Set-Cookie: b c\td\r\n"), "{text}");
    }

    #[test]
    fn status_codes_are_read_off_their_lines() {
        assert_eq!(Status::SwitchingProtocols.code(), 101);
        assert_eq!(Status::HeaderFieldsTooLarge.code(), 431);
        assert_eq!(Status::VersionNotSupported.code(), 505);
        assert_eq!(written(write_continue), "HTTP/1.1 100 Continue\r\n\r\n");
    }
}
