//! What a server answers. Sans-IO.

use std::time::Duration;

use serde::Deserialize;

use super::error::{ClientError, Refused};
use crate::proto::http::head::{Framing, lists_token};
use crate::tools::wire::HEAD_BYTES_MAX;

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// The status.
    pub status: u16,
    fields: Vec<(String, String)>,
}

impl AnswerHead {
    /// Reads a head and says how long it is, once all of it is there. Interim answers (1xx) are
    /// heads too.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ClientError> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return match bytes.len() > HEAD_BYTES_MAX {
                true => Err(ClientError::not_understood("a head without an end")),
                false => Ok(None),
            };
        };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or_else(|| ClientError::not_understood("its answer is not HTTP"))?;
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some((Self { status, fields }, end + 4)))
    }

    /// A field's value; `name` in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// How the body is delimited; none: by the end of the connection.
    pub fn framing(&self) -> Option<Framing> {
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Some(Framing::Length(0));
        }
        if self
            .field("transfer-encoding")
            .is_some_and(|list| lists_token(list.as_bytes(), "chunked"))
        {
            return Some(Framing::Chunked);
        }
        self.field("content-length")?.parse().ok().map(Framing::Length)
    }

    /// The media type in lower case, without its parameters; empty if there is none.
    pub fn media_type(&self) -> String {
        let value = self.field("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Checks that the body is of this type.
    pub fn expect_media(&self, wanted: &str) -> Result<(), ClientError> {
        match self.media_type() {
            found if found == wanted => Ok(()),
            found => {
                let found =
                    if found.is_empty() { "a body without a type".to_owned() } else { found };
                Err(ClientError::not_understood(format!("it answered {found}, not {wanted}")))
            }
        }
    }

    /// How long to wait before another try.
    fn retry_after(&self) -> Option<Duration> {
        self.field("retry-after")?.parse().ok().map(Duration::from_secs)
    }
}

/// An answer with its body.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub head: AnswerHead,
    pub body: Vec<u8>,
}

/// The parts of our JSON answers that a client looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    /// Of `POST /publish`: lines ordered.
    pub published: Option<usize>,
    /// Of `POST /publish`: the line that was refused.
    pub line: Option<u64>,
    /// Of `POST /channels/{channel}`: the event's.
    pub id: Option<String>,
    /// Of `GET` and `POST /channels/{channel}`.
    pub channel: Option<String>,
    /// Of `GET /channels/{channel}`.
    pub last_id: Option<String>,
    error: Option<ErrorFacts>,
}

#[derive(Debug, Deserialize)]
struct ErrorFacts {
    message: String,
}

impl Answer {
    /// Whether the server did what it was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    /// What the body says; nothing if it is not ours.
    pub fn facts(&self) -> Facts {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the body of a success says; any web server answers 200, but only ours says this.
    ///
    /// # Errors
    /// The answer is a refusal, or not one of ours.
    pub fn success(&self) -> Result<Facts, ClientError> {
        if !self.is_success() {
            return Err(ClientError::Refused(self.refused()));
        }
        self.head.expect_media("application/json")?;
        serde_json::from_slice(&self.body)
            .map_err(|_| ClientError::not_understood("its answer is not our JSON"))
    }

    /// The refusal this answer is.
    pub fn refused(&self) -> Refused {
        let said = self.facts().error.map(|error| error.message);
        Refused {
            status: self.head.status,
            message: said.unwrap_or_else(|| self.foreign_refusal()),
            retry_after: self.head.retry_after(),
        }
    }

    /// What to say of a refusal that a Pushline server would have explained.
    fn foreign_refusal(&self) -> String {
        match (self.head.field("location"), self.head.media_type()) {
            (Some(place), _) => format!("the server redirects to {place}; is the URL right?"),
            (None, media) if media.is_empty() => "the server refused without a word".to_owned(),
            (None, media) => {
                format!("refused with {media}, not by a Pushline server; is the URL right?")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\
        CONTENT-LENGTH:  7 \r\n\r\nrest";

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let end = REFUSAL.len() - 4;
        for length in 0..end {
            assert!(matches!(AnswerHead::parse(&REFUSAL[..length]), Ok(None)), "{length}");
        }
        let (head, length) = AnswerHead::parse(REFUSAL).expect("valid").expect("whole");
        assert_eq!((head.status, length), (503, end));
        assert_eq!(head.framing(), Some(Framing::Length(7)));
        assert_eq!(head.retry_after(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_not_http_is_not_understood() {
        assert!(AnswerHead::parse(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(AnswerHead::parse(b"HTTP/1.1 abc\r\n\r\n").is_err());
        assert!(AnswerHead::parse(&[b'x'; HEAD_BYTES_MAX + 1]).is_err());
    }
}
