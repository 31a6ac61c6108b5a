//! The head of an answer (RFC 9112 section 4).

use super::HEAD_BYTES_MAX;
use crate::proto::http::head::{Framing, lists_token};

/// A status and header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Three digits; 1xx announces another head.
    pub status: u16,
    /// The status line and the fields, without the empty line.
    text: String,
}

/// Why bytes are not the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// They do not begin with a status line of HTTP/1.
    NotHttp,
    /// It does not end within [`HEAD_BYTES_MAX`].
    TooLong,
}

impl Head {
    /// Reads a head and returns its length too, once all of it has come. Interim answers (1xx) have
    /// heads as well.
    ///
    /// # Errors
    /// It is not a head, and more bytes will not make it one.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > HEAD_BYTES_MAX { Err(HeadError::TooLong) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = text
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or(HeadError::NotHttp)?;
        Ok(Some((Self { status, text }, end + 4)))
    }

    /// Whether another answer to the same request follows (RFC 9110 section 15.2).
    pub(crate) fn is_interim(&self) -> bool {
        self.status / 100 == 1 && self.status != 101
    }

    /// Names and values, as they were written.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.text.split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
    }

    /// The first value of a field, ignoring the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// How the body is delimited; `None`: by the end of the connection.
    pub fn framing(&self) -> Option<Framing> {
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Some(Framing::Length(0));
        }
        if self.lists("transfer-encoding", "chunked") {
            return Some(Framing::Chunked);
        }
        self.field("content-length")?.parse().ok().map(Framing::Length)
    }

    /// Whether the server closes the connection after this answer.
    pub fn closes(&self) -> bool {
        self.lists("connection", "close")
    }

    /// The media type in lower case, without its parameters; empty if there is none.
    pub fn media_type(&self) -> String {
        let value = self.field("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn lists(&self, name: &str, token: &str) -> bool {
        self.field(name).is_some_and(|list| lists_token(list.as_bytes(), token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\
        CONTENT-LENGTH:  7 \r\nContent-Type: Text/HTML; charset=utf-8\r\n\
        connection: keep-alive, Close\r\n\r\nrest";

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let end = REFUSAL.len() - 4;
        for length in 0..end {
            assert_eq!(Head::parse(&REFUSAL[..length]), Ok(None), "{length}");
        }
        let (head, length) = Head::parse(REFUSAL).expect("valid").expect("whole");
        assert_eq!((head.status, length), (503, end));
        assert_eq!(head.framing(), Some(Framing::Length(7)));
        assert_eq!((head.media_type().as_str(), head.closes()), ("text/html", true));
        assert_eq!(head.field("RETRY-after"), Some("2"));
        assert_eq!(head.field("after"), None);
    }

    #[test]
    fn what_is_not_http_is_named_so() {
        for bytes in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(Head::parse(bytes.as_bytes()), Err(HeadError::NotHttp), "{bytes:?}");
        }
        assert_eq!(Head::parse(&[b'x'; HEAD_BYTES_MAX + 1]), Err(HeadError::TooLong));
    }

    #[test]
    fn a_body_is_delimited_by_what_the_head_says() {
        for (lines, framing) in [
            ("200 OK\r\nTransfer-Encoding: gzip, Chunked", Some(Framing::Chunked)),
            ("204 No\r\nContent-Length: 3", Some(Framing::Length(0))),
            ("101 Switching Protocols", Some(Framing::Length(0))),
            ("200 OK", None),
        ] {
            let text = format!("HTTP/1.1 {lines}\r\n\r\n");
            let (head, _) = Head::parse(text.as_bytes()).expect("valid").expect("whole");
            assert_eq!(head.framing(), framing, "{lines}");
        }
    }
}
